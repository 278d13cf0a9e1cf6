"""Trimming to mattes: splats over an edge are cut to their part inside, those inside stay."""

import pytest
import torch

from ffavatar.animate import Rig, pose_gaussians, render_avatar
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import load_head
from ffavatar.model.anchors import surface_table
from ffavatar.model.ears import auricles, skull_at_ears
from ffavatar.model.trimming import SLOPE, _principal, carved, trim
from ffavatar.types import CanonicalGaussians, HeadParams, Views

SIZE = 256


@pytest.fixture(scope="module")
def scene():
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(0))
    count = len(rig.surface)
    from ffavatar.geometry import turn_z_to, vertex_normals

    quats = turn_z_to(rig.surface.interpolate(vertex_normals(rig.neutral, rig.head.faces)))
    canonical = CanonicalGaussians(
        torch.zeros(count, 3), quats, torch.tensor([0.006, 0.006, 0.001]).expand(count, 3),
        torch.full((count,), 0.99), torch.full((count, 3), 0.4),
    )  # fmt: skip
    params = HeadParams.neutral(1, len(head.expression_names), distance_m=1.15)
    scalp = head.regions["scalp"][rig.surface.parents[:, 0]]
    return rig, canonical, params, scalp


def at_the_middles(scene, mattes: torch.Tensor) -> torch.Tensor:
    """The mattes at the splats' middles: (1, N)."""
    uv, _ = project(pose_gaussians(*scene[:3]).means, normalised_camera(1, 1))
    grid = (uv * 2 - 1)[:, :, None]
    return torch.nn.functional.grid_sample(mattes[:, None], grid, padding_mode="border", align_corners=False)[
        :, 0, :, 0
    ]


def trimmed(
    scene, mattes: torch.Tensor, sinks_m: float = 0.0, valid: torch.Tensor | None = None, closed: bool = False
) -> CanonicalGaussians:
    rig, canonical, params, scalp = scene
    full = torch.ones_like(mattes) if valid is None else valid
    views = Views(torch.zeros(*mattes.shape, 3), mattes, full, torch.zeros(1, 478, 3), torch.zeros(1, 52))
    seen = at_the_middles(scene, mattes)
    outer = torch.ones(len(canonical), dtype=torch.bool)
    sinks = torch.full((len(outer),), sinks_m) if closed else sinks_m * scalp
    return trim(rig, canonical, carved(seen), views, params, outer, sinks, outer & closed)


def half(column: int) -> torch.Tensor:
    matte = torch.zeros(1, SIZE, SIZE)
    matte[:, :, :column] = 1
    return matte


def test_a_matte_that_shows_all_changes_nothing(scene):
    after = trimmed(scene, torch.ones(1, SIZE, SIZE))
    for name, value in vars(scene[1]).items():
        torch.testing.assert_close(getattr(after, name), value)


