"""Estimators: square head crops -> ``HeadParams`` in the normalised camera, and the person's identity coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.geometry import axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.head import HeadModel
from ffavatar.model.encoder import DinoV2
from ffavatar.model.landmark_fit import (
    OUTER,
    POSE_UNKNOWNS,
    LandmarkModel,
    Proposal,
    align,
    fit_landmarks,
    posterior,
)
from ffavatar.photo.blendshapes import BLENDSHAPE_NAMES
from ffavatar.types import HeadParams, Views

LANDMARKS = 478
ROOT_SHARE = 0.35  # of the head's turn that the torso makes, before the network has its say
BLENDSHAPE_GAIN = 0.8
LANDMARK_SIGMA = 0.010  # crop sides, before training
SETTLED_SIGMA = 0.007  # crop sides, in ``settled``
HELD = 1e8  # precision of what a fit must not move
# standard deviations of the proposal, in the order of the fit's unknowns (radians, metres)
_POSE_SIGMA = (
    *(0.10, 0.10, 0.10), *(0.5, 0.5, 0.5), *(0.12, 0.12, 0.12),
    *(0.20, 0.03, 0.02), *(0.15, 0.15, 0.02), *(0.15, 0.15, 0.02),
)  # fmt: skip
_EXPRESSION_SIGMA = {True: 0.20, False: 0.10}  # scored by the landmarker, or not


@dataclass(frozen=True)
class Estimate:
    """One person's views, explained."""

    params: HeadParams  # one row per view
    identity: Tensor  # (I,), shared


OUTLINE_PX = 96


def outline_picture(views: Views) -> Tensor:
    """What the outline net reads: the person on white and the matte, small. (S, 4, 96, 96) in [-1, 1]."""
    person = (views.mattes * views.valid)[:, None]
    picture = torch.cat([views.on_white().permute(0, 3, 1, 2), person], 1) * 2 - 1
    return F.interpolate(picture, (OUTLINE_PX, OUTLINE_PX), mode="bilinear", align_corners=False, antialias=True)


