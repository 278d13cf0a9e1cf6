"""The stages as functions: what one example of each sees and minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.model import Estimate, FFAvatar
from ffavatar.model.estimator import LandmarkEstimator
from ffavatar.model.landmark_fit import LandmarkModel, fit_landmarks
from ffavatar.pipeline import FewToMany, few_to_many
from ffavatar.train.discriminator import ProjectedDiscriminator, adversarial_losses
from ffavatar.train.losses import Goal, Perceptual, landmark_loss, on_goal, parameter_losses, picture_losses
from ffavatar.train.recipe import Recipe
from ffavatar.train.samples import Person
from ffavatar.train.sources import Example, Source
from ffavatar.types import Batch, HeadParams, Views

COMPARED_POINTS = 400  # vertices on which shapes are compared


@dataclass(frozen=True)
class Pictures:
    """What an example looked like: on white, (S or T, H, W, 3) in [0, 1]."""

    sources: Tensor
    goals: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class Outcome:
    """One example's loss with its graph, its weighted terms for the log, and its pictures where it has any."""

    loss: Tensor
    terms: dict[str, float]
    pictures: Pictures | None = None


Step = Callable[[FFAvatar, Example], Outcome]


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


def _labels(person: Person, index: np.ndarray) -> tuple[HeadParams, Tensor]:
    if person.params is None or person.identity is None:
        raise InputError("The estimator stage needs exact labels; train it on shards of `ffavatar prepare synthetic`.")
    return person.params[torch.from_numpy(index)], person.identity


def estimator_step(source: Source, recipe: Recipe) -> Step:
    """Parameter losses on the net's proposals for many people, and on the whole fit of one of them."""

    def step(model: FFAvatar, example: Example) -> Outcome:
        estimator, rng, device = model.estimator, example.rng, model.head.v_template.device
        assert isinstance(estimator, LandmarkEstimator)
        points = torch.from_numpy(rng.choice(len(model.head.v_template), COMPARED_POINTS, replace=False)).to(device)
        views, outlines, truth, owners = [], [], [], []
        for person in source.several(example, recipe.people):
            index = rng.choice(len(person), min(recipe.views_per_person, len(person)), replace=False)
            views.append(_landmark_views(person, index, rng).to(device))
            outlines.append(_outline(person, index, rng).to(device))
            params, identity = _labels(person, index)
            truth.append(params.to(device))
            owners.append(identity.to(device).expand(len(index), -1))
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
        return Outcome(total, named)

    return step


def avatar_step(
    source: Source, recipe: Recipe, perceptual: Perceptual | None, critic: ProjectedDiscriminator | None = None
) -> Step:
    """Few-to-many: an avatar from some views of a person, rendered like others of the same person.

    Which networks the losses teach is up to the caller, who freezes the others. Losses on labels are taken where the
    person has any and the estimator read the targets. With a ``critic``, the loss includes the critic's own.
    """
    landmarks: list[LandmarkModel] = []

    def step(model: FFAvatar, example: Example) -> Outcome:
        rng, device = example.rng, model.head.v_template.device
        person = source.one(example)
        sources = min(int(rng.integers(1, recipe.max_sources + 1)), len(person) - 1)
        order = rng.permutation(len(person))
        shown, wanted = order[:sources], order[sources : sources + recipe.targets]
        estimate, params = None, None
        if rng.random() < recipe.label_share and person.params is not None and person.identity is not None:
            if person.unread:  # seen from behind, say: only exact poses tell where they belong
                others = np.concatenate([order[sources:], len(person) + np.arange(person.unread)])
                wanted = rng.choice(others, min(recipe.targets, len(others)), replace=False)
            estimate = Estimate(person.params[torch.from_numpy(shown)].to(device), person.identity.to(device))
            params = person.params[torch.from_numpy(wanted)].to(device)
        seen = person.views(shown).to(device)
        target = person.views(wanted, exact_matte=True).to(device)
        made = few_to_many(
            model, Batch(seen, target), recipe.size, recipe.level,
            estimate=estimate, params=params, rotate_covariance=recipe.rotate_covariance,
        )  # fmt: skip
        goal = Goal.of(target, recipe.size)
        losses = picture_losses(made.rendering, goal, made.made.learned_offsets, recipe, perceptual)
        terms = dict(losses.terms)
        if params is None:
            if recipe.weight_landmark and person.exact_landmarks is not None:
                if not landmarks:
                    landmarks.append(LandmarkModel(model.head).to(device))
                exact = person.exact_landmarks[torch.from_numpy(wanted)].to(device)
                distance = landmark_loss(landmarks[0], made.params, made.made.estimate.identity, exact)
                terms["landmark"] = recipe.weight_landmark * distance
            if recipe.weight_params and person.labelled:
                terms["params"] = recipe.weight_params * _params_loss(model, made, person, wanted, rng)
        total = torch.stack(list(terms.values())).sum()
        drawn = on_goal(made.rendering, goal)
        if critic is not None and example.step >= recipe.adversarial_from:
            fooled, judged = adversarial_losses(critic, drawn, goal.images, int(rng.integers(2**62)))
            terms |= {"adversarial": recipe.weight_adversarial * fooled, "critic": judged}
            total = total + terms["adversarial"] + judged
        pictures = Pictures(seen.on_white(), goal.images, drawn.detach())
        return Outcome(total, {name: float(value.detach()) for name, value in terms.items()}, pictures)

    return step


def _params_loss(
    model: FFAvatar, made: FewToMany, person: Person, wanted: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """The estimator stage's losses for the targets' readings."""
    device = made.params.root.device
    true, true_identity = _labels(person, wanted)
    points = torch.from_numpy(rng.choice(len(model.head.v_template), COMPARED_POINTS, replace=False)).to(device)
    rows = len(wanted)
    found = made.made.estimate.identity.expand(rows, -1)
    return parameter_losses(
        made.params, found, true.to(device), true_identity.to(device).expand(rows, -1), model.head, points
    ).total()
