"""Writing films and stills: round trips, sound, transparency, marks, atomicity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from ffavatar.drive.marks import SENTENCE, SOURCE_TYPE, save_still
from ffavatar.drive.video import FrameReader
from ffavatar.drive.writer import FilmWriter, check_film_output
from ffavatar.errors import InputError

Film = Callable[..., Path]


def picture(size: tuple[int, int], alpha: bool = False) -> np.ndarray:
    """Red left, blue right; with ``alpha`` the upper half is opaque."""
    image = np.zeros((size[1], size[0], 4 if alpha else 3), np.uint8)
    image[:, : size[0] // 2, :3] = (200, 40, 60)
    image[:, size[0] // 2 :, :3] = (30, 160, 220)
    if alpha:
        image[: size[1] // 2, :, 3] = 255
    return image


@pytest.mark.parametrize("name", ["a.mp4", "a.m4v", "a.mov", "a.webm", "a.gif"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    with FilmWriter(tmp_path / name, 25, (64, 48)) as film:
        for _ in range(12):
            film.write(picture((64, 48)))
    reader = FrameReader(tmp_path / name)
    frames = list(reader)
    assert len(frames) == 12 and reader.fps == 25
    for column, colour in ((10, (200, 40, 60)), (54, (30, 160, 220))):
        assert np.abs(frames[6].image[20, column].astype(int) - colour).max() <= 5
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_h264_as_players_want_it(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "a.mp4", 30000 / 1001, (65, 49)) as film:
        film.write(picture((65, 49)))
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (66, 50) and stream.average_rate == pytest.approx(30000 / 1001)
        assert stream.codec_context.colorspace == 1 and stream.codec_context.color_range == 1
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser can begin before the end has come


def test_transparent_film(tmp_path: Path) -> None:
    for name in ("a.webm", "a.mov"):
        with FilmWriter(tmp_path / name, 25, (64, 48), alpha=True) as film:
            for _ in range(4):
                film.write(picture((64, 48), alpha=True))
        with av.open(str(tmp_path / name)) as container:
            if name.endswith("webm"):  # FFmpeg's own VP9 decoder leaves alpha out, libvpx reads it
                decoder = av.CodecContext.create("libvpx-vp9", "r")
                frames = [f for p in container.demux(video=0) for f in (decoder.decode(p) if p.size else [])]
            else:
                frames = list(container.decode(video=0))
        rgba = frames[2].to_ndarray(format="rgba")
        assert len(frames) >= 3
        assert rgba[10, 10, 3] > 250 and rgba[40, 10, 3] < 5
    with FilmWriter(tmp_path / "a.gif", 25, (64, 48), alpha=True) as film:
        film.write(picture((64, 48), alpha=True))
        film.write(picture((64, 48), alpha=True))
    with Image.open(tmp_path / "a.gif") as image:
        rgba = np.asarray(image.convert("RGBA"))
    assert rgba[10, 10, 3] == 255 and rgba[40, 10, 3] == 0


def test_a_transparent_gif_keeps_what_only_its_last_row_shows(tmp_path: Path) -> None:
    """Shoulders are widest where the picture ends; FFmpeg's encoder would take the rest of that margin for empty."""
    image = np.zeros((48, 64, 4), np.uint8)
    image[20:, 24:40] = (200, 120, 90, 255)
    image[47, 4:60] = (40, 60, 160, 200)
    soft = np.arange(64, dtype=np.uint8)[None] * 4
    image[30, :, 3] = soft
    with FilmWriter(tmp_path / "a.gif", 25, (64, 48), alpha=True) as film:
        for shift in range(4):
            film.write(np.roll(image, shift, 1))
    with Image.open(tmp_path / "a.gif") as read:
        frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(read)]
    assert len(frames) == 4
    for shift, frame in enumerate(frames):
        wanted = np.where(np.roll(image, shift, 1)[..., 3] >= 128, 255, 0)
        assert np.array_equal(frame[..., 3], wanted), f"frame {shift}"


def test_folder_of_pngs(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "frames", 25, (8, 6), alpha=True) as film:
        for _ in range(3):
            film.write(picture((8, 6), alpha=True))
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == [f"frame_{i:06d}.png" for i in (1, 2, 3)]
    with Image.open(tmp_path / "frames" / "frame_000002.png") as read:
        assert np.array_equal(np.asarray(read), picture((8, 6), alpha=True))


