"""One training run from its recipe: data and weights in, checkpoints, log and weights out."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path

import torch

from ffavatar.errors import InputError
from ffavatar.model import create_model
from ffavatar.model.encoder import DinoEncoder
from ffavatar.model.estimator import DinoEstimator
from ffavatar.model.weights import state_from
from ffavatar.train.discriminator import load_critic
from ffavatar.train.loop import Pace, Trainer, Work
from ffavatar.train.losses import Perceptual
from ffavatar.train.networks import prepare_model
from ffavatar.train.origin import Origin
from ffavatar.train.ranks import Ranks, joined
from ffavatar.train.recipe import Recipe
from ffavatar.train.samples import load_people
from ffavatar.train.sources import InMemory, Source, Streamed
from ffavatar.train.stages import avatar_step, estimator_step


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    weights: Path | None = None,
    limit: int | None = None,
    *,
    vit: Path | None = None,
    device: str = "auto",
    pace: Pace | None = None,
) -> Path:
    """Run a recipe to its end, resuming what ``out`` holds, and export the weights to ``out/weights.safetensors``.

    ``data``: a folder of ``person_SEED.npz`` or of shards; ``weights``: an earlier stage's, as far as they fit;
    ``limit``: only the first so many people; ``vit``: a ``facebook/dinov2-*`` checkpoint for a model with DINOv2. Under
    torchrun, all ranks do one run together. Returns the weights file.

    Raises:
        InputError: data, weights or the checkpoint in ``out`` do not fit the recipe, the checkpoint was begun with
            others, or the run has diverged.
        KeyboardInterrupt: it was stopped, after saving.
    """
    with joined(device) as ranks:
        source = _source(recipe, data, limit, ranks)
        with closing(source) if isinstance(source, Streamed) else nullcontext():
            work = _work(recipe, source, weights, vit, ranks)
            trainer = Trainer(work, recipe, out, source, ranks, Origin.of(data, limit, weights, vit))
            if trainer.resume() and ranks.first:
                print(f"going on from step {trainer.step}", flush=True)
            trainer.run(pace)
            trainer.export(out / "weights.safetensors")
    return out / "weights.safetensors"


def _source(recipe: Recipe, data: Path, limit: int | None, ranks: Ranks) -> Source:
    if recipe.stream:
        if limit is not None:
            raise InputError("A stream cannot be cut to its first people; leave --people out, or --stream.")
        return Streamed(data, recipe.seed, ranks.slots(recipe.batch), recipe.batch)
    people = load_people(data, limit)
    if ranks.first:
        print(f"{len(people)} people, {sum(map(len, people))} views", flush=True)
    return InMemory(people)


def _work(recipe: Recipe, source: Source, weights: Path | None, vit: Path | None, ranks: Ranks) -> Work:
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model_config())
    if weights is not None:
        _take(model, weights)
    if vit is not None:
        parts = (model.encoder, model.estimator)
        holders = [part.vit for part in parts if isinstance(part, DinoEncoder | DinoEstimator)]
        if not holders:
            raise InputError(f"The preset {recipe.preset} has no DINOv2 to load {vit} into; leave --vit out.")
        for holder in holders:
            holder.load_checkpoint(vit)
    prepare_model(model, recipe, ranks.device)
    if recipe.stage == "estimator":
        return Work(model, estimator_step(source, recipe))
    critic = load_critic(recipe.critic, ranks.device) if recipe.weight_adversarial else None
    perceptual = _perceptual(recipe, ranks) if recipe.weight_lpips else None
    return Work(model, avatar_step(source, recipe, perceptual, critic), critic)


def _take(model: torch.nn.Module, weights: Path) -> None:
    """Load what a weights file has for this model; a part of another shape (an ablation's) stays untrained.

    Raises:
        InputError: nothing of it fits.
    """
    own = model.state_dict()
    given = {name: value.float() for name, value in state_from(weights).items()}
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError(f"Nothing in the weights {weights} fits this model; give weights of its preset.")
    if len(fitting) < len(given):
        print(f"{len(given) - len(fitting)} of the {len(given)} tensors in {weights} do not fit and are left out")
    model.load_state_dict(fitting, strict=False)


def _perceptual(recipe: Recipe, ranks: Ranks) -> Perceptual:
    """LPIPS, gradients to the first argument only."""
    from ffavatar.evaluate.lpips import load_lpips

    net = load_lpips(recipe.perceptual, ranks.device)
    return lambda seen, goal: net.distance(net.features(seen), net.prepare(goal))
