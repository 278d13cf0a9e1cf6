"""Synthetic people and folders of photos, through the one door into shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ffavatar.data.shards import PersonSample, Provenance, ShardWriter
from ffavatar.data.shards.writer import SHARD_BYTES
from ffavatar.data.synthetic import SyntheticPeople, SyntheticPerson, synthetic_person
from ffavatar.data.synthetic.generate import PARAMETERS
from ffavatar.data.synthetic.store import SCHEMA, detect, refuse_reserved
from ffavatar.drive.video import list_pictures
from ffavatar.errors import InputError
from ffavatar.jobs import Crew, in_order, run_jobs
from ffavatar.photo import FrontEnd, read_photo
from ffavatar.types import Views

Progress = Callable[[int, int | None], None]
Job = TypeVar("Job")
LICENCE_SYNTHETIC = "CC0-1.0"


@dataclass(frozen=True)
class Made:
    """What became of one person: a sample, or None, and the reasons for which pictures were left out."""

    key: str
    sample: PersonSample | None
    refused: dict[str, int] = field(default_factory=dict)


def write_all(
    writer: ShardWriter, jobs: list[Job], make: Callable[[Job], Made], workers: int, progress: Progress | None = None
) -> int:
    """Make every job's person, with ``workers`` processes, and write them in the order of the jobs.

    ``make`` and the jobs must be picklable where ``workers`` > 1. A person at whom three workers died is counted, and
    tried again when the folder is continued. Returns how many samples were added.
    """
    added = 0
    for done, one in enumerate(in_order(run_jobs(make, jobs, Crew(workers))), 1):
        made = one.result
        if made is None:
            writer.refuse("the worker process died of it")
        else:
            for reason, count in made.refused.items():
                writer.refuse(reason, count)
            if made.sample is None:
                writer.give_up(made.key)
            else:
                added += writer.add(made.sample)
        if progress is not None:
            progress(done, len(jobs))
    return added


def synthetic_sample(person: SyntheticPerson) -> PersonSample:
    """All that ``person_SEED.npz`` holds. ``mattes`` are the exact ones; ``detected_matte`` is in the arrays."""
    arrays: dict[str, np.ndarray] = {name: getattr(person.params, name).numpy() for name in PARAMETERS}
    arrays |= {"identity": person.identity, "exact_landmarks": person.landmarks}
    if person.detected is not None:
        assert person.detected_landmarks is not None and person.blendshapes is not None
        assert person.detected_matte is not None
        arrays |= {
            "detected": person.detected, "landmarks": person.detected_landmarks, "blendshapes": person.blendshapes,
            "detected_matte": person.detected_matte,
        }  # fmt: skip
    valid = np.ones(person.mattes.shape, bool)
    notes = {"seed": int(person.seed)}
    return PersonSample(
        f"synthetic-{person.seed:08d}", person.images, person.mattes, valid, arrays, ("identity",), notes
    )


def _make_synthetic(job: tuple[int, int, int, int, str | None, bool]) -> Made:
    seed, shots, around, size, assets, look = job
    person = synthetic_person(seed, shots, size, assets, around=around)
    if look:
        seen = detect(person.images, person.landmarks)
        person = SyntheticPerson(
            person.seed, person.images, person.mattes, person.identity, person.params, person.landmarks, **seen
        )
    return Made(f"synthetic-{seed:08d}", synthetic_sample(person))


def prepare_synthetic(
    out: Path,
    people: int,
    shots: int,
    size: int,
    seed: int = 0,
    assets: str | None = None,
    detected: bool = True,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
    around: int = 0,
) -> ShardWriter:
    """Draw synthetic people into shards, or more of them into shards that are there. Returns the closed writer.

    ``detected``: add what the photo front end sees, which training needs. ``around``: further pictures of each, the
    head turned anywhere about. Raises ``InputError`` for counts that cannot be, seeds of synthetic-bench, and a folder
    of other shards.
    """
    if people < 1 or shots < 1 or workers < 1 or around < 0:
        raise InputError("people, pictures and workers must be at least 1, pictures from all around at least 0")
    refuse_reserved(range(seed, seed + people), str(out))
    artwork = None if assets is None else sorted(p.name for p in Path(assets).glob("makehuman/*/*"))
    settings = {"schema": SCHEMA, "shots": shots, "size": size, "detected": detected, "artwork": artwork}
    if around:
        settings["around"] = around
    provenance = Provenance(
        "synthetic", "renders of the embedded head (ffavatar.data.synthetic)", LICENCE_SYNTHETIC, settings
    )
    with ShardWriter(out, provenance, "png", shard_bytes) as writer:
        jobs = [
            (number, shots, around, size, assets, detected)
            for number in range(seed, seed + people)
            if f"synthetic-{number:08d}" not in writer.done
        ]
        write_all(writer, jobs, _make_synthetic, workers, progress)
    return writer


def pack_synthetic(
    folder: Path, out: Path, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None
) -> ShardWriter:
    """A folder of ``person_SEED.npz`` as shards. Raises ``InputError`` where it holds none, a damaged one, or one of
    synthetic-bench."""
    found = SyntheticPeople(folder)
    refuse_reserved((int(path.stem.removeprefix("person_")) for path in found.paths), str(out))
    provenance = Provenance("synthetic", "person_SEED.npz files of ffavatar.data.synthetic", LICENCE_SYNTHETIC)
    with ShardWriter(out, provenance, "png", shard_bytes) as writer:
        for number, path in enumerate(found.paths):
            if f"synthetic-{path.stem.removeprefix('person_')}" not in writer.done:
                writer.add(synthetic_sample(found[number]))
            if progress is not None:
                progress(number + 1, len(found))
    return writer


def sample_of_views(key: str, views: Views, notes: dict[str, Any], **arrays: np.ndarray) -> PersonSample:
    """A sample of what the photo front end gave, pictures rounded to 8 bits."""

    def as_bytes(tensor: torch.Tensor) -> np.ndarray:
        return (tensor * 255).round().to(torch.uint8).cpu().numpy()

    known = {"landmarks": views.landmarks.cpu().numpy(), "blendshapes": views.blendshapes.cpu().numpy()}
    return PersonSample(
        key,
        as_bytes(views.images),
        as_bytes(views.mattes),
        (views.valid > 0.5).cpu().numpy(),
        known | arrays,
        (),
        notes,
    )


_front_ends: list[FrontEnd] = []


def front_end() -> FrontEnd:
    """This process' photo front end, loaded once."""
    if not _front_ends:
        _front_ends.append(FrontEnd())
    return _front_ends[0]


