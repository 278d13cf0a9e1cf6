"""Losses against independent computations: what counts, what does not, which labels are used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_people import SIZE, made_person

from ffavatar.geometry import NORMALISED_FOCAL
from ffavatar.head import load_head
from ffavatar.model import create_model
from ffavatar.model.landmark_fit import LandmarkModel
from ffavatar.train.losses import Goal, landmark_loss, on_goal, parameter_losses, picture_losses
from ffavatar.train.networks import prepare_model
from ffavatar.train.recipe import SMOKE
from ffavatar.train.sources import Example, InMemory
from ffavatar.train.stages import avatar_step
from ffavatar.types import HeadParams, Rendering, Views


def some_views(size=16, valid=None):
    random = torch.Generator().manual_seed(0)
    images, mattes = torch.rand(2, size, size, 3, generator=random), torch.rand(2, size, size, generator=random)
    valid = torch.ones_like(mattes) if valid is None else valid
    return Views(images, mattes, valid, torch.zeros(2, 478, 3), torch.zeros(2, 52))


def test_outside_the_photo_nothing_counts():
    valid = torch.ones(2, 16, 16)
    valid[:, :, :6] = 0
    goal = Goal.of(some_views(valid=valid), 16)
    random = torch.Generator().manual_seed(1)
    images, alphas = torch.rand(2, 16, 16, 3, generator=random), torch.rand(2, 16, 16, generator=random)
    images.requires_grad_()
    alphas.requires_grad_()
    drawn = Rendering(images, alphas)
    losses = picture_losses(drawn, goal, torch.zeros(5, 3), SMOKE, None)
    gradients = torch.autograd.grad(losses.total(), [images, alphas])
    assert all(g[:, :, :6].abs().max() == 0 and g[:, :, 6:].abs().max() > 0 for g in gradients)
    assert torch.equal(on_goal(drawn, goal)[:, :, :6], torch.ones(2, 16, 6, 3))


def test_terms_are_what_their_names_say():
    goal, random = Goal.of(some_views(), 16), torch.Generator().manual_seed(1)
    drawn = Rendering(
        torch.rand(2, 16, 16, 3, generator=random), torch.rand(2, 16, 16, generator=random)
    )  # fmt: skip
    recipe = replace(SMOKE, weight_l1=2.0, weight_l2=3.0, weight_matte=4.0, weight_offset=5.0, weight_lpips=6.0)
    offsets = torch.tensor([[0.3, 0.4, 0.0], [0.0, 0.0, 0.0]])
    terms = picture_losses(drawn, goal, offsets, recipe, lambda a, b: torch.tensor([0.25, 0.75])).floats()
    difference = (drawn.images - goal.images).numpy().astype(np.float64)
    assert terms["l1"] == pytest.approx(2 * np.abs(difference).mean(), rel=1e-5)
    assert terms["l2"] == pytest.approx(3 * (difference**2).mean(), rel=1e-5)
    assert terms["matte"] == pytest.approx(4 * float((drawn.alphas - goal.mattes).abs().mean()), rel=1e-5)
    assert terms["offset"] == pytest.approx(5 * 100 * 0.125, rel=1e-5)
    assert terms["lpips"] == pytest.approx(3.0)
    assert "lpips" not in picture_losses(drawn, goal, offsets, replace(recipe, weight_lpips=0.0), abs).terms


def test_goals_at_another_size():
    valid = torch.ones(2, 32, 32)
    valid[:, 21:] = 0
    views = some_views(32, valid)
    goal = Goal.of(views, 16)
    assert goal.images.shape == (2, 16, 16, 3) and goal.mattes.shape == goal.valid.shape == (2, 16, 16)
    assert goal.valid[:, :9].min() == 1 and goal.valid[:, 11:].max() == 0  # row 10 lies half outside
    assert torch.equal(goal.images[:, 11:], torch.ones(2, 5, 16, 3)) and goal.mattes[:, 11:].max() == 0
    assert float(goal.mattes[:, :8].mean()) == pytest.approx(float(views.mattes[:, :16].mean()), abs=0.01)


def test_landmark_loss_is_the_distance_of_the_posed_heads_landmarks():
    """Against the head model's own skinning, and the projection written out."""
    head = load_head()
    person = made_person(1)
    params, identity = person.params, person.identity
    neutral, joints = head.neutral(identity[None])
    posed = head.landmarks(head.pose(neutral, joints, params).vertices)
    depth = -posed[..., 2]
    exact = torch.stack([posed[..., 0] / depth, -posed[..., 1] / depth], -1) * NORMALISED_FOCAL + 0.5
    model = LandmarkModel(head)
    assert float(landmark_loss(model, params, identity, exact)) < 2e-4
    moved = exact + torch.tensor([0.03, 0.04])
    assert float(landmark_loss(model, params, identity, moved)) == pytest.approx(0.05, abs=2e-4)
    assert landmark_loss(model, params, torch.zeros(0), exact) > 1e-3  # without identity: the mean head


