"""Skin beside the face: what is believed of it, and the lids' colour."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.head import HeadModel
from ffavatar.model import create_model
from ffavatar.model.anchors import bare_skin, hairy_vertices, plain_skin
from ffavatar.model.decoder import AnchoredDecoder
from ffavatar.model.skin import EDGE_ON, LEAST, LIDS, SHADED, SQUARE, TAUGHT, Skin, read_skin
from ffavatar.model.steadiness import folded_lids
from ffavatar.types import HeadParams

SKIN = torch.tensor([0.7, 0.5, 0.4])
WHITE, BLACK = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.05, 0.05, 0.05])


@pytest.fixture(scope="module")
def decoder() -> AnchoredDecoder:
    decoder = create_model("lite").decoder
    assert isinstance(decoder, AnchoredDecoder)
    return decoder


@pytest.fixture(scope="module")
def head(decoder: AnchoredDecoder) -> HeadModel:
    return decoder.head_model[0]


@pytest.fixture(scope="module")
def spot(head: HeadModel) -> Tensor:
    """(V,) bool: the middle of the left cheek's side and what lies within 4 mm, plain skin."""
    side = (plain_skin(head) > 0.9) & (head.v_template[:, 0] > 0) & ~head.regions["ears"] & ~head.regions["neck"]
    middle = head.v_template[side].mean(0)
    nearest = head.v_template[side][(head.v_template[side] - middle).norm(dim=1).argmin()]
    return side & ((head.v_template - nearest).norm(dim=1) < 0.004)


def read(decoder: AnchoredDecoder, colors: Tensor, taken: Tensor) -> Skin:
    """What S views, colours (S, V, 3), tell that see everything, plain skin edge on."""
    table, trust = decoder.table(0), torch.full(colors.shape[:2], 0.5)
    facing = torch.where(decoder.plain > 0, 0.0, 0.9).expand_as(trust)

    def around(values: Tensor) -> Tensor:
        return table.spread(decoder.near @ table.gather(values, len(decoder.anchors)))

    folded = torch.zeros(colors.shape[1])
    return read_skin(colors, trust, facing, taken, decoder.bare, decoder.plain, folded, around)


def believed(decoder: AnchoredDecoder, colors: Tensor, taken: Tensor, cosine: float, where: Tensor) -> Tensor:
    """(S,) least belief in the places ``where`` (V,) bool, seen at one cosine."""
    skin = read(decoder, colors, taken)
    facing = torch.full(colors.shape[:2], cosine)
    return skin.likeness(colors, facing, taken, decoder.table(0).surface)[:, where].amin(1)


def painted(head: HeadModel, *views: tuple[Tensor | None, Tensor]) -> Tensor:
    """(S, V, 3): heads in the colour of skin, each with a place in another colour."""
    colors = SKIN.repeat(len(views), len(head.v_template), 1)
    for view, (color, where) in enumerate(views):
        if color is not None:
            colors[view, where] = color
    return colors


