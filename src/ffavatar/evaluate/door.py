"""The front door of evaluation: a data folder and a few choices in, tables and a page out. The command line and
``benchmarks/clips.py`` call this and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.bench import bench_clips, bench_views
from ffavatar.evaluate.clips import Clip, read_index
from ffavatar.evaluate.machine import environment
from ffavatar.evaluate.methods import (
    PERSONAL_STARTS,
    Method,
    avatar_methods,
    baseline_methods,
    export_crops,
    images_method,
    personal_methods,
)
from ffavatar.evaluate.novel import novel_clips, novel_views
from ffavatar.evaluate.page import write_page
from ffavatar.evaluate.protocol import ClipResult, Run, case_views, evaluate, evaluate_parallel, result_place
from ffavatar.evaluate.report import write_report
from ffavatar.evaluate.rules import Case, Rules, cases, check_rules, read_rules
from ffavatar.evaluate.scorer import SCORERS, Scorer, load_scorer
from ffavatar.evaluate.sheet import contact_sheet
from ffavatar.evaluate.vfhq import vfhq_clips
from ffavatar.model import create_model, load_model
from ffavatar.personal import PersonalRecipe
from ffavatar.photo import FrontEnd
from ffavatar.weights import sha256_of

PERSONAL_METHODS = tuple(name + way for name in PERSONAL_STARTS for way in ("", "_tracked"))
OWN_METHODS = ("copy", "warp", "true", "driven", "tracked", "placed", *PERSONAL_METHODS)


@dataclass(frozen=True)
class Plan:
    """Everything that decides an evaluation. ``None`` takes what the protocol says."""

    data: Path
    out: Path
    protocol: str = "self"
    weights: Path | None = None  # the preset's shipped ones
    preset: str | None = None  # that of the weights file, or lite
    untrained: bool = False
    views: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    images: tuple[tuple[str, Path], ...] = ()  # other methods: name, folder of rendered pictures
    clips: tuple[str, ...] = ()  # all
    size: int | None = None
    figures: str = "all"
    level: int | None = None
    cache: Path | None = None  # OUT/crops
    workers: int = 1
    personalize: bool = False  # beside driven also personalized, beside tracked also personalized_tracked

    def rules(self) -> Rules:
        """The protocol with what this plan changes. Raises ``InputError`` for what cannot be followed."""
        rules = read_rules(self.protocol)
        changes = {
            name: value for name in ("views", "methods", "size") if (value := getattr(self, name)) is not None
        }  # fmt: skip
        if self.personalize:
            asked = changes.get("methods", rules.methods)
            beside = zip(("driven", "tracked"), PERSONAL_METHODS)
            more = [name for plain, name in beside if plain in asked and name not in asked]
            if not more and not set(PERSONAL_METHODS) & set(asked):
                raise InputError(f"Nothing of {', '.join(asked)} can be personalized; add driven or tracked.")
            changes["methods"] = (*asked, *more)
        rules = check_rules(replace(rules, **changes))
        if unknown := set(rules.methods) - set(OWN_METHODS):
            raise InputError(
                f"There is no method {', '.join(sorted(unknown))}; choose among {', '.join(OWN_METHODS)}, and give the "
                "pictures of other methods as NAME=FOLDER."
            )
        if self.figures not in SCORERS:
            raise InputError(f"There is no set of figures {self.figures!r}; choose {' or '.join(SCORERS)}.")
        if len({name for name, _ in self.images} | set(OWN_METHODS)) < len(self.images) + len(OWN_METHODS):
            raise InputError("Each method whose pictures are given needs a name of its own.")
        return rules

    def run(self) -> Run:
        return Run(self.out, self.cache or self.out / "crops", self.rules(), self.figures)


def chosen_clips(plan: Plan) -> list[Clip]:
    """The clips of the index that the plan names, in the index's order.

    Raises ``InputError`` for an id that the index does not have.
    """
    rules = plan.rules()
    if rules.kind == "bench":
        clips = bench_clips(plan.data, rules)
    elif rules.kind == "novel":
        clips = novel_clips(plan.data)
    elif rules.frames:
        clips = vfhq_clips(plan.data, rules.frames)
    else:
        clips = read_index(plan.data)
    if not plan.clips:
        return clips
    if unknown := set(plan.clips) - {clip.id for clip in clips}:
        raise InputError(f"{plan.data} has no clip {', '.join(sorted(unknown))}; choose among those of its index.")
    return [clip for clip in clips if clip.id in plan.clips]


def chosen_methods(plan: Plan, rules: Rules) -> list[Method]:
    """The protocol's methods, then those given by their pictures."""
    methods = baseline_methods()
    if {"true", "driven", "tracked", "placed", *PERSONAL_METHODS} & set(rules.methods):
        if plan.untrained:
            model = create_model(plan.preset or "lite").eval()
        else:
            model = load_model(plan.preset, plan.weights)
        revision = f"{model.config.preset} {weights_name(plan)}"
        recipe = PersonalRecipe(size=rules.size)
        methods += avatar_methods(model, revision, plan.level)
        methods += personal_methods(model, revision, plan.level, recipe=recipe)
    return [method for method in methods if method.name in rules.methods] + [
        images_method(name, folder) for name, folder in plan.images
    ]


