"""Native posing of Gaussians against the readable form in float64, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ffavatar.geometry import quat_multiply, quat_rotate
from ffavatar.render import attach, can_attach

FRAMES, VERTICES, POINTS = 2, 40, 9000  # more points than one piece of work holds


def inputs() -> list[Tensor]:
    """vertices, turns, parents, barycentric, offsets, quats; vertex 7 carries nothing."""
    generator = torch.Generator().manual_seed(5)
    parents = torch.randint(0, VERTICES - 1, (POINTS, 3), generator=generator)
    parents[parents == 7] = VERTICES - 1
    weights = torch.rand(POINTS, 3, generator=generator)
    near_one = normalize(
        torch.tensor([1.0, 0, 0, 0]) + 0.5 * torch.randn(FRAMES, VERTICES, 4, generator=generator), dim=-1
    )
    return [
        torch.randn(FRAMES, VERTICES, 3, generator=generator),
        near_one,
        parents,
        weights / weights.sum(1, keepdim=True),
        0.3 * torch.randn(POINTS, 3, generator=generator),
        normalize(torch.randn(POINTS, 4, generator=generator), dim=-1),
    ]


def readable(vertices: Tensor, turns: Tensor, parents: Tensor, barycentric: Tensor, offsets: Tensor, quats: Tensor):
    mixed = (torch.cat([vertices, turns], -1)[:, parents] * barycentric[..., None]).sum(2)
    turn = normalize(mixed[..., 3:], dim=-1)
    return mixed[..., :3] + quat_rotate(turn, offsets), quat_multiply(turn, quats)


LEARNED = (0, 1, 4, 5)


def gradients(function, given: list[Tensor], cotangents: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    given = [t.clone().requires_grad_(i in LEARNED) for i, t in enumerate(given)]
    made = function(*given)
    return [t.detach() for t in made], list(torch.autograd.grad(made, [given[i] for i in LEARNED], cotangents))


def test_values_and_gradients_against_float64() -> None:
    given = inputs()
    assert can_attach(given[0], given[1])
    generator = torch.Generator().manual_seed(6)
    cotangents = [torch.randn(FRAMES, POINTS, c, generator=generator) for c in (3, 4)]
    values, found = gradients(attach, given, cotangents)
    exact = [t.double() if t.is_floating_point() else t for t in given]
    wanted_values, wanted = gradients(readable, exact, [c.double() for c in cotangents])
    for a, b in zip(values + found, wanted_values + wanted):
        assert float((a - b).abs().max()) < 2e-5 * float(b.abs().max())
    assert not found[0][:, 7].any() and not found[1][:, 7].any()
    with torch.no_grad():
        for a, b in zip(attach(*given), values):
            assert torch.equal(a, b)


def test_threads_change_no_bit() -> None:
    given, before = inputs(), torch.get_num_threads()
    cotangents = [torch.ones(FRAMES, POINTS, c) * torch.arange(POINTS)[:, None] for c in (3, 4)]
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            values, found = gradients(attach, given, cotangents)
            results.append(values + found)
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_other_precisions_take_the_readable_form() -> None:
    assert not can_attach(torch.zeros(3), torch.zeros(3, dtype=torch.float64))


def test_second_derivatives_are_refused() -> None:
    given = [t.clone().requires_grad_(i in LEARNED) for i, t in enumerate(inputs())]
    (first,) = torch.autograd.grad(attach(*given)[0].square().sum(), given[4], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
