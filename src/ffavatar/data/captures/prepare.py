"""Whole downloads of Ava-256 and NeRSemble to shards: one sample per person, cameras known in head space."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffavatar.data.captures import shots
from ffavatar.data.captures.ava256 import AvaCapture, list_captures
from ffavatar.data.captures.nersemble import SERIALS, NersemblePerson, list_people
from ffavatar.data.people import Made, Progress, safe_key, write_all
from ffavatar.data.shards import Provenance, ShardWriter
from ffavatar.data.shards.writer import SHARD_BYTES
from ffavatar.errors import InputError
from ffavatar.files import atomic_path

AVA_TERMS = "CC-BY-NC-4.0"
NERSEMBLE_TERMS = "NeRSemble terms of use: non-commercial research"
READINGS = 1  # with anything that changes what is read from a crop: samples of one folder must agree
SPLITS = Path(__file__).parent / "splits"


def make_split(names: Sequence[str], held_out: int, seed: int = 0) -> dict[str, list[str]]:
    """``train`` and ``held_out`` names, drawn by seed; the order of ``names`` does not matter.

    Raises ``InputError`` where nothing would be left to train on.
    """
    if not 0 < held_out < len(set(names)):
        raise InputError(f"{held_out} of {len(set(names))} people cannot be held out; some must be left to train on.")
    order = np.random.default_rng(seed).permutation(sorted(set(names))).tolist()
    return {"train": sorted(order[held_out:]), "held_out": sorted(order[:held_out])}


def write_split(place: Path, split: dict[str, list[str]], seed: int) -> None:
    """The split as a file, which ``read_split`` reads."""
    with atomic_path(place) as temporary:
        temporary.write_text(json.dumps({"seed": seed} | split, indent=1), encoding="utf-8")


def read_split(place: str | Path, part: str) -> list[str]:
    """The names of one part of a split file; ``nersemble_benchmark`` ships (part ``people``).

    Raises ``InputError`` for a file that is no split, or lacks the part.
    """
    shipped = SPLITS / f"{place}.json"
    path = shipped if shipped.is_file() else Path(place)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = content[part]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{part} is no list of names")
        return names
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} is no split with a part {part!r} ({error!r}); give another file or part.") from error


def _chosen(found: list[str], people: Sequence[str] | None, root: Path) -> list[str]:
    if people is None:
        return found
    if absent := sorted(set(people) - set(found)):
        raise InputError(f"{root} lacks {', '.join(absent[:5])} of the split; download them, or give another split.")
    return [name for name in found if name in set(people)]


def prepare_ava(
    root: Path,
    out: Path,
    people: Sequence[str] | None = None,
    frames: int = 8,
    cameras: Sequence[str] | None = None,
    most_cameras: int = 16,
    size: int = 512,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
    undistort: bool = True,
) -> ShardWriter:
    """Ava-256 captures as shards; ``frames`` spread over each, by all ``cameras`` or ``most_cameras`` spread over its
    list. ``undistort``: take the lens distortion that the calibration states out of the pictures. Returns the closed
    writer.

    Raises ``InputError`` for a folder without captures, and a split with others.
    """
    names = _chosen(list_captures(root), people, root)
    settings = {
        "frames": frames,
        "cameras": None if cameras is None else list(cameras),
        "most": most_cameras,
        "size": size,
        "undistort": undistort,
        "readings": READINGS,
    }
    provenance = Provenance("ava256", "Ava-256, decoder assets", AVA_TERMS, settings)
    jobs = [(root / name / "decoder", name, frames, cameras, most_cameras, size, undistort) for name in names]
    with ShardWriter(out, provenance, "jpeg", shard_bytes) as writer:
        write_all(writer, [job for job in jobs if safe_key(job[1]) not in writer.done], _make_ava, workers, progress)
    return writer


def _make_ava(job: tuple[Path, str, int, Sequence[str] | None, int, int, bool]) -> Made:
    folder, name, frames, cameras, most, size, undistort = job
    refused: Counter[str] = Counter()
    try:
        capture = AvaCapture(folder, undistort)
    except InputError:
        return Made(safe_key(name), None, {"a capture cannot be read": 1})
    known = sorted(capture.cameras)
    spread = np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)
    chosen = [known[k] for k in spread] if cameras is None else cameras
    moments = capture.moments(frames, chosen, refused)
    sample, others = shots.capture_sample(
        safe_key(name), moments, size, {"capture": name}, shots.find_with_front_end, shots.matte_with_front_end
    )
    return Made(safe_key(name), sample, dict(refused + others))


def prepare_nersemble(
    root: Path,
    out: Path,
    people: Sequence[str] | None = None,
    sequences: Sequence[str] | None = None,
    frames: int = 2,
    cameras: Sequence[str] = SERIALS,
    size: int = 512,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
    undistort: bool = True,
) -> ShardWriter:
    """NeRSemble v2 people as shards; ``frames`` spread over each of the ``sequences`` (all that are there).

    ``undistort`` as in ``prepare_ava``. Returns the closed writer. Raises ``InputError`` for a folder without people,
    and a split with others.
    """
    names = _chosen(list_people(root), people, root)
    settings = {
        "sequences": None if sequences is None else list(sequences), "frames": frames, "cameras": list(cameras),
        "size": size, "undistort": undistort, "readings": READINGS,
    }  # fmt: skip
    provenance = Provenance("nersemble", "NeRSemble v2", NERSEMBLE_TERMS, settings)
    jobs = [(root / name, name, sequences, frames, cameras, size, undistort) for name in names]
    with ShardWriter(out, provenance, "jpeg", shard_bytes) as writer:
        todo = [job for job in jobs if f"nersemble-{job[1]}" not in writer.done]
        write_all(writer, todo, _make_nersemble, workers, progress)
    return writer


def _make_nersemble(job: tuple[Path, str, Sequence[str] | None, int, Sequence[str], int, bool]) -> Made:
    folder, name, sequences, frames, cameras, size, undistort = job
    refused: Counter[str] = Counter()
    key = f"nersemble-{name}"
    try:
        person = NersemblePerson(folder, undistort)
    except InputError:
        return Made(key, None, {"a person's calibration cannot be read": 1})
    moments = person.moments(person.sequences() if sequences is None else sequences, frames, cameras, refused)
    sample, others = shots.capture_sample(
        key, moments, size, {"person": name}, shots.find_with_front_end, shots.matte_with_front_end
    )
    return Made(key, sample, dict(refused + others))
