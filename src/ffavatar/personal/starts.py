"""Other beginnings than the feed-forward avatar, to show what it is worth: the bare head, as finely subdivided, in grey
or in unprojected colours, optimised in the same way."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ffavatar.avatar import Avatar
from ffavatar.head import HeadModel
from ffavatar.model.anchors import point_spacing
from ffavatar.personal.residuals import blended_values
from ffavatar.types import CanonicalGaussians, HeadParams

FINEST = 2  # level of avatars at most, unless more is asked for
_GREY = 0.5
_OPACITY = 0.95
_WIDTH_OF_SPACING = 0.7  # so that neighbours close the surface between them
_UNSEEN_PX = 0.5  # weight of the mean colour, so that what is hardly seen takes that one


def grey(avatar: Avatar) -> Avatar:
    """The avatar's head without what the network decoded: a Gaussian on each point of its subdivided skin, round,
    opaque and grey. What was split, grown or unfolded came of the photos, and has no place on a bare head."""
    surface = avatar.rig.head.surface(level_of(avatar.rig.head, len(avatar)))
    rig = replace(avatar.rig, surface=surface, shades=None)
    spacing = point_spacing(rig.points(), surface.faces)
    count = len(surface)
    made = CanonicalGaussians(
        offsets=spacing.new_zeros(count, 3),
        quats=spacing.new_tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=(_WIDTH_OF_SPACING * spacing)[:, None].repeat(1, 3),
        opacities=spacing.new_full((count,), _OPACITY),
        colors=spacing.new_full((count, 3), _GREY),
    )
    return replace(avatar, rig=rig, canonical=made)


def level_of(head: HeadModel, count: int, most: int = FINEST) -> int:
    """Subdivisions of ``head``, ``most`` at most, of an avatar with ``count`` Gaussians: it has one at least on each of
    their points."""
    level = 0
    while level < most and len(head.surface(level + 1)) <= count:
        level += 1
    return level


def unprojected(avatar: Avatar, params: HeadParams, images: Tensor, mattes: Tensor) -> Avatar:
    """The grey head with each Gaussian in the mean colour of the pixels it covers in the views, weighted by how far.

    ``params`` pose the S views, ``images`` (S, H, W, 3) on white, ``mattes`` (S, H, W, 1) say where the person is;
    what no view shows takes the mean colour.
    """
    bare = grey(avatar)
    with torch.no_grad():
        weighted = torch.cat([images * mattes, mattes], -1)
    total = blended_values(bare, params, weighted)
    mean = total.sum(0) / total[:, 3].sum().clamp_min(1e-9)
    filled = total + _UNSEEN_PX * mean
    return replace(bare, canonical=replace(bare.canonical, colors=filled[:, :3] / filled[:, 3:]))
