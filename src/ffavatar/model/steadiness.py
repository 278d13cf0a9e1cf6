"""How far what a view shows of the skin can be trusted to look right in motion.

Lids that are folded away in every photo, and the skin beside the mouth, unfold to several times their area when eyes
close or the jaw drops: detail learned from such slivers would be shown magnified, as specks. Lips and lids lie on
borders that the poses of the views place only roughly, so they would take on specks of teeth and eyes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.types import HeadParams

JAW_RAD = 0.35
"""An open mouth, as a rotation of the jaw."""
BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")
FREE_STRETCH = 1.3
"""Ratio of areas up to which nothing is held back."""
FOLDED = (1.2, 3.0)
"""The same of lids: up to which they are shown, and from which they are folded away."""
BORDERS, BORDER_SHARE = ("lips", "eyelids"), 0.4
"""Regions of the head that take this share of their own residuals at most; they follow the nodes all the same."""


def steadiness(rig: Rig, params: HeadParams) -> Tensor:
    """Share of its own residuals that each Gaussian takes, in (0, 1]. (N,)

    The cube of ``FREE_STRETCH`` over the ratio of the skin's area, with closed eyes and open mouth, to the most that a
    view (``params``) shows of it; times ``BORDER_SHARE`` on lips and lids, where the head has such regions.
    """
    with torch.no_grad():
        shown = torch.cat([_areas(rig, params[i : i + 1]) for i in range(len(params))]).amax(0)
        stretch = _areas(rig, _probes(rig)[1:]).amax(0) / shown.clamp_min(1e-12)
        steady = (FREE_STRETCH / stretch.clamp_min(1e-6)).clamp_max(1) ** 3
        for name in BORDERS:
            if name in rig.head.regions:
                steady = torch.where(rig.head.regions[name], BORDER_SHARE * steady, steady)
        return rig.surface.interpolate(steady[:, None])[:, 0]


@torch.no_grad()
def folded_lids(rig: Rig, params: HeadParams) -> Tensor:
    """(V,) in [0, 1]: how far base vertices are lids' skin that every view (``params``) shows folded away."""
    shown = torch.cat([_areas(rig, params[i : i + 1]) for i in range(len(params))]).amax(0)
    stretch = _areas(rig, _probes(rig)[1:2])[0] / shown.clamp_min(1e-12)
    low, high = FOLDED
    return ((stretch - low) / (high - low)).clamp(0, 1)


@torch.no_grad()
def unfolding(rig: Rig) -> Tensor:
    """Ratio of the skin's area around each base vertex with closed eyes to that at rest. (V,)"""
    open_eyes, closed, _ = _areas(rig, _probes(rig))
    return closed / open_eyes.clamp_min(1e-12)


def _probes(rig: Rig) -> HeadParams:
    """Three poses: at rest, with closed eyes, with an open mouth."""
    names = rig.head.expression_names
    probes = HeadParams.neutral(3, len(names), rig.neutral.device)
    for name in BLINKS:
        if name in names:
            probes.expression[1, names.index(name)] = 1
    probes.jaw[2, 0] = JAW_RAD
    return probes


def _areas(rig: Rig, params: HeadParams) -> Tensor:
    """Mean area of the base triangles around each base vertex. (B, V) square metres"""
    vertices = rig.head.pose(rig.neutral[None], rig.joints[None], params).vertices
    faces = rig.head.faces
    a, b, c = (vertices[:, faces[:, corner]] for corner in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2
    total, count = vertices.new_zeros(vertices.shape[:2]), vertices.new_zeros(vertices.shape[1])
    for corner in range(3):
        total.index_add_(1, faces[:, corner], area)
        count.index_add_(0, faces[:, corner], torch.ones_like(area[0]))
    return total / count.clamp_min(1)