def test_where_skin_is_bare_and_plain(head: HeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, plain = bare_skin(head), plain_skin(head)
    other = [head.regions[name] for name in ("lips", "eyelids", "eyeballs", "teeth", "tongue", "mouth_interior")]
    for region in (*other, hairy_vertices(head), head.lbs_weights[:, 0] > 0.5):
        assert not (bare & region).any()
    assert plain.amin() == 0 and plain.amax() == 1 and not (plain > 0)[~bare].any()
    points = head.v_template
    front = head.regions["face"] & (points[:, 2] > points[head.regions["eyelids"]][:, 2].max())
    assert not plain[front].any()  # nose and mouth
    assert plain[head.regions["ears"] & bare & (points[:, 0].abs() > 0.075)].mean() > 0.95
    left, right = (plain[side].sum() for side in (points[:, 0] > 0, points[:, 0] < 0))
    assert left == pytest.approx(float(right), rel=0.02)
    lidless = {name: where for name, where in head.regions.items() if name != "eyelids"}
    monkeypatch.setattr(HeadModel, "regions", property(lambda self: lidless))
    assert plain_skin(head).any() and not plain_skin(head)[~lidless["ears"] & (points[:, 2] > 0.02)].any()


@pytest.mark.parametrize("color", [WHITE, BLACK])
def test_what_is_not_like_skin_is_believed_only_squarely_and_of_the_taken_look(
    decoder: AnchoredDecoder, head: HeadModel, spot: Tensor, color: Tensor
) -> None:
    """Of four views the first two show a spot, and the second is of another look."""
    views = painted(head, (color, spot), (color, spot), (None, spot), (None, spot))
    taken = torch.tensor([True, False, True, True])
    assert believed(decoder, views, taken, EDGE_ON, spot).tolist() == pytest.approx([LEAST, LEAST, 1, 1], abs=1e-3)
    assert believed(decoder, views, taken, SQUARE, spot).tolist() == pytest.approx([1, LEAST, 1, 1], abs=1e-3)
    between = believed(decoder, views, taken, (EDGE_ON + SQUARE) / 2, spot)[0]
    assert between == pytest.approx(0.5, abs=1e-3)


def test_no_face_is_doubted(decoder: AnchoredDecoder, head: HeadModel) -> None:
    """Lips, brows and nostrils are none of skin's colour."""
    face = (plain_skin(head) == 0) & head.regions["face"]
    views = painted(head, (BLACK, face), (WHITE, face))
    assert believed(decoder, views, torch.tensor([True, False]), 0.0, face).tolist() == [1, 1]


@pytest.mark.parametrize(("color", "least", "most"), [(BLACK, 0.9, 1.0), (WHITE, LEAST, 0.1)])
def test_a_beard_is_believed_where_it_is_dark_all_around(
    decoder: AnchoredDecoder, head: HeadModel, spot: Tensor, color: Tensor, least: float, most: float
) -> None:
    """The taken look shows one colour on all of a side, which is a beard's or none of a face."""
    side = (plain_skin(head) > 0) & (head.v_template[:, 0] > 0)
    views = painted(head, (color, side), (None, side))
    assert least <= believed(decoder, views, torch.tensor([True, False]), 0.0, spot)[0] <= most


@pytest.mark.parametrize(("color", "dark", "lasts"), [(BLACK, 3, True), (WHITE, 3, False), (BLACK, 1, False)])
def test_what_most_views_show_dark_is_believed_of_all(
    decoder: AnchoredDecoder, head: HeadModel, spot: Tensor, color: Tensor, dark: int, lasts: bool
) -> None:
    """Three of four views tell of a beard, which the first, whose look is taken, does not; one alone is not enough."""
    wide = (plain_skin(head) > 0) & ((head.v_template - head.v_template[spot].mean(0)).norm(dim=1) < 0.04)
    shown = painted(head, *((color if view >= 4 - dark else None, wide) for view in range(4)))
    last = believed(decoder, shown, torch.tensor([True, False, False, False]), 0.0, spot)[3]
    assert last == pytest.approx(1.0 if lasts else LEAST, abs=1e-3)


def test_the_order_of_views_does_not_matter(decoder: AnchoredDecoder, head: HeadModel, spot: Tensor) -> None:
    views = painted(head, (BLACK, spot), (None, spot), (WHITE, spot)) + 0.1 * torch.rand(3, len(spot), 3)
    taken, order = torch.tensor([True, True, False]), [2, 0, 1]
    one, two = read(decoder, views, taken), read(decoder, views[order], taken[order])
    for name in ("color", "asked", "whole", "lids"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.strange[order], two.strange, atol=1e-5, rtol=1e-5)


def test_the_skins_colour_is_the_taken_looks(decoder: AnchoredDecoder, head: HeadModel, spot: Tensor) -> None:
    """Lids count what is bright among it, and are a little darker."""
    brow = head.regions["face"] & (head.v_template[:, 1] > head.v_template[head.regions["eyelids"]][:, 1].max())
    views = painted(head, (BLACK, brow & (torch.arange(len(brow)) % 2 == 0)), (WHITE, torch.ones_like(spot)))
    skin = read(decoder, views, torch.tensor([True, False]))
    torch.testing.assert_close(skin.color[spot], SKIN.expand(int(spot.sum()), 3), atol=0.02, rtol=0)
    lids = skin.lids[head.regions["eyelids"]]
    torch.testing.assert_close(lids, (SHADED * SKIN).expand_as(lids), atol=0.02, rtol=0)
    assert (skin.color[head.regions["eyelids"]].mean() - SKIN.mean()).abs() > 0.01  # the brow's share


def test_folded_lids_have_the_colour_of_lids_and_learn_none(decoder: AnchoredDecoder, head: HeadModel) -> None:
    colors = painted(head, (None, torch.zeros(len(head.v_template), dtype=torch.bool)))
    skin = read(decoder, colors, torch.tensor([True]))
    surface = decoder.table(0).surface
    folded = torch.linspace(0, 1, len(skin.folded))
    skin = replace(skin, folded=folded, lids=WHITE.expand_as(skin.lids))
    given = torch.rand_like(skin.lids)
    expected = given + LIDS * folded[:, None] * (1 - given)
    torch.testing.assert_close(skin.with_lids(given, surface), expected)
    low, high = TAUGHT
    for cosine, share in ((low, 0.0), ((low + high) / 2, 0.5), (high, 1.0)):
        taught = skin.taught(torch.full_like(folded, cosine), surface)
        torch.testing.assert_close(taught, (1 - skin.asked * (1 - share)) * (1 - folded))


def test_lids_are_folded_until_a_view_shows_them(head: HeadModel) -> None:
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(0))
    rest = HeadParams.neutral(2, len(head.expression_names))
    folded = folded_lids(rig, rest)
    points = head.v_template
    near = torch.cdist(points, points[head.regions["eyelids"]]).amin(1) < 0.01
    assert folded.amax() == 1 and not folded[~near & ~head.regions["interior"]].any()
    eyes = points[head.regions["eyeballs"]][:, 1].mean()
    assert (folded > 0.5)[points[:, 1] < eyes].sum() < 0.1 * (folded > 0.5).sum()  # it is the upper ones
    shut = replace(rest, expression=rest.expression.clone())
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        shut.expression[1, head.expression_names.index(name)] = 1
    assert not folded_lids(rig, shut).any()
