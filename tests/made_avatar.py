"""A small avatar and a stand-in for the model, so that the command line is tested without weights."""

from __future__ import annotations

from functools import lru_cache

import torch

from ffavatar.animate import Rig
from ffavatar.avatar import Avatar
from ffavatar.head import HeadModel, load_head
from ffavatar.model import Estimate, FFAvatar
from ffavatar.model.looks import Looks
from ffavatar.types import CanonicalGaussians, HeadParams, Views


@lru_cache(maxsize=1)
def small_avatar() -> Avatar:
    """The average head in colours of its coordinates, about 5K Gaussians."""
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(0))
    points = rig.points()
    count = len(points)
    low, high = points.amin(0), points.amax(0)
    canonical = CanonicalGaussians(
        offsets=torch.zeros(count, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(count, 4).clone(),
        scales=torch.full((count, 3), 0.004),
        opacities=torch.full((count,), 0.95),
        colors=(points - low) / (high - low),
    )
    return Avatar(rig, canonical, torch.zeros(head.identity_size), {"made from": "the average head"})


class StandInModel(FFAvatar):
    """Reads the yaw from the landmarks and nothing else; has what films need of a model."""

    def __init__(self, head: HeadModel) -> None:
        torch.nn.Module.__init__(self)
        self.head = head

    def estimator(self, views: Views, identity: torch.Tensor | None = None) -> Estimate:
        across = views.landmarks[:, 263] - views.landmarks[:, 33]
        yaw = torch.atan2(across[:, 2], across[:, 0])
        params = HeadParams.neutral(len(views), len(self.head.expression_names), distance_m=1.15)
        root = torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], -1)
        params = HeadParams(
            root, params.translation, params.neck, params.jaw, params.eye_left, params.eye_right, params.expression
        )
        return Estimate(params, torch.zeros(self.head.identity_size))

    def looks(self, source: Views, estimate: object, like: int | None = None) -> Looks:
        return Looks.one(source)

    def parameters(self):
        yield torch.zeros(1)
