"""Submissions to the NeRSemble benchmark's monocular avatar task: written from rendered pictures, and checked.

The form is that of the benchmark's own toolkit (nersemble-benchmark 0.2, README 4.2): a zip with
``ID/SEQUENCE/cam_SERIAL.mp4`` for five people, four held-out sequences and four cameras, H.264 with crf 14, 24.3 frames
per second, 512 x 512 px, as many frames as the sequence has. The benchmark's own check of a submission is for names,
resolution and numbers of frames; so is ours, before one of the ten tries is spent.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ffavatar.data.captures.prepare import SPLITS
from ffavatar.drive.video import FrameReader, list_pictures, open_media
from ffavatar.errors import InputError
from ffavatar.files import atomic_path

Progress = Callable[[int, int | None], None]
ROOTS = ("", "mono_flame_avatar")  # of people, below the folder of a download
ALPHA_ON = (255, 255, 255)  # behind what is transparent, where the download does not show another background


@dataclass(frozen=True)
class Task:
    """What a submission must hold."""

    people: tuple[str, ...]  # three digits
    sequences: tuple[str, ...]
    cameras: tuple[str, ...]
    size: int = 512
    fps: Fraction = Fraction(243, 10)
    crf: int = 14
    frames: tuple[tuple[str, int], ...] = ()  # known totals of a person's sequences

    def films(self) -> list[str]:
        """The zip's files, sorted."""
        return sorted(f"{p}/{s}/cam_{c}.mp4" for p in self.people for s in self.sequences for c in self.cameras)


def mono_avatar() -> Task:
    """The task as it is published; people, sequences and cameras are those of the split ``nersemble_benchmark``."""
    split = json.loads((SPLITS / "nersemble_benchmark.json").read_text(encoding="utf-8"))
    totals = (("393", 816), ("404", 665), ("461", 486), ("477", 530), ("486", 608))
    cameras = (*split["train_cameras"], *split["held_out_cameras"])
    return Task(tuple(split["people"]), tuple(split["sequences"]), cameras, frames=totals)


def person_folder(data: Path, person: str) -> Path:
    """A person's folder in a download of the benchmark, given by its own folder or that of the task."""
    return next((place for root in ROOTS if (place := data / root / person).is_dir()), data / person)


def tracking_file(data: Path, person: str, sequence: str) -> Path | None:
    """The FLAME track of a sequence in a download; None where there is none."""
    folder = person_folder(data, person) / "sequences" / sequence / "tracking"
    return next(iter(sorted(folder.glob("flame2023_tracking*.npz"))), None)


