"""Differentiable augmentation (Zhao et al., NeurIPS 2020) of what the discriminator sees: colour, shift, cut-out.

Real and drawn pictures pass through the same random family, so a discriminator of few people cannot learn them by
heart, and the gradient passes through to the drawn ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHIFT = 0.125  # of the side, at most
CUT = 0.5  # side of the hole, of the picture's side
BRIGHTNESS, SATURATION, CONTRAST = 0.25, (0.0, 2.0), (0.5, 1.5)


def augment(images: Tensor, seed: int) -> Tensor:
    """Pictures (B, H, W, 3) on white, each changed in its own way; the same seed, the same changes.

    Values may leave [0, 1]. What is shifted in, and the hole, are white as the background is.
    """
    random = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float) -> Tensor:
        value = torch.rand(len(images), 1, 1, 1, generator=random) * (high - low) + low
        return value.to(images.device)

    x = images + drawn(-BRIGHTNESS, BRIGHTNESS)
    grey = x.mean(-1, keepdim=True)
    x = (x - grey) * drawn(*SATURATION) + grey
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * drawn(*CONTRAST) + middle
    return _cut(_shifted(x, random), random)


def _shifted(x: Tensor, random: torch.Generator) -> Tensor:
    """Moved by whole pixels."""
    height, width = x.shape[1:3]
    reach = (int(SHIFT * height + 0.5), int(SHIFT * width + 0.5))
    by = [torch.randint(-r, r + 1, (len(x), 1, 1), generator=random) for r in reach]
    rows, columns = torch.arange(height)[None, :, None] + by[0], torch.arange(width)[None, None, :] + by[1]
    inside = ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)).to(x.device)
    picked = x[
        torch.arange(len(x), device=x.device)[:, None, None],
        rows.clamp(0, height - 1).to(x.device),
        columns.clamp(0, width - 1).to(x.device),
    ]
    return torch.where(inside[..., None], picked, 1.0)


def _cut(x: Tensor, random: torch.Generator) -> Tensor:
    """With a square hole whose middle may lie anywhere."""
    height, width = x.shape[1:3]
    half = (int(CUT * height / 2), int(CUT * width / 2))
    middle = [torch.randint(0, size, (len(x), 1, 1), generator=random) for size in (height, width)]
    rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    hole = ((rows - middle[0]).abs() < half[0]) & ((columns - middle[1]).abs() < half[1])
    return torch.where(hole.to(x.device)[..., None], 1.0, x)
