"""Registration to the outline: its derivative is the picture's, it finds back, and landmarks that are sure hold it."""

from dataclasses import replace

import pytest
import torch

from ffavatar.animate import Rig, render_avatar
from ffavatar.head import load_head
from ffavatar.model.landmark_fit import (
    OUTER,
    POSE_UNKNOWNS,
    LandmarkModel,
    posterior,
    project_normalised,
    stepped,
)
from ffavatar.model.registration import _outline, head_share, register
from ffavatar.types import CanonicalGaussians, HeadParams, Views

FRAMES = 2


@pytest.fixture(scope="module")
def scene():
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(1))
    count = len(rig.surface)
    canonical = CanonicalGaussians(
        torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).expand(count, 4), torch.full((count, 3), 0.002),
        torch.full((count,), 0.99), torch.full((count, 3), 0.6),
    )  # fmt: skip
    params = HeadParams.neutral(FRAMES, len(head.expression_names), distance_m=1.15)
    params.root[:, 1], params.neck[:, 0] = torch.tensor([0.2, -0.1]), torch.tensor([0.05, -0.1])
    return rig, canonical, params


def views_of(scene, params: HeadParams) -> Views:
    drawn = render_avatar(*scene[:2], params, 256)
    full = torch.ones_like(drawn.alphas)
    return Views(drawn.images, drawn.alphas, full, torch.zeros(FRAMES, 478, 3), torch.zeros(FRAMES, 52))


def read(scene, true: HeadParams, at: HeadParams) -> torch.Tensor:
    """How firmly exact landmarks of the ``true`` pose hold the unknowns ``at`` another, with a wide prior."""
    head = scene[0].head
    model = LandmarkModel(head)
    identity = torch.zeros(head.identity_size)
    landmarks = project_normalised(model.points(true, identity)[0])
    prior = torch.full((POSE_UNKNOWNS + true.expression.shape[1],), 50.0)
    return posterior(model, landmarks, at, identity, prior, 0.01)


def leaning(params: HeadParams) -> HeadParams:
    """The torso turned by 4 degrees under the head, which stays as it is turned and where it is: what landmarks leave
    open."""
    delta = torch.zeros(FRAMES, POSE_UNKNOWNS + params.expression.shape[1])
    delta[:, :3], delta[:, 6:9] = torch.tensor([0.02, 0.03, 0.06]), -torch.tensor([0.02, 0.03, 0.06])
    moved = stepped(params, delta)
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(0))
    skull = head.lbs_weights[:, 1:].sum(1) > 0.99
    places = [head.pose(rig.neutral[None], rig.joints[None], p).vertices[:, skull].mean(1) for p in (params, moved)]
    return replace(moved, translation=moved.translation + places[0] - places[1])


def distance(scene, a: HeadParams, b: HeadParams) -> torch.Tensor:
    """Mean distance of the two posed surfaces in metres."""
    rig = scene[0]
    posed = [rig.head.pose(rig.neutral[None], rig.joints[None], p).vertices for p in (a, b)]
    return (posed[0] - posed[1]).norm(dim=-1).mean()


@pytest.mark.parametrize("unknown", range(OUTER))
def test_the_outlines_derivative_is_that_of_the_picture(scene, unknown):
    """Central differences of the drawn alpha against brightness constancy. Where the outline is made by a part that
    the head hides or lays open (chin over neck) the two differ, so that only agreement on the whole is asked."""
    rig, canonical, params = scene
    share, valid = head_share(rig), torch.ones(FRAMES, 1, 128, 128)
    _, pixels, columns = _outline(rig, canonical, params, share, valid)
    size = 0.002 if 3 <= unknown < 6 else 0.01
    delta = torch.zeros(FRAMES, POSE_UNKNOWNS + params.expression.shape[1])
    delta[:, unknown] = size
    ahead, back = (_outline(rig, canonical, stepped(params, sign * delta), share, valid)[0] for sign in (1, -1))
    measured = ((ahead - back) / (2 * size))[:, 0][pixels]
    told = columns[:, unknown]
    assert torch.nn.functional.cosine_similarity(measured, told, dim=0) > 0.75
    assert 0.6 < (measured @ told / (told @ told)) < 1.7


def test_it_finds_back_to_the_pose_that_made_the_mattes(scene):
    rig, canonical, true = scene
    start = leaning(true)
    found = register(rig, canonical, views_of(scene, true), start, read(scene, true, start))
    assert distance(scene, start, true) > 0.002
    assert distance(scene, found, true) < 0.8 * distance(scene, start, true)


def test_nothing_moves_where_the_outline_fits_or_the_landmarks_are_sure(scene):
    rig, canonical, true = scene
    views = views_of(scene, true)
    same = register(rig, canonical, views, true, read(scene, true, true))
    assert distance(scene, same, true) < 2.5e-3
    start = leaning(true)
    sure = 1e12 * torch.eye(POSE_UNKNOWNS + true.expression.shape[1]).expand(FRAMES, -1, -1)
    assert distance(scene, register(rig, canonical, views, start, sure), start) < 1e-5


def test_what_lies_outside_the_photo_is_no_evidence(scene):
    """A photo that ends at the shoulders: its cut edge is no outline."""
    rig, canonical, true = scene
    views = views_of(scene, true)
    valid = views.valid.clone()
    valid[:, 160:] = 0
    cut = replace(views, valid=valid, mattes=views.mattes * valid)
    found = register(rig, canonical, cut, true, read(scene, true, true))
    assert distance(scene, found, true) < 3e-3


def test_parts_that_are_not_moved_follow_the_landmarks(scene):
    """A coupling between translation and an expression in the precision moves the expression along."""
    rig, canonical, true = scene
    start = leaning(true)
    start = replace(start, expression=true.expression + 0.5)
    unknowns = POSE_UNKNOWNS + true.expression.shape[1]
    precision = 1e3 * torch.eye(unknowns).repeat(FRAMES, 1, 1)
    precision[:, 3, POSE_UNKNOWNS] = precision[:, POSE_UNKNOWNS, 3] = 900.0
    found = register(rig, canonical, views_of(scene, true), start, precision)
    moved = (found.translation - start.translation)[:, 0]
    assert (moved.abs() > 1e-4).all()
    torch.testing.assert_close((found.expression - start.expression)[:, 0], -0.9 * moved, atol=1e-5, rtol=1e-2)
