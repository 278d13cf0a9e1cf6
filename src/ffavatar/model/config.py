"""Presets. A preset is a value of ``ModelConfig``; nothing else configures a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a model; ``create_model`` checks that they fit together."""

    preset: str
    encoder: Literal["conv", "dinov2"]
    """Source image encoder: ``conv`` (small, trained here) or a frozen DINOv2."""
    queries: Literal["anchored", "full"]
    """``full``: one learnable query per Gaussian (the paper). ``anchored``: queries at anchor vertices, dense
    decoding."""
    estimator: Literal["landmark", "dinov2"]
    """``landmark``: landmarks, a small net and Gauss-Newton. ``dinov2``: a second ViT and an MLP (the paper)."""
    image_size: int
    """Side in pixels at which the encoder reads a crop; the anchored decoder samples colours from the crop as
    it comes."""
    width: int
    """Token width of the query-former."""
    depth: int
    """Blocks of the query-former: self-attention, cross-attention, MLP."""
    heads: int
    """Attention heads."""
    surface_level: int
    """Subdivisions of the head: 1 makes 23,693 points of the embedded head, 2 makes 94,309. With the Gaussians that are
    split, grown and unfolded, avatars have about 27K and 150K."""
    full_queries: int = 79_936
    """Number of queries of a ``full`` model: FLAME subdivided twice, whatever head is loaded."""
    anchors: int = 1024
    """Number of queries of an ``anchored`` model."""
    feature_width: int = 48
    """Channels of the stride-4 feature map sampled by the anchored decoder."""
    vit: Literal["small", "large"] = "large"
    """Size of the DINOv2 encoders."""
    fit_iterations: int = 5
    """Gauss-Newton steps of the landmark estimator."""


LITE = ModelConfig(
    preset="lite", encoder="conv", queries="anchored", estimator="landmark",
    image_size=256, width=192, depth=4, heads=6, surface_level=2,
)  # fmt: skip

PAPER = ModelConfig(
    preset="paper", encoder="dinov2", queries="full", estimator="dinov2",
    image_size=518, width=1024, depth=10, heads=16, surface_level=2,
)  # fmt: skip

TINY = replace(LITE, preset="tiny", width=32, depth=1, heads=2, anchors=200, feature_width=8, surface_level=1)
"""For tests: every part of ``lite``, at a hundredth of its cost."""

PRESETS = {config.preset: config for config in (LITE, PAPER, TINY)}
