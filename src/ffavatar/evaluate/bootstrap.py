"""How sure a mean is: percentile bootstrap over subjects (Efron 1979), seeded.

Frames and clips of one person are not independent; whole subjects are drawn with replacement, all their clips with
them. Every row of a table draws the same subjects, so that differences of rows are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DRAWS = 2000
LEVEL = 0.95


def interval(values: Mapping[str, Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the mean over clips. ``values``: per subject the figures of its clips.

    None for fewer than two subjects: nothing then tells how people differ.
    """
    subjects = sorted(name for name in values if len(values[name]))
    if len(subjects) < 2:
        return None
    sums = np.array([sum(values[name]) for name in subjects])
    counts = np.array([len(values[name]) for name in subjects])
    drawn = np.random.default_rng(seed).integers(len(subjects), size=(DRAWS, len(subjects)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
