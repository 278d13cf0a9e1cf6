"""Splats that are coarse beside the photos' pixels, split into finer ones.

The head's triangles are small on the face and large on hair, neck and clothes; lifted hair stretches them further. A
splat that covers several pixels of a photo shows only their mean. So each that some view sees well, and sees large, is
replaced by four, and those once more where that is not enough; each then reads its own colour and matte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ffavatar.geometry import NORMALISED_FOCAL, quat_rotate
from ffavatar.types import CanonicalGaussians

LEVEL = 2  # of the head from which splats are split: coarser avatars are meant to be small
ROUNDS = 2
COARSE = 1.6 / 512  # standard deviation from which a splat is split, in crop sides
HIDDEN_COARSE = 2 * COARSE  # the same for hair that is seen nowhere and gets a likeness of what is seen
LEAST_TRUST = 0.02  # that a view must have in a splat
LEAST_CARVE = 0.02  # what the mattes carve away is not worth it
MOST = 8_000  # splats that are split in a round, the largest first: three times as many are added at most
APART, NARROWER = 0.43, 0.5  # places of the four on the two axes and their widths, in standard deviations of the one
_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))


@torch.no_grad()
def coarse_splats(canonical: CanonicalGaussians, depth: Tensor, trust: Tensor, worth: Tensor, hidden: Tensor) -> Tensor:
    """Which of N splats to split, (K,) ascending.

    ``depth`` (S, N) metres before each view's camera, ``trust`` (S, N) of the views in [0, 1], ``worth`` (N,) bool: may
    be split at all, ``hidden`` (N,) bool: no view shows it, but it will be given detail.
    """
    width = canonical.scales[:, :2].amax(1) * NORMALISED_FOCAL / depth.amin(0).clamp_min(1e-3)
    chosen = worth & (trust.amax(0) > LEAST_TRUST) & (width > COARSE)
    if int(chosen.sum()) > MOST:
        largest = torch.where(chosen, width, -1.0).topk(MOST).indices
        chosen = torch.zeros_like(chosen).index_fill(0, largest, True)
    return (chosen | (worth & hidden & (width > HIDDEN_COARSE))).nonzero()[:, 0]


def four_of(canonical: CanonicalGaussians, which: Tensor) -> CanonicalGaussians:
    """Four smaller splats for each of K, in the plane of its first two axes, coloured alike: (4 K), corner by corner.

    They cover what the one covered, with half its widths at half its spacing.
    """
    parent = which.repeat(4)
    corner = canonical.scales.new_tensor(_CORNERS).repeat_interleave(len(which), 0) * APART
    aside = torch.cat([corner * canonical.scales[parent, :2], torch.zeros_like(corner[:, :1])], 1)
    return CanonicalGaussians(
        offsets=canonical.offsets[parent] + quat_rotate(canonical.quats[parent], aside),
        quats=canonical.quats[parent],
        scales=canonical.scales[parent] * NARROWER,
        opacities=canonical.opacities[parent],
        colors=canonical.colors[parent],
    )


def replaced(values: Tensor, which: Tensor, new: Tensor) -> Tensor:
    """Values (N, ...) of the splats with those of the four (4 K, ...) for each of ``which`` (K,): the first takes the
    place of the one, so that the surface's points keep their numbers, the others follow at the end."""
    return torch.cat([values.index_copy(0, which, new[: len(which)]), new[len(which) :]])
