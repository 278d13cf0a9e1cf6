"""Long hair behind the neck, which photos from the front do not show.

Hair that hangs beside the neck on both sides goes on behind it. What has grown there from the photos (``outgrowth.py``)
tells how long it is and where it leads; between the two sides a curtain is hung from the hem of the scalp's hair,
straight down and over the shoulders, as far as both sides reach in the mean. Near them it takes their place and colour,
behind the scalp's.

All is measured around an upright axis through the neck of the resting head: height, angle from the front, radius.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig, pose_surface
from ffavatar.geometry import quat_rotate, turn_z_to
from ffavatar.model.anchors import hairy_vertices
from ffavatar.model.colours import unlikeness
from ffavatar.model.outgrowth import SCALE_OF_CELL, nearest
from ffavatar.model.reading import known_mattes, mattes_at
from ffavatar.types import CanonicalGaussians, HeadParams, Views

REACH_M = 0.17  # radius beyond which nothing is hair of the back
SPACING_M = (0.012, 0.007, 0.004)  # between neighbours of the curtain, per subdivision level
HAIR = 0.5  # likeness from which a Gaussian is hair: unlike the face, and like what is seen of the scalp
TINT_SIGMA, LIGHT_SIGMA = 0.03, 0.4  # of that likeness: chromaticity, and logarithm of the brightness
PALETTE = 64  # colours of the scalp that others are compared with
SEEN_FROM_M = -0.02  # of the scalp, what lies before this (z of the resting head) is taken for seen

RING_M, MOST_RINGS = 0.008, 25  # rings below the lobes of the ears in which hair is looked for
LEAST_WIDTH_M = 0.008  # of the hair on one side of a ring, as it covers it, or it has none
MOST_MISSING = 3  # rings in a row that may have none
FEWEST_RINGS = 4  # with hair on the longer side, from which it is long
SHORTER = 0.3  # of the longer side's length, that the shorter must have: else it hangs before one shoulder
SIDE_RAD = 1.2  # angle from the front at which hair beside the neck leads to the back

ABOVE_LOBES_M, UNDER_CAP_M = 0.03, -0.004  # where the curtain begins: so high, and so far under the scalp's hair
EMERGES_M = 0.02  # below the lobes, where it has come out from under it
OVER_HEM_M, OVER_SKIN_M = 0.003, 0.008  # outside of that hair's hem, and at least outside of neck and shoulders
FADE_M = 0.03  # distance along the curtain in which the sides' influence falls to 1/e
RADIUS_M = 0.09  # by which angles are reckoned as lengths
STRANDS, STRAND_M, MOST_CONTRAST = 64, 0.004, 0.12  # different ones, how wide, and how much lighter or darker
OPACITY, PERSON = 0.97, 0.7  # of the curtain, and the matte that every photo must show where it hangs
WIDTHS = (0.7, 1.0, 0.35)  # standard deviations across, down and through it, in spacings
NEAR_M = 0.02  # softens the weights of the base vertices that each Gaussian hangs on


@dataclass(frozen=True)
class _Around:
    """N points around the axis."""

    height: Tensor  # (N,) metres
    angle: Tensor  # (N,) radians from the front over the left (x > 0), in [0, 2 pi)
    radius: Tensor  # (N,) metres

    @staticmethod
    def of(points: Tensor, axis_z: Tensor) -> _Around:
        x, z = points[:, 0], points[:, 2] - axis_z
        return _Around(points[:, 1], torch.atan2(x, z) % (2 * torch.pi), torch.hypot(x, z))


@dataclass(frozen=True)
class _Side:
    """Where the hair of one side ends towards the back, in R rings from the lobes down."""

    angle: Tensor  # (R,) radians from the front, whichever side it is
    radius: Tensor  # (R,) metres
    color: Tensor  # (3,)


def hang_behind(
    rig: Rig, canonical: CanonicalGaussians, grown: int, views: Views, params: HeadParams, hangers: Tensor, level: int
) -> tuple[Rig, CanonicalGaussians]:
    """The avatar with a curtain of hair behind its neck, where long hair hangs on both sides of it; else unchanged.

    The last ``grown`` of the Gaussians are those that grew from ``views`` (S,), posed by ``params``. ``hangers`` (K,):
    base vertices that may carry hair. What is added comes last, and no gradient reaches it.
    """
    hung_rig, hung = _hang(rig, canonical, grown, views, params, hangers, level)
    return hung_rig, canonical if hung is canonical else canonical.extended(hung)


@torch.no_grad()
def _hang(
    rig: Rig, canonical: CanonicalGaussians, grown: int, views: Views, params: HeadParams, hangers: Tensor, level: int
) -> tuple[Rig, CanonicalGaussians]:
    regions = rig.head.regions
    if not grown or not {"ears", "neck", "face"} <= set(regions):
        return rig, canonical
    points = rig.points() + canonical.offsets
    axis_z, lobes = rig.neutral[regions["neck"]][:, 2].mean(), float(rig.neutral[regions["ears"]][:, 1].min())
    scalp = hairy_vertices(rig.head)[rig.surface.parents].all(1)
    scalp[-grown:] = False
    face = canonical.colors[regions["face"][rig.surface.parents].all(1)].mean(0)
    cap = canonical.colors[scalp & (points[:, 2] < axis_z)]
    seen = canonical.colors[scalp & (points[:, 2] > SEEN_FROM_M)]
    if min(len(cap), len(seen)) < PALETTE:
        return rig, canonical
    colors = canonical.colors[-grown:]
    hair = (unlikeness(colors, face) > HAIR) & (_likeness(colors, seen) > HAIR)
    hair &= canonical.opacities[-grown:] > 0.5
    areas = (canonical.scales[-grown:, 0] / SCALE_OF_CELL).square()
    sides = _sides(_Around.of(points[-grown:][hair], axis_z), colors[hair], areas[hair], lobes)
    if sides is None:
        return rig, canonical
    spacing = SPACING_M[min(level, len(SPACING_M) - 1)]
    skin = _Around.of(points[:-grown], axis_z)
    places, normals, shown = _curtain(*sides, skin, cap, lobes, spacing)
    places[:, 2] += axis_z
    return _hung(rig, canonical, places, normals, shown, spacing, views, params, hangers)


def _likeness(colors: Tensor, seen: Tensor) -> Tensor:
    """In [0, 1]: how like the usual ones of the colours ``seen`` (M, 3), in whatever light, ``colors`` (N, 3) are."""
    few = seen[torch.linspace(0, len(seen) - 1, 2000, device=seen.device).long()]
    apart = (few - few.median(0).values).norm(dim=1)
    usual = few[apart.argsort()[: len(few) * 4 // 5]]  # the rest is skin, highlights and background
    tints, lights = _tint_and_light(usual[torch.linspace(0, len(usual) - 1, PALETTE, device=seen.device).long()])
    tint, light = _tint_and_light(colors)
    off = torch.cdist(tint, tints).amin(1) / TINT_SIGMA
    beyond = (light - light.clamp(float(lights.min()), float(lights.max()))) / LIGHT_SIGMA
    return torch.exp(-0.5 * (off.square() + beyond.square()))


def _tint_and_light(colors: Tensor) -> tuple[Tensor, Tensor]:
    """Chromaticity (N, 3), steadied in the dark, and logarithm of the brightness (N,)."""
    lifted = colors + 0.08
    return lifted / lifted.sum(-1, keepdim=True), lifted.mean(-1).log()


def _sides(hair: _Around, colors: Tensor, areas: Tensor, lobes: float) -> tuple[_Side, _Side] | None:
    """Left and right hair, in rings down to the mean of where they end; None where it is not long on both sides.

    ``areas`` (N,) square metres that each of the Gaussians covers.
    """
    inside = hair.radius < REACH_M
    ring = ((lobes - hair.height) / RING_M).floor()
    whole = 2 * torch.pi
    beside = [(inside & (hair.angle < torch.pi), hair.angle), (inside & (hair.angle >= torch.pi), whole - hair.angle)]
    ends: list[list[Tensor | None]] = [[], []]
    for found, (where, angle) in zip(ends, beside):
        for k in range(MOST_RINGS):
            here = where & (ring == k)
            if float(areas[here].sum()) < LEAST_WIDTH_M * RING_M:
                found.append(None)
                continue
            rear = angle[here].quantile(0.8)
            near = here & (angle > rear - 0.3)
            found.append(torch.stack([rear, hair.radius[near].median()]))
    lengths = [_length([end is not None for end in found]) for found in ends]
    if max(lengths) < FEWEST_RINGS or min(lengths) < SHORTER * max(lengths):
        return None
    count = round(sum(lengths) / 2)
    sides = []
    for found, (where, _) in zip(ends, beside):
        known = [k for k, end in enumerate(found[:count]) if end is not None]
        nearest = [found[min(known, key=lambda k: abs(k - n))] for n in range(count)]
        angle, radius = _smoothed(torch.stack([end for end in nearest if end is not None], 1))
        if float(angle.median()) < SIDE_RAD:
            return None
        sides.append(_Side(angle, radius, colors[where].median(0).values))
    return sides[0], sides[1]


def _length(present: list[bool]) -> int:
    """Rings from the first down to the last one that has hair, before too many in a row have none."""
    ends = [-1, *(k for k, has in enumerate(present) if has)]
    length = 0
    for above, below in pairwise(ends):
        if below - above > MOST_MISSING + 1:
            break
        length = below + 1
    return length


def _smoothed(values: Tensor) -> Tensor:
    """Rows of values (D, R), smoothed along each."""
    kernel = values.new_tensor([1.0, 2, 3, 2, 1])
    padded = F.pad(values[:, None], (2, 2), mode="replicate")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def _curtain(
    left: _Side, right: _Side, skin: _Around, cap: Tensor, lobes: float, spacing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Places about the axis (P, 3), normals (P, 3) and colours (P, 3) of the curtain between two sides.

    ``skin``: the surface, with the hair of the scalp, whose colours behind are ``cap`` (M, 3).
    """
    usual = cap.median(0).values
    order = torch.randperm(len(cap), generator=torch.Generator().manual_seed(0))[:STRANDS].to(cap.device)
    contrast = (cap[order] - usual).mean(-1).clamp(-MOST_CONTRAST, MOST_CONTRAST)
    top, bottom = lobes + ABOVE_LOBES_M, lobes - RING_M * len(left.angle)
    places, normals, shown = [], [], []
    for height in torch.arange(top, bottom, -spacing).tolist():
        ring = (lobes - height) / RING_M - 0.5
        angle, radius = (
            [_between(getattr(side, name), ring) for side in (left, right)] for name in ("angle", "radius")
        )
        sweep = 2 * torch.pi - sum(angle)
        share = torch.linspace(0, 1, max(2, round(sweep * RADIUS_M / spacing)), device=cap.device)
        theta = angle[0] + share * sweep  # from the left side round the back to the right one
        near = [torch.exp(-along * sweep * RADIUS_M / FADE_M) for along in (share, 1 - share)]
        down = min(max((lobes - height) / EMERGES_M, 0.0), 1.0)
        hem = _outermost(skin, theta, lobes) + OVER_HEM_M
        hanging = hem + down * sum(one * (r - hem) for one, r in zip(near, radius))
        over = UNDER_CAP_M + down * (OVER_SKIN_M - UNDER_CAP_M)
        out = torch.maximum(hanging * down, _outermost(skin, theta, height) + over)
        x, z, level = theta.sin(), theta.cos(), torch.full_like(theta, height)
        places.append(torch.stack([out * x, level, out * z], 1))
        normals.append(torch.stack([x, torch.zeros_like(x), z], 1))
        mixed = usual + sum(one[:, None] * side.color for one, side in zip(near, (left, right)))
        strand = (theta * RADIUS_M / STRAND_M).round().long() % len(contrast)
        shown.append(mixed / (1 + near[0] + near[1])[:, None] + contrast[strand, None])
    return torch.cat(places), torch.cat(normals), torch.cat(shown).clamp(0, 1)


