"""Results as a table for people (Markdown) and for programs (JSON), with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import ffavatar
from ffavatar.evaluate.protocol import METRICS, ClipResult
from ffavatar.files import atomic_path

HEADINGS = {
    "psnr": "PSNR dB", "ssim": "SSIM", "lpips": "LPIPS", "identity": "identity", "ceiling": "ceiling",
    "landmarks": "landmarks %",
}  # fmt: skip
DIGITS = {"psnr": 2, "ssim": 3, "lpips": 3, "identity": 3, "ceiling": 3, "landmarks": 2}


def environment() -> dict[str, str]:
    """Date, hardware and versions, as every published figure states them."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ffavatar": ffavatar.__version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def summary(results: Sequence[ClipResult]) -> list[dict[str, Any]]:
    """One row per number of views and method: means over targets, then over clips; landmarks also as frame median."""
    rows = []
    for views, method in dict.fromkeys((result.views, result.method) for result in results):
        group = [result for result in results if (result.views, result.method) == (views, method)]
        row: dict[str, Any] = {"views": views, "method": method, "clips": len(group)}
        for metric in METRICS:
            means = [mean for result in group if (mean := result.mean(metric)) is not None]
            row[metric] = sum(means) / len(means) if means else None
        frames = [value for result in group for value in result.scores.get("landmarks", [])]
        row["landmarks_median"] = statistics.median(frames) if frames else None
        row["seconds"] = sum(result.seconds for result in group) / len(group)
        rows.append(row)
    return rows


def _cell(metric: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS[metric]}f}"


def to_markdown(results: Sequence[ClipResult], about: dict[str, str]) -> str:
    """A table of means, then a table per number of views with a row for each clip and method."""
    size = results[0].size if results else 0
    lines = [
        f"# Self-reenactment at {size} px",
        "",
        "Avatar from the source views only; held-out targets, matted on white, pixels outside the photo excluded. "
        "`driven`: one estimator pass per target; `tracked`: then refined against the target, avatar frozen. "
        "Identity: MobileFaceNet cosine with the target; ceiling: that of the nearest source. "
        "Landmarks: reprojection, % of face width. Means over targets, then over clips.",
        "",
        ", ".join(f"{name} {value}" for name, value in about.items()),
        "",
        "| views | method | clips | " + " | ".join(HEADINGS[m] for m in METRICS) + " | landmarks median | s per clip |",
        "| --- " * (5 + len(METRICS)) + "|",
    ]
    for row in summary(results):
        cells = [_cell(metric, row[metric]) for metric in METRICS] + [_cell("landmarks", row["landmarks_median"])]
        lines.append(
            f"| {row['views']} | {row['method']} | {row['clips']} | {' | '.join(cells)} | {row['seconds']:.1f} |"
        )
    for views in dict.fromkeys(result.views for result in results):
        lines += ["", f"## {views} source view{'s' if views > 1 else ''}", ""]
        lines += ["| clip | method | " + " | ".join(HEADINGS[m] for m in METRICS) + " |"]
        lines += ["| --- " * (2 + len(METRICS)) + "|"]
        for result in (result for result in results if result.views == views):
            cells = [_cell(metric, result.mean(metric)) for metric in METRICS]
            lines.append(f"| {result.clip} | {result.method} | {' | '.join(cells)} |")
    refused = list(dict.fromkeys(reason for result in results for reason in result.refused))
    if refused:
        lines += ["", "## Frames left out", "", *(f"- {reason}" for reason in refused)]
    return "\n".join(lines) + "\n"


def write_report(results: Sequence[ClipResult], folder: Path, name: str, about: dict[str, str]) -> tuple[Path, Path]:
    """Write ``name.json`` and ``name.md`` into ``folder``; returns their paths."""
    places = folder / f"{name}.json", folder / f"{name}.md"
    content = {"about": about, "summary": summary(results), "results": [asdict(result) for result in results]}
    texts = (json.dumps(content, indent=1), to_markdown(results, about))
    for place, text in zip(places, texts):
        with atomic_path(place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return places
