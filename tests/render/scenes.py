"""Made scenes for the rasteriser's tests: a Gaussian-covered ellipsoid of a head's size, seen from several sides."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ATTRIBUTES = ("means", "quats", "scales", "opacities", "colors")
AXES_M = (0.075, 0.115, 0.095)
DISTANCE_M = 1.0


def head_scene(
    count: int, size: int, channels: int = 3, views: int = 1, per_view: bool = False, spread: float = 1.2, seed: int = 0
) -> dict[str, Any]:
    """Arguments of ``rasterize``, float64 with float32 values. ``spread``: standard deviations in units of the spacing.

    Two overlapping splats whose depths are equal to seven digits may be composited in another order in float32; that is
    so in any float32 rasteriser, and choosing the seed avoids it.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    axes = torch.tensor(AXES_M, dtype=torch.float64)
    normals = torch.nn.functional.normalize(normal(count, 3), dim=-1)
    spacing = math.sqrt(4 * math.pi * (AXES_M[0] * AXES_M[1] * AXES_M[2]) ** (2 / 3) / count)
    scene: dict[str, Any] = {
        "means": normals * axes * (1 + 0.02 * normal(count, 1)),
        "quats": normal(count, 4),
        "scales": spread * spacing * torch.exp(0.4 * normal(count, 3)),
        "opacities": torch.sigmoid(2 + 1.5 * normal(count)),
        "colors": torch.sigmoid(normal(count, channels)),
    }
    if per_view:
        scene = {
            name: torch.stack([value * (1 + 0.03 * normal(*value.shape)) for _ in range(views)])
            for name, value in scene.items()
        }
        scene["opacities"] = scene["opacities"].clamp(0.01, 0.999)
    viewmats = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    for v in range(views):
        angle = 0.2 + 0.6 * v
        c, s = math.cos(angle), math.sin(angle)
        viewmats[v, :3, :3] = torch.tensor([[c, 0, s], [0, -1, 0], [s, 0, -c]], dtype=torch.float64)
        viewmats[v, 2, 3] = DISTANCE_M
    focal = 0.42 * size / AXES_M[1] * DISTANCE_M
    K = torch.tensor([[focal, 0, size / 2 + 1.3], [0, 1.02 * focal, size / 2 - 0.7], [0, 0, 1]], dtype=torch.float64)
    scene |= {"viewmats": viewmats, "Ks": K.repeat(views, 1, 1)}
    return {name: value.float().double() for name, value in scene.items()} | {"width": size, "height": size - 5}


def cast(scene: dict[str, Any], dtype: torch.dtype, gradients: bool = False) -> dict[str, Any]:
    """A copy in another precision, its attributes as leaves."""
    out = {name: value.to(dtype).clone() if isinstance(value, Tensor) else value for name, value in scene.items()}
    for name in ATTRIBUTES:
        out[name].requires_grad_(gradients)
    return out


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(max(float((a.detach().double() - b.detach().double()).square().mean()), 1e-30))


def relative_l2(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())
