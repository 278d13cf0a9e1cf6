"""Personalization on photos of two days: the face from all, shirt and light from the avatar's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_looks import BLUE, DIMMER, RED, SIZE, SKIN, two_days
from torch import Tensor

from ffavatar.animate import render_avatar
from ffavatar.avatar import Avatar
from ffavatar.model import Estimate, FFAvatar, create_model
from ffavatar.personal import PersonalRecipe, personalize
from ffavatar.personal.goals import read_views
from ffavatar.pipeline import LOOK, reconstruct
from ffavatar.types import HeadParams, Views

PLACE = (-12, SIZE // 2 - 30)  # a pixel of the shirt


class Known(torch.nn.Module):
    """An estimator that knows the poses."""

    def __init__(self, params: HeadParams, identity: Tensor):
        super().__init__()
        self.params, self.identity = params, identity

    def forward(self, views: Views, identity: Tensor | None = None) -> Estimate:
        return Estimate(self.params[views.landmarks[:, 0, 0].long()], self.identity)


@pytest.fixture(scope="module")
def scene() -> tuple[FFAvatar, Avatar, Views, HeadParams]:
    """A model, the avatar of all five pictures, which wears blue, and the pictures."""
    head, params, views = two_days()
    model = create_model("tiny", head=head).eval()
    model.estimator = Known(params, torch.zeros(head.identity_size))  # type: ignore[assignment]
    return model, reconstruct(model, views), views, params


def test_of_another_day_only_the_face_counts_in_the_avatars_light(scene) -> None:
    model, avatar, views, _ = scene
    reading = read_views(model, avatar, views, SIZE)
    assert reading.alike.tolist() == [True, True, True, False, False]
    share = reading.goals.valid.mean((1, 2, 3))
    assert share[:3].min() == 1 and 0.02 < share[3:].min() and share[3:].max() < 0.2
    assert reading.goals.valid[(3, *PLACE)] == 0 and torch.equal(reading.goals.images[(3, *PLACE)], torch.ones(3))
    assert reading.goals.mattes[3][reading.goals.valid[3] == 0].max() == 0
    face = reading.goals.images[3][reading.goals.valid[3, ..., 0] == 1].median(0).values
    torch.testing.assert_close(face, torch.tensor(SKIN), atol=0.04, rtol=0)  # DIMMER in the picture
    lit = views.images[3][reading.goals.valid[3, ..., 0] == 1].median(0).values
    torch.testing.assert_close(lit, DIMMER * torch.tensor(SKIN), atol=0.02, rtol=0)


def test_one_day_is_compared_whole(scene) -> None:
    model, avatar, views, _ = scene
    reading = read_views(model, avatar, views[:3], SIZE)
    assert reading.alike.all() and reading.goals.valid.min() == 1


@pytest.mark.parametrize("guard", [False, True])
def test_the_shirt_stays_blue(scene, guard: bool) -> None:
    model, avatar, views, params = scene
    recipe = PersonalRecipe(steps=40, size=SIZE, guard=guard, guard_checks=2, rate_color=0.03, check_steps=1)
    made = personalize(model, avatar, views, recipe)
    drawn = render_avatar(made.avatar.rig, made.avatar.canonical, params[[0]], SIZE).images[0]
    torch.testing.assert_close(drawn[PLACE], torch.tensor(BLUE), atol=0.06, rtol=0)


def test_the_own_day_is_learned(scene) -> None:
    model, _, views, params = scene
    recipe = PersonalRecipe(steps=40, size=SIZE, guard=False, rate_color=0.03)
    red = reconstruct(model, views[3:])
    grey = replace(red, canonical=replace(red.canonical, colors=0.8 * red.canonical.colors))
    made = personalize(model, grey, views[3:], recipe)
    goal, errors = DIMMER * torch.tensor(RED), []
    for avatar in (grey, made.avatar):
        drawn = render_avatar(avatar.rig, avatar.canonical, params[[0]], SIZE).images[0]
        errors.append(float((drawn[PLACE] - goal).abs().max()))
    assert errors[1] < 0.5 * errors[0]


def test_the_look_of_a_named_view_is_taken(scene) -> None:
    model, avatar, views, params = scene
    assert avatar.about[LOOK] == "0 1 2" and LOOK not in reconstruct(model, views[:3]).about
    other = reconstruct(model, views, like=4)
    assert other.about[LOOK] == "3 4"
    drawn = render_avatar(other.rig, other.canonical, params[[0]], SIZE).images[0]
    torch.testing.assert_close(drawn[PLACE], DIMMER * torch.tensor(RED), atol=0.06, rtol=0)
