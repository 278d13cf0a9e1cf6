"""Photos of the average head in flat colours, and avatars of them by an untrained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ffavatar.animate import Rig, render_avatar
from ffavatar.avatar import Avatar
from ffavatar.head import HeadModel
from ffavatar.model import Estimate, create_model
from ffavatar.pipeline import decode
from ffavatar.types import CanonicalGaussians, HeadParams, Views

Colour = tuple[float, float, float]


def painted_photo(
    head: HeadModel, turned: float, size: int, skin: Colour, paint: Sequence[tuple[Colour, Tensor]]
) -> tuple[Views, HeadParams]:
    """A photo of the head, turned to its left by so many radians, with vertices (V,) bool in other colours, the last of
    which holds."""
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(1))
    count, parents = len(rig.surface), rig.surface.parents
    colors = torch.tensor(skin).repeat(count, 1)
    for colour, where in paint:
        colors[where[parents].all(1)] = torch.tensor(colour)
    gaussians = CanonicalGaussians(
        torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).expand(count, 4), torch.full((count, 3), 0.002),
        torch.full((count,), 0.99), colors,
    )  # fmt: skip
    params = HeadParams.neutral(1, len(head.expression_names), distance_m=1.15)
    params.root[:, 1] = turned
    drawn = render_avatar(rig, gaussians, params, size)
    views = Views(drawn.images, (drawn.alphas > 0.9).float(), torch.ones_like(drawn.alphas), torch.zeros(1, 478, 3),
                  torch.zeros(1, 52))  # fmt: skip
    return views, params


def avatar_of(head: HeadModel, views: Views, params: HeadParams) -> Avatar:
    torch.manual_seed(0)
    model = create_model("tiny", head=head).eval()
    return decode(model, views, 1, Estimate(params, torch.zeros(head.identity_size)))
