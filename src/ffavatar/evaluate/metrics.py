"""PSNR and SSIM of pictures, with the pixels outside the photo excluded; differentiable and batched.

Pictures are channel last ``(B, H, W, C)``, sRGB in [0, 1]. A mask ``valid`` ``(B, H, W)`` holds 1 inside the photo and
0 outside it; what the pictures hold outside it never changes a figure.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from ffavatar.ssim import WINDOW, ssim_map

RANGE_TOLERANCE = 1e-3  # rasterisers overshoot by rounding; anything more is a mistake of the caller
CHEEK_RIGHT, CHEEK_LEFT = 234, 454  # the face-landmarker points at the widest part of the face


def check_images(images: Tensor, name: str) -> None:
    """Raise ``ValueError`` unless ``images`` is a finite floating (B, H, W, C) tensor in [0, 1]."""
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(f"{name} must be floating (B, H, W, C), not {images.dtype} {tuple(images.shape)}")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):  # also false for NaN
        raise ValueError(f"{name} must lie in [0, 1], not [{low:.4g}, {high:.4g}]; divide 8-bit pictures by 255")


def check_pair(first: Tensor, second: Tensor, valid: Tensor | None) -> None:
    """Raise ``ValueError`` unless both are pictures of one shape and ``valid``, if given, is a mask of that shape."""
    check_images(first, "the first picture")
    check_images(second, "the second picture")
    if first.shape != second.shape:
        raise ValueError(f"pictures of different shapes: {tuple(first.shape)} and {tuple(second.shape)}")
    if valid is None:
        return
    if valid.shape != first.shape[:3]:
        raise ValueError(f"the mask must be {tuple(first.shape[:3])}, not {tuple(valid.shape)}")
    if not bool(((valid == 0) | (valid == 1)).all()):
        raise ValueError("the mask must hold 0 and 1 only")
    if not bool((valid != 0).flatten(1).any(1).all()):
        raise ValueError("a mask without any valid pixel leaves nothing to compare")


def psnr(
    first: Float[Tensor, "B H W C"], second: Float[Tensor, "B H W C"], valid: Shaped[Tensor, "B H W"] | None = None
) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio in dB over the valid pixels; infinite for equal pictures.

    Raises ``ValueError`` for pictures outside [0, 1] or of different shapes.
    """
    check_pair(first, second, valid)
    squared = (first - second).square().mean(-1)
    if valid is None:
        error = squared.mean((1, 2))
    else:
        weight = valid.to(squared)
        error = torch.where(weight != 0, squared, 0).sum((1, 2)) / weight.sum((1, 2))
    return -10 / math.log(10) * error.log()


def ssim(
    first: Float[Tensor, "B H W C"], second: Float[Tensor, "B H W C"], valid: Shaped[Tensor, "B H W"] | None = None
) -> Float[Tensor, " B"]:
    """Mean structural similarity, Gaussian window 11, sigma 1.5, each channel by itself.

    Agrees with scikit-image's ``structural_similarity(gaussian_weights=True, use_sample_covariance=False,
    data_range=1)``. With a mask only windows that lie wholly in valid pixels count, so a rectangular mask gives exactly
    the figure of the pictures cut to that rectangle. Raises ``ValueError`` as :func:`psnr` does, and if no window fits.
    """
    check_pair(first, second, valid)
    if min(first.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW} px, not {tuple(first.shape[1:3])}")
    if valid is None:
        return ssim_map(first, second).mean((1, 2, 3))
    inside = (valid != 0)[..., None]
    similarity = ssim_map(torch.where(inside, first, 1.0), torch.where(inside, second, 1.0)).mean(-1)
    whole = -F.max_pool2d(-valid.to(similarity)[:, None], WINDOW, 1)[:, 0]
    count = whole.sum((1, 2))
    if not bool((count > 0).all()):
        raise ValueError(f"no {WINDOW} x {WINDOW} px window lies wholly inside the valid pixels")
    return (similarity * whole).sum((1, 2)) / count


