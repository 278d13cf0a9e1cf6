"""Results as a table for people (Markdown) and for programs (JSON), with what they were measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffavatar.errors import InputError
from ffavatar.evaluate import bootstrap
from ffavatar.evaluate.figures import FIGURES, METRICS, TIMING
from ffavatar.evaluate.methods import meaning
from ffavatar.evaluate.protocol import ClipResult
from ffavatar.evaluate.rules import Rules
from ffavatar.files import atomic_path

SCHEMA = 1


def present(results: Sequence[ClipResult]) -> list[str]:
    """The figures that any of the results has, in the table's order."""
    return [name for name in METRICS if any(result.mean(name) is not None for result in results)]


def by_subject(results: Sequence[ClipResult], figure: str) -> dict[str, list[float]]:
    """Per subject the means of its clips."""
    values: dict[str, list[float]] = {}
    for result in results:
        if (value := result.mean(figure)) is not None:
            values.setdefault(result.subject, []).append(value)
    return values


def summary(results: Sequence[ClipResult]) -> list[dict[str, Any]]:
    """One row per number of views and method: means over targets, then over clips, and their bootstrap intervals."""
    rows = []
    for views, method in dict.fromkeys((result.views, result.method) for result in results):
        group = [result for result in results if (result.views, result.method) == (views, method)]
        row: dict[str, Any] = {"views": views, "method": method, "clips": len(group), "interval": {}}
        for figure in present(results):
            known = by_subject(group, figure)
            flat = [value for clips in known.values() for value in clips]
            row[figure] = sum(flat) / len(flat) if flat else None
            row["interval"][figure] = bootstrap.interval(known)
        row["timing"] = {
            name: sum(values) / len(values)
            for name in (*TIMING, "seconds")
            if (values := [result.timing[name] for result in group if name in result.timing])
        }
        rows.append(row)
    return rows


def cell(figure: str, value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A value as the tables show it, with its interval in brackets where there is one."""
    if value is None:
        return ""
    digits = FIGURES[figure].digits
    text = f"{value:.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def timing_cells(timing: Mapping[str, float]) -> list[str]:
    """The clocks of a row in the order of ``TIMING``, empty where a method has none."""
    return [f"{timing[name]:.{clock.digits}f}" if name in timing else "" for name, clock in TIMING.items()]


def scale_of(results: Sequence[ClipResult]) -> str:
    """How much was looked at, in words: people, clips and held-out pictures."""
    targets: dict[str, int] = {}
    for result in results:
        pictures = [len(values) for name, values in result.scores.items() if name != "jitter"]
        targets[result.clip] = max([targets.get(result.clip, 0), *pictures])
    counts = (len({r.subject for r in results}), len(targets), sum(targets.values()))
    words = (("person", "people"), ("clip", "clips"), ("held-out picture", "held-out pictures"))
    return ", ".join(f"{count} {word[count != 1]}" for count, word in zip(counts, words))


def definitions(figures: Sequence[str], timed: bool) -> list[tuple[str, str, str, str]]:
    """(heading, better, definition, source) of each figure, and of the clocks where they were read."""
    rows: list[tuple[str, str, str, str]] = [
        (f.heading, f.better, f.definition, f.source) for f in (FIGURES[name] for name in figures)
    ]
    if timed:
        rows += [(c.heading, "", c.definition, "docs/evaluation.md") for c in TIMING.values()]
    return rows


def is_timed(results: Sequence[ClipResult]) -> bool:
    return any(name in result.timing for result in results for name in TIMING)


def to_markdown(results: Sequence[ClipResult], rules: Rules, about: dict[str, str]) -> str:
    """A table of means, then a table per number of views with a row for each case and method."""
    figures = present(results)
    headings = " | ".join(FIGURES[name].heading for name in figures)
    lines = [
        f"# {rules.name} (version {rules.version}) at {rules.size} px",
        "",
        f"{rules.what} {scale_of(results)}. Means over targets, then over clips; in brackets the 95 % bootstrap "
        "interval over subjects.",
        "",
        *(f"- `{name}`: {meaning(name)}" for name in dict.fromkeys(result.method for result in results)),
        "",
        ", ".join(f"{name} {value}" for name, value in about.items()),
        "",
        f"| views | method | clips | {headings} | {' | '.join(c.heading for c in TIMING.values())} |",
        "| --- " * (3 + len(figures) + len(TIMING)) + "|",
    ]
    for row in summary(results):
        cells = [cell(name, row[name], row["interval"][name]) for name in figures] + timing_cells(row["timing"])
        lines.append(f"| {row['views']} | {row['method']} | {row['clips']} | {' | '.join(cells)} |")
    for views in dict.fromkeys(result.views for result in results):
        lines += ["", f"## {views} source view{'s' if views > 1 else ''}", "", f"| clip | method | {headings} |"]
        lines.append("| --- " * (2 + len(figures)) + "|")
        for result in (result for result in results if result.views == views):
            cells = [cell(name, result.mean(name)) for name in figures]
            lines.append(f"| {result.clip} | {result.method} | {' | '.join(cells)} |")
    refused = refusals(results)
    if refused:
        lines += ["", "## Frames left out", "", *(f"- {reason}" for reason in refused)]
    lines += ["", "## Figures", "", "| figure | better | definition | source |", "| --- | --- | --- | --- |"]
    lines += [f"| {heading} | {better} | {what} | {source} |" for heading, better, what, source in
              definitions(figures, is_timed(results))]  # fmt: skip
    return "\n".join(lines) + "\n"


def refusals(results: Sequence[ClipResult]) -> list[str]:
    """Each reason for which a frame was left out, once."""
    return list(dict.fromkeys(reason for result in results for reason in result.refused))


def to_json(results: Sequence[ClipResult], rules: Rules, about: dict[str, str]) -> str:
    """Everything, as ``read_results`` reads it. Only ``about`` and what is named ``timing`` differ between runs."""
    content = {
        "schema": SCHEMA,
        "protocol": asdict(rules),
        "about": about,
        "figures": {name: asdict(FIGURES[name]) | {"high": str(FIGURES[name].high)} for name in present(results)},
        "summary": summary(results),
        "results": [asdict(result) for result in results],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def read_results(path: Path) -> tuple[dict[str, Any], list[ClipResult]]:
    """The protocol and the results of a JSON file.

    Raises ``InputError`` where it is not one of ours.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, {SCHEMA} is read")
        rows = [ClipResult(**{**row, "refused": tuple(row["refused"])}) for row in content["results"]]
        return content["protocol"], rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not hold results of an evaluation ({error!r}); give a results.json.") from error


def write_report(
    results: Sequence[ClipResult], folder: Path, name: str, rules: Rules, about: dict[str, str]
) -> tuple[Path, Path]:
    """Write ``name.json`` and ``name.md`` into ``folder``; returns their paths."""
    places = folder / f"{name}.json", folder / f"{name}.md"
    texts = to_json(results, rules, about), to_markdown(results, rules, about)
    for place, text in zip(places, texts):
        with atomic_path(place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return places
