"""More Gaussians in the lids, which unfold.

A lid is folded away while the eye is open, and its splats lie as close as the open eye needs them; when it shuts, the
surface grows to several times its area, and the eyeball shows through between them. So further ones, of the same looks,
are put between them on the same triangles; the open eye hides them in the fold.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ffavatar.animate import Rig
from ffavatar.model.steadiness import unfolding
from ffavatar.types import CanonicalGaussians

LEAST_GROWTH, AGAIN = 1.6, 2.6
"""Ratios of areas: where points get neighbours, and from where on, and at each doubling of it, those get theirs."""
ROUNDS = 3
_EDGES = ((1.0, -1.0, 0.0), (0.0, 1.0, -1.0), (-1.0, 0.0, 1.0))


@torch.no_grad()
def unfolded(rig: Rig, canonical: CanonicalGaussians, level: int) -> tuple[Rig, CanonicalGaussians, Tensor]:
    """The avatar with Gaussians added where closing eyes spread its skin; and the number of the Gaussian beside which
    each was put, or its own (N,).

    ``level`` of the head's subdivision tells how far apart its points are: 2 ** -level of a triangle's side. What was
    there keeps its place in the order.
    """
    surface = rig.surface
    growth = surface.interpolate(unfolding(rig)[:, None])[:, 0]
    index = torch.nonzero(growth > LEAST_GROWTH)[:, 0]
    at = surface.barycentric[index]
    parents, places = [index], [at]
    for number in range(ROUNDS):
        wide = growth[index] > (AGAIN * 2 ** (number - 1) if number else LEAST_GROWTH)
        index, at = index[wide], at[wide]
        half = 2.0 ** -(level + number + 1)
        between = torch.cat([at + half * at.new_tensor(edge) for edge in _EDGES])
        inside = (between > -1e-6).all(1)  # beyond an edge the next triangle's points have theirs
        fresh, between = index.repeat(len(_EDGES))[inside], between[inside].clamp_min(0)
        parents.append(fresh)
        places.append(between / between.sum(1, keepdim=True))
        index, at = torch.cat([index, fresh]), torch.cat([at, places[-1]])
    source = torch.cat(parents[1:])
    surface = replace(
        surface,
        parents=torch.cat([surface.parents, surface.parents[source]]),
        barycentric=torch.cat([surface.barycentric, *places[1:]]),
    )
    grown = {name: torch.cat([value, value[source]]) for name, value in vars(canonical).items()}
    return (
        replace(rig, surface=surface),
        CanonicalGaussians(**grown),
        torch.cat([torch.arange(len(canonical), device=source.device), source]),
    )
