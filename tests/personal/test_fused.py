"""The native residuals against the readable ones in float64, gradients included."""

from __future__ import annotations

import torch
from made_avatar import small_avatar
from torch import Tensor

from ffavatar.personal import PersonalRecipe, fused
from ffavatar.personal.residuals import SHAPES, Nodes, Residuals
from ffavatar.types import CanonicalGaussians

NAMES = tuple(SHAPES)


def setting(dtype: torch.dtype) -> Residuals:
    """Residuals of a random avatar, seen to random degrees; with a size of turn and scale that reach every branch."""
    generator = torch.Generator().manual_seed(2)
    count = len(small_avatar())
    base = CanonicalGaussians(
        offsets=0.01 * torch.randn(count, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        scales=0.004 * torch.exp(0.3 * torch.randn(count, 3, generator=generator)),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )
    made = object.__new__(Residuals)
    made.base = CanonicalGaussians(**{name: value.to(dtype) for name, value in vars(base).items()})
    made.recipe = PersonalRecipe(max_scale=0.5)
    nodes = Nodes.over(small_avatar().rig.points(), 200, 8)
    made.nodes = Nodes(nodes.index, nodes.weights.to(dtype), nodes.count)
    made.seen = torch.rand(count, 1, generator=generator).to(dtype)
    made.seen[::5] = 0
    made.node_seen = torch.rand(200, 1, generator=generator).to(dtype)
    made._logit = torch.logit(made.base.opacities.clamp(0.005, 0.995))
    spread = {"node_offset": 0.01, "node_color": 0.3, "offset": 0.01, "scale": 0.5, "turn": 1.0, "opacity": 2.0,
              "color": 0.3}  # fmt: skip
    made.values = {}
    for name, channels in SHAPES.items():
        value = spread[name] * torch.randn(200 if name.startswith("node") else count, channels, generator=generator)
        if name == "turn":
            value[::3] *= 1e-3  # the series near zero
            value[1] = 0
        made.values[name] = value.to(dtype).requires_grad_(True)
    made._prepare()
    return made


def outcome(residuals: Residuals, cotangents: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    changed, prior = residuals.apply()
    made = [*vars(changed).values(), prior]
    dtype = made[0].dtype
    values = [residuals.values[name] for name in NAMES]
    found = torch.autograd.grad(made, values, [c.to(dtype) for c in cotangents])
    return [t.detach() for t in made], list(found)


def cotangents() -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    base = small_avatar().canonical
    return [torch.randn(value.shape, generator=generator) for value in vars(base).values()] + [torch.tensor(1e3)]


def test_values_and_gradients_against_float64() -> None:
    native, readable = setting(torch.float32), setting(torch.float64)
    assert fused.can_fuse(native.base) and not fused.can_fuse(readable.base)
    given = cotangents()
    values, found = outcome(native, given)
    wanted_values, wanted = outcome(readable, given)
    for a, b in zip(values, wanted_values):
        assert float((a - b).abs().max()) < 1e-5 * float(b.abs().max())
    for name, a, b in zip(NAMES, found, wanted):
        # at the edge of a clamp the two precisions may fall on different sides: a handful of places
        wrong = (a - b).abs() > 1e-4 * float(b.abs().max())
        assert int(wrong.sum()) <= 2, name


def test_the_avatar_itself_is_not_changed_by_zeros() -> None:
    native = setting(torch.float32)
    for value in native.values.values():
        value.detach().zero_()
    changed, prior = native.apply()
    for before, after in zip(vars(native.base).values(), vars(changed).values()):
        torch.testing.assert_close(before, after.detach(), atol=1e-6, rtol=1e-6)
    assert float(prior.detach()) == 0


def test_threads_change_no_bit() -> None:
    given, before = cotangents(), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            values, found = outcome(setting(torch.float32), given)
            results.append([*values, *[found[NAMES.index(name)] for name in fused.OWN], found[0], found[1]])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))
