"""What figures are measured on, and the clocks and memory that are reported beside them."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ffavatar.evaluate.clips import Side
from ffavatar.evaluate.machine import peak_memory
from ffavatar.evaluate.methods import Task, avatar_methods
from ffavatar.types import HeadParams

sys.path.insert(0, str(Path(__file__).parent.parent))
from made_avatar import StandInModel, small_avatar
from made_views import landmark_cloud, made_views


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak, others do not")
def test_peak_memory_is_of_the_block_alone() -> None:
    """An array larger than all before it shows in its block, and is forgotten in the next."""
    with peak_memory() as before:
        pass
    with peak_memory() as during:
        np.ones(40_000_000)  # 320 MB, gone at once
    with peak_memory() as after:
        pass
    assert before.megabytes is not None and during.megabytes is not None and after.megabytes is not None
    assert 300 < during.megabytes - before.megabytes < 400
    assert after.megabytes < before.megabytes + 100


def test_seconds_to_avatar_and_frames_per_second_are_those_of_the_clock(monkeypatch) -> None:
    """0.3 s for an avatar and 0.1 s for a picture: s to avatar 0.3, FPS 10; the estimate is not in it."""
    avatar = small_avatar()
    model = StandInModel(avatar.rig.head)

    def reconstruct(model, source, level):
        time.sleep(0.3)
        return avatar

    def drive(model, avatar, target, own):
        time.sleep(0.2)
        return HeadParams.neutral(len(target), len(avatar.expression_names))

    def animate(avatar, params, size, camera=None):
        time.sleep(0.1 * len(params))
        return avatar.render(params, size)

    for name, function in (("reconstruct", reconstruct), ("drive", drive), ("animate", animate)):
        monkeypatch.setattr(f"ffavatar.evaluate.methods.{name}", function)
    views = made_views([landmark_cloud()] * 2)
    task = Task("a", 1, views[:1], Side(views, (0, 1), torch.zeros(2, 3)), (64, 64))
    methods = avatar_methods(model, "stand-in", 0)  # type: ignore[arg-type]
    driven = next(method for method in methods if method.name == "driven")
    timing = driven.run(task).timing
    assert 0.3 <= timing["avatar_s"] < 3 and 0.5 < timing["fps"] <= 10
    again = driven.run(replace(task, target=Side(views[:1], (0,), torch.zeros(1, 3))))
    assert again.timing["avatar_s"] == timing["avatar_s"]  # of one reconstruction, which the methods share
