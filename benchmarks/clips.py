"""Self-reenactment scores on a folder of clips: tables (Markdown, JSON) and a contact sheet per clip.

    python benchmarks/clips.py --data FOLDER --out FOLDER --methods copy warp driven tracked --views 4 1

``FOLDER/index.json`` names the clips and their frames (see ``ffavatar.evaluate.clips``). A broken run goes on where it
stopped. The output shows the people of the clips: keep it where the clips' licence allows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip, read_index
from ffavatar.evaluate.protocol import (
    ClipResult,
    Method,
    Run,
    Scorer,
    avatar_methods,
    baseline_methods,
    evaluate,
    result_place,
)  # fmt: skip
from ffavatar.evaluate.report import environment, to_markdown, write_report
from ffavatar.evaluate.sheet import contact_sheet
from ffavatar.model import create_model, load_model
from ffavatar.photo import FrontEnd
from ffavatar.weights import sha256_of

METHODS = ("copy", "warp", "driven", "tracked")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json, or an index file")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, tables and sheets")
    parser.add_argument("--cache", type=Path, help="folder for head crops (default: OUT/crops)")
    parser.add_argument("--size", type=int, default=512, help="side of the compared pictures in pixels")
    parser.add_argument(
        "--views", type=int, nargs="+", default=[4, 1], help="numbers of source views, the first so many"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--clips", nargs="+", help="ids of clips (default: all)")
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--weights", type=Path, help="safetensors file (default: the preset's shipped weights)")
    parser.add_argument("--untrained", action="store_true", help="the preset without any weights")
    parser.add_argument("--level", type=int, help="subdivisions of the head (default: the preset's)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    options = parser.parse_args(arguments)
    if options.weights and options.untrained:
        parser.error("--weights and --untrained exclude each other")
    if min(options.views) < 1 or options.size < 64:
        parser.error("--views must be at least 1, --size at least 64")
    return options


def choose_clips(options: argparse.Namespace) -> list[Clip]:
    clips = read_index(options.data)
    if not options.clips:
        return clips
    if unknown := set(options.clips) - {clip.id for clip in clips}:
        raise InputError(f"--clips: the index has no {', '.join(sorted(unknown))}.")
    return [clip for clip in clips if clip.id in options.clips]


def choose_methods(options: argparse.Namespace) -> list[Method]:
    methods = baseline_methods()
    if {"driven", "tracked"} & set(options.methods):
        if options.untrained:
            model, revision = create_model(options.preset).eval(), "untrained"
        else:
            model = load_model(options.preset, options.weights)
            revision = sha256_of(options.weights) if options.weights else "shipped"
        methods += avatar_methods(model, f"{options.preset} {revision}", options.level)
    return [method for method in methods if method.name in options.methods]


def write_sheets(run: Run, results: list[ClipResult]) -> None:
    """One sheet per clip and number of views; rows: sources, targets, then the methods in the order of the table."""
    folder = run.out / f"sheets-{run.size}"
    folder.mkdir(parents=True, exist_ok=True)
    for clip, views in dict.fromkeys((result.clip, result.views) for result in results):
        rows: list[tuple[str, Path]] = [
            (name, result_place(run, clip, name, views).with_suffix(".png")) for name in ("sources", "targets")
        ]
        for result in results:
            if (result.clip, result.views) == (clip, views):
                label = f"{result.method}\n{result.mean('psnr'):.2f} dB\nSSIM {result.mean('ssim'):.3f}"
                rows.append((label, result_place(run, clip, result.method, views).with_suffix(".png")))
        contact_sheet(folder / f"{clip}-{views}.png", rows, f"{clip}, {views} source view{'s' if views > 1 else ''}")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    run = Run(options.out, options.cache or options.out / "crops", options.size)
    try:
        clips, methods = choose_clips(options), choose_methods(options)
        options.out.mkdir(parents=True, exist_ok=True)
        results = evaluate(clips, methods, options.views, FrontEnd(), Scorer, run, Console(stderr=True))
        about = environment() | {"preset": options.preset, "weights": _weights_name(options)}
        write_report(results, options.out, f"clips-{options.size}", about)
        write_sheets(run, results)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(to_markdown(results, about))
    return 0


def _weights_name(options: argparse.Namespace) -> str:
    if not {"driven", "tracked"} & set(options.methods):
        return "none"
    if options.weights:
        return f"{options.weights.name} {sha256_of(options.weights)[:16]}"
    return "untrained" if options.untrained else "shipped"


if __name__ == "__main__":
    sys.exit(main())
