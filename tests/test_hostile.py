"""Hostile and broken files: one clear sentence that names the file, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from made_avatar import small_avatar
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file
from skimage.data import astronaut

from ffavatar import cli
from ffavatar.drive.motion import CHANNELS, demo_motion
from ffavatar.errors import InputError
from ffavatar.head import load_head

TRIPPED = "tripped"  # the file that a malicious pickle would make
PORTRAIT = np.asarray(astronaut())[:360, 60:420]


class Trap:
    """Unpickling it makes a file: proof that code of the input ran."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.place),)


def jpeg(image: np.ndarray = PORTRAIT, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def png(image: np.ndarray = PORTRAIT) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def bomb_png() -> bytes:
    """20,000 x 20,000 white pixels in some 50 KB, and all of them are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * 2500
    data = b"".join(packer.compress(row * 100) for _ in range(200)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    """Three pictures of noise, one after the other."""
    frames = [Image.fromarray(np.roll(noise(), shift, 0)) for shift in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def drawing() -> np.ndarray:
    """A smiley: a face for a child, none for an avatar."""
    image = Image.new("RGB", (300, 300), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((40, 40, 260, 260), outline="black", width=6)
    pen.ellipse((100, 110, 120, 135), fill="black")
    pen.ellipse((180, 110, 200, 135), fill="black")
    pen.arc((100, 130, 200, 210), 20, 160, fill="black", width=6)
    return np.asarray(image)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)


def film(frames: int, sound: bool = False) -> bytes:
    """An mp4 in memory; without frames and with sound it is sound only."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        if frames:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for _ in range(frames):
                container.mux(video.encode(av.VideoFrame.from_ndarray(noise()[:64, :64], format="rgb24")))
            container.mux(video.encode(None))
        if sound:
            audio = container.add_stream("aac", rate=44100)
            audio.layout = "mono"
            for block in range(20):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, 1024 * block
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return buffer.getvalue()


@lru_cache(maxsize=1)
def zip_bomb() -> bytes:
    """A sound npz of 300 MB of zeros in 300 KB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("header", *CHANNELS):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(bytes(38 * 2**20))
    return buffer.getvalue()


def avatar_bytes(folder: Path) -> bytes:
    small_avatar().save(folder / "good.safetensors")
    data = (folder / "good.safetensors").read_bytes()
    (folder / "good.safetensors").unlink()
    return data


def changed_avatar(folder: Path, change: Callable[[dict[str, np.ndarray], dict[str, str]], None]) -> bytes:
    """A good avatar with its tensors or its header changed."""
    path = folder / "good.safetensors"
    small_avatar().save(path)
    tensors = load_file(path)
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    change(tensors, header)
    save_file(tensors, path, metadata=header)
    data = path.read_bytes()
    path.unlink()
    return data


def poisoned(name: str) -> Callable[[dict[str, np.ndarray], dict[str, str]], None]:
    def change(tensors: dict[str, np.ndarray], header: dict[str, str]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] = np.nan

    return change


def motion_bytes(folder: Path, change: Callable[[dict[str, Any]], None]) -> bytes:
    path = folder / "good.json"
    demo_motion(small_avatar().rig.head, 0.5, 10).save(path)
    data = json.loads(path.read_text())
    path.unlink()
    change(data)
    return json.dumps(data).encode()


# Photos for `reconstruct`: the file's name and how its bytes are made.
PHOTOS: dict[str, Callable[[], bytes]] = {
    "empty.jpg": lambda: b"",
    "truncated.jpg": lambda: jpeg()[:3000],
    "truncated.png": lambda: png()[:20000],
    "header_only.jpg": lambda: jpeg()[:20],
    "bomb.png": bomb_png,
    "text.jpg": lambda: b"this is no picture\n" * 20,
    "binary.png": lambda: bytes(range(256)) * 40,
    "svg.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "drawing.png": lambda: png(drawing()),
    "noise.png": lambda: png(noise()),
    "blank.jpg": lambda: jpeg(np.full((300, 300, 3), 200, np.uint8)),
    "tiny.png": lambda: png(np.asarray(Image.fromarray(PORTRAIT).resize((40, 40)))),
    "one_pixel.png": lambda: png(np.zeros((1, 1, 3), np.uint8)),
    "long.png": lambda: png(np.zeros((1, 30000, 3), np.uint8)),
    "film_named.jpg": lambda: film(3),
    "pickle.jpg": lambda: pickle.dumps({"a": 1}),
    "cmyk_truncated.jpg": lambda: saved(Image.fromarray(PORTRAIT).convert("CMYK"), "JPEG")[:4000],
    "cmyk_faceless.jpg": lambda: saved(Image.fromarray(noise()).convert("CMYK"), "JPEG"),
    "animated_faceless.gif": lambda: animation("GIF"),
    "animated_truncated.gif": lambda: animation("GIF")[:300],
    "animated_faceless.webp": lambda: animation("WEBP"),
    "bomb.gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + bytes(40),
}
# Drivers for `animate`.
DRIVERS: dict[str, Callable[[Path], bytes]] = {
    "empty.mp4": lambda folder: b"",
    "text.mp4": lambda folder: b"no film\n" * 500,
    "no_frames.mp4": lambda folder: film(0, sound=True),
    "truncated.mp4": lambda folder: film(20)[:2000],
    "faceless.mp4": lambda folder: film(4),
    "playlist.mp4": lambda folder: b"#EXTM3U\n#EXTINF:4,\n/etc/hostname\n#EXT-X-ENDLIST\n",
    "photo.mp4": lambda folder: jpeg(),
    "photo.jpg": lambda folder: jpeg(),
    "lengths.json": lambda folder: motion_bytes(folder, lambda d: d["jaw"].pop()),
    "nan.json": lambda folder: motion_bytes(folder, lambda d: d["neck"][0].__setitem__(0, float("nan"))),
    "version.json": lambda folder: motion_bytes(folder, lambda d: d.update(version=99)),
    "text.json": lambda folder: b"{ not json",
    "deep.json": lambda folder: b"[" * 100_000 + b"]" * 100_000,
    "zip_bomb.npz": lambda folder: zip_bomb(),
    "pickle.npz": lambda folder: pickle.dumps(Trap(folder / TRIPPED)),
}
# Avatars for `render`.
AVATARS: dict[str, Callable[[Path], bytes]] = {
    "empty.safetensors": lambda folder: b"",
    "short.safetensors": lambda folder: b"\x08\x00",
    "truncated.safetensors": lambda folder: avatar_bytes(folder)[:-1000],
    "header_cut.safetensors": lambda folder: avatar_bytes(folder)[:200],
    "huge_header.safetensors": lambda folder: struct.pack("<Q", 2**62) + avatar_bytes(folder)[8:],
    "text.safetensors": lambda folder: b"not tensors " * 100,
    "pickle.safetensors": lambda folder: pickle.dumps(Trap(folder / TRIPPED)),
    "zip_bomb.safetensors": lambda folder: zip_bomb(),
    "photo.safetensors": lambda folder: jpeg(),
    "version.safetensors": lambda folder: changed_avatar(folder, lambda t, h: h.update(version="99")),
    "other.safetensors": lambda folder: changed_avatar(folder, lambda t, h: h.update(format="pt")),
    "missing.safetensors": lambda folder: changed_avatar(folder, lambda t, h: t.pop("colors")),
    "dtype.safetensors": lambda folder: changed_avatar(
        folder, lambda t, h: t.update(neutral=t["neutral"].astype(np.float64))
    ),
    "shape.safetensors": lambda folder: changed_avatar(folder, lambda t, h: t.update(colors=t["colors"][:7].copy())),
    "nan.safetensors": lambda folder: changed_avatar(folder, poisoned("offsets")),
    "outside.safetensors": lambda folder: changed_avatar(
        folder, lambda t, h: t.update(parents=np.full_like(t["parents"], 65535))
    ),
    "names.safetensors": lambda folder: changed_avatar(folder, lambda t, h: h.update(expression_names="[" * 50000)),
}


@pytest.fixture(scope="module")
def tiny_model() -> Any:
    from ffavatar.model import create_model

    return create_model("tiny").eval()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Any):
    """Runs a command in this process: (exit code, stdout, stderr). The weights play no part in what is tested here."""
    monkeypatch.delenv("FFAVATAR_DEBUG", raising=False)
    monkeypatch.setenv("FFAVATAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": tiny_model)
    (tmp_path / "out").mkdir()
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


def refused(result: tuple[int, str, str], name: str, folder: Path) -> None:
    """Exit code 2, nothing on stdout, one sentence on stderr that names the input, no code run, nothing written."""
    code, out, err = result
    assert code == 2, f"exit code {code}: {err}"
    assert out == ""
    assert err.startswith("ffavatar: ") and err.count("\n") == 1 and err.endswith("\n")
    assert name in err, f"{err!r} does not name {name}"
    assert "Traceback" not in err and "Error(" not in err and len(err) < 400 + err.count(str(folder)) * len(str(folder))
    assert not (folder / TRIPPED).exists()
    assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize("name", list(PHOTOS))
def test_photo(run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PHOTOS[name]())
    refused(run("reconstruct", tmp_path / name, "-o", tmp_path / "out" / "me.safetensors"), name, tmp_path)


@pytest.mark.parametrize("face", [2, 9])
def test_a_face_that_is_not_among_two_people(run, tmp_path: Path, face: int) -> None:
    Image.fromarray(np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], 1)).save(tmp_path / "two.jpg")
    out = tmp_path / "out" / "me.safetensors"
    refused(run("reconstruct", tmp_path / "two.jpg", "-o", out, "--face", face), "two.jpg", tmp_path)


def test_folders_without_a_usable_photo(run, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "letter.txt").write_text("dear all")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "one.jpg").write_bytes(jpeg()[:3000])
    small_avatar().save(tmp_path / "me.safetensors")
    for name in ("nothing", "papers", "broken"):
        out, film_out = tmp_path / "out" / "me.safetensors", tmp_path / "out" / "o.mp4"
        refused(run("reconstruct", tmp_path / name, "-o", out), name, tmp_path)
        refused(
            run("animate", tmp_path / "me.safetensors", "--driver", tmp_path / name, "-o", film_out), name, tmp_path
        )


@pytest.mark.parametrize("name", ["no_frames.mp4", "truncated.mp4", "faceless.mp4", "text.mp4"])
def test_films_in_every_place(run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DRIVERS[name](tmp_path))
    refused(run("estimate", tmp_path / name, "-o", tmp_path / "out" / "m.json"), name, tmp_path)
    refused(run("reconstruct", tmp_path / name, "-o", tmp_path / "out" / "me.safetensors"), name, tmp_path)


@pytest.mark.parametrize("name", list(DRIVERS))
def test_driver(run, tmp_path: Path, name: str) -> None:
    small_avatar().save(tmp_path / "me.safetensors")
    (tmp_path / name).write_bytes(DRIVERS[name](tmp_path))
    result = run("animate", tmp_path / "me.safetensors", "--driver", tmp_path / name, "-o", tmp_path / "out" / "o.mp4")
    refused(result, name, tmp_path)


@pytest.mark.parametrize("name", list(AVATARS))
def test_avatar(run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(AVATARS[name](tmp_path))
    refused(run("render", tmp_path / name, "-o", tmp_path / "out" / "o.png"), name, tmp_path)
    refused(run("inspect", tmp_path / name), name, tmp_path)


@pytest.mark.parametrize("kind", ["missing", "folder", "loop", "pipe", "socket", "null", "name too long"])
def test_what_is_no_file(run, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    stem, listener = kind.replace(" ", "_"), None
    match kind:
        case "folder":
            for suffix in ("jpg", "mp4", "safetensors"):
                Path(f"{stem}.{suffix}").mkdir()
        case "loop":
            for suffix in ("jpg", "mp4", "safetensors"):
                Path(f"{stem}.{suffix}").symlink_to(f"{stem}.{suffix}")
        case "pipe":
            for suffix in ("jpg", "mp4", "safetensors"):
                os.mkfifo(f"{stem}.{suffix}")
        case "socket":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("socket.jpg")
            Path("socket.mp4").symlink_to("socket.jpg")
            Path("socket.safetensors").symlink_to("socket.jpg")
        case "null":
            for suffix in ("jpg", "mp4", "safetensors"):
                Path(f"{stem}.{suffix}").symlink_to("/dev/null")
        case "name too long":
            stem = "x" * 300
    small_avatar().save("me.safetensors")
    refused(run("reconstruct", f"{stem}.jpg", "-o", "out/me.safetensors"), stem[:250], tmp_path)
    refused(run("animate", "me.safetensors", "--driver", f"{stem}.mp4", "-o", "out/o.mp4"), stem[:250], tmp_path)
    refused(run("render", f"{stem}.safetensors", "-o", "out/o.png"), stem[:250], tmp_path)
    if listener is not None:
        listener.close()


def test_outputs_that_cannot_be_written(run, tmp_path: Path) -> None:
    small_avatar().save(tmp_path / "me.safetensors")
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    (tmp_path / "film.mp4").write_bytes(film(2))
    (tmp_path / "taken.mp4").mkdir()
    (tmp_path / "taken.safetensors").mkdir()
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    me, photo, driver = tmp_path / "me.safetensors", tmp_path / "photo.jpg", tmp_path / "film.mp4"
    for output in ("no folder/me.safetensors", "taken.safetensors", "me.txt"):
        refused(run("reconstruct", photo, "-o", tmp_path / output), output, tmp_path)
    for output in ("no folder/o.mp4", "taken.mp4", "full", "o.xyz", "no folder/frames"):
        refused(run("animate", me, "--driver", driver, "-o", tmp_path / output), output, tmp_path)
    for output in ("no folder/o.png", "taken.png", "o.bmp"):
        refused(run("render", me, "-o", tmp_path / output), output, tmp_path)
    for output in ("no folder/m.json", "m.txt"):
        refused(run("estimate", driver, "-o", tmp_path / output), output, tmp_path)
    refused(run("animate", me, "--driver", driver, "-o", tmp_path / "o.mp4", "--alpha"), "o.mp4", tmp_path)
    assert (tmp_path / "full" / "precious").read_text() == "x"


def test_an_existing_output_survives_a_refusal(run, tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").write_bytes(b"precious")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    refused(run("reconstruct", tmp_path / "bad.jpg", "-o", tmp_path / "old.safetensors"), "bad.jpg", tmp_path)
    assert (tmp_path / "old.safetensors").read_bytes() == b"precious"


def test_weights_that_are_none(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    for name, data in {
        "text.safetensors": b"no weights " * 9,
        "trap.safetensors": pickle.dumps(Trap(tmp_path / TRIPPED)),
    }.items():
        (tmp_path / name).write_bytes(data)
        out = tmp_path / "out" / "me.safetensors"
        refused(run("reconstruct", tmp_path / "photo.jpg", "-o", out, "--weights", tmp_path / name), name, tmp_path)


@pytest.mark.parametrize("name", ["trap.pkl", "bomb.pkl", "text.pkl", "bomb.npz"])
def test_head_file(tmp_path: Path, name: str) -> None:
    """FLAME files are pickles: nothing in them may run."""
    data = {
        "trap.pkl": pickle.dumps({"v_template": Trap(tmp_path / TRIPPED)}),
        "bomb.pkl": zip_bomb()[:1000],
        "text.pkl": b"no pickle",
        "bomb.npz": b"PK\x03\x04" + bytes(100),
    }[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_head(tmp_path / name)
    assert name in str(caught.value)
    assert not (tmp_path / TRIPPED).exists()


def test_odd_but_valid_photos_work(run, tmp_path: Path) -> None:
    """CMYK, animated, grey, transparent, turned by EXIF: these are photos all the same; of two people one is taken."""
    face = Image.fromarray(PORTRAIT)
    face.convert("CMYK").save(tmp_path / "cmyk.jpg")
    face.save(tmp_path / "animated.gif", save_all=True, append_images=[face.rotate(90)])
    face.convert("L").save(tmp_path / "grey.png")
    face.convert("RGBA").save(tmp_path / "rgba.webp")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright, the picture lies on its side
    face.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], 1)).save(tmp_path / "two.jpg")
    names = ["cmyk.jpg", "animated.gif", "grey.png", "rgba.webp", "turned.jpg", "two.jpg"]
    photos = [tmp_path / name for name in names]
    code, out, err = run(
        "reconstruct", *photos, "-o", tmp_path / "out" / "me.safetensors", "--points", "5k", "--size", 128
    )
    assert code == 0
    # grey or coloured, one look; beside a second person other clothes seem to show
    taken = ", ".join(str(photo) for photo in photos[:5])
    assert err == f"ffavatar: Hair and clothes are those of {taken}; of the other one only the face is used.\n"
    rows = out.splitlines()
    for name, row in zip(names, rows):
        assert row.startswith("kept") and name in row
    assert "Another person" in rows[5]
    assert (tmp_path / "out" / "me.safetensors").is_file()


def test_in_real_processes(tmp_path: Path) -> None:
    """Three of them without anything patched: the whole stderr is that sentence."""
    (tmp_path / "out").mkdir()
    small_avatar().save(tmp_path / "me.safetensors")
    (tmp_path / "truncated.mp4").write_bytes(film(20)[:2000])
    (tmp_path / "trap.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / TRIPPED)))
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    jobs = {
        "truncated.mp4": ["estimate", "truncated.mp4", "-o", "out/m.json"],
        "trap.safetensors": ["render", "trap.safetensors", "-o", "out/o.png"],
        "deep.json": ["animate", "me.safetensors", "--driver", "deep.json", "-o", "out/o.mp4"],
    }
    for name, arguments in jobs.items():
        done = subprocess.run(
            [sys.executable, "-m", "ffavatar", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=180
        )
        refused((done.returncode, done.stdout, done.stderr), name, tmp_path)