def sound_of(path: Path) -> tuple[str, float, float]:
    """Codec, seconds and strongest frequency of a film's sound."""
    with av.open(str(path)) as container:
        name = container.streams.audio[0].codec_context.name
        frames = list(container.decode(audio=0))
    samples = np.concatenate([f.to_ndarray().astype(float)[0] for f in frames])
    samples = samples[: len(samples) // 2 * 2]
    rate = frames[0].sample_rate
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * rate / len(middle)
    return name, len(samples) / rate, float(peak)


@pytest.mark.parametrize(
    ("source", "codec", "target", "expected"),
    [
        ("s.mp4", "aac", "out.mp4", "aac"),  # copied
        ("s.mkv", "flac", "out.mp4", "aac"),  # encoded anew
        ("s.mp4", "aac", "out.webm", "opus"),
    ],
)
def test_sound_is_kept(film: Film, tmp_path: Path, source: str, codec: str, target: str, expected: str) -> None:
    driver = film(source, frames=50, sound=codec)
    with FilmWriter(tmp_path / target, 25, (64, 48), audio_from=driver) as out:
        for _ in range(25):  # half the driver: the sound ends with the film
            out.write(picture((64, 48)))
    name, seconds, peak = sound_of(tmp_path / target)
    assert name == expected
    assert seconds == pytest.approx(1.0, abs=0.06)
    assert peak == pytest.approx(440, abs=6)
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.audio[0].start_time in (0, None) or (
            abs(float(container.streams.audio[0].start_time * container.streams.audio[0].time_base)) < 0.05
        )


def test_silent_driver_gives_silent_film(film: Film, tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "o.mp4", 25, (64, 48), audio_from=film("s.mp4")) as out:
        out.write(picture((64, 48)))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(container.streams.audio) == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.gif"])
def test_films_are_marked(tmp_path: Path, name: str) -> None:
    with FilmWriter(tmp_path / name, 25, (64, 48)) as film:
        film.write(picture((64, 48)))
    with av.open(str(tmp_path / name)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert SENTENCE in tags["comment"] and "AI-generated" in SENTENCE and "FFAvatar" in SENTENCE
    assert SOURCE_TYPE.encode() in (tmp_path / name).read_bytes()
    assert SOURCE_TYPE.endswith("/trainedAlgorithmicMedia")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_stills_are_marked(tmp_path: Path, name: str) -> None:
    save_still(tmp_path / name, picture((64, 48)))
    with Image.open(tmp_path / name) as image:
        image.load()
    assert image.size == (64, 48)
    if name == "a.png":
        assert image.text["Comment"] == SENTENCE  # type: ignore[attr-defined]
    xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    xmp = xmp if isinstance(xmp, str) else xmp.decode()
    assert f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"' in xmp
    body = xmp[xmp.index("?>") + 2 : xmp.rindex("<?xpacket")]
    assert SENTENCE in "".join(ElementTree.fromstring(body).itertext())  # well-formed


def test_marked_png_frames(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "frames", 25, (8, 6)) as film:
        film.write(picture((8, 6)))
    with Image.open(tmp_path / "frames" / "frame_000001.png") as image:
        image.load()
    assert image.text["Comment"] == SENTENCE  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "frames"])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_interrupted_film_leaves_nothing(tmp_path: Path, name: str, failure: type[BaseException]) -> None:
    with pytest.raises(failure), FilmWriter(tmp_path / name, 25, (64, 48)) as film:
        film.write(picture((64, 48)))
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_film_without_frames_is_refused(tmp_path: Path) -> None:
    for name in ("a.mp4", "frames"):
        with pytest.raises(InputError, match="no frame"), FilmWriter(tmp_path / name, 25, (64, 48)):
            pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_outputs_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    for name, alpha in (("a.xyz", False), ("a.mp4", True), ("no/a.mp4", False), ("full", False), ("no/frames", False)):
        with pytest.raises(InputError):
            check_film_output(tmp_path / name, alpha)
    with pytest.raises(InputError, match="transparency"):
        save_still(tmp_path / "a.jpg", picture((8, 6), alpha=True))
    with pytest.raises(InputError, match="pictures are written as"):
        save_still(tmp_path / "a.bmp", picture((8, 6)))


def test_frame_of_the_wrong_size_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the film takes"), FilmWriter(tmp_path / "a.mp4", 25, (64, 48)) as film:
        film.write(picture((32, 48)))
    assert list(tmp_path.iterdir()) == []
