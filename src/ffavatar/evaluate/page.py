"""One HTML file that shows an evaluation: the table, curves over the number of views, and every case's pictures with
their differences, the worst case first. It opens anywhere: pictures are inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ffavatar.evaluate.figures import FIGURES, TIMING
from ffavatar.evaluate.protocol import ClipResult, Run, result_place
from ffavatar.evaluate.report import cell, present, refusals, summary
from ffavatar.files import atomic_path

DIFFERENCE_GAIN = 2.0  # darkness per unit of absolute difference: half of the range is black
JPEG_QUALITY = 82
HEADLINE = ("psnr", "identity")  # by which cases are ordered: the first that is there
COLOURS = ("#1b6ca8", "#c8553d", "#3d8b5a", "#7a4fa3", "#b8860b", "#4a4a4a", "#c2185b", "#00838f")
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1900px;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.25rem .35rem;text-align:right;white-space:nowrap}
th{font-weight:600}
td:nth-child(2),th:nth-child(2){text-align:left}
small{color:#666;display:block;font-size:11px}
section{margin-top:2.5rem;border-top:2px solid #222;padding-top:.5rem}
figure{margin:.4rem 0}figcaption{font-size:13px;color:#444}
img{max-width:100%;display:block}td.best{font-weight:700}small{font-weight:400}
nav a{margin-right:1rem;white-space:nowrap}
.charts{display:flex;flex-wrap:wrap;gap:1rem}
"""


def write_page(results: Sequence[ClipResult], run: Run, place: Path, about: dict[str, str]) -> None:
    """Write the page for results whose strips of pictures lie where ``run`` keeps them, whole or not at all."""
    rules = run.rules
    figures = present(results)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(rules.name)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(rules.name)} (version {rules.version}) at {rules.size} px</h1>",
        f"<p>{html.escape(rules.what)} In small print the 95 % bootstrap interval over subjects; "
        "bold is the best of its number of views.</p>",
        f"<p>{html.escape(', '.join(f'{k} {v}' for k, v in about.items()))}</p>",
        _table(results, figures),
        _charts(results, figures),
        "<p>Below: every case, the worst first."
        + ("" if rules.kind == "cross" else " Differences: white is none, black is half of the range or more.")
        + "</p>",
    ]
    order = worst_first(results)
    parts.append(_links(order))
    parts += [_case(results, run, case, views, figures) for case, views in order]
    refused = refusals(results)
    if refused:
        items = "".join(f"<li>{html.escape(reason)}" for reason in refused)
        parts.append(f"<section><h2>Frames left out</h2><ul>{items}</ul></section>")
    parts.append(_definitions(figures))
    with atomic_path(place) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def worst_first(results: Sequence[ClipResult]) -> list[tuple[str, int]]:
    """(case, views) ordered by the headline figure of the first method that is no baseline, the worst first."""
    methods = list(dict.fromkeys(result.method for result in results))
    avatars = [name for name in methods if name not in ("copy", "warp")] or methods
    names = [name for name in HEADLINE if name in present(results)]
    order: dict[tuple[str, int], float] = {}
    for result in results:
        order.setdefault((result.clip, result.views), float("-inf"))
        value = result.mean(names[0]) if names else None
        if result.method == avatars[0] and value is not None:
            order[result.clip, result.views] = value
    return sorted(order, key=lambda key: order[key])


def _links(order: Sequence[tuple[str, int]]) -> str:
    links = "".join(f"<a href='#{_anchor(*key)}'>{html.escape(key[0])}, {key[1]}</a> " for key in order)
    return f"<nav>Case and number of views: {links}</nav>"


def _anchor(case: str, views: int) -> str:
    return html.escape(f"case-{case}-{views}", quote=True)


