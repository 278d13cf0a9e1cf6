"""Small made-up samples; no person is shown."""

from __future__ import annotations

import numpy as np

from ffavatar.data.shards import PersonSample


def made_sample(number: int, views: int = 3, size: int = 16) -> PersonSample:
    random = np.random.default_rng(number)
    valid = np.ones((views, size, size), bool)
    valid[0, :, :3] = number % 2 == 0
    return PersonSample(
        f"p{number:04d}",
        random.integers(0, 256, (views, size, size, 3), dtype=np.uint8),
        random.integers(0, 256, (views, size, size), dtype=np.uint8),
        valid,
        {"landmarks": random.random((views, 478, 3)).astype(np.float32), "identity": random.random(5)},
        ("identity",),
        {"number": number, "name": "Zoë"},
    )


def same(first: PersonSample, second: PersonSample) -> bool:
    arrays = first.arrays.keys() == second.arrays.keys() and all(
        np.array_equal(first.arrays[k], second.arrays[k]) and first.arrays[k].dtype == second.arrays[k].dtype
        for k in first.arrays
    )
    return (
        arrays
        and (first.key, first.shared, dict(first.notes)) == (second.key, second.shared, dict(second.notes))
        and all(np.array_equal(getattr(first, n), getattr(second, n)) for n in ("images", "mattes", "valid"))
    )
