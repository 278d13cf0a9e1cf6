"""Small synthetic people for the tests of training: 64 px, procedural, exact readings instead of a landmarker's."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from ffavatar.data.people import synthetic_sample
from ffavatar.data.shards import PersonSample, Provenance, ShardWriter
from ffavatar.data.synthetic import SyntheticPerson, synthetic_person
from ffavatar.train.samples import Person, person_of_sample

SHOTS, SIZE = 5, 64


@cache
def drawn(seed: int, shots: int = SHOTS) -> SyntheticPerson:
    return synthetic_person(seed, shots=shots, size=SIZE, supersample=1)


def made_sample(seed: int, labelled: bool = True, shots: int = SHOTS) -> PersonSample:
    """A sample as ``ffavatar prepare`` writes it: of a synthetic person, or without labels as of a film."""
    person = drawn(seed, shots)
    sample = synthetic_sample(person)
    landmarks = person.landmarks.astype(np.float32)
    scores = np.zeros((shots, 52), np.float32)
    arrays = {"landmarks": landmarks, "blendshapes": scores}
    if not labelled:
        return replace(sample, arrays=arrays, shared=())
    seen = {"detected": np.ones(shots, bool), "detected_matte": person.mattes}
    return replace(sample, arrays={**sample.arrays, **arrays, **seen})


@cache
def made_person(seed: int, labelled: bool = True, shots: int = SHOTS) -> Person:
    person = person_of_sample(made_sample(seed, labelled, shots))
    assert person is not None
    return person


def write_shards(
    folder: Path, seeds: list[int], labelled: bool = True, shard_bytes: int = 1 << 28, shots: int = SHOTS
) -> Path:
    with ShardWriter(folder, Provenance("synthetic", "test", "CC0-1.0"), shard_bytes=shard_bytes) as writer:
        for seed in seeds:
            writer.add(made_sample(seed, labelled, shots))
    return folder
