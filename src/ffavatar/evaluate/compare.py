"""Two evaluations side by side, clip by clip: which differences are more than chance?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ffavatar.errors import InputError
from ffavatar.evaluate import bootstrap
from ffavatar.evaluate.figures import FIGURES, METRICS
from ffavatar.evaluate.protocol import ClipResult
from ffavatar.evaluate.report import cell, read_results

MADE_BY = ("date", "weights", "figures", "ffavatar", "torch")


def differences(first: list[ClipResult], second: list[ClipResult]) -> list[dict[str, Any]]:
    """A row per method, number of views and figure that both have: means over the common clips, second minus first and
    its paired bootstrap interval over subjects."""
    index = {(r.clip, r.method, r.views): r for r in second}
    groups: dict[tuple[str, int], list[tuple[ClipResult, ClipResult]]] = {}
    for result in first:
        other = index.get((result.clip, result.method, result.views))
        if other is not None:
            groups.setdefault((result.method, result.views), []).append((result, other))
    rows = []
    for (method, views), pairs in groups.items():
        for figure in METRICS:
            values: dict[str, list[float]] = {}
            firsts, seconds = [], []
            for a, b in pairs:
                x, y = a.mean(figure), b.mean(figure)
                if x is not None and y is not None:
                    firsts.append(x)
                    seconds.append(y)
                    values.setdefault(a.subject, []).append(y - x)
            if firsts:
                mean_a, mean_b = sum(firsts) / len(firsts), sum(seconds) / len(seconds)
                rows.append(
                    {
                        "method": method, "views": views, "figure": figure, "clips": len(firsts), "first": mean_a,
                        "second": mean_b, "difference": mean_b - mean_a, "interval": bootstrap.interval(values),
                    }
                )  # fmt: skip
    return rows


def verdict(figure: str, difference: float, interval: tuple[float, float] | None) -> str:
    """``better`` or ``worse`` where the interval leaves out zero, ``equal`` where nothing differs, else ``unclear``."""
    if difference == 0 and (interval is None or interval == (0.0, 0.0)):
        return "equal"
    better = FIGURES[figure].better
    if interval is None or interval[0] <= 0 <= interval[1] or better == "neither":
        return "unclear"
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _made_by(place: Path) -> str:
    """Weights, date and versions of a results file, whose names are often the same."""
    about = json.loads(place.read_text(encoding="utf-8")).get("about") or {}
    return ", ".join([f"{place}", *(f"{name} {about[name]}" for name in MADE_BY if name in about)])


def compare(first: Path, second: Path) -> str:
    """A Markdown table of ``second`` against ``first``.

    Raises ``InputError`` for files that are no results, of different protocols or picture sizes, or without a clip,
    method and number of views in common.
    """
    (rules_a, a), (rules_b, b) = read_results(first), read_results(second)
    for name in ("name", "version", "size"):
        if rules_a.get(name) != rules_b.get(name):
            raise InputError(
                f"{first} and {second} were made by different protocols ({name} {rules_a.get(name)} and "
                f"{rules_b.get(name)}); their figures cannot be compared."
            )
    rows = differences(a, b)
    if not rows:
        raise InputError(f"{first} and {second} have no clip with the same method and number of views in common.")
    lines = [
        f"# {second} against {first}",
        "",
        *(f"- {name}: {_made_by(place)}" for name, place in (("first", first), ("second", second))),
        "",
        "Clips that both have; difference = second - first, 95 % paired bootstrap interval over subjects.",
        "",
        "| views | method | figure | clips | first | second | difference | verdict |",
        "| --- " * 8 + "|",
    ]
    for row in rows:
        figure = row["figure"]
        change = cell(figure, row["difference"], row["interval"])
        lines.append(
            f"| {row['views']} | {row['method']} | {FIGURES[figure].heading} | {row['clips']} | "
            f"{cell(figure, row['first'])} | {cell(figure, row['second'])} | {change} | "
            f"{verdict(figure, row['difference'], row['interval'])} |"
        )
    return "\n".join(lines) + "\n"
