"""Training: the same numbers however often a run is stopped, bad steps skipped, weights that load back."""

import itertools
import json
import math
import signal
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_people import made_person

from ffavatar.errors import InputError
from ffavatar.model import create_model
from ffavatar.model.weights import state_from
from ffavatar.train.loop import MOST_SKIPPED, Pace, Trainer, Work
from ffavatar.train.networks import prepare_model
from ffavatar.train.recipe import SMOKE
from ffavatar.train.sources import InMemory
from ffavatar.train.stages import Outcome, avatar_step, estimator_step

GOLDEN = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
# Relative. Builds of torch, instruction sets and numbers of threads round differently, and Adam enlarges that.
GOLDEN_TOLERANCE = 5e-4

RECIPES = {
    "avatar": replace(SMOKE, level=0, targets=3),
    "estimator": replace(SMOKE, stage="estimator", people=2, views_per_person=2),
}
PEOPLE = (1, 2)


def trainer(recipe, folder, step=None):
    torch.manual_seed(0)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    source = InMemory([made_person(seed) for seed in PEOPLE])
    if step is None:
        step = estimator_step(source, recipe) if recipe.stage == "estimator" else avatar_step(source, recipe, None)
    return Trainer(Work(model, step), recipe, folder, source)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", RECIPES)
def test_the_golden_loss_curve(tmp_path, stage):
    """Ten steps, from seed 0, of untrained weights: what is learned must not change unnoticed."""
    trainer(RECIPES[stage], tmp_path).run()
    assert losses(tmp_path) == pytest.approx(GOLDEN[stage], rel=GOLDEN_TOLERANCE)


class Killed(Exception):
    pass


@pytest.mark.parametrize("stage", RECIPES)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stage):
    recipe = replace(RECIPES[stage], steps=4)
    whole = trainer(recipe, tmp_path / "whole")
    whole.run()

    run = trainer(recipe, tmp_path / "stopped")
    step, calls = run.work._step, []

    def killed_at_the_fourth(model, example):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return step(model, example)

    run.work._step = killed_at_the_fourth
    with pytest.raises(Killed):
        run.run(Pace(save_every=2))
    assert len(losses(tmp_path / "stopped")) == 3  # a step ahead of the checkpoint
    rest = trainer(recipe, tmp_path / "stopped")
    assert rest.resume() and rest.step == 2
    rest.run()
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    for name, value in whole.mean.items():
        assert torch.equal(value, rest.mean[name]), name


def test_training_changes_what_it_should_and_lowers_the_loss(tmp_path):
    recipe = replace(RECIPES["estimator"], steps=25, rate=2e-3)
    trainer(recipe, tmp_path).run()
    curve = losses(tmp_path)
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:5])


def nan_step(model, example):
    return Outcome(sum(p.sum() for p in model.decoder.parameters()) * math.nan, {})


def failing_step(model, example):
    raise torch.linalg.LinAlgError("singular")


@pytest.mark.parametrize("step", [nan_step, failing_step])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, step):
    run = trainer(replace(RECIPES["avatar"], steps=1), tmp_path, step)
    before = [p.detach().clone() for p in run.parameters]
    run.run()
    assert run.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, run.parameters))
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert row["loss"] is None and row["skipped"] == 1
    assert torch.load(run.checkpoint, weights_only=True)["skipped"] == 1


def test_a_run_that_has_diverged_says_so(tmp_path):
    run = trainer(replace(RECIPES["avatar"], steps=1000), tmp_path, nan_step)
    with pytest.raises(InputError, match=r"diverged.*lower rate than 0.0005.*nothing was saved"):
        run.run()
    assert run.step == MOST_SKIPPED - 1
    run.save()
    with pytest.raises(InputError, match=r"checkpoint\.pt is as of step 49"):
        run.advance()


def test_several_examples_are_averaged(tmp_path):
    """The gradient of a step of two examples is the mean of theirs; their random numbers differ."""
    seen = []

    def step(model, example):
        seen.append((example.step, example.slot, int(example.rng.integers(1000))))
        weight = model.former.queries
        return Outcome((weight * (example.slot + 1)).sum(), {"slot": float(example.slot)})

    recipe = replace(RECIPES["avatar"], steps=1, batch=2, clip=1e9)
    run = trainer(recipe, tmp_path, step)
    run.advance()
    assert torch.allclose(run.model.former.queries.grad, torch.full_like(run.model.former.queries, 1.5))
    assert [s[:2] for s in seen] == [(0, 0), (0, 1)] and seen[0][2] != seen[1][2]


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path):
    recipe = RECIPES["estimator"]
    run = trainer(recipe, tmp_path)
    step = run.work._step

    def interrupted(model, example):
        if example.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(model, example)

    run.work._step = interrupted
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert signal.getsignal(signal.SIGINT) is before
    rest = trainer(recipe, tmp_path)
    assert rest.resume() and rest.step == 3
    rest.run()
    assert losses(tmp_path) == pytest.approx(GOLDEN["estimator"], rel=GOLDEN_TOLERANCE)


def test_runs_in_a_side_thread(tmp_path):
    run = trainer(replace(RECIPES["estimator"], steps=1), tmp_path)
    thread = threading.Thread(target=run.run)
    thread.start()
    thread.join()
    assert run.step == 1 and run.checkpoint.exists()


