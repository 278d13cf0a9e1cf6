"""Evaluation clips: the index of a data folder, its frames, and their head crops (kept in a cache folder).

An index is a JSON file with ``clips``: ``id``, ``file`` (relative to the index), ``source_frames`` (the few-shot input)
and ``target_frames`` (held out), numbered from 0 in decoding order, and optionally ``person`` where several clips show
the same one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffavatar.drive.video import FrameReader, list_pictures
from ffavatar.errors import InputError
from ffavatar.evaluate.windows import cut_windows, five_point_box, into_windows, windows_of
from ffavatar.files import atomic_path
from ffavatar.photo import PhotoResult
from ffavatar.photo.crop import head_crop
from ffavatar.render.build import LIBRARY_NAME
from ffavatar.types import Camera, HeadParams, Views
from ffavatar.weights import sha256_of


@dataclass(frozen=True)
class Clip:
    """One film of one person, and which of its frames are input and which are held out."""

    id: str
    file: Path
    source_frames: tuple[int, ...]
    target_frames: tuple[int, ...]
    person: str = ""  # the id where the index names none

    @property
    def subject(self) -> str:
        """Whom the clip shows: figures of one subject are not independent of each other."""
        return self.person or self.id

    def run_frames(self, length: int) -> tuple[int, ...]:
        """``length`` consecutive frames that end at a target and hold no source; empty where no target allows it."""
        for last in self.target_frames:
            frames = range(last - length + 1, last + 1)
            if length > 0 and frames[0] >= 0 and not set(frames) & set(self.source_frames):
                return tuple(frames)
        return ()


@dataclass(frozen=True)
class Side:
    """Some frames of a clip as head crops."""

    views: Views
    frames: tuple[int, ...]  # their numbers, one per view
    boxes: Tensor  # (n, 3) left, top and side of each crop in frame pixels

    def first(self, count: int) -> Side:
        return Side(self.views[:count], self.frames[:count], self.boxes[:count])


@dataclass(frozen=True)
class Truth:
    """What is known exactly of drawn people."""

    identity: Tensor  # (I,)
    source: HeadParams  # one row per source view
    target: HeadParams


@dataclass(frozen=True)
class ClipViews:
    """The head crops of a clip. ``refused`` says which frames the front end gave back, and why."""

    source: Side
    target: Side
    run: Side | None  # consecutive frames for the figures of motion; None where one of them was refused
    frame_size: tuple[int, int]  # width, height in pixels
    refused: tuple[str, ...]
    key: str  # sha256 of everything the crops depend on
    cameras: tuple[Camera, Camera] | None = None  # of sources and targets, world is head space; None: not known
    truth: Truth | None = None
    shown: Side | None = None  # the targets in the square in which they are compared; None: the head crop


class FrontEndLike(Protocol):
    """What is needed of ``ffavatar.photo.FrontEnd``."""

    def analyse(self, image: np.ndarray, name: str, *, size: int) -> PhotoResult: ...


def read_index(path: str | Path) -> list[Clip]:
    """The clips of an index file, or of ``index.json`` in a folder.

    Raises ``InputError`` for a file that is not an index, missing films, and source frames among the targets.
    """
    path = Path(path)
    path = path / "index.json" if path.is_dir() else path
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["clips"]
        clips = [
            Clip(
                str(row["id"]),
                path.parent / row["file"],
                tuple(int(n) for n in row["source_frames"]),
                tuple(int(n) for n in row["target_frames"]),
                str(row.get("person", "")),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not an index of clips ({error!r}); give a folder with an index.json.") from error
    for clip in clips:
        if not clip.file.is_file():
            raise InputError(f"Clip {clip.id}: {clip.file} does not exist; complete the data folder.")
        if not clip.source_frames or not clip.target_frames:
            raise InputError(f"Clip {clip.id} needs at least one source and one target frame.")
        if shared := set(clip.source_frames) & set(clip.target_frames):
            raise InputError(
                f"Clip {clip.id}: frames {sorted(shared)} are both source and target; targets are held out."
            )
    if len({clip.id for clip in clips}) != len(clips):
        raise InputError(f"{path} names two clips alike; give each its own id.")
    return clips


def read_frames(file: Path, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """Exactly these frames, (H, W, 3) uint8 RGB, counted from 0 as they are decoded.

    Raises ``InputError`` where the film ends before.
    """
    wanted, frames = set(numbers), {}
    for number, frame in enumerate(FrameReader(file)):
        if number in wanted:
            frames[number] = frame.image
            if len(frames) == len(wanted):
                return frames
    raise InputError(f"{file} has no frame {min(wanted - set(frames))}; the index belongs to another film.")


def code_revision(*folders: Path) -> str:
    """sha256 over Python files, weights and the native library in folders: results of changed code are not taken from a
    cache."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob(LIBRARY_NAME), *folder.rglob("*.safetensors")]):
            digest.update(str(file.relative_to(folder)).encode() + bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def load_clip(
    clip: Clip, front_end: FrontEndLike, size: int, cache: Path, run: int = 0, box: str = "head"
) -> ClipViews:
    """Head crops of the clip's frames, ``size`` px a side, from ``cache`` or made by the front end and kept there.

    ``run``: also so many consecutive frames (``Clip.run_frames``). ``box``: as ``Rules.box``. Pictures and mattes are
    rounded to 8 bits, cached or not, so that figures do not depend on the cache. Frames that the front end refuses are
    left out and listed. Raises ``InputError`` if no source or no target frame is left.
    """
    revision = code_revision(Path(inspect.getfile(type(front_end))).parent)
    numbers = (clip.source_frames, clip.target_frames, clip.run_frames(run))
    key = hashlib.sha256(repr((_digest(clip.file), numbers, size, revision, _CACHE, box)).encode()).hexdigest()
    place = cache / f"{clip.id}-{size}{'' if box == 'head' else f'-{box}'}.npz"
    kept = _read_cache(place, key)
    if kept is not None:
        return kept
    frames = read_frames(clip.file, [number for group in numbers for number in group])
    results = {n: front_end.analyse(image, f"{clip.id} frame {n}", size=size) for n, image in frames.items()}
    sides = [_side(group, results) for group in numbers]
    refused = [results[n].report.reason for n in dict.fromkeys(sum(numbers, ())) if results[n].views is None]
    for side, what in zip(sides, ("source", "target")):
        if side is None:
            raise InputError(f"Clip {clip.id}: the front end refused every {what} frame.")
    source, target, running = sides
    assert source is not None and target is not None
    if running is not None and len(running.frames) < run:
        running = None
    height, width = next(iter(frames.values())).shape[:2]
    shown = None if box == "head" else _shown(target, frames, results, size)
    made = ClipViews(source, target, running, (width, height), tuple(refused), key, shown=shown)
    _write_cache(place, made)
    return made


def _digest(file: Path) -> str:
    """sha256 of a film, or of a folder's pictures and their names."""
    if not file.is_dir():
        return sha256_of(file)
    return hashlib.sha256("".join(f"{p.name}{sha256_of(p)}" for p in list_pictures(file)).encode()).hexdigest()


def _shown(target: Side, frames: dict[int, np.ndarray], results: dict[int, PhotoResult], size: int) -> Side:
    """The targets cut anew from their frames, in the square around five points; mattes are those of the head crops."""
    views, boxes = [], []
    for row, number in enumerate(target.frames):
        points = results[number].landmarks
        assert points is not None  # it has a view, so a face was found
        square = five_point_box(points)
        image, valid = head_crop(frames[number], square, size)
        boxes.append((square.left, square.top, square.side))
        window = windows_of(target.boxes[row : row + 1], torch.tensor(boxes[-1:], dtype=torch.float64))
        one = target.views[row : row + 1]
        matte = cut_windows(one.mattes[..., None], window, size)[..., 0] * valid
        views.append(
            Views(image[None], matte, valid[None], into_windows(one.landmarks, window), one.blendshapes)
        )  # fmt: skip
    return Side(_rounded(Views.cat(views)), target.frames, torch.tensor(boxes, dtype=torch.float64))


def _side(numbers: tuple[int, ...], results: dict[int, PhotoResult]) -> Side | None:
    """The frames that were kept, or None."""
    kept = [n for n in numbers if results[n].views is not None]
    if not kept:
        return None
    boxes = [results[n].report.crop_box or (0.0, 0.0, 0.0) for n in kept]
    views = [_rounded(views) for n in kept if (views := results[n].views) is not None]
    return Side(Views.cat(views), tuple(kept), torch.tensor(boxes, dtype=torch.float64))


_CACHE = 2  # version of the cache files
_BYTES = ("images", "mattes", "valid")
_FLOATS = ("landmarks", "blendshapes")
_SIDES = ("source", "target", "run", "shown")


def _rounded(views: Views) -> Views:
    """The views with pictures and mattes at multiples of 1/255; new tensors, free of the front end's inference mode."""
    return Views(
        (views.images * 255).round() / 255, (views.mattes * 255).round() / 255, views.valid.round(),
        views.landmarks.clone(), views.blendshapes.clone(),
    )  # fmt: skip


def _write_cache(place: Path, made: ClipViews) -> None:
    arrays: dict[str, Any] = {
        "key": np.array(made.key), "refused": np.array(made.refused, dtype=np.str_),
        "frame_size": np.array(made.frame_size),
    }  # fmt: skip
    for name in _SIDES:
        side: Side | None = getattr(made, name)
        if side is None:
            continue
        arrays |= {f"{name}.frames": np.array(side.frames), f"{name}.boxes": side.boxes.numpy()}
        for field in _BYTES:
            arrays[f"{name}.{field}"] = (getattr(side.views, field) * 255).round().to(torch.uint8).cpu().numpy()
        for field in _FLOATS:
            arrays[f"{name}.{field}"] = getattr(side.views, field).float().cpu().numpy()
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read_cache(place: Path, key: str) -> ClipViews | None:
    try:
        with np.load(place, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            sides = {
                name: Side(
                    Views(**{field: _tensor(file[f"{name}.{field}"]) for field in (*_BYTES, *_FLOATS)}),
                    tuple(int(n) for n in file[f"{name}.frames"]),
                    torch.from_numpy(file[f"{name}.boxes"]),
                )
                for name in _SIDES
                if f"{name}.frames" in file
            }
            width, height = (int(n) for n in file["frame_size"])
            refused = tuple(str(text) for text in file["refused"])
            size = (width, height)
            return ClipViews(
                sides["source"], sides["target"], sides.get("run"), size, refused, key, shown=sides.get("shown")
            )
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile):  # missing, or of another version
        return None


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor
