"""Training recipes: plain values, each derived from another."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ffavatar.errors import InputError
from ffavatar.evaluate.lpips import MIN_SIDE_PX
from ffavatar.model.config import PRESETS, ModelConfig
from ffavatar.ssim import WINDOW

LEVELS = (0, 1, 2, 3)  # subdivisions that the head offers


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run; saved with every checkpoint.

    Raises ``InputError`` for values that cannot be, naming the field.
    """

    stage: str
    """``estimator``: head parameters from labelled synthetic views. ``avatar``: few-to-many rendering losses, with
    labels or without."""
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
    """People per example (estimator stage)."""
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
    """Share of the steps in which poses and identity are the exact labels, where there are any, instead of the
    estimator's."""
    weight_l1: float = 1.0
    weight_l2: float = 1.0
    weight_ssim: float = 0.2
    weight_lpips: float = 0.25
    weight_matte: float = 0.5
    weight_offset: float = 2.0
    """On squared metres of learned offset, times 100."""

    weight_adversarial: float = 0.0
    """On the projected discriminator's hinge loss (``discriminator.py``)."""
    weight_landmark: float = 0.0
    """On the distance of exact landmarks, in crop sides, to the estimator's head in the targets; only where there are
    labels."""
    weight_params: float = 0.0
    """On the estimator stage's losses for the targets' readings; only where there are labels."""

    batch: int = 1
    """Examples per step on all ranks together; their gradients are averaged. What they are does not depend on the
    number of ranks."""
    stream: bool = False
    """Read shards one person after the other (every person once per epoch) instead of holding all in memory and
    drawing at random."""
    learn: Literal["avatar", "estimator", "both"] = "avatar"
    """Which networks the rendering losses teach (avatar stage)."""
    rate_estimator: float = 0.1
    """The estimator's learning rate as a share of ``rate`` where ``both`` learn."""
    perceptual: Literal["alex", "vgg"] = "alex"
    """Network of LPIPS."""
    critic: Literal["alex", "vgg"] = "alex"
    """Network whose frozen features the discriminator sees."""
    rate_critic: float = 2e-4
    adversarial_from: int = 0
    """Step at which the adversarial loss begins; the discriminator learns from there on."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the transformers and convolutions of the model; geometry, rasteriser and losses stay in float32."""
    checkpointing: bool = False
    """Recompute the transformers' activations in the backward pass: less memory, a third more work."""
    fsdp: bool = False
    """On several ranks: shard parameters, gradients and optimiser (FSDP2) instead of copying them (DDP)."""

    queries: Literal["anchored", "full"] | None = None
    """Ablations: another kind of queries, encoder or surface than the preset's. ``full`` takes one query per Gaussian
    at the base vertices."""
    encoder: Literal["conv", "dinov2"] | None = None
    rotate_covariance: bool = True
    """Ablation: False leaves the splats' orientation as it is when the head turns, as in the paper."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("stage", ("estimator", "avatar")), ("preset", tuple(PRESETS)), ("learn", ("avatar", "estimator", "both")),
            ("precision", ("float32", "bfloat16")), ("perceptual", ("alex", "vgg")), ("critic", ("alex", "vgg")),
            ("queries", (None, "anchored", "full")), ("encoder", (None, "conv", "dinov2")), ("level", LEVELS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                choice = ", ".join(map(str, allowed)).lower()
                raise InputError(f"{name} cannot be {getattr(self, name)!r}; choose one of {choice}.")
        for name in ("steps", "people", "views_per_person", "max_sources", "targets", "size", "batch", "warmup"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for field in fields(self):
            if field.name.startswith(("weight_", "rate")) and not 0 <= float(getattr(self, field.name)) < 1e6:
                raise InputError(f"{field.name} must be 0 or more, not {getattr(self, field.name)}.")
        for name in ("label_share", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)}.")
        if not 0 < self.clip < math.inf:
            raise InputError(f"clip must be a number above 0, not {self.clip}; give a large one to clip nothing.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be from 0 to {2**63 - 1}, not {self.seed}.")
        if self.adversarial_from < 0:
            raise InputError(f"adversarial_from must be 0 or more, not {self.adversarial_from}.")
        if self.stage == "avatar" and self.size < self._least_size():
            raise InputError(
                f"size must be at least {self._least_size()} for the losses on pictures, not {self.size}; draw larger, "
                "or leave LPIPS and the discriminator out (--no-perceptual) where they are what needs more than "
                f"{WINDOW}."
            )
        if self.fsdp and self.label_share and PRESETS[self.preset].estimator == "dinov2":
            raise InputError(
                "fsdp needs label_share 0 with an estimator made of sharded blocks, which every rank must run in every "
                "step; set one of the two."
            )
        if self.weight_adversarial and self.stage != "avatar":
            raise InputError("weight_adversarial needs pictures; the estimator stage draws none: leave it at 0.")

    def _least_size(self) -> int:
        """Pixels below which SSIM has no window, or a network of LPIPS or the discriminator a plane without pixels."""
        nets = ([self.perceptual] if self.weight_lpips else []) + ([self.critic] if self.weight_adversarial else [])
        return max([WINDOW, *(MIN_SIDE_PX[net] for net in nets)])

    def model_config(self) -> ModelConfig:
        """The preset with this recipe's ablations."""
        from ffavatar.head import load_head

        config = PRESETS[self.preset]
        if self.queries is not None and self.queries != config.queries:
            config = replace(config, queries=self.queries)
            if self.queries == "full":
                config = replace(config, surface_level=0, full_queries=len(load_head().v_template))
        if self.encoder is not None and self.encoder != config.encoder:
            side = 252 if self.encoder == "dinov2" else config.image_size  # a multiple of the patch, near the crops
            config = replace(config, encoder=self.encoder, vit="small", image_size=side)
        return config


