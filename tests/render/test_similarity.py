"""Native mean SSIM against the readable form in float64 and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from ffavatar.render import mean_ssim, native_backend
from ffavatar.ssim import ssim_map


def pictures(height: int, width: int, channels: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures with noise, flat white areas as beside a head, and a part where both agree."""
    generator = torch.Generator().manual_seed(height)
    first = torch.rand(count, height, width, channels, generator=generator)
    second = (first + 0.2 * torch.randn(first.shape, generator=generator)).clamp(0, 1)
    first[:, : height // 3], second[:, : height // 3] = 1.0, 1.0
    second[:, :, : width // 4] = first[:, :, : width // 4]
    return first, second


@pytest.mark.parametrize(("height", "width", "channels"), [(11, 11, 1), (37, 53, 3), (64, 20, 4)])
def test_value_and_gradient_against_float64(height: int, width: int, channels: int) -> None:
    first, second = pictures(height, width, channels)
    cotangent = torch.tensor([0.7, -1.3])
    first.requires_grad_(True)
    value = mean_ssim(first, second)
    assert "MeanSsim" in value.grad_fn.name()
    (found,) = torch.autograd.grad(value, first, cotangent)
    exact = first.detach().double().requires_grad_(True)
    wanted_value = ssim_map(exact, second.double()).mean((1, 2, 3))
    (wanted,) = torch.autograd.grad(wanted_value, exact, cotangent.double())
    torch.testing.assert_close(value.double(), wanted_value, atol=2e-5, rtol=0)
    # flat and equal areas divide by C2 = 9e-4: float32's rounding of a blur is worth up to 1e-3 of the largest slope
    assert float((found - wanted).abs().max()) < 2e-3 * float(wanted.abs().max())
    with torch.no_grad():
        assert torch.equal(mean_ssim(first, second), value.detach())


@pytest.mark.parametrize("name", ["sse", "avx2", "avx512"])
def test_every_instruction_set_agrees(name: str) -> None:
    if not native_backend.choose_instruction_set(name):
        pytest.skip(f"this CPU or build has no {name} kernels")
    first, second = pictures(37, 53, 3)
    first.requires_grad_(True)
    try:
        value = mean_ssim(first, second)
        (found,) = torch.autograd.grad(value.sum(), first)
    finally:
        native_backend.choose_instruction_set("best")
    exact = first.detach().double().requires_grad_(True)
    wanted_value = ssim_map(exact, second.double()).mean((1, 2, 3))
    (wanted,) = torch.autograd.grad(wanted_value.sum(), exact)
    torch.testing.assert_close(value.double(), wanted_value, atol=2e-5, rtol=0)
    assert float((found - wanted).abs().max()) < 2e-3 * float(wanted.abs().max())


def test_against_scikit_image() -> None:
    first, second = pictures(40, 48, 3, 1)
    wanted = structural_similarity(
        first[0].double().numpy(), second[0].double().numpy(), gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1.0, channel_axis=-1, full=True,
    )[1]  # fmt: skip
    np.testing.assert_allclose(float(mean_ssim(first, second)), wanted[5:-5, 5:-5].mean(), atol=2e-5)


def test_equal_pictures_are_one_and_flat() -> None:
    first, _ = pictures(32, 32, 3)
    first.requires_grad_(True)
    value = mean_ssim(first, first.detach())
    torch.testing.assert_close(value.detach(), torch.ones(2))
    (gradient,) = torch.autograd.grad(value.sum(), first)
    assert float(gradient.abs().max()) < 1e-5


def test_threads_change_no_bit() -> None:
    first, second = pictures(70, 45, 3)
    first.requires_grad_(True)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            value = mean_ssim(first, second)
            results.append((value.detach(), torch.autograd.grad(value.sum(), first)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


def test_a_goal_that_learns_takes_the_readable_form() -> None:
    first, second = pictures(16, 16, 3)
    (found,) = torch.autograd.grad(mean_ssim(first, second.requires_grad_(True)).sum(), second)
    assert found.abs().max() > 0
