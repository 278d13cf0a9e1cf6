"""What a lifted skin cannot reach: long hair beside the neck, hats, wide collars.

Where a view's matte shows the person and the avatar made so far does not, Gaussians are put on the picture's grid at
the depth of the nearest surface. They hang on the nearby scalp, neck and torso by an offset and pose like all others.

Some only fill slits, up to ten pixels of 512 wide, between the avatar's outline and the photo's. Along an outline depth
changes by centimetres from one pixel to the next, and when the head turns they lie strewn over the surface: dots, if
they had the colours of the photo's edge. So their own colours are those of the surface beneath, and what the photo
shows is for its own pose (``Shares`` in ``model/feedback.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig, pose_gaussians
from ffavatar.geometry import NORMALISED_FOCAL, normalised_camera, project, quat_rotate
from ffavatar.render import rasterize
from ffavatar.types import CanonicalGaussians, HeadParams, Views

GRID_PX = (96, 160, 256)
"""Pixels of the grid on a crop's side, per subdivision level: about as fine as the surface's own Gaussians."""
COVERED, UNCOVERED = 0.8, 0.95  # alpha from which a pixel's depth is known, and below which the avatar is missing
PERSON = 0.5  # matte from which a pixel shows the person
SCALE_OF_CELL = 0.7  # standard deviation, in cells of the grid
MOST_STRETCH = 1.6  # by which they are widened where the head's rest sets them further apart than the view does
UNDERLAP = 2  # cells by which they reach under what is there
UNDER_M, UNDER_FACE_M = 0.004, 0.02  # how deep below it, and below a face
NOTHING_M = 1e3  # depth where the avatar covers nothing
BESIDE_FACE = 8  # cells beside a face in which they come forward again
SLIT = 5 / 256  # of a crop's side, three cells at least; a gap that no square of so much fits into is a slit
LEAST_BENEATH = 0.5  # sum of opacities about a base vertex from which it tells the colour of the surface
OPACITY = 0.97
AGREEMENT = (0.2, 0.8)  # mean matte of the other views at which a point vanishes, and from which it stays whole
COLOUR_SIGMA = 0.3  # difference (RGB, Euclidean) at which another view's colour speaks against a point
FACE_SIGMA, DIM = 0.4, 0.15  # the same before the face, relative to the mean of both colours' brightness and this
BEHIND_M = 0.006  # a point that lies less far behind what a view shows must have its colour, too
EDGE_PX, SURELY = 5, 0.9  # pixels about which the matte must be so high for the middle's colour to be the person's
PARENTS = 3
NEAR_M = 0.01  # softens the parents' weights, which fall with the distance
_REACH = 5  # halvings of the grid over which depth is extended: 32 cells


def outgrow(
    rig: Rig, canonical: CanonicalGaussians, views: Views, params: HeadParams, hangers: Tensor, level: int
) -> tuple[Rig, CanonicalGaussians, Tensor]:
    """The avatar with what its source views show beyond it, a view adding what those before it left open; and which of
    all Gaussians only fill slits, (N,) bool.

    ``hangers`` (K,): base vertices that may carry such points. The result does not depend on the views' order: they are
    taken by how far the head is turned. The added Gaussians are evidence, not learned: no gradient reaches them.
    """
    grown_rig, grown, in_slit = _grow(rig, canonical, views, params, hangers, level)
    return grown_rig, canonical.extended(grown), in_slit


@torch.no_grad()
def _grow(
    rig: Rig, canonical: CanonicalGaussians, views: Views, params: HeadParams, hangers: Tensor, level: int
) -> tuple[Rig, CanonicalGaussians, Tensor]:
    grid = GRID_PX[min(level, len(GRID_PX) - 1)]
    person = _shrink(views.mattes * views.valid, grid)
    valid = _shrink(views.valid, grid) > 0.99
    colors = _shrink(views.images.permute(0, 3, 1, 2), grid)
    inner = _cored(colors, person)
    count = len(views)
    posed = rig.head.pose(rig.neutral.expand(count, -1, -1), rig.joints.expand(count, -1, -1), params)
    places, turns, rest = posed.vertices[:, hangers], F.normalize(posed.quats[:, hangers], dim=-1), rig.neutral[hangers]
    face = ~torch.isin(rig.surface.parents, hangers).any(1)
    bare, in_slit = (rig, canonical), torch.zeros(len(canonical), dtype=torch.bool, device=places.device)
    surfaces = torch.stack([_front(*_drawn(rig, canonical, params[i : i + 1], grid, face)) for i in range(count)])
    for view in torch.argsort(params.root.norm(dim=-1) + params.neck.norm(dim=-1), stable=True).tolist():
        alpha, (depth,) = _drawn(rig, canonical, params[view : view + 1], grid)
        extended, known = extend(depth, (alpha > COVERED).float())
        shown = (person[view, 0] > PERSON) & valid[view, 0] & known
        gap = shown & (alpha < UNCOVERED)
        if not gap.any():
            continue
        # some lie under the rim of what is there already, which may part from them in motion; deeper under a face's,
        # before which they would show when it turns
        beyond = shown & (surfaces[view, 0] == NOTHING_M)  # what other views let grow there before makes it no narrower
        near, wide = _widened(gap, UNDERLAP), _opened(beyond, max(3, round(SLIT * grid) | 1))
        slit = torch.where(gap, ~wide, ~_widened(wide, UNDERLAP))
        rim, face_rim = (shown & near & ~gap & (surfaces[view, 1].gt(0.5) == is_face) for is_face in (False, True))
        own = _carried_on(inner[view], gap)
        # at the depth of a face's outline they would stand on its cheek as a line of dots when it turns
        beside = UNDER_FACE_M * _beside(surfaces[view, 1].gt(0.5), BESIDE_FACE)
        for part, deep in ((gap, beside), (rim, UNDER_M), (face_rim, UNDER_FACE_M)):
            points = hung(part, extended + deep, places, turns, view, rest)
            share = _agreement(points.posed, own[:, part].T, person, valid, colors, surfaces, view)
            stretch = points.stretch.clamp_max(MOST_STRETCH if part is gap else 1.0)
            added = CanonicalGaussians(
                offsets=points.offsets,
                quats=share.new_tensor([1.0, 0, 0, 0]).expand(len(share), 4),
                scales=SCALE_OF_CELL * (points.cell * stretch)[:, None].expand(-1, 3),
                opacities=OPACITY * share,
                colors=own[:, part].T,
            )
            kept = share > 0
            canonical = _joined(canonical, added, kept)
            in_slit = torch.cat([in_slit, slit[part][kept]])
            surface = replace(
                rig.surface,
                parents=torch.cat([rig.surface.parents, hangers[points.near[kept]]]),
                barycentric=torch.cat([rig.surface.barycentric, points.weights[kept]]),
            )
            rig = replace(rig, surface=surface)
    if not in_slit.any():
        return rig, canonical, in_slit
    beneath = _colors_beneath(*bare, (rig.points() + canonical.offsets)[in_slit])
    colors = canonical.colors.masked_scatter(in_slit[:, None], beneath)
    return rig, replace(canonical, colors=colors), in_slit


def _colors_beneath(rig: Rig, canonical: CanonicalGaussians, points: Tensor) -> Tensor:
    """Mean colours of the avatar's Gaussians around the base vertices that are nearest to resting points (P, 3)."""
    surface = rig.surface
    share = (surface.barycentric * canonical.opacities[:, None])[..., None]
    values = torch.cat([canonical.colors, rig.points() + canonical.offsets, torch.ones_like(share[:, 0])], -1)
    total = values.new_zeros(len(rig.neutral), values.shape[1])
    total.index_add_(0, surface.parents.flatten(), (share * values[:, None]).flatten(0, 1))
    total = total[total[:, -1] > LEAST_BENEATH]  # what was carved away tells nothing
    colors, places = (total[:, :-1] / total[:, -1:]).split(3, 1)
    found = []
    for part in points.split(4096):
        near, weights = nearest(part, places, NEAR_M)
        found.append((colors[near] * weights[..., None]).sum(1))
    return torch.cat(found)