class _OutlineNet(nn.Module):
    """What landmarks cannot tell (shoulders, outline, depth): a small net on the matted crop at 96 px."""

    def __init__(self, out: int):
        super().__init__()
        widths = (4, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(128 * 36, out)

    def forward(self, picture: Tensor) -> Tensor:
        return self.out(self.body(picture).flatten(1))


class LandmarkEstimator(nn.Module):
    """Landmarks + blendshape scores + outline -> proposal by a small net -> Gauss-Newton on the landmarks.

    With zero network output the proposal is the landmarker's own scores, matched by blendshape name.
    """

    pose_precision: Tensor
    expression_precision: Tensor
    score_to_expression: Tensor
    score_to_pose: Tensor

    def __init__(self, head: HeadModel, iterations: int, width: int = 384):
        super().__init__()
        self.iterations = iterations
        self.landmark_model = LandmarkModel(head)
        names = list(head.expression_names)
        self.expressions, self.identities = len(names), head.shapedirs.shape[2]
        matrix = torch.zeros(len(BLENDSHAPE_NAMES), len(names))
        for row, name in enumerate(BLENDSHAPE_NAMES):
            if name in names:
                matrix[row, names.index(name)] = BLENDSHAPE_GAIN
        scored = matrix.sum(0) > 0
        pose = torch.zeros(len(BLENDSHAPE_NAMES), 15)
        for name, joints in head.arkit_pose.items():
            pose[BLENDSHAPE_NAMES.index(name)] = joints.flatten()
        sigma = torch.tensor([_EXPRESSION_SIGMA[bool(s)] for s in scored])
        self.register_buffer("score_to_expression", matrix, persistent=False)
        self.register_buffer("score_to_pose", pose, persistent=False)
        self.register_buffer("pose_precision", torch.tensor(_POSE_SIGMA) ** -2, persistent=False)
        self.register_buffer("expression_precision", sigma**-2, persistent=False)
        self.outline = _OutlineNet(128)
        self.net = nn.Sequential(
            nn.Linear(LANDMARKS * 3 + 3 + len(BLENDSHAPE_NAMES) + 128, width), nn.GELU(),
            nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, POSE_UNKNOWNS + self.expressions + self.identities),
        )  # fmt: skip
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.log_sigma = nn.Parameter(torch.zeros(()))
        self.log_precision = nn.Parameter(torch.zeros(POSE_UNKNOWNS + self.expressions))
        self.log_precision_identity = nn.Parameter(torch.zeros(self.identities))

    def forward(self, views: Views, identity: Tensor | None = None) -> Estimate:
        """All ``views`` are of one person; their identity is pooled unless it is given (I,)."""
        proposal = self.propose(views, identity)
        params, found = fit_landmarks(
            self.landmark_model, views.landmarks, proposal, self.iterations, self.landmark_sigma(), identity is None
        )
        return Estimate(params, found)

    def propose(self, views: Views, identity: Tensor | None) -> Proposal:
        """Where the fit starts, and how firmly it is held there."""
        each, params = self.propose_each(views)
        return self.proposal(each.mean(0) if identity is None else identity, params)

    def proposal(self, identity: Tensor, params: HeadParams) -> Proposal:
        return Proposal(params, identity, self.precision(), self.log_precision_identity.exp())

    def precision(self) -> Tensor:
        """How firmly the fit holds each unknown to the proposal: 1 / variance, (18 + E,)."""
        return torch.cat([self.pose_precision, self.expression_precision]) * self.log_precision.exp()

    def certainty(self, views: Views, found: Estimate) -> Tensor:
        """How firmly the landmarks of ``views`` hold what was ``found``: precision (B, 18 + E, 18 + E)."""
        return posterior(
            self.landmark_model, views.landmarks, found.params, found.identity, self.precision(), self.landmark_sigma()
        )

    def settled(self, views: Views, found: Estimate) -> HeadParams:
        """``found``'s parameters with jaw, eyes and expression fitted to the landmarks anew, head and torso held.

        The first fit trusts landmarks little, or their common errors would turn the head. Where something better than
        they (the outline) has placed it, they may say more about the face.
        """
        precision = self.precision()
        precision = torch.cat([torch.full_like(precision[:OUTER], HELD), precision[OUTER:]])
        held = replace(self.proposal(found.identity, found.params), precision=precision)
        return fit_landmarks(
            self.landmark_model, views.landmarks, held, self.iterations, SETTLED_SIGMA, solve_identity=False
        )[0]

    def propose_each(self, views: Views, picture: Tensor | None = None) -> tuple[Tensor, HeadParams]:
        """The net's reading of every view by itself: identities (B, I) and parameters. ``picture`` saves making it."""
        raw = self.net(self._features(views, outline_picture(views) if picture is None else picture))
        pose, expression, shape = raw.split([POSE_UNKNOWNS, self.expressions, self.identities], -1)
        turn, translation = align(self.landmark_model, views.landmarks)
        base = self._from_scores(views.blendshapes, turn, translation)
        params = HeadParams(
            root=base.root + pose[:, 0:3],
            translation=base.translation + pose[:, 3:6],
            neck=base.neck + pose[:, 6:9],
            jaw=base.jaw + pose[:, 9:12],
            eye_left=base.eye_left + pose[:, 12:15],
            eye_right=base.eye_right + pose[:, 15:18],
            expression=base.expression + expression,
        )
        return shape, params

    def landmark_sigma(self) -> Tensor:
        """Standard deviation, in crop sides, to which one landmark is trusted; larger than its own error, because the
        errors of neighbours agree. Learned."""
        return LANDMARK_SIGMA * self.log_sigma.exp()

    def _features(self, views: Views, picture: Tensor) -> Tensor:
        points = views.landmarks
        centre = points.mean(1, keepdim=True)
        size = (points - centre).pow(2).sum(-1).mean(1).sqrt()[:, None]
        shape = ((points - centre) / size[..., None]).flatten(1)
        place = torch.cat([centre[:, 0, :2] - 0.5, size - 0.2], -1) * 10
        return torch.cat([shape, place, views.blendshapes, self.outline(picture)], -1)

    def _from_scores(self, scores: Tensor, turn: Tensor, translation: Tensor) -> HeadParams:
        """The landmarker's ARKit scores (B, 52) as parameters, by name."""
        joints = (scores @ self.score_to_pose).unflatten(-1, (5, 3))
        root, neck = split_turn(turn, ROOT_SHARE)
        return HeadParams(
            root, translation, neck, joints[:, 2], joints[:, 3], joints[:, 4], scores @ self.score_to_expression
        )


def split_turn(turn: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A head's whole rotation (B, 3) as torso and neck: the torso makes ``share`` of it about the same axis."""
    root = share * turn
    neck = quat_to_axis_angle(quat_multiply(axis_angle_to_quat(-root), axis_angle_to_quat(turn)))
    return root, neck


class DinoEstimator(nn.Module):
    """The paper's: a ViT initialised from DINOv2 and an MLP; no identity (offsets carry it)."""

    def __init__(self, size: str, expressions: int, hidden: int = 2048):
        super().__init__()
        self.vit = DinoV2(size)
        self.expressions = expressions
        self.mlp = nn.Sequential(
            nn.LayerNorm(2 * self.vit.width),
            nn.Linear(2 * self.vit.width, hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, POSE_UNKNOWNS + expressions),
        )  # fmt: skip
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, views: Views, identity: Tensor | None = None) -> Estimate:
        side = 14 * (views.images.shape[1] // 14)
        pictures = F.interpolate(
            views.on_white().permute(0, 3, 1, 2), (side, side), mode="bilinear", align_corners=False, antialias=True
        ).permute(0, 2, 3, 1)
        tokens = self.vit(pictures)
        pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], -1)
        pose, expression = self.mlp(pooled).split([POSE_UNKNOWNS, self.expressions], -1)
        root, shift, neck, jaw, left, right = pose.split(3, -1)
        resting = pose.new_tensor([0.0, 0.0, -1.1])
        params = HeadParams(root, shift + resting, neck, jaw, left, right, expression)
        return Estimate(params, pose.new_zeros(0) if identity is None else identity)
