"""The shape checks of the tests are at work, one wrong call for each module; at run time nothing needs the checker."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from ffavatar.animate import Rig
from ffavatar.evaluate.metrics import landmark_error
from ffavatar.geometry import axis_angle_to_quat, project
from ffavatar.head import load_head
from ffavatar.photo.front_end import PhotoResult
from ffavatar.photo.landmarks import LandmarkResult
from ffavatar.photo.report import PhotoReport
from ffavatar.pipeline import animate
from ffavatar.render import rasterize
from ffavatar.types import Camera, HeadParams


def wrong_calls():
    neutral = HeadParams.neutral(2, 5)
    head = load_head()
    camera = Camera(torch.eye(4).expand(2, 4, 4), torch.eye(3).expand(2, 3, 3), 8, 8)
    one = torch.zeros(1, 478, 3)
    yield "types", lambda: replace(neutral, neck=torch.zeros(3, 3))  # three rows among two
    yield "types", lambda: replace(neutral, neck=np.zeros((2, 3), np.float32))
    yield "geometry", lambda: axis_angle_to_quat(torch.zeros(2, 4))
    yield "geometry", lambda: axis_angle_to_quat(torch.zeros(2, 3, dtype=torch.int64))
    yield "geometry", lambda: project(torch.zeros(4, 3), camera)
    yield "head", lambda: head.neutral(torch.zeros(10))  # the axis of people is missing
    yield "landmarks", lambda: LandmarkResult(one, torch.zeros(1), torch.zeros(1, 51), torch.zeros(1, 4))
    yield "front end", lambda: PhotoResult(PhotoReport("photo", False, "refused"), None, one)
    yield "rasterize", lambda: rasterize(*[torch.zeros(5, n) for n in (3, 4, 3)], torch.zeros(5, 1), torch.zeros(5, 3),
                                         torch.eye(4)[None], torch.eye(3)[None], 8, 8)  # fmt: skip
    yield "animate", lambda: Rig.of(head, torch.zeros(1, 100), head.surface(0))
    yield "pipeline", lambda: animate(None, neutral)
    yield "metrics", lambda: landmark_error(torch.zeros(2, 478, 2), torch.zeros(1, 478, 3))


CALLS = list(wrong_calls())


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[f"{n}-{name}" for n, (name, _) in enumerate(CALLS)])
def test_a_wrong_shape_is_caught(call):
    with pytest.raises(TypeCheckError):
        call()


def test_nothing_is_checked_and_beartype_not_needed_at_run_time():
    code = """
import sys, torch
sys.modules["beartype"] = None  # importing it would fail
from ffavatar.geometry import quat_to_matrix
from ffavatar.types import HeadParams
import ffavatar.pipeline, ffavatar.evaluate.metrics, ffavatar.photo.front_end
params = HeadParams.neutral(1, 5)
assert HeadParams(params.root[0], *[None] * 6).neck is None  # a record as good as any while nobody checks
assert not hasattr(quat_to_matrix, "__wrapped__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
