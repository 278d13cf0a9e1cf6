"""Triangulation, rigid alignment, and what resizing and cropping do to a camera. Float64 numpy.

Pixel positions are continuous: 0 is the edge of the first pixel, its centre is at 0.5 (docs/conventions.md).
"""

from __future__ import annotations

import numpy as np

from ffavatar.errors import InputError
from ffavatar.photo.crop import CropBox


def project(points: np.ndarray, K: np.ndarray, world_to_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) -> pixels (P, 2) and depths (P,) in the unit of the points, for one OpenCV camera."""
    seen = points @ world_to_cam[:3, :3].T + world_to_cam[:3, 3]
    pixels = seen @ K.T
    return pixels[:, :2] / pixels[:, 2:], seen[:, 2]


def triangulate(pixels: np.ndarray, K: np.ndarray, world_to_cam: np.ndarray) -> np.ndarray:
    """(P, 3) points from their pixels (C, P, 2) in C >= 2 cameras K (C, 3, 3), world_to_cam (C, 4, 4).

    Linear (Hartley and Zisserman 2004, 12.2), in normalised image coordinates: the smallest eigenvector of
    A^T A. Raises ``ValueError`` for fewer than two cameras.
    """
    if len(pixels) < 2:
        raise ValueError("one camera tells no depth")
    matrices = world_to_cam[:, None, :3]  # with pixels as rays: in normalised image coordinates, well conditioned
    ones = np.ones((*pixels.shape[:2], 1))
    rays = np.einsum("cij,cpj->cpi", np.linalg.inv(K), np.concatenate([pixels, ones], -1))
    x, y = rays[..., :1] / rays[..., 2:], rays[..., 1:2] / rays[..., 2:]
    rows = np.concatenate(
        [x * matrices[..., 2, :] - matrices[..., 0, :], y * matrices[..., 2, :] - matrices[..., 1, :]]
    )
    normal = np.einsum("rpi,rpj->pij", rows, rows)
    smallest = np.linalg.eigh(normal)[1][..., 0]
    return smallest[:, :3] / smallest[:, 3:]


def rigid_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, 4) rotation and shift that take points ``source`` (P, 3) to ``target`` best (Kabsch 1976); never a mirror."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((target - mean_t).T @ (source - mean_s))
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, mean_t - rotation @ mean_s
    return transform


def resized_intrinsics(K: np.ndarray, calibrated: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """K (3, 3) calibrated for a picture of (width, height), for the same picture at another size.

    Raises ``InputError`` for a size of another shape: such a picture was cut or turned, and K does not hold for it.
    """
    if abs(size[0] * calibrated[1] / (size[1] * calibrated[0]) - 1) > 0.01:
        raise InputError(
            f"A picture of {size[0]} x {size[1]} px has not the shape of {calibrated[0]} x {calibrated[1]} px, "
            "for which it was calibrated for; give the pictures as they were downloaded."
        )
    return np.diag([size[0] / calibrated[0], size[1] / calibrated[1], 1.0]) @ K


def cropped_intrinsics(K: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """K (3, 3) of the square ``box`` of a picture, resampled to ``size`` px a side."""
    scale = size / box.side
    move = np.array([[scale, 0, -scale * box.left], [0, scale, -scale * box.top], [0, 0, 1]])
    return move @ K
