"""Coarse splats split into finer ones: which, what they cover, and what they gain."""

from __future__ import annotations

import torch

from ffavatar.geometry import NORMALISED_FOCAL, normalised_camera
from ffavatar.model import create_model, splitting
from ffavatar.model.decoder import CERTAIN, DOUBTFUL, UNSURE, AnchoredDecoder
from ffavatar.model.reading import Sampled
from ffavatar.model.splitting import APART, COARSE, coarse_splats, four_of, replaced
from ffavatar.render import rasterize
from ffavatar.types import CanonicalGaussians


def splats(count: int, width: float = 0.01) -> CanonicalGaussians:
    generator = torch.Generator().manual_seed(3)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    return CanonicalGaussians(
        offsets=0.1 * torch.randn(count, 3, generator=generator),
        quats=quats,
        scales=width * (0.5 + torch.rand(count, 3, generator=generator)),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )


def test_four_have_the_mean_and_nearly_the_covariance_of_the_one() -> None:
    """By moments in float64: the mixture's mean is the splat's place, its variance along each of the two axes APART² +
    1/4 of it, and nothing moves along the third."""
    made = splats(20)
    which = torch.arange(20)
    four = four_of(made, which)
    offsets = four.offsets.double().unflatten(0, (4, 20))
    assert torch.allclose(offsets.mean(0), made.offsets.double(), atol=1e-7)
    w, x, y, z = made.quats.double().unbind(-1)
    columns = [
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ]
    aside = offsets - made.offsets.double()
    for axis, column in enumerate(columns):
        along = (aside * torch.stack(column, -1)).sum(-1)
        spread = along.square().mean(0) / made.scales[:, axis].double() ** 2
        assert torch.allclose(spread, torch.full_like(spread, APART**2 if axis < 2 else 0.0), atol=1e-5)
    assert torch.equal(four.scales, made.scales.repeat(4, 1) / 2)


def test_a_wall_of_splats_stays_closed_when_it_is_split() -> None:
    """Splats on a grid, as wide as the head's (0.58 of their spacing): the split wall lets no light through either."""
    line = torch.arange(-10, 11) * 0.01
    places = torch.cartesian_prod(line, line)
    count = len(places)
    wall = CanonicalGaussians(
        offsets=torch.cat([places, torch.full((count, 1), -1.5)], 1),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.tensor([0.0058, 0.0058, 0.001]).repeat(count, 1),
        opacities=torch.full((count,), 0.99),
        colors=torch.rand(count, 3, generator=torch.Generator().manual_seed(0)),
    )
    camera = normalised_camera(128, 1, torch.device("cpu"))

    def alpha(made: CanonicalGaussians) -> torch.Tensor:
        _, drawn, _ = rasterize(
            made.offsets, made.quats, made.scales, made.opacities, made.colors, camera.world_to_cam, camera.K, 128, 128
        )
        return drawn[0, 56:72, 56:72, 0]

    assert alpha(wall).min() > 0.95
    assert alpha(four_of(wall, torch.arange(count))).min() > alpha(wall).min() - 0.02


def test_only_what_is_seen_large_is_split() -> None:
    made = splats(6, width=0.002)
    depth, trust, worth = torch.full((2, 6), 1.5), torch.ones(2, 6), torch.ones(6, dtype=torch.bool)
    just = COARSE * 1.5 / NORMALISED_FOCAL
    widths = torch.tensor([0.9, 1.1, 1.1, 1.1, 1.1, 3.0]) * just
    made = CanonicalGaussians(**vars(made) | {"scales": widths[:, None].repeat(1, 3)})
    trust[:, 2] = 0  # no view sees it
    trust[0, 3] = 0  # one of two sees it
    worth[4] = False
    nowhere = torch.zeros_like(worth)
    assert coarse_splats(made, depth, trust, worth, nowhere).tolist() == [1, 3, 5]
    depth[1, 0] = 1.2  # nearer in one view: large there
    assert coarse_splats(made, depth, trust, worth, nowhere).tolist() == [0, 1, 3, 5]
    hidden = torch.tensor([False, False, True, False, True, False])
    assert coarse_splats(made, depth, trust, worth, hidden).tolist() == [0, 1, 3, 5]  # not large enough yet
    made.scales[2] *= 2
    assert coarse_splats(made, depth, trust, worth, hidden).tolist() == [0, 1, 2, 3, 5]


def test_the_largest_are_split_first_when_there_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr(splitting, "MOST", 2)
    made = CanonicalGaussians(
        **vars(splats(4)) | {"scales": torch.tensor([0.03, 0.01, 0.02, 0.04])[:, None].repeat(1, 3)}
    )
    everything = torch.ones(4, dtype=torch.bool)
    assert coarse_splats(made, torch.ones(1, 4), torch.ones(1, 4), everything, ~everything).tolist() == [0, 3]


def test_the_first_of_the_four_takes_the_place_of_the_one() -> None:
    values, which = torch.arange(5.0), torch.tensor([1, 3])
    new = torch.tensor([10.0, 30, 11, 31, 12, 32, 13, 33])
    assert replaced(values, which, new).tolist() == [0, 10, 2, 30, 4, 11, 31, 12, 32, 13, 33]


def test_a_colour_is_borrowed_where_the_matte_doubts_it() -> None:
    decoder = create_model("lite").decoder
    assert isinstance(decoder, AnchoredDecoder)
    matte = torch.tensor([[1.0, CERTAIN, (DOUBTFUL + CERTAIN) / 2, DOUBTFUL, 0.0]])
    points = matte.shape[1]
    features = torch.zeros(1, points, decoder.evidence.in_features - 5)
    seen = Sampled(torch.zeros(1, points, 3), features, matte, *torch.ones(4, 1, points))
    share, own = decoder._shares(seen, seen.cues(), torch.zeros(points))
    assert torch.equal(share, torch.ones(1, points))
    expected = torch.tensor([1.0, 1.0, 0.5, 0.01, 0.01]) / (1 + UNSURE)
    assert torch.allclose(own, expected, atol=1e-5)
