"""``synthetic-bench`` as cases: drawn people of whom everything is known (``ffavatar.data.synthetic.bench``), and their
scores split by who they are."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.data.synthetic.bench import SOURCES, TARGETS, Labels, read_sheet
from ffavatar.data.synthetic.generate import PARAMETERS
from ffavatar.data.synthetic.store import RESERVED
from ffavatar.errors import InputError
from ffavatar.evaluate import bootstrap
from ffavatar.evaluate.clips import Clip, ClipViews, FrontEndLike, Side, Truth
from ffavatar.evaluate.protocol import ClipResult, Run
from ffavatar.evaluate.report import by_subject, cell
from ffavatar.evaluate.rules import Case, Rules
from ffavatar.types import HeadParams, Views

SPLIT_FIGURES = ("psnr", "ssim", "lpips")


def bench_clips(folder: Path, rules: Rules) -> list[Clip]:
    """A clip for each drawn person of a bench folder; its frames are rows of the person's file.

    The targets are those whose head is turned by at most the rules' ``turn_deg``. Where that is less than 180 they are
    driven, which needs a face: targets in which the front end found none are left out, whatever the method.
    Raises ``InputError`` where the folder is no bench, holds nobody, or holds a damaged file.
    """
    read_sheet(folder)
    clips = []
    for path in sorted(folder.glob("person_*.npz")):
        file = _load(path)
        if int(file["seed"]) not in RESERVED:
            raise InputError(f"{path} is not of synthetic-bench; move it out of {folder}.")
        rows = np.arange(len(SOURCES), len(SOURCES) + TARGETS)
        shown = np.abs(file["yaw_deg"][rows]) <= rules.turn_deg
        if _as_photos(rules):
            shown &= file["detected"][rows]
        targets = tuple(int(row) for row in rows[shown])
        if targets:
            clips.append(Clip(f"person-{int(file['seed'])}", path, tuple(range(len(SOURCES))), targets))
    if not clips:
        raise InputError(f"{folder} holds no people with targets; make them with `ffavatar prepare synthetic-bench`.")
    return clips


def _as_photos(rules: Rules) -> bool:
    return rules.turn_deg < 180


def _load(path: Path) -> dict[str, np.ndarray]:
    needed = {*PARAMETERS, "identity", "images", "mattes", "landmarks", "detected", "detected_landmarks",
              "blendshapes", "detected_matte", "yaw_deg", "seed"}  # fmt: skip
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if not needed <= set(arrays):
            raise ValueError(f"it lacks {', '.join(sorted(needed - set(arrays)))}")
        return arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it and make the bench again.") from error


def bench_views(row: Case, front_end: FrontEndLike, run: Run) -> ClipViews:
    """The pictures of a case and the truth about them.

    Sources carry what the front end reads, masks included; those in which it finds no face are refused. Targets carry
    the exact matte and landmarks where all are shown, and what the front end reads where they are driven.
    Raises ``InputError`` for pictures of another size than the run's, and where no source shows a face.
    """
    file = _load(row.source.file)
    size = file["images"].shape[1]
    if size != run.rules.size:
        raise InputError(f"{row.source.file} holds pictures of {size} px; give --size {size}.")
    sources = [n for n in row.source.source_frames if file["detected"][n]]
    refused = tuple(
        f"{row.id} view {n}: no face was found." for n in row.source.source_frames if not file["detected"][n]
    )
    if not sources:
        raise InputError(f"{row.id}: no source view shows a face; leave the person out with --clips.")
    targets = list(row.target.target_frames)
    read = _as_photos(run.rules)
    key = hashlib.sha256(repr((row.id, sources, targets, size, read)).encode())
    for name in ("images", "mattes", "detected_matte", "landmarks", "detected_landmarks", "identity", *PARAMETERS):
        key.update(np.ascontiguousarray(file[name]).tobytes())
    truth = Truth(torch.from_numpy(file["identity"]).float(), _params(file, sources), _params(file, targets))
    return ClipViews(
        _side(file, sources, True), _side(file, targets, read), None, (size, size), refused, key.hexdigest(),
        truth=truth,
    )  # fmt: skip


def _params(file: dict[str, np.ndarray], rows: list[int]) -> HeadParams:
    return HeadParams(**{name: torch.from_numpy(file[name][rows]).float() for name in PARAMETERS})


def _side(file: dict[str, np.ndarray], rows: list[int], read: bool) -> Side:
    mattes, landmarks = ("detected_matte", "detected_landmarks") if read else ("mattes", "landmarks")
    images = torch.from_numpy(file["images"][rows]).float() / 255
    views = Views(
        images, torch.from_numpy(file[mattes][rows]).float() / 255, torch.ones(images.shape[:3]),
        torch.from_numpy(file[landmarks][rows]).float(), torch.from_numpy(file["blendshapes"][rows]).float(),
    )  # fmt: skip
    return Side(views, tuple(rows), torch.zeros(len(rows), 3))


def split_scores(
    results: Sequence[ClipResult], labels: dict[int, Labels], figures: Sequence[str] = SPLIT_FIGURES
) -> list[dict[str, Any]]:
    """Means by group: a row per label, group, method and number of views, with 95 % bootstrap intervals over people.

    Raises ``InputError`` where a result is not of the bench.
    """
    rows = []
    for label in asdict(next(iter(labels.values()))):
        groups: dict[tuple[str, str, int], list[ClipResult]] = {}
        for result in results:
            name, _, seed = result.clip.rpartition("-")
            if name != "person" or not seed.isdecimal() or int(seed) not in labels:
                raise InputError(f"The result {result.clip} is not of synthetic-bench; give results of its protocols.")
            group = getattr(labels[int(seed)], label)
            groups.setdefault((group, result.method, result.views), []).append(result)
        for (group, method, views), members in sorted(groups.items()):
            row: dict[str, Any] = {"label": label, "group": group, "method": method, "views": views,
                                   "people": len({m.subject for m in members}), "interval": {}}  # fmt: skip
            for figure in figures:
                known = by_subject(members, figure)
                values = [value for person in known.values() for value in person]
                row[figure] = sum(values) / len(values) if values else None
                row["interval"][figure] = bootstrap.interval(known)
            rows.append(row)
    return rows


def split_table(rows: Sequence[dict[str, Any]], figures: Sequence[str] = SPLIT_FIGURES) -> str:
    """Markdown of ``split_scores``."""
    lines = [f"| label | group | people | views | method | {' | '.join(figures)} |"]
    lines.append("| --- " * (5 + len(figures)) + "|")
    for row in rows:
        cells = [cell(name, row[name], row["interval"][name]) for name in figures]
        head = (row["label"], row["group"], str(row["people"]), str(row["views"]), row["method"])
        lines.append(f"| {' | '.join((*head, *cells))} |")
    return "\n".join(lines) + "\n"
