"""``python -m ffavatar.train STAGE --data FOLDER -o RUN``: train, or go on with a stopped run.

The options of ``ffavatar train``, without the packages of a command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ffavatar.errors import InputError
from ffavatar.model.config import PRESETS
from ffavatar.train.loop import Pace
from ffavatar.train.options import chosen_recipe
from ffavatar.train.recipe import STAGES
from ffavatar.train.run import train


def _at_least(least: int, kind: type = int) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        if not (value := kind(text)) >= least:
            raise ValueError
        return value

    number.__name__ = f"number ({least} or more)"  # argparse names it in its message
    return number


def options_parser() -> argparse.ArgumentParser:
    """The options, under the names and with the defaults that ``ffavatar train`` gives them."""
    parser = argparse.ArgumentParser(prog="python -m ffavatar.train", description=(__doc__ or "").partition("\n")[0])
    one, none = _at_least(1), _at_least(0)
    switch = argparse.BooleanOptionalAction
    add = parser.add_argument
    add("stage", choices=list(STAGES))
    add("--data", type=Path, required=True, help="folder of shards, or of annotated person_SEED.npz")
    add("--output", "--out", "-o", type=Path, required=True, help="folder of the run: checkpoint, log, weights")
    add("--weights", type=Path, help="weights to start from, as far as they fit")
    add("--preset", default="lite", choices=list(PRESETS), help="size of the model")
    add("--steps", type=one, help="steps instead of the recipe's")
    add("--seed", type=none, help="seed of everything random")
    add("--batch", type=one, help="examples per step on all ranks together")
    add("--stream", action="store_const", const=True, help="read shards as they go")
    add("--hold", dest="stream", action="store_const", const=False, help="hold all in memory")
    add("--people", type=one, help="only the first so many people")
    add("--perceptual", action=switch, default=True, help="use LPIPS and the discriminator, which are fetched")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any other field of the recipe; repeatable")
    add("--vit", type=Path, help="facebook/dinov2-* checkpoint (.safetensors) for its encoders")
    add("--threads", type=one, help="processor threads; all cores by default")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--save-every", type=_at_least(0, float), default=120.0, help="seconds between checkpoints")
    add("--pictures-every", type=none, default=0, help="steps between sheets of pictures; 0: none")
    add("--tensorboard", action="store_true", help="write a TensorBoard log too (extra `train`)")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run a stage; the exit code is that of ``ffavatar train``: 0, 2 (bad input or usage) or 130 (stopped, saved)."""
    options = options_parser().parse_args(words)
    try:
        given = {name: getattr(options, name) for name in ("steps", "seed", "batch", "stream")}
        recipe = chosen_recipe(options.stage, options.preset, given, options.perceptual, options.set)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        pace = Pace(options.save_every, pictures_every=options.pictures_every, tensorboard=options.tensorboard)
        made = train(
            recipe, options.data, options.output, options.weights, options.people, vit=options.vit,
            device=options.device, pace=pace,
        )  # fmt: skip
    except InputError as error:
        print(f"ffavatar.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ffavatar.train: interrupted; nothing was left half-written.", file=sys.stderr)
        return 130
    print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
