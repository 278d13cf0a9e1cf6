"""The child process that looks at what was uploaded: ``python -m ffavatar.serve.checker --memory BYTES``.

Decoders of pictures and films meet a stranger's bytes here and nowhere else before a job: in a process that holds
nothing, whose memory is limited, and that the server kills when it takes too long.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ffavatar.errors import InputError
from ffavatar.serve.inside import Line, limit_memory
from ffavatar.serve.messages import CheckFilm, CheckMotion, CheckPhoto, FilmVerdict, MotionVerdict, PhotoVerdict, Ready

if TYPE_CHECKING:
    from ffavatar.photo import FrontEnd
    from ffavatar.types import Views

CROP_PX = 512  # what the model reads, as on the command line
SHOWN_PX = 256
VIEWS_FILE, CROP_FILE, MATTE_FILE = "views.safetensors", "crop.webp", "matte.webp"


def main() -> None:
    """Answer until the server goes away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, required=True)
    memory = parser.parse_args().memory
    line = Line()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ffavatar.photo import FrontEnd

    front_end = FrontEnd("cpu")
    limit_memory(memory)
    line.send(Ready("cpu"))
    while True:
        message = line.next()
        if isinstance(message, CheckPhoto):
            line.send(check_photo(front_end, message))
        elif isinstance(message, CheckFilm):
            line.send(check_film(message))
        elif isinstance(message, CheckMotion):
            line.send(check_motion(message))


def check_photo(front_end: FrontEnd, asked: CheckPhoto) -> PhotoVerdict:
    """Judge one photo; what cannot be decoded is a verdict too."""
    from ffavatar.photo import open_photo

    try:
        width, height = picture_size(Path(asked.path), asked.name)
        if width * height > asked.pixels:
            reason = (
                f"{asked.name} has {width * height / 1e6:.0f} megapixels, at most {asked.pixels / 1e6:.0f} are taken: "
                "save it at a smaller size."
            )
            return PhotoVerdict(False, reason, width, height)
        photo = open_photo(Path(asked.path).read_bytes(), asked.name)
        result = front_end.analyse(photo.image, asked.name, asked.face, CROP_PX)
    except InputError as error:
        return PhotoVerdict(False, str(error))
    except MemoryError:
        return PhotoVerdict(False, too_heavy(asked.name))
    except RuntimeError as error:  # torch's word for no memory
        if "allocate memory" not in str(error):
            raise
        return PhotoVerdict(False, too_heavy(asked.name))
    height, width = photo.image.shape[:2]
    report = result.report
    if result.views is not None:
        _write_views(result.views, Path(asked.folder))
    notes = " ".join((*(f"Note that {note}." for note in photo.notes), *report.notes))
    return PhotoVerdict(report.kept, report.reason or notes, width, height, report.faces, asdict(report))


def too_heavy(name: str) -> str:
    """The sentence about a file that takes too much memory or time."""
    return f"{name} takes too much memory or time to open: save it again as JPEG at a smaller size."


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """(width, height) in pixels by the header. Raises ``InputError`` for what is no picture."""
    import warnings

    from PIL import Image

    from ffavatar.photo import open_photo
    from ffavatar.photo.read import FORMATS

    if path.stat().st_size == 0:
        raise InputError(f"{name} is empty: give another photo.")
    open_photo_heif()
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[f for f in FORMATS if f in Image.OPEN]) as picture:
                return picture.size
    except MemoryError:
        raise
    except Exception:  # decoders raise nearly anything on crafted files; the reader says what it is
        open_photo(path.read_bytes(), name)
        raise InputError(f"{name} is not a photo this program can read: save it again as JPEG or PNG.") from None


def open_photo_heif() -> None:
    """Let Pillow open HEIC files, where pillow-heif is installed."""
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _write_views(views: Views, folder: Path) -> None:
    """The view for the model, and small pictures of crop and matte for people."""
    import numpy as np
    from PIL import Image
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    side = (SHOWN_PX, SHOWN_PX)
    for name, values in ((CROP_FILE, views.images[0]), (MATTE_FILE, views.mattes[0] * views.valid[0])):
        pixels = (values.clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).resize(side, Image.Resampling.LANCZOS).save(folder / name)
    save_file({name: value.contiguous() for name, value in vars(views).items()}, str(folder / VIEWS_FILE))


def check_film(asked: CheckFilm) -> FilmVerdict:
    """Read a film's header, and its first frame, and compare them with the limits."""
    from ffavatar.drive.video import FrameReader, open_media

    try:
        reason = _film_too_large(asked, open_media(asked.path))
        if reason:
            return FilmVerdict(reason)
        reader = FrameReader(asked.path)
    except InputError as error:
        return FilmVerdict(str(error).replace(asked.path, asked.name))
    except MemoryError:
        return FilmVerdict(too_heavy(asked.name))
    except Exception:  # FFmpeg's errors are many
        return FilmVerdict(f"{asked.name} is not a film this program can read: give mp4, mov, webm, mkv, avi or gif.")
    width, height = reader.size or (0, 0)
    seconds = (reader.count or 0) / float(reader.fps)
    if seconds > asked.seconds:
        return FilmVerdict(_too_long(asked, seconds))
    return FilmVerdict("", round(seconds, 3), width, height, round(float(reader.fps), 4))


def check_motion(asked: CheckMotion) -> MotionVerdict:
    """Read a motion file, and compare its length with the limit."""
    from ffavatar.drive.formats import sniff
    from ffavatar.drive.motion import Motion

    try:
        if (kind := sniff(asked.path)) not in (None, "ffavatar"):
            return MotionVerdict(
                f"{asked.name} is a motion of another program ({kind}): convert it with `ffavatar motion {asked.name} "
                "-o motion.json`, and send that."
            )
        motion = Motion.load(asked.path)
    except InputError as error:
        return MotionVerdict(str(error).replace(asked.path, asked.name))
    except MemoryError:
        return MotionVerdict(f"{asked.name} takes too much memory to read: cut it shorter.")
    if motion.seconds > asked.seconds:
        return MotionVerdict(_too_long(asked, motion.seconds))
    return MotionVerdict("", len(motion), motion.fps)


def _film_too_large(asked: CheckFilm, container: object) -> str:
    """Why the header alone speaks against a film, or nothing. Closes the container."""
    import av

    assert isinstance(container, av.container.InputContainer)
    with container:
        duration = (container.duration or 0) / av.time_base
        if duration > asked.seconds:
            return _too_long(asked, duration)
        for stream in container.streams.video:
            if stream.width * stream.height > asked.pixels:
                return (
                    f"{asked.name} is {stream.width} x {stream.height} pixels, at most {asked.pixels / 1e6:.1f} "
                    "megapixels are taken: scale it down."
                )
    return ""


def _too_long(asked: CheckFilm | CheckMotion, seconds: float) -> str:
    return f"{asked.name} lasts {seconds:.0f} s, at most {asked.seconds:.0f} s are taken: cut it shorter."


if __name__ == "__main__":
    main()