def weights_name(plan: Plan) -> str:
    """What a table says of the weights."""
    if plan.weights:
        if not plan.weights.is_file():
            raise InputError(f"The weights file {plan.weights} does not exist; give a safetensors file of weights.")
        return f"{plan.weights.name} {sha256_of(plan.weights)[:16]}"
    return "untrained" if plan.untrained else "shipped"


@dataclass(frozen=True)
class Outcome:
    """Results and the files that show them."""

    results: list[ClipResult]
    table: Path
    json: Path
    page: Path


def run_plan(plan: Plan, console: Console | None = None) -> Outcome:
    """Evaluate, or go on with an evaluation that was stopped, and write ``OUT/PROTOCOL-SIZE.{json,md,html}``.

    Raises ``InputError`` for data, weights or choices that cannot be used; found before long work where possible.
    """
    rules = plan.rules()
    rows = cases(chosen_clips(plan), rules)
    about = environment() | {"preset": plan.preset or "lite", "weights": weights_name(plan), "figures": plan.figures}
    plan.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums then do not depend on the machine's cores; processes use them (``workers``)
    about["threads"] = "1"

    def whole() -> list[ClipResult]:
        return _evaluated(plan, rows, console)

    results = evaluate_parallel(_Share(plan), whole, min(plan.workers, len(rows)))
    name = f"{rules.name}-{rules.size}"
    json_place, table = write_report(results, plan.out, name, rules, about)
    page = plan.out / f"{name}.html"
    write_page(results, plan.run(), page, about)
    return Outcome(results, table, json_place, page)


def _evaluated(plan: Plan, rows: Sequence[Case], console: Console | None) -> list[ClipResult]:
    rules = plan.rules()

    def scorer() -> Scorer:
        return load_scorer(plan.figures, ruler=rules.kind == "cross")

    views_of = {"novel": novel_views, "bench": bench_views}.get(rules.kind)
    return evaluate(rows, chosen_methods(plan, rules), FrontEnd(), scorer, plan.run(), console, views_of)


@dataclass(frozen=True)
class _Share:
    """One process' part of a plan; a class, because processes need to be handed it."""

    plan: Plan

    def __call__(self, part: tuple[int, int]) -> None:
        import io

        number, workers = part
        rows = cases(chosen_clips(self.plan), self.plan.rules())[number::workers]
        _evaluated(self.plan, rows, Console(file=io.StringIO()))


def write_sheets(plan: Plan, results: Sequence[ClipResult]) -> None:
    """One contact sheet (PNG) per case and number of views; rows: sources, targets, then the methods."""
    run = plan.run()
    folder = plan.out / f"sheets-{run.rules.name}-{run.rules.size}"
    folder.mkdir(parents=True, exist_ok=True)
    for case, views in dict.fromkeys((result.clip, result.views) for result in results):
        rows: list[tuple[str, Path]] = [
            (name, result_place(run, case, name, views).with_suffix(".png")) for name in ("sources", "targets")
        ]
        for result in results:
            if (result.clip, result.views) == (case, views):
                value = result.mean("psnr")
                label = result.method if value is None else f"{result.method}\n{value:.2f} dB"
                rows.append((label, result_place(run, case, result.method, views).with_suffix(".png")))
        contact_sheet(folder / f"{case}-{views}.png", rows, f"{case}, {views} source view{'s' if views > 1 else ''}")


def export_plan(plan: Plan, folder: Path) -> int:
    """The clips' crops as pictures for methods that run elsewhere (``methods.export_crops``); returns how many."""
    run, front_end = plan.run(), FrontEnd()
    return sum(
        export_crops(clip.id, case_views(Case(clip.id, clip, clip), front_end, run), folder)
        for clip in chosen_clips(plan)
    )
