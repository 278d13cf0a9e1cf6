"""Windows and cameras: what a crop shows is shown at the same place of the driver's picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ffavatar.drive.film import cut_window
from ffavatar.drive.window import Box, SteadyWindow, to_window, window_camera
from ffavatar.geometry import normalised_camera, project
from ffavatar.types import HeadParams

CROP = Box(120.0, 60.0, 200.0, 200.0)
WINDOW = Box(100.0, 80.0, 250.0, 250.0)
POINTS = torch.tensor([[[0.0, 0.0, -1.1], [0.05, 0.02, -1.0], [-0.03, 0.06, -1.2]]])


def in_driver(pixels: torch.Tensor, box: Box, width: int, height: int) -> torch.Tensor:
    scale = torch.tensor([box.width / width, box.height / height])
    return pixels * scale + torch.tensor([box.left, box.top])


def test_window_camera_is_exact() -> None:
    seen, _ = project(POINTS, normalised_camera(512))
    driver = in_driver(seen, CROP, 512, 512)
    for window, width, height in ((WINDOW, 300, 300), (Box(0, 0, 640, 480), 1280, 960)):
        shown, _ = project(POINTS, window_camera([CROP], [window], width, height))
        assert torch.allclose(in_driver(shown, window, width, height), driver, atol=1e-3)


def test_crop_is_its_own_window() -> None:
    camera, normal = window_camera([CROP], [CROP], 512, 512), normalised_camera(512)
    assert torch.allclose(camera.K, normal.K) and torch.equal(camera.world_to_cam, normal.world_to_cam)


def test_to_window_puts_the_root_where_the_crop_showed_it() -> None:
    params = replace(HeadParams.neutral(1, 2), translation=torch.tensor([[0.03, -0.02, -1.1]]))
    moved = to_window(params, [CROP], [WINDOW])
    before, depth = project(params.translation[None], normalised_camera(1))
    after, new_depth = project(moved.translation[None], normalised_camera(1))
    assert torch.allclose(in_driver(before, CROP, 1, 1), in_driver(after, WINDOW, 1, 1), atol=1e-3)
    assert float(new_depth / depth) == pytest.approx(250 / 200)  # as large in the driver's picture as before
    assert torch.equal(moved.root, params.root)


def test_steady_window_follows_slowly_and_cuts_at_once() -> None:
    steady = SteadyWindow(fps=25)
    assert steady.follow(CROP) == CROP
    jitter = [
        steady.follow(Box.square((CROP.centre[0] + (-1) ** i * 4, CROP.centre[1]), 200 + (-1) ** i * 3))
        for i in range(50)
    ]
    moves = np.abs(np.diff([w.left for w in jitter]))
    assert moves.max() < 0.5  # of 11 px
    far = Box.square((CROP.centre[0] + 60, CROP.centre[1]), 200)
    window = steady.follow(far)
    assert far.centre[0] - window.centre[0] == pytest.approx(0.2 * window.width)  # the leash holds
    for _ in range(400):
        window = steady.follow(far)
    assert window.centre == pytest.approx(far.centre, abs=0.5)
    elsewhere = Box.square((900.0, 300.0), 200)
    assert steady.follow(elsewhere) == elsewhere
    closer = Box.square((900.0, 300.0), 420)
    assert steady.follow(closer) == closer


def test_cut_window_reaches_beyond_the_picture() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, :, 0] = np.arange(100, dtype=np.uint8)[None]
    part = cut_window(image, Box(-50, 0, 100, 100), 100, 100)
    assert part.shape == (100, 100, 3) and (part[:, :49] == 255).all()
    assert np.abs(part[50, 52:, 0].astype(int) - np.arange(2, 50)).max() <= 1
    assert (cut_window(image, Box(300, 300, 50, 50), 20, 20) == 255).all()
    half = cut_window(image, Box(0, 0, 100, 100), 50, 50)
    assert np.abs(half[20, 5:-5, 0].astype(float) - (np.arange(5, 45) * 2 + 0.5)).max() <= 1
