"""Where a film is cut: a thumbnail's colours and places both change at once, far more than they did before."""

from __future__ import annotations

import numpy as np
from PIL import Image

THUMB = (32, 18)  # width, height
BINS = 8  # per channel
LEAST_PLACES = 0.10  # mean absolute change of the thumbnail, of the range
LEAST_COLOURS = 0.25  # half the L1 distance of the histograms, 0 to 1
LEAST_RATIO = 3.0  # of colours over the largest change of the last frames: flicker and fast pans are no cuts
MEMORY = 5  # frames


def signature(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 as a thumbnail (18, 32, 3) in [0, 1] and a histogram (24,) that sums to one."""
    small = np.asarray(Image.fromarray(image).resize(THUMB, Image.Resampling.BOX), np.float32) / 255
    bins = np.minimum((small * BINS).astype(int), BINS - 1)
    counts = np.concatenate([np.bincount(bins[..., c].ravel(), minlength=BINS) for c in range(3)])
    return small, counts / counts.sum()


class CutFinder:
    """Tells for each frame, in order, whether a new shot begins with it. The first frame begins one."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._changes: list[float] = []

    def begins(self, image: np.ndarray) -> bool:
        now, before = signature(image), self._last
        self._last = now
        if before is None:
            return True
        places = float(np.abs(now[0] - before[0]).mean())
        colours = float(np.abs(now[1] - before[1]).sum() / 2)
        usual = max(self._changes, default=0.0)
        cut = places >= LEAST_PLACES and colours >= LEAST_COLOURS and colours >= LEAST_RATIO * usual
        self._changes = [] if cut else [*self._changes[1 - MEMORY :], colours]
        return cut
