"""Gauss-Newton on the outline: where torso and head stand, from the matte.

Landmarks see the face alone. A turn that is off by two degrees, or a torso by a few millimetres, hardly moves them, but
shifts hair, collar and shoulders by pixels. Once an avatar of the person exists, its outline is known in every pose,
and the matte says where it should be. This layer moves root, translation and neck until the two agree, within what the
landmarks leave free: their posterior (``landmark_fit.posterior``) is the prior here.

The picture's derivative is that of brightness constancy (Lucas and Kanade, IJCAI 1981): a point of the avatar that
moves on the picture by du takes its alpha along, d alpha = -grad alpha . du. So one rendering per step tells how all
unknowns change it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig, pose_gaussians
from ffavatar.geometry import NORMALISED_FOCAL, axis_angle_to_matrix, normalised_camera, project
from ffavatar.model.landmark_fit import OUTER, projection_jacobian, stepped
from ffavatar.render import rasterize
from ffavatar.types import CanonicalGaussians, HeadParams, Views

SIZE_PX = 128
STEPS = 4
EPS2D = 0.02  # the widening of splats in square pixels, as small on the picture as at 512 px: it would move outlines
SIGMA = 1.5  # of a pixel's alpha: neighbours on an outline err together, so each counts little
HUBER = 0.3  # differences above are hair that moves and mattes that leak
BLUR_PX = 7  # of both outlines before they are compared, which widens the reach of the derivative
LEAST_SLOPE, LEAST_ALPHA = 0.5, 0.02  # slope per crop side: where it is less there is no outline


def head_share(rig: Rig) -> Tensor:
    """(N,) in [0, 1]: how far each Gaussian goes with the neck's turn instead of standing with the torso."""
    above = rig.head.lbs_weights[:, 1:].sum(1)  # the neck and all that hangs on it
    return rig.surface.interpolate(above[:, None])[:, 0]


@torch.no_grad()
def register(
    rig: Rig, canonical: CanonicalGaussians, views: Views, params: HeadParams, precision: Tensor
) -> HeadParams:
    """``params`` (B,) moved so that the avatar's outline meets the mattes of ``views`` (B,), which show its person.

    ``precision`` (B, 18 + E, 18 + E): how firmly the landmarks hold all unknowns; those that are not moved for the
    outline follow as the landmarks want it.
    """
    valid = _shrunk(views.valid[:, None]).gt(0.99).float()
    goal = _blurred(_shrunk((views.mattes * views.valid)[:, None]) * valid)
    inner, coupling = precision[:, OUTER:, OUTER:], precision[:, OUTER:, :OUTER]
    follow = -torch.linalg.solve(inner, coupling)  # (B, 9 + E, 9)
    prior = precision[:, :OUTER, :OUTER] + coupling.transpose(1, 2) @ follow  # the rest integrated out
    share = head_share(rig)
    moved = torch.zeros_like(precision[:, 0, :OUTER])
    for _ in range(STEPS):
        alpha, pixels, columns = _outline(rig, canonical, params, share, valid)
        difference = (goal - alpha)[:, 0][pixels]
        weight = HUBER / difference.abs().clamp_min(HUBER) / SIGMA**2 * valid[:, 0][pixels]
        weighted = columns * weight[:, None]
        hessian = prior.index_add(0, pixels[0], weighted[:, :, None] * columns[:, None])
        gradient = -(prior @ moved[..., None])[..., 0]
        gradient = gradient.index_add(0, pixels[0], weighted * difference[:, None])
        step = torch.linalg.solve(hessian, gradient)
        moved = moved + step
        params = stepped(params, torch.cat([step, (follow @ step[..., None])[..., 0]], 1))
    return params


def _outline(
    rig: Rig, canonical: CanonicalGaussians, params: HeadParams, share: Tensor, valid: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """The avatar's alpha (B, 1, H, W), blurred; the pixels (frame, row, column) where it slopes; and its derivatives
    there by the free unknowns (P, 9)."""
    posed = pose_gaussians(rig, canonical, params)
    camera = normalised_camera(SIZE_PX, len(params), posed.means.device)
    _, depth = project(posed.means, camera)
    told = torch.stack([depth, share.expand_as(depth)], -1)
    drawn, alpha, _ = rasterize(
        posed.means, posed.quats, posed.scales, posed.opacities, told,
        camera.world_to_cam, camera.K, SIZE_PX, SIZE_PX, eps2d=EPS2D,
    )  # fmt: skip
    drawn, alpha = (_blurred(maps.permute(0, 3, 1, 2) * valid) for maps in (drawn, alpha))
    slope = _gradient(alpha[:, 0])
    told_where = (slope.norm(dim=-1) > LEAST_SLOPE) & (alpha[:, 0] > LEAST_ALPHA)
    frame, row, column = pixels = told_where.nonzero(as_tuple=True)
    far, goes = (drawn[frame, :, row, column] / alpha[frame, :, row, column]).unbind(1)
    x, y = ((place + 0.5) / SIZE_PX - 0.5 for place in (column, row))
    points = torch.stack([x * far / NORMALISED_FOCAL, -y * far / NORMALISED_FOCAL, -far], -1)  # (P, 3)

    root, neck = _pivots(rig, params)
    eye = torch.eye(3, device=far.device).expand(len(points), 3, 3)
    axes = axis_angle_to_matrix(params.root).mT[frame]  # the neck's perturbation is in the root's frame
    by_root = torch.linalg.cross(eye, (points - root[frame])[:, None].expand_as(eye))
    by_neck = goes[:, None, None] * torch.linalg.cross(axes, (points - neck[frame])[:, None].expand_as(eye))
    velocity = torch.cat([by_root, eye, by_neck], 1)  # (P, 9, 3)
    flow = velocity @ projection_jacobian(points).mT  # (P, 9, 2) crop sides
    return alpha, pixels, -(flow @ slope[pixels][..., None])[..., 0]


def _pivots(rig: Rig, params: HeadParams) -> tuple[Tensor, Tensor]:
    """Where the root's and the neck's joints stand: (B, 3) each."""
    root = rig.joints[0] + params.translation
    arm = axis_angle_to_matrix(params.root) @ (rig.joints[1] - rig.joints[0])
    return root, root + arm


def _gradient(maps: Tensor) -> Tensor:
    """d maps / d crop units by central differences. (B, H, W) -> (B, H, W, 2), x first."""
    wide = F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_x = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]
    along_y = wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
    return torch.stack([along_x, along_y], -1) * (SIZE_PX / 2)


def _shrunk(maps: Tensor) -> Tensor:
    return F.interpolate(maps, (SIZE_PX, SIZE_PX), mode="bilinear", antialias=True, align_corners=False)


def _blurred(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, BLUR_PX, 1, padding=BLUR_PX // 2, count_include_pad=False)
