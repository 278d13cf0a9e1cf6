"""The fit's analytic Jacobian against automatic differentiation of the projected landmarks, in float64."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import torch

from ffavatar.geometry import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.head import load_head
from ffavatar.model.landmark_fit import POSE_UNKNOWNS, LandmarkModel, _jacobians, project_normalised, stepped
from ffavatar.types import HeadParams

JOINTS = ("root", "neck", "jaw", "eye_left", "eye_right")


@pytest.fixture(scope="module")
def model():
    return LandmarkModel(load_head()).double()


@pytest.fixture(scope="module")
def pose(model):
    """Two frames in no special position, and an identity."""
    generator = torch.Generator().manual_seed(4)
    expressions, identities = model.expdirs.shape[2], model.shapedirs.shape[2]

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parts = {name: 0.3 * noise(2, 3) for name in JOINTS}
    translation = torch.tensor([[0.03, -0.02, -1.1], [-0.05, 0.01, -0.9]]).double()
    expression = torch.rand(2, expressions, generator=generator, dtype=torch.float64)
    return HeadParams(translation=translation, expression=expression, **parts), 0.5 * noise(identities)


def perturbed(params: HeadParams, delta: torch.Tensor) -> HeadParams:
    """As the module's docstring defines the unknowns, written out joint by joint: the reference for ``stepped``."""
    place = {"root": 0, "neck": 6, "jaw": 9, "eye_left": 12, "eye_right": 15}
    turned = {
        name: quat_to_axis_angle(
            quat_multiply(axis_angle_to_quat(delta[:, at : at + 3]), axis_angle_to_quat(getattr(params, name)))
        )
        for name, at in place.items()
    }
    return HeadParams(
        translation=params.translation + delta[:, 3:6],
        expression=params.expression + delta[:, POSE_UNKNOWNS:],
        **turned,
    )


def simplified(model: LandmarkModel, params: HeadParams, identity: torch.Tensor, row: int) -> LandmarkModel:
    """The model that the fit's Jacobian describes around one frame.

    Pose correctives, and the joints' own motion with the identity, are small and left out of it: here they stay as
    they are at that frame.
    """
    still = copy.deepcopy(model)
    eye = torch.eye(3, dtype=torch.float64)
    feature = (axis_angle_to_matrix(params.joint_rotations()[row, 1:]) - eye).flatten()
    still.template = model.template + model.posedirs @ feature
    still.posedirs = torch.zeros_like(model.posedirs)
    still.joints = model.joints + model.joint_shapedirs @ identity
    still.joint_shapedirs = torch.zeros_like(model.joint_shapedirs)
    return still


@pytest.mark.parametrize("row", [0, 1])
def test_jacobian_by_pose_expression_and_identity(model, pose, row):
    params, identity = pose
    posed, per_joint, turn, place = model.points(params, identity)
    by_view, by_identity = _jacobians(model, per_joint, turn, place, posed, shared=True)
    still = simplified(model, params, identity, row)

    def project(delta: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        moved = perturbed(params[row : row + 1], delta[None])
        return project_normalised(still.points(moved, identity + change)[0]).flatten()

    zero = torch.zeros(POSE_UNKNOWNS + model.expdirs.shape[2], dtype=torch.float64)
    inputs = (zero, torch.zeros_like(identity))
    expected = torch.autograd.functional.jacobian(project, inputs, vectorize=True)
    torch.testing.assert_close(by_view[row], expected[0], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(by_identity[row], expected[1], atol=1e-9, rtol=1e-9)


def test_a_step_turns_each_joint_by_its_own_part(model, pose):
    params, _ = pose
    delta = 0.02 * torch.randn(2, POSE_UNKNOWNS + model.expdirs.shape[2], generator=torch.Generator().manual_seed(5))
    delta = delta.double()
    found, expected = stepped(params, delta), perturbed(params, delta)
    for field in fields(HeadParams):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "expression":
            b = b.clamp(-0.15, 1.15)
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
