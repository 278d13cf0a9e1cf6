"""The embedded head's forward pass: against an independent reference, and by its laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import pose as reference_pose

from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix, quat_to_matrix
from ffavatar.head import HeadArrays, HeadModel, load_head
from ffavatar.types import HeadParams


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


def random_params(frames: int, expressions: int, seed: int = 0, dtype=torch.float32) -> HeadParams:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> torch.Tensor:
        return (scale * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)

    rotations = [draw(frames, 3, scale=0.4) for _ in range(5)]
    return HeadParams(
        rotations[0], draw(frames, 3, scale=0.1), *rotations[1:], draw(frames, expressions, scale=0.5)
    )  # fmt: skip


def at_rest(head: HeadModel, frames: int = 1) -> HeadParams:
    return HeadParams.neutral(frames, head.expression_size, distance_m=0.0)


def expression(head: HeadModel, **values: float) -> HeadParams:
    coefficients = torch.zeros(1, head.expression_size)
    for name, value in values.items():
        coefficients[0, head.expression_names.index(name)] = value
    return replace(at_rest(head), expression=coefficients)


def test_agrees_with_float64_reference(head):
    identity = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    params = random_params(3, head.expression_size)
    vertices = head.pose(*head.neutral(identity), params).vertices
    for b in range(3):
        wanted = reference_pose(
            head,
            identity[b].numpy(),
            params.expression[b].numpy(),
            params.joint_rotations()[b].numpy(),
            params.translation[b].numpy(),
            joints_follow_expression=False,
        )
        assert np.abs(vertices[b].numpy() - wanted).max() < 2e-6  # metres


def test_rest_is_the_template(head):
    vertices, joints = head.neutral(torch.zeros(1, 100))
    posed = head.pose(vertices, joints, at_rest(head))
    assert torch.allclose(vertices[0], head.v_template)
    assert torch.allclose(posed.vertices[0], head.v_template, atol=1e-6)
    assert torch.allclose(posed.quats, torch.tensor([1.0, 0, 0, 0]).expand_as(posed.quats), atol=1e-6)


def test_root_turns_everything_about_the_torso_joint(head):
    vertices, joints = head.neutral(torch.randn(1, 100, generator=torch.Generator().manual_seed(2)))
    params = replace(at_rest(head), root=torch.tensor([[0.3, -0.8, 0.2]]), translation=torch.tensor([[0.1, 0.2, -1.0]]))
    posed = head.pose(vertices, joints, params)
    turn = axis_angle_to_matrix(params.root)[0]
    wanted = (vertices[0] - joints[0, 0]) @ turn.T + joints[0, 0] + params.translation[0]
    assert torch.allclose(posed.vertices[0], wanted, atol=1e-5)
    assert torch.allclose(quat_to_matrix(posed.quats[0]), turn.expand(len(wanted), 3, 3), atol=1e-5)


def test_neck_moves_the_head_and_leaves_the_torso(head):
    vertices, joints = head.neutral(torch.zeros(1, 100))
    posed = head.pose(vertices, joints, replace(at_rest(head), neck=torch.tensor([[0.0, 0.7, 0.0]])))
    moved = (posed.vertices[0] - vertices[0]).norm(dim=-1)
    rim = head.regions["torso"] & (head.lbs_weights[:, 0] == 1)
    assert rim.sum() > 500 and moved[rim].max() < 1e-6
    assert moved[head.regions["face"]].mean() > 0.03


def test_translation_of_a_batch_equals_single_frames(head):
    params = random_params(4, head.expression_size, seed=3)
    vertices, joints = head.neutral(torch.randn(4, 100, generator=torch.Generator().manual_seed(4)))
    together = head.pose(vertices, joints, params)
    for b in range(4):
        alone = head.pose(vertices[b : b + 1], joints[b : b + 1], params[b : b + 1])
        assert torch.allclose(together.vertices[b], alone.vertices[0], atol=1e-6)
        assert torch.allclose(together.quats[b], alone.quats[0], atol=1e-6)
    shared = head.pose(vertices[:1], joints[:1], params)  # one person, many frames
    assert torch.allclose(shared.vertices[0], together.vertices[0], atol=1e-6)


def test_fewer_identity_coefficients_mean_zeros(head):
    short = torch.randn(1, 10, generator=torch.Generator().manual_seed(5))
    full = torch.cat([short, torch.zeros(1, 90)], -1)
    assert torch.allclose(head.neutral(short)[0], head.neutral(full)[0], atol=1e-6)


def test_gradients():
    """Float64 gradcheck on a tiny head, through shape, expression, correctives, joints and skinning."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), 7)
    arrays = HeadArrays(
        v_template=rng.normal(size=(7, 3)), faces=np.array([[0, 1, 2]]), shapedirs=0.1 * rng.normal(size=(7, 3, 2)),
        expdirs=0.1 * rng.normal(size=(7, 3, 2)), posedirs=0.1 * rng.normal(size=(7, 3, 36)),
        J_regressor=rng.dirichlet(np.ones(7), 5), lbs_weights=weights, expression_names=("a", "b"),
        regions={"skin": np.ones(7, bool)}, edition="tiny", licence="none", joints_follow_expression=True,
    )  # fmt: skip
    tiny = HeadModel(arrays).double()
    params = random_params(2, 2, seed=6, dtype=torch.float64)

    def forward(identity, *fields):
        posed = tiny.pose(*tiny.neutral(identity), HeadParams(*fields))
        return posed.vertices, posed.quats

    inputs = [torch.from_numpy(rng.normal(size=(2, 2))), *vars(params).values()]
    assert torch.autograd.gradcheck(forward, [t.requires_grad_() for t in inputs])


