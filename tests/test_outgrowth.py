"""What grows beyond the skin: covers the mattes, does not depend on the order of views, needs their agreement; and in
slits has the surface's colours."""

from dataclasses import replace

import pytest
import torch

from ffavatar.animate import Rig, pose_gaussians, render_avatar
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import load_head
from ffavatar.model import outgrowth
from ffavatar.model.outgrowth import PARENTS, extend, hung, outgrow
from ffavatar.types import CanonicalGaussians, HeadParams, Views

SIZE = 160


@pytest.fixture(scope="module")
def scene():
    """The average head, its poses in three views, and vertices of scalp and torso to hang on."""
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(1))
    count = len(rig.surface)
    canonical = CanonicalGaussians(
        torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).expand(count, 4), torch.full((count, 3), 0.003),
        torch.full((count,), 0.99), torch.full((count, 3), 0.6),
    )  # fmt: skip
    params = HeadParams.neutral(3, len(head.expression_names), distance_m=1.15)
    params.root[:, 1] = torch.tensor([0.0, 0.3, -0.25])
    hangers = torch.nonzero(head.regions["scalp"] | head.regions["torso"])[::7, 0]
    return rig, canonical, params, hangers


def views_with_hair(scene, views: int) -> Views:
    """The head as it is drawn, and a dark block of hair above it: 8 cm wide, 3 cm over the crown, turning with it."""
    rig, canonical, params, _ = scene
    drawn = render_avatar(rig, canonical, params[list(range(views))], SIZE)
    crown = rig.points()[rig.points()[:, 1].argmax()]
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-0.04, 0.04, 60), torch.linspace(-0.02, 0.03, 60), indexing="xy"), -1
    )
    block = crown + torch.cat([grid, torch.zeros(60, 60, 1)], -1).reshape(-1, 3)
    turned = pose_gaussians(rig, replace(canonical, offsets=(crown - rig.points())), params[list(range(views))])
    nearest = (rig.points() - crown).norm(dim=1).argmin()
    images, mattes = drawn.images.clone(), (drawn.alphas > 0.96).float()
    for view in range(views):
        angle = params.root[view, 1]
        turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
        world = (block - crown) @ turn.T + turned.means[view, nearest]
        uv = project(world[None], normalised_camera(SIZE))[0][0].round().long().clamp(0, SIZE - 1)
        fresh = mattes[view, uv[:, 1], uv[:, 0]] == 0
        images[view, uv[fresh, 1], uv[fresh, 0]] = torch.tensor([0.1, 0.05, 0.0])
        mattes[view, uv[:, 1], uv[:, 0]] = 1
    full = torch.ones_like(mattes)
    return Views(images, mattes, full, torch.zeros(views, 478, 3), torch.zeros(views, 52))


def grown(scene, views: Views, index: list[int]):
    rig, canonical, params, hangers = scene
    return outgrow(rig, canonical, views[index], params[index], hangers, 1)


@pytest.mark.parametrize(("index", "least"), [([0], 0.95), ([0, 1, 2], 0.75)], ids=["one view", "three views"])
def test_the_mattes_are_covered_in_the_photos_colours(scene, index, least):
    """Wholly from one view; with several, the block's corners may be denied, their depth being that of the hairline."""
    rig, canonical, params, _ = scene
    views = views_with_hair(scene, 3)
    missing = views.mattes[index] - (render_avatar(rig, canonical, params[index], SIZE).alphas > 0.5).float()
    hole = -torch.nn.functional.max_pool2d(-missing, 5, 1, 2) > 0.5  # without the block's ragged edge
    assert hole.sum() > 100 * len(index)
    full_rig, full, _ = grown(scene, views, index)
    after = render_avatar(full_rig, full, params[index], SIZE)
    assert after.alphas[hole].mean() > least
    added = full.colors[len(canonical) :]
    assert len(added) > 100 and added[:, 0].median() < 0.2  # dark, as the hair is


def test_the_surface_is_kept_and_parents_are_hangers(scene):
    _, canonical, _, hangers = scene
    full_rig, full, _ = grown(scene, views_with_hair(scene, 2), [0, 1])
    count = len(canonical)
    assert torch.equal(full.offsets[:count], canonical.offsets) and len(full_rig.surface) == len(full)
    assert torch.isin(full_rig.surface.parents[count:], hangers).all()
    torch.testing.assert_close(full_rig.surface.barycentric[count:].sum(1), torch.ones(len(full) - count))


