"""What is learned of a person on top of an avatar: residuals on the attributes of its Gaussians.

A residual is the sum of a part that is smooth over the surface, spread from control nodes, and a small part of each
Gaussian's own. Both are scaled by how far the views see them, so what no view shows stays as the network made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ffavatar.animate import render_avatar
from ffavatar.avatar import Avatar
from ffavatar.geometry import axis_angle_to_quat, quat_multiply
from ffavatar.personal.recipe import PersonalRecipe
from ffavatar.types import CanonicalGaussians, HeadParams

_OPACITY_RANGE = (0.005, 0.995)  # the logits of fully opaque and fully clear Gaussians would have no gradient
_SEEN_SIZE = 256  # pixels at which ``PersonalRecipe.seen_px`` counts


class _Product(torch.autograd.Function):
    """A sparse matrix (N, K) times values (K, C). Both it and its transpose are at hand in the order in which they are
    walked, which makes the way back as quick as the way there: ``embedding_bag`` sorts N k rows in each."""

    @staticmethod
    def forward(values: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        return torch.sparse.mm(matrix, values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.transposed = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return torch.sparse.mm(ctx.transposed, gradient), None, None


@dataclass(frozen=True)
class Nodes:
    """Control nodes near N Gaussians; rows of ``weights`` sum to one."""

    weights: Tensor  # (N, K) sparse
    transposed: Tensor  # (K, N) sparse

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
        weight = weight / weight.sum(1, keepdim=True)
        places = torch.stack(
            [torch.arange(len(points), device=points.device).repeat_interleave(reach), index.flatten()]
        )
        weights = torch.sparse_coo_tensor(places, weight.flatten(), (len(points), count), check_invariants=False)
        return Nodes(weights.coalesce(), weights.t().coalesce())

    def spread(self, values: Tensor) -> Tensor:
        """Values at the nodes (K, C) -> at the Gaussians (N, C)."""
        return _Product.apply(values, self.weights, self.transposed)

    def gather(self, values: Tensor) -> Tensor:
        """Weighted means of what the Gaussians (N, C) around each node have -> (K, C)."""
        total = torch.sparse.mm(self.transposed, torch.cat([values, torch.ones_like(values[:, :1])], 1))
        return total[:, :-1] / total[:, -1:].clamp_min(1e-9)


def seen_pixels(avatar: Avatar, params: HeadParams, valid: Tensor) -> Tensor:
    """How many pixels each Gaussian colours in the views posed by ``params``, summed over them. (N,)

    The derivative of a picture's sum by a Gaussian's colour is the sum of its blending weights, whatever lies before or
    behind it. ``valid`` (S, H, W, 1) leaves out pixels outside the photos.
    """
    made = avatar.canonical
    total = torch.zeros_like(made.opacities)
    for view in range(len(params)):
        colors = made.colors.detach().clone().requires_grad_(True)
        canonical = CanonicalGaussians(made.offsets, made.quats, made.scales, made.opacities, colors)
        drawn = render_avatar(avatar.rig, canonical, params[view : view + 1], valid.shape[1])
        (gradient,) = torch.autograd.grad((drawn.images * valid[view]).sum(), colors)
        total += gradient[:, 0]
    return total.clamp_min(0) * (_SEEN_SIZE / valid.shape[1]) ** 2


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
        self.seen = (pixels / (pixels + recipe.seen_px))[:, None]
        """(N, 1) in [0, 1)."""
        self.node_seen = self.nodes.gather(self.seen)
        low, high = _OPACITY_RANGE
        self._logit = torch.logit(self.base.opacities.clamp(low, high))
        self.values = {
            name: self.seen.new_zeros(len(self._scale(name)), channels).requires_grad_(True)
            for name, channels in SHAPES.items()
        }

    def _scale(self, name: str) -> Tensor:
        return self.node_seen if name.startswith("node") else self.seen

    def _residual(self, name: str) -> Tensor:
        return self._scale(name) * self.values[name]

    def apply(self) -> CanonicalGaussians:
        """The avatar's Gaussians with the residuals; differentiable. Where a residual is zero nothing changes."""
        base, limit = self.base, self.recipe.max_scale
        opacity = self._residual("opacity")[:, 0]
        change = torch.sigmoid(self._logit + opacity) - torch.sigmoid(self._logit)
        smooth = torch.cat([self._residual("node_offset"), self._residual("node_color")], 1)
        smooth_offset, smooth_color = self.nodes.spread(smooth).split(3, 1)
        return CanonicalGaussians(
            offsets=base.offsets + smooth_offset + self._residual("offset"),
            quats=quat_multiply(base.quats, axis_angle_to_quat(self._residual("turn"))),
            scales=base.scales * torch.exp(self._residual("scale").clamp(-limit, limit)),
            opacities=(base.opacities + change).clamp(0, 1),
            colors=(base.colors + smooth_color + self._residual("color")).clamp(0, 1),
        )

    def prior(self) -> Tensor:
        """Mean squared residuals in their sigmas, more for what is hardly seen."""
        terms = []
        for name, value in self.values.items():
            scale = self._scale(name)
            held = 1 + self.recipe.unseen_pull * (1 - scale)
            sigma = getattr(self.recipe, f"sigma_{name}")
            terms.append((held * (scale * value / sigma).square()).mean())
        return torch.stack(terms).sum()
