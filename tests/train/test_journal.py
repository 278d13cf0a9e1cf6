"""The log of a run: rows of an earlier try are dropped, numbers that are not are null, pictures can be looked at."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ffavatar.errors import InputError
from ffavatar.train.journal import TILE_PX, Journal
from ffavatar.train.stages import Pictures


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def write(folder, steps, start=0, **options):
    journal = Journal(folder, start, **options)
    for step in steps:
        journal.row({"step": step, "loss": float(step)})
    return journal


def test_rows_after_the_checkpoint_and_torn_ones_are_dropped(tmp_path):
    journal = write(tmp_path, [1, 2, 3, 4])
    journal.flush(disk=True)
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    write(tmp_path, [3, 4], start=2).close()
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.row({"step": 1, "loss": math.nan, "norm": math.inf, "l1": 0.5})
    journal.close()
    assert rows(tmp_path) == [{"step": 1, "loss": None, "norm": None, "l1": 0.5}]


def colour(count, value):
    return torch.full((count, 8, 8, 3), value)


def test_pictures_stand_in_three_rows(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.pictures(7, Pictures(colour(1, 0.0), colour(3, 0.2), colour(3, 0.6)))
    journal.close()
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "step_0000007.png"))
    assert sheet.shape == (3 * TILE_PX, 3 * TILE_PX, 3)
    middle = sheet[TILE_PX // 2 :: TILE_PX, TILE_PX // 2 :: TILE_PX, 0]
    assert middle.tolist() == [[0, 255, 255], [51] * 3, [153] * 3]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = write(tmp_path, [1, 2, 3], tensorboard=True)
    journal.pictures(3, Pictures(colour(1, 0.0), colour(1, 0.2), colour(1, 0.6)))
    journal.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert board.Images("pictures")[0].step == 3


def test_without_tensorboard_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"ffavatar\[train\]"):
        Journal(tmp_path, 0, tensorboard=True)
