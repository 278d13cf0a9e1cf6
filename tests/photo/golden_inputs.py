"""Inputs of the parity test: slices of NASA's public-domain portrait of Eileen Collins in scikit-image's wheel."""

from __future__ import annotations

import numpy as np


def golden_inputs() -> dict[str, np.ndarray]:
    """Network name -> (1, H, W, 3) float32 in the network's value range; no resampling involved."""
    import skimage.data

    portrait = skimage.data.astronaut().astype(np.float32) / 255
    face = portrait[60:188, 162:290].repeat(2, 0).repeat(2, 1)
    return {
        "face_landmarks": face[None],
        "face_detector": portrait[0:384:2, 32:416:2][None] * 2 - 1,
        "selfie_matte": portrait[::2, ::2][None],
    }