def _best(rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> dict[tuple[int, str], float]:
    """(views, figure) -> the best value as the table shows it, where methods were compared over as many clips."""
    best = {}
    for views in {row["views"] for row in rows}:
        group = [row for row in rows if row["views"] == views]
        if len(group) < 2 or len({row["clips"] for row in group}) > 1:
            continue
        for name in figures:
            known = [float(cell(name, row[name])) for row in group if row[name] is not None]
            if len(set(known)) > 1 and FIGURES[name].better != "neither":
                best[views, name] = max(known) if FIGURES[name].better == "higher" else min(known)
    return best


ARROWS = {"higher": " &uarr;", "lower": " &darr;", "neither": ""}


def _table(results: Sequence[ClipResult], figures: list[str]) -> str:
    rows = summary(results)
    best = _best(rows, figures)
    head = "".join(f"<th>{html.escape(FIGURES[name].heading)}{ARROWS[FIGURES[name].better]}" for name in figures)
    head += "".join(f"<th>{title}" for title in TIMING.values())
    lines = []
    for row in rows:
        cells = ""
        for name in figures:
            text = cell(name, row[name])
            mark = " class=best" if text and best.get((row["views"], name)) == float(text) else ""
            cells += f"<td{mark}>{_with_interval(name, row[name], row['interval'][name])}"
        cells += "".join(f"<td>{row['timing'][name]:.4g}" if name in row["timing"] else "<td>" for name in TIMING)
        lines.append(f"<tr><td>{row['views']}<td>{html.escape(row['method'])}<td>{row['clips']}{cells}")
    return f"<table><tr><th>views<th>method<th>clips{head}{''.join(lines)}</table>"


def _with_interval(figure: str, value: float | None, interval: tuple[float, float] | None) -> str:
    text = cell(figure, value)
    if not text or interval is None:
        return text
    return f"{text}<small>{cell(figure, interval[0])} to {cell(figure, interval[1])}</small>"


def _charts(results: Sequence[ClipResult], figures: list[str]) -> str:
    counts = sorted({result.views for result in results})
    if len(counts) < 2:
        return ""
    rows = summary(results)
    methods = list(dict.fromkeys(result.method for result in results))
    charts = []
    for figure in figures:
        lines = {
            method: [(row["views"], row[figure]) for row in rows if row["method"] == method and row[figure] is not None]
            for method in methods
        }
        if any(lines.values()):
            charts.append(_chart(FIGURES[figure].heading, counts, lines))
    return f"<h2>Over the number of source views</h2><div class=charts>{''.join(charts)}</div>"


def _chart(title: str, counts: list[int], lines: dict[str, list[tuple[int, float]]]) -> str:
    """An SVG line chart, 300 x 220 px."""
    values = [value for points in lines.values() for _, value in points]
    low, high = min(values), max(values)
    pad = (high - low) * 0.1 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad

    def place(views: int, value: float) -> tuple[float, float]:
        across = counts.index(views) / max(1, len(counts) - 1)
        return 50 + 230 * across, 30 + 130 * (high - value) / (high - low)

    marks = [f"<text x=150 y=16 text-anchor=middle font-size=13>{html.escape(title)}</text>"]
    for value in sorted({low + pad, high - pad}):
        y = place(counts[0], value)[1]
        marks.append(f"<path d='M50 {y:.1f}H280' stroke=#ddd /><text x=42 y={y + 4:.1f} text-anchor=end>{value:.3g}")
        marks.append("</text>")
    marks += [f"<text x={place(n, low)[0]:.1f} y=176 text-anchor=middle>{n}</text>" for n in counts]
    for number, (method, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [place(*point) for point in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        marks.append(f"<polyline points='{path}' fill=none stroke='{colour}' stroke-width=2 />")
        marks += [f"<circle cx={x:.1f} cy={y:.1f} r=3 fill='{colour}' />" for x, y in spots]
        x, y = 50 + 80 * (number % 3), 194 + 14 * (number // 3)
        marks.append(f"<circle cx={x} cy={y - 4} r=4 fill='{colour}' /><text x={x + 8} y={y}>{html.escape(method)}")
        marks.append("</text>")
    height = 200 + 14 * ((len(lines) - 1) // 3)
    return f"<svg width=300 height={height} font-size=11 font-family=sans-serif>{''.join(marks)}</svg>"


def _case(results: Sequence[ClipResult], run: Run, case: str, views: int, figures: list[str]) -> str:
    rows = [result for result in results if (result.clip, result.views) == (case, views)]

    def strip_of(name: str) -> Image.Image:
        with Image.open(result_place(run, case, name, views).with_suffix(".png")) as picture:
            return picture.convert("RGB")

    targets = strip_of("targets")
    title = f"{html.escape(case)}, {views} source view{'s' if views > 1 else ''}"
    shown = [
        f"<section id='{_anchor(case, views)}'><h2>{title}</h2>",
        _figure("sources", strip_of("sources")),
        _figure("targets", targets),
    ]
    for result in rows:
        picture = strip_of(result.method)
        known = [f"{FIGURES[name].heading} {cell(name, value)}" for name in figures
                 if (value := result.mean(name)) is not None]  # fmt: skip
        shown.append(_figure(f"<b>{html.escape(result.method)}</b>: {html.escape(', '.join(known))}", picture))
        if run.rules.kind != "cross":
            shown.append(_figure(f"difference of {html.escape(result.method)}", difference(picture, targets)))
    return "\n".join([*shown, "</section>"])


def difference(first: Image.Image, second: Image.Image) -> Image.Image:
    """Mean absolute difference of two pictures of one size over the channels, dark where they differ."""
    a, b = (np.asarray(picture, np.float32) for picture in (first, second))
    apart = np.abs(a - b).mean(-1) * DIFFERENCE_GAIN
    return Image.fromarray((255 - np.clip(apart, 0, 255)).astype(np.uint8))


def _figure(caption: str, picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"width={picture.width} height={picture.height} style='height:auto'"
    return (
        f"<figure><figcaption>{caption}</figcaption><img loading=lazy {size} alt='{html.escape(caption, quote=True)}' "
        f"src='data:image/jpeg;base64,{data}'></figure>"
    )


def _definitions(figures: list[str]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(f.better)}<td>{html.escape(f.heading)}<td style='text-align:left;white-space:normal'>"
        f"{html.escape(f.definition)}<td style='text-align:left'>{html.escape(f.source)}"
        for f in (FIGURES[name] for name in figures)
    )
    return f"<section><h2>Figures</h2><table><tr><th>better<th>figure<th>definition<th>source{rows}</table></section>"