def test_the_order_of_views_does_not_matter(scene):
    views = views_with_hair(scene, 3)
    _, first, _ = grown(scene, views, [0, 1, 2])
    _, second, _ = grown(scene, views, [2, 0, 1])
    assert len(first) == len(second)
    for name, value in vars(first).items():
        torch.testing.assert_close(value, getattr(second, name), atol=1e-5, rtol=1e-4)


def test_nothing_grows_where_the_avatar_fills_its_mattes(scene):
    rig, canonical, params, hangers = scene
    drawn = render_avatar(rig, canonical, params, SIZE)
    full = torch.ones(3, SIZE, SIZE)
    views = Views(drawn.images, (drawn.alphas > 0.96).float(), full, torch.zeros(3, 478, 3), torch.zeros(3, 52))
    _, after, _ = outgrow(rig, canonical, views, params, hangers, 1)
    assert len(after) - len(canonical) < 0.002 * len(canonical)


def test_a_view_alone_is_overruled_by_the_others(scene):
    """Hair that two of three mattes deny is an error of the matte; one photo alone is believed."""
    views = views_with_hair(scene, 3)
    bald = (render_avatar(*scene[:2], scene[2], SIZE).alphas > 0.96).float()
    denied = replace(views, mattes=torch.cat([views.mattes[:1], bald[1:]]))
    count = len(scene[1])
    alone = len(grown(scene, denied, [0])[1]) - count
    overruled = len(grown(scene, denied, [0, 1, 2])[1]) - count
    assert alone > 100 and overruled < 0.3 * alone


def test_a_surface_of_another_colour_denies_what_would_stand_before_it(scene):
    """A strip beside the cheek in a turned view, dark, would hang before the bright face of the frontal one."""
    rig, canonical, params, hangers = scene
    drawn = render_avatar(rig, canonical, params, SIZE)
    mattes = (drawn.alphas > 0.96).float()
    images = torch.full((3, SIZE, SIZE, 3), 0.95)
    wide = torch.nn.functional.max_pool2d(mattes[1:2], 15, 1, 7)[0]
    strip = (wide > 0.5) & (mattes[1] < 0.5)
    images[1][strip] = 0.0
    mattes = torch.stack([torch.ones(SIZE, SIZE), wide, torch.ones(SIZE, SIZE)])
    views = Views(images, mattes, torch.ones_like(mattes), torch.zeros(3, 478, 3), torch.zeros(3, 52))
    count = len(canonical)
    _, bright, _ = outgrow(rig, canonical, replace(views, images=torch.full_like(images, 0.95)), params, hangers, 1)
    _, dark, _ = outgrow(rig, canonical, views, params, hangers, 1)
    near = dark.colors[count:].amax(1) < 0.3
    assert dark.opacities[count:][near].mean() < 0.5 * bright.opacities[count:].mean()


def test_what_fills_slits_has_the_surfaces_colours(scene):
    """A matte a cell wider than the head, before a green photo. Head and chest have colours of their own, which the
    slits take from what lies beneath them."""
    rig, canonical, params, hangers = scene
    head, chest = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([0.1, 0.3, 0.7])
    low = rig.points()[:, 1:2] < -0.12
    dressed = replace(canonical, colors=torch.where(low, chest, head))
    mattes = (render_avatar(rig, dressed, params[:1], SIZE).alphas > 0.96).float()
    wide = torch.nn.functional.max_pool2d(mattes, 3, 1, 1)
    green = torch.tensor([0.0, 1.0, 0.0]).repeat(1, SIZE, SIZE, 1)
    views = Views(green, wide, torch.ones_like(wide), torch.zeros(1, 478, 3), torch.zeros(1, 52))
    full_rig, full, in_slit = outgrow(rig, dressed, views, params[:1], hangers, 1)
    count = len(dressed)
    assert len(full) > count + 600 and in_slit.shape == (len(full),)
    assert not in_slit[:count].any() and in_slit[count:].all()
    torch.testing.assert_close(full.colors[:count], dressed.colors)
    height = (full_rig.points() + full.offsets)[:, 1]
    for color, beneath in ((head, in_slit & (height > -0.06)), (chest, in_slit & (height < -0.18))):
        assert beneath.sum() > 200
        torch.testing.assert_close(full.colors[beneath], color.expand(int(beneath.sum()), 3))


