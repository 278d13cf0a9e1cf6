"""Structural similarity (Wang et al., IEEE TIP 2004), as loss and as metric: one definition for both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
SIGMA = 1.5


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM map of pictures (B, H, W, C) in [0, 1] -> (B, H - 10, W - 10, C): Gaussian window 11, sigma 1.5, no padding.

    Differentiable; the mean over the map is scikit-image's value with ``gaussian_weights=True``,
    ``use_sample_covariance=False``, ``data_range=1``.
    """
    channels = a.shape[-1]
    x = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    kernel = torch.exp(-0.5 * (x / SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    a, b = a.permute(0, 3, 1, 2).flatten(0, 1)[:, None], b.permute(0, 3, 1, 2).flatten(0, 1)[:, None]
    stacked = torch.cat([a, b, a * a, b * b, a * b], 1)
    weight = kernel.expand(5, 1, WINDOW)
    mean = F.conv2d(F.conv2d(stacked, weight[:, :, :, None], groups=5), weight[:, :, None], groups=5)
    mean_a, mean_b, aa, bb, ab = mean.unbind(1)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.unflatten(0, (-1, channels)).permute(0, 2, 3, 1)
