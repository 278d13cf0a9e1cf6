"""The figures of the tables: one definition each, where it comes from, and the range that every value must lie in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """What a figure is. ``low`` and ``high`` bound every single value."""

    heading: str
    digits: int
    low: float
    high: float
    better: Literal["higher", "lower", "neither"]
    definition: str
    source: str


PSNR_CAP_DB = 100.0  # equal pictures would be infinitely good, which no mean survives; 8-bit rounding alone gives 59 dB

_PERSON = "over the pixels where the target's matte is above one half"
FIGURES: dict[str, Figure] = {
    "psnr": Figure(
        "PSNR dB", 2, 0, PSNR_CAP_DB, "higher",
        "-10 log10 of the mean squared error over the photo's pixels, both pictures matted on white; at most 100",
        "Huynh-Thu and Ghanbari, Electronics Letters 2008; data range 1",
    ),
    "ssim": Figure(
        "SSIM", 3, -1, 1, "higher", "mean over windows inside the photo, Gaussian window 11, sigma 1.5, per channel",
        "Wang et al., IEEE TIP 2004",
    ),
    "lpips": Figure("LPIPS-Alex", 3, 0, math.inf, "lower", "version 0.1, AlexNet features", "Zhang et al., CVPR 2018"),
    "lpips_vgg": Figure("LPIPS-VGG", 3, 0, math.inf, "lower", "version 0.1, VGG16 features", "Zhang et al., CVPR 2018"),
    "identity": Figure(
        "identity", 3, -1, 1, "higher",
        "cosine of MobileFaceNet embeddings, both pictures aligned by the target's landmarks; cross-reenactment: of "
        "the rendering, aligned by its own, and the mean of the sources",
        "Chen et al., CCBR 2018; alignment Deng et al., CVPR 2019",
    ),
    "identity_dlib": Figure(
        "identity (dlib)", 3, -1, 1, "higher",
        "the cosine of dlib's ResNet in place of MobileFaceNet, whose cosines are compressed towards 1",
        "King, dlib 19 (2017)",
    ),
    "ceiling": Figure(
        "ceiling", 3, -1, 1, "neither", "MobileFaceNet cosine of the nearest source photo and the target",
        "docs/evaluation.md",
    ),
    "psnr_person": Figure("PSNR person", 2, 0, PSNR_CAP_DB, "higher", "PSNR " + _PERSON, "as PSNR"),
    "ssim_person": Figure("SSIM person", 3, -1, 1, "higher", "SSIM " + _PERSON + ", whole windows only", "as SSIM"),
    "lpips_person": Figure(
        "LPIPS person", 3, 0, math.inf, "lower", "LPIPS-Alex " + _PERSON + ", white outside in both", "as LPIPS-Alex"
    ),
    "matte_iou": Figure(
        "matte IoU", 3, 0, 1, "higher", "intersection over union of the mattes cut at one half, inside the photo",
        "Jaccard 1901",
    ),
    "landmarks": Figure(
        "landmarks %", 2, 0, math.inf, "lower",
        "distance of the method's own 478 landmarks and the detected ones of the target, % of the face width",
        "docs/evaluation.md",
    ),
    "found": Figure(
        "faces found", 2, 0, 1, "higher", "share of renderings in which the landmarker finds a face; the figures of "
        "landmarks and parameters are over these only", "docs/evaluation.md",
    ),
    "akd": Figure(
        "AKD px", 2, 0, math.inf, "lower",
        "average keypoint distance: 468 mesh landmarks detected in rendering and target, pixels at 256 px",
        "Siarohin et al., CVPR 2019; landmarks: ours",
    ),
    "aed": Figure(
        "AED", 4, 0, math.inf, "lower",
        "average expression distance: mean absolute difference of the expression coefficients that our shipped "
        "estimator reads from rendering and target",
        "Lin et al., arXiv 2203.13441 (with another estimator: not comparable)",
    ),
    "apd": Figure(
        "APD deg", 2, 0, 180, "lower",
        "average pose distance: angle between the head rotations that our shipped estimator reads from rendering and "
        "target", "Lin et al., arXiv 2203.13441 (another estimator and unit: not comparable)",
    ),
    "jitter": Figure(
        "jitter %", 3, 0, math.inf, "lower",
        "acceleration error: length of the difference of the landmarks' second differences in time, mean over the 468 "
        "mesh points and consecutive frames, % of the face width",
        "Kanazawa et al., CVPR 2019",
    ),
}  # fmt: skip
METRICS = tuple(FIGURES)


@dataclass(frozen=True)
class Clock:
    """A measurement that is not reproducible to the digit."""

    heading: str
    digits: int
    definition: str


TIMING: dict[str, Clock] = {
    "avatar_s": Clock("s to avatar", 2, "seconds from head crops to the avatar; loading of weights is left out"),
    "fps": Clock("FPS", 1, "pictures drawn per second from given parameters, at the compared size"),
    "peak_mb": Clock("peak MB", 0, "largest resident memory of the process while the method ran, models included"),
}

Scores = dict[str, list[float | None]]


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def check_scores(scores: Mapping[str, Sequence[float | None]]) -> None:
    """Raise ``ValueError`` for a figure that is not in the table, or a value outside its range."""
    for name, values in scores.items():
        if name not in FIGURES:
            raise ValueError(f"there is no figure {name!r}")
        figure = FIGURES[name]
        slack = 1e-4  # rounding: a cosine of equal vectors may exceed 1 a little
        for value in values:
            if value is not None and not figure.low - slack <= value <= figure.high + slack:  # also for NaN
                raise ValueError(f"{name} is {value}, outside [{figure.low}, {figure.high}]")
