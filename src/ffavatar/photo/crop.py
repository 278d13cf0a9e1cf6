"""The square head crop and its valid mask: where it lies by the landmarks, and how its pixels are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ffavatar.photo.landmarks import CROP_RAISE, CROP_SCALE

# 8-bit levels: video black is 16, and compression lets it waver
_BAR_LEVEL, _BAR_SPREAD = 30, 4.0
_THINNEST_BAR_PX, _WIDEST_BAR = 2, 0.4


@dataclass(frozen=True)
class CropBox:
    """An upright square in pixels of the photo; it may reach outside."""

    left: float
    top: float
    side: float

    def to_crop(self, points: Tensor) -> Tensor:
        """Photo pixels -> crop units: (..., 3) with x, y in [0, 1] from the top left corner, z in the same unit."""
        return (points - points.new_tensor([self.left, self.top, 0.0])) / self.side

    def widened(self, factor: float) -> CropBox:
        """The square with the same centre and ``factor`` times the side."""
        grown = self.side * (factor - 1) / 2
        return CropBox(self.left - grown, self.top - grown, self.side * factor)


def head_crop_box(points: Tensor) -> CropBox:
    """The crop of docs/conventions.md around (478, >= 2) landmarks in photo pixels."""
    low, high = points[:, :2].amin(0).double(), points[:, :2].amax(0).double()
    side = float((high - low).max()) * CROP_SCALE
    centre = (low + high) / 2
    return CropBox(float(centre[0]) - side / 2, float(centre[1]) - CROP_RAISE * side - side / 2, side)


def cut_square(photo: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """Resample a square to (size, size, C) uint8, antialiased (Lanczos); edge pixels continue outside the photo.

    photo: (H, W, 3) uint8.
    """
    height, width = photo.shape[:2]
    margin = int(np.ceil(4 * max(1.0, box.side / size)))  # what the filter reads beyond the square
    low = np.floor([box.left, box.top]).astype(int) - margin
    high = np.ceil([box.left + box.side, box.top + box.side]).astype(int) + margin
    kept_low = np.clip(low, 0, [width - 1, height - 1])
    kept_high = np.clip(high, kept_low + 1, [width, height])
    part = photo[kept_low[1] : kept_high[1], kept_low[0] : kept_high[0]]
    before, after = np.maximum(kept_low - low, 0), np.maximum(high - kept_high, 0)
    if before.any() or after.any():
        part = np.pad(part, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    left, top = box.left - low[0], box.top - low[1]
    region = (left, top, left + box.side, top + box.side)
    resized = Image.fromarray(part).resize((size, size), Image.Resampling.LANCZOS, box=region, reducing_gap=3.0)
    return np.array(resized)


def valid_mask(photo_size: tuple[int, int], box: CropBox, size: int) -> np.ndarray:
    """(size, size) bool: crop pixels whose centre lies inside a photo of (width, height)."""
    places = (np.arange(size) + 0.5) / size * box.side
    across = (places + box.left >= 0) & (places + box.left < photo_size[0])
    down = (places + box.top >= 0) & (places + box.top < photo_size[1])
    return down[:, None] & across[None, :]


def picture_area(photo: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what lies between black bars (letterbox, pillarbox) of a photo (H, W, 3) uint8.

    A bar is a run of even, nearly black rows or columns from an edge, of less than two fifths of the photo (more is a
    dark scene). A matte net takes bars for clothes.
    """
    height, width = photo.shape[:2]
    top, bottom = _bar(photo), _bar(photo[::-1])
    across = photo[top : height - bottom].transpose(1, 0, 2)
    return _bar(across), top, width - _bar(across[::-1]), height - bottom


def _bar(lines: np.ndarray) -> int:
    """How many of the first lines (L, P, 3) are a black bar."""
    for count, line in enumerate(lines[: int(len(lines) * _WIDEST_BAR)]):
        if np.quantile(line, 0.995) > _BAR_LEVEL or line.std(axis=0).max() > _BAR_SPREAD:
            return count if count >= _THINNEST_BAR_PX else 0
    return 0


def head_crop(photo: np.ndarray, box: CropBox, size: int) -> tuple[Tensor, Tensor]:
    """(H, W, 3) uint8 -> crop (size, size, 3) float in [0, 1], white outside the photo, and valid (size, size).

    Black bars along the photo's edges count as outside.
    """
    left, top, right, bottom = picture_area(photo)
    photo, box = photo[top:bottom, left:right], CropBox(box.left - left, box.top - top, box.side)
    valid = valid_mask((photo.shape[1], photo.shape[0]), box, size)
    crop = cut_square(photo, box, size)
    crop[~valid.any(1)] = 255  # the mask is a rectangle
    crop[:, ~valid.any(0)] = 255
    return torch.from_numpy(crop).float().div_(255), torch.from_numpy(valid).float()