def test_hair_is_no_slit(scene):
    """The block keeps the photo's colour; along its ragged edge some of it is thin."""
    count = len(scene[1])
    full_rig, full, in_slit = grown(scene, views_with_hair(scene, 1), [0])
    slits, others = (full.colors[count:][which] for which in (in_slit[count:], ~in_slit[count:]))
    torch.testing.assert_close(slits, torch.full_like(slits, 0.6))
    assert len(others) > 10 * len(slits) and others[:, 0].median() < 0.2
    posed = pose_gaussians(full_rig, full, scene[2][[0]])
    height = posed.means[0, :, 1] - posed.means[0, :count, 1].max()
    inside = (height > 0.003) & (height < 0.02) & (posed.means[0, :, 0].abs() < 0.03)
    assert inside.sum() > 100 and not in_slit[inside].any()


@pytest.mark.parametrize("index", [[0, 1], [0, 1, 2]], ids=["two views", "three views"])
def test_what_further_views_add_to_hair_is_no_slit(scene, index):
    """They find a rest left of it, thin, beside what the first view let grow: hair all the same."""
    count = len(scene[1])
    full_rig, full, in_slit = grown(scene, views_with_hair(scene, 3), index)
    height = (full_rig.points() + full.offsets)[:, 1]
    crown = height[:count].max()
    hair = torch.arange(len(full)) >= count
    hair &= height > crown + 0.008
    assert hair.sum() > 200 and in_slit[hair].float().mean() < 0.02


def test_hair_as_thin_as_a_coarse_cell_is_a_slit_and_no_thicker_hair(scene):
    """At level 0 a cell is 5 px of 512 wide: the block of 3 cm stays hair there, too."""
    rig, canonical, params, hangers = scene
    views = views_with_hair(scene, 1)
    full_rig, full, in_slit = outgrow(rig, canonical, views, params[[0]], hangers, 0)
    height = (full_rig.points() + full.offsets)[:, 1]
    hair = (torch.arange(len(full)) >= len(canonical)) & (height > height[: len(canonical)].max() + 0.008)
    assert hair.sum() > 50 and not in_slit[hair].any() and (full.colors[hair, 0] < 0.35).all()


def test_what_was_carved_away_tells_no_colour(scene):
    rig, canonical, *_ = scene
    crown = rig.points()[:, 1] > 0.08
    thin = replace(canonical, opacities=torch.where(crown, 1e-6, canonical.opacities))
    red = replace(thin, colors=torch.where(crown[:, None], torch.tensor([1.0, 0, 0]), canonical.colors))
    found = outgrowth._colors_beneath(rig, red, rig.points()[crown])
    torch.testing.assert_close(found, torch.full_like(found, 0.6))


def test_where_nothing_is_missing_nothing_fills_slits(scene):
    rig, canonical, params, hangers = scene
    nobody = torch.zeros(1, SIZE, SIZE)
    views = Views(
        torch.zeros(1, SIZE, SIZE, 3), nobody, torch.ones_like(nobody), torch.zeros(1, 478, 3), torch.zeros(1, 52)
    )
    for made in (canonical, replace(canonical, opacities=torch.full_like(canonical.opacities, torch.nan))):
        _, after, in_slit = outgrow(rig, made, views, params[:1], hangers, 1)
        assert len(after) == len(canonical) == len(in_slit) and not in_slit.any()


def test_a_mask_is_opened_by_squares():
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[4:9, 4:12] = True  # as narrow as the square
    kept = mask.clone()
    mask[12:16, 2:18] = True  # narrower by one
    assert torch.equal(outgrowth._opened(mask, 5), kept)


def test_depth_is_extended_from_what_is_near():
    depth, known = torch.zeros(64, 64), torch.zeros(64, 64)
    depth[:, :20], known[:, :20] = 1.5, 1.0
    far, told = extend(depth, known)
    assert torch.equal(far[:, :20], depth[:, :20])
    torch.testing.assert_close(far[told], torch.full_like(far[told], 1.5))
    assert told[:, :40].all()


