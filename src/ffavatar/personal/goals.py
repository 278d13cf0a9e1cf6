"""What the avatar is fitted to: each view as far as it shows the avatar's hair and clothes, of others the face."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import render_avatar
from ffavatar.avatar import Avatar
from ffavatar.model import Estimate, FFAvatar
from ffavatar.model.decoder import AnchoredDecoder
from ffavatar.model.looks import Looks
from ffavatar.pipeline import drive, targets_on_white
from ffavatar.types import HeadParams, Views

FACE = 0.95  # share of a pixel that must be the face's
INSIDE = 1 / 128  # sides of a picture by which the face's edge is left out: no pose is exact


@dataclass(frozen=True)
class Goals:
    """S views as they are compared: pictures on white (S, H, W, 3), mattes and valid masks (S, H, W, 1)."""

    images: Tensor
    mattes: Tensor
    valid: Tensor

    def __getitem__(self, index: list[int]) -> Goals:
        return Goals(self.images[index], self.mattes[index], self.valid[index])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Reading:
    """S views beside an avatar."""

    params: HeadParams  # the estimator's
    goals: Goals
    alike: Tensor  # (S,) bool: shows the avatar's hair and clothes


def read_views(model: FFAvatar, avatar: Avatar, views: Views, size: int) -> Reading:
    """``views`` as the estimator reads them, and at ``size`` pixels a side.

    Of views that show the person in other hair or clothes than the avatar's (``model/looks.py``) only the face is
    valid, in the avatar's light, and their outline does not place the head.
    """
    params = drive(model, avatar, views)
    looks = looks_beside(model, avatar, views, params)
    images, mattes, valid = targets_on_white(looks.relit(views), size)
    alike = looks.taken
    if not alike.all():
        params = params.where(alike, drive(model, avatar, views, own=False))
        face = torch.where(alike[:, None, None, None], 1.0, face_masks(model, avatar, params, size))
        images, mattes, valid = images * face + 1 - face, mattes * face, valid * face
    return Reading(params, Goals(images, mattes, valid), alike)


@torch.no_grad()
def looks_beside(model: FFAvatar, avatar: Avatar, views: Views, read: HeadParams) -> Looks:
    """The looks of views, read as ``read``; the one of rank 0 is the avatar's."""
    params = avatar.neutral_params()
    drawn = avatar.render(params, views.images.shape[1])
    own = replace(
        views[:1], images=drawn.images.clamp(0, 1), mattes=drawn.alphas, valid=torch.ones_like(drawn.alphas)
    )  # fmt: skip
    both = Views.cat([own, views])
    found = model.looks(both, Estimate(HeadParams.cat([params, read]), avatar.identity), like=0)
    return Looks(found.rank[1:], found.gains[1:])


@torch.no_grad()
def face_masks(model: FFAvatar, avatar: Avatar, params: HeadParams, size: int) -> Tensor:
    """(S, size, size, 1) in {0, 1}: where the avatar in these poses shows its face, which is the same in every look."""
    assert isinstance(model.decoder, AnchoredDecoder)
    face = model.decoder.of_face(avatar.rig.surface).float()
    marked = replace(avatar.canonical, colors=face[:, None].expand(-1, 3))
    rig = replace(avatar.rig, shades=None)
    shown = render_avatar(rig, marked, params, size, background=(0.0, 0.0, 0.0)).images[..., :1]
    reach = max(1, round(INSIDE * size))
    inner = -F.max_pool2d(-shown.permute(0, 3, 1, 2), 2 * reach + 1, 1, reach)
    return (inner > FACE).float().permute(0, 2, 3, 1)
