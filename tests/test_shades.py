"""Shades: where they are shown, how they are mixed, and that the native form is the readable one."""

from dataclasses import replace

import pytest
import torch
from made_avatar import small_avatar

from ffavatar.animate import Rig, pose_gaussians, render_avatar
from ffavatar.geometry import axis_angle_to_matrix, normalised_camera
from ffavatar.render import mix_shades
from ffavatar.shades import LASTING, MOVED_M, TURNED_RAD, closeness, mixed, shaded
from ffavatar.types import Camera, Shades

VIEWS = 3


def made_shades(seed: int = 0) -> Shades:
    avatar = small_avatar()
    draw = torch.Generator().manual_seed(seed)
    count, expressions = len(avatar), len(avatar.expression_names)
    return Shades(
        colors=torch.rand(count, VIEWS, 3, generator=draw) - 0.5,
        certainty=torch.rand(count, VIEWS, generator=draw),
        expression=torch.rand(VIEWS, expressions, generator=draw),
        jaw=torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.3, 0, 0]]),
        turn=torch.tensor([[0.0, 0, 0], [0, 0.1, 0], [0.2, 0, 0.1]]),
    )


def rig_of(shades: Shades) -> Rig:
    return replace(small_avatar().rig, shades=shades)


def test_native_form_against_float64():
    rig, shades = rig_of(made_shades()), made_shades()
    draw = torch.Generator().manual_seed(4)
    alike = torch.rand(2, len(rig.neutral), VIEWS, generator=draw)
    alike[:, ::2] *= 1e-6  # where the lasting colours win
    on = rig.surface.parents, rig.surface.barycentric
    native = mix_shades(alike, shades.certainty, *on, shades.colors, LASTING)
    exact = replace(shades, colors=shades.colors.double(), certainty=shades.certainty.double())
    surface = replace(rig.surface, barycentric=rig.surface.barycentric.double())
    wanted = mixed(alike.double(), exact, surface)
    assert wanted.abs().mean() > 0.02
    torch.testing.assert_close(native.double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    rig, shades = rig_of(made_shades()), made_shades()
    alike = torch.rand(1, len(rig.neutral), VIEWS, generator=torch.Generator().manual_seed(4))
    before = torch.get_num_threads()
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        results.append(shaded(small_avatar().canonical.colors, shades, alike, rig.surface))
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_closeness_falls_as_a_gaussian_of_both_distances():
    moved = torch.zeros(1, 5, 3)
    turned = torch.eye(3)[None]
    apart = moved.clone()
    apart[0, 1, 0], apart[0, 2, 1] = MOVED_M, 3 * MOVED_M
    alike = closeness(moved, turned, apart, turned)[0, :, 0]
    torch.testing.assert_close(alike, torch.exp(-0.5 * torch.tensor([0.0, 1, 9, 0, 0])))
    small = axis_angle_to_matrix(torch.tensor([[0.0, 0.6 * TURNED_RAD, 0.8 * TURNED_RAD]]))
    one = closeness(moved, small, moved, turned)
    torch.testing.assert_close(one, torch.full_like(one, 0.6065), atol=2e-3, rtol=0)


def test_in_its_own_view_a_shade_is_shown_and_elsewhere_nothing_is():
    """One sure view: its shade within the share of the lasting colours, and none from behind."""
    made = made_shades()
    alone = Shades(0.1 * made.colors[:, :1], torch.ones(len(made.colors), 1), *(
        value[:1] for value in (made.expression, made.jaw, made.turn)
    ))  # fmt: skip
    rig, canonical = rig_of(alone), replace(small_avatar().canonical, colors=torch.full((len(made.colors), 3), 0.5))
    there = replace(small_avatar().neutral_params(), expression=alone.expression, jaw=alone.jaw)
    colors = pose_gaussians(rig, canonical, there).colors
    torch.testing.assert_close(colors[0], 0.5 + alone.colors[:, 0] / (1 + LASTING), atol=1e-5, rtol=0)
    behind = replace(there, root=torch.tensor([[0.0, 3.0, 0]]))
    torch.testing.assert_close(pose_gaussians(rig, canonical, behind).colors[0], canonical.colors, atol=1e-6, rtol=0)


def test_a_camera_that_goes_round_sees_what_a_turned_head_shows():
    """The same picture, whether the head turns by R before the camera or the camera the other way about the head."""
    avatar = small_avatar()
    rig = rig_of(made_shades())
    turn = torch.tensor([[0.1, 0.4, -0.1]])
    still = replace(avatar.neutral_params(), expression=rig.shades.expression[1:2], jaw=rig.shades.jaw[1:2])
    turned = replace(still, root=turn)
    camera = normalised_camera(96, 1)
    place, rotation = still.translation[0], axis_angle_to_matrix(turn)[0]
    joint = rig.joints[0] + place  # the root turns about its joint
    about = torch.eye(4)
    about[:3, :3], about[:3, 3] = rotation, joint - rotation @ joint
    round_it = Camera(camera.world_to_cam @ about, camera.K, 96, 96)
    pictures = [
        render_avatar(rig, avatar.canonical, params, 96, camera=seen).images
        for params, seen in ((turned, None), (turned, camera), (still, round_it))
    ]
    torch.testing.assert_close(pictures[0], pictures[1])
    torch.testing.assert_close(pictures[0], pictures[2], atol=2e-3, rtol=0)
    plain = render_avatar(avatar.rig, avatar.canonical, turned, 96).images
    assert (pictures[0] - plain).abs().mean() > 2e-3


def test_root_and_neck_turn_the_head_together():
    rig, avatar = rig_of(made_shades()), small_avatar()
    half = torch.tensor([[0.0, 0.2, 0]])
    poses = [
        replace(avatar.neutral_params(), root=root, neck=neck) for root, neck in ((2 * half, 0 * half), (half, half))
    ]
    colors = [pose_gaussians(rig, avatar.canonical, params).colors for params in poses]
    torch.testing.assert_close(*colors, atol=1e-5, rtol=0)


def test_only_colours_are_differentiated():
    rig, avatar = rig_of(made_shades()), small_avatar()
    colors = torch.full_like(avatar.canonical.colors, 0.9).requires_grad_(True)
    jaw = rig.shades.jaw[1:2].clone().requires_grad_(True)
    params = replace(avatar.neutral_params(), expression=rig.shades.expression[1:2], jaw=jaw)
    posed = rig.shade(colors, params, None)
    gradient, none = torch.autograd.grad(posed.sum(), (colors, jaw), allow_unused=True)
    assert none is None
    inside = (posed[0] > 0) & (posed[0] < 1)
    assert 0.5 < inside.float().mean() < 1
    torch.testing.assert_close(gradient, inside.float())


def test_another_device_or_precision_takes_the_readable_form():
    rig, shades = rig_of(made_shades()), made_shades()
    alike = torch.rand(1, len(rig.neutral), VIEWS, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    exact = replace(shades, colors=shades.colors.double(), certainty=shades.certainty.double())
    surface = replace(rig.surface, barycentric=rig.surface.barycentric.double())
    made = shaded(small_avatar().canonical.colors.double(), exact, alike, surface)
    native = shaded(small_avatar().canonical.colors, shades, alike.float(), rig.surface)
    assert made.dtype == torch.float64
    torch.testing.assert_close(native.double(), made, atol=1e-5, rtol=0)