def safe_key(text: str) -> str:
    """A key made of any name: other characters than letters, digits, - and _ become _."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text)[:80]
    return kept if kept and kept[0].isalnum() else f"p{kept}"[:80]


def _make_photos(job: tuple[str, list[Path], int, int]) -> Made:
    key, photos, size, fewest = job
    views, refused, names = [], Counter[str](), []
    for path in photos:
        try:
            result = front_end().analyse(read_photo(path), path.name, size=size)
        except InputError:
            refused["the file cannot be read"] += 1
            continue
        if result.views is None:
            refused[plain_reason(result.report.reason)] += 1
        else:
            views.append(result.views)
            names.append(path.name)
    if len(views) < fewest:
        refused[f"fewer than {fewest} usable photos of the person"] += 1
        return Made(key, None, dict(refused))
    return Made(key, sample_of_views(key, Views.cat(views), {"photos": names}), dict(refused))


def plain_reason(sentence: str) -> str:
    """A front end's sentence without the photo's name, its numbers and the remedy: what is counted."""
    text = sentence.split(": ", 1)[-1].split(";")[0].split(" (")[0]
    return text.strip().rstrip(".")


def prepare_photos(
    folder: Path,
    out: Path,
    licence: str = "unknown",
    size: int = 512,
    fewest: int = 1,
    workers: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> ShardWriter:
    """A folder with one subfolder of photos per person as shards. Returns the closed writer.

    Raises ``InputError`` where there is no subfolder with photos.
    """
    jobs = list(_photo_jobs(folder, size, fewest))
    if not jobs:
        raise InputError(f"{folder} has no subfolders with photos; give a folder with one subfolder per person.")
    provenance = Provenance("photos", "photos, one folder per person", licence, {"size": size, "fewest": fewest})
    with ShardWriter(out, provenance, "jpeg", shard_bytes) as writer:
        write_all(writer, [job for job in jobs if job[0] not in writer.done], _make_photos, workers, progress)
    return writer


def _photo_jobs(folder: Path, size: int, fewest: int) -> Iterable[tuple[str, list[Path], int, int]]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder with one subfolder of photos per person.")
    used: set[str] = set()
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        photos = list_pictures(place)
        if photos:
            key = safe_key(place.name)
            if key in used:
                raise InputError(f"{place} and another folder would share the key {key}; rename one of them.")
            used.add(key)
            yield key, photos, size, fewest
