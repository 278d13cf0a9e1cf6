"""What decides a personalization, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Start = Literal["avatar", "grey", "unprojected"]


@dataclass(frozen=True)
class PersonalRecipe:
    """Everything that decides the result besides the avatar and the views. Kept with every checkpoint."""

    steps: int = 500
    """Adam's steps, at most: with three or more views a held-out one decides how many of them are taken."""
    size: int = 256
    """Side in pixels of the pictures that are compared."""
    batch: int = 1
    """Views per step; each is seen equally often, in an order drawn from the seed."""
    seed: int = 0
    track_steps: int = 0
    """Steps of ``pipeline.track`` that refine each view's pose and expression before anything else is learned. They are
    refined along with the residuals anyway."""
    start: Start = "avatar"
    """What the residuals are laid upon: the feed-forward avatar, or, for comparison, its bare head in grey or in
    colours unprojected from the views (``starts.py``)."""
    guard: bool = True
    """Hold one view out, where there are at least three, to choose the number of steps; then learn from all."""
    unguarded_steps: int = 200
    """Steps at most where ``guard`` is wanted and there are too few views for it."""
    guard_checks: int = 4
    """How often the held-out view is looked at, evenly over the steps."""
    guard_lpips: float = 0.3
    """Weight of the perceptual distance in what is looked at. At the weight that it has in a step, a photo's loss of a
    tenth outweighs a third of the distance: of avatars that begin near the photos nothing would be learned."""
    check_steps: int = 12
    """Steps of ``pipeline.track`` that place the held-out view before it is compared."""
    patience: int = 3
    """Failed checks in a row after which the trial with the held-out view ends."""
    guard_keeps: float = 0.25
    """Share of the best check's gain over no step at all that a check must keep. The last one that does sets the number
    of steps: the trial, with a view less and rates that have not fallen yet, shows less than the run will."""

    nodes: int = 500
    """Control nodes of the smooth residuals."""
    node_reach: int = 8
    """Nodes that each Gaussian follows."""
    seen_px: float = 0.5
    """Pixels, summed over the views at ``size`` 256, from which a Gaussian counts as half seen. Residuals of its own
    are scaled by how far it is seen."""

    rate_node_offset: float = 6e-4
    """Adam's rates at the first step; all fall to a tenth. Metres for offsets, else natural units (logits, logs)."""
    rate_node_color: float = 4e-3
    rate_offset: float = 1.5e-4
    rate_scale: float = 0.012
    rate_turn: float = 0.005
    rate_opacity: float = 0.03
    rate_color: float = 0.01
    rate_pose: float = 1e-3
    """Of each view's rotations, radians."""
    rate_translation: float = 5e-4
    rate_expression: float = 4e-3
    rate_gain: float = 5e-3
    """Of each view's exposure and white balance, in logs."""

    sigma_node_offset: float = 0.01
    """Standard deviations of the residuals' prior, in the same units as the rates: a residual of one sigma costs
    ``weight_prior``."""
    sigma_node_color: float = 0.15
    sigma_offset: float = 0.001
    sigma_scale: float = 0.4
    sigma_turn: float = 0.3
    sigma_opacity: float = 1.5
    sigma_color: float = 0.15
    sigma_gain: float = 0.1
    max_scale: float = 0.6
    """Logs by which a scale can change at most."""
    unseen_pull: float = 10.0
    """How many times stronger the prior holds what is not seen."""

    weight_l1: float = 0.8
    weight_ssim: float = 0.2
    weight_matte: float = 0.5
    weight_prior: float = 0.005
    weight_expression: float = 0.02
    """On squared change of the views' expressions."""
    weight_drift: float = 5.0
    """On the squared mean, over the views, by which poses leave the estimator's readings (radians, decimetres,
    expression units): an error that all readings share belongs into the avatar, which is driven by such readings."""
    weight_lpips: float = 0.1
    """In the steps that use it; without a perceptual net it is left out."""
    lpips_share: float = 0.25
    """Share of the steps that use it: it costs more than all else in a step together."""
    lpips_window: int = 256
    """Side in pixels above which it compares windows of this side instead of whole pictures."""