def frame_counts(data: Path, task: Task) -> dict[tuple[str, str], int]:
    """(person, sequence) -> frames, from the FLAME tracking in a download of the benchmark.

    Raises ``InputError`` where the tracking of a sequence is missing or cannot be read.
    """
    counts = {}
    for person in task.people:
        for sequence in task.sequences:
            try:
                place = tracking_file(data, person, sequence)
                if place is None:
                    raise ValueError("no file")
                with np.load(place, allow_pickle=False) as file:
                    counts[person, sequence] = len(file["expression"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"{data} has no readable tracking of {person}/{sequence} (tracking/flame2023_tracking.npz); give "
                    "the folder of the benchmark's download."
                ) from error
    return counts


def background_of(data: Path, task: Task) -> tuple[int, int, int]:
    """The colour that the download's pictures have where the background was taken out: the median of the corners of the
    first training picture found; white where there is none."""
    for person in task.people:
        for film in sorted((person_folder(data, person) / "sequences").glob("*/images/cam_*.mp4")):
            image = next(iter(FrameReader(film))).image
            corners = np.stack([image[0, 0], image[0, -1], image[4, 4], image[4, -5]])
            red, green, blue = np.median(corners, axis=0).round().astype(int).tolist()
            return red, green, blue
    return ALPHA_ON


def write_submission(
    pictures: Path,
    output: Path,
    data: Path | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
) -> Path:
    """``ID/SEQUENCE/cam_SERIAL/`` folders of pictures (any names, natural order) to the zip ``output``.

    Pictures with transparency are laid on the background of the benchmark's own pictures (``data``: its download). The
    films are kept beside the zip until it is whole, so a stopped run goes on. Returns the zip's path.

    Raises ``InputError`` for a missing folder, pictures of another size, and a submission that would be refused.
    """
    task = task or mono_avatar()
    if output.suffix.lower() != ".zip":
        raise InputError(f"{output}: a submission is written as .zip; change the file name's ending.")
    behind = ALPHA_ON if data is None else background_of(data, task)
    counts = None if data is None else frame_counts(data, task)
    films = task.films()
    on = "" if behind == ALPHA_ON else "-" + bytes(behind).hex()
    work = output.with_name(f"{output.stem}-films{on}")
    for name in films:
        folder = (pictures / name).with_suffix("")
        if not folder.is_dir() or not list_pictures(folder):
            raise InputError(f"{pictures} has no folder {name.removesuffix('.mp4')} of pictures; render it first.")
    for number, name in enumerate(films, 1):
        sources = list_pictures((pictures / name).with_suffix(""))
        place = work / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not _up_to_date(place, sources):
            with atomic_path(place) as temporary:
                _encode(temporary, _frames(sources, task.size, behind), task)
        if progress is not None:
            progress(number, len(films))
    if problems := check_submission(work, data, task, counts):
        raise InputError(f"The pictures in {pictures} make no submission: {'; '.join(problems[:5])}; correct them.")
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in films:
            archive.write(work / name, name)
    for name in films:
        (work / name).unlink()
    for folder in sorted(work.rglob("*"), reverse=True):
        folder.rmdir()
    work.rmdir()
    return output


def _up_to_date(place: Path, sources: Sequence[Path]) -> bool:
    if not place.is_file() or not sources:
        return False
    return _about(place)[1] == len(sources) and max(s.stat().st_mtime for s in sources) <= place.stat().st_mtime


def _frames(sources: Sequence[Path], size: int, behind: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for file in sources:
        try:
            with Image.open(file) as picture:
                shown = picture.convert("RGBA")
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{file} cannot be read ({error}); render it again.") from error
        if shown.size != (size, size):
            raise InputError(f"{file} is {shown.width} x {shown.height} px; the benchmark wants {size} x {size}.")
        yield np.array(Image.alpha_composite(Image.new("RGBA", shown.size, behind), shown).convert("RGB"))


def _encode(place: Path, frames: Iterator[np.ndarray], task: Task) -> None:
    with av.open(str(place), "w", format="mp4") as container:
        # as the toolkit's writer: ffmpeg's defaults, so that its reader undoes exactly what was done
        stream = container.add_stream("libx264", rate=task.fps, options={"crf": str(task.crf)})
        stream.width = stream.height = task.size
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _about(film: Path | bytes) -> tuple[tuple[int, int], int]:
    """(width, height) and the number of frames of a film."""
    with open_media(film) if isinstance(film, Path) else av.open(io.BytesIO(film), "r") as container:
        stream = container.streams.video[0]
        count = sum(packet.size > 0 for packet in container.demux(stream))
        return (stream.width, stream.height), count


def check_submission(
    place: Path,
    data: Path | None = None,
    task: Task | None = None,
    counts: dict[tuple[str, str], int] | None = None,
) -> list[str]:
    """What is wrong with a submission (zip, or folder of the same files), a sentence each; nothing where it is whole.

    With ``data``, the benchmark's download, numbers of frames are those of its tracking; without, the cameras of a
    sequence must agree and a person's sequences make the published total. Raises ``InputError`` where ``place`` is
    neither a zip nor a folder.
    """
    task = task or mono_avatar()
    if counts is None and data is not None:
        counts = frame_counts(data, task)
    archive: zipfile.ZipFile | None = None
    if place.is_dir():
        names = sorted(str(f.relative_to(place).as_posix()) for f in place.rglob("*") if f.is_file())
    else:
        try:
            archive = zipfile.ZipFile(place)
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{place} is no zip of a submission ({error}); give a .zip or a folder.") from error
    expected = task.films()
    problems = [f"{name} is missing" for name in expected if name not in names]
    problems += [f"{name} does not belong there" for name in names if name not in expected]
    frames: dict[tuple[str, str], set[int]] = {}
    for name in expected:
        if name not in names:
            continue
        try:
            size, count = _about(place / name if archive is None else archive.read(name))
        except (av.FFmpegError, OSError, ValueError, IndexError, InputError, zipfile.BadZipFile):
            problems.append(f"{name} is no readable film")
            continue
        person, sequence, _ = name.split("/")
        frames.setdefault((person, sequence), set()).add(count)
        if size != (task.size, task.size):
            problems.append(f"{name} is {size[0]} x {size[1]} px, not {task.size} x {task.size}")
        if counts is not None and count != counts[person, sequence]:
            problems.append(f"{name} has {count} frames, not {counts[person, sequence]}")
    if archive is not None:
        archive.close()
    if counts is None:
        problems += _totals(frames, task)
    return problems


def _totals(frames: dict[tuple[str, str], set[int]], task: Task) -> list[str]:
    uneven = [f"{p}/{s}: its cameras have {sorted(n)} frames" for (p, s), n in frames.items() if len(n) > 1]
    for person, total in task.frames:
        found = [frames.get((person, sequence), set()) for sequence in task.sequences]
        if all(len(counts) == 1 for counts in found) and (made := sum(sum(c) for c in found)) != total:
            uneven.append(f"{person}: {made} frames in all, not {total}")
    return uneven
