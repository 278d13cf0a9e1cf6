"""Training samples from folders of synthetic people (``ffavatar.data.synthetic``, ``ffavatar prepare``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffavatar.data.shards import PersonSample, ShardReader
from ffavatar.data.shards.format import MANIFEST
from ffavatar.data.synthetic.store import refuse_reserved
from ffavatar.errors import InputError
from ffavatar.model.estimator import outline_picture
from ffavatar.types import HeadParams, Views

PARAM_NAMES = ("root", "translation", "neck", "jaw", "eye_left", "eye_right", "expression")


@dataclass(frozen=True)
class Person:
    """All usable shots of one person, in memory (pictures as bytes)."""

    images: np.ndarray  # (P, H, W, 3) uint8
    mattes: np.ndarray  # (P, H, W) uint8: the exact matte
    seen_mattes: np.ndarray  # (P, H, W) uint8: the matte net's
    landmarks: np.ndarray  # (P, 478, 3) the landmarker's, crop units
    blendshapes: np.ndarray  # (P, 52) the landmarker's
    outlines: np.ndarray  # (P, 4, 96, 96) uint8: what the estimator's outline net reads
    params: HeadParams  # exact
    identity: Tensor  # (I,) exact

    def __len__(self) -> int:
        return len(self.images)

    def views(self, index: np.ndarray, exact_matte: bool = False) -> Views:
        """Views as the photo front end would give them; ``exact_matte`` for targets."""
        mattes = self.mattes if exact_matte else self.seen_mattes
        matte = torch.from_numpy(mattes[index]).float() / 255
        return Views(
            torch.from_numpy(self.images[index]).float() / 255,
            matte,
            torch.ones_like(matte),
            torch.from_numpy(self.landmarks[index]).float(),
            torch.from_numpy(self.blendshapes[index]).float(),
        )


def load_person(path: Path) -> Person | None:
    """The shots in which the landmarker found the face; None when fewer than three.

    Raises:
        InputError: the landmarker's readings are missing, or the person is of synthetic-bench.
    """
    with np.load(path) as file:
        refuse_reserved([int(file["seed"])] if "seed" in file else [], str(path))
        if "detected" not in file:
            raise InputError(f"{path} has no landmarker readings; annotate the folder first (docs/synthetic.md).")
        keep = np.flatnonzero(file["detected"])
        if len(keep) < 3:
            return None
        params = HeadParams(**{name: torch.from_numpy(file[name][keep]).float() for name in PARAM_NAMES})
        images, seen_mattes = file["images"][keep], file["detected_matte"][keep]
        return Person(
            images,
            file["mattes"][keep],
            seen_mattes,
            file["detected_landmarks"][keep].astype(np.float32),
            file["blendshapes"][keep].astype(np.float32),
            _outlines(images, seen_mattes),
            params,
            torch.from_numpy(file["identity"]).float(),
        )


def person_of_sample(sample: PersonSample) -> Person | None:
    """As ``load_person``, of a sample of a shard.

    Raises:
        InputError: the sample lacks exact labels or the landmarker's readings, or is of synthetic-bench.
    """
    needed = {*PARAM_NAMES, "identity", "detected", "detected_matte", "landmarks", "blendshapes"}
    if not needed <= set(sample.arrays):
        raise InputError(
            f"The sample {sample.key} has no exact labels or no landmarker readings; train on shards made by "
            "`ffavatar prepare synthetic`."
        )
    refuse_reserved([int(sample.notes["seed"])] if "seed" in sample.notes else [], sample.key)
    arrays = sample.arrays
    keep = np.flatnonzero(arrays["detected"])
    if len(keep) < 3:
        return None
    images, seen_mattes = sample.images[keep], arrays["detected_matte"][keep]
    return Person(
        images,
        sample.mattes[keep],
        seen_mattes,
        arrays["landmarks"][keep].astype(np.float32),
        arrays["blendshapes"][keep].astype(np.float32),
        _outlines(images, seen_mattes),
        HeadParams(**{name: torch.from_numpy(arrays[name][keep]).float() for name in PARAM_NAMES}),
        torch.from_numpy(arrays["identity"]).float(),
    )


def _outlines(images: np.ndarray, mattes: np.ndarray) -> np.ndarray:
    matte = torch.from_numpy(mattes).float() / 255
    pictures = torch.from_numpy(images).float() / 255
    views = Views(pictures, matte, torch.ones_like(matte), torch.zeros(len(matte), 478, 3), torch.zeros(len(matte), 52))
    return ((outline_picture(views) + 1) * 127.5).round().to(torch.uint8).numpy()


def load_people(folder: str | Path, limit: int | None = None) -> list[Person]:
    """All people of a folder of ``person_SEED.npz`` or of shards, in the order of their names.

    Raises:
        InputError: the folder holds none, or shards without labels.
    """
    if (Path(folder) / MANIFEST).exists():
        samples = sorted(ShardReader(folder, shuffle=False), key=lambda sample: sample.key)[:limit]
        people = [person for sample in samples if (person := person_of_sample(sample)) is not None]
        if not people:
            raise InputError(f"{folder} holds shards without people to train on; make some (docs/data.md).")
        return people
    paths = sorted(Path(folder).glob("person_*.npz"))[:limit]
    people = [person for path in paths if (person := load_person(path)) is not None]
    if not people:
        raise InputError(f"{folder} holds no synthetic people; make some (docs/synthetic.md).")
    return people
