"""Colours that come and go with expression and view: folds that only a smile shows, teeth as each open mouth shows
them, light that changes as the head turns.

Lasting colours are the mean of what all views show, and a mean of several expressions has none of them; nor have they
what is true from a photo's own side only, such as an ear seen from the front. So each source view, be it the only one,
keeps what it shows beyond them, and lends it, place by place, to pictures in which the surface lies there as it
did in that view and is seen from about the same side. (That detail belongs to the deformation that it was seen in: Ma
et al., "Facial performance synthesis using deformation-driven polynomial displacement maps", SIGGRAPH Asia 2008.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ffavatar.head import Surface
from ffavatar.render import can_attach, mix_shades
from ffavatar.types import Shades

MOVED_M = 2e-3  # standard deviations of what counts as alike: how far expressions moved the skin,
TURNED_RAD = 0.12  # and from where the head is seen
LASTING = 0.02  # weight of no shade at all: far from all views the lasting colours remain


def closeness(
    moved: Float[Tensor, "#B V 3"],
    turned: Float[Tensor, "#B 3 3"],
    moved_then: Float[Tensor, "K V 3"],
    turned_then: Float[Tensor, "K 3 3"],
) -> Float[Tensor, "B V K"]:
    """How alike B pictures and K views are at each base vertex, in [0, 1].

    ``moved``: how far expression and jaw took each vertex from rest, metres; ``turned``: the head's rotation before the
    camera. For small angles the squared distance of two rotation matrices is twice that of the rotations.
    """
    return torch.exp(-distance(moved, turned, moved_then, turned_then))


def distance(
    moved: Float[Tensor, "#B V 3"],
    turned: Float[Tensor, "#B 3 3"],
    moved_then: Float[Tensor, "K V 3"],
    turned_then: Float[Tensor, "K 3 3"],
) -> Float[Tensor, "B V K"]:
    """Half the squared distance whose exponential is :func:`closeness`, in standard deviations; arguments as there."""
    apart = (moved[:, None] - moved_then).square().sum(-1) / MOVED_M**2  # (B, K, V)
    angle = (turned[:, None] - turned_then).square().sum((-1, -2)) / (2 * TURNED_RAD**2)  # (B, K)
    return (0.5 * (apart + angle[..., None])).transpose(1, 2)


def shaded(
    colors: Float[Tensor, "N 3"], shades: Shades, alike: Float[Tensor, "B V K"], surface: Surface
) -> Float[Tensor, "B N 3"]:
    """``colors`` with the shades of the views that are ``alike``."""
    if can_attach(alike, shades.certainty, surface.barycentric, shades.colors):
        on = surface.parents, surface.barycentric
        shade = mix_shades(alike, shades.certainty, *on, shades.colors, LASTING)
    else:
        shade = mixed(alike, shades, surface)
    return (colors + shade).clamp(0, 1)


def mixed(alike: Float[Tensor, "B V K"], shades: Shades, surface: Surface) -> Float[Tensor, "B N 3"]:
    """The readable form of ``mix_shades``."""
    weights = surface.interpolate(alike) * shades.certainty
    weights = weights / (weights.sum(-1, keepdim=True) + LASTING)
    return (weights[..., None] * shades.colors).sum(-2)
