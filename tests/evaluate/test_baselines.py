"""Copy takes the nearest view; warp is exact where the answer is known."""

from __future__ import annotations

import sys

import pytest
import torch
from made_views import landmark_cloud, made_views

from ffavatar.errors import InputError
from ffavatar.evaluate.baselines import copy, nearest_source, warp


def turned(points: torch.Tensor, amount: float) -> torch.Tensor:
    """A head turn, roughly: near points move sideways more than far ones."""
    moved = points.clone()
    moved[:, 0] += amount * (points[:, 2] + 0.05)
    return moved


def placed(points: torch.Tensor, scale: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    rotation = torch.tensor([[torch.tensor(angle).cos(), -torch.tensor(angle).sin()],
                             [torch.tensor(angle).sin(), torch.tensor(angle).cos()]])  # fmt: skip
    moved = points.clone()
    moved[:, :2] = scale * (points[:, :2] - 0.5) @ rotation.T + 0.5 + torch.tensor(shift)
    return moved


def test_nearest_ignores_place_size_and_roll_but_not_the_turn() -> None:
    face = landmark_cloud()
    turns = [-0.8, 0.0, 0.8]
    source = made_views([placed(turned(face, a), 1.2, 0.3 * i, (0.02 * i, 0)) for i, a in enumerate(turns)])
    target = made_views([turned(face, a) for a in (0.7, -0.1, -0.9, 0.1)])
    assert nearest_source(source, target).tolist() == [2, 1, 0, 1]
    assert torch.equal(copy(source, target), source.on_white()[[2, 1, 0, 1]])


def test_warp_with_equal_landmarks_is_the_identity() -> None:
    views = made_views([landmark_cloud(1), landmark_cloud(2)], size=96)
    torch.testing.assert_close(warp(views, views), views.on_white(), atol=1e-4, rtol=0)


def test_warp_carries_the_face_with_its_landmarks() -> None:
    """Moved landmarks move the face's pixels by as much, and leave the border where it was."""
    face, size = landmark_cloud(3), 128
    source = made_views([face], size=size)
    moved = face.clone()
    moved[:, 0] += 8 / size
    result = warp(source, made_views([moved], size=size))
    middle = slice(size // 2 - 10, size // 2 + 10)
    there = source.on_white()[:, middle, middle]
    torch.testing.assert_close(result[:, middle, size // 2 - 2 : size // 2 + 18], there, atol=5e-3, rtol=0)
    torch.testing.assert_close(result[:, :, :2], source.on_white()[:, :, :2], atol=5e-3, rtol=0)


def test_warp_is_white_where_the_source_is() -> None:
    source = made_views([landmark_cloud(4)])
    source.valid[:, :, 40:] = 0
    result = warp(source, made_views([landmark_cloud(4)]))
    assert float(result[:, :, 42:].min()) > 0.999


def test_landmarks_outside_the_crop_do_not_fold_the_mesh() -> None:
    face = landmark_cloud(5)
    cut = face.clone()
    cut[:50, 0] = 1.2
    result = warp(made_views([face]), made_views([cut]))
    assert torch.isfinite(result).all()


def test_warp_names_scipy_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.interpolate", None)
    views = made_views([landmark_cloud()])
    with pytest.raises(InputError, match="pip install scipy"):
        warp(views, views)
