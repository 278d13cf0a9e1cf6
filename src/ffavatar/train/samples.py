"""People as training sees them, from folders of synthetic people or from shards of any kind (``ffavatar prepare``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffavatar.data.shards import PersonSample, ShardReader
from ffavatar.data.shards.format import MANIFEST
from ffavatar.data.synthetic.store import refuse_reserved
from ffavatar.errors import InputError
from ffavatar.memory import give_back
from ffavatar.model.estimator import outline_picture
from ffavatar.types import HeadParams, Views

PARAM_NAMES = ("root", "translation", "neck", "jaw", "eye_left", "eye_right", "expression")
FEWEST_VIEWS = 3  # of a person: sources and targets, and one to choose


@dataclass(frozen=True)
class Person:
    """All usable shots of one person, in memory (pictures as bytes). Labels are there for synthetic people only.

    ``len`` counts the shots in which the front end found the face; the ``unread`` ones come after them. These have no
    readings, and can be targets only where poses are the exact labels.
    """

    images: np.ndarray  # (P, H, W, 3) uint8
    mattes: np.ndarray  # (P, H, W) uint8: the exact matte, where there is one
    seen_mattes: np.ndarray  # (P, H, W) uint8: the matte net's
    landmarks: np.ndarray  # (P, 478, 3) the landmarker's, crop units
    blendshapes: np.ndarray  # (P, 52) the landmarker's
    outlines: np.ndarray  # (P, 4, 96, 96) uint8: what the estimator's outline net reads
    params: HeadParams | None = None  # exact
    identity: Tensor | None = None  # (I,) exact
    valid: np.ndarray | None = None  # (P, H, W) bool, inside the photo; None: everywhere
    exact_landmarks: Tensor | None = None  # (P, 478, 3) crop units
    unread: int = 0

    def __len__(self) -> int:
        return len(self.images) - self.unread

    @property
    def labelled(self) -> bool:
        return self.params is not None and self.identity is not None

    def views(self, index: np.ndarray, exact_matte: bool = False) -> Views:
        """Views as the photo front end would give them; ``exact_matte`` for targets."""
        mattes = self.mattes if exact_matte else self.seen_mattes
        matte = torch.from_numpy(mattes[index]).float() / 255
        return Views(
            torch.from_numpy(self.images[index]).float() / 255,
            matte,
            torch.ones_like(matte) if self.valid is None else torch.from_numpy(self.valid[index]).float(),
            torch.from_numpy(self.landmarks[index]).float(),
            torch.from_numpy(self.blendshapes[index]).float(),
        )


def load_person(path: Path) -> Person | None:
    """The shots in which the landmarker found the face, and those beyond; None when fewer than three were found.

    Raises:
        InputError: the landmarker's readings are missing, or the person is of synthetic-bench.
    """
    with np.load(path) as file:
        refuse_reserved([int(file["seed"])] if "seed" in file else [], str(path))
        if "detected" not in file:
            raise InputError(f"{path} has no landmarker readings; annotate the folder first (docs/synthetic.md).")
        names = ("detected", "detected_matte", "blendshapes", "identity", *PARAM_NAMES)
        arrays = {name: file[name] for name in names}
        arrays |= {"landmarks": file["detected_landmarks"], "exact_landmarks": file["landmarks"]}
        return _person(file["images"], file["mattes"], None, arrays)


def person_of_sample(sample: PersonSample) -> Person | None:
    """As ``load_person``, of a sample of a shard; without labels where the shard has none.

    Raises:
        InputError: the sample lacks the landmarker's readings, or is of synthetic-bench.
    """
    if "landmarks" not in sample.arrays:
        raise InputError(
            f"The sample {sample.key} has no landmarker readings; train on shards made by `ffavatar prepare`."
        )
    refuse_reserved([int(sample.notes["seed"])] if "seed" in sample.notes else [], sample.key)
    valid = None if sample.valid.all() else sample.valid
    return _person(sample.images, sample.mattes, valid, sample.arrays)


def _person(
    images: np.ndarray, mattes: np.ndarray, valid: np.ndarray | None, arrays: Mapping[str, np.ndarray]
) -> Person | None:
    count = len(images)
    found = arrays["detected"].astype(bool) if "detected" in arrays else np.ones(count, bool)
    if found.sum() < FEWEST_VIEWS:
        return None
    labelled = {*PARAM_NAMES, "identity"} <= set(arrays)
    keep, unread = np.flatnonzero(found), np.flatnonzero(~found & labelled)
    keep = np.concatenate([keep, unread])
    images, mattes = images[keep], mattes[keep]
    seen_mattes = arrays["detected_matte"][keep] if "detected_matte" in arrays else mattes
    scores = arrays["blendshapes"] if "blendshapes" in arrays else np.zeros((count, 52))
    params, identity, landmarks = None, None, None
    if labelled:
        params = HeadParams(**{name: torch.from_numpy(arrays[name][keep]).float() for name in PARAM_NAMES})
        identity = torch.from_numpy(arrays["identity"]).float()
    if "exact_landmarks" in arrays:
        landmarks = torch.from_numpy(arrays["exact_landmarks"][keep]).float()
    inside = None if valid is None else valid[keep]
    return Person(
        images,
        mattes,
        seen_mattes,
        arrays["landmarks"][keep].astype(np.float32),
        scores[keep].astype(np.float32),
        outlines(images, seen_mattes, inside),
        params,
        identity,
        inside,
        landmarks,
        len(unread),
    )


def outlines(images: np.ndarray, mattes: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """What the estimator's outline net reads of pictures (P, H, W, 3) and mattes (P, H, W): (P, 4, 96, 96) uint8."""
    matte = torch.from_numpy(mattes).float() / 255
    pictures = torch.from_numpy(images).float() / 255
    inside = torch.ones_like(matte) if valid is None else torch.from_numpy(valid).float()
    views = Views(pictures, matte, inside, torch.zeros(len(matte), 478, 3), torch.zeros(len(matte), 52))
    return ((outline_picture(views) + 1) * 127.5).round().to(torch.uint8).numpy()


def person_files(folder: str | Path, limit: int | None = None) -> list[Path]:
    """A folder's ``person_SEED.npz``, in the order of their names."""
    return sorted(Path(folder).glob("person_*.npz"))[:limit]


def load_people(folder: str | Path, limit: int | None = None) -> list[Person]:
    """The people of a folder of ``person_SEED.npz`` or of shards, in the order of their names: all, or the first
    ``limit`` of those that can be read, for which no others are; samples are let go as they are converted.

    Raises:
        InputError: the folder holds none that can be trained on.
    """
    if (Path(folder) / MANIFEST).exists():
        samples = islice(ShardReader(folder, shuffle=False).by_key(), limit)
        people = _held(map(person_of_sample, samples))
        if not people:
            raise InputError(
                f"{folder} holds shards without people to train on (at least {FEWEST_VIEWS} views each); make some "
                "(docs/data.md)."
            )
        return people
    people = _held(map(load_person, person_files(folder, limit)))
    if not people:
        raise InputError(f"{folder} holds no synthetic people; make some (docs/synthetic.md).")
    return people


def _held(people: Iterable[Person | None]) -> list[Person]:
    """Those that are people. What converting them took is given back on the way: between arrays that stay, glibc would
    keep four times as much."""
    held: list[Person] = []
    for number, person in enumerate(people, 1):
        if person is not None:
            held.append(person)
        if number % 16 == 0:
            give_back()
    return held
