"""Where a training step's time goes, and its speed beside a pure-torch rasteriser: ``python benchmarks/training.py``.

Profiles steps of a recipe (torch.profiler) on synthetic people made on the spot, or on ``--data``. Time of an operation
in the backward pass is given to the part of the forward pass that it belongs to. What no operation accounts for is
Python (and the profiler's own cost). Then whole steps are timed with the native rasteriser and with the torch one, in
turns in one run. ``--write`` puts the tables into benchmarks/results/training.md.
"""

from __future__ import annotations

import argparse
import bisect
import datetime
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

import ffavatar.animate
import ffavatar.model.decoder
import ffavatar.model.outgrowth
import ffavatar.train.losses
import ffavatar.train.stages
from ffavatar.data.people import synthetic_sample
from ffavatar.data.synthetic import synthetic_person
from ffavatar.model import create_model
from ffavatar.render import native_backend
from ffavatar.train.loop import Trainer, Work
from ffavatar.train.networks import prepare_model
from ffavatar.train.recipe import AVATAR, FINETUNE, PRETRAIN, Recipe
from ffavatar.train.samples import Person, load_people, person_of_sample
from ffavatar.train.sources import InMemory
from ffavatar.train.stages import avatar_step

RECIPES = {"avatar": AVATAR, "pretrain": PRETRAIN, "finetune": FINETUNE}
PARTS = ("rasteriser", "LPIPS", "SSIM", "discriminator", "encoder", "query-former", "estimator", "optimiser")
RASTERISES = (ffavatar.animate, ffavatar.model.decoder, ffavatar.model.outgrowth)


def made_people(count: int, size: int) -> list[Person]:
    """Procedural people whose exact landmarks stand in for a landmarker's."""
    people = []
    for seed in range(count):
        person = synthetic_person(seed, shots=20, size=size)
        seen = {"detected": np.ones(20, bool), "detected_matte": person.mattes, "blendshapes": np.zeros((20, 52))}
        sample = synthetic_sample(person)
        found = person_of_sample(replace(sample, arrays={**sample.arrays, **seen, "landmarks": person.landmarks}))
        assert found is not None
        people.append(found)
    return people


def trainer(recipe: Recipe, people: list[Person], folder: Path) -> Trainer:
    torch.manual_seed(0)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    perceptual, critic = None, None
    if recipe.weight_lpips:
        from ffavatar.evaluate.lpips import load_lpips

        net = load_lpips(recipe.perceptual)

        def perceptual(seen, goal):
            with record_function("part:LPIPS"):
                return net.distance(net.features(seen), net.prepare(goal))

    if recipe.weight_adversarial:
        from ffavatar.train.discriminator import load_critic

        critic = load_critic(recipe.critic)
    source = InMemory(people)
    run = Trainer(Work(model, avatar_step(source, recipe, perceptual, critic), critic), recipe, folder, source)
    for name, module in (("encoder", model.encoder), ("query-former", model.former), ("estimator", model.estimator)):
        module.forward = named(name, module.forward)  # type: ignore[method-assign]
    run.optimiser.step = named("optimiser", run.optimiser.step)  # type: ignore[method-assign]
    return run


def named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        with record_function(f"part:{part}"):
            return function(*arguments, **options)

    return run


@contextmanager
def parts_named(backend: str = "auto") -> Iterator[None]:
    """Marks the functions of interest, and lets all rasterising go through ``backend``."""
    places = [(module, "rasterize", "rasteriser") for module in RASTERISES]
    places += [
        (ffavatar.animate, "attach", "rasteriser"), (ffavatar.train.losses, "ssim_map", "SSIM"),
        (ffavatar.train.stages, "adversarial_losses", "discriminator"),
    ]  # fmt: skip
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    can_attach = ffavatar.animate.can_attach
    for module, name, part in places:
        function = getattr(module, name)
        if name == "rasterize" and backend != "auto":

            def function(*arguments, _old=function, **options):
                return _old(*arguments, **{**options, "backend": backend})

        setattr(module, name, named(part, function))
    if backend == "torch":
        ffavatar.animate.can_attach = lambda *inputs: False
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)
        ffavatar.animate.can_attach = can_attach