def test_another_recipe_is_not_continued(tmp_path):
    trainer(RECIPES["avatar"], tmp_path).save()
    with pytest.raises(InputError, match="another recipe"):
        trainer(replace(RECIPES["avatar"], seed=1), tmp_path).resume()


def test_a_checkpoint_of_an_older_version_is_continued(tmp_path):
    """Its recipe lacks today's fields, its optimiser their groups' names."""
    run = trainer(RECIPES["estimator"], tmp_path)
    run.advance()
    run.save()
    state = torch.load(run.checkpoint, weights_only=True)
    today = ("batch", "stream", "learn", "weight_adversarial", "fsdp", "queries")
    state["recipe"] = {k: v for k, v in asdict(run.recipe).items() if k not in today}
    state["optimiser"]["param_groups"] = [
        {k: v for k, v in group.items() if k not in ("name", "rate")} for group in state["optimiser"]["param_groups"]
    ]
    del state["critic"], state["source"]
    torch.save(state, run.checkpoint)
    rest = trainer(RECIPES["estimator"], tmp_path)
    assert rest.resume() and rest.step == 1
    rest.advance()
    run.advance()
    assert all(torch.equal(a, b) for a, b in zip(run.parameters, rest.parameters))


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = trainer(RECIPES["avatar"], tmp_path)
    run.checkpoint.write_bytes(b"PK\x03\x04 no checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        run.resume()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("recipe", "lacks 'recipe'"), ("model", "lacks 'model'"), ("mean", "lacks 'mean'"), ("step", "lacks 'step'"),
        ("optimiser", "lacks 'optimiser'"), ("skipped", "lacks 'skipped'"),
        (("model", "former.queries"), "lacks 'former.queries'"),
        (("optimiser", "param_groups"), "lacks 'param_groups'"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_lacks_something_is_named(tmp_path, part, told):
    run = trainer(RECIPES["avatar"], tmp_path)
    run.save()
    state = torch.load(run.checkpoint, weights_only=True)
    if isinstance(part, str):
        del state[part]
    else:
        del state[part[0]][part[1]]
    torch.save(state, run.checkpoint)
    with pytest.raises(InputError, match=told) as caught:
        trainer(RECIPES["avatar"], tmp_path).resume()
    assert str(run.checkpoint) in str(caught.value)


def test_a_checkpoint_of_other_shapes_or_of_none_is_named(tmp_path):
    run = trainer(RECIPES["avatar"], tmp_path)
    run.save()
    state = torch.load(run.checkpoint, weights_only=True)
    for damaged in (
        [1, 2],
        torch.zeros(3),
        {**state, "model": {**state["model"], "former.queries": torch.zeros(2, 7)}},
    ):
        torch.save(damaged, run.checkpoint)
        with pytest.raises(InputError, match="cannot be read"):
            trainer(RECIPES["avatar"], tmp_path).resume()


def test_rates_warm_up_and_fall_along_a_cosine(tmp_path):
    run = trainer(replace(RECIPES["avatar"], steps=100, warmup=10, rate=1.0), tmp_path)
    found = []
    for run.step in range(101):
        found.append(run.rate())
    assert found[0] == pytest.approx(0.1) and found[4] < found[9]
    assert found[50] == pytest.approx(0.505)
    assert found[100] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(found[10:]))


def test_exported_weights_fit_the_model(tmp_path):
    run = trainer(RECIPES["avatar"], tmp_path)
    run.export(tmp_path / "weights.safetensors")
    state = state_from(tmp_path / "weights.safetensors")
    assert state.keys() == run.mean.keys()
    assert all(value.dtype == torch.float16 for value in state.values())


def test_exports_of_the_same_weights_are_the_same_bytes_and_left_alone(tmp_path):
    run, place = trainer(RECIPES["estimator"], tmp_path), tmp_path / "weights.safetensors"
    exports = []
    for _ in range(6):  # the library's order is another each time
        run.export(place)
        exports.append(place.read_bytes())
        place.unlink()
    assert len(set(exports)) == 1
    run.export(place)
    before = place.stat()
    run.export(place)
    after = place.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    run.advance()
    run.export(place)
    assert place.read_bytes() != exports[0]


def test_saving_by_the_clock(tmp_path):
    run = trainer(replace(RECIPES["estimator"], steps=3), tmp_path)
    saved = []
    run.save = lambda source: saved.append(run.step)
    run.work._step = lambda model, example: (
        time.sleep(0.05),
        Outcome(model.estimator.log_sigma * 1.0, {}),
    )[1]
    run.run(Pace(save_every_s=0.01))
    assert saved == [2, 3]  # asked for before a step, done after it


if (
    __name__ == "__main__"
):  # after a change of the model that is meant: PYTHONPATH=tests python tests/train/test_loop.py
    import tempfile

    torch.set_num_threads(1)
    curves = {}
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            trainer(recipe, Path(folder)).run()
            curves[name] = losses(Path(folder))
    (Path(__file__).parent / "golden_losses.json").write_text(json.dumps(curves, indent=1) + "\n")
