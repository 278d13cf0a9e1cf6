"""What a run tells: a JSON line per step, TensorBoard if wanted, pictures now and then."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.train.stages import Pictures

TILE_PX, LARGEST_ROW = 128, 16


class Journal:
    """Written by the first rank alone. ``step`` is where the run goes on: later rows of an earlier try are dropped, so
    that the log of a killed run is the uninterrupted one's.

    Raises:
        InputError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False):
        self.folder = folder
        self._board = _open_board(folder / "tensorboard", step) if tensorboard else None
        place = folder / "log.jsonl"
        if place.exists():
            kept = [line for line in place.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            with atomic_path(place) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._log: IO[str] = place.open("a", encoding="utf-8")

    def row(self, row: dict[str, Any]) -> None:
        """One step's numbers; those that are not finite become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._log.write(json.dumps(finite, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in finite.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, row["step"])

    def pictures(self, step: int, pictures: Pictures) -> None:
        """Sources, targets and what was drawn of them, as ``pictures/step_N.png``."""
        grid = picture_grid(pictures)
        (self.folder / "pictures").mkdir(exist_ok=True)
        with atomic_path(self.folder / "pictures" / f"step_{step:07d}.png") as temporary:
            Image.fromarray(grid).save(temporary)
        if self._board is not None:
            self._board.add_image("pictures", grid, step, dataformats="HWC")

    def flush(self, disk: bool = False) -> None:
        """``disk``: before a checkpoint, which must not be ahead of the log even if the machine stops."""
        self._log.flush()
        if disk:
            os.fsync(self._log.fileno())

    def close(self) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()


def picture_grid(pictures: Pictures) -> np.ndarray:
    """Three rows of tiles on white: sources, targets, drawn. (3 * 128, columns * 128, 3) uint8."""
    rows = []
    for images in (pictures.sources, pictures.goals, pictures.drawn):
        small = F.interpolate(
            images[:LARGEST_ROW].detach().cpu().float().permute(0, 3, 1, 2), (TILE_PX, TILE_PX), mode="bilinear",
            align_corners=False, antialias=True,
        )  # fmt: skip
        rows.append(torch.cat(list(small), -1))
    width = max(row.shape[-1] for row in rows)
    grid: Tensor = torch.cat([F.pad(row, (0, width - row.shape[-1]), value=1.0) for row in rows], 1)
    return (grid.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _step_of(line: str) -> float:
    """Step of a log line; infinite for one that was torn off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            'TensorBoard is not installed; `pip install "ffavatar[train]"`, or leave --tensorboard out.'
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
