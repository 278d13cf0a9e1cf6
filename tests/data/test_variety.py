"""Variety of synthetic people: streams of their own, skins, what is worn, grown hair, painted places."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ffavatar.data.synthetic import garments, strands, wraps
from ffavatar.data.synthetic.body import load_body
from ffavatar.data.synthetic.figure import build_figure, pose_figure
from ffavatar.data.synthetic.generate import synthetic_person
from ffavatar.data.synthetic.painting import beard_amount, hairline_depth
from ffavatar.data.synthetic.people import sample_person, sample_shot
from ffavatar.data.synthetic.scenery import painted_place
from ffavatar.data.synthetic.variety import (
    BEARDS,
    GARMENTS,
    Beard,
    Cut,
    Headwear,
    individual_typology_angle,
    sample_variety,
    skin_color,
    stream,
)
from ffavatar.types import HeadParams


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def neutral(body):
    return body.neutral(sample_person(11, body.identities, None).identity)


def test_streams_are_independent_of_each_other_and_repeat():
    first = stream(7, "beard").random(4)
    assert np.array_equal(first, stream(7, "beard").random(4))
    for other in (stream(7, "cut"), stream(8, "beard"), stream(7, "beard", 1)):
        assert not np.array_equal(first, other.random(4))
    # What one feature is drawn from does not reach the others.
    a = sample_variety(7, 0.2, True, np.full(3, 0.1), painted=False)
    b = sample_variety(7, 0.9, True, np.full(3, 0.3), painted=True)
    assert a.headwear and b.headwear and np.array_equal(a.headwear.color, b.headwear.color)
    assert a.clothes.kind == b.clothes.kind and np.array_equal(a.clothes.color, b.clothes.color)
    assert a.frames.style == b.frames.style and a.skin.lines < b.skin.lines


def test_the_typology_angle_is_that_of_cielab():
    color = pytest.importorskip("skimage.color")
    rng = np.random.default_rng(0)
    for linear in rng.uniform(0.03, 0.7, (20, 3)):
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        light, _, b = color.rgb2lab(encoded)
        # scikit-image rounds the white point: a tenth of a degree
        assert individual_typology_angle(linear) == pytest.approx(np.degrees(np.arctan2(light - 50, b)), abs=0.15)


def test_skins_go_from_light_to_dark():
    rng = np.random.default_rng(1)
    angles = np.array([[individual_typology_angle(skin_color(t, rng)) for _ in range(40)] for t in (0, 0.3, 0.6, 1)])
    mean = angles.mean(1)
    assert (np.diff(mean) < -10).all() and mean[0] > 41 and mean[-1] < -30
    assert (angles.std(1) > 1).all()


def test_fields_tell_how_far_a_head_reaches(body, neutral):
    """Against the vertices themselves: none of the skin lies outside of the radius in its direction."""
    field = wraps.head_field(body, neutral, smooth=0)
    skin = body.regions["scalp"] & (np.abs(body.template[:, 0]) < 0.05)
    d = neutral.vertices[skin] - field.centre
    azimuth, elevation = np.arctan2(d[:, 0], d[:, 2]), np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2]))
    radius = np.linalg.norm(d, axis=1)
    kept = elevation < 1.2  # at the pole all azimuths meet in one texel
    np.testing.assert_allclose(field.at(azimuth, elevation)[kept], radius[kept], atol=0.004)
    back = wraps.on_sphere(field, azimuth, elevation, radius)
    np.testing.assert_allclose(back, neutral.vertices[skin], atol=1e-9)


def test_grids_are_closed_and_textured_without_a_jump():
    faces = wraps.grid_faces(3, 8, True)
    assert len(faces) == 2 * 2 * 8 and set(faces.ravel()) == set(range(24))
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 1).sum() == 16 and counts.max() == 2  # only the two rims are open
    uvs = wraps.grid_uvs(3, 8, faces, 4.0, 1.0)
    assert np.ptp(uvs[..., 0], axis=1).max() <= 4 / 8 + 1e-6


@pytest.mark.parametrize("kind", GARMENTS)
def test_garments_lie_outside_of_the_neck_and_below_the_eyes(body, neutral, kind):
    person = sample_person(11, body.identities, None)
    clothes = replace(person.variety.clothes, kind=kind)
    pieces = garments.dress(body, neutral, (0.068, 0.03, 0.0), clothes, np.random.default_rng(0))
    assert bool(pieces) == (kind != "tee")
    field = wraps.neck_field(body, neutral)
    for piece in pieces:
        assert np.isfinite(piece.vertices).all() and piece.vertices[:, 1].max() < neutral.joints[3, 1]
        assert 0 <= piece.faces.min() and piece.faces.max() < len(piece.vertices)
        assert 0 <= piece.head_share.min() and piece.head_share.max() <= 0.5
        d = piece.vertices - field.centre
        gap = np.hypot(d[:, 0], d[:, 2]) - field.at(np.arctan2(d[:, 0], d[:, 2]), piece.vertices[:, 1])
        # A rim lies half in the cloth, a roll's inner side within the neck's own radius.
        assert np.median(gap) > -0.004 and gap.min() > -0.08


@pytest.mark.parametrize("kind", ["cap", "beanie", "headscarf"])
def test_headwear_covers_the_crown_and_leaves_the_eyes_free(body, neutral, kind):
    worn = Headwear(kind, np.full(3, 0.2), np.full(3, 0.1), "plain", 0.1, False, 0.02)
    pieces = garments.cover_head(body, neutral, worn, np.random.default_rng(0))
    crown = neutral.vertices[body.template[:, 1].argmax()]
    top = max(float(p.vertices[:, 1].max()) for p in pieces)
    assert crown[1] < top < crown[1] + 0.08
    for piece in pieces:
        for joint in (3, 4):  # nothing straight before an eye
            eye = neutral.joints[joint]
            before = (np.abs(piece.vertices[:, :2] - eye[:2]).max(1) < 0.012) & (piece.vertices[:, 2] > eye[2])
            assert not before.any()


def test_beards_grow_where_men_have_them(body):
    lips = body.regions["lips"] & (body.template[:, 1] > -0.05)
    forehead = body.regions["face"] & (body.template[:, 1] > 0.03)
    for style in BEARDS:
        amount = beard_amount(body.template, style)
        assert amount[forehead].max() == 0 and amount.max() > 0.8
        assert (amount <= beard_amount(body.template, "full") + 1e-9).all()
    assert beard_amount(body.template, "chin")[lips].max() == 0


def test_a_beard_follows_the_jaw(body):
    drawn = sample_person(11, body.identities, None)
    beard = Beard("full", 0.012, 0.9, np.full(3, 0.05))
    person = replace(drawn, glasses=False, hair=None, variety=replace(drawn.variety, beard=beard, headwear=None))
    figure = build_figure(body, person, None)
    zero, jaw = torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [0.3, 0, 0]])
    shut, opened = pose_figure(
        body, figure, HeadParams(zero, zero, zero, jaw, zero, zero, torch.zeros(2, len(body.expressions)))
    )
    number = next(i for i, part in enumerate(figure.parts) if part.shells is not None)
    start = sum(len(p.shells.rows) if p.shells else len(body.template) if p.rest is None else len(p.rest)
                for p in figure.parts[:number])  # fmt: skip
    shells = figure.parts[number].shells
    hairs = slice(start, start + len(shells.rows))
    moved = opened.vertices[hairs] - shut.vertices[hairs]
    skin = (opened.vertices - shut.vertices)[shells.rows]
    assert np.abs(skin).max() > 0.005 and np.abs(moved - skin).max() < 0.012
    chin = body.template[shells.rows, 1] < -0.08
    assert moved[chin, 1].mean() < -0.002


@pytest.mark.parametrize("bun", [False, True])
def test_grown_hair_hangs_from_the_scalp_and_leaves_the_face_free(body, neutral, bun):
    cut = Cut(0.4, 0.1, 0.002, 8.0, 0.0, 0.015, bun, np.full(3, 0.2))
    made = strands.cards(body, neutral, cut, 0.0, np.random.default_rng(3))
    assert np.isfinite(made.vertices).all() and 0 <= made.uvs.min() and made.uvs.max() <= 1.01
    count = strands.CARD_STEPS * 2
    strips = made.vertices[: len(made.vertices) // count * count]
    roots = strips.reshape(-1, count, 3)[:, :2].mean(1)
    inside = hairline_depth(roots - wraps.head_centre(body, neutral) + [0.0, 0.03, -0.012])
    assert np.mean(inside > -6) > 0.9
    low = made.vertices[:, 1].min()
    assert low > -0.12 if bun else low < -0.2
    eyes = neutral.joints[3:5]
    before = (np.abs(made.vertices[:, 1] - eyes[0, 1]) < 0.02) & (made.vertices[:, 2] > eyes[0, 2])
    assert np.abs(made.vertices[before, 0]).min(initial=1.0) > 0.045


def test_all_looks_can_be_drawn_without_artwork(body):
    """The fallback has what the artwork has not: each kind of thing once, as a picture whose matte holds it."""
    drawn = sample_person(11, body.identities, None)
    cut = Cut(0.3, 0.0, 0.004, 10.0, 1.0, 0.015, False, np.full(3, 0.2))
    shot = sample_shot(drawn, 0, body.expressions, None)
    mattes = []
    for clothes, worn, hair in (("hood", None, "cards"), ("jacket", "beanie", "cards"), ("scarf", "headscarf", None)):
        headwear = worn and Headwear(worn, np.full(3, 0.2), np.full(3, 0.1), "rib", 0.0, False, 0.03)
        variety = replace(
            drawn.variety, cut=cut, headwear=headwear, clothes=replace(drawn.variety.clothes, kind=clothes)
        )
        person = replace(drawn, hair=hair, variety=variety)
        got = synthetic_person(11, size=64, chosen=[shot], person=person)
        mattes.append(got.mattes[0] > 128)
    bald = synthetic_person(11, size=64, chosen=[shot], person=replace(drawn, hair=None, glasses=False))
    for matte in mattes:
        assert matte.sum() > (bald.mattes[0] > 128).sum()


def test_painted_places_are_lit_from_somewhere():
    for seed in range(12):
        radiance = painted_place(np.random.default_rng(seed))
        assert radiance.shape == (32, 64, 3) and np.isfinite(radiance).all() and radiance.min() >= 0
        assert radiance.max() > 1.3 * radiance.mean() > 0
