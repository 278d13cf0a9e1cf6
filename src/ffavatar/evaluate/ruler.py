"""Reads a rendering as a photo is read: landmarks, and head parameters by the shipped estimator.

The same instrument reads renderings and targets, both on white, so that a perfect rendering has distance zero. It is
always the ``lite`` estimator that ships, whatever model is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffavatar.evaluate.metrics import rotation_distance_deg
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.model import load_model
from ffavatar.model.weights import LITE
from ffavatar.photo import Landmarker
from ffavatar.photo.matte import Matte
from ffavatar.photo.report import PRESENCE
from ffavatar.types import HeadParams, Views

REVISION = LITE.sha256


@dataclass(frozen=True)
class Reading:
    """What is seen in B pictures. Rows of pictures without a face hold what the networks made of them: ignore them."""

    found: Tensor  # (B,) bool
    landmarks: Tensor  # (B, 478, 3) crop units
    params: HeadParams | None  # of the pictures with a face, in order; None where there is none


class Ruler:
    """Landmarker, matte net and estimator; those that ship unless others are given."""

    def __init__(
        self, landmarker: nn.Module | None = None, matte: nn.Module | None = None, estimator: nn.Module | None = None
    ):
        self.landmarker = landmarker or Landmarker()
        self.matte = matte or Matte()
        self.estimator = estimator or load_model("lite").estimator

    @torch.no_grad()
    def read(self, images: Tensor) -> Reading:
        """Pictures (B, S, S, 3) of head crops on white in [0, 1]. The person is the same in all of them."""
        rows = [self.landmarker(images[k : k + 1]) for k in range(len(images))]
        points = torch.cat([row.points for row in rows]) / images.shape[1]
        found = torch.cat([row.presence for row in rows]) >= PRESENCE
        if not found.any():
            return Reading(found, points, None)
        seen, valid = images[found], torch.ones(images[found].shape[:3])
        scores = torch.cat([row.blendshapes for row in rows])[found]
        mattes = torch.cat([self.matte(seen[k : k + 1], valid[:1], points[found][k : k + 1]) for k in range(len(seen))])
        estimate = self.estimator(Views(seen, mattes, valid, points[found], scores))
        return Reading(found, points, estimate.params)


def head_rotation(params: HeadParams) -> Tensor:
    """(B, 3, 3) rotation of the head: torso, then neck."""
    return axis_angle_to_matrix(params.root) @ axis_angle_to_matrix(params.neck)


def pose_and_expression(shown: Reading, target: Reading) -> tuple[list[float | None], list[float | None]]:
    """(APD in degrees, AED) for each picture; None where either shows no face."""
    both = shown.found & target.found
    nothing: list[float | None] = [None] * len(both)
    if shown.params is None or target.params is None or not both.any():
        return nothing, list(nothing)
    first = shown.params[both[shown.found].nonzero()[:, 0]]
    second = target.params[both[target.found].nonzero()[:, 0]]
    angles = iter(rotation_distance_deg(head_rotation(first), head_rotation(second)).tolist())
    faces = iter((first.expression - second.expression).abs().mean(1).tolist())
    return [next(angles) if b else None for b in both.tolist()], [next(faces) if b else None for b in both.tolist()]
