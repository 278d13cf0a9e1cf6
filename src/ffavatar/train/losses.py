"""Losses of the two training stages, each on its own so that its effect can be measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.head import HeadModel
from ffavatar.types import HeadParams


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

    ``identity`` and ``true_identity`` (B, I); ``points`` (Q,) indices of vertices on which shape and expression are
    compared, in centimetres.
    """

    def angle(name: str, weight: float) -> Tensor:
        return weight * F.smooth_l1_loss(getattr(params, name), getattr(true, name), beta=0.05)

    def displacement(difference: Tensor, basis: Tensor, beta: float) -> Tensor:
        moved = difference @ (basis[points].flatten(0, 1) * 100).T
        return F.smooth_l1_loss(moved, torch.zeros_like(moved), beta=beta)

    return Weighted(
        {
            "root": angle("root", 20),
            "neck": angle("neck", 20),
            "turn": 60 * (head_turn(params) - head_turn(true)).square().mean(),
            "jaw": angle("jaw", 20),
            "eyes": angle("eye_left", 4) + angle("eye_right", 4),
            "translation": 20 * F.smooth_l1_loss(params.translation, true.translation, beta=0.02),
            "expression": displacement(params.expression - true.expression, head.expdirs, 0.1),
            "identity": displacement(identity - true_identity, head.shapedirs, 0.3),
        }
    )  # fmt: skip
