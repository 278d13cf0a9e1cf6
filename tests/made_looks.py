"""The average head on two days: for what is taken from one look and what from all."""

from __future__ import annotations

from functools import cache

import torch

from ffavatar.animate import Rig, render_avatar
from ffavatar.head import HeadModel, load_head
from ffavatar.types import CanonicalGaussians, HeadParams, Views

SIZE = 128
SKIN, BLUE, RED = (0.8, 0.6, 0.5), (0.1, 0.2, 0.7), (0.7, 0.15, 0.1)
DIMMER = 0.75  # the light of the second day


@cache
def two_days() -> tuple[HeadModel, HeadParams, Views]:
    """Five pictures, numbered by their first landmarks: three in a blue shirt, two in a red one and in dimmer light."""
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(1))
    count = len(rig.surface)
    params = HeadParams.neutral(5, len(head.expression_names), distance_m=1.15)
    params.root[:, 1] = torch.tensor([0.0, 0.3, -0.25, 0.1, -0.1])
    torso = rig.surface.interpolate(head.lbs_weights[:, :1]) > 0.5
    images, mattes = [], []
    for view in range(5):
        shirt, light = (BLUE, 1.0) if view < 3 else (RED, DIMMER)
        gaussians = CanonicalGaussians(
            torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).expand(count, 4), torch.full((count, 3), 0.003),
            torch.full((count,), 0.99), light * torch.where(torso, torch.tensor(shirt), torch.tensor(SKIN)),
        )  # fmt: skip
        drawn = render_avatar(rig, gaussians, params[[view]], SIZE)
        images.append(drawn.images)
        mattes.append((drawn.alphas > 0.9).float())
    landmarks = torch.zeros(5, 478, 3)
    landmarks[:, 0, 0] = torch.arange(5)
    views = Views(torch.cat(images), torch.cat(mattes), torch.ones(5, SIZE, SIZE), landmarks, torch.zeros(5, 52))
    return head, params, views