def test_the_drawn_edge_follows_the_mattes(scene):
    """A straight edge through the head: what is drawn follows it more closely than by carving alone."""
    rig, canonical, params, _ = scene
    matte = half(SIZE // 2 + 10)
    seen = at_the_middles(scene, matte)
    carving = CanonicalGaussians(
        canonical.offsets, canonical.quats, canonical.scales, canonical.opacities * carved(seen), canonical.colors
    )
    whole = render_avatar(rig, canonical, params, SIZE).alphas
    goal = whole * matte
    errors = [
        (render_avatar(rig, made, params, SIZE).alphas - goal).abs().sum() for made in (carving, trimmed(scene, matte))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_cut_splats_are_smaller_and_lie_inside(scene):
    rig, canonical, params, _ = scene
    edge = SIZE // 2 + 10
    after = trimmed(scene, half(edge))
    changed = ((after.offsets - canonical.offsets).norm(dim=1) > 1e-5) & (after.opacities > 0.3)
    assert changed.sum() > 50
    assert (after.scales[changed, :2].amin(1) < 0.97 * 0.006).float().mean() > 0.95
    torch.testing.assert_close(after.scales[:, 2], canonical.scales[:, 2])
    moved, _ = project(pose_gaussians(rig, after, params).means, normalised_camera(SIZE, 1))
    before, _ = project(pose_gaussians(rig, canonical, params).means, normalised_camera(SIZE, 1))
    assert (moved[0, changed, 0] < before[0, changed, 0]).float().mean() > 0.95  # to the left, where the matte is
    torch.testing.assert_close(after.quats.norm(dim=1), torch.ones(len(after)))


def test_a_scalp_beyond_the_mattes_sinks_instead_of_leaving_a_hole(scene):
    rig, canonical, params, scalp = scene
    drawn = render_avatar(rig, canonical, params, SIZE).alphas
    rows = (drawn[0] > 0.5).any(1).nonzero()[:, 0]
    matte = (drawn > 0.5).float()
    matte[:, : rows[0] + 8] = 0  # the crown stands eight pixels too high
    holes = trimmed(scene, matte)
    closed = trimmed(scene, matte, sinks_m=0.06)
    lost = scalp & (holes.opacities < 0.1)
    assert lost.sum() > 10 and (closed.opacities[lost] > 0.9).float().mean() > 0.8
    from_above = HeadParams.neutral(1, params.expression.shape[1], distance_m=1.15)
    from_above.root[:, 0] = 0.9
    alphas = [render_avatar(rig, made, from_above, SIZE).alphas.sum() for made in (holes, closed)]
    assert alphas[1] > alphas[0] + 50


def test_a_closed_surface_sinks_without_a_crack(scene):
    """A head that is six pixels too wide in one view: nothing is cut, and no edge of the mesh becomes a step."""
    rig, canonical, params, _ = scene
    drawn = (render_avatar(rig, canonical, params, SIZE).alphas > 0.5).float()
    matte = torch.nn.functional.pad(drawn, (6, 0))[..., :SIZE] * torch.nn.functional.pad(drawn, (0, 6))[..., 6:]
    after = trimmed(scene, matte, sinks_m=0.02, closed=True)
    assert torch.equal(after.scales, canonical.scales) and torch.equal(after.quats, canonical.quats)
    uv, _ = project(pose_gaussians(rig, canonical, params).means, normalised_camera(1, 1))
    assert after.opacities[((uv[0] > 0) & (uv[0] < 1)).all(-1)].min() > 0.9
    depth = (canonical.offsets - after.offsets).norm(dim=1)
    assert (depth > 0.003).sum() > 50 and depth.max() <= 0.02 + 1e-6
    faces, points = rig.surface.faces, rig.points()
    for a, b in ((0, 1), (1, 2), (2, 0)):
        step = (depth[faces[:, a]] - depth[faces[:, b]]).abs()
        assert (step <= SLOPE * (points[faces[:, a]] - points[faces[:, b]]).norm(dim=1) + 1e-5).all()


def test_what_sinks_goes_no_deeper_than_it_may(scene):
    rig, canonical, params, scalp = scene
    drawn = render_avatar(rig, canonical, params, SIZE).alphas
    matte = (drawn > 0.5).float()
    matte[:, : (drawn[0] > 0.5).any(1).nonzero()[0, 0] + 8] = 0
    for limit_m in (0.012, 0.03):
        after = trimmed(scene, matte, sinks_m=limit_m)
        sunk = ((after.offsets - canonical.offsets).norm(dim=1) > 0.01) & (after.scales == canonical.scales).all(1)
        assert sunk.any() and (after.offsets - canonical.offsets).norm(dim=1)[sunk].max() < limit_m + 1e-6
        assert scalp[sunk].all()


def test_ears_and_what_lies_inside_never_sink():
    head = load_head()
    table = surface_table(head, torch.arange(0, len(head.v_template), 40), 1)
    at = table.surface.parents
    skull = skull_at_ears(head)
    ears = auricles(head) | (head.regions["ears"] & ~skull)
    assert (table.sinks[ears[at].all(1)] == 0).all() and (table.sinks[table.inner] == 0).all()
    beside = ears[at].any(1) & ~ears[at].all(1)
    part = table.surface.interpolate(ears.float()[:, None])[:, 0]
    sinking = beside & ~table.inner & ~skull[at].any(1) & ~head.regions["scalp"][at].any(1)
    torch.testing.assert_close(table.sinks[sinking], 0.02 * (1 - part[sinking]))  # no step, which would be a hole
    assert (table.sinks[skull[at].all(1)] == 0.06).all()
    assert (table.sinks[head.regions["scalp"][at].all(1)] == 0.06).all()
    assert (table.sinks[head.regions["neck"][at].all(1)] == 0.02).all()


def test_outside_the_photo_nothing_is_cut(scene):
    valid = half(SIZE // 2 + 10)
    after = trimmed(scene, torch.ones(1, SIZE, SIZE), valid=valid)
    torch.testing.assert_close(after.opacities, scene[1].opacities)


def test_carving_forgives_one_of_three_views():
    matte = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    torch.testing.assert_close(carved(matte), torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(carved(matte[:2]), torch.tensor([1.0, 0.0]))


def test_gradients_reach_the_splats_through_the_cut(scene):
    rig, canonical, params, scalp = scene
    free = CanonicalGaussians(**{name: value.clone().requires_grad_() for name, value in vars(canonical).items()})
    after = trimmed((rig, free, params, scalp), half(SIZE // 2 + 10))
    sum(value.square().sum() for value in vars(after).values()).backward()
    for name, value in vars(free).items():
        assert value.grad is not None and (value.grad != 0).any(), name


def test_principal_axes_are_those_of_the_eigenvalue_solver():
    """In float32, of covariances as splats have them (square metres), thin and round ones, against float64."""
    draw = torch.Generator().manual_seed(0)
    widths = 1e-5 + 0.01 * torch.rand(4000, 2, generator=draw).double()
    widths[:500, 1] = 1e-3 * widths[:500, 0]
    turn = 6.3 * torch.rand(4000, generator=draw).double()
    axes = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).unflatten(1, (2, 2))
    made = (axes * widths.square()[:, None]) @ axes.mT
    wanted, vectors = torch.linalg.eigh(made)
    for kind, exact in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        variances, angle = _principal(made.to(kind))
        assert ((variances - wanted).abs() <= exact * wanted[:, 1:]).all()
        assert (angle.abs() <= torch.pi / 2 + 1e-6).all()
        across = angle.double().cos() * vectors[:, 1, 0] - angle.double().sin() * vectors[:, 0, 0]
        clear = (wanted[:, 1] - wanted[:, 0]) / wanted[:, 1]  # where both are nearly the same no axis is exact
        assert (across.abs() * clear <= exact).all()
    variances, angle = _principal(4e-6 * torch.eye(2)[None])
    assert torch.equal(variances, torch.full((1, 2), 4e-6)) and angle.item() == 0
    assert all(torch.isfinite(value).all() for value in _principal(torch.zeros(1, 2, 2)))
