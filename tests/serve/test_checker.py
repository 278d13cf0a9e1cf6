"""The real checker: what it says about pictures and films; and its limits in a process of its own (slow)."""

from __future__ import annotations

import asyncio
import io
import re
import struct
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut

from ffavatar.drive.motion import demo_motion
from ffavatar.drive.writer import FilmWriter
from ffavatar.head import load_head
from ffavatar.photo import FrontEnd, PhotoReport, load_views
from ffavatar.photo.read import FORMATS
from ffavatar.serve.checker import check_film, check_motion, check_photo
from ffavatar.serve.child import Child
from ffavatar.serve.messages import CheckFilm, CheckMotion, CheckPhoto, FilmVerdict, MotionVerdict, PhotoVerdict, Ready
from ffavatar.types import Views


@pytest.fixture(scope="module")
def front_end() -> FrontEnd:
    return FrontEnd("cpu")


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(astronaut()).save(path)
    return path


def asked(path: Path, folder: Path, pixels: int = 10**6, face: int = 0) -> CheckPhoto:
    return CheckPhoto(str(path), "me.png", face, str(folder), pixels)


def giant_png(width: int, height: int) -> bytes:
    """A small file that unfolds into width x height zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, packed = zlib.compressobj(9), b""
    row = bytes(1 + width)
    for _ in range(height):
        packed += packer.compress(row)
    packed += packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_portrait_is_kept_with_what_the_command_line_would_use(
    front_end: FrontEnd, portrait: Path, tmp_path: Path
) -> None:
    said = check_photo(front_end, asked(portrait, tmp_path / "v"))
    assert said.kept and (said.width, said.height, said.faces) == (512, 512, 1)
    views, reports = load_views([portrait], front_end=front_end)
    kept = Views(**load_file(tmp_path / "v" / "views.safetensors"))
    for name, value in vars(views).items():
        assert np.array_equal(value.numpy(), getattr(kept, name).numpy()), name
    assert PhotoReport(**said.report).yaw_deg == reports[0].yaw_deg
    with Image.open(tmp_path / "v" / "crop.webp") as crop, Image.open(tmp_path / "v" / "matte.webp") as matte:
        assert crop.size == matte.size == (256, 256)
        small = Image.fromarray((views.images[0].numpy() * 255).astype(np.uint8)).resize((256, 256))
        assert np.abs(np.asarray(crop.convert("RGB"), float) - np.asarray(small, float)).mean() < 6
        grey = np.asarray(matte.convert("L"))
        assert grey[128, 128] > 240 and grey[4, 4] < 16  # the person, the background


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"no picture", "not a photo"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 50, "not a photo"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video"),
        (giant_png(40_000, 40_000)[:5000], "megapixels"),
        (giant_png(2000, 1000), "2 megapixels, at most 1"),
    ],
    ids=["empty", "text", "broken", "film", "bomb", "large"],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_sentence(
    front_end: FrontEnd, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    said = check_photo(front_end, asked(path, tmp_path / "v"))
    assert (
        not said.kept and words in said.reason and said.reason.startswith("me.png") and str(tmp_path) not in said.reason
    )
    assert not (tmp_path / "v").exists()


def test_a_picture_without_a_face_and_a_face_that_is_not_there(
    front_end: FrontEnd, portrait: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    said = check_photo(front_end, asked(tmp_path / "grey.png", tmp_path / "v"))
    assert not said.kept and "no face" in said.reason and said.width == 300
    assert "no face 3" in check_photo(front_end, asked(portrait, tmp_path / "v", face=3)).reason


def test_of_several_people_one_is_chosen_by_the_field_that_the_interface_has(
    front_end: FrontEnd, tmp_path: Path
) -> None:
    pair = np.concatenate([astronaut()[:360, 60:420], astronaut()[:360, 420:60:-1]], 1)
    Image.fromarray(pair).save(tmp_path / "pair.png")
    verdicts = [
        check_photo(front_end, asked(tmp_path / "pair.png", tmp_path / str(face), face=face)) for face in (0, 1)
    ]
    for said in verdicts:
        assert said.kept and said.faces == 2
        assert "the option face chooses" in said.reason and "--" not in said.reason
    crops = [np.asarray(Image.open(tmp_path / str(face) / "crop.webp").convert("RGB"), float) for face in (0, 1)]
    assert np.abs(crops[0] - crops[1]).mean() > 5  # one each of the two


def heic(scale: int = 1) -> bytes:
    """The portrait as a phone would send it."""
    pillow_heif.register_heif_opener()
    made = io.BytesIO()
    picture = Image.fromarray(astronaut())
    picture.resize((picture.width * scale, picture.height * scale)).save(made, "HEIF", quality=80)
    return made.getvalue()


def test_photos_of_phones_are_taken(front_end: FrontEnd, tmp_path: Path) -> None:
    path = tmp_path / "photo.part"
    path.write_bytes(heic())
    said = check_photo(front_end, asked(path, tmp_path / "v"))
    assert said.kept and (said.width, said.height, said.faces) == (512, 512, 1), said
    small = check_photo(front_end, asked(path, tmp_path / "w", pixels=10**5))
    assert not small.kept and "megapixels" in small.reason and not (tmp_path / "w").exists()


def test_without_a_decoder_they_are_refused_with_the_remedy(
    front_end: FrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.part"
    path.write_bytes(heic())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    monkeypatch.setattr("ffavatar.photo.read.FORMATS", tuple(f for f in FORMATS if f != "HEIF"))
    said = check_photo(front_end, asked(path, tmp_path / "v"))
    assert not said.kept and said.reason == (
        "me.png is a HEIC photo, which nothing installed here can open: save it again as JPEG or PNG, or install its "
        "decoder (pip install 'ffavatar[heic]')."
    )


def test_films_are_judged_by_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with FilmWriter(path, 25, (64, 48)) as film:
        for _ in range(50):
            film.write(np.zeros((48, 64, 3), np.uint8))
    ask = CheckFilm(str(path), "me.mp4", 10.0, 64 * 48)
    said = check_film(ask)
    assert said == FilmVerdict("", pytest.approx(2.0, abs=0.1), 64, 48, 25.0)
    assert "at most 1 s" in check_film(CheckFilm(**{**asdict(ask), "seconds": 1.0})).reason
    assert "64 x 48" in check_film(CheckFilm(**{**asdict(ask), "pixels": 100})).reason
    path.write_bytes(path.read_bytes()[:200])
    broken = check_film(ask).reason
    assert broken.startswith("me.mp4") and str(tmp_path) not in broken
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert check_film(CheckFilm(str(tmp_path / "list.m3u8"), "me.mp4", 10.0, 10**6)).reason


def test_motions_are_read_and_measured(tmp_path: Path) -> None:
    motion = demo_motion(load_head(), 2.0, 25.0)
    for name in ("a.json", "a.npz"):
        motion.save(tmp_path / name)
        assert check_motion(CheckMotion(str(tmp_path / name), name, 10.0)) == MotionVerdict("", 50, 25.0)
        assert "at most 1 s" in check_motion(CheckMotion(str(tmp_path / name), name, 1.0)).reason
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes()[:-30])
    (tmp_path / "b.npz").write_bytes(b"PK" + (tmp_path / "a.npz").read_bytes()[2:-30])
    (tmp_path / "c.json").write_text("[" * 100_000)
    for name in ("b.json", "b.npz", "c.json"):
        reason = check_motion(CheckMotion(str(tmp_path / name), "walk.json", 10.0)).reason
        assert reason.startswith("walk.json is") and str(tmp_path) not in reason and reason.endswith(".")


def test_motions_of_other_programs_are_told_how_to_become_ours(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"names": ["jawOpen"], "frames": [{"weights": [0.5]}], "fps": 30}')
    reason = check_motion(CheckMotion(str(tmp_path / "x.json"), "face.json", 10.0)).reason
    assert "of another program (arkit-json)" in reason and "`ffavatar motion face.json -o motion.json`" in reason


def mapped(pid: int) -> int:
    """Most bytes of address space that a process has had."""
    found = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return 1024 * int(found[1])


@pytest.mark.slow
def test_the_process_survives_bombs_or_dies_of_them_alone(portrait: Path, tmp_path: Path) -> None:
    """99 million pixels in files of 100 KB: their memory is refused, and the next photo is taken."""
    bomb = tmp_path / "bomb"
    bomb.write_bytes(giant_png(10_000, 9_900))
    tiff = io.BytesIO()
    Image.new("L", (10_000, 9_900)).save(tiff, "TIFF", compression="tiff_deflate")
    (tmp_path / "tiff").write_bytes(tiff.getvalue())

    async def main() -> None:
        memory = 150 * 2**20
        child = await Child.start([sys.executable, "-m", "ffavatar.serve.checker", "--memory", str(memory)])
        try:
            assert isinstance(await asyncio.wait_for(child.receive(), 120), Ready)
            before = mapped(child.pid)
            for path in (bomb, tmp_path / "tiff"):
                child.send(asked(path, tmp_path / "v", pixels=10**8))
                said = await asyncio.wait_for(child.receive(), 60)
                assert isinstance(said, PhotoVerdict) and not said.kept and said.reason.startswith("me.png")
            child.send(asked(portrait, tmp_path / "v"))
            said = await asyncio.wait_for(child.receive(), 60)
            assert isinstance(said, PhotoVerdict) and said.kept
            assert mapped(child.pid) <= before + memory
        finally:
            await child.end()
        assert not child.running and not Path(f"/proc/{child.pid}").exists()

    asyncio.run(main())
