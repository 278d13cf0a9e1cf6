"""Synthetic people on disk: one npz per person, written whole or not at all, and read back by ``SyntheticPeople``.

A folder holds ``people.json`` (how it was made) and ``person_SEED.npz``. Making it again only adds what is missing.
"""

from __future__ import annotations

import json
import multiprocessing
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.data.synthetic.generate import PARAMETERS, SyntheticPerson, synthetic_person
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.photo import Landmarker
from ffavatar.photo.matte import Matte
from ffavatar.types import HeadParams

SCHEMA = 2  # of people.json: 2 since people have clothes, headwear, grown hair and places (docs/synthetic.md)
RESERVED = range(9_000_000, 9_100_000)  # seeds of synthetic-bench (bench.py): no training folder may hold them
DETECTIONS = ("detected", "detected_landmarks", "blendshapes", "detected_matte")
PRESENCE = 0.5  # the landmarker's own probability that it looks at a face
LARGEST_ERROR = 0.05  # crop sides; points farther than this from the truth on average were found on something else


def refuse_reserved(seeds: Iterable[int], what: str) -> None:
    """Raise ``InputError`` if a seed belongs to the bench, which no training data may hold."""
    found = next((seed for seed in seeds if seed in RESERVED), None)
    if found is not None:
        raise InputError(
            f"{what} would hold the seed {found}, which is reserved for synthetic-bench; choose seeds below "
            f"{RESERVED.start} or from {RESERVED.stop}."
        )


@dataclass(frozen=True)
class PeoplePlan:
    """What a folder holds."""

    people: int
    shots: int
    size: int
    seed: int  # people are seed, seed + 1, ...
    assets: str | None

    def settings(self) -> dict[str, Any]:
        """What must agree when a folder is continued; more people may be added at any time."""
        artwork = None if self.assets is None else sorted(p.name for p in Path(self.assets).glob("makehuman/*/*"))
        return {"schema": SCHEMA, "shots": self.shots, "size": self.size, "artwork": artwork}


def person_path(folder: str | Path, seed: int) -> Path:
    return Path(folder) / f"person_{seed:08d}.npz"


def write_people(
    plan: PeoplePlan,
    folder: str | Path,
    workers: int = 1,
    detect: bool = False,
    report: Callable[[int, int, float], None] | None = None,
) -> int:
    """Make the people of ``plan`` that the folder lacks. Returns how many were made.

    detect: also run the landmarker and the matte net on the pictures (``annotate``). report: called after each person
    with (done, to do, seconds so far). Raises InputError if the folder was made with other settings.
    """
    if plan.people < 1 or workers < 1:
        raise InputError("the number of people and of workers must be at least 1")
    refuse_reserved(range(plan.seed, plan.seed + plan.people), str(folder))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / "people.json"
    if sheet.exists():
        if json.loads(sheet.read_text(encoding="utf-8")) != plan.settings():
            raise InputError(f"{folder} holds people made with other settings; choose another output folder.")
    else:
        with atomic_path(sheet) as path:
            path.write_text(json.dumps(plan.settings(), indent=1), encoding="utf-8")
    jobs = [
        (plan, str(folder), seed, detect)
        for seed in range(plan.seed, plan.seed + plan.people)
        if not _finished(person_path(folder, seed), detect)
    ]
    start = time.monotonic()
    for done, _ in enumerate(_run(jobs, workers), 1):
        if report is not None:
            report(done, len(jobs), time.monotonic() - start)
    return len(jobs)


def _run(jobs: list[tuple], workers: int) -> Iterator[int]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_make, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.imap_unordered(_make, jobs)


def _finished(path: Path, detect: bool) -> bool:
    if not path.exists():
        return False
    try:
        with path.open("rb") as handle, np.load(handle) as file:
            return not detect or DETECTIONS[0] in file.files
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False  # damaged: made again


def _make(job: tuple[PeoplePlan, str, int, bool]) -> int:
    plan, folder, seed, detect = job
    path = person_path(folder, seed)
    if not _finished(path, False):
        person = synthetic_person(seed, plan.shots, plan.size, plan.assets)
        write_npz(path, person.arrays())
    if detect:
        annotate(path)
    return seed


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays as one compressed npz, whole or not at all."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


@torch.no_grad()
def detect(images: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """What the photo front end sees in the pictures: the estimator's own view of them.

    images: (P, H, W, 3) uint8 head crops; landmarks: (P, 478, 3) the truth, to tell a found face from a mistaken one.
    Returns ``detected`` (P,) bool, ``detected_landmarks`` (P, 478, 3) crop units, ``blendshapes`` (P, 52) and
    ``detected_matte`` (P, H, W) uint8; rows where no face was found are zero.
    """
    landmarker, matte = _nets()
    pictures = torch.from_numpy(images).float() / 255
    size = pictures.shape[1]
    result = landmarker(pictures, passes=2)  # head crops start close: a third pass moves points by 0.2 px
    points = result.points / size
    error = (points[..., :2] - torch.from_numpy(landmarks)[..., :2]).norm(dim=-1).mean(-1)
    found = (result.presence > PRESENCE) & (error < LARGEST_ERROR)
    masks = torch.zeros(pictures.shape[:3])
    if found.any():
        masks[found] = matte(pictures[found], torch.ones_like(pictures[found][..., 0]), points[found])
    keep = found[:, None].float()
    return {
        "detected": found.numpy(),
        "detected_landmarks": (points * keep[..., None]).numpy().astype(np.float32),
        "blendshapes": (result.blendshapes * keep).numpy().astype(np.float32),
        "detected_matte": (masks * 255 + 0.5).to(torch.uint8).numpy(),
    }


_loaded: list[tuple[Landmarker, Matte]] = []


def _nets() -> tuple[Landmarker, Matte]:
    if not _loaded:
        _loaded.append((Landmarker(), Matte()))
    return _loaded[0]


def annotate(path: str | Path) -> None:
    """Add the front end's view (``detect``) to a person's file, unless it is there."""
    path = Path(path)
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    if "detected" not in arrays:
        write_npz(path, arrays | detect(arrays["images"], arrays["landmarks"]))


class SyntheticPeople:
    """The people of a folder, in the order of their seeds. ``len``, indexing and iteration read one file at a time.

    Raises InputError where the folder holds none, or for a damaged file when it is read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.paths = sorted(Path(folder).glob("person_*.npz"))
        if not self.paths:
            raise InputError(f"{folder} holds no synthetic people; make some with `python -m ffavatar.data.synthetic`.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> SyntheticPerson:
        path = self.paths[index]
        try:
            with path.open("rb") as handle, np.load(handle) as file:
                data = {k: file[k] for k in file.files}
            return SyntheticPerson(
                int(data["seed"]), data["images"], data["mattes"], data["identity"],
                HeadParams(**{n: torch.from_numpy(data[n]) for n in PARAMETERS}), data["landmarks"],
                **{n: data.get(n) for n in DETECTIONS},
            )  # fmt: skip
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged ({error}); delete it and make the people again.") from error

    def __iter__(self) -> Iterator[SyntheticPerson]:
        return (self[i] for i in range(len(self)))
