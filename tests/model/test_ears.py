"""Ears: where they are, how dark their hollows, what tells of them, and that hair hides them as a whole."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest
import torch
from painted_heads import Colour, avatar_of, painted_photo

from ffavatar.animate import Rig, render_avatar
from ffavatar.avatar import Avatar
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import HeadModel, load_head
from ffavatar.model import create_model
from ffavatar.model.anchors import hairy_vertices, part_labels, surface_table
from ffavatar.model.decoder import AnchoredDecoder
from ffavatar.model.ears import (
    AVERTED,
    DARKEST,
    FACING,
    auricles,
    hidden_by_hair,
    hollows,
    pressed,
    sides,
    skull_at_ears,
    told_of,
)
from ffavatar.model.reading import Sampled
from ffavatar.types import HeadParams, Views

SIZE = 192
SKIN, HAIR, GARISH = (0.8, 0.6, 0.5), (0.2, 0.12, 0.08), (0.9, 0.35, 0.8)
TO_THE_SIDE = 1.0  # radians by which a head turns that shows the camera its right ear


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


def without_regions(head: HeadModel) -> HeadModel:
    bare = copy(head)
    bare.region_names = tuple("" if name in ("ears", "scalp") else name for name in head.region_names)
    return bare


def test_auricles_lie_on_both_sides_alike(head) -> None:
    ear, place = auricles(head), head.v_template
    assert torch.equal(ear[head.mirror], ear)
    assert 200 < int((ear & (place[:, 0] > 0)).sum()) < 400 and place[ear, 0].abs().min() > 0.05


def test_auricles_have_a_middle_and_no_skull_and_of_the_face_the_tragus_only(head) -> None:
    ear, place = auricles(head), head.v_template
    region = head.regions["ears"]
    middle = ear & ~region  # the canal's mouth and what lies around it
    assert int(middle.sum()) > 100
    sticks_out = region & (place[:, 0].abs() > 0.0715)
    assert ear[sticks_out].all()
    assert place[middle, 0].abs().median() < place[sticks_out, 0].abs().min()
    elsewhere = head.regions["scalp"] | head.regions["neck"] | head.regions["torso"]
    assert not (ear & (elsewhere | skull_at_ears(head))).any()
    tragus = ear & head.regions["face"]
    assert int(tragus.sum()) < 0.01 * int(head.regions["face"].sum())
    assert place[tragus, 2].max() < place[sticks_out, 2].max()  # nothing before the ear's front


def test_a_head_without_regions_has_no_ears(head) -> None:
    bare = without_regions(head)
    nothing = torch.zeros(len(bare.v_template), dtype=torch.bool)
    assert torch.equal(auricles(bare), nothing) and torch.equal(skull_at_ears(bare), nothing)
    assert not hollows(bare, ~nothing).any()
    assert not hidden_by_hair(bare.v_template, nothing.float(), ~nothing, torch.ones(len(nothing))).any()


def test_sides_look_outwards_and_forwards(head) -> None:
    side, place = sides(head), head.v_template
    torch.testing.assert_close(side.norm(dim=1), torch.ones(len(side)))
    away = place[:, 0].abs() > 0.01
    assert (side[away, 0].sign() == place[away, 0].sign()).all() and not side[:, 1].any() and (side[:, 2] > 0).all()
    assert side[0, 2] < AVERTED  # from straight ahead no ear is told of
    turned = torch.tensor([0.866, 0, 0.5])  # by 30 degrees more of it is seen than told of fully
    assert (side[place[:, 0] > 0] @ turned > FACING).all() and (side[place[:, 0] < 0] @ turned < AVERTED).all()


def test_hollows_are_dark_and_rims_are_not(head) -> None:
    skin = part_labels(head) == 0
    dark, ear, place = hollows(head, skin), auricles(head), head.v_template
    assert dark.min() == 0 and 0.5 < dark.max() <= DARKEST
    assert not dark[~ear].any()
    out = place[:, 0].abs()
    rim = ear & (out > out[ear].quantile(0.9))
    concha = ear & ~head.regions["ears"] & (place[:, 2] > place[ear, 2].quantile(0.3)) & (out < out[ear].quantile(0.3))
    assert int(rim.sum()) > 40 and int(concha.sum()) > 40
    assert dark[rim].mean() < 0.1 and dark[concha].mean() > dark[rim].mean() + 0.2
    assert dark[concha].median() > dark[rim].quantile(0.95)
    torch.testing.assert_close(dark[head.mirror], dark, atol=0.02, rtol=0)


def test_the_surface_has_the_hollows_shade(head) -> None:
    table = surface_table(head, torch.arange(0, len(head.v_template), 7), 0)
    dark = hollows(head, part_labels(head) == 0)
    torch.testing.assert_close(table.tint[auricles(head)], (1 - dark[auricles(head)])[:, None].expand(-1, 3))


def test_whole_triangles_around_an_ears_rim_count_as_its_own(head) -> None:
    """Seen from the front they have the ear's colour, and lie next to it: it would borrow that back."""
    decoder = create_model("lite", head=head).decoder
    assert isinstance(decoder, AnchoredDecoder)
    ear, surface = auricles(head), head.surface(1)
    assert torch.equal(decoder.of_ears(head.surface(0)), ear.float())
    expected = (ear[surface.parents] & (surface.barycentric > 0)).any(1)
    assert torch.equal(decoder.of_ears(surface), expected.float())


