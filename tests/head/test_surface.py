"""Subdivision: counts, weights, and that points lie on their triangles."""

from __future__ import annotations

import pytest
import torch
from made_flame import topology

from ffavatar.head import load_head
from ffavatar.head.surface import subdivide


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.mark.parametrize("level, low, high", [(0, 5_000, 6_500), (1, 18_000, 26_000), (2, 70_000, 100_000)])
def test_points_lie_on_base_triangles(head, level, low, high):
    surface = head.surface(level)
    assert low < len(surface) < high
    assert torch.allclose(surface.barycentric.sum(-1), torch.ones(len(surface)))
    assert surface.barycentric.min() >= 0
    triangles = {tuple(sorted(f)) for f in head.faces.tolist()}
    corners = {frozenset(c) for t in triangles for c in (t, t[:2], t[1:], t[::2], t[:1], t[1:2], t[2:])}
    for parents, weights in zip(surface.parents[::7].tolist(), surface.barycentric[::7].tolist()):
        assert frozenset(p for p, w in zip(parents, weights) if w > 0) in corners
    assert len(surface.faces) == len(head.faces) * 4**level
    assert surface.faces.max() == len(surface) - 1 and surface.faces.unique().numel() == len(surface)


def test_points_are_distinct_blends(head):
    surface = head.surface(2)
    dense = torch.zeros(len(surface), 3, dtype=torch.float64)
    order = surface.parents.argsort(-1)
    key = surface.parents.gather(1, order).double() * surface.barycentric.gather(1, order).double()
    dense += key * torch.tensor([1.0, 1e5, 1e10], dtype=torch.float64)
    weights = surface.barycentric.gather(1, order).double()
    full = torch.cat([surface.parents.gather(1, order).double(), weights], 1)
    assert full.unique(dim=0).shape[0] == len(surface)


def test_area_and_uv_are_kept(head):
    vertices = head.v_template

    def area(points, faces):
        a, b, c = points[faces].unbind(1)
        return torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2

    surface = head.surface(1)
    assert torch.isclose(area(surface.interpolate(vertices), surface.faces), area(vertices, head.faces), rtol=1e-4)
    assert surface.faces_uv.shape == surface.faces.shape and surface.faces_uv.max() < len(surface.uvs)
    first, whole = surface.uvs[surface.faces_uv].mean(1).mean(0), head.uvs[head.faces_uv].mean(1).mean(0)
    assert torch.allclose(first, whole, atol=1e-5)


def test_interpolation_of_batches_and_gradients(head):
    surface = head.surface(1)
    values = torch.randn(2, 3, len(head.v_template), 4, dtype=torch.float64, requires_grad=True)
    out = surface.interpolate(values)
    weights = surface.barycentric.double()[..., None]
    wanted = (values[..., surface.parents, :] * weights).sum(-2)
    assert out.shape == (2, 3, len(surface), 4) and torch.allclose(out, wanted)
    cotangent = torch.randn_like(out)
    first, second = (torch.autograd.grad(o, values, cotangent, retain_graph=True)[0] for o in (out, wanted))
    assert torch.allclose(first, second)


def test_surface_is_cached(head):
    assert head.surface(1) is head.surface(1)


def test_flame_counts():
    """FLAME's 5,023 vertices and 9,976 faces give the paper's 20,018 and 79,936 points."""
    points, faces = topology()
    empty = torch.zeros(0, 2).numpy(), torch.zeros(0, 3, dtype=torch.int64).numpy()
    assert len(subdivide(faces, len(points), *empty, 1)) == 20_018
    assert len(subdivide(faces, len(points), *empty, 2)) == 79_936
