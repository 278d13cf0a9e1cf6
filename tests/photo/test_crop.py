"""The head crop: its law in numbers, its pixels, its valid mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffavatar.photo.crop import CropBox, cut_square, head_crop, head_crop_box, picture_area


def test_the_law_in_numbers():
    points = torch.zeros(478, 3)
    points[:, 0] = torch.linspace(100, 180, 478)
    points[:, 1] = torch.linspace(200, 300, 478)
    box = head_crop_box(points)
    assert box.side == pytest.approx(210)  # 2.1 x the longer side, 100
    assert box.left + box.side / 2 == pytest.approx(140)
    assert box.top + box.side / 2 == pytest.approx(250 - 0.04 * 210)  # raised by 4 % of the side


def test_crop_units():
    points = torch.tensor([[10.0, 20.0, 4.0], [30.0, 40.0, -2.0]])
    torch.testing.assert_close(
        CropBox(10, 0, 40).to_crop(points), torch.tensor([[0.0, 0.5, 0.1], [0.5, 1.0, -0.05]]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("box", "size"), [(CropBox(20.0, 30.0, 64.0), 64), (CropBox(20.3, 31.7, 50.5), 64)])
def test_a_linear_ramp_stays_where_it_is(box, size):
    """Grey rising by one per pixel: crop pixel i must show the photo's value at its own centre."""
    ramp = np.arange(160, dtype=np.uint8)[None].repeat(160, 0)
    photo = np.stack([ramp, ramp.T, ramp], -1)
    crop = cut_square(photo, box, size).astype(float)
    centres = (np.arange(size) + 0.5) / size * box.side
    assert np.abs(crop[5:-5, :, 0] - (centres + box.left - 0.5)).max() <= 0.75  # rounding to whole grey levels
    assert np.abs(crop[:, 5:-5, 1] - (centres + box.top - 0.5)[:, None]).max() <= 0.75


def test_large_boxes_are_antialiased():
    """A one-pixel checkerboard shrunk eight times is even grey; taking every eighth pixel would be black or white."""
    board = ((np.indices((512, 512)).sum(0) % 2) * 255).astype(np.uint8)[..., None].repeat(3, -1)
    crop = cut_square(board, CropBox(3.0, 5.0, 500.0), 64)
    assert crop.min() > 120 and crop.max() < 135


def test_outside_is_white_and_invalid():
    photo = np.full((100, 80, 3), 50, np.uint8)
    crop, valid = head_crop(photo, CropBox(-20.0, 60.0, 100.0), 50)  # 2 px each: 10 columns left, 30 rows below
    assert valid.shape == (50, 50) and valid[:20, 10:].eq(1).all() and valid.sum() == 20 * 40
    assert crop[valid == 0].eq(1).all()
    assert torch.allclose(crop[valid == 1], torch.tensor(50 / 255), atol=1e-6)  # no white bleeds into the photo


def test_boxes_far_larger_than_the_photo():
    crop, valid = head_crop(np.zeros((10, 10, 3), np.uint8), CropBox(-500.0, -500.0, 1010.0), 101)
    assert valid.sum() == 1 and crop[valid == 1].max() < 0.01


def _noisy(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 235, (height, width, 3)).astype(np.uint8)


def test_black_bars_are_outside_the_photo():
    photo = _noisy(0)
    photo[:12], photo[80:], photo[:, 110:] = 16, 18, 17  # video black, wavering by compression
    photo[:12:2] += 3
    assert picture_area(photo) == (0, 12, 110, 80)
    crop, valid = head_crop(photo, CropBox(0.0, 0.0, 90.0), 90)
    assert valid[12:80].eq(1).all() and not valid[:12].any() and not valid[80:].any()
    assert crop[:12].eq(1).all()


@pytest.mark.parametrize("case", ["noise", "night", "thin", "bright edge"])
def test_what_is_no_bar_stays(case):
    photo = _noisy(1)
    if case == "night":
        photo[:50] = 4  # half of the photo is dark: a scene
    elif case == "thin":
        photo[:1] = 0
    elif case == "bright edge":
        photo[:10] = 60
    assert picture_area(photo) == (0, 0, 120, 90)
