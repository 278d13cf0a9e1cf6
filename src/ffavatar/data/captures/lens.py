"""Lens distortion taken out of pictures: the radial-tangential model (Brown 1966) with OpenCV's coefficients.

What is known of a lens is applied once, to the pictures; all that follows sees pinhole cameras.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

COUNTS = (4, 5, 8)  # k1 k2 p1 p2, then k3, then k4 k5 k6
MODELS = ("", "radial-tangential", "brown-conrady", "opencv", "plumb_bob", "rational_polynomial")


def read_coefficients(value: Any, model: Any = "") -> np.ndarray | None:
    """(4,), (5,) or (8,) coefficients as a calibration file gives them; None where there are none, or only zeros.

    Raises ``ValueError`` for other counts, values that are no finite numbers, and coefficients of another model.
    """
    if value is None:
        return None
    coefficients = np.array(value, np.float64).reshape(-1)
    if not coefficients.any():
        return None
    if str(model or "").lower() not in MODELS:
        raise ValueError(f"lens distortion of the model {model!r}")
    if len(coefficients) not in COUNTS or not np.isfinite(coefficients).all():
        raise ValueError(f"{len(coefficients)} lens coefficients; 4, 5 or 8 finite numbers are")
    return coefficients


def distorted(points: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Where rays (..., 2), as x / z and y / z of the ideal camera, meet the picture of the lens; the same units."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(coefficients, (0, 8 - len(coefficients)))
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    moved_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    moved_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([moved_x, moved_y], -1)


def undistorted(image: np.ndarray, K: np.ndarray, coefficients: np.ndarray | None) -> np.ndarray:
    """The picture (H, W) or (H, W, C) uint8 as a pinhole camera with the same K (3, 3) would have taken it.

    Bicubic; what the lens did not see repeats the picture's edge. K is in pixels, 0 at the first pixel's edge.
    """
    if coefficients is None:
        return image
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    places = distorted(rays[..., :2] / rays[..., 2:], coefficients)
    pixels = places @ K[:2, :2].T + K[:2, 2]
    grid = torch.from_numpy((2 * pixels / [width, height] - 1).astype(np.float32))
    planes = torch.from_numpy(np.ascontiguousarray(image)).reshape(height, width, -1).permute(2, 0, 1)[None].float()
    moved = F.grid_sample(planes, grid[None], mode="bicubic", padding_mode="border", align_corners=False)[0]
    return moved.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).reshape(image.shape).numpy()
