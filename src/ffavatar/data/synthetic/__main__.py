"""``python -m ffavatar.data.synthetic --people 300 --shots 14 -o people``: make synthetic people."""

from __future__ import annotations

import argparse
import sys

import torch

from ffavatar.data.synthetic.store import PeoplePlan, write_people
from ffavatar.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ffavatar.data.synthetic", description="Make synthetic people.")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--shots", type=int, default=14, help="pictures per person")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the first person's seed; the others follow")
    parser.add_argument("--assets", help="folder of MakeHuman artwork; without it surfaces are procedural")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--detect", action="store_true", help="add what the photo front end sees in the pictures")
    parser.add_argument("-o", "--out", required=True, help="output folder; people that it holds are kept")
    options = parser.parse_args(arguments)

    def report(done: int, total: int, seconds: float) -> None:
        left = seconds / done * (total - done)
        end = "\r" if sys.stderr.isatty() and done < total else "\n"
        print(f"{done} of {total} people, {seconds:.0f} s, {left:.0f} s left", end=end, file=sys.stderr, flush=True)

    torch.set_num_threads(1)  # pictures are small: processes, not threads, use the cores
    plan = PeoplePlan(options.people, options.shots, options.size, options.seed, options.assets)
    try:
        made = write_people(plan, options.out, options.workers, options.detect, report)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{made} people made in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
