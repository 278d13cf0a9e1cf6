"""Rotations by their laws, and the normalised camera by its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffavatar.geometry import (
    axis_angle_to_matrix,
    axis_angle_to_quat,
    matrix_to_quat,
    normalised_camera,
    project,
    quat_multiply,
    quat_rotate,
    quat_to_axis_angle,
    quat_to_matrix,
    turn_z_to,
)

number = st.floats(-3.0, 3.0, allow_nan=False, width=64)
vector = st.tuples(number, number, number).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(vector)
@settings(max_examples=60, deadline=None)
def test_matrix_is_the_exponential_of_the_cross_product(rotation):
    x, y, z = rotation.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    torch.testing.assert_close(axis_angle_to_matrix(rotation), torch.linalg.matrix_exp(cross), atol=1e-9, rtol=0)


@given(vector, vector)
@settings(max_examples=60, deadline=None)
def test_quaternions_compose_like_matrices(a, b):
    qa, qb = axis_angle_to_quat(a), axis_angle_to_quat(b)
    together = quat_to_matrix(quat_multiply(qa, qb))
    torch.testing.assert_close(together, axis_angle_to_matrix(a) @ axis_angle_to_matrix(b), atol=1e-9, rtol=0)
    torch.testing.assert_close(quat_rotate(qa, b), axis_angle_to_matrix(a) @ b, atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_every_batch_shape_and_round_trip(shape):
    rotation = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = axis_angle_to_matrix(rotation)
    back = axis_angle_to_matrix(quat_to_axis_angle(matrix_to_quat(matrix)))
    assert matrix.shape == (*shape, 3, 3)
    torch.testing.assert_close(back, matrix, atol=1e-9, rtol=0)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_survive(axis):
    rotation = torch.zeros(3, dtype=torch.float64)
    rotation[axis] = torch.pi
    quat = matrix_to_quat(axis_angle_to_matrix(rotation))
    torch.testing.assert_close(quat_to_matrix(quat), axis_angle_to_matrix(rotation), atol=1e-9, rtol=0)


def test_gradient_is_finite_and_right_at_zero():
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_matrix, zero)
    assert torch.autograd.gradcheck(axis_angle_to_quat, zero)


def test_normalised_camera_sees_up_as_up_and_the_persons_left_on_the_right():
    pixels, depth = project(torch.tensor([[[0.0, 0, -1.0], [0.1, 0, -1.0], [0, 0.1, -1.0]]]), normalised_camera(512))
    torch.testing.assert_close(depth, torch.ones(1, 3))
    torch.testing.assert_close(pixels[0], torch.tensor([[256.0, 256.0], [256 + 153.6, 256.0], [256.0, 256 - 153.6]]))


def test_z_is_turned_to_any_normal_even_the_opposite_one():
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.tensor([[0.0, 1e-4, -1]])])
    normals = torch.cat([normals, torch.nn.functional.normalize(axes, dim=-1)])
    turned = quat_rotate(turn_z_to(normals), torch.tensor([0.0, 0, 1]).expand_as(normals))
    torch.testing.assert_close(
        turned, normals, atol=2e-2, rtol=0
    )  # near the opposite pole the angle is ill conditioned
    torch.testing.assert_close(turned[:-1], normals[:-1], atol=1e-4, rtol=0)
