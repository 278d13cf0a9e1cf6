"""Photos of several days: who shows the same look, and that hair and clothes are taken from one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_looks import BLUE, DIMMER, RED, SIZE, SKIN, two_days

from ffavatar.animate import Rig, render_avatar
from ffavatar.head import HeadModel
from ffavatar.model import Estimate, create_model
from ffavatar.model.looks import BEYOND_M2, MOST_GAIN, Looks, Parts, read_looks, told_best
from ffavatar.model.reading import Sampled, Sources
from ffavatar.types import HeadParams, Views


def told(looks: list[int], light: list[float]) -> tuple[torch.Tensor, torch.Tensor, Parts, torch.Tensor]:
    """What views say of 60 vertices, a third each of face, hair and clothes: clothes by look, all in the view's light;
    no view shows anything beyond the head."""
    clothes = torch.tensor([BLUE, RED, (0.9, 0.9, 0.9)])[looks]
    kind = torch.arange(60) // 20
    colors = torch.where(kind[:, None] == 0, torch.tensor([0.5, 0.35, 0.3]), torch.tensor([0.2, 0.15, 0.1]))
    colors = torch.where((kind == 2)[None, :, None], clothes[:, None], colors)
    trust = torch.full((len(looks), 60), 0.8)
    return colors * torch.tensor(light)[:, None, None], trust, Parts(kind == 0, kind == 1, kind == 2), torch.zeros(
        len(looks), len(looks)
    )  # fmt: skip


def test_views_of_one_look_stay_as_they_are() -> None:
    looks = read_looks(*told([0, 0, 0], [1.0, 0.9, 1.1]))
    assert looks.rank.tolist() == [0, 0, 0] and torch.equal(looks.gains, torch.ones(3, 3))
    assert looks.weights.tolist() == [1, 1, 1]


def test_the_look_that_is_shown_most_is_taken_and_lights_the_others() -> None:
    colors, trust, parts, beyond = told([1, 0, 0, 2], [0.8, 1.0, 1.0, 0.1])
    trust[3] *= 0.5  # the third look shows least
    looks = read_looks(colors, trust, parts, beyond)
    assert looks.rank.tolist() == [1, 0, 0, 2]
    torch.testing.assert_close(looks.gains[:3], torch.tensor([1.25, 1.0, 1.0])[:, None].expand(3, 3), atol=0.01, rtol=0)
    assert looks.gains[3].max() <= MOST_GAIN  # of ten
    assert looks.weights[1] == 1 and looks.weights[0] > looks.weights[3] > 0


def test_no_light_blows_out_a_face() -> None:
    colors, trust, parts, beyond = told([1, 0, 0], [1.0, 1.8, 1.8])
    colors[0, :2] = 0.9  # a cheek in the sun
    gains = read_looks(colors, trust, parts, beyond).gains
    assert 1 <= gains[0].min() and gains[0].max() <= 1 / 0.9 + 1e-3


def test_what_one_outline_shows_and_another_denies_parts_looks_and_hands_do_not_count_twice() -> None:
    colors, trust, parts, beyond = told([0, 0, 0], [1.0, 1.0, 1.0])
    beyond[0, 1:] = 3 * BEYOND_M2
    assert read_looks(colors, trust, parts, beyond).rank.tolist() == [1, 0, 0]
    beyond[0, 0] = 3 * BEYOND_M2  # the first does not find it in its own outline either
    assert read_looks(colors, trust, parts, beyond).rank.tolist() == [0, 0, 0]


def test_among_single_views_the_one_without_a_raised_hand_is_taken() -> None:
    colors, trust, parts, beyond = told([0, 0, 0], [1.0, 1.0, 1.0])
    trust[0] *= 1.1  # it shows most, but with a hand; so does the last, with half of one
    beyond[0, 1:], beyond[2, 1] = 8 * BEYOND_M2, 2 * BEYOND_M2
    assert read_looks(colors, trust, parts, beyond).rank.argmin() == 1


@pytest.mark.parametrize("order", [[2, 0, 1, 3], [3, 2, 1, 0]])
def test_looks_follow_the_views(order: list[int]) -> None:
    colors, trust, parts, beyond = told([1, 0, 0, 1], [0.8, 1.0, 0.9, 0.7])
    trust *= torch.tensor([0.9, 1.0, 0.8, 0.7])[:, None]
    first = read_looks(colors, trust, parts, beyond)
    second = read_looks(colors[order], trust[order], parts, beyond[order][:, order])
    assert torch.equal(first.rank[order], second.rank)
    torch.testing.assert_close(first.gains[order], second.gains)


def test_relit_views_stay_colours() -> None:
    views = Views(torch.rand(2, 4, 4, 3), torch.ones(2, 4, 4), torch.ones(2, 4, 4), torch.zeros(2, 478, 3),
                  torch.zeros(2, 52))  # fmt: skip
    lit = Looks(torch.tensor([0, 1]), torch.tensor([[1.0, 1, 1], [1.5, 0.5, 1]])).relit(views)
    assert torch.equal(lit.images[0], views.images[0]) and lit.images.max() <= 1
    torch.testing.assert_close(lit.images[1, ..., 1], 0.5 * views.images[1, ..., 1])


@pytest.fixture(scope="module")
def people() -> tuple[HeadModel, HeadParams, Views]:
    return two_days()


def test_an_avatar_of_two_days_wears_one_shirt(people) -> None:
    """That of three pictures, not the purple between; and its face is in their light."""
    head, params, views = people
    model = create_model("tiny", head=head).eval()
    with torch.no_grad():
        made = model.reconstruct(views, 1, Estimate(params, torch.zeros(head.identity_size)))
        alone = model.reconstruct(views[[3, 4]], 1, Estimate(params[[3, 4]], torch.zeros(head.identity_size)))
    assert made.looks.rank.tolist() == [0, 0, 0, 1, 1] and alone.looks.rank.tolist() == [0, 0]
    torch.testing.assert_close(made.looks.gains[3], torch.full((3,), 1 / DIMMER), atol=0.05, rtol=0)
    for what, shirt in ((made, BLUE), (alone, tuple(DIMMER * value for value in RED))):
        drawn = render_avatar(what.rig, what.canonical, params[[0]], SIZE).images[0]
        torch.testing.assert_close(drawn[-12, SIZE // 2 - 30], torch.tensor(shirt), atol=0.06, rtol=0)
    face = render_avatar(made.rig, made.canonical, params[[0]], SIZE).images[0, SIZE // 2 - 6, SIZE // 2 + 8]
    torch.testing.assert_close(face, torch.tensor(SKIN), atol=0.06, rtol=0)


def test_given_looks_are_kept(people) -> None:
    head, params, views = people
    model = create_model("tiny", head=head).eval()
    with torch.no_grad():
        made = model.reconstruct(views, 1, Estimate(params, torch.zeros(head.identity_size)), Looks.one(views))
    assert made.looks.rank.tolist() == [0] * 5
    drawn = render_avatar(made.rig, made.canonical, params[[0]], SIZE).images[0, -12, SIZE // 2 - 30]
    assert drawn[0] > 0.2 and drawn[2] > 0.2  # the blend that looks are read to avoid


def test_frames_are_taken_where_chosen() -> None:
    first, second = HeadParams.neutral(3, 4), replace(HeadParams.neutral(3, 4), jaw=torch.ones(3, 3))
    mixed = second.where(torch.tensor([True, False, True]), first)
    assert mixed.jaw[:, 0].tolist() == [1, 0, 1]


def test_another_looks_light_is_matched_where_the_taken_look_shows_nothing() -> None:
    """The taken view shows the left of the face; the other one all of it, ever darker to the right."""
    model = create_model("lite")
    decoder = model.decoder
    points = model.head.v_template
    skin = decoder.of_face(decoder.table(0).surface) & ~decoder.table(0).inner
    shade = 0.8 + 2.0 * points[:, :1].clamp(-0.07, 0.07)
    face = torch.full((len(points), 3), 0.6)
    trust = torch.stack([0.9 * (points[:, 0] > -0.02), torch.full((len(points),), 0.9)])
    nothing = torch.zeros(2, len(points))
    seen = Sampled(torch.stack([face, face * shade]), nothing[..., None], nothing, trust, nothing, nothing, trust)
    views = Views(torch.zeros(2, 4, 4, 3), torch.ones(2, 4, 4), torch.ones(2, 4, 4), torch.zeros(2, 478, 3),
                  torch.zeros(2, 52))  # fmt: skip
    sources = Sources(
        views, HeadParams.neutral(2, 90), torch.zeros(2, 1, 4, 4), Looks(torch.arange(2), torch.ones(2, 3))
    )
    rig = Rig.of(model.head, torch.zeros(100), decoder.table(0).surface)
    light = decoder._informed(rig, seen, sources)[0].light
    assert (light[0] == 1).all()
    lit = (face * shade * light[1] - 0.6).abs()
    assert lit[skin & (points[:, 0] > 0)].max() < 0.03
    alone = skin & (points[:, 0] < -0.03)  # the other view's
    assert lit[alone].mean() < 0.5 * (face * shade - 0.6).abs()[alone].mean()
    one = Sources(views, sources.params, sources.features, Looks.one(views))
    assert decoder._informed(rig, seen, one)[0].light is None


def test_what_the_taken_look_shows_edge_on_others_tell() -> None:
    """Points seen well by the taken view, by both, better by the other; and skin and hair edge on by both."""
    trust = torch.tensor([[0.9, 0.5, 0.1, 0.3, 0.3], [0.1, 0.5, 0.9, 0.3, 0.3]])
    facing = torch.tensor([[0.9, 0.6, 0.0, 0.05, 0.05], [0.1, 0.6, 0.9, 0.05, 0.05]])
    skin = torch.tensor([True, True, True, True, False])
    told = told_best(trust, facing, torch.tensor([True, False]), skin)
    assert told.tolist() == [1, 1, 0, 0, 1]
    assert told_best(trust, facing, torch.tensor([True, True]), skin).tolist() == [1] * 5