def test_shapes_names_and_basis_views(head):
    v = len(head.v_template)
    assert head.shapedirs.shape == (v, 3, 100)
    assert head.expdirs.shape == (v, 3, head.expression_size) and head.expression_size >= 90
    assert head.posedirs.shape == (v, 3, 36)
    assert len(set(head.expression_names)) == head.expression_size
    arkit = [n for n in head.expression_names if not n.startswith("mh_")]
    assert len(arkit) + len(head.arkit_pose) == 52
    identity = torch.randn(1, 100, generator=torch.Generator().manual_seed(7))
    assert torch.allclose(head.v_template + head.shapedirs @ identity[0], head.neutral(identity)[0][0], atol=1e-6)


def test_template_is_symmetric(head):
    flipped = head.v_template[head.mirror] * torch.tensor([-1.0, 1, 1])
    assert (flipped - head.v_template).abs().max() < 1e-5
    swapped = head.lbs_weights[head.mirror][:, [0, 1, 2, 4, 3]]
    assert (swapped - head.lbs_weights).abs().max() < 1e-5


def test_size_of_a_head(head):
    v, regions = head.v_template, head.regions
    crown, chin = v[:, 1].max(), v[regions["face"]][:, 1].min()
    assert 0.19 < crown - chin < 0.26
    assert 0.42 < v[:, 0].max() - v[:, 0].min() < 0.55  # shoulders with the arms' start
    assert -0.42 < v[:, 1].min() < -0.33  # 0.28 m below the chin
    eyes = v[regions["eyeball_left"]].mean(0) - v[regions["eyeball_right"]].mean(0)
    assert 0.054 < eyes[0] < 0.068 and eyes[1:].abs().max() < 1e-5
    sizes = (head.shapedirs[regions["scalp"]] ** 2).sum((0, 1)).sqrt()
    assert sizes[0] > sizes[50] > 0  # components in order of size


@pytest.mark.parametrize("side, upper, lower", [("Right", 159, 145), ("Left", 386, 374)])
def test_blink_closes_the_eye(head, side, upper, lower):
    vertices, joints = head.neutral(torch.zeros(1, 100))

    def gap(params: HeadParams) -> float:
        points = head.landmarks(head.pose(vertices, joints, params).vertices)[0]
        return float(points[upper, 1] - points[lower, 1])

    assert gap(at_rest(head)) > 0.006
    assert gap(expression(head, **{f"eyeBlink{side}": 1.0})) < 0.0025
    other = "Left" if side == "Right" else "Right"
    assert gap(expression(head, **{f"eyeBlink{other}": 1.0})) > 0.006


