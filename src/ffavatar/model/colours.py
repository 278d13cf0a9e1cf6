"""What colours tell: hair from skin, clothes from both, teeth from lips."""

from __future__ import annotations

import torch
from torch import Tensor

APART = 0.16  # difference (RGB, Euclidean) at which two colours are of different things
TEETH_SATURATION = (0.15, 0.25)  # up to which a colour surely is a tooth's, and from which surely not


def unlikeness(colors: Tensor, other: Tensor) -> Tensor:
    """In [0, 1): how far colours (..., 3) differ from another (3,), as hair and clothes do from the face's mean. The
    hair of the bald is their skin."""
    return 1 - torch.exp(-0.5 * ((colors - other).norm(dim=-1) / APART) ** 2)


def likeness_of_teeth(colors: Tensor) -> Tensor:
    """In [0, 1], of colours (N, 3): teeth are paler than the lips and skin that a photo may show in their place."""
    saturation = 1 - colors.amin(-1) / colors.amax(-1).clamp_min(1e-3)
    low, high = TEETH_SATURATION
    return ((high - saturation) / (high - low)).clamp(0, 1)


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Of each column of values (N, D), with weights (N,): (D,)."""
    ordered, order = values.sort(0)
    upto = weights[order].cumsum(0)
    return ordered.gather(0, (upto >= 0.5 * upto[-1:]).int().argmax(0, keepdim=True))[0]
