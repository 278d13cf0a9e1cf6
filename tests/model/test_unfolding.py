"""Closed eyes: no eyeball shows between the lids' Gaussians, and open eyes look as they did."""

from __future__ import annotations

import torch

from ffavatar.animate import Rig, render_avatar
from ffavatar.head import load_head
from ffavatar.model.anchors import point_spacing
from ffavatar.model.steadiness import BLINKS, unfolding
from ffavatar.model.unfolding import LEAST_GROWTH, unfolded
from ffavatar.types import CanonicalGaussians, HeadParams

LEVEL, SIZE = 2, 512


def scene():
    """The average head in grey with red eyeballs, its Gaussians as wide as the anchored decoder makes them."""
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(LEVEL))
    count = len(rig.surface)
    colors = torch.full((count, 3), 0.6)
    colors[head.regions["eyeballs"][rig.surface.parents].all(1)] = torch.tensor([1.0, 0.0, 0.0])
    spacing = point_spacing(rig.points(), rig.surface.faces)
    canonical = CanonicalGaussians(
        torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).expand(count, 4), 0.58 * spacing[:, None].expand(-1, 3),
        torch.full((count,), 0.99), colors,
    )  # fmt: skip
    return rig, canonical


def eyes(rig: Rig, closed: float) -> HeadParams:
    params = HeadParams.neutral(1, len(rig.head.expression_names), distance_m=0.6)
    for name in BLINKS:
        params.expression[0, rig.head.expression_names.index(name)] = closed
    return params


def redness(rig: Rig, canonical: CanonicalGaussians, closed: float) -> torch.Tensor:
    picture = render_avatar(rig, canonical, eyes(rig, closed), SIZE).images[0]
    return (picture[..., 0] - picture[..., 1]).clamp_min(0)


def test_the_eyeball_does_not_show_through_closed_lids():
    rig, canonical = scene()
    full_rig, full, origin = unfolded(rig, canonical, LEVEL)
    before, after = redness(rig, canonical, 1.0).sum(), redness(full_rig, full, 1.0).sum()
    assert before > 50
    assert after < 0.25 * before
    # what is added is like what it stands beside, on the same triangle
    assert torch.equal(origin[: len(canonical)], torch.arange(len(canonical)))
    added = origin[len(canonical) :]
    assert 500 < len(added) < 0.1 * len(canonical)
    assert torch.equal(full.colors[len(canonical) :], canonical.colors[added])
    assert torch.equal(full_rig.surface.parents[len(canonical) :], rig.surface.parents[added])
    torch.testing.assert_close(full_rig.surface.barycentric.sum(1), torch.ones(len(full)))
    assert full_rig.surface.barycentric.min() >= 0


def test_open_eyes_and_all_else_stay_as_they_are():
    rig, canonical = scene()
    full_rig, full, _ = unfolded(rig, canonical, LEVEL)
    for name, value in vars(canonical).items():
        assert torch.equal(getattr(full, name)[: len(canonical)], value)
    a, b = (render_avatar(*one, eyes(rig, 0.0), SIZE).images for one in ((rig, canonical), (full_rig, full)))
    assert (a - b).abs().mean() < 2e-4


def test_only_lids_unfold():
    rig = scene()[0]
    grows = unfolding(rig) > LEAST_GROWTH
    lids, eye = rig.head.regions["eyelids"], rig.neutral[rig.head.regions["eyeballs"]]
    assert 0 < int(grows.sum()) < 400
    near = torch.cdist(rig.neutral[grows], eye).amin(1) < 0.03
    assert near.all() and (grows & lids).sum() > 0.4 * grows.sum()
