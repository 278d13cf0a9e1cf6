"""The rasteriser in plain torch: the readable reference, and the fallback on any device and precision.

Formulas: EWA splatting as in gsplat 1.5.3 (``_fully_fused_projection`` and ``_rasterize_to_pixels`` of its torch
reference). Differentiable by autograd in every input. Memory stays bounded: the picture is done in square tiles, the
Gaussians of a tile in runs of at most ``MAX_PAIRS`` (Gaussian, pixel) pairs, and the backward pass of a large view
computes its tiles again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ffavatar.geometry import quat_to_matrix

if TYPE_CHECKING:
    from ffavatar.render.rasterizer import RasterInputs

MAX_ALPHA = 0.999
MIN_ALPHA = 1 / 255
MIN_TRANSMITTANCE = 1e-4
MAX_EXTENT = 3.33  # standard deviations
JACOBIAN_MARGIN = 0.3  # of half the field of view: beyond, the projection's Jacobian is not followed any further
TILE_PX = 16
MAX_PAIRS = 1 << 20
KEPT_PAIRS = 1 << 24  # beyond so many in a view, tiles are computed again in the backward pass instead of being kept


@dataclass(frozen=True)
class _Splats:
    """Gaussians on one picture, nearest first. Rows that are not drawn have been removed."""

    centers: Tensor  # (M, 2) pixels
    conics: Tensor  # (M, 3) xx, xy, yy of the inverse covariance
    opacities: Tensor  # (M,)
    colors: Tensor  # (M, D)
    half_sizes: Tensor  # (M, 2) pixels, of the box outside which alpha < 1/255


def _project(inputs: RasterInputs, view: int) -> _Splats:
    means, quats, scales = inputs.means[view], inputs.quats[view], inputs.scales[view]
    opacities, colors = inputs.opacities[view], inputs.colors[view]
    world_to_cam, K = inputs.viewmats[view], inputs.Ks[view]
    rotation, translation = world_to_cam[:3, :3], world_to_cam[:3, 3]

    # What is not drawn must not be computed with either: 0 times the gradient of a NaN is a NaN.
    with torch.no_grad():
        depths = means @ rotation[2] + translation[2]
        finite = torch.cat([means, quats, scales, opacities[:, None]], -1).isfinite().all(-1)
        drawn = finite & (depths >= inputs.near_plane) & (depths <= inputs.far_plane) & (quats.norm(dim=-1) > 0)
        index = drawn.nonzero().squeeze(-1)
        index = index[depths[index].argsort(stable=True)]
    means, quats, scales = means[index], quats[index], scales[index]
    opacities, colors = opacities[index], colors[index]

    x, y, z = (means @ rotation.T + translation).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = JACOBIAN_MARGIN * inputs.width / 2 / fx, JACOBIAN_MARGIN * inputs.height / 2 / fy
    slope_x = (x / z).clamp(-cx / fx - margin_x, (inputs.width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-cy / fy - margin_y, (inputs.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], -1).unflatten(-1, (2, 3))
    turned = quat_to_matrix(quats / quats.norm(dim=-1, keepdim=True))
    half = jacobian @ rotation @ (turned * scales[:, None, :])  # the covariance on the picture is half half^T
    xx, xy, yy = (half[:, 0] ** 2).sum(-1), (half[:, 0] * half[:, 1]).sum(-1), (half[:, 1] ** 2).sum(-1)
    sharp_det = xx * yy - xy * xy
    xx, yy = xx + inputs.eps2d, yy + inputs.eps2d
    det = xx * yy - xy * xy
    if inputs.antialiased:
        opacities = opacities * (sharp_det / det).clamp_min(0).sqrt()
    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([yy, -xy, xx], -1) / det[:, None]

    with torch.no_grad():
        extent = (2 * (opacities * 255).log()).clamp(0, MAX_EXTENT**2).sqrt()
        half_sizes = extent[:, None] * torch.stack([xx, yy], -1).sqrt()
        shown = (opacities >= MIN_ALPHA) & (det > 0) & (half_sizes.ceil() > inputs.radius_clip).any(-1)
        shown &= conics.isfinite().all(-1) & centers.isfinite().all(-1)
        index = shown.nonzero().squeeze(-1)
    return _Splats(centers[index], conics[index], opacities[index], colors[index], half_sizes[index])


def _composite(
    centers: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """Front to back over (M) splats at (P, 2) pixel centres -> premultiplied colours (P, D), transmittance (P,)."""
    total = pixels.new_zeros(len(pixels), 0) @ colors[:0]  # zeros that autograd knows, also where nothing is drawn
    transmittance = colors.new_ones(len(pixels))
    full = torch.zeros(len(pixels), dtype=torch.bool, device=colors.device)
    step = max(1, MAX_PAIRS // len(pixels))
    for run in (slice(start, start + step) for start in range(0, len(centers), step)):
        dx, dy = (centers[run, None] - pixels).unbind(-1)  # (m, P)
        a, b, c = conics[run, :, None].unbind(1)
        alphas = opacities[run, None] * torch.exp(-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy)
        alphas = alphas.clamp_max(MAX_ALPHA)
        alphas = torch.where((alphas >= MIN_ALPHA) & ~full, alphas, torch.zeros_like(alphas))
        with torch.no_grad():  # transmittance only falls, so what a pixel takes is a prefix of the run
            taken = transmittance * (1 - alphas).cumprod(0) > MIN_TRANSMITTANCE
            full = full | ~taken[-1]
        alphas = torch.where(taken, alphas, torch.zeros_like(alphas))
        after = transmittance * (1 - alphas).cumprod(0)
        before = torch.cat([transmittance[None], after[:-1]])
        total = total + (alphas * before).T @ colors[run]
        transmittance = after[-1]
        if full.all():
            break
    return total, transmittance


def _render_view(inputs: RasterInputs, view: int) -> tuple[Tensor, Tensor]:
    """(H, W, D) premultiplied colours and (H, W) transmittance."""
    splats = _project(inputs, view)
    low, high = splats.centers.detach() - splats.half_sizes, splats.centers.detach() + splats.half_sizes
    color_rows, rest_rows = [], []
    pairs = 0
    for y in range(0, inputs.height, TILE_PX):
        tile_h = min(TILE_PX, inputs.height - y)
        in_row = ((high[:, 1] >= y) & (low[:, 1] <= y + tile_h)).nonzero().squeeze(-1)
        colors, rests = [], []
        for x in range(0, inputs.width, TILE_PX):
            tile_w = min(TILE_PX, inputs.width - x)
            index = in_row[(high[in_row, 0] >= x) & (low[in_row, 0] <= x + tile_w)]
            tile = (splats.centers[index], splats.conics[index], splats.opacities[index], splats.colors[index])
            like = splats.colors
            rows = torch.arange(y, y + tile_h, dtype=like.dtype, device=like.device) + 0.5
            columns = torch.arange(x, x + tile_w, dtype=like.dtype, device=like.device) + 0.5
            pixels = torch.cartesian_prod(rows, columns).flip(-1)
            pairs += len(index) * len(pixels)
            if torch.is_grad_enabled() and pairs > KEPT_PAIRS:
                color, rest = checkpoint(_composite, *tile, pixels, use_reentrant=False, preserve_rng_state=False)
            else:
                color, rest = _composite(*tile, pixels)
            colors.append(color.unflatten(0, (tile_h, tile_w)))
            rests.append(rest.unflatten(0, (tile_h, tile_w)))
        color_rows.append(torch.cat(colors, 1))
        rest_rows.append(torch.cat(rests, 1))
    return torch.cat(color_rows), torch.cat(rest_rows)


def rasterize(inputs: RasterInputs) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """See ``ffavatar.render.rasterize``. Computes in the precision and on the device of ``means``."""
    each = inputs.per_view().to(inputs.means.dtype)
    pictures = [_render_view(each, view) for view in range(len(each.viewmats))]
    colors = torch.stack([color for color, _ in pictures])
    rest = torch.stack([rest for _, rest in pictures])[..., None]
    if each.backgrounds is not None:
        colors = colors + rest * each.backgrounds[:, None, None, :]
    return colors, 1 - rest, {"backend": "torch"}
