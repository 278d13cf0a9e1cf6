"""Training recipes: plain values, each derived from another."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run; saved with every checkpoint."""

    stage: str
    """``estimator``: head parameters from labelled synthetic views. ``avatar``: few-to-many rendering losses."""
    preset: str = "lite"
    steps: int = 3000
    rate: float = 5e-4
    """Adam's learning rate after warm-up; falls to a hundredth along a cosine."""
    warmup: int = 50
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the weights' running mean, which is what is shipped."""
    seed: int = 0
    people: int = 16
    """People per step (estimator stage)."""
    views_per_person: int = 3
    """Views of each person per step (estimator stage)."""
    max_sources: int = 4
    """Source views per step, drawn from 1 to this (avatar stage)."""
    targets: int = 4
    """Target views per step, disjoint from the sources (avatar stage)."""
    size: int = 256
    """Side of rendered targets in pixels."""
    level: int = 1
    """Subdivisions of the head while training."""
    label_share: float = 0.4
    """Share of the steps in which poses and identity are the exact labels instead of the estimator's."""
    weight_l1: float = 1.0
    weight_l2: float = 1.0
    weight_ssim: float = 0.2
    weight_lpips: float = 0.25
    weight_matte: float = 0.5
    weight_offset: float = 2.0
    """On squared metres of learned offset, times 100."""


ESTIMATOR = Recipe(stage="estimator", steps=5000, rate=8e-4)
AVATAR = Recipe(stage="avatar", steps=1000, rate=5e-4)
SMOKE = replace(AVATAR, preset="tiny", steps=10, warmup=2, size=64, max_sources=2, targets=2, weight_lpips=0.0)
"""For tests: ten steps in seconds."""
