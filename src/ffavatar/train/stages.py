"""The stages as functions: what one step of each sees and minimises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ffavatar.model import Estimate, FFAvatar
from ffavatar.model.estimator import LandmarkEstimator
from ffavatar.model.landmark_fit import fit_landmarks
from ffavatar.pipeline import few_to_many
from ffavatar.render import mean_ssim
from ffavatar.train.loop import Step
from ffavatar.train.losses import Weighted, parameter_losses
from ffavatar.train.recipe import Recipe
from ffavatar.train.samples import Person
from ffavatar.types import Batch, HeadParams, Rendering, Views

Perceptual = Callable[[Tensor, Tensor], Tensor]


def _outline(person: Person, index: np.ndarray, rng: np.random.Generator) -> Tensor:
    """The outline net's pictures with changed colours, which it must not care for."""
    picture = torch.from_numpy(person.outlines[index]).float() / 127.5 - 1
    gain = torch.from_numpy(rng.normal(1, 0.1, (len(index), 3, 1, 1))).float()
    return torch.cat([((picture[:, :3] + 1) * gain - 1).clamp(-1, 1), picture[:, 3:]], 1)


def _landmark_views(person: Person, index: np.ndarray, rng: np.random.Generator) -> Views:
    """Views without pictures (none are read where the outline is given), with a little landmark noise."""
    landmarks = person.landmarks[index] + rng.normal(0, 0.0012, (len(index), *person.landmarks.shape[1:]))
    pictures, mattes = torch.zeros(len(index), 0, 0, 3), torch.zeros(len(index), 0, 0)
    scores = torch.from_numpy(person.blendshapes[index]).float()
    return Views(pictures, mattes, mattes, torch.from_numpy(landmarks).float(), scores)


def estimator_step(people: list[Person], recipe: Recipe) -> Step:
    """Parameter losses on the net's proposals for many people, and on the whole fit of one of them."""

    def step(model: FFAvatar, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        estimator = model.estimator
        assert isinstance(estimator, LandmarkEstimator)
        points = torch.from_numpy(rng.choice(len(model.head.v_template), 400, replace=False))
        views, outlines, truth, owners = [], [], [], []
        for number in rng.choice(len(people), recipe.people, replace=len(people) < recipe.people):
            person = people[number]
            index = rng.choice(len(person), min(recipe.views_per_person, len(person)), replace=False)
            views.append(_landmark_views(person, index, rng))
            outlines.append(_outline(person, index, rng))
            truth.append(person.params[torch.from_numpy(index)])
            owners.append(person.identity.expand(len(index), -1))
        true, true_identity = HeadParams.cat(truth), torch.cat(owners)
        raw, proposed = estimator.propose_each(Views.cat(views), torch.cat(outlines))
        losses = parameter_losses(proposed, raw, true, true_identity, model.head, points)
        first = len(views[0])
        proposal = estimator.proposal(raw[:first].mean(0), proposed[:first])
        fitted, identity = fit_landmarks(
            estimator.landmark_model, views[0].landmarks, proposal, 3, estimator.landmark_sigma(), True
        )
        after = parameter_losses(fitted, identity.expand(len(fitted), -1), truth[0], owners[0], model.head, points)
        total = losses.total() + 0.5 * after.total()
        named = losses.floats() | {f"fit_{name}": value for name, value in after.floats().items()}
        return total, named

    return step


def picture_losses(
    rendering: Rendering, target: Views, offsets: Tensor, recipe: Recipe, perceptual: Perceptual | None
) -> Weighted:
    """The avatar stage's losses against targets on white."""
    goal, matte = target.on_white(), target.mattes * target.valid
    seen = rendering.images
    terms = {
        "l1": recipe.weight_l1 * (seen - goal).abs().mean(),
        "l2": recipe.weight_l2 * (seen - goal).square().mean(),
        "ssim": recipe.weight_ssim * (1 - mean_ssim(seen, goal).mean()),
        "matte": recipe.weight_matte * (rendering.alphas - matte).abs().mean(),
        "offset": recipe.weight_offset * 100 * offsets.square().sum(-1).mean(),
    }
    if perceptual is not None and recipe.weight_lpips:
        terms["lpips"] = recipe.weight_lpips * perceptual(seen, goal).mean()
    return Weighted(terms)


def avatar_step(people: list[Person], recipe: Recipe, perceptual: Perceptual | None) -> Step:
    """Few-to-many: an avatar from some views of a person, rendered like others of the same person.

    Whether the losses also teach the estimator is up to the caller, who freezes it or not.
    """

    def step(model: FFAvatar, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        person = people[rng.integers(len(people))]
        sources = int(rng.integers(1, recipe.max_sources + 1))
        order = rng.permutation(len(person))[: sources + recipe.targets]
        source = person.views(order[:sources])
        target = person.views(order[sources:], exact_matte=True)
        estimate, params = None, None
        if rng.random() < recipe.label_share:
            estimate = Estimate(person.params[torch.from_numpy(order[:sources])], person.identity)
            params = person.params[torch.from_numpy(order[sources:])]
        seen = few_to_many(model, Batch(source, target), recipe.size, recipe.level, estimate=estimate, params=params)
        losses = picture_losses(seen.rendering, target, seen.made.learned_offsets, recipe, perceptual)
        return losses.total(), losses.floats()

    return step