def _widened(mask: Tensor, reach: int) -> Tensor:
    """A mask (H, W) bool with ``reach`` cells around it."""
    return F.max_pool2d(mask[None, None].float(), 2 * reach + 1, 1, reach)[0, 0] > 0


def _opened(mask: Tensor, side: int) -> Tensor:
    """What of a mask (H, W) bool squares of ``side`` cells, an odd number, cover that fit into it."""
    return _widened(~_widened(~mask, side // 2), side // 2)


def _shrink(maps: Tensor, grid: int) -> Tensor:
    """(S, H, W) or (S, C, H, W) -> (S, C, grid, grid), averaged."""
    maps = maps if maps.dim() == 4 else maps[:, None]
    return F.interpolate(maps, (grid, grid), mode="bilinear", align_corners=False, antialias=True)


def _cored(colors: Tensor, person: Tensor) -> Tensor:
    """Colours (S, 3, H, W) with those at the matte's edge, into which background is mixed, taken from further in."""
    core = (-F.max_pool2d(-person, EDGE_PX, 1, padding=EDGE_PX // 2) > SURELY).float()
    return torch.stack([_carried_on(one, inside[0] > 0) for one, inside in zip(colors, core)])


def _beside(mask: Tensor, reach: int) -> Tensor:
    """1 in a mask (H, W) and in the cells next to it, falling evenly to 0 beyond ``reach`` cells from it."""
    ring = mask[None].float()
    total = torch.zeros_like(ring)
    for _ in range(reach):
        ring = F.max_pool2d(ring, 3, 1, 1)
        total += ring
    return total[0] / reach


def _carried_on(colors: Tensor, told: Tensor) -> Tensor:
    """Colours (3, H, W) with those outside ``told`` (H, W) bool replaced by those of the nearest places inside."""
    out = colors.clone()
    for channel in range(3):
        found, near = extend(colors[channel], told.to(colors))
        out[channel] = torch.where(near, found, colors[channel])
    return out


def _drawn(
    rig: Rig, canonical: CanonicalGaussians, params: HeadParams, grid: int, *marks: Tensor
) -> tuple[Tensor, Tensor]:
    """Alpha (grid, grid) of the avatar in one view, and the means of depth, which is 0 where nothing is, and of each
    of the Gaussians' ``marks`` (N,): (1 + M, grid, grid)."""
    posed = pose_gaussians(rig, canonical, params)
    camera = normalised_camera(grid, 1, posed.means.device)
    _, depth = project(posed.means, camera)
    values = torch.stack([depth, *(mark.to(depth)[None] for mark in marks)], -1)
    drawn, alpha, _ = rasterize(
        posed.means, posed.quats, posed.scales, posed.opacities, values, camera.world_to_cam, camera.K, grid, grid,
    )  # fmt: skip
    return alpha[0, ..., 0], (drawn[0] / alpha[0].clamp_min(1e-3)).permute(2, 0, 1)


def extend(depth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (H, W) carried from where it is known to what lies near, by means over ever larger cells (push-pull).

    Returns the depth and where it could be told, a bool mask (H, W).
    """
    levels = [(known * depth, known)]
    for _ in range(_REACH):
        levels.append(tuple(F.avg_pool2d(value[None], 2, ceil_mode=True)[0] for value in levels[-1]))  # type: ignore[arg-type]
    total, weight = levels.pop()
    for finer_total, finer_weight in reversed(levels):
        size = finer_total.shape
        total, weight = (
            F.interpolate(value[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            for value in (total, weight)
        )
        empty = finer_weight == 0
        total, weight = torch.where(empty, total, finer_total), torch.where(empty, weight, finer_weight)
    return total / weight.clamp_min(1e-9), weight > 1e-9


@dataclass(frozen=True)
class Hung:
    """P points beyond the surface, and what they hang on."""

    near: Tensor  # (P, PARENTS) among the hangers
    weights: Tensor  # (P, PARENTS), sum 1
    offsets: Tensor  # (P, 3) metres, of the canonical head
    posed: Tensor  # (S, P, 3) where they stand in every view
    cell: Tensor  # (P,) metres between neighbours, as the view shows them
    stretch: Tensor  # (P,) >= 1: how many times further apart the resting head sets them, seen from its front


def hung(gap: Tensor, depth: Tensor, places: Tensor, turns: Tensor, view: int, rest: Tensor) -> Hung:
    """The pixels ``gap`` (P, P) bool of one of S views as points at ``depth`` (P, P) metres, hung on the nearest of
    hangers that rest at ``rest`` (K, 3), and are posed at ``places`` (S, K, 3), turned by ``turns`` (S, K, 4)."""
    grid = gap.shape[-1]
    row, column = gap.nonzero(as_tuple=True)
    far = depth[row, column]
    x, y = ((index + 0.5) / grid - 0.5 for index in (column, row))
    points = torch.stack([x * far / NORMALISED_FOCAL, -y * far / NORMALISED_FOCAL, -far], -1)
    near, weights = nearest(points, places[view], NEAR_M)
    base, turn = _carried(places, turns, near, weights)
    offsets = quat_rotate(turn[view] * turn.new_tensor([1.0, -1, -1, -1]), points - base[view])
    cell = far / (NORMALISED_FOCAL * grid)
    resting = (rest[near] * weights[..., None]).sum(1) + offsets
    stretch = points.new_ones(len(points))
    number = torch.full(gap.shape, -1, device=gap.device)
    number[gap] = torch.arange(len(points), device=gap.device)
    for one, other in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:])):
        both = (one >= 0) & (other >= 0)
        a, b = one[both], other[both]
        ratio = (resting[a] - resting[b])[:, :2].norm(dim=-1) / (0.5 * (cell[a] + cell[b]))
        for end in (a, b):
            stretch[end] = torch.maximum(stretch[end], ratio)
    return Hung(near, weights, offsets, base + quat_rotate(turn, offsets), cell, stretch)


def nearest(points: Tensor, places: Tensor, soften_m: float) -> tuple[Tensor, Tensor]:
    """The ``PARENTS`` nearest of ``places`` (K, 3) to each of ``points`` (P, 3): their numbers and weights, sum 1."""
    distance, near = torch.cdist(points, places).topk(PARENTS + 1, largest=False)
    # zero where the next one takes a parent's place, or neighbours with other parents would part in motion
    weights = (distance[:, -1:] - distance[:, :-1] + 1e-6) / (distance[:, :-1] + soften_m)
    return near[:, :-1], F.normalize(weights, p=1, dim=1)


def _carried(places: Tensor, turns: Tensor, near: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mixtures of hangers stand in every view, and how they are turned: (S, P, 3), (S, P, 4)."""
    base = (places[:, near] * weights[..., None]).sum(2)
    return base, F.normalize((turns[:, near] * weights[..., None]).sum(2), dim=-1)


def _front(alpha: Tensor, drawn: Tensor) -> Tensor:
    """Depth in front of which a view would see a point, infinite where the avatar covers nothing; and whether that
    is the face. (2, H, W)"""
    depth, face = drawn
    covered = alpha > UNCOVERED
    return torch.stack([torch.where(covered, depth, NOTHING_M), covered * face])


def _agreement(
    points: Tensor, own: Tensor, person: Tensor, valid: Tensor, colors: Tensor, surfaces: Tensor, view: int
) -> Tensor:
    """In [0, 1]: how far the other views agree that points (S, P, 3), posed in each, exist. (P,)

    Their mattes must show the person there; and a view in which a point would stand before the surface, or in it, must
    show its colour ``own`` (P, 3). Outside a photo nothing is known, and nothing is held against a point.
    """
    count = len(points)
    if count == 1:
        return points.new_ones(points.shape[1])
    uv, depth = project(points, normalised_camera(1, count, points.device))
    maps = torch.cat([torch.where(valid, person, 1.0), colors, surfaces], 1)
    seen = F.grid_sample(maps, (uv * 2 - 1)[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    inside = ((uv > 0) & (uv < 1)).all(-1)
    matte = torch.where(inside, seen[:, 0], 1.0)
    before = inside & (depth < seen[:, 4] + BEHIND_M)
    shown = seen[:, 1:4].transpose(1, 2)
    difference = (shown - own).norm(dim=-1)
    over_face = difference / (FACE_SIGMA * ((shown + own).mean(-1) / 2 + DIM))
    doubt = torch.where(before, torch.where(seen[:, 5] > 0.5, over_face, difference / COLOUR_SIGMA), 0.0)
    doubt[view] = 0
    mean = (matte.sum(0) - matte[view]) / (count - 1)
    low, high = AGREEMENT
    same = torch.exp(-0.5 * doubt.amax(0) ** 2)
    return ((mean - low) / (high - low)).clamp(0, 1) * same


def _joined(first: CanonicalGaussians, second: CanonicalGaussians, kept: Tensor) -> CanonicalGaussians:
    return CanonicalGaussians(
        **{name: torch.cat([value, getattr(second, name)[kept]]) for name, value in vars(first).items()}
    )
