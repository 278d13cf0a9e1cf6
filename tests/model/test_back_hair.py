"""Long hair behind the neck: hung where hair hangs on both sides, and nowhere else."""

import math
from dataclasses import replace

import pytest
import torch

from ffavatar.animate import Rig, render_avatar
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import load_head
from ffavatar.model.anchors import hairy_vertices, lift_mask, point_spacing
from ffavatar.model.back_hair import MOST_MISSING, RING_M, _length, hang_behind
from ffavatar.types import CanonicalGaussians, HeadParams, Views

LEVEL, SIZE = 1, 128
HAIR, SKIN, SHIRT = (0.25, 0.15, 0.08), (0.8, 0.6, 0.5), (0.1, 0.3, 0.7)


class Scene:
    """The average head with brown hair on its scalp, and locks from the lobes down on both sides of its neck."""

    def __init__(self, sides=(1, -1), rings: int = 12, color=HAIR) -> None:
        head = load_head()
        self.rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(LEVEL))
        count = len(self.rig.surface)
        colors = torch.tensor(SKIN).repeat(count, 1)
        colors[hairy_vertices(head)[self.rig.surface.parents].all(1)] = torch.tensor(HAIR)
        colors[head.regions["torso"][self.rig.surface.parents].all(1)] = torch.tensor(SHIRT)
        spacing = point_spacing(self.rig.points(), self.rig.surface.faces)
        self.hangers = (lift_mask(head, torch.arange(len(head.v_template))) > 0.5).nonzero()[:, 0]
        self.lobes = float(head.v_template[head.regions["ears"]][:, 1].min())
        height, depth = torch.meshgrid(
            self.lobes - torch.arange(0, rings * RING_M - 1e-6, 0.003), torch.arange(-0.06, -0.03, 0.003), indexing="ij"
        )
        locks = [torch.stack([torch.full_like(height, 0.085 * s), height, depth], -1).flatten(0, 1) for s in sides]
        places = torch.cat(locks) if locks else torch.zeros(0, 3)
        self.grown = len(places)
        near = torch.cdist(places, self.rig.neutral[self.hangers]).topk(3, largest=False).indices
        parents = self.hangers[near]
        surface = replace(
            self.rig.surface,
            parents=torch.cat([self.rig.surface.parents, parents]),
            barycentric=torch.cat([self.rig.surface.barycentric, torch.full((self.grown, 3), 1 / 3)]),
        )
        offsets = torch.cat([torch.zeros(count, 3), places - self.rig.neutral[parents].mean(1)])
        every = count + self.grown
        self.rig = replace(self.rig, surface=surface)
        self.canonical = CanonicalGaussians(
            offsets, torch.tensor([1.0, 0, 0, 0]).repeat(every, 1),
            torch.cat([0.58 * spacing[:, None].expand(-1, 3), torch.full((self.grown, 3), 0.0021)]),
            torch.full((every,), 0.97), torch.cat([colors, torch.tensor(color).repeat(self.grown, 1)]),
        )  # fmt: skip
        self.params = HeadParams.neutral(1, head.expression_size, distance_m=1.1)

    def views(self, matte: float = 1.0) -> Views:
        """A photo that shows somebody everywhere, or nobody anywhere."""
        return Views(
            torch.ones(1, SIZE, SIZE, 3), torch.full((1, SIZE, SIZE), matte), torch.ones(1, SIZE, SIZE),
            torch.zeros(1, 478, 3), torch.zeros(1, 52),
        )  # fmt: skip

    def hung(self, matte: float = 1.0, grown: int | None = None) -> tuple[Rig, CanonicalGaussians]:
        grown = self.grown if grown is None else grown
        return hang_behind(self.rig, self.canonical, grown, self.views(matte), self.params, self.hangers, LEVEL)


def nape(rig: Rig, canonical: CanonicalGaussians, below_m: float) -> torch.Tensor:
    """Colour in the middle of the neck, ``below_m`` beneath the lobes, seen from behind."""
    params = HeadParams.neutral(1, rig.head.expression_size, distance_m=1.1)
    params.root[0, 1] = math.pi
    place = rig.head.pose(rig.neutral[None], rig.joints[None], params).vertices[0]
    ears = place[rig.head.regions["ears"]]
    point = torch.tensor([[float(ears[:, 0].mean()), float(ears[:, 1].min()) - below_m, float(ears[:, 2].mean())]])
    uv = project(point[None], normalised_camera(SIZE))[0][0, 0]
    column, row = uv.long().tolist()
    return render_avatar(rig, canonical, params, SIZE).images[0, row, column]


def test_hair_that_hangs_on_both_sides_goes_on_behind() -> None:
    scene = Scene()
    before = nape(scene.rig, scene.canonical, 0.05)
    rig, made = scene.hung()
    count = len(scene.canonical)
    assert 400 < len(made) - count < 4000
    for name, value in vars(scene.canonical).items():
        assert torch.equal(getattr(made, name)[:count], value)
    assert torch.equal(rig.surface.parents[:count], scene.rig.surface.parents)
    assert (nape(rig, made, 0.05) - torch.tensor(HAIR)).abs().max() < 0.06
    assert (before - torch.tensor(HAIR)).abs().max() > 0.3
    new = rig.points()[count:] + made.offsets[count:]
    assert new[:, 1].min() > scene.lobes - 13 * RING_M and new[:, 2].max() < 0.0
    assert (made.quats.norm(dim=1) - 1).abs().max() < 1e-5 and (
        rig.surface.barycentric[count:].sum(1) - 1
    ).abs().max() < 1e-5
    again = scene.hung()[1]
    assert all(torch.equal(getattr(again, name), value) for name, value in vars(made).items())


@pytest.mark.parametrize(
    "scene",
    [Scene(sides=(1,)), Scene(rings=3), Scene(color=SKIN), Scene(color=SHIRT), Scene(sides=())],
    ids=["one side", "short", "skin", "collar", "none"],
)
def test_other_heads_stay_as_they_are(scene: Scene) -> None:
    rig, made = scene.hung()
    assert rig is scene.rig and made is scene.canonical


def test_gradients_reach_all_but_the_curtain() -> None:
    scene = Scene()
    scene.canonical.colors.requires_grad_(True)
    made = scene.hung()[1]
    assert len(made) > len(scene.canonical)
    made.colors.sum().backward()
    assert scene.canonical.colors.grad is not None and (scene.canonical.colors.grad == 1).all()


def test_nothing_hangs_where_a_photo_shows_nobody() -> None:
    scene = Scene()
    assert len(scene.hung(matte=0.0)[1]) == len(scene.canonical)


def test_longer_locks_hang_further_down() -> None:
    def bottom(rings: int) -> float:
        scene = Scene(rings=rings)
        rig, made = scene.hung()
        return float((rig.points() + made.offsets)[len(scene.canonical) :, 1].min()) - scene.lobes

    assert bottom(14) == pytest.approx(bottom(8) - 6 * RING_M, abs=RING_M)


def test_length_ends_at_a_gap() -> None:
    gap = [False] * MOST_MISSING
    assert _length([True, True, *gap, True]) == 2 + MOST_MISSING + 1
    assert _length([True, True, *gap, False, True]) == 2
    assert _length([*gap, True]) == MOST_MISSING + 1
    assert _length([*gap, False, True]) == _length([]) == _length([False]) == 0
