"""One optimisation: residuals, poses and exposures against some views, from the first step to any other.

What a step does depends on the recipe and the step's number alone, so a run that was stopped goes on as if it had not
been.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffavatar.animate import render_avatar
from ffavatar.avatar import Avatar
from ffavatar.personal.goals import Goals
from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.personal.residuals import SHAPES, Residuals
from ffavatar.render import mean_ssim
from ffavatar.types import CanonicalGaussians, HeadParams, Rendering


class Perceptual(Protocol):
    """A net that says how unlike pictures look to people, such as ``evaluate.lpips.LPIPS``."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Planes of features, with the batch first, of pictures (B, H, W, 3) in [0, 1]; differentiable."""
        ...

    def prepare(self, images: Tensor) -> list[Tensor]:
        """The same of fixed pictures."""
        ...

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """(B,) distances of what two sets of pictures have in them."""
        ...


_ROTATIONS = ("root", "neck", "jaw", "eye_left", "eye_right")
_WARM_UP = 20  # steps over which the rates rise, for Adam's first estimates are poor


def exposed(drawn: Rendering, gain: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) on white whose person, not the white, is multiplied by ``gain`` (B, 3)."""
    clear = 1 - drawn.alphas[..., None]
    return (drawn.images - clear) * gain[:, None, None] + clear


def photo_loss(seen: Tensor, alphas: Tensor, goals: Goals, recipe: PersonalRecipe) -> Tensor:
    """L1, SSIM and matte of pictures against the goals, with the pixels outside the photos left out."""
    seen = seen * goals.valid + (1 - goals.valid)
    matte = ((alphas[..., None] - goals.mattes) * goals.valid).abs().mean()
    similar = mean_ssim(seen, goals.images).mean()
    l1 = (seen - goals.images).abs().mean()
    return recipe.weight_l1 * l1 + recipe.weight_ssim * (1 - similar) + recipe.weight_matte * matte


class Fit:
    """Adam on everything that is learned. ``start``: the views' tracked poses; ``read``: the estimator's readings."""

    def __init__(
        self,
        avatar: Avatar,
        start: HeadParams,
        read: HeadParams,
        goals: Goals,
        recipe: PersonalRecipe,
        perceptual: Perceptual | None,
    ):
        self.avatar, self.start, self.read, self.goals = avatar, start, read, goals
        self.recipe, self.perceptual = recipe, perceptual
        self.residuals = Residuals(avatar, start, goals.valid, recipe)
        self.params = {name: value.clone().requires_grad_(True) for name, value in vars(start).items()}
        self.log_gain = torch.zeros(len(goals), 3, device=goals.images.device, requires_grad=True)
        self.step = 0
        self._goal_features: dict[int, list[Tensor]] = {}  # of each view, where whole pictures are compared
        rates = [(self.residuals.values[name], getattr(recipe, f"rate_{name}")) for name in SHAPES]
        rates += [(self.params[name], recipe.rate_pose) for name in _ROTATIONS]
        rates += [
            (self.params["translation"], recipe.rate_translation),
            (self.params["expression"], recipe.rate_expression),
            (self.log_gain, recipe.rate_gain),
        ]
        groups = [{"params": [value], "lr": rate, "rate": rate} for value, rate in rates]
        self.optimiser = torch.optim.Adam(groups, eps=1e-12, fused=True)

    def canonical(self) -> CanonicalGaussians:
        with torch.no_grad():
            return self.residuals.apply()[0]

    def pose(self) -> HeadParams:
        return HeadParams(**self.params).detach()

    def gains(self) -> Tensor:
        """(S, 3), geometric mean one: a light that all photos share belongs to the skin."""
        return torch.exp(self.log_gain - self.log_gain.mean(0))

    def _views(self) -> list[int]:
        """Views of this step: as cards are dealt, from packs shuffled one after the other."""
        count = len(self.goals)
        batch = min(self.recipe.batch, count)
        places = range(self.step * batch, (self.step + 1) * batch)
        packs = {place // count for place in places}
        order = {pack: np.random.default_rng([self.recipe.seed, pack]).permutation(count) for pack in packs}
        return [int(order[place // count][place % count]) for place in places]

    def advance(self) -> float:
        """One step; returns its loss."""
        recipe, at = self.recipe, self._views()
        fall = 0.1 ** (self.step / recipe.steps) * min(1, (self.step + 1) / _WARM_UP)
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * fall
        goals = self.goals[at]
        posed = HeadParams(**{name: value[at] for name, value in self.params.items()})
        canonical, prior = self.residuals.apply()
        drawn = render_avatar(self.avatar.rig, canonical, posed, recipe.size)
        seen = exposed(drawn, self.gains()[at])
        loss = photo_loss(seen, drawn.alphas, goals, recipe)
        if self.perceptual is not None and self._uses_perceptual():
            inside = (seen * goals.valid + (1 - goals.valid)).clamp(0, 1)
            loss = loss + recipe.weight_lpips * self._perceived(self.perceptual, inside, at).mean()
        loss = loss + recipe.weight_prior * prior + self._hold()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _uses_perceptual(self) -> bool:
        share = self.recipe.lpips_share
        return int((self.step + 1) * share) > int(self.step * share)

    def _perceived(self, net: Perceptual, inside: Tensor, at: list[int]) -> Tensor:
        """(B,) perceptual distances of pictures to the goals of the views ``at``: whole ones up to
        ``recipe.lpips_window``, else windows of that side, drawn anew each time from where the person is."""
        side, window = self.recipe.size, self.recipe.lpips_window
        if side <= window:
            for view in set(at) - self._goal_features.keys():
                self._goal_features[view] = net.prepare(self.goals.images[[view]])
            planes = [torch.cat(same) for same in zip(*[self._goal_features[view] for view in at])]
            return net.distance(net.features(inside), planes)
        draw = np.random.default_rng([self.recipe.seed, self.step, side])
        parts, goals = [], []
        for row, view in enumerate(at):
            x, y = (self._place(view, axis, window, draw) for axis in (1, 0))
            parts.append(inside[row, y : y + window, x : x + window])
            goals.append(self.goals.images[view, y : y + window, x : x + window])
        return net.distance(net.features(torch.stack(parts)), net.prepare(torch.stack(goals)))

    def _place(self, view: int, axis: int, window: int, draw: np.random.Generator) -> int:
        """Where a window begins along an axis: inside the person's box as far as it fits there."""
        filled = (self.goals.mattes[view, ..., 0].amax(1 - axis) > 0.5).nonzero()[:, 0]
        side = self.recipe.size
        low, high = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, side)
        low = min(low, side - window)
        return int(draw.integers(low, max(low, min(high, side) - window) + 1))

    def _hold(self) -> Tensor:
        """What keeps the views' poses, expressions and exposures near where they began."""
        recipe = self.recipe
        expression = self.params["expression"]
        drift = expression.new_zeros(())
        for name, value in self.params.items():
            unit = 10 if name == "translation" else 1
            drift = drift + (unit * (value - getattr(self.read, name)).mean(0)).square().mean()
        gain = (self.log_gain / recipe.sigma_gain).square().mean()
        change = (expression - self.start.expression).square().mean()
        return recipe.weight_expression * change + recipe.weight_drift * drift + recipe.weight_prior * gain

    def state(self) -> dict[str, Any]:
        """Everything that changes, copied."""
        tensors = {**self.residuals.values, **self.params, "log_gain": self.log_gain}
        return {
            "step": self.step,
            "tensors": {name: value.detach().clone() for name, value in tensors.items()},
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Back to a ``state()`` of a fit of the same avatar, views and recipe."""
        tensors = {**self.residuals.values, **self.params, "log_gain": self.log_gain}
        with torch.no_grad():
            for name, value in tensors.items():
                value.copy_(state["tensors"][name])
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.step = state["step"]
