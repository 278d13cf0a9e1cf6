"""``python -m ffavatar.train STAGE --data FOLDER --out RUN``: train, or go on with a stopped run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ffavatar.train.loop import Pace
from ffavatar.train.recipe import STAGES, recipe_for
from ffavatar.train.run import train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ffavatar.train", description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--data", type=Path, required=True, help="folder of annotated synthetic people, or of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, log, weights")
    parser.add_argument("--weights", type=Path, help="weights to start from (an earlier stage's)")
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--people", type=int, help="use only the first so many people of the folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--no-perceptual", action="store_true", help="train without LPIPS (nothing is fetched)")
    parser.add_argument("--pictures-every", type=int, default=0, help="write a sheet of pictures every so many steps")
    parser.add_argument("--tensorboard", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {name: value for name in ("steps", "seed") if (value := getattr(options, name)) is not None}
    recipe = replace(recipe_for(options.stage, options.preset), **changes)
    if options.no_perceptual:
        recipe = replace(recipe, weight_lpips=0.0, weight_adversarial=0.0)
    pace = Pace(pictures_every=options.pictures_every, tensorboard=options.tensorboard)
    train(recipe, options.data, options.out, options.weights, options.people, device=options.device, pace=pace)


if __name__ == "__main__":
    main()
