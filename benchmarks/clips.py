"""``ffavatar evaluate`` on clips, with a contact sheet per clip. docs/results.md is made by the command itself.

    python benchmarks/clips.py --data FOLDER --out FOLDER --methods copy warp driven tracked --views 4 1

``FOLDER/index.json`` names the clips and their frames (see ``ffavatar.evaluate.clips``). A broken run goes on where it
stopped. The output shows the people of the clips: keep it where the clips' licence allows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ffavatar.errors import InputError
from ffavatar.evaluate.door import OWN_METHODS, Plan, run_plan, write_sheets


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json, or an index file")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, tables and sheets")
    parser.add_argument("--cache", type=Path, help="folder for head crops (default: OUT/crops)")
    parser.add_argument("--size", type=int, default=512, help="side of the compared pictures in pixels")
    parser.add_argument("--views", type=int, nargs="+", default=[4, 1], help="numbers of source views")
    parser.add_argument("--methods", nargs="+", choices=OWN_METHODS[:4], default=list(OWN_METHODS[:4]))
    parser.add_argument("--clips", nargs="+", default=[], help="ids of clips (default: all)")
    parser.add_argument("--preset", default="lite")
    parser.add_argument("--weights", type=Path, help="safetensors file (default: the preset's shipped weights)")
    parser.add_argument("--untrained", action="store_true", help="the preset without any weights")
    parser.add_argument("--level", type=int, help="subdivisions of the head (default: the preset's)")
    parser.add_argument("--figures", default="core", help="core or all")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    if options.weights and options.untrained:
        parser.error("--weights and --untrained exclude each other")
    try:
        plan = Plan(
            options.data, options.out, "self", options.weights, options.preset, options.untrained,
            tuple(options.views), tuple(options.methods), (), tuple(options.clips), options.size, options.figures,
            options.level, options.cache, options.workers,
        )  # fmt: skip
        outcome = run_plan(plan, Console(stderr=True))
        write_sheets(plan, outcome.results)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(outcome.table.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
