"""``ffavatar train``: the stages of training, each a recipe of ``ffavatar.train.recipe``.

``python -m ffavatar.train`` has the same options; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.options import Device, DeviceOption
from ffavatar.errors import InputError


class Preset(StrEnum):
    """Sizes of a model that can be trained."""

    lite = "lite"
    paper = "paper"
    tiny = "tiny"


DataOption = Annotated[Path, typer.Option(help="Folder of shards (`ffavatar prepare`) or of person_SEED.npz.")]
OutOption = Annotated[
    Path, typer.Option("--output", "--out", "-o", help="Folder of the run: checkpoint, log, weights.")
]
StartOption = Annotated[Path | None, typer.Option("--weights", help="Weights to start from, as far as they fit.")]
PresetOption = Annotated[Preset, typer.Option(help="Size of the model.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Steps instead of the recipe's.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Examples per step on all ranks together.")]
StreamOption = Annotated[bool | None, typer.Option("--stream/--hold", help="Read shards as they go, or hold all.")]
PeopleOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many people.")]
LpipsOption = Annotated[bool, typer.Option(help="Use LPIPS and the discriminator, whose networks are fetched.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other field of the recipe, as NAME=VALUE; repeatable.")
]
VitOption = Annotated[Path | None, typer.Option(help="facebook/dinov2-* checkpoint (.safetensors) for its encoders.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processor threads; all cores by default.")]
SaveOption = Annotated[float, typer.Option("--save-every", min=0, help="Seconds between checkpoints.")]
PicturesOption = Annotated[int, typer.Option(min=0, help="Steps between sheets of pictures; 0: none.")]
BoardOption = Annotated[bool, typer.Option("--tensorboard", help="Write a TensorBoard log too (extra `train`).")]


def _stage(name: str, text: str) -> Callable[..., None]:
    def command(
        data: DataOption,
        output: OutOption,
        weights: StartOption = None,
        preset: PresetOption = Preset.lite,
        steps: StepsOption = None,
        seed: SeedOption = None,
        batch: BatchOption = None,
        stream: StreamOption = None,
        people: PeopleOption = None,
        perceptual: LpipsOption = True,
        fields: SetOption = None,
        vit: VitOption = None,
        threads: ThreadsOption = None,
        device: DeviceOption = Device.auto,
        save_every_s: SaveOption = 120.0,
        pictures_every: PicturesOption = 0,
        tensorboard: BoardOption = False,
    ) -> None:
        import torch

        from ffavatar.train.loop import Pace
        from ffavatar.train.options import chosen_recipe
        from ffavatar.train.run import train

        if device is Device.mps:
            raise InputError("Training knows no mps device; use --device cpu or cuda.")
        given = {"steps": steps, "seed": seed, "batch": batch, "stream": stream}
        recipe = chosen_recipe(name, preset.value, given, perceptual, fields or [])
        if threads is not None:
            torch.set_num_threads(threads)
        pace = Pace(save_every_s, pictures_every=pictures_every, tensorboard=tensorboard)
        made = train(recipe, data, output, weights, people, vit=vit, device=device.value, pace=pace)
        typer.echo(made)

    command.__name__ = name
    command.__doc__ = text
    return command


TRAIN: tuple[Callable[..., None], ...] = (
    _stage("estimator", "The estimator of `lite` from exact labels of synthetic people."),
    _stage("avatar", "The avatar branch alone, by rendering losses, with the estimator frozen."),
    _stage("pretrain", "Stage 1: avatar and estimator together on frames of many people, labelled or not."),
    _stage("finetune", "Stage 2: on many views of each person, with the adversarial loss."),
    _stage("self-supervised", "The estimator alone, from pictures and mattes alone."),
)