def recipe_of(saved: dict[str, Any]) -> Recipe | None:
    """The recipe of a checkpoint; what it does not name, because it is older, has the value it had then: the default.

    None where it holds something that recipes no longer have.
    """
    try:
        return Recipe(**saved)
    except (TypeError, InputError):
        return None


ESTIMATOR = Recipe(stage="estimator", steps=5000, rate=8e-4)
AVATAR = Recipe(stage="avatar", steps=1000, rate=5e-4)

PRETRAIN = replace(
    AVATAR, steps=20_000, rate=3e-4, warmup=200, targets=8, learn="both", weight_landmark=1.0, weight_params=0.02
)  # fmt: skip
"""Stage 1: both networks end to end by rendering losses, on frames of one person each: labelled or not."""
FINETUNE = replace(PRETRAIN, steps=4000, rate=1e-4, targets=16, weight_adversarial=0.01, adversarial_from=200)
"""Stage 2: on many views of each person, with the adversarial loss."""
SELF_SUPERVISED = replace(
    AVATAR, learn="estimator", label_share=0.0, weight_lpips=0.0, weight_offset=0.0, rate=2e-4, targets=6
)  # fmt: skip
"""The estimator alone, from pictures and mattes alone."""

PAPER_PRETRAIN = replace(
    PRETRAIN, preset="paper", steps=200_000, rate=1e-4, warmup=2000, ema=0.9998, size=512, level=2, batch=8,
    label_share=0.0, stream=True, perceptual="vgg", precision="bfloat16", checkpointing=True, fsdp=True,
)  # fmt: skip
"""Published: steps, 8 targets, Adam, one example per GPU, bf16, checkpointing. The rest is ours."""
PAPER_FINETUNE = replace(
    PAPER_PRETRAIN, steps=20_000, rate=2e-5, targets=16, weight_adversarial=0.01, adversarial_from=1000, critic="vgg"
)  # fmt: skip
"""Published: steps, 16 targets."""

SMOKE = replace(AVATAR, preset="tiny", steps=10, warmup=2, size=64, max_sources=2, targets=2, weight_lpips=0.0)
"""For tests: ten steps in seconds."""

STAGES: dict[str, Recipe] = {
    "estimator": ESTIMATOR, "avatar": AVATAR, "pretrain": PRETRAIN, "finetune": FINETUNE,
    "self-supervised": SELF_SUPERVISED,
}  # fmt: skip
_PAPER = {"pretrain": PAPER_PRETRAIN, "finetune": PAPER_FINETUNE}


def recipe_for(stage: str, preset: str = "lite") -> Recipe:
    """The recipe of a stage for a preset.

    Raises:
        InputError: there is no such stage or preset, or the preset has no such stage.
    """
    if stage not in STAGES:
        raise InputError(f"There is no training stage {stage!r}; choose one of {', '.join(STAGES)}.")
    if preset == "paper":
        if stage not in _PAPER:
            raise InputError(f"The preset paper has no stage {stage!r}; choose one of {', '.join(_PAPER)}.")
        return _PAPER[stage]
    return replace(STAGES[stage], preset=preset)


def ablations(pretrain: Recipe, finetune: Recipe) -> dict[str, tuple[Recipe, ...]]:
    """Name -> the recipes that run one after the other, each from the weights of the one before.

    The first row is the whole thing; every other differs from it in what its name says.
    """

    def both(**changes: Any) -> tuple[Recipe, ...]:
        return replace(pretrain, **changes), replace(finetune, **changes)

    return {
        "whole": both(),
        "anchored queries at base vertices": both(level=0),
        "full queries at base vertices": both(queries="full", level=0),
        "splats not turned": both(rotate_covariance=False),
        "without pretraining": (finetune,),
        "without multi-view fine-tuning": (pretrain,),
        "without adversarial loss": both(weight_adversarial=0.0),
        "ViT features, full queries at base vertices": both(queries="full", encoder="dinov2", level=0),
    }
