"""Reading frames: order, time, rotation, damage."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_films import add_tone, level
from PIL import Image

from ffavatar.drive.video import Frame, FrameReader, at_constant_rate, natural_key
from ffavatar.errors import InputError

Film = Callable[..., Path]


def greys(frames: list[Frame]) -> list[int]:
    return [round(float(f.image[:, : f.image.shape[1] // 2 - 4].mean())) for f in frames]


def test_frames_in_order_with_times(film: Film) -> None:
    reader = FrameReader(film("a.mp4", frames=20, fps=25))
    assert (reader.fps, reader.count, reader.size, reader.has_audio) == (25, 20, (64, 48), False)
    for _ in range(2):  # it can be read twice
        frames = list(reader)
        assert np.abs(np.subtract(greys(frames), [level(i) for i in range(20)])).max() <= 2
        assert np.allclose([f.time_s for f in frames], np.arange(20) / 25)
        assert reader.read == 20 and reader.notes == []
    assert frames[0].image.dtype == np.uint8 and frames[0].image.shape == (48, 64, 3)


def test_reading_is_lazy(film: Film) -> None:
    reader = FrameReader(film("a.mp4", frames=20))
    next(iter(reader))
    assert reader.read == 1


def test_rotation_of_a_phone_is_applied(film: Film) -> None:
    """The track header's matrix (x, y) -> (-y, x), as phones write it, turns the picture 90 degrees clockwise."""
    path = film("phone.mp4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 8  # version and flags, times and ids, reserved, layer to volume
    assert struct.unpack_from(">i", data, matrix)[0] == 0x10000
    struct.pack_into(">9i", data, matrix, 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data)
    reader = FrameReader(path)
    image = next(iter(reader)).image
    assert reader.size == (48, 64) and image.shape == (64, 48, 3)
    # What was the left half (level 20) is now the upper half.
    assert abs(float(image[:28].mean()) - level(0)) < 3 and abs(float(image[36:].mean()) - (255 - level(0))) < 3


def test_folder_of_pictures(tmp_path: Path) -> None:
    for index in (1, 2, 10):
        Image.new("RGB", (8, 6), (10 * index, 0, 0)).save(tmp_path / f"f{index}.png")
    (tmp_path / "f3.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    reader = FrameReader(tmp_path, fps=10)
    frames = list(reader)
    assert [int(f.image[0, 0, 0]) for f in frames] == [10, 20, 100]
    assert [f.time_s for f in frames] == [0.0, 0.1, pytest.approx(0.3)]
    assert len(reader.notes) == 1 and "1 of 4 pictures left out" in reader.notes[0]


def test_truncated_film_goes_on_with_what_is_there(film: Film, tmp_path: Path) -> None:
    whole = film("whole.mkv", frames=100)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    reader = FrameReader(cut)
    frames = list(reader)
    assert 1 <= len(frames) < 100 and reader.read == len(frames)
    assert len(reader.notes) == 1 and str(len(frames)) in reader.notes[0] and "\n" not in reader.notes[0]


def test_what_is_no_film(film: Film, tmp_path: Path) -> None:
    whole = film("whole.mp4", frames=30)
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"hello " * 500,
        "cut.mp4": whole.read_bytes()[: whole.stat().st_size // 2],  # its index is at the end
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
    }
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        add_tone(container, stream, 1.0)
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    for name in [*bad, "sound.mp4", "folder", "missing.mp4"]:
        with pytest.raises(InputError) as caught:
            FrameReader(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_constant_rate_passes_steady_input() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    for fps in (Fraction(25), Fraction(30000, 1001)):
        frames = [Frame(image, i / float(fps)) for i in range(50)]
        assert [n for _, n in at_constant_rate(frames, fps)] == [1] * 50


def test_constant_rate_drops_and_holds() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    frames = [Frame(image, t) for t in (0.0, 0.04, 0.041, 0.2, 0.24)]  # a doubled frame, then a gap
    times = [n for _, n in at_constant_rate(frames, 25)]
    assert times == [1, 0, 4, 1, 1]
    jump = [Frame(image, t) for t in (0.0, 5000.0, 5000.04, 3.0, 3.04)]  # broken time stamps
    assert [n for _, n in at_constant_rate(jump, 25)] == [1] * 5


def test_variable_rate_film_keeps_its_length(film: Film) -> None:
    reader = FrameReader(film("vfr.mkv", frames=6, times=[0, 1, 2, 10, 11, 20]))
    assert sum(n for _, n in at_constant_rate(reader, 25)) == 21


def test_natural_order() -> None:
    names = ["frame10.png", "frame2.png", "Frame1.png", "2.png", "a.png"]
    assert [p.name for p in sorted(map(Path, names), key=natural_key)] == [
        "2.png", "a.png", "Frame1.png", "frame2.png", "frame10.png",
    ]  # fmt: skip
