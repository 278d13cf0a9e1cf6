"""PSNR and SSIM against scikit-image, masks against cut pictures, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ffavatar.evaluate.metrics import (
    acceleration_error,
    keypoint_distance,
    landmark_error,
    matte_iou,
    psnr,
    rotation_distance_deg,
    ssim,
)


def pictures(seed: int, height: int = 70, width: int = 90, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random picture with flat white parts, as matted crops have, and a noisy copy of it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 10
    base = 0.5 + 0.5 * np.sin(x[..., None] * random.uniform(0.5, 2, 3) + y[..., None] * random.uniform(0.5, 2, 3))
    base[:, : width // 3] = 1
    other = np.clip(base + noise * random.standard_normal(base.shape), 0, 1)
    other[: height // 3, : width // 3] = 1
    return torch.tensor(base[None], dtype=torch.float32), torch.tensor(other[None], dtype=torch.float32)


def reference_ssim(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(
        structural_similarity(
            first[0].double().numpy(),
            second[0].double().numpy(),
            channel_axis=-1,
            data_range=1,
            gaussian_weights=True,
            use_sample_covariance=False,
            sigma=1.5,
        )
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_agree_with_scikit_image(seed: int, noise: float) -> None:
    first, second = pictures(seed, noise=noise)
    assert float(ssim(first, second)) == pytest.approx(reference_ssim(first, second), abs=1e-5)
    expected = peak_signal_noise_ratio(first[0].numpy(), second[0].numpy(), data_range=1)
    assert float(psnr(first, second)) == pytest.approx(expected, abs=1e-3)


def test_bright_flat_pictures_keep_their_precision() -> None:
    first = torch.full((1, 40, 40, 3), 0.98)
    second = first + 1e-4 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    assert float(ssim(first, second)) == pytest.approx(reference_ssim(first, second), abs=5e-5)


def test_a_rectangular_mask_equals_the_cut_pictures() -> None:
    first, second = pictures(5)
    valid = torch.zeros(1, 70, 90)
    valid[:, 9:60, 20:81] = 1
    cut = [picture[:, 9:60, 20:81] for picture in (first, second)]
    assert float(psnr(first, second, valid)) == pytest.approx(float(psnr(*cut)), abs=1e-4)
    assert float(ssim(first, second, valid)) == pytest.approx(reference_ssim(*cut), abs=1e-5)


def test_masked_pixels_never_matter() -> None:
    first, second = pictures(6)
    valid = torch.ones(1, 70, 90)
    valid[:, :, 70:] = 0
    changed = second.clone()
    changed[:, :, 70:] = 0.3
    assert torch.equal(psnr(first, second, valid), psnr(first, changed, valid))
    assert torch.equal(ssim(first, second, valid), ssim(first, changed, valid))
    assert not torch.equal(psnr(first, second), psnr(first, changed))


def test_batch_equals_single_and_equal_pictures_are_perfect() -> None:
    pairs = [pictures(seed) for seed in range(3)]
    first, second = (torch.cat(side) for side in zip(*pairs))
    valid = torch.ones(3, 70, 90)
    valid[1, :20] = 0
    for metric in (psnr, ssim):
        single = torch.cat([metric(a, b, v[None]) for (a, b), v in zip(pairs, valid)])
        torch.testing.assert_close(metric(first, second, valid), single, atol=1e-5, rtol=1e-5)
    assert torch.isinf(psnr(first, first)).all()
    torch.testing.assert_close(ssim(first, first), torch.ones(3))


def test_gradients_are_those_of_float64_differences() -> None:
    first, second = (picture[:, 20:36, 25:40, :2].double() for picture in pictures(7, noise=0.3))
    first = first.clamp(0.05, 0.95).requires_grad_(True)
    valid = torch.ones(1, 16, 15, dtype=torch.float64)
    valid[:, :2] = 0
    assert torch.autograd.gradcheck(lambda x: psnr(x, second, valid), (first,))
    assert torch.autograd.gradcheck(lambda x: ssim(x, second, valid), (first,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, "divide 8-bit"),
        (lambda x: x - 0.5, "must lie in"),
        (lambda x: x * math.nan, "must lie in"),
        (lambda x: x[0], "must be floating"),
        (lambda x: (x * 255).to(torch.uint8), "must be floating"),
        (lambda x: x[:, 1:], "different shapes"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_pictures_are_refused(change, message: str) -> None:
    first, second = pictures(8)
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match=message):
            metric(first, change(second))


@pytest.mark.usefixtures("unchecked")
def test_wrong_masks_are_refused() -> None:
    first, second = pictures(9)
    for mask, message in (
        (torch.zeros(1, 70, 90), "without any valid pixel"),
        (torch.full((1, 70, 90), 0.5), "0 and 1 only"),
        (torch.ones(1, 70), "the mask must be"),
    ):
        with pytest.raises(ValueError, match=message):
            psnr(first, second, mask)
    thin = torch.zeros(1, 70, 90)
    thin[:, :5] = 1
    with pytest.raises(ValueError, match="no 11 x 11 px window"):
        ssim(first, second, thin)


def test_landmark_error_is_a_percentage_of_the_width_in_space() -> None:
    target = torch.rand(2, 478, 3, generator=torch.Generator().manual_seed(1))
    target[:, 234] = torch.tensor([0.3, 0.5, 0.0])
    target[0, 454] = torch.tensor([0.7, 0.5, 0.0])
    target[1, 454] = torch.tensor([0.54, 0.5, 0.32])  # the same face turned: still 0.4 wide
    moved = target[..., :2] + torch.tensor([0.003, 0.004])
    torch.testing.assert_close(landmark_error(moved, target), torch.full((2,), 1.25))


@pytest.mark.usefixtures("unchecked")
def test_landmarks_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        landmark_error(torch.zeros(2, 477, 2), torch.zeros(2, 478, 3))


def test_keypoint_distance_is_in_pixels_of_a_256_px_crop() -> None:
    points = torch.rand(2, 478, 3, generator=torch.Generator().manual_seed(2))
    moved = points + torch.tensor([3 / 256, 4 / 256, 0.5])
    moved[:, 468:] += 9  # irises do not count, nor does depth
    torch.testing.assert_close(keypoint_distance(moved, points), torch.full((2,), 5.0))


@pytest.mark.usefixtures("unchecked")
def test_landmarks_of_other_frames_are_refused() -> None:
    points = torch.zeros(3, 478, 3)
    with pytest.raises(ValueError, match="do not match"):
        keypoint_distance(points, points[:1])
    with pytest.raises(ValueError, match="at least 3 frames"):
        acceleration_error(points, points[:1])
    with pytest.raises(ValueError, match="different shapes"):
        matte_iou(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), torch.ones(1, 4, 4))


def test_acceleration_error_sees_shaking_only() -> None:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(5, 478, 3, generator=generator)
    target[:, 234], target[:, 454] = torch.tensor([0.3, 0.5, 0.0]), torch.tensor([0.7, 0.5, 0.0])
    time = torch.arange(5.0)[:, None, None]
    drifting = target + 0.01 * time + 0.2  # offset and steady drift cost nothing
    torch.testing.assert_close(acceleration_error(drifting, target), torch.zeros(3), atol=1e-4, rtol=0)
    shaking = target.clone()
    shaking[2, :, 0] += 0.004
    # second differences 1, -2, 1 times 0.004 of a face 0.4 wide
    torch.testing.assert_close(acceleration_error(shaking, target), torch.tensor([1.0, 2.0, 1.0]), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="at least 3 frames"):
        acceleration_error(target[:2], target[:2])


def test_matte_iou_agrees_with_sets_of_pixels() -> None:
    random = np.random.default_rng(4)
    a, b = random.random((2, 3, 20, 30))
    valid = (random.random((3, 20, 30)) > 0.3).astype(float)
    a[2], b[2] = 0, 0.2
    expected = []
    for k in range(3):
        one, two = (set(zip(*np.nonzero((m[k] > 0.5) & (valid[k] > 0)))) for m in (a, b))
        expected.append(len(one & two) / len(one | two) if one | two else 1.0)
    found = matte_iou(*(torch.tensor(x).float() for x in (a, b, valid)))
    torch.testing.assert_close(found, torch.tensor(expected).float())
    assert float(found[2]) == 1


def test_rotation_distance_agrees_with_scipy() -> None:
    from scipy.spatial.transform import Rotation

    first, second = Rotation.random(50, random_state=1), Rotation.random(50, random_state=2)
    expected = np.degrees((first.inv() * second).magnitude())
    found = rotation_distance_deg(*(torch.tensor(r.as_matrix()) for r in (first, second)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    tiny = Rotation.from_rotvec([[1e-5, 0, 0]]).as_matrix()
    assert float(rotation_distance_deg(torch.tensor(tiny), torch.eye(3).double()[None])) == pytest.approx(
        np.degrees(1e-5), rel=1e-5
    )