def test_parameter_losses_without_identity():
    head, points = load_head(), torch.arange(50)
    true = made_person(1).params
    zero = parameter_losses(true, torch.zeros(5, 0), true, torch.zeros(5, 0), head, points)
    assert "identity" not in zero.terms and float(zero.total()) == pytest.approx(0, abs=1e-6)
    off = replace(true, jaw=true.jaw + 0.5)
    terms = parameter_losses(off, torch.zeros(5, 0), true, torch.zeros(5, 0), head, points).floats()
    assert terms["jaw"] == pytest.approx(20 * (0.5 - 0.025), rel=1e-4)  # Huber with beta 0.05
    assert all(value == pytest.approx(0, abs=1e-6) for name, value in terms.items() if name != "jaw")


WITH_LABELS = replace(
    SMOKE, level=0, targets=8, max_sources=2, label_share=0.0, weight_landmark=1.0, weight_params=0.1, learn="both"
)


def outcome_of(recipe, labelled, step=0):
    torch.manual_seed(0)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    return avatar_step(InMemory([made_person(1, labelled, 10)]), recipe, None)(model, Example.of(0, step))


def test_losses_on_labels_are_on_where_there_are_labels():
    """And the unlabelled stage 1 is the labelled one without them: the same pictures, the same other losses."""
    with_labels, without = outcome_of(WITH_LABELS, True), outcome_of(WITH_LABELS, False)
    assert {"landmark", "params"} == with_labels.terms.keys() - without.terms.keys()
    assert torch.equal(with_labels.pictures.drawn, without.pictures.drawn)
    assert all(with_labels.terms[name] == value for name, value in without.terms.items())


def test_labels_stand_in_for_the_estimator_in_their_share_of_the_steps():
    always = replace(WITH_LABELS, label_share=1.0)
    exact, bare = outcome_of(always, True), outcome_of(always, False)
    assert "landmark" not in exact.terms  # nothing was estimated
    assert not torch.equal(exact.pictures.drawn, bare.pictures.drawn)


def test_numbers_of_sources_and_targets():
    """Eight targets, one to two sources; a person with few views gives fewer targets, never none."""
    counts = set()
    for step in range(8):
        pictures = outcome_of(WITH_LABELS, True, step).pictures
        counts.add(len(pictures.sources))
        assert len(pictures.goals) == len(pictures.drawn) == 8
        assert pictures.goals.shape[1:] == (SIZE, SIZE, 3)
    assert counts == {1, 2}
    torch.manual_seed(0)
    many = replace(WITH_LABELS, max_sources=9)
    model = prepare_model(create_model("tiny"), many)
    step = avatar_step(InMemory([made_person(1)]), many, None)
    found = [step(model, Example.of(0, number)).pictures for number in range(3)]
    assert all(1 <= len(p.goals) and len(p.goals) + len(p.sources) == 5 for p in found)


def test_the_splats_may_stay_unturned():
    turned = outcome_of(replace(WITH_LABELS, label_share=1.0), True)
    still = outcome_of(replace(WITH_LABELS, label_share=1.0, rotate_covariance=False), True)
    assert not torch.equal(turned.pictures.drawn, still.pictures.drawn)
    assert isinstance(made_person(1).params, HeadParams)