def test_jaw_takes_the_lower_teeth_only(head):
    vertices, joints = head.neutral(torch.zeros(1, 100))
    opened = replace(at_rest(head), jaw=head.arkit_pose["jawOpen"][2][None])
    moved = head.pose(vertices, joints, opened).vertices[0] - vertices[0]
    assert moved[head.regions["teeth_lower"], 1].mean() < -0.015
    assert moved[head.regions["teeth_upper"]].abs().max() < 1e-5
    assert moved[head.regions["eyeballs"]].abs().max() < 1e-5


@pytest.mark.parametrize("side, joint", [("Left", 3), ("Right", 4)])
def test_gaze_turns_the_eyeball_and_names_are_right(head, side, joint):
    vertices, joints = head.neutral(torch.zeros(1, 100))
    ball = head.regions[f"eyeball_{side.lower()}"]
    pupil = torch.where(ball)[0][0]
    for look, axis, sign in (("Up", 1, 1), ("Down", 1, -1), ("Out", 0, 1 if joint == 3 else -1)):
        pose = head.arkit_pose[f"eyeLook{look}{side}"]
        params = replace(at_rest(head), **{("eye_left", "eye_right")[joint - 3]: pose[joint][None]})
        after = head.pose(vertices, joints, params).vertices[0]
        assert sign * (after - vertices[0])[pupil, axis] > 0.004
        before, turned = (v - joints[0, joint] for v in (vertices[0, ball], after[ball]))
        assert torch.allclose(turned.norm(dim=-1), before.norm(dim=-1), atol=1e-5)


def test_regions_cover_the_head(head):
    regions = head.regions
    parts = ["skin", "teeth_upper", "teeth_lower", "tongue", "eyeball_left", "eyeball_right"]
    assert torch.stack([regions[p] for p in parts]).sum(0).eq(1).all()
    for name in ("lips", "eyelids", "scalp", "face", "ears", "neck", "torso", "interior", "mouth_interior"):
        assert 50 < regions[name].sum() and (regions[name] & ~regions["skin"]).sum() == 0, name
        if name != "interior":
            mirrored = regions[name][head.mirror]
            assert (mirrored != regions[name]).sum() <= 0.02 * regions[name].sum(), name
    assert not (regions["torso"] & regions["neck"]).any() and not (regions["scalp"] & regions["face"]).any()


def test_landmarks_lie_where_their_names_say(head):
    points = head.landmarks(head.v_template[None])[0]
    assert points.shape == (478, 3)
    nose, chin, forehead = points[1], points[152], points[10]
    assert nose[2] > points[:468, 2].max() - 0.01 and forehead[1] > 0.04 and chin[1] < -0.07
    right_corner, left_corner = points[33], points[263]  # 33 is the person's right eye
    assert right_corner[0] < -0.02 and left_corner[0] > 0.02
    joints = head.J_regressor @ head.v_template
    assert (points[468, :2] - joints[4, :2]).norm() < 1e-3 and (points[473, :2] - joints[3, :2]).norm() < 1e-3
    jaw = (head.lbs_weights[:, 2][head.faces[head.landmark_faces]] * head.landmark_barycentric).sum(-1)
    assert jaw[[13, 82, 312]].max() < 0.5 < jaw[[14, 87, 317]].min()  # inner lips part with the jaw
    assert torch.allclose(head.landmark_barycentric.sum(-1), torch.ones(478), atol=1e-5)
    assert head.landmark_barycentric.min() >= 0
    assert 0 < head.landmark_weights.min() and head.landmark_weights.max() <= 1


def test_dtype_and_state(head):
    copy = load_head().double()
    assert copy.neutral(torch.zeros(1, 100, dtype=torch.float64))[0].dtype == torch.float64
    assert not list(head.parameters()) and "v_template" in dict(head.named_buffers())


def test_unknown_level_is_refused(head):
    with pytest.raises(InputError, match="level 7"):
        head.surface(7)
