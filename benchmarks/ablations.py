"""All ablations of the training recipes on one small budget: ``python benchmarks/ablations.py --data D --steps N``.

Every row trains ``lite`` (or ``--preset``) with its switch thrown: N steps of pretraining, then N of fine-tuning, from
``--weights`` (as far as they fit) or from nothing. Rows that leave a stage out keep the other's N steps, and say so by
their steps. All are scored alike on people they never saw: pictures matted on white at the training size, poses driven
(read by the row's own estimator) and exact. Rows that are there already are not run again; a stopped one goes on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ffavatar.evaluate.metrics import psnr
from ffavatar.files import atomic_path
from ffavatar.model import Estimate, FFAvatar, create_model
from ffavatar.model.weights import state_from
from ffavatar.pipeline import few_to_many
from ffavatar.ssim import ssim_map
from ffavatar.train.losses import Goal
from ffavatar.train.recipe import FINETUNE, PRETRAIN, Recipe, ablations
from ffavatar.train.run import train
from ffavatar.train.samples import FEWEST_VIEWS, Person, load_people
from ffavatar.types import Batch

SOURCES = 4


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    steps: int
    parameters: int
    driven_psnr: float
    driven_ssim: float
    driven_lpips: float | None
    exact_psnr: float
    reconstruct_s: float


@torch.no_grad()
def score(model: FFAvatar, recipe: Recipe, people: list[Person], perceptual) -> tuple[dict[str, float], float]:
    """Means over people of means over targets, and the median seconds of a reconstruction from ``SOURCES`` views."""
    found: dict[str, list[float]] = {}
    seconds = []
    for person in people:
        order = np.arange(len(person))
        sources = min(SOURCES, len(person) - 1)
        source, target = person.views(order[:sources]), person.views(order[sources:], exact_matte=True)
        start = time.perf_counter()
        model.reconstruct(source, recipe.level)
        seconds.append(time.perf_counter() - start)
        goal = Goal.of(target, recipe.size)
        for kind in ("driven", "exact"):
            estimate, params = None, None
            if kind == "exact":
                if person.params is None or person.identity is None:
                    continue
                estimate = Estimate(person.params[torch.arange(sources)], person.identity)
                params = person.params[torch.arange(sources, len(person))]
            drawn = few_to_many(
                model, Batch(source, target), recipe.size, recipe.level, estimate=estimate, params=params,
                rotate_covariance=recipe.rotate_covariance,
            ).rendering.images.clamp(0, 1)  # fmt: skip
            found.setdefault(f"{kind}_psnr", []).append(float(psnr(drawn, goal.images).mean()))
            if kind == "driven":
                found.setdefault("driven_ssim", []).append(float(ssim_map(drawn, goal.images).mean()))
                if perceptual is not None:
                    found.setdefault("driven_lpips", []).append(float(perceptual(drawn, goal.images).mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}, float(np.median(seconds))


def run_row(name: str, chain: tuple[Recipe, ...], options: argparse.Namespace, people: list[Person], perceptual) -> Row:
    """Train one row's recipes one after the other and score the result."""
    weights, folder = options.weights, options.out / name.replace(" ", "-").replace(",", "")
    for number, recipe in enumerate(chain):
        vit = options.vit if recipe.encoder == "dinov2" else None
        weights = train(recipe, options.data, folder / str(number), weights, options.people, vit=vit)
    model = create_model(chain[-1].model_config()).eval()
    model.load_state_dict({key: value.float() for key, value in state_from(weights).items()}, strict=False)
    scores, seconds = score(model, chain[-1], people, perceptual)
    return Row(
        name,
        sum(recipe.steps for recipe in chain),
        sum(p.numel() for p in model.parameters()),
        scores["driven_psnr"],
        scores["driven_ssim"],
        scores.get("driven_lpips"),
        scores.get("exact_psnr", float("nan")),
        seconds,
    )


def table(rows: list[Row]) -> str:
    lines = [
        "| | steps | parameters | driven PSNR / SSIM / LPIPS | exact PSNR | reconstruct, s |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        lpips = "off" if row.driven_lpips is None else f"{row.driven_lpips:.3f}"
        driven = f"{row.driven_psnr:.2f} / {row.driven_ssim:.3f} / {lpips}"
        lines.append(
            f"| {row.name} | {row.steps} | {row.parameters / 1e6:.2f} M | {driven} | {row.exact_psnr:.2f} | "
            f"{row.reconstruct_s:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="people to train on")
    parser.add_argument("--test", type=Path, required=True, help="people to score on, none of them in --data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--steps", type=int, required=True, help="steps of each stage")
    parser.add_argument("--weights", type=Path, help="one checkpoint that all rows start from")
    parser.add_argument(
        "--vit", type=Path, help="facebook/dinov2-small checkpoint; without it the ViT's row is left out"
    )
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--people", type=int, help="train on the first so many")
    parser.add_argument("--test-people", type=int, default=16)
    parser.add_argument("--targets", type=int, help="instead of the recipes' 8 and 16")
    parser.add_argument("--only", nargs="*", help="names of rows, or parts of names")
    parser.add_argument(
        "--no-perceptual", action="store_true", help="no LPIPS, no adversarial loss (nothing is fetched)"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {"preset": options.preset, "steps": options.steps, "size": options.size}
    changes["warmup"] = max(1, min(50, options.steps // 10))
    if options.targets:
        changes["targets"] = options.targets
    if options.no_perceptual:
        changes |= {"weight_lpips": 0.0, "weight_adversarial": 0.0}
    start = min(FINETUNE.adversarial_from, options.steps // 10)
    chains = ablations(replace(PRETRAIN, **changes), replace(FINETUNE, **changes, adversarial_from=start))
    if options.no_perceptual:
        del chains["without adversarial loss"]
    if options.vit is None:
        chains = {name: chain for name, chain in chains.items() if not name.startswith("ViT")}
    if options.only:
        chains = {name: c for name, c in chains.items() if any(word in name for word in options.only)}
    people = [person for person in load_people(options.test, options.test_people) if len(person) >= FEWEST_VIEWS]
    perceptual = None
    if not options.no_perceptual:
        from ffavatar.evaluate.lpips import load_lpips

        perceptual = load_lpips("alex")
    options.out.mkdir(parents=True, exist_ok=True)
    place = options.out / "rows.json"
    rows = [Row(**row) for row in json.loads(place.read_text())] if place.exists() else []
    for name, chain in chains.items():
        if name not in [row.name for row in rows]:
            print(f"== {name}", flush=True)
            rows.append(run_row(name, chain, options, people, perceptual))
            with atomic_path(place) as temporary:
                temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    about = (
        f"{datetime.date.today()}; torch {torch.__version__}, Python {platform.python_version()}; {options.preset}, "
        f"{options.size} px, {options.steps} steps per stage, {len(people)} people never trained on, {SOURCES} sources"
    )
    text = f"{about}.\n\n{table(rows)}\n"
    with atomic_path(options.out / "ablations.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
