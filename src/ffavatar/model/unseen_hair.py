"""Hair where no photo shows it: the back of the head, and what lies behind a parting.

Colour alone, borrowed over the surface, makes a smooth cap. So the photos' fine detail is laid over it by tiling and
blending (Heitz and Neyret 2018): around seeds on the scalp, patches of hair that is seen are laid on the surface along
the hair's flow away from the whorl, and their contrasts added so that the variance stays where patches overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ffavatar.animate import Rig, pose_surface
from ffavatar.geometry import normalised_camera, project, quat_rotate
from ffavatar.head import Surface
from ffavatar.model.colours import unlikeness
from ffavatar.types import CanonicalGaussians, HeadParams, Views

WHORL = (0.0, 0.11, -0.075)  # metres on the template: the hair flows away from here
SEEDS = 48  # patches over the whole scalp
OVERLAP = 3  # patches that each point lies under
PATCH_M = 0.02  # standard deviation of a patch's weight
SAMPLES = 24  # places from which patches are taken, at most, far apart
ENOUGH = 40  # well seen splats of hair below which there is nothing to continue
SEEN, UNSEEN = 0.15, 0.5  # trust from which hair is well seen; confidence below which a splat needs detail
HAIR = 0.35  # likeness of hair from which a patch is taken
DETAIL_SIGMA = 14 / 512  # of the smoothing whose rest is detail, in crop sides
MOST_CONTRAST = 0.35


@dataclass(frozen=True)
class Frames:
    """Tangent frames on the surface, (K, 3) each, metres of the neutral head."""

    places: Tensor
    along: Tensor  # unit, the hair's flow
    across: Tensor  # unit


def _frames(points: Tensor, normals: Tensor) -> Frames:
    flow = points - points.new_tensor(WHORL)
    across = F.normalize(torch.linalg.cross(flow, normals), dim=-1)
    return Frames(points, torch.linalg.cross(normals, across), across)


def far_apart(points: Tensor, first: int, count: int) -> Tensor:
    """Farthest-point sampling of points (N, 3), from the one numbered ``first``: (min(count, N),) int64."""
    chosen = [first]
    distance = (points - points[first]).norm(dim=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen, device=points.device)


@torch.no_grad()
def unseen_detail(
    rig: Rig,
    canonical: CanonicalGaussians,
    hairy: Tensor,
    confidence: Tensor,
    trust: Tensor,
    skin: Tensor,
    views: Views,
    params: HeadParams,
) -> Tensor:
    """What to add to the colours of N splats so that unseen hair has the seen hair's detail. (N, 3)

    ``hairy`` (N,) bool, ``confidence`` (N,) in [0, 1] with which a splat's colour is its own, ``trust`` (S, N) of the
    views, ``skin`` (3,) the face's mean colour. Zero where there is too little hair to continue.
    """
    detail = torch.zeros_like(canonical.colors)
    points = rig.points() + canonical.offsets
    needy = (hairy & (confidence < UNSEEN)).nonzero()[:, 0]
    best, view = trust.max(0)
    good = (hairy & (best > SEEN) & (unlikeness(canonical.colors, skin) > HAIR)).nonzero()[:, 0]
    if len(good) < ENOUGH or not len(needy):
        return detail
    sources = good[far_apart(points[good], int(best[good].argmax()), SAMPLES)]
    seeds = needy[far_apart(points[needy], 0, SEEDS)]
    normals = F.normalize(quat_rotate(canonical.quats, points.new_tensor([0.0, 0, 1]).expand_as(points)), dim=-1)
    seed, source = _frames(points[seeds], normals[seeds]), _frames(points[sources], normals[sources])
    # neighbouring seeds take different sources, though none from far away when there are near ones
    order = torch.cdist(seed.places, source.places).argsort(1)
    taken = order[torch.arange(len(seeds)), torch.arange(len(seeds)) % min(5, len(sources))]

    distance, near = torch.cdist(points[needy], seed.places).topk(min(OVERLAP, len(seeds)), largest=False)
    weight = torch.exp(-0.5 * (distance / PATCH_M) ** 2) + 1e-6
    beside = points[needy][:, None] - seed.places[near]
    u, v = (beside * seed.across[near]).sum(-1), (beside * seed.along[near]).sum(-1)
    origin = taken[near]
    at = source.places[origin] + u[..., None] * source.across[origin] + v[..., None] * source.along[origin]
    contrast, sure = _contrast(rig, sources, origin, at - points[sources][origin], canonical, view, skin, views, params)
    total = (weight[..., None] * sure[..., None] * contrast).sum(1) / weight.square().sum(1).sqrt()[:, None]
    detail[needy] = (1 - confidence[needy])[:, None] * total.clamp(-MOST_CONTRAST, MOST_CONTRAST)
    return detail


def _contrast(
    rig: Rig,
    sources: Tensor,
    origin: Tensor,
    aside: Tensor,
    canonical: CanonicalGaussians,
    view: Tensor,
    skin: Tensor,
    views: Views,
    params: HeadParams,
) -> tuple[Tensor, Tensor]:
    """The photos' detail (M, K, 3) at places ``aside`` (M, K, 3) of the sources numbered ``origin`` (M, K), each in the
    view that sees its source best, and how surely it is hair's, (M, K) in [0, 1]."""
    surface: Surface = rig.surface
    few = replace(surface, parents=surface.parents[sources], barycentric=surface.barycentric[sources])
    posed, turn = pose_surface(replace(rig, surface=few), params)  # (S, E, ...)
    which = view[sources][origin]
    offset = canonical.offsets[sources][origin] + aside
    places = posed[which, origin] + quat_rotate(turn[which, origin], offset)
    uv, _ = project(places.flatten(0, 1)[None], normalised_camera(1, 1, places.device))
    maps = _maps(views)
    grid = (uv * 2 - 1)[:, :, None].expand(len(views), -1, -1, -1)
    found = F.grid_sample(maps, grid, align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)
    found = found[which.flatten(), torch.arange(which.numel(), device=which.device)].unflatten(0, which.shape)
    inside = ((uv[0] > 0) & (uv[0] < 1)).all(-1).unflatten(0, which.shape)
    sure = (found[..., 6] > 0.99) * inside * unlikeness(found[..., 3:6], skin)
    return found[..., :3], sure


def _maps(views: Views) -> Tensor:
    """(S, 7, H, W): detail, what it lies on, and 1 where all around is the person."""
    person = (views.mattes * views.valid)[:, None]
    images = views.images.permute(0, 3, 1, 2)
    size = images.shape[-1]
    sigma = DETAIL_SIGMA * size
    reach = max(1, round(2 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    maps = torch.cat([images * person, person], 1)
    row = (kernel / kernel.sum()).expand(4, 1, 1, -1)
    maps = F.conv2d(F.pad(maps, (reach, reach, 0, 0)), row, groups=4)
    maps = F.conv2d(F.pad(maps, (0, 0, reach, reach)), row.transpose(2, 3), groups=4)
    under = maps[:, :3] / maps[:, 3:].clamp_min(1e-3)
    whole = -F.max_pool2d(-person, 5, stride=1, padding=2)
    return torch.cat([images - under, under, (whole > 0.95).float()], 1)
