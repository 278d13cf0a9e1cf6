"""``python -m ffavatar.train STAGE --data FOLDER --out RUN``: train, or go on with a stopped run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ffavatar.model import create_model
from ffavatar.model.weights import state_from
from ffavatar.train.loop import Trainer
from ffavatar.train.recipe import AVATAR, ESTIMATOR, Recipe
from ffavatar.train.samples import load_people
from ffavatar.train.stages import avatar_step, estimator_step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ffavatar.train", description=__doc__)
    parser.add_argument("stage", choices=["estimator", "avatar"])
    parser.add_argument("--data", type=Path, required=True, help="folder of annotated synthetic people")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, log, weights")
    parser.add_argument("--weights", type=Path, help="weights to start from (an earlier stage's)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--people", type=int, help="use only the first so many people of the folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-perceptual", action="store_true", help="train without LPIPS (nothing is fetched)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = {"estimator": ESTIMATOR, "avatar": AVATAR}[options.stage]
    changes = {name: value for name in ("steps", "seed") if (value := getattr(options, name)) is not None}
    if options.no_perceptual:
        changes["weight_lpips"] = 0.0
    train(replace(recipe, **changes), options.data, options.out, options.weights, options.people)


def train(recipe: Recipe, data: Path, out: Path, weights: Path | None = None, limit: int | None = None) -> Trainer:
    """Run a recipe to its end, resuming what ``out`` holds, and export the weights to ``out/weights.safetensors``."""
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.preset).train()
    if weights is not None:
        model.load_state_dict({name: value.float() for name, value in state_from(weights).items()}, strict=False)
    people = load_people(data, limit)
    print(f"{len(people)} people, {sum(map(len, people))} views", flush=True)
    if recipe.stage == "estimator":
        parameters = list(model.estimator.parameters())
        step = estimator_step(people, recipe)
    else:
        model.estimator.requires_grad_(False)
        parameters = [p for part in (model.encoder, model.former, model.decoder) for p in part.parameters()]
        step = avatar_step(people, recipe, _perceptual() if recipe.weight_lpips else None)
    trainer = Trainer(model, parameters, recipe, out)
    if trainer.resume():
        print(f"going on from step {trainer.step}", flush=True)
    trainer.run(step)
    trainer.export(out / "weights.safetensors")
    return trainer


def _perceptual():
    """LPIPS on AlexNet, gradients to the first argument only."""
    from ffavatar.evaluate.lpips import load_lpips

    net = load_lpips("alex")
    return lambda seen, goal: net.distance(net.features(seen), net.prepare(goal))


if __name__ == "__main__":
    main()
