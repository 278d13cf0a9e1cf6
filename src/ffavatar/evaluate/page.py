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
from ffavatar.evaluate.methods import meaning
from ffavatar.evaluate.protocol import ClipResult, Run, result_place
from ffavatar.evaluate.report import cell, definitions, is_timed, present, refusals, scale_of, summary, timing_cells
from ffavatar.evaluate.sheet import GAP_PX
from ffavatar.files import atomic_path

DIFFERENCE_GAIN = 2.0  # darkness per unit of absolute difference: half of the range is black
JPEG_QUALITY = 82
HEADLINE = ("psnr", "identity")  # by which cases are ordered: the first that is there
OF_PICTURES = ("psnr", "ssim", "lpips", "lpips_vgg", "psnr_person", "ssim_person", "lpips_person", "matte_iou")
BASELINES = ("copy", "warp")
ACROSS = 8  # pictures beside each other
MOST_SHOWN = 24  # targets of a case: fifty clips of fifty frames would make a page that no browser opens
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
img{display:block}.under{display:flex;font-size:11px;color:#444}.under span{flex:1;text-align:center}
.legend span{margin-right:1.2rem}
.legend i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
td.best{font-weight:700}small{font-weight:400}
nav a{margin-right:1rem;white-space:nowrap}
.charts{display:flex;flex-wrap:wrap;gap:1rem}.charts table{max-width:100%}
"""


def write_page(results: Sequence[ClipResult], run: Run, place: Path, about: dict[str, str]) -> None:
    """Write the page for results whose strips of pictures lie where ``run`` keeps them, whole or not at all."""
    rules = run.rules
    figures = present(results)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(rules.name)}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(rules.name)} (version {rules.version}) at {rules.size} px</h1>",
        f"<p>{html.escape(rules.what)}</p>",
        f"<p>{scale_of(results)}. Means over targets, then over clips; in small print the 95 % bootstrap interval over "
        "subjects; bold is the best of its number of views.</p>",
        _methods(results),
        f"<p>{html.escape(', '.join(f'{k} {v}' for k, v in about.items()))}</p>",
        _tables(results, figures),
        _clocks(results),
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
    parts.append(_definitions(results, figures))
    with atomic_path(place) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def worst_first(results: Sequence[ClipResult]) -> list[tuple[str, int]]:
    """(case, views) ordered by the headline figure of the first method that is no baseline, the worst first."""
    methods = list(dict.fromkeys(result.method for result in results))
    avatars = [name for name in methods if name not in BASELINES] or methods
    headline = _headline(results)
    order: dict[tuple[str, int], float] = {}
    for result in results:
        order.setdefault((result.clip, result.views), float("-inf"))
        value = result.mean(headline) if headline else None
        if result.method == avatars[0] and value is not None:
            order[result.clip, result.views] = value
    return sorted(order, key=lambda key: order[key])


def _headline(results: Sequence[ClipResult]) -> str | None:
    return next((name for name in HEADLINE if name in present(results)), None)


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


def _methods(results: Sequence[ClipResult]) -> str:
    names = dict.fromkeys(result.method for result in results)
    items = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(meaning(name))}" for name in names)
    return f"<ul>{items}</ul>"


def _heading(figure: str) -> str:
    return html.escape(FIGURES[figure].heading) + ARROWS[FIGURES[figure].better]


def _grouped(figures: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The figures in groups that fit a screen's width each."""
    groups = {"Pictures": [name for name in figures if name in OF_PICTURES]}
    groups["Faces and motion"] = [name for name in figures if name not in OF_PICTURES]
    return [(title, names) for title, names in groups.items() if names]


def _tables(results: Sequence[ClipResult], figures: list[str]) -> str:
    rows = summary(results)
    best = _best(rows, figures)
    return "".join(f"<h2>{title}</h2>{_table(rows, names, best)}" for title, names in _grouped(figures))


def _table(rows: Sequence[dict[str, Any]], figures: list[str], best: dict[tuple[int, str], float]) -> str:
    head = "".join(f"<th>{_heading(name)}" for name in figures)
    lines = []
    for row in rows:
        cells = ""
        for name in figures:
            text = cell(name, row[name])
            mark = " class=best" if text and best.get((row["views"], name)) == float(text) else ""
            cells += f"<td{mark}>{_with_interval(name, row[name], row['interval'][name])}"
        lines.append(f"<tr><td>{row['views']}<td>{html.escape(row['method'])}<td>{row['clips']}{cells}")
    return f"<table><tr><th>views<th>method<th>clips{head}{''.join(lines)}</table>"


def _clocks(results: Sequence[ClipResult]) -> str:
    """A table of its own: seconds, frames and memory would be lost at the right end of the figures."""
    if not is_timed(results):
        return ""
    rows = [row for row in summary(results) if set(TIMING) & set(row["timing"])]
    head = "".join(f"<th>{clock.heading}" for clock in TIMING.values())
    lines = "".join(
        f"<tr><td>{row['views']}<td>{html.escape(row['method'])}<td>{'<td>'.join(timing_cells(row['timing']))}"
        for row in rows
    )
    return f"<h2>Speed and memory</h2><table><tr><th>views<th>method{head}{lines}</table>"


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
            charts.append(_chart(figure, counts, lines))
    legend = "".join(
        f"<span><i style='background:{_colour(number)}'></i>{html.escape(method)}</span>"
        for number, method in enumerate(methods)
    )
    return (
        f"<h2>Over the number of source views</h2><p class=legend>{legend}</p><div class=charts>{''.join(charts)}</div>"
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _chart(figure: str, counts: list[int], lines: dict[str, list[tuple[int, float]]]) -> str:
    """An SVG line chart, 300 x 200 px; colours by the methods' order."""
    values = [value for points in lines.values() for _, value in points]
    low, high = min(values), max(values)
    pad = (high - low) * 0.1 or abs(high) * 0.05 or 1.0
    ends = sorted({low, high})
    low, high = low - pad, high + pad

    def place(views: int, value: float) -> tuple[float, float]:
        across = counts.index(views) / max(1, len(counts) - 1)
        return 50 + 230 * across, 30 + 130 * (high - value) / (high - low)

    marks = [f"<text x=165 y=16 text-anchor=middle font-size=13>{_heading(figure)}</text>"]
    for value in ends:
        y = place(counts[0], value)[1]
        marks.append(f"<path d='M50 {y:.1f}H280' stroke=#ddd />")
        marks.append(f"<text x=42 y={y + 4:.1f} text-anchor=end>{cell(figure, value)}</text>")
    marks += [f"<text x={place(n, low)[0]:.1f} y=176 text-anchor=middle>{n}</text>" for n in counts]
    marks.append("<text x=165 y=192 text-anchor=middle fill=#666>source views</text>")
    for number, points in enumerate(lines.values()):
        spots = [place(*point) for point in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        marks.append(f"<polyline points='{path}' fill=none stroke='{_colour(number)}' stroke-width=2 />")
        marks += [f"<circle cx={x:.1f} cy={y:.1f} r=3 fill='{_colour(number)}' />" for x, y in spots]
    return f"<svg width=300 height=200 font-size=11 font-family=sans-serif>{''.join(marks)}</svg>"


def _case(results: Sequence[ClipResult], run: Run, case: str, views: int, figures: list[str]) -> str:
    rows = [result for result in results if (result.clip, result.views) == (case, views)]

    def tiles_of(name: str) -> list[Image.Image]:
        with Image.open(result_place(run, case, name, views).with_suffix(".png")) as picture:
            return tiles(picture.convert("RGB"))

    targets = tiles_of("targets")
    headline = _headline(results)
    chosen = shown_pictures(rows, headline, len(targets))
    title = f"{html.escape(case)}, {views} source view{'s' if views > 1 else ''}"
    parts = [f"<section id='{_anchor(case, views)}'><h2>{title}</h2>", _case_tables(rows, figures)]
    if len(chosen) < len(targets):
        parts.append(f"<p>The {len(chosen)} worst of {len(targets)} pictures.</p>")
    parts.append(_pictures("sources", tiles_of("sources")))
    parts.append(_pictures("targets", [targets[k] for k in chosen]))
    for result in rows:
        method, shown = html.escape(result.method), tiles_of(result.method)
        values = result.scores.get(headline or "", [])
        words = [cell(headline, values[k]) for k in chosen] if headline and len(values) == len(targets) else []
        caption = f"<b>{method}</b>" + (f", under each picture its {html.escape(FIGURES[headline].heading)}"
                                        if headline and words else "")  # fmt: skip
        parts.append(_pictures(caption, [shown[k] for k in chosen], words))
        if run.rules.kind != "cross":
            parts.append(_pictures(f"difference of {method}", [difference(shown[k], targets[k]) for k in chosen]))
    return "\n".join([*parts, "</section>"])


def _case_tables(rows: Sequence[ClipResult], figures: list[str]) -> str:
    tables = []
    for _, names in _grouped(figures):
        head = "".join(f"<th>{_heading(name)}" for name in names)
        lines = "".join(
            f"<tr><td><td>{html.escape(row.method)}" + "".join(f"<td>{cell(name, row.mean(name))}" for name in names)
            for row in rows
        )
        tables.append(f"<table><tr><th><th>method{head}{lines}</table>")
    return f"<div class=charts>{''.join(tables)}</div>"


def shown_pictures(rows: Sequence[ClipResult], headline: str | None, count: int) -> list[int]:
    """Which of a case's ``count`` targets are shown: all, or the ``MOST_SHOWN`` that are worst for the first method
    that is no baseline, in their own order."""
    judge = next((row for row in rows if row.method not in BASELINES), rows[0])
    values = judge.scores.get(headline or "", [])
    if count <= MOST_SHOWN or len(values) != count:
        return list(range(min(count, MOST_SHOWN)))
    worst = sorted(range(count), key=lambda k: float("-inf") if (value := values[k]) is None else value)
    return sorted(worst[:MOST_SHOWN])


def tiles(row: Image.Image) -> list[Image.Image]:
    """The square pictures of a strip (``sheet.strip``)."""
    step = row.height + GAP_PX
    return [row.crop((left, 0, left + row.height, row.height)) for left in range(0, row.width, step)]


def difference(first: Image.Image, second: Image.Image) -> Image.Image:
    """Mean absolute difference of two pictures of one size over the channels, dark where they differ."""
    a, b = (np.asarray(picture, np.float32) for picture in (first, second))
    apart = np.abs(a - b).mean(-1) * DIFFERENCE_GAIN
    return Image.fromarray((255 - np.clip(apart, 0, 255)).astype(np.uint8))


def _pictures(caption: str, pictures: Sequence[Image.Image], words: Sequence[str] = ()) -> str:
    """Rows of at most ``ACROSS`` pictures, each row one JPEG, with a word under each picture where there are any."""
    parts = [f"<figure><figcaption>{caption}</figcaption>"]
    alt = html.escape(caption, quote=True)
    for start in range(0, len(pictures), ACROSS):
        some = pictures[start : start + ACROSS]
        side = some[0].width
        row = Image.new("RGB", (len(some) * (side + GAP_PX) - GAP_PX, side), "grey")
        for number, picture in enumerate(some):
            row.paste(picture, (number * (side + GAP_PX), 0))
        buffer = io.BytesIO()
        row.save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = base64.b64encode(buffer.getvalue()).decode()
        style = f"width:{100 * len(some) / ACROSS:.1f}%;max-width:{row.width}px"
        parts.append(
            f"<img loading=lazy width={row.width} height={row.height} style='height:auto;{style}' alt='{alt}' "
            f"src='data:image/jpeg;base64,{data}'>"
        )
        if words:
            under = "".join(f"<span>{html.escape(word)}</span>" for word in words[start : start + ACROSS])
            parts.append(f"<div class=under style='{style}'>{under}</div>")
    return "".join([*parts, "</figure>"])


def _definitions(results: Sequence[ClipResult], figures: list[str]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(better)}<td>{html.escape(heading)}<td style='text-align:left;white-space:normal'>"
        f"{html.escape(what)}<td style='text-align:left'>{html.escape(source)}"
        for heading, better, what, source in definitions(figures, is_timed(results))
    )
    return f"<section><h2>Figures</h2><table><tr><th>better<th>figure<th>definition<th>source{rows}</table></section>"