def test_some_of_it_lies_under_the_rim(scene):
    """Where the block meets the head, its colour goes on behind the head's own, as deep as is told."""
    rig, canonical, params, _ = scene
    full_rig, full, _ = grown(scene, views_with_hair(scene, 1), [0])
    count = len(canonical)
    posed = pose_gaussians(full_rig, full, params[[0]])
    uv, _ = project(posed.means, normalised_camera(SIZE))
    alone = render_avatar(rig, canonical, params[[0]], SIZE).alphas[0]
    at = uv[0].round().long().clamp(0, SIZE - 1)
    under = (alone[at[:, 1], at[:, 0]] > 0.99) & (torch.arange(len(full)) >= count)
    assert 20 < int(under.sum()) < 0.5 * (len(full) - count)
    assert full.colors[under, 0].median() < 0.2  # the hair's, not the head's
    shown = render_avatar(full_rig, full, params[[0]], SIZE).images[0]
    inner = -torch.nn.functional.max_pool2d(-alone[None], 9, 1, 4)[0] > 0.99
    before = render_avatar(rig, canonical, params[[0]], SIZE).images[0]
    assert (shown - before)[inner].abs().max() < 0.02  # and the head looks as before


def test_what_rest_sets_apart_is_wider(scene):
    """Hung on a head that is turned against its torso, points between the two part at rest; nothing else is widened."""
    _, _, params, hangers = scene
    rig = scene[0]
    places = rig.neutral[hangers][None] + params.translation[:1, None]
    turns = torch.tensor([1.0, 0, 0, 0]).expand(1, len(hangers), 4)
    gap = torch.zeros(64, 64, dtype=torch.bool)
    gap[20:44, 4:60] = True
    depth = torch.full((64, 64), 1.15)
    alike = hung(gap, depth, places, turns, 0, rig.neutral[hangers])
    torch.testing.assert_close(alike.stretch, torch.ones(int(gap.sum())), atol=1e-3, rtol=0)
    torch.testing.assert_close(alike.weights.sum(1), torch.ones(int(gap.sum())))
    raised = rig.neutral[hangers].clone()
    raised[raised[:, 1] > 0] += torch.tensor([0.0, 0.03, 0.0])
    parted = hung(gap, depth, places, turns, 0, raised)
    assert parted.stretch.min() >= 1 and parted.stretch.max() > 1.1


def test_no_parent_is_changed_at_once(scene):
    """Along a line of points 0.1 mm apart, a parent's share never jumps."""
    rig, _, params, hangers = scene
    places = rig.neutral[hangers][None] + params.translation[:1, None]
    turns = torch.tensor([1.0, 0, 0, 0]).expand(1, len(hangers), 4)
    gap = torch.zeros(4096, 4096, dtype=torch.bool)
    gap[1600, 800:3200] = True
    made = hung(gap, torch.full((4096, 4096), 1.15), places, turns, 0, rig.neutral[hangers])
    assert len(made.near.unique()) > PARENTS  # they do change
    for parent in made.near.unique():
        share = ((made.near == parent) * made.weights).sum(1)
        assert share.diff().abs().max() < 0.1


def test_what_grows_beside_a_face_stands_further_back(scene, monkeypatch):
    """Black hair all around the head of one photo. At the depth of a face's outline it would lie on the cheek in a
    turn; in the photo's own view it covers the same either way."""
    rig, canonical, params, hangers = scene
    drawn = render_avatar(rig, canonical, params[:1], SIZE)
    mattes = (drawn.alphas > 0.96).float()
    wide = torch.nn.functional.max_pool2d(mattes, 31, 1, 15)
    blank = torch.zeros(1, 478, 3), torch.zeros(1, 52)
    views = Views(drawn.images * mattes[..., None], wide, torch.ones_like(wide), *blank)
    back = outgrow(rig, canonical, views, params[:1], hangers, 1)[:2]
    monkeypatch.setattr(outgrowth, "_beside", lambda mask, reach: torch.zeros_like(mask.float()))
    flush = outgrow(rig, canonical, views, params[:1], hangers, 1)[:2]
    depths = [project(pose_gaussians(*one, params[:1]).means, normalised_camera(SIZE))[1][0] for one in (back, flush)]
    deeper = depths[0] - depths[1]
    assert (deeper > 0.9 * outgrowth.UNDER_FACE_M).sum() > 300
    assert (deeper[len(canonical) :].abs() < 1e-4).sum() > 300  # far from the face
    assert deeper.min() > -1e-4 and deeper.max() < outgrowth.UNDER_FACE_M + 1e-4
    pictures = [render_avatar(*one, params[:1], SIZE).alphas for one in (back, flush)]
    assert (pictures[0] - pictures[1]).abs().mean() < 0.005


def test_beside_falls_evenly():
    mask = torch.zeros(1, 9, dtype=torch.bool)
    mask[0, 2] = True
    expected = torch.tensor([[0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]])
    torch.testing.assert_close(outgrowth._beside(mask, 4), expected)
