"""Dense optical flow between two pictures of the same thing, a few pixels apart.

Lucas and Kanade's least squares over Gaussian windows (IJCAI 1981), from coarse to fine, on all colour channels. The
field is smooth, which is wanted here: a photo is bent a little, not torn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES_PX = (32, 64, 128, 256)  # of the pictures, from coarse to fine; the finest decides what it costs
STEPS = 2  # at each of them
WINDOW_PX, SMOOTH_PX = 4.0, 1.5  # standard deviations of the windows, and of the smoothing of the field after a step
HUBER = 0.1  # of a pixel's difference: what differs by more shows something else in the two pictures
LEAST_STRUCTURE = 1e-3  # added to the squared slopes: where there are none the field stays as it is
LONGEST_STEP_PX = 2.0


def gaussian_blurred(maps: Tensor, sigma: float) -> Tensor:
    """``maps`` (S, C, H, W) blurred with a standard deviation of ``sigma`` pixels; the edges are continued."""
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device) / sigma) ** 2)
    channels = maps.shape[1]
    row = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    wide = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(wide, row, groups=channels), row.transpose(2, 3), groups=channels)


def bent(maps: Tensor, field: Tensor) -> Tensor:
    """``maps`` (S, C, H, W) at x + field(x), bilinearly; ``field`` (S, 2, H, W) in sides of the picture, x first."""
    height, width = maps.shape[-2:]
    columns = (torch.arange(width, device=maps.device) + 0.5) / width + field[:, 0]
    rows = ((torch.arange(height, device=maps.device) + 0.5) / height)[:, None] + field[:, 1]
    grid = torch.stack([columns, rows], -1) * 2 - 1
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")


def dense_flow(first: Tensor, second: Tensor, weight: Tensor, longest: float) -> Tensor:
    """The field (S, 2, H, W) by which ``second`` is bent onto ``first``: ``second`` at x + field(x) is ``first`` at x.

    Pictures (S, C, H, W), square; ``weight`` (S, 1, H, W) says where they can be compared. The field is in sides of the
    picture, x first, and nowhere longer than ``longest``.
    """
    side = first.shape[-1]
    field = first.new_zeros(len(first), 2, SIZES_PX[0], SIZES_PX[0])
    for size in SIZES_PX:
        size = min(size, side)
        a, b, counts = (_resized(maps, size) for maps in (first, second, weight))
        field = _resized(field, size)
        for _ in range(STEPS):
            field = field + _step(a, bent(b, field), counts) / size
            field = gaussian_blurred(field, SMOOTH_PX)
            field = field * (longest / field.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)
    return _resized(field, side)


def _step(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """How many pixels each place of ``second`` should move to look like ``first``, (S, 2, H, W)."""
    wide = F.pad((first + second) / 2, (1, 1, 1, 1), mode="replicate")
    slope_x = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    slope_y = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    lacks = first - second
    counts = weight * HUBER / lacks.abs().amax(1, keepdim=True).clamp_min(HUBER)
    products = (slope_x**2, slope_x * slope_y, slope_y**2, slope_x * lacks, slope_y * lacks)
    sums = gaussian_blurred(torch.cat([counts * p.sum(1, keepdim=True) for p in products], 1), WINDOW_PX)
    xx, xy, yy, x, y = sums.split(1, 1)
    xx, yy = xx + LEAST_STRUCTURE, yy + LEAST_STRUCTURE
    solved = torch.cat([yy * x - xy * y, xx * y - xy * x], 1) / (xx * yy - xy**2)
    return solved.clamp(-LONGEST_STEP_PX, LONGEST_STEP_PX)


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", antialias=True, align_corners=False)
