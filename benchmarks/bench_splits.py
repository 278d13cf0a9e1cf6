"""Scores of synthetic-bench split by skin tone, age, sex, hair, glasses and beard.

    python benchmarks/bench_splits.py BENCH RESULTS.json [--views 4] [--markdown FILE]

BENCH: the folder that `ffavatar prepare synthetic-bench` made (its bench.json holds the labels). RESULTS: what
`ffavatar evaluate BENCH --protocol synthetic-bench` (or synthetic-bench-driven) wrote. In brackets the 95 % bootstrap
interval over people; a group of one person has none. Groups overlap in other labels: a difference is no cause.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ffavatar.data.synthetic.bench import read_sheet
from ffavatar.evaluate.bench import split_scores, split_table
from ffavatar.evaluate.report import read_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--views", type=int, help="only this number of source views")
    parser.add_argument("--markdown", type=Path, help="write the table here instead of printing it")
    options = parser.parse_args()
    labels, _ = read_sheet(options.bench)
    _, results = read_results(options.results)
    chosen = [result for result in results if options.views in (None, result.views)]
    table = split_table(split_scores(chosen, labels))
    if options.markdown is None:
        print(table, end="")
    else:
        options.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
