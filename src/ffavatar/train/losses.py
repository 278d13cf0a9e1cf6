"""Losses of the training stages, each on its own so that its effect can be measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.head import HeadModel
from ffavatar.model.landmark_fit import LandmarkModel, project_normalised
from ffavatar.render import mean_ssim
from ffavatar.train.recipe import Recipe
from ffavatar.types import HeadParams, Rendering, Views

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(prediction, fixed goal) -> distance per picture; both (B, H, W, 3) in [0, 1]."""


@dataclass(frozen=True)
class Weighted:
    """Named loss terms, already weighted."""

    terms: dict[str, Tensor]

    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()

    def floats(self) -> dict[str, float]:
        return {name: float(value.detach()) for name, value in self.terms.items()}


def rotation_error(a: Tensor, b: Tensor) -> Tensor:
    """Angle between axis-angle rotations (..., 3) in radians, (...,): exact and smooth but at zero and pi."""
    relative = axis_angle_to_matrix(a).transpose(-1, -2) @ axis_angle_to_matrix(b)
    sine = (relative - relative.transpose(-1, -2)).flatten(-2).norm(dim=-1) / (2 * 2**0.5)
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def head_turn(params: HeadParams) -> Tensor:
    """Rotation of the head in the world: torso and neck together. (B, 3, 3)."""
    return axis_angle_to_matrix(params.root) @ axis_angle_to_matrix(params.neck)


def parameter_losses(
    params: HeadParams, identity: Tensor, true: HeadParams, true_identity: Tensor, head: HeadModel, points: Tensor
) -> Weighted:
    """Estimator stage: Huber losses on what each number does to the head.

    ``identity`` and ``true_identity`` (B, I), not compared where an estimator has none (I = 0); ``points`` (Q,) indices
    of vertices on which shape and expression are compared, in centimetres.
    """

    def angle(name: str, weight: float) -> Tensor:
        return weight * F.smooth_l1_loss(getattr(params, name), getattr(true, name), beta=0.05)

    def displacement(difference: Tensor, basis: Tensor, beta: float) -> Tensor:
        moved = difference @ (basis[points].flatten(0, 1) * 100).T
        return F.smooth_l1_loss(moved, torch.zeros_like(moved), beta=beta)

    terms = {
        "root": angle("root", 20),
        "neck": angle("neck", 20),
        "turn": 60 * (head_turn(params) - head_turn(true)).square().mean(),
        "jaw": angle("jaw", 20),
        "eyes": angle("eye_left", 4) + angle("eye_right", 4),
        "translation": 20 * F.smooth_l1_loss(params.translation, true.translation, beta=0.02),
        "expression": displacement(params.expression - true.expression, head.expdirs, 0.1),
    }
    if identity.shape[-1]:
        terms["identity"] = displacement(identity - true_identity, head.shapedirs, 0.3)
    return Weighted(terms)


def landmark_loss(model: LandmarkModel, params: HeadParams, identity: Tensor, exact: Tensor) -> Tensor:
    """Mean distance, in crop sides, of the posed head's landmarks to the exact ones (B, 478, 2 or 3), each weighted by
    how surely it lies on the head. ``identity`` (I,), or (0,): the mean head's shape."""
    shape = identity if len(identity) else identity.new_zeros(model.shapedirs.shape[-1])
    posed = model.points(params, shape)[0]
    distance = (project_normalised(posed) - exact[..., :2]).square().sum(-1).add(1e-12).sqrt()
    return (distance * model.confidence).sum(-1).mean() / model.confidence.sum()


@dataclass(frozen=True)
class Goal:
    """What renderings are compared with: pictures on white (B, H, W, 3), mattes (B, H, W), inside the photo (B, H, W).

    Outside the photo pictures are white, mattes 0, and nothing is held against a rendering.
    """

    images: Tensor
    mattes: Tensor
    valid: Tensor

    @staticmethod
    def of(target: Views, size: int) -> Goal:
        """The targets at ``size`` pixels a side; a pixel that lies partly outside the photo does not count."""
        person = target.mattes * target.valid
        if target.images.shape[1] == size:
            return Goal(target.on_white(), person, target.valid)
        maps = torch.cat([target.on_white(), person[..., None], target.valid[..., None]], -1).permute(0, 3, 1, 2)
        small = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False, antialias=True)
        valid = (small[:, 4] > 0.999).float()
        images = small[:, :3].permute(0, 2, 3, 1)
        return Goal(images * valid[..., None] + (1 - valid[..., None]), small[:, 3] * valid, valid)


def on_goal(rendering: Rendering, goal: Goal) -> Tensor:
    """The rendering's pictures, white where the goal's photo says nothing. (B, H, W, 3)."""
    valid = goal.valid[..., None]
    return rendering.images * valid + (1 - valid)


def picture_losses(
    rendering: Rendering, goal: Goal, offsets: Tensor, recipe: Recipe, perceptual: Perceptual | None
) -> Weighted:
    """The avatar stage's losses; ``offsets`` (N, 3) metres are the learned ones."""
    seen = on_goal(rendering, goal)
    terms = {
        "l1": recipe.weight_l1 * (seen - goal.images).abs().mean(),
        "l2": recipe.weight_l2 * (seen - goal.images).square().mean(),
        "ssim": recipe.weight_ssim * (1 - mean_ssim(seen, goal.images).mean()),
        "matte": recipe.weight_matte * ((rendering.alphas - goal.mattes) * goal.valid).abs().mean(),
        "offset": recipe.weight_offset * 100 * offsets.square().sum(-1).mean(),
    }
    if perceptual is not None and recipe.weight_lpips:
        terms["lpips"] = recipe.weight_lpips * perceptual(seen, goal.images).mean()
    return Weighted(terms)
