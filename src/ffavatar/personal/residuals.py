"""What is learned of a person on top of an avatar: residuals on the attributes of its Gaussians.

A residual is the sum of a part that is smooth over the surface, spread from control nodes, and a small part of each
Gaussian's own. Both are scaled by how far the views see them, so what no view shows stays as the network made it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ffavatar.animate import pose_gaussians, render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.geometry import axis_angle_to_quat, normalised_camera, quat_multiply
from ffavatar.model.steadiness import steadiness
from ffavatar.personal import fused
from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.types import CanonicalGaussians, HeadParams

_OPACITY_RANGE = (0.005, 0.995)  # the logits of fully opaque and fully clear Gaussians would have no gradient
_SEEN_SIZE = 256  # pixels at which ``PersonalRecipe.seen_px`` counts


@dataclass(frozen=True)
class Nodes:
    """K control nodes near N Gaussians, each of which follows R of them."""

    index: Tensor  # (N, R) int64 in [0, K)
    weights: Tensor  # (N, R), rows sum to one
    count: int  # K

    @staticmethod
    def over(points: Tensor, count: int, reach: int) -> Nodes:
        """``count`` of the points (N, 3), each as far as can be from those before it, and their smooth weights.

        The weights fall as a Gaussian of the distance whose width is 0.7 of the distance to the node half as far down
        each point's list, so that every point follows several nodes however densely they lie.
        """
        count = min(count, len(points))
        reach = min(reach, count)
        chosen = points.new_zeros(count, dtype=torch.int64)
        nearest = (points - points[0]).square().sum(-1)
        for i in range(1, count):
            chosen[i] = nearest.argmax()
            nearest = torch.minimum(nearest, (points - points[chosen[i]]).square().sum(-1))
        distances, indices = [], []
        for part in points.split(8192):
            distance, index = torch.cdist(part, points[chosen]).topk(reach, largest=False)
            distances.append(distance)
            indices.append(index)
        distance, index = torch.cat(distances), torch.cat(indices)
        width = 0.7 * distance[:, reach // 2 : reach // 2 + 1].clamp_min(1e-6)
        weight = torch.exp(-0.5 * (distance / width).square())
        return Nodes(index, weight / weight.sum(1, keepdim=True), count)

    def spread(self, values: Tensor) -> Tensor:
        """Values at the nodes (K, C) -> at the Gaussians (N, C)."""
        return embedding_bag(self.index, values, per_sample_weights=self.weights, mode="sum")

    def gather(self, values: Tensor) -> Tensor:
        """Weighted means of what the Gaussians (N, C) around each node have -> (K, C)."""
        shares = (torch.cat([values, torch.ones_like(values[:, :1])], 1)[:, None] * self.weights[..., None]).flatten(
            0, 1
        )
        total = shares.new_zeros(self.count, shares.shape[1]).index_add(0, self.index.flatten(), shares)
        return total[:, :-1] / total[:, -1:].clamp_min(1e-9)


def blended_values(avatar: Avatar, params: HeadParams, maps: Tensor) -> Tensor:
    """What the pixels of maps (S, H, W, C) hold, summed for each Gaussian with its blending weights in the views posed
    by ``params``, whatever lies before or behind it. (N, C)

    That is the derivative of the sum of rendered picture times map by a Gaussian's channels.
    """
    total = avatar.canonical.colors.new_zeros(len(avatar), maps.shape[-1])
    camera = normalised_camera(maps.shape[1], 1, maps.device)
    for view in range(len(params)):
        with torch.no_grad():
            posed = pose_gaussians(avatar.rig, avatar.canonical, params[view : view + 1])
        channels = torch.zeros_like(total).requires_grad_(True)
        drawn = render_gaussians(replace(posed, colors=channels), camera, total.new_zeros(maps.shape[-1]))
        (gradient,) = torch.autograd.grad((drawn.images * maps[view]).sum(), channels)
        total += gradient
    return total


def seen_pixels(avatar: Avatar, params: HeadParams, valid: Tensor) -> Tensor:
    """How many pixels each Gaussian colours in the views posed by ``params``, summed over them. (N,)

    ``valid`` (S, H, W, 1) leaves out pixels outside the photos.
    """
    return blended_values(avatar, params, valid)[:, 0].clamp_min(0) * (_SEEN_SIZE / valid.shape[1]) ** 2


SHAPES = {
    "node_offset": 3, "node_color": 3, "offset": 3, "scale": 3, "turn": 3, "opacity": 1, "color": 3,
}  # fmt: skip
"""Residuals and their channels: at the nodes where the name says so, else at the Gaussians."""


class Residuals:
    """Residuals of one avatar; ``values`` are what an optimiser changes."""

    def __init__(self, avatar: Avatar, params: HeadParams, valid: Tensor, recipe: PersonalRecipe):
        self.base, self.recipe = avatar.canonical.detach(), recipe
        with torch.no_grad():
            self.nodes = Nodes.over(avatar.rig.points() + self.base.offsets, recipe.nodes, recipe.node_reach)
        pixels = seen_pixels(avatar, params, valid)
        seen = (pixels / (pixels + recipe.seen_px))[:, None]
        self.node_seen = self.nodes.gather(seen)
        self.seen = seen * steadiness(avatar.rig, params)[:, None]
        """(N, 1) in [0, 1): how far a Gaussian takes residuals of its own."""
        low, high = _OPACITY_RANGE
        self._logit = torch.logit(self.base.opacities.clamp(low, high))
        self.values = {
            name: self.seen.new_zeros(len(self._scale(name)), channels).requires_grad_(True)
            for name, channels in SHAPES.items()
        }

        self._prepare()

    def _prepare(self) -> None:
        """Lays out for the native form what does not change, where that form serves."""
        recipe, self._fixed = self.recipe, None
        if fused.can_fuse(self.base):
            self._fixed = fused.Fixed.of(
                self.base, self._logit, self.seen[:, 0], self.nodes.index, self.nodes.weights, self.nodes.count,
                tuple(self._sigma(name) for name in fused.OWN), recipe.max_scale, recipe.unseen_pull,
            )  # fmt: skip

    def _scale(self, name: str) -> Tensor:
        return self.node_seen if name.startswith("node") else self.seen

    def _sigma(self, name: str) -> float:
        return getattr(self.recipe, f"sigma_{name}")

    def _residual(self, name: str) -> Tensor:
        return self._scale(name) * self.values[name]

    def _smooth(self) -> Tensor:
        """(K, 6) offsets and colours at the nodes."""
        return torch.cat([self._residual("node_offset"), self._residual("node_color")], 1)

    def apply(self) -> tuple[CanonicalGaussians, Tensor]:
        """The avatar's Gaussians with the residuals, and the prior: mean squared residuals in their sigmas, more for
        what is hardly seen. Both differentiable. Where a residual is zero nothing changes."""
        nodes = self._prior("node_offset") + self._prior("node_color")
        if self._fixed is None:
            return self._changed(), nodes + sum(self._prior(name) for name in fused.OWN)
        changed, prior = fused.apply(self._fixed, self._smooth(), self.values)
        return changed, nodes + prior

    def _changed(self) -> CanonicalGaussians:
        """The readable form of what ``fused.apply`` does natively."""
        base, limit = self.base, self.recipe.max_scale
        opacity = self._residual("opacity")[:, 0]
        change = torch.sigmoid(self._logit + opacity) - torch.sigmoid(self._logit)
        smooth_offset, smooth_color = self.nodes.spread(self._smooth()).split(3, 1)
        return CanonicalGaussians(
            offsets=base.offsets + smooth_offset + self._residual("offset"),
            quats=quat_multiply(base.quats, axis_angle_to_quat(self._residual("turn"))),
            scales=base.scales * torch.exp(self._residual("scale").clamp(-limit, limit)),
            opacities=(base.opacities + change).clamp(0, 1),
            colors=(base.colors + smooth_color + self._residual("color")).clamp(0, 1),
        )

    def _prior(self, name: str) -> Tensor:
        scale = self._scale(name)
        held = 1 + self.recipe.unseen_pull * (1 - scale)
        return (held * (scale * self.values[name] / self._sigma(name)).square()).mean()
