"""What needs no avatar: the nearest source photo as it is (``copy``), or bent to the target's landmarks (``warp``).

Any avatar worth its name beats both; they stand in every table. ``warp`` needs scipy, which is no dependency.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.evaluate.identity import similarity
from ffavatar.types import Views

MESH_POINTS = 468  # the ten iris points after them follow the gaze and say nothing about the face's place
BORDER_POINTS = 8  # on each side of the crop, fixed in both pictures: hair and shoulders fade into standing still


def nearest_source(source: Views, target: Views) -> Tensor:
    """(T,) int64: for each target the source view whose landmarks fit best after a similarity alignment.

    Position, size and roll are aligned away, so the most alike head turn and expression wins. The distance is the mean
    over the 468 mesh points, in crop units of the target.
    """
    s, t = (views.landmarks[:, :MESH_POINTS, :2].double() for views in (source, target))
    sources, targets = len(s), len(t)
    s = s[None].expand(targets, -1, -1, -1).flatten(0, 1)
    t = t[:, None].expand(-1, sources, -1, -1).flatten(0, 1)
    fit = similarity(s, t)
    moved = s @ fit[..., :2].transpose(1, 2) + fit[:, None, :, 2]
    return (moved - t).norm(dim=-1).mean(1).view(targets, sources).argmin(1)


def copy(source: Views, target: Views) -> Tensor:
    """(T, H, W, 3) the nearest source view on white, unchanged."""
    return source.on_white()[nearest_source(source, target)]


def warp(source: Views, target: Views) -> Tensor:
    """(T, H, W, 3) the nearest source view on white, warped piecewise affinely onto the target's landmarks.

    Triangles: Delaunay over the target's landmarks and points on the crop's border. What comes from outside the source
    crop is white. Raises ``InputError`` where scipy is missing.
    """
    nearest = nearest_source(source, target)
    places = np.stack(
        [
            _backward_map(source.landmarks[s], target.landmarks[t], target.images.shape[1:3])
            for t, s in enumerate(nearest.tolist())
        ]
    )
    grid = torch.from_numpy(places).to(source.images) * 2 - 1
    darkness = 1 - source.on_white()[nearest].permute(0, 3, 1, 2)  # so that zero padding is white
    warped = F.grid_sample(darkness, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (1 - warped.permute(0, 2, 3, 1)).clamp(0, 1)


def _backward_map(source: Tensor, target: Tensor, size: torch.Size | tuple[int, int]) -> np.ndarray:
    """(H, W, 2) where in the source crop each pixel of the target comes from; x, y in crop units."""
    try:
        from scipy.interpolate import LinearNDInterpolator
    except ImportError as error:
        raise InputError("The warp baseline needs scipy: pip install scipy.") from error
    border = _border()
    # Landmarks on or beyond the border (a face cut by the photo) would fold the mesh over the fixed border points.
    known = target[:, :2].double().cpu().numpy()
    inside = ((known > 1e-3) & (known < 1 - 1e-3)).all(1)
    come_from = source[:, :2].double().cpu().numpy()
    interpolate = LinearNDInterpolator(
        np.concatenate([known[inside], border]), np.concatenate([come_from[inside], border])
    )
    height, width = size
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return interpolate(np.stack([x, y], -1))


def _border() -> np.ndarray:
    """Points around the unit square, corners included once."""
    side = np.arange(BORDER_POINTS) / BORDER_POINTS
    zero, one = np.zeros(BORDER_POINTS), np.ones(BORDER_POINTS)
    rows = [(side, zero), (one, side), (1 - side, one), (zero, 1 - side)]
    return np.concatenate([np.stack(row, -1) for row in rows])
