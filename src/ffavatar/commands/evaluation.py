"""``ffavatar evaluate``: what does it score? And is one model better than another?"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ffavatar.errors import InputError


class Figures(StrEnum):
    """Which figures are measured."""

    core = "core"
    all = "all"


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with index.json of clips; novel: of shards; bench: of bench.json.", metavar="DATA"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results, tables and the page.")] = Path(
        "out/evaluation"
    ),
    weights: Annotated[Path | None, typer.Option(help="Model weights (.safetensors); the shipped ones.")] = None,
    protocol: Annotated[
        str,
        typer.Option(help="self, cross, novel, vfhq, synthetic-bench, synthetic-bench-driven, or a .json file."),
    ] = "self",
    views: Annotated[str | None, typer.Option(help="Numbers of source views, such as 1,2,4.")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Among copy,warp,true,driven,tracked,placed; personalized,grey,unprojected, each also with _tracked."
        ),
    ] = None,
    personalize: Annotated[
        bool, typer.Option("--personalize", help="Also score the avatars personalized on their sources; takes longer.")
    ] = False,
    images: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: another method's rendered pictures; can be given again.")
    ] = None,
    clips: Annotated[str | None, typer.Option(help="Only these clips, by their ids: ID,ID.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the compared pictures in pixels.")] = None,
    figures: Annotated[Figures, typer.Option(help="core: quicker, fewer figures.")] = Figures.all,
    level: Annotated[int | None, typer.Option(min=0, max=2, help="Subdivisions of the head; the preset's.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; scores do not depend on it.")] = 1,
    export: Annotated[
        Path | None, typer.Option(help="Only write the clips' crops here, for methods that run elsewhere.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Compare two results (.json) instead of evaluating.")
    ] = None,
) -> None:
    """Score a model on clips with held-out frames, beside baselines and other methods' pictures. Resumes."""
    if compare is not None:
        from ffavatar.evaluate.compare import compare as side_by_side

        typer.echo(side_by_side(*compare), nl=False)
        return
    if data is None:
        raise InputError("No data was given; give a folder with an index.json, or two results to --compare.")
    counts = _counts(views)
    from rich.console import Console

    from ffavatar.evaluate.door import Plan, export_plan, run_plan

    plan = Plan(
        data, output, protocol, weights, views=counts, methods=_names(methods),
        images=tuple(_named_folder(text) for text in images or []), clips=_names(clips) or (), size=size,
        figures=figures.value, level=level, workers=workers, personalize=personalize,
    )  # fmt: skip
    if export is not None:
        typer.echo(f"{export}: {export_plan(plan, export)} crops at {plan.rules().size} px")
        return
    outcome = run_plan(plan, Console(stderr=True))
    typer.echo(outcome.table.read_text(encoding="utf-8"))
    typer.echo(f"{outcome.page}: pictures and curves; {outcome.json}: every figure")


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _counts(text: str | None) -> tuple[int, ...] | None:
    names = _names(text)
    if names is None:
        return None
    if not names or not all(name.isdecimal() for name in names):
        raise InputError(f"--views {text!r} is no list of numbers of source views; give such as 1,2,4.")
    return tuple(int(name) for name in names)


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name.replace("-", "").replace("_", "").isalnum() or not folder:
        raise InputError(f"--images {text!r} is not NAME=FOLDER with a name of letters, digits, - and _.")
    return name, Path(folder)