def _outermost(skin: _Around, theta: Tensor, height: float) -> Tensor:
    """The greatest radius of the surface near each of the angles ``theta`` (T,) at one height; 0 where it has none."""
    band = ((skin.height - height).abs() < RING_M) & (skin.radius < REACH_M)
    near = (theta[:, None] - skin.angle[band]).abs() < 0.12
    none = skin.radius.new_zeros(len(theta), 1)
    return torch.cat([none, torch.where(near, skin.radius[band], 0.0)], 1).amax(1)


def _between(values: Tensor, number: float) -> float:
    """Values (R,) at a fractional number, held at both ends."""
    number = min(max(number, 0.0), len(values) - 1.0)
    low = int(number)
    return float(torch.lerp(values[low], values[min(low + 1, len(values) - 1)], number - low))


def _hung(
    rig: Rig,
    canonical: CanonicalGaussians,
    places: Tensor,
    normals: Tensor,
    colors: Tensor,
    spacing: float,
    views: Views,
    params: HeadParams,
    hangers: Tensor,
) -> tuple[Rig, CanonicalGaussians]:
    """The avatar with Gaussians at ``places`` (P, 3) of the resting head, but for those where a photo shows nobody."""
    rest = rig.neutral[hangers]
    near, weights = nearest(places, rest, NEAR_M)
    offsets = places - (rest[near] * weights[..., None]).sum(1)
    surface = replace(rig.surface, parents=hangers[near], barycentric=weights)
    base, turn = pose_surface(replace(rig, surface=surface), params)
    kept = mattes_at(known_mattes(views), base + quat_rotate(turn, offsets)).amin(0) > PERSON
    added = CanonicalGaussians(
        offsets=offsets,
        quats=turn_z_to(normals),
        scales=spacing * places.new_tensor(WIDTHS).expand(len(places), 3),
        opacities=places.new_full((len(places),), OPACITY),
        colors=colors,
    )
    joined = {name: torch.cat([value, getattr(added, name)[kept]]) for name, value in vars(canonical).items()}
    surface = replace(
        rig.surface,
        parents=torch.cat([rig.surface.parents, surface.parents[kept]]),
        barycentric=torch.cat([rig.surface.barycentric, weights[kept]]),
    )
    return replace(rig, surface=surface), CanonicalGaussians(**joined)
