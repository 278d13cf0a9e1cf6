"""Pictures compared in another square than our head crop: windows of it, by the rules of other people's test sets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.evaluate.identity import FIVE_POINTS
from ffavatar.geometry import normalised_camera
from ffavatar.photo.crop import CropBox
from ffavatar.types import Camera

FIVE_POINT_SCALE = 3.0


def five_point_box(points: Tensor) -> CropBox:
    """The square around the box of eyes, nose tip and mouth corners, its longer side three times that of the box.

    points: (478, >= 2) landmarks in photo pixels.
    """
    five = points[list(FIVE_POINTS), :2].double()
    low, high = five.amin(0), five.amax(0)
    side = FIVE_POINT_SCALE * float((high - low).max())
    centre = (low + high) / 2
    return CropBox(float(centre[0]) - side / 2, float(centre[1]) - side / 2, side)


def windows_of(crops: Tensor, boxes: Tensor) -> Tensor:
    """(T, 3) left, top and side of squares ``boxes`` in units of the squares ``crops``; both (T, 3) photo pixels."""
    return torch.cat([boxes[:, :2] - crops[:, :2], boxes[:, 2:]], 1) / crops[:, 2:]


def into_windows(points: Tensor, windows: Tensor) -> Tensor:
    """Landmarks (T, L, 2 or 3) in crop units, in units of the windows (T, 3)."""
    shift = F.pad(windows[:, None, :2], (0, points.shape[-1] - 2))
    return ((points - shift) / windows[:, None, 2:]).to(points.dtype)


def cut_windows(maps: Tensor, windows: Tensor, size: int) -> Tensor:
    """(T, size, size, C) of maps (T, H, W, C): the windows (T, 3) in crop units, bilinear; zero outside the crop."""
    step = (torch.arange(size, dtype=torch.float64, device=maps.device) + 0.5) / size
    places = windows.to(step)
    x = places[:, :1] + places[:, 2:] * step
    y = places[:, 1:2] + places[:, 2:] * step
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1) * 2 - 1
    planes = maps.permute(0, 3, 1, 2)
    # a window smaller than the crop is enlarged; one with more pixels than it can take is averaged by the factor
    factor = max(1, int(float(places[:, 2].min()) * maps.shape[1] / size))
    if factor > 1:
        planes = F.avg_pool2d(planes, factor)
    cut = F.grid_sample(planes, grid.to(planes), mode="bilinear", padding_mode="zeros", align_corners=False)
    return cut.permute(0, 2, 3, 1)


def window_camera(windows: Tensor, size: int) -> Camera:
    """The normalised camera narrowed to each window (T, 3) in crop units; pictures of ``size`` px a side."""
    whole = normalised_camera(1, len(windows), windows.device)
    left, top, side = windows.float().unbind(1)
    zero, one = torch.zeros_like(left), torch.ones_like(left)
    narrow = torch.stack([1 / side, zero, -left / side, zero, 1 / side, -top / side, zero, zero, one], -1)
    pixels = torch.diag(torch.tensor([size, size, 1.0], device=windows.device))
    return Camera(whole.world_to_cam, pixels @ narrow.view(-1, 3, 3) @ whole.K, size, size)
