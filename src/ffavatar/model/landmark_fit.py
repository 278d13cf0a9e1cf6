"""Gauss-Newton on landmarks: the last, model-based layer of the ``lite`` estimator.

A network proposes parameters with a precision each; this layer finds the parameters that explain the landmarks best
around that proposal. Every step is plain differentiable torch, so rendering losses reach the network through it.

Unknowns per view, in this order: root, translation, neck, jaw, eye_left, eye_right (3 each, rotations as left
perturbations in the parent's frame), expression (E). The identity (I) is shared by all views of a person and eliminated
by the Schur complement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ffavatar.geometry import (
    NORMALISED_FOCAL,
    axis_angle_to_quat,
    matrix_to_quat,
    quat_multiply,
    quat_to_axis_angle,
    quat_to_matrix,
)
from ffavatar.head import HeadModel
from ffavatar.types import HeadParams

POSE_UNKNOWNS = 18
OUTER = 9  # the first of them: root, translation, neck, which an outline shows; the rest is the face's own
_DESCENDANTS = ((0, 1, 2, 3, 4), (1, 2, 3, 4), (2,), (3,), (4,))
_JOINT_PARENT = (-1, 0, 1, 1, 1)
HUBER_DELTA = 0.012  # crop sides; landmarks further off than this count linearly (hair over brows, beards)
EXPRESSION_RANGE = (-0.15, 1.15)


@dataclass(frozen=True)
class Proposal:
    """Parameters to start from and to stay near: mean and precision (1 / variance) of each unknown."""

    params: HeadParams
    identity: Tensor  # (I,)
    precision: Tensor  # (18 + E,)
    identity_precision: Tensor  # (I,)


class LandmarkModel(nn.Module):
    """The head's 478 landmarks as skinned points of their own: all that the fit needs of the head."""

    template: Tensor
    shapedirs: Tensor
    expdirs: Tensor
    posedirs: Tensor
    skin: Tensor
    confidence: Tensor
    joints: Tensor
    joint_shapedirs: Tensor

    def __init__(self, head: HeadModel):
        super().__init__()
        corners = head.faces[head.landmark_faces]  # (L, 3)
        mix = head.landmark_barycentric

        def blend(values: Tensor) -> Tensor:
            weights = mix.reshape(*mix.shape, *([1] * (values.dim() - 1)))
            return (values[corners] * weights).sum(1)

        basis = {
            "template": blend(head.v_template),
            "shapedirs": blend(head.shapedirs),
            "expdirs": blend(head.expdirs),
            "posedirs": blend(head.posedirs),
            "skin": blend(head.lbs_weights),
            "confidence": head.landmark_weights,
            "joints": head.J_regressor @ head.v_template,
            "joint_shapedirs": torch.einsum("jv,vci->jci", head.J_regressor, head.shapedirs),
        }
        for name, value in basis.items():
            self.register_buffer(name, value.float().clone(), persistent=False)

    def points(self, params: HeadParams, identity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Posed landmarks (B, L, 3), and for the Jacobian: per joint points (B, 5, L, 3), joint rotations (B, 5, 3, 3)
        and posed joint positions (B, 5, 3); the latter two without the translation."""
        local = quat_to_matrix(axis_angle_to_quat(params.joint_rotations()))
        eye = torch.eye(3, device=local.device, dtype=local.dtype)
        feature = (local[:, 1:] - eye).flatten(1)  # (B, 36)
        shape = self.template + self.shapedirs @ identity
        shaped = (
            shape
            + torch.einsum("lce,be->blc", self.expdirs, params.expression)
            + torch.einsum("lcp,bp->blc", self.posedirs, feature)
        )
        joints = self.joints + self.joint_shapedirs @ identity
        turned, placed = [], []
        for j, parent in enumerate(_JOINT_PARENT):
            if parent < 0:
                turned.append(local[:, j])
                placed.append(joints[j].expand(len(params), 3))
            else:
                turned.append(turned[parent] @ local[:, j])
                placed.append(placed[parent] + (turned[parent] @ (joints[j] - joints[parent])))
        turn, place = torch.stack(turned, 1), torch.stack(placed, 1)
        per_joint = (shaped[:, None] - joints[None, :, None]) @ turn.transpose(-1, -2) + place[:, :, None]
        posed = torch.einsum("lj,bjlc->blc", self.skin, per_joint) + params.translation[:, None]
        return posed, per_joint, turn, place


def project_normalised(points: Tensor) -> Tensor:
    """World points (..., 3) -> crop units (..., 2) in the normalised camera."""
    depth = -points[..., 2:]
    return NORMALISED_FOCAL * torch.cat([points[..., :1], -points[..., 1:2]], -1) / depth + 0.5


def projection_jacobian(points: Tensor) -> Tensor:
    """d project_normalised / d points: (..., 2, 3)."""
    x, y, z = points.unbind(-1)
    zero = torch.zeros_like(x)
    depth = -z
    rows = [1 / depth, zero, x / depth**2, zero, -1 / depth, -y / depth**2]
    return NORMALISED_FOCAL * torch.stack(rows, -1).unflatten(-1, (2, 3))


def _jacobians(model: LandmarkModel, per_joint: Tensor, turn: Tensor, place: Tensor, posed: Tensor, shared: bool):
    """d landmarks (crop units) by the view's unknowns (B, 2L, 18 + E) and, if ``shared``, by the identity (B,
    2L, I)."""
    flat = projection_jacobian(posed)  # (B, L, 2, 3)
    by_joint = _joint_columns(model, per_joint, turn, place, flat)  # (B, 5, L, 2, 3)
    root, *others = by_joint.unbind(1)
    blended = torch.einsum("lj,bjcd->blcd", model.skin, turn)
    # thousands of products of tiny matrices: quicker as sums of outer ones
    turned = sum((flat[..., i : i + 1] * blended[..., None, i, :] for i in (1, 2)), flat[..., :1] * blended[..., :1, :])
    view = torch.cat([root, flat, *others, _by_landmark(turned, model.expdirs)], -1).flatten(1, 2)
    return view, _by_landmark(turned, model.shapedirs).flatten(1, 2) if shared else None


def _joint_columns(model: LandmarkModel, per_joint: Tensor, turn: Tensor, place: Tensor, flat: Tensor) -> Tensor:
    """(B, 5, L, 2, 3): ``flat`` (d picture / d point) times the velocity of each landmark when joint j turns.

    Turning by w about the joint moves a point at ``arm`` from it by w x arm; f . (w x arm) = w . (arm x f).
    """
    below = per_joint.new_tensor([[float(k in parts) for k in range(5)] for parts in _DESCENDANTS])
    weight = below[:, :, None] * model.skin.T  # (5, 5, L)
    arms = torch.einsum("jkl,bklc->bjlc", weight, per_joint) - weight.sum(1)[..., None] * place[:, :, None]
    columns = torch.linalg.cross(arms[:, :, :, None], flat[:, None])
    frames = torch.eye(3, device=turn.device, dtype=turn.dtype).expand(len(turn), 1, 3, 3)
    frames = torch.cat([frames, turn[:, list(_JOINT_PARENT[1:])]], 1)  # rotations are in the parent's frame
    return (columns.flatten(2, 3) @ frames).unflatten(2, (-1, 2))


def _by_landmark(turned: Tensor, basis: Tensor) -> Tensor:
    """(B, L, 2, 3) @ (L, 3, K) -> (B, L, 2, K), one product per landmark for all views."""
    rows = turned.transpose(0, 1).flatten(1, 2)  # (L, 2B, 3)
    return (rows @ basis).unflatten(1, (-1, 2)).transpose(0, 1)


def _pack_difference(mean: HeadParams, now: HeadParams) -> Tensor:
    """Proposal minus present value, in the order of the unknowns (B, 18 + E); rotations by axis-angle difference."""
    names = ("root", "translation", "neck", "jaw", "eye_left", "eye_right", "expression")
    return torch.cat([getattr(mean, n) - getattr(now, n) for n in names], -1)


def stepped(params: HeadParams, delta: Tensor) -> HeadParams:
    """``params`` moved by ``delta`` (B, 18 + E), in the order of the unknowns."""
    by = torch.cat([delta[:, 0:3], delta[:, 6:POSE_UNKNOWNS]], 1).unflatten(1, (5, 3))
    turned = quat_multiply(axis_angle_to_quat(by), axis_angle_to_quat(params.joint_rotations()))
    root, neck, jaw, eye_left, eye_right = quat_to_axis_angle(turned).unbind(1)
    return HeadParams(
        root=root,
        # the head can neither pass the camera nor leave for the horizon in one step
        translation=params.translation + delta[:, 3:6].clamp(-0.3, 0.3),
        neck=neck,
        jaw=jaw,
        eye_left=eye_left,
        eye_right=eye_right,
        expression=(params.expression + delta[:, POSE_UNKNOWNS:]).clamp(*EXPRESSION_RANGE),
    )


def fit_landmarks(
    model: LandmarkModel,
    landmarks: Tensor,
    proposal: Proposal,
    iterations: int,
    landmark_sigma: float | Tensor,
    solve_identity: bool,
) -> tuple[HeadParams, Tensor]:
    """Parameters of all views and their shared identity, by damped Gauss-Newton with a Huber loss.

    ``landmarks`` (B, L, 2 or 3) in crop units. ``landmark_sigma`` is the standard deviation in crop sides that one
    landmark is trusted to, against the precisions of ``proposal``. With ``solve_identity=False`` the proposal's
    identity stays.
    """
    params, identity = proposal.params, proposal.identity
    unknowns = POSE_UNKNOWNS + proposal.params.expression.shape[1]
    prior = torch.diag(proposal.precision)
    for _ in range(iterations):
        posed, per_joint, turn, place = model.points(params, identity)
        residual = landmarks[..., :2] - project_normalised(posed)
        weight = _trust(model, residual, landmark_sigma)  # (B, 2L)
        by_view, by_identity = _jacobians(model, per_joint, turn, place, posed, solve_identity)
        weighted = by_view * weight[..., None]
        hessian = weighted.transpose(1, 2) @ by_view + prior
        hessian = hessian + 1e-3 * torch.diag_embed(hessian.diagonal(dim1=1, dim2=2))
        flat = residual.flatten(1)
        gradient = (weighted.transpose(1, 2) @ flat[..., None])[..., 0]
        gradient = gradient + proposal.precision * _pack_difference(proposal.params, params)
        if by_identity is None:
            delta = torch.linalg.solve(hessian, gradient)
        else:
            mixed = weighted.transpose(1, 2) @ by_identity  # (B, 18 + E, I)
            shared = torch.einsum("bri,br,brj->ij", by_identity, weight, by_identity)
            shared = shared + torch.diag(proposal.identity_precision)
            gradient_identity = torch.einsum("bri,br->i", by_identity, weight * flat)
            gradient_identity = gradient_identity + proposal.identity_precision * (proposal.identity - identity)
            solved = torch.linalg.solve(hessian, torch.cat([mixed, gradient[..., None]], -1))
            inner, outer = solved[..., :-1], solved[..., -1]
            reduced = shared - torch.einsum("bui,buj->ij", mixed, inner)
            right = gradient_identity - torch.einsum("bui,bu->i", mixed, outer)
            change = torch.linalg.solve(reduced, right)
            identity = identity + change
            delta = outer - inner @ change
        assert delta.shape[-1] == unknowns
        params = stepped(params, delta)
    return params, identity


@torch.no_grad()
def posterior(
    model: LandmarkModel, landmarks: Tensor, params: HeadParams, identity: Tensor, prior: Tensor, sigma: float | Tensor
) -> Tensor:
    """Precision (B, 18 + E, 18 + E) with which ``landmarks`` and the ``prior`` precisions (18 + E,) hold the unknowns
    at ``params``: the Hessian of the last step of ``fit_landmarks``, the identity given."""
    posed, per_joint, turn, place = model.points(params, identity)
    by_view, _ = _jacobians(model, per_joint, turn, place, posed, False)
    trust = _trust(model, landmarks[..., :2] - project_normalised(posed), sigma)
    return (by_view * trust[..., None]).transpose(1, 2) @ by_view + torch.diag(prior)


def _trust(model: LandmarkModel, residual: Tensor, sigma: float | Tensor) -> Tensor:
    """Huber weights of the residuals (B, L, 2), as (B, 2L)."""
    size = residual.detach().norm(dim=-1)
    trust = model.confidence * (HUBER_DELTA / size.clamp_min(HUBER_DELTA)) / sigma**2
    return trust[..., None].expand_as(residual).flatten(1)


def align(model: LandmarkModel, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and translation of the whole head that fit the landmarks' x, y and relative z best: a first guess.

    Umeyama's similarity (IEEE PAMI 1991) of the neutral landmarks to the observed ones, whose scale gives the depth.
    ``landmarks`` (B, L, 3) crop units -> axis-angle (B, 3), translation (B, 3).
    """
    centre = torch.tensor([0.5, 0.5, 0.0], device=landmarks.device)
    flip = torch.tensor([1.0, -1.0, -1.0], device=landmarks.device)
    seen = (landmarks - centre) * flip
    neutral = model.template
    weight = (model.confidence / model.confidence.sum())[:, None]
    mean_seen, mean_neutral = (seen * weight).sum(1, keepdim=True), (neutral * weight).sum(0)
    moved, still = seen - mean_seen, neutral - mean_neutral
    covariance = (moved * weight).transpose(1, 2) @ still
    u, s, vt = torch.linalg.svd(covariance)
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vt).sign()
    rotation = u @ torch.diag_embed(sign) @ vt
    scale = (s * sign).sum(-1) / (weight * still * still).sum()
    depth = NORMALISED_FOCAL / scale
    # where the neutral head's landmarks have their mean, turned about the global joint
    joint = model.joints[0]
    offset = ((mean_neutral - joint) @ rotation.transpose(1, 2)) + joint
    target = torch.cat([mean_seen[:, 0, :2] * (depth / NORMALISED_FOCAL)[:, None], -depth[:, None]], -1)
    return quat_to_axis_angle(matrix_to_quat(rotation)), target - offset
