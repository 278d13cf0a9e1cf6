"""Evaluation clips: the index of a data folder, its frames, and their head crops (kept in a cache folder).

An index is a JSON file with ``clips``: ``id``, ``file`` (relative to the index), ``source_frames`` (the few-shot input)
and ``target_frames`` (held out), numbered from 0 in decoding order.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.photo import PhotoResult
from ffavatar.types import Views
from ffavatar.weights import sha256_of


@dataclass(frozen=True)
class Clip:
    """One film of one person, and which of its frames are input and which are held out."""

    id: str
    file: Path
    source_frames: tuple[int, ...]
    target_frames: tuple[int, ...]


@dataclass(frozen=True)
class ClipViews:
    """The head crops of a clip. ``refused`` says which frames the front end gave back, and why."""

    source: Views
    target: Views
    refused: tuple[str, ...]
    key: str  # sha256 of everything the crops depend on


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
    """sha256 over the Python files and libraries in folders: results of changed code are not taken from a cache."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.so"), *folder.rglob("*.safetensors")]):
            digest.update(str(file.relative_to(folder)).encode() + bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def load_clip(clip: Clip, front_end: FrontEndLike, size: int, cache: Path) -> ClipViews:
    """Head crops of the clip's frames, ``size`` px a side, from ``cache`` or made by the front end and kept there.

    Pictures and mattes are rounded to 8 bits, cached or not, so that figures do not depend on the cache. Frames that
    the front end refuses are left out and listed. Raises ``InputError`` if no source or no target frame is left.
    """
    revision = code_revision(Path(inspect.getfile(type(front_end))).parent)
    numbers = (clip.source_frames, clip.target_frames)
    key = hashlib.sha256(repr((sha256_of(clip.file), numbers, size, revision)).encode()).hexdigest()
    place = cache / f"{clip.id}-{size}.npz"
    kept = _read_cache(place, key)
    if kept is not None:
        return kept
    frames = read_frames(clip.file, (*clip.source_frames, *clip.target_frames))
    found: list[list[Views]] = []
    refused = []
    for group in numbers:
        views = []
        for number in group:
            result = front_end.analyse(frames[number], f"{clip.id} frame {number}", size=size)
            if result.views is None:
                refused.append(result.report.reason)
            else:
                views.append(_rounded(result.views))
        if not views:
            raise InputError(f"Clip {clip.id}: the front end refused every {'target' if found else 'source'} frame.")
        found.append(views)
    made = ClipViews(Views.cat(found[0]), Views.cat(found[1]), tuple(refused), key)
    _write_cache(place, made)
    return made


_BYTES = ("images", "mattes", "valid")
_FLOATS = ("landmarks", "blendshapes")


def _rounded(views: Views) -> Views:
    """The views with pictures and mattes at multiples of 1/255; new tensors, free of the front end's inference mode."""
    return Views(
        (views.images * 255).round() / 255, (views.mattes * 255).round() / 255, views.valid.round(),
        views.landmarks.clone(), views.blendshapes.clone(),
    )  # fmt: skip


def _write_cache(place: Path, made: ClipViews) -> None:
    arrays: dict[str, Any] = {"key": np.array(made.key), "refused": np.array(made.refused, dtype=np.str_)}
    for side in ("source", "target"):
        views = getattr(made, side)
        for name in _BYTES:
            arrays[f"{side}.{name}"] = (getattr(views, name) * 255).round().to(torch.uint8).cpu().numpy()
        for name in _FLOATS:
            arrays[f"{side}.{name}"] = getattr(views, name).float().cpu().numpy()
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read_cache(place: Path, key: str) -> ClipViews | None:
    try:
        with np.load(place, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            sides = [Views(**{name: _tensor(file[f"{side}.{name}"]) for name in (*_BYTES, *_FLOATS)})
                     for side in ("source", "target")]  # fmt: skip
            return ClipViews(sides[0], sides[1], tuple(str(text) for text in file["refused"]), key)
    except (OSError, ValueError, KeyError, EOFError):  # missing, or left by another version: made anew
        return None


def _tensor(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor
