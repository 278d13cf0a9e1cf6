"""Splats at the outline, cut to fit the mattes.

The surface's Gaussians are as wide as its triangles, up to a centimetre where hair lifts it. One whose middle lies
inside a matte reaches over its edge, one whose middle lies outside leaves a notch. So each that meets an edge is
replaced by the Gaussian that has mean and covariance of its part inside.

Skin and clothes are a closed surface: cut where one view has its outline, they would gape where another looks straight
at them. They sink as a whole, and take what lies around along; only what cannot sink far enough vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ffavatar.animate import Rig, pose_gaussians
from ffavatar.geometry import quat_multiply, quat_rotate
from ffavatar.model.reading import known_mattes, mattes_at
from ffavatar.types import CanonicalGaussians, HeadParams, Views

REACH, SAMPLES = 1.5, 5  # a splat is looked at on a grid of so many points a side, up to so many standard deviations
WHOLE = 0.9  # of the carving: a splat all of whose corners keep so much is left alone
CARVE_POWER = 2.0  # exponent of the least matte value that any view shows of a point
LEAST_PART = (0.04, 0.08)  # part inside from which a splat is drawn at all, and from which at its full opacity
LOST = 0.5  # opacity left to a splat below which it sinks, rather than leave a hole in the head
SINK_STEP_M, SUNK = 0.002, 0.7  # steps in which it sinks, and the carving that is deep enough
SLOPE = 0.4  # at most, of how deep the skin is sunk, along it: a step would be a crack
_EASINGS = 12  # edges of the base mesh that an ease may be long: 5 cm, as the deepest dent asks
THINNEST = 0.25  # least width that is left, as a part of the former one


def carved(matte: Tensor) -> Tensor:
    """Opacity that all views' mattes leave to points, (S, N) -> (N,): what a view shows as background is empty. Of
    three or more views one may err, and then counts half, for no estimate of a pose is exact."""
    least = matte.sort(0).values
    second = least[1] if len(matte) >= 3 else least[0]
    return (0.5 * least[0] + 0.5 * second) ** CARVE_POWER


@dataclass(frozen=True)
class _Cut:
    """How P of the splats are changed."""

    which: Tensor  # (P,)
    shift: Tensor  # (P, 3) metres in the splat's own axes, along the surface
    depth: Tensor  # (P,) metres below the surface
    turn: Tensor  # (P, 4) quaternion, about the splat's third axis
    width: Tensor  # (P, 3) factors
    opacity: Tensor  # (P,) factor


def trim(
    rig: Rig,
    canonical: CanonicalGaussians,
    carve: Tensor,
    views: Views,
    params: HeadParams,
    outer: Tensor,
    sinks: Tensor,
    closed: Tensor,
) -> CanonicalGaussians:
    """``canonical`` with its opacities carved, and with its splats at the mattes' edges cut to their parts inside.

    ``carve`` (N,) is the opacity that the mattes leave at the splats' middles; ``outer`` (N,) bool: what may be cut
    (not the mouth's inside); ``sinks`` (N,): metres that a splat may sink into the head where it is carved
    away; ``closed`` (N,) bool: skin and clothes, which are not cut to parts. Thickness and colour stay. Gradients reach
    the splats through the change, not the change itself.
    """
    cut = _measured(rig, canonical, views, params, outer, sinks, closed)
    at, quats = cut.which, canonical.quats[cut.which]
    depth = _eased(rig, sinks.new_zeros(len(sinks)).index_copy(0, at, cut.depth), sinks * outer)
    below = quat_rotate(canonical.quats, quats.new_tensor([0.0, 0, -1]).expand(len(depth), 3)) * depth[:, None]
    return CanonicalGaussians(
        offsets=(canonical.offsets + below).index_add(0, at, quat_rotate(quats, cut.shift)),
        quats=canonical.quats.index_copy(0, at, quat_multiply(quats, cut.turn)),
        scales=canonical.scales.index_copy(0, at, canonical.scales[at] * cut.width),
        opacities=canonical.opacities * carve.index_copy(0, at, cut.opacity),
        colors=canonical.colors,
    )


@torch.no_grad()
def _measured(
    rig: Rig,
    canonical: CanonicalGaussians,
    views: Views,
    params: HeadParams,
    outer: Tensor,
    sinks: Tensor,
    closed: Tensor,
) -> _Cut:
    """Moments of the splats' parts within the mattes, for all that do not lie wholly inside."""
    known = known_mattes(views)
    posed = pose_gaussians(rig, canonical, params)
    axis_x, axis_y = torch.eye(3).to(canonical.scales)[:2]

    def left_at(which: Tensor, at: Tensor) -> Tensor:
        """The carving at points ``at`` (Q, 2), in standard deviations along the splats' first two axes: (P, Q)."""
        scales, quats = canonical.scales[which], posed.quats[:, which]
        along_x, along_y = quat_rotate(quats, axis_x * scales[:, :1]), quat_rotate(quats, axis_y * scales[:, 1:2])
        beside = along_x[:, :, None] * at[:, :1] + along_y[:, :, None] * at[:, 1:]
        points = posed.means[:, which, None] + beside
        return carved(mattes_at(known, points.flatten(1, 2))).unflatten(0, (-1, len(at)))

    line = torch.linspace(-REACH, REACH, SAMPLES, device=outer.device)
    grid = torch.cartesian_prod(line, line)  # (Q, 2)
    corners = grid[[0, SAMPLES - 1, len(grid) // 2, -SAMPLES, -1]]
    all_splats = torch.arange(len(outer), device=outer.device)
    which = (outer & (left_at(all_splats, corners).amin(1) < WHOLE)).nonzero()[:, 0]

    bell = torch.exp(-0.5 * grid.square().sum(1))
    left = left_at(which, grid)
    weight = bell * left
    total = weight.sum(1).clamp_min(1e-6)
    scales = canonical.scales[which]
    places = grid * scales[:, None, :2]  # (P, Q, 2) metres along the two axes
    mean = (weight[..., None] * places).sum(1) / total[:, None]
    about = places - mean[:, None]
    covariance = torch.einsum("pq,pqi,pqj->pij", weight, about, about) / total[:, None, None]
    unit = (bell * grid[:, 0] ** 2).sum() / bell.sum()  # what an uncut splat of width 1 would measure on this grid
    variances, angle = _principal(covariance / unit + 1e-12 * torch.eye(2, device=bell.device))
    widths = torch.maximum(variances.clamp_min(0).sqrt(), THINNEST * scales[:, :2].amin(1, True)) / scales[:, :2]
    half = 0.5 * angle
    low, high = LEAST_PART
    part = ((total / bell.sum() - low) / (high - low)).clamp(0, 1)
    opacity = part * (weight * left).sum(1) / total
    shift = torch.cat([mean, torch.zeros_like(mean[:, :1])], 1)

    depth, found = _sunk(posed.quats[:, which], posed.means[:, which], known, float(sinks.max()))
    sunk = found & (depth <= sinks[which] + SINK_STEP_M / 2) & (opacity < LOST)
    whole = sunk | (closed[which] & (opacity >= LOST))
    half, opacity = half.masked_fill(whole, 0.0), opacity.masked_fill(whole, 1.0)
    widths = torch.cat([widths.masked_fill(whole[:, None], 1.0), torch.ones_like(depth)[:, None]], 1)
    nothing = torch.zeros_like(half)
    turn = torch.stack([half.cos(), nothing, nothing, half.sin()], -1)
    return _Cut(which, shift.masked_fill(whole[:, None], 0.0), depth * sunk, turn, widths, opacity)


def _principal(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (P, 2), ascending, of covariances (P, 2, 2), and the angle (P,) by which the first axis turns to that
    of the lesser one, at most a quarter turn; 0 where both are the same.

    In closed form: CUDA's solvers of eigenvalues fail on large batches of small matrices. The lesser variance is the
    determinant over the greater one (as in LAPACK's ``laev2``), for the difference of mean and radius would cancel.
    """
    a, b, d = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    great = 0.5 * (a + d) + torch.hypot(0.5 * (a - d), b)
    safe = great.clamp_min(torch.finfo(great.dtype).tiny)
    small = torch.maximum(a, d) / safe * torch.minimum(a, d) - b / safe * b
    return torch.stack([small, great], 1), 0.5 * torch.atan2(-2 * b, d - a)


@torch.no_grad()
def _eased(rig: Rig, depth: Tensor, deepest: Tensor) -> Tensor:
    """Depths (N,) of the surface's points that change by no more than ``SLOPE`` along the base mesh, linearly over each
    triangle: at most ``deepest`` (N,), and no further short of ``depth`` (N,) than triangles and that make them."""
    parents, faces, places = rig.surface.parents, rig.head.faces, rig.neutral
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    start, end = torch.cat([edges, edges.flip(1)]).unbind(1)
    along = SLOPE * (places[start] - places[end]).norm(dim=-1)
    fall = SLOPE * (rig.points()[:, None] - places[parents]).norm(dim=-1)  # (N, 3) from a point to its base vertices
    low = depth.new_zeros(len(places))
    low = low.scatter_reduce(0, parents.flatten(), (depth[:, None] - fall).flatten(), "amax")
    high = torch.full_like(low, torch.inf)
    high = high.scatter_reduce(0, parents.flatten(), deepest.repeat_interleave(3), "amin")
    for _ in range(_EASINGS):
        low = low.scatter_reduce(0, end, low[start] - along, "amax")
        high = high.scatter_reduce(0, end, high[start] + along, "amin")
    return rig.surface.interpolate(low.minimum(high)[:, None])[:, 0]


def _sunk(quats: Tensor, means: Tensor, known: Tensor, deepest: float) -> tuple[Tensor, Tensor]:
    """How deep below the surface posed splats (S, P, 4), (S, P, 3) first lie within all mattes: (P,) metres, and
    whether they do."""
    depths = SINK_STEP_M * torch.arange(1, max(1, round(deepest / SINK_STEP_M)) + 1, device=means.device)
    normal = quat_rotate(quats, means.new_tensor([0.0, 0, 1]).expand_as(means))
    points = means[:, :, None] - normal[:, :, None] * depths[:, None]
    left = carved(mattes_at(known, points.flatten(1, 2))).unflatten(0, (-1, len(depths)))
    within = left > SUNK
    first = within.int().argmax(1)
    return depths[first], within.any(1)