def test_what_is_no_ear_is_told_of_by_all_and_ears_by_who_sees_their_side() -> None:
    facing = torch.tensor([-1.0, 0.0, AVERTED, (AVERTED + FACING) / 2, FACING, 1.0])
    ones = torch.ones(len(facing))
    assert torch.equal(told_of(0 * ones, facing), ones)
    torch.testing.assert_close(told_of(ones, facing), torch.tensor([0, 0, 0, 0.5, 1, 1]))
    torch.testing.assert_close(told_of(0.5 * ones, facing), torch.tensor([0.5, 0.5, 0.5, 0.75, 1, 1]))
    views = torch.stack([facing, facing.flip(0)])
    torch.testing.assert_close(told_of(ones, views)[1], told_of(ones, facing).flip(0))


def test_views_that_do_not_see_an_ears_side_have_no_share_in_it() -> None:
    """Two views, of which the first sees the ear's side; and a point of the skin that both see as well."""
    decoder = create_model("lite").decoder
    assert isinstance(decoder, AnchoredDecoder)
    features = torch.zeros(2, 2, decoder.evidence.in_features - 5)
    facing = torch.tensor([[FACING, FACING], [AVERTED, AVERTED]])
    seen = Sampled(torch.zeros(2, 2, 3), features, torch.ones(2, 2), torch.ones(2, 2), facing, *torch.ones(2, 2, 2))
    share, own = decoder._shares(seen, seen.cues(), torch.tensor([1.0, 0.0]))
    assert share[0, 0] > 0.999
    torch.testing.assert_close(share[:, 1], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(own[0], own[1])
    averted = replace(seen, facing=torch.full((2, 2), AVERTED))
    _, own = decoder._shares(averted, averted.cues(), torch.tensor([1.0, 0.0]))
    assert own[0] == 0 and own[1] > 0.9  # so an unseen ear is all borrowed


@pytest.fixture(scope="module")
def ears(head) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (V, 3) and how far they are ears, (V,)."""
    return head.v_template, auricles(head).float()


def middle_of(ears) -> float:
    place, ear = ears
    height = place[ear > 0, 1]
    return 0.5 * float(height.min() + height.max())


def test_hair_from_above_hides_what_it_covers_of_the_ears(ears) -> None:
    place, ear = ears
    middle, every = middle_of(ears), torch.ones(len(ear))
    hidden = hidden_by_hair(place, ear, place[:, 1] > middle, every)
    assert hidden.min() == 0 and hidden.max() == 1 and not hidden[ear == 0].any()
    upper, lower = (hidden[(ear > 0) & beyond] for beyond in (place[:, 1] > middle + 0.01, place[:, 1] < middle - 0.01))
    assert (upper == 1).all() and (lower == 0).all()
    whole = hidden_by_hair(place, ear, place[:, 1] > -1, every)
    assert torch.equal(whole, ear)


def test_hair_from_below_hides_no_ear(ears) -> None:
    """What looks like hair at a lobe only is a shadow, or a beard."""
    place, ear = ears
    assert not hidden_by_hair(place, ear, place[:, 1] < middle_of(ears), torch.ones(len(ear))).any()


def test_each_ear_is_hidden_by_itself(ears) -> None:
    place, ear = ears
    left = place[:, 0] > 0
    for side in (left, ~left):
        torch.testing.assert_close(hidden_by_hair(place, ear, side, torch.ones(len(ear))), ear * side)


def test_what_no_view_shows_of_an_ear_is_not_hidden(ears) -> None:
    place, ear = ears
    everywhere = torch.ones(len(ear), dtype=torch.bool)
    assert not hidden_by_hair(place, ear, everywhere, torch.zeros(len(ear))).any()
    left = (place[:, 0] > 0).float()
    torch.testing.assert_close(hidden_by_hair(place, ear, everywhere, left), ear * left)


def photo_of(head: HeadModel, turned: float, ears: Colour) -> tuple[Views, HeadParams]:
    """The average head with brown hair, turned to its left, and ears in a colour of their own."""
    return painted_photo(head, turned, SIZE, SKIN, [(HAIR, hairy_vertices(head)), (ears, auricles(head))])


def press(head: HeadModel, views: Views, params: HeadParams) -> torch.Tensor:
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(1))
    return pressed(rig, auricles(head)[:, None].float(), sides(head), views, params)


def test_ears_that_the_matte_shows_stay_where_they_are(head) -> None:
    assert not press(head, *photo_of(head, 0.0, SKIN)).any()
    assert not press(head, *photo_of(head, 0.6, SKIN)).any()


@pytest.mark.parametrize("both", [True, False])
def test_an_ear_that_the_matte_does_not_show_is_laid_flat(head, both) -> None:
    views, params = photo_of(head, 0.0, SKIN)
    ear, outward = auricles(head), sides(head)
    edge = project(head.v_template[None] - torch.tensor([0, 0, 1.15]), normalised_camera(SIZE))[0][0, ear, 0]
    right, left = (round(float(edge.quantile(part))) for part in (0.12, 0.88))
    mattes = views.mattes.clone()
    mattes[..., :right] = 0
    if both:
        mattes[..., left:] = 0
    moved = press(head, replace(views, mattes=mattes), params)
    assert not moved[~ear].any()
    depth = -(moved * outward).sum(-1)
    torch.testing.assert_close(moved, -depth[:, None] * outward)
    on_right = ear & (head.v_template[:, 0] < 0)
    assert depth.min() >= 0 and 0.003 < float(depth[on_right].max()) < 0.02
    if both:
        torch.testing.assert_close(depth[head.mirror], depth, atol=2e-3, rtol=0)
    else:
        assert not moved[ear & ~on_right].any()


def test_one_bad_matte_of_many_presses_no_ear(head) -> None:
    views, params = photo_of(head, 0.0, SKIN)
    many, poses = Views.cat([views] * 4), params[[0] * 4]
    many.mattes[2] = 0
    assert not press(head, many, poses).any()


def test_what_lies_outside_the_photo_presses_no_ear(head) -> None:
    views, params = photo_of(head, 0.0, SKIN)
    blind = replace(views, mattes=torch.zeros_like(views.mattes), valid=torch.zeros_like(views.valid))
    assert not press(head, blind, params).any()


def of_ears(avatar: Avatar) -> tuple[torch.Tensor, torch.Tensor]:
    """Lasting colours of the splats on the left ear and on the right one."""
    surface, head = avatar.rig.surface, avatar.rig.head
    ear, right = auricles(head)[surface.parents].all(1), head.v_template[surface.parents[:, 0], 0] < 0
    return avatar.canonical.colors[ear & ~right], avatar.canonical.colors[ear & right]


def purpleness(colors: torch.Tensor) -> float:
    """1 in the garish colour, 0 in that of the skin."""
    garish, skin = GARISH[2] - GARISH[1], SKIN[2] - SKIN[1]
    return (float((colors[..., 2] - colors[..., 1]).mean()) - skin) / (garish - skin)


def test_from_the_front_an_ear_is_a_shade_and_no_lasting_colour(head) -> None:
    views, params = photo_of(head, 0.0, GARISH)
    avatar = avatar_of(head, views, params)
    shown = views.images[..., 2] - views.images[..., 1] > 0.3
    assert int(shown.sum()) > 150
    assert all(purpleness(colors) < 0.15 for colors in of_ears(avatar))
    lasting = replace(avatar, rig=replace(avatar.rig, shades=None))
    own, without = (render_avatar(a.rig, a.canonical, params, SIZE).images[shown] for a in (avatar, lasting))
    assert purpleness(own) > 0.8 * purpleness(views.images[shown]) and purpleness(without) < 0.3
    # and what the shade shows is gone when the head is turned
    turned = replace(params, root=torch.tensor([[0.0, TO_THE_SIDE, 0]]))
    drawn = [render_avatar(a.rig, a.canonical, turned, SIZE).images for a in (avatar, lasting)]
    torch.testing.assert_close(*drawn, atol=5e-3, rtol=0)


@pytest.mark.parametrize("turned", [TO_THE_SIDE, -TO_THE_SIDE], ids=["right ear", "left ear"])
def test_from_the_side_an_ear_has_its_own_colour(head, turned) -> None:
    seen = of_ears(avatar_of(head, *photo_of(head, turned, GARISH)))[int(turned > 0)]
    assert purpleness(seen) > 0.9


def test_the_side_view_tells_of_an_ear_whatever_the_frontal_one_shows(head) -> None:
    front, side = photo_of(head, 0.0, GARISH), photo_of(head, TO_THE_SIDE, SKIN)
    both = Views.cat([front[0], side[0]])
    params = replace(front[1][[0, 0]], root=torch.cat([front[1].root, side[1].root]))
    right = of_ears(avatar_of(head, both, params))[1]
    assert purpleness(right) < 0.1 and (right - torch.tensor(SKIN)).norm(dim=1).median() < 0.05


def test_ears_under_hair_are_hair(head) -> None:
    """From the front no ear is told of; with hair over both they are hair all over, else skin, dark in the hollows."""
    hair, skin = torch.tensor(HAIR), torch.tensor(SKIN)
    for colors in of_ears(avatar_of(head, *photo_of(head, 0.0, HAIR))):
        assert (colors - hair).norm(dim=1).quantile(0.9) < 0.2
    for colors in of_ears(avatar_of(head, *photo_of(head, 0.0, SKIN))):
        likeness = torch.nn.functional.cosine_similarity(colors, skin[None])
        assert likeness.quantile(0.1) > 0.99 and 0.6 < colors.mean() / skin.mean() < 0.9
