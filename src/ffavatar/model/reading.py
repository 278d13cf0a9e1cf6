"""What source views say of points on the head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.geometry import normalised_camera, project
from ffavatar.model.flow import gaussian_blurred
from ffavatar.model.looks import Looks
from ffavatar.model.skin import Skin
from ffavatar.types import HeadParams, Views

SHARPENING, SHARPENING_SIGMA = 2.0, 1.2 / 512  # of the photos before colours are read: splats blur; sigma in crop sides
OUTLINE, BEHIND = -0.1, -0.4  # cosines down to which nothing is guessed of the shape, and from which all is
EDGE_PX = 4  # of a photo, along its edges, are not read: sharpening and resizing mix in what lies beyond


@dataclass(frozen=True)
class Sources:
    """S source views and what is known of them."""

    views: Views
    params: HeadParams
    features: Tensor  # (S, C, H, W)
    looks: Looks
    light: Tensor | None = None  # (S, V, 3) factors of colours read at base vertices, into the taken look's light
    skin: Skin | None = None  # what tells it from what else is shown in its place

    @cached_property
    def maps(self) -> Tensor:
        """(S, 5, H, W): what is read at points: colours, sharpened; matte, with a pixel to spare and 1 where nothing is
        known; and 1 inside the photo, away from its edges."""
        views = self.views
        soft = F.max_pool2d(known_mattes(views), 3, stride=1, padding=1)
        whole = -F.max_pool2d(-views.valid[:, None], 2 * EDGE_PX + 1, stride=1, padding=EDGE_PX)
        return torch.cat([sharpened(views.images), soft, whole], 1)


@dataclass(frozen=True)
class Sampled:
    """What each of S source views says of each of N points."""

    colors: Tensor  # (S, N, 3)
    features: Tensor  # (S, N, C)
    matte: Tensor  # (S, N) in [0, 1]; 1 outside the photo, where nothing is known
    trust: Tensor  # (S, N) in [0, 1]: visible, facing the camera, inside photo and matte, believed
    facing: Tensor  # (S, N) cosine between normal and viewing direction
    depth: Tensor  # (S, N) metres before the camera
    believed: Tensor  # (S, N) in [0, 1]: of the trust, what is left where something else is shown than should be there

    def cues(self) -> Tensor:
        """(S, N, C + 6): what the networks are told of each point."""
        beside = [value[..., None] for value in (self.matte, self.trust, self.facing)]
        return torch.cat([self.features, self.colors, *beside], -1)

    @property
    def shown(self) -> Tensor:
        """(S, N) the trust in what is seen, whatever it is: hair over an ear is not believed to be the ear."""
        return self.trust / self.believed

    def turned_away(self) -> Tensor:
        """(N,) in [0, 1]: how far points are turned away from all views, so that their shape is guessed."""
        return ((OUTLINE - self.facing.amax(0)) / (OUTLINE - BEHIND)).clamp(0, 1)


def sample(maps: Tensor, uv: Tensor) -> Tensor:
    """Bilinear samples of maps (S, C, H, W) at crop positions (S, N, 2) in [0, 1] -> (S, N, C)."""
    if torch.is_grad_enabled() and (lost := uv.isnan().any(-1, keepdim=True)).any():
        # torch's backward pass on CPUs dies of such positions (pytorch #24823); what they read is no number either
        return sample(maps, uv.masked_fill(lost, 0)).masked_fill(lost, torch.nan)
    grid = (uv * 2 - 1)[:, :, None]
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)


def sharpened(images: Tensor) -> Tensor:
    """Unsharp masking: what drawing by splats about a pixel wide takes away is added before. (S, H, W, 3) -> (S, 3, H,
    W) in [0, 1]."""
    maps = images.permute(0, 3, 1, 2)
    blurred = gaussian_blurred(maps, SHARPENING_SIGMA * images.shape[1])
    return (maps + SHARPENING * (maps - blurred)).clamp(0, 1)


def known_mattes(views: Views) -> Tensor:
    """(S, 1, H, W): the views' mattes, 1 outside of their photos, where nothing is known."""
    return (views.mattes * views.valid + (1 - views.valid))[:, None]


def mattes_at(known: Tensor, points: Tensor) -> Tensor:
    """:func:`known_mattes` at posed points (S, P, 3): (S, P); 1 outside of the crops."""
    uv, _ = project(points, normalised_camera(1, len(points), points.device))
    return torch.where(((uv > 0) & (uv < 1)).all(-1), sample(known, uv)[..., 0], 1.0)