def landmark_error(predicted: Float[Tensor, "B L 2"], target: Float[Tensor, "B L 3"]) -> Float[Tensor, " B"]:
    """Mean distance of predicted and detected landmarks in percent of the face width.

    ``predicted`` (B, 478, 2) and ``target`` (B, 478, 3) are in crop units. The width is the distance of the cheek
    points in all three coordinates, so that a turned head does not get a smaller ruler.
    """
    if predicted.shape[:2] != target.shape[:2] or target.shape[-1] != 3:
        raise ValueError(f"landmarks of shapes {tuple(predicted.shape)} and {tuple(target.shape)} do not match")
    width = (target[:, CHEEK_LEFT] - target[:, CHEEK_RIGHT]).norm(dim=-1)
    distance = (predicted[..., :2] - target[..., :2]).norm(dim=-1).mean(1)
    return 100 * distance / width


MESH_POINTS = 468  # of the 478 landmarks; the ten iris points after them follow the gaze
KEYPOINT_SIDE_PX = 256  # the picture side in which keypoint distances are stated


def keypoint_distance(first: Float[Tensor, "B L _"], second: Float[Tensor, "B L _"]) -> Float[Tensor, " B"]:
    """AKD: mean distance of the 468 mesh landmarks (B, 478, >= 2), crop units, in pixels of a 256 px crop."""
    if first.shape[:2] != second.shape[:2]:
        raise ValueError(f"landmarks of shapes {tuple(first.shape)} and {tuple(second.shape)} do not match")
    moved = first[:, :MESH_POINTS, :2] - second[:, :MESH_POINTS, :2]
    return KEYPOINT_SIDE_PX * moved.norm(dim=-1).mean(1)


def acceleration_error(shown: Float[Tensor, "T L 3"], target: Float[Tensor, "T L 3"]) -> Float[Tensor, " T-2"]:
    """Acceleration error of consecutive frames in percent of the face width (Kanazawa et al. 2019).

    ``shown`` and ``target`` (T, 478, 3), crop units, T >= 3; the width is the target's mean cheek distance. A constant
    offset or velocity of either costs nothing: only shaking does. Raises ``ValueError`` for fewer frames.
    """
    if shown.shape != target.shape or len(target) < 3:
        raise ValueError(f"need two runs of at least 3 frames, not {tuple(shown.shape)} and {tuple(target.shape)}")
    difference = (shown - target)[:, :MESH_POINTS, :2]
    acceleration = difference[2:] - 2 * difference[1:-1] + difference[:-2]
    width = (target[:, CHEEK_LEFT] - target[:, CHEEK_RIGHT]).norm(dim=-1).mean()
    return 100 * acceleration.norm(dim=-1).mean(1) / width


def matte_iou(
    first: Float[Tensor, "B H W"], second: Float[Tensor, "B H W"], valid: Shaped[Tensor, "B H W"]
) -> Float[Tensor, " B"]:
    """Intersection over union of mattes (B, H, W) cut at one half, over the valid pixels; 1 if both are empty."""
    if not first.shape == second.shape == valid.shape:
        raise ValueError(f"mattes of different shapes: {tuple(first.shape)} and {tuple(second.shape)}")
    a, b = ((matte > 0.5) & (valid != 0) for matte in (first, second))
    union = (a | b).flatten(1).sum(1)
    return torch.where(union > 0, (a & b).flatten(1).sum(1) / union.clamp_min(1), 1.0)


def rotation_distance_deg(first: Float[Tensor, "B 3 3"], second: Float[Tensor, "B 3 3"]) -> Float[Tensor, " B"]:
    """Angle in degrees, [0, 180], of the rotation from one matrix (B, 3, 3) to the other.

    2 asin(|R1 - R2| / sqrt 8) in the Frobenius norm: exact also for small angles, where arccos of the trace is not.
    """
    chord = (first - second).flatten(1).norm(dim=1) / 8**0.5
    return torch.rad2deg(2 * chord.clamp(0, 1).asin())
