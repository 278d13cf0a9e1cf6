"""Submissions on a generated tree of small pictures, read back by a reader of the toolkit's kind."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ffavatar.commands.submission import submission
from ffavatar.errors import InputError
from ffavatar.evaluate.submission import Task, check_submission, mono_avatar, write_submission

SMALL = Task(("393", "404"), ("FREE", "EMO-1-shout+laugh"), ("222200037", "220700191"), size=64, frames=(("393", 7),))
FRAMES = {"FREE": 3, "EMO-1-shout+laugh": 4}


def shade(person: str, sequence: str, camera: str, frame: int) -> tuple[int, int, int]:
    return 40 + 20 * frame, 30 + int(person) % 100, 90 + len(sequence) + int(camera) % 50


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A disc of a colour that tells which frame of which film it is, on transparency. Names sort naturally only."""
    y, x = np.mgrid[:64, :64] - 31.5
    disc = (np.hypot(x, y) < 20).astype(np.uint8) * 255
    for person in SMALL.people:
        for sequence, count in FRAMES.items():
            for camera in SMALL.cameras:
                folder = tmp_path / "pictures" / person / sequence / f"cam_{camera}"
                folder.mkdir(parents=True)
                for frame in range(count):
                    colour = np.broadcast_to(np.uint8(shade(person, sequence, camera, frame)), (64, 64, 3))
                    Image.fromarray(np.dstack([colour, disc])).save(folder / f"f{8 + frame}.png")
    return tmp_path / "pictures"


def download(root: Path, grey: int | None = None) -> Path:
    """The benchmark's download: tracking of the held-out sequences, a training film."""
    for person in SMALL.people:
        for sequence, count in FRAMES.items():
            place = root / "mono_flame_avatar" / person / "sequences" / sequence / "tracking"
            place.mkdir(parents=True)
            np.savez(place / "flame2023_tracking.npz", expression=np.zeros((count, 100)), shape=np.zeros((1, 300)))
        if grey is not None:
            film = root / "mono_flame_avatar" / person / "sequences" / "EXP-1-head" / "images" / "cam_222200037.mp4"
            film.parent.mkdir(parents=True)
            with av.open(str(film), "w") as container:
                stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
                stream.width = stream.height = 64
                stream.pix_fmt = "yuv420p"
                image = np.full((64, 64, 3), grey, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                container.mux(stream.encode())
    return root


def test_the_task_is_the_published_one() -> None:
    task = mono_avatar()
    films = task.films()
    assert len(films) == 5 * 4 * 4 and (task.size, task.crf, task.fps) == (512, 14, Fraction("24.3"))
    # the first and last of the toolkit's README
    assert films[:4] == [
        f"393/EMO-1-shout+laugh/cam_{serial}.mp4" for serial in ("220700191", "222200037", "222200039", "222200046")
    ]
    assert films[-1] == "486/SEN-10-port_strong_smokey/cam_222200046.mp4"
    assert sum(count for _, count in task.frames) == 3105


@pytest.mark.parametrize("grey", [None, 60])
def test_films_hold_the_pictures_in_order(pictures: Path, tmp_path: Path, grey: int | None) -> None:
    data = None if grey is None else download(tmp_path / "data", grey)
    out = write_submission(pictures, tmp_path / "s.zip", data, SMALL)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("s")) == ["s.zip"]
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == SMALL.films()
        for name in SMALL.films():
            person, sequence, camera = name.removesuffix(".mp4").split("/")
            with archive.open(name) as file, av.open(file) as container:
                stream = container.streams.video[0]
                assert stream.codec_context.name == "h264" and stream.average_rate == Fraction(243, 10)
                frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
            assert len(frames) == FRAMES[sequence]
            for number, frame in enumerate(frames):
                expected = shade(person, sequence, camera.removeprefix("cam_"), number)
                assert np.abs(frame[32, 32].astype(int) - expected).max() <= 4, (name, number)
                assert np.abs(frame[2, 2].astype(int) - (grey or 255)).max() <= 3
    assert check_submission(out, data, SMALL) == []


def test_what_the_benchmark_would_refuse_is_found(pictures: Path, tmp_path: Path) -> None:
    out = write_submission(pictures, tmp_path / "s.zip", None, SMALL)
    with zipfile.ZipFile(out) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    free, shout = "393/FREE/cam_220700191.mp4", "393/EMO-1-shout+laugh/cam_220700191.mp4"

    def problems(changed: dict[str, bytes | None], task: Task = SMALL, data: Path | None = None) -> list[str]:
        place = tmp_path / "other.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in (files | changed).items():
                if content is not None:
                    archive.writestr(name, content)
        return check_submission(place, data, task)

    assert problems({}) == []
    assert problems({free: None}) == [f"{free} is missing"]
    assert problems({"393/notes.txt": b"x"}) == ["393/notes.txt does not belong there"]
    assert problems({free: b"no film"}) == [f"{free} is no readable film"]
    assert problems({free: files[shout]}) == ["393/FREE: its cameras have [3, 4] frames"]
    longer = {name: files[shout] for name in files if name.startswith("393/FREE")}
    assert problems(longer) == ["393: 8 frames in all, not 7"]
    data = download(tmp_path / "data")
    assert problems(longer, data=data) == [f"{name} has 4 frames, not 3" for name in sorted(longer)]
    other_size = Task(SMALL.people, SMALL.sequences, SMALL.cameras, size=32)
    assert all(text.endswith("is 64 x 64 px, not 32 x 32") for text in problems({}, other_size))
    with pytest.raises(InputError, match="no zip of a submission"):
        (tmp_path / "x.zip").write_bytes(b"x")
        check_submission(tmp_path / "x.zip", None, SMALL)
    with pytest.raises(InputError, match="no readable tracking of 393/FREE"):
        check_submission(out, tmp_path / "nothing", SMALL)


def test_a_stopped_writer_goes_on_and_wrong_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def stop(done: int, total: int | None) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    out, work = tmp_path / "s.zip", tmp_path / "s-films"
    with pytest.raises(KeyboardInterrupt):
        write_submission(pictures, out, None, SMALL, stop)
    kept = {p: p.stat().st_mtime_ns for p in work.rglob("*.mp4")}
    assert len(kept) == 3 and not out.exists()
    again: dict[Path, int] = {}

    def look(done: int, total: int | None) -> None:
        if done == total:
            again.update({p: p.stat().st_mtime_ns for p in kept})

    write_submission(pictures, out, None, SMALL, look)
    assert again == kept and not work.exists()
    folder = pictures / "404" / "FREE" / "cam_220700191"
    Image.new("RGB", (65, 64)).save(folder / "f9.png")
    with pytest.raises(InputError, match=r"f9\.png is 65 x 64 px"):
        write_submission(pictures, out, None, SMALL)
    (folder / "f9.png").unlink()
    with pytest.raises(InputError, match=r"its cameras have \[2, 3\] frames"):
        write_submission(pictures, out, None, SMALL)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="has no folder 404/FREE/cam_220700191"):
        write_submission(pictures, out, None, SMALL)
    with pytest.raises(InputError, match=r"written as \.zip"):
        write_submission(pictures, tmp_path / "s.tar", None, SMALL)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="would be refused for 80 reasons"):
        submission(tmp_path / "empty")
    assert "393/EMO-1-shout+laugh/cam_220700191.mp4 is missing" in capsys.readouterr().out
    with pytest.raises(InputError, match="render it first"):
        submission(tmp_path / "empty", tmp_path / "s.zip")
