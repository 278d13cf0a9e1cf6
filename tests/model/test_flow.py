"""Optical flow: it finds a known bend, stays where there is nothing to see, and never goes too far."""

import pytest
import torch

from ffavatar.model.flow import bent, dense_flow, gaussian_blurred

SIDE = 256


@pytest.fixture(scope="module")
def picture():
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rough = gaussian_blurred(noise, 2.0) + gaussian_blurred(noise, 6.0)
    return (rough - rough.amin()) / (rough.amax() - rough.amin())


def waves(amplitude_px: float) -> torch.Tensor:
    x = torch.linspace(0, 2 * torch.pi, SIDE)
    field = torch.stack([torch.sin(x)[:, None].expand(SIDE, SIDE), torch.cos(x)[None].expand(SIDE, SIDE)])
    return amplitude_px / SIDE * field[None]


def everywhere() -> torch.Tensor:
    return torch.ones(1, 1, SIDE, SIDE)


def test_known_bend_is_found(picture):
    true = waves(3.0)
    found = dense_flow(bent(picture, true), picture, everywhere(), longest=8 / SIDE)
    error = ((found - true) * SIDE).norm(dim=1)[:, 16:-16, 16:-16]
    assert error.mean() < 0.3 and error.max() < 1.2


def test_same_pictures_have_no_flow(picture):
    assert dense_flow(picture, picture, everywhere(), longest=0.1).abs().max() < 1e-6


def test_even_pictures_have_no_flow():
    flat = torch.full((1, 3, SIDE, SIDE), 0.3)
    assert dense_flow(flat, flat + 0.2, everywhere(), longest=0.1).abs().max() < 1e-5


def test_field_is_no_longer_than_allowed(picture):
    found = dense_flow(bent(picture, waves(6.0)), picture, everywhere(), longest=2 / SIDE)
    assert found.norm(dim=1).max() * SIDE < 2 + 1e-3
    assert found.norm(dim=1).max() * SIDE > 1.5


def test_what_does_not_count_moves_nothing(picture):
    beside = picture.clone()
    beside[..., :, : SIDE // 2] = picture.flip(-1)[..., :, : SIDE // 2]
    weight = everywhere()
    weight[..., : SIDE // 2] = 0
    found = dense_flow(picture, beside, weight, longest=8 / SIDE)
    assert (found[..., SIDE // 2 + 4 :] * SIDE).abs().max() < 0.1


def test_pictures_smaller_than_the_finest_level():
    small = gaussian_blurred(torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)), 2.0)
    assert dense_flow(small, small, torch.ones(2, 1, 96, 96), longest=0.1).shape == (2, 2, 96, 96)
