"""What a caller's surroundings and odd models do to the pipeline: nothing, or one sentence."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.head import HeadModel, load_head
from ffavatar.model import FFAvatar, create_model
from ffavatar.model.config import TINY
from ffavatar.model.landmark_fit import project_normalised
from ffavatar.pipeline import drive, reconstruct, track
from ffavatar.types import HeadParams, Views


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def tiny(head: HeadModel) -> FFAvatar:
    torch.manual_seed(0)
    return create_model(TINY, head).eval()


@pytest.fixture(scope="module")
def views(head: HeadModel) -> Views:
    """Two smooth pictures of the mean head, turned to either side."""
    params = HeadParams.neutral(2, len(head.expression_names))
    params.root[:, 1] = torch.tensor([-0.2, 0.2])
    vertices = head.pose(*head.neutral(torch.zeros(1, head.shapedirs.shape[2])), params).vertices
    points = head.landmarks(vertices)
    depth = -(points[..., 2:] - points[..., 2:].mean(1, keepdim=True)) * 3 / 1.15
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").permute(0, 2, 3, 1)
    full = torch.ones(2, 64, 64)
    return Views(images, full, full, torch.cat([project_normalised(points), depth], -1), torch.zeros(2, 52))


def tensors(*records: object) -> list[Tensor]:
    return [value for record in records for value in vars(record).values() if isinstance(value, Tensor)]


def test_autocast_does_not_reach_the_pipeline(tiny: FFAvatar, views: Views) -> None:
    wanted = reconstruct(tiny, views, 0)
    posed = drive(tiny, wanted, views)
    with torch.autocast("cpu", torch.bfloat16):
        made = reconstruct(tiny, views, 0)
        again = drive(tiny, made, views)
        track(tiny, made, views[:1], steps=1)
    for a, b in zip(tensors(wanted.canonical, posed), tensors(made.canonical, again)):
        assert torch.equal(a, b)


def test_what_is_cached_in_inference_mode_serves_training(views: Views) -> None:
    model = create_model(TINY, load_head())
    with torch.inference_mode():
        model.reconstruct(Views(**{name: value.clone() for name, value in vars(views).items()}))
    model.reconstruct(views).canonical.colors.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())


def test_full_queries_take_several_views(head: HeadModel, views: Views) -> None:
    points = len(head.surface(0).parents)
    config = replace(TINY, queries="full", full_queries=points, surface_level=0)
    assert len(reconstruct(create_model(config, head).eval(), views, 0)) >= points


def test_an_identity_of_another_basis_is_not_read(tiny: FFAvatar, views: Views) -> None:
    """FLAME's have 300 numbers and the paper's model none: the driver's own is pooled then."""
    avatar = reconstruct(tiny, views[:1], 0)
    flame = deepcopy(avatar.rig.head)
    flame.edition = "flame2023"
    pooled = tiny.estimator(views).params.detach()
    for other in (
        replace(avatar, identity=torch.zeros(300)),
        replace(avatar, identity=torch.zeros(0)),
        replace(avatar, rig=replace(avatar.rig, head=flame)),
    ):
        for a, b in zip(tensors(drive(tiny, other, views)), tensors(pooled), strict=True):
            torch.testing.assert_close(a, b)
        with pytest.raises(InputError, match="cannot track"):
            track(tiny, other, views, steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of 16"),
        ({"width": 20, "heads": 2}, "width 20 is not a multiple of 8"),
        ({"feature_width": 12}, "feature_width 12 is not a multiple of 8"),
        ({"anchors": 2}, "anchors 2 are too few"),
    ],
)
def test_sizes_that_do_not_fit_are_named(head: HeadModel, change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(replace(TINY, **change), head)


def test_a_head_without_landmarks_is_no_head_for_the_landmark_estimator(head: HeadModel) -> None:
    other = load_head()
    other.landmark_faces = other.landmark_faces[:0]
    with pytest.raises(InputError, match=r"fits landmarks, which the head .* does not have"):
        create_model(TINY, other)
