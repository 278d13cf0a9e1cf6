"""Training: the same numbers however often a run is stopped, bad steps skipped, weights that load back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ffavatar.data.synthetic import synthetic_person
from ffavatar.model import create_model
from ffavatar.model.weights import state_from
from ffavatar.train.loop import Trainer
from ffavatar.train.recipe import SMOKE
from ffavatar.train.samples import Person, _outlines
from ffavatar.train.stages import avatar_step, estimator_step


@pytest.fixture(scope="module")
def people():
    found = []
    for seed in (1, 2):
        made = synthetic_person(seed, shots=5, size=64, supersample=1)
        mattes = np.asarray(made.mattes)
        found.append(
            Person(
                np.asarray(made.images),
                mattes,
                mattes,
                np.asarray(made.landmarks, np.float32),
                np.zeros((5, 52), np.float32),
                _outlines(np.asarray(made.images), mattes),
                made.params,
                torch.as_tensor(made.identity).float(),
            )
        )
    return found


RECIPES = {
    "avatar": replace(SMOKE, steps=4, level=0),
    "estimator": replace(SMOKE, stage="estimator", steps=4, people=2, views_per_person=2),
}


def trainer(recipe, folder):
    torch.manual_seed(0)
    model = create_model(recipe.preset).train()
    if recipe.stage == "estimator":
        return Trainer(model, list(model.estimator.parameters()), recipe, folder)
    model.estimator.requires_grad_(False)
    return Trainer(model, [p for p in model.parameters() if p.requires_grad], recipe, folder)


def step_of(recipe, people):
    return estimator_step(people, recipe) if recipe.stage == "estimator" else avatar_step(people, recipe, None)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


class Killed(Exception):
    pass


@pytest.mark.parametrize("stage", RECIPES)
def test_a_stopped_run_goes_on_bit_for_bit(people, tmp_path, stage):
    recipe = RECIPES[stage]
    whole = trainer(recipe, tmp_path / "whole")
    whole.run(step_of(recipe, people))

    step, calls = step_of(recipe, people), []

    def killed_at_the_third(model, rng):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return step(model, rng)

    with pytest.raises(Killed):
        trainer(recipe, tmp_path / "stopped").run(killed_at_the_third)
    rest = trainer(recipe, tmp_path / "stopped")
    assert rest.resume() and rest.step == 2
    rest.run(step_of(recipe, people))
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    for name, value in whole.mean.items():
        assert torch.equal(value, rest.mean[name]), name


def test_training_changes_what_it_should_and_lowers_the_loss(people, tmp_path):
    recipe = replace(RECIPES["estimator"], steps=25, rate=2e-3)
    run = trainer(recipe, tmp_path)
    run.run(step_of(recipe, people))
    curve = losses(tmp_path)
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:5])


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(people, tmp_path):
    recipe = replace(RECIPES["avatar"], steps=1)
    run = trainer(recipe, tmp_path)
    before = [p.detach().clone() for p in run.parameters]
    run.run(lambda model, rng: (sum(p.sum() for p in run.parameters) * float("nan"), {}))
    assert run.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, run.parameters))


def test_another_recipe_is_not_continued(people, tmp_path):
    trainer(RECIPES["avatar"], tmp_path).save()
    with pytest.raises(ValueError, match="recipe"):
        trainer(replace(RECIPES["avatar"], seed=1), tmp_path).resume()


def test_exported_weights_fit_the_model(tmp_path):
    run = trainer(RECIPES["avatar"], tmp_path)
    run.export(tmp_path / "weights.safetensors")
    state = state_from(tmp_path / "weights.safetensors")
    assert state.keys() == run.mean.keys()
    assert all(value.dtype == torch.float16 for value in state.values())