def shares(run: Trainer, steps: int) -> tuple[dict[str, float], float]:
    """Milliseconds per step of each part, and of the whole, on the thread that works (forward and backward)."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(steps):
            run.advance()
        whole = time.perf_counter() - start
    events = [event for event in profiler.events() if event.time_range.elapsed_us() > 0]
    spans: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
    for event in events:
        if event.name.startswith("part:"):
            spans[event.thread].append((event.time_range.start, event.time_range.end, event.name[5:]))
    for rows in spans.values():
        rows.sort()

    def part_at(thread: int, moment: float) -> str | None:
        """The outermost marked part around a moment; parts within parts are rare and short."""
        rows = spans.get(thread, [])
        for row in range(bisect.bisect_right(rows, (moment, float("inf"), "")) - 1, -1, -1):
            if rows[row][0] <= moment < rows[row][1]:
                return rows[row][2]
            if moment - rows[row][1] > 5e6:
                break
        return None

    owner: dict[tuple[int, int], str] = {}
    for event in events:  # of the forward pass: which part made which node of the graph
        if event.sequence_nr >= 0 and not event.name.startswith("autograd::") and event.scope == 0:
            part = part_at(event.thread, event.time_range.start)
            if part is not None:
                owner.setdefault((event.thread, event.sequence_nr), part)
    found: dict[str, float] = defaultdict(float)
    covered = 0.0
    for event in events:
        if event.cpu_parent is not None and not (event.cpu_parent.name.startswith("part:")):
            continue
        if event.name.startswith(("part:", "Optimizer.", "ProfilerStep")):
            continue
        took = event.time_range.elapsed_us()
        part = part_at(event.thread, event.time_range.start)
        if event.name.startswith("autograd::engine"):
            part = owner.get((event.fwd_thread or event.thread, event.sequence_nr))
            if part is None and any(word in event.name for word in ("Rasterize", "Attach", "_Native")):
                part = "rasteriser"
        found[part or "geometry, sampling, other losses"] += took
        covered += took
    per_step = {name: value / 1e3 / steps for name, value in found.items()}
    per_step["Python and the rest"] = max(0.0, whole * 1e3 - covered / 1e3) / steps
    return per_step, whole * 1e3 / steps


def times(run: Trainer, steps: int) -> list[tuple[float, float]]:
    """Seconds of the clock and of the processor, all threads, of each step: the latter hardly depend on other work."""
    found = []
    for _ in range(steps):
        wall, processor_s = time.perf_counter(), time.process_time()
        run.advance()
        found.append((time.perf_counter() - wall, time.process_time() - processor_s))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", choices=list(RECIPES), default="avatar")
    parser.add_argument("--data", type=Path, help="people instead of those made on the spot")
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="how often the two rasterisers take turns")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = replace(RECIPES[options.recipe], size=options.size)
    people = load_people(options.data, options.people) if options.data else made_people(options.people, options.size)
    with TemporaryDirectory() as folder:
        with parts_named():
            run = trainer(recipe, people, Path(folder) / "profile")
            times(run, 1)
            parts, whole = shares(run, options.steps)
        rows = sorted(parts.items(), key=lambda item: -item[1])
        table = ["| part, forward and backward | ms per step | share |", "| --- | ---: | ---: |"]
        table += [f"| {name} | {value:.0f} | {100 * value / whole:.0f} % |" for name, value in rows]
        table.append(f"| whole step, profiled | {whole:.0f} | |")
        print("\n".join(table), flush=True)
        found: dict[str, list[tuple[float, float]]] = {"native": [], "torch": []}
        runs = {}
        for backend in found:
            with parts_named(backend):
                runs[backend] = trainer(recipe, people, Path(folder) / backend)
        for _ in range(options.rounds):
            for backend, seconds in found.items():
                with parts_named(backend):
                    seconds += times(runs[backend], 1 if backend == "torch" else 2)
    wall, used = ({b: statistics.median(s[k] for s in seconds) for b, seconds in found.items()} for k in (0, 1))
    speed = [
        "| rasteriser | steps/s | seconds per step | processor seconds per step |", "| --- | ---: | ---: | ---: |",
        *(f"| {b} | {1 / wall[b]:.3f} | {wall[b]:.2f} | {used[b]:.2f} |" for b in found),
        f"| torch / native | | {wall['torch'] / wall['native']:.1f} | {used['torch'] / used['native']:.1f} |",
    ]  # fmt: skip
    print("\n".join(speed))
    if options.write:
        about = (
            f"{datetime.date.today()}; {processor()}, {load()}, {options.threads} threads, "
            f"{native_backend.instruction_set()} kernels; Python {platform.python_version()}, torch "
            f"{torch.__version__}; recipe `{options.recipe}` of {recipe.preset}: {recipe.targets} targets, 1 to "
            f"{recipe.max_sources} sources, {recipe.size} px, level {recipe.level}, LPIPS "
            f"{recipe.perceptual if recipe.weight_lpips else 'off'}."
        )
        text = "\n".join([about, "", *table, "", *speed])
        place = Path(__file__).parent / "results" / "training.md"
        place.write_text(f"# A training step\n\n`python benchmarks/training.py --write`\n\n{text}\n")


def load() -> str:
    """How busy the machine is."""
    return f"load average {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else "load unknown"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


if __name__ == "__main__":
    main()
