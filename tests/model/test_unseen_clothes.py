"""Clothes where no photo shows them: behind, and below its edge."""

from __future__ import annotations

import pytest
import torch
from painted_heads import Colour, avatar_of, painted_photo

from ffavatar.animate import pose_gaussians
from ffavatar.avatar import Avatar
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import HeadModel, load_head
from ffavatar.model.anchors import hairy_vertices
from ffavatar.types import HeadParams

SIZE = 192
SKIN, HAIR, JACKET, SHIRT = (0.8, 0.6, 0.5), (0.2, 0.12, 0.08), (0.15, 0.2, 0.4), (0.7, 0.85, 0.9)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


def far_from(
    head: HeadModel, colour: Colour, torso: list[tuple[Colour, torch.Tensor]], kept: float = 1
) -> torch.Tensor:
    """Distance from ``colour`` of the lasting colours that the torso has where a frontal photo does not show it:
    behind, or, if only the upper part ``kept`` of the photo is, below."""
    worn = head.lbs_weights[:, 0] > 0.5
    paint = [(HAIR, hairy_vertices(head)), *((one, where & worn) for one, where in torso)]
    views, params = painted_photo(head, 0.0, SIZE, SKIN, paint)
    views.valid[:, round(kept * SIZE) :] = 0
    avatar = avatar_of(head, views, params)
    surface = avatar.rig.surface
    _, y, z = surface.interpolate(head.v_template).T
    middle, top = head.v_template[worn, 2].median(), head.v_template[worn, 1].max()
    if kept == 1:
        unseen = (z < middle - 0.04) & (y < top - 0.06)
    else:
        row, _ = project(pose_points(avatar, params), normalised_camera(1))
        unseen = (z > middle) & (row[0, :, 1] > kept + 0.05)
    unseen &= worn[surface.parents].all(1)
    assert int(unseen.sum()) > 100
    return (avatar.canonical.colors[unseen] - torch.tensor(colour)).norm(dim=1)


def pose_points(avatar: Avatar, params: HeadParams) -> torch.Tensor:
    return pose_gaussians(avatar.rig, avatar.canonical, params).means


def test_a_jackets_back_is_the_jackets(head) -> None:
    everywhere = torch.ones(len(head.v_template), dtype=torch.bool)
    assert far_from(head, JACKET, [(JACKET, everywhere)]).quantile(0.9) < 0.1


def test_behind_jacket_and_shirt_is_jacket(head) -> None:
    middle = head.v_template[:, 0].abs() < 0.06
    assert far_from(head, JACKET, [(JACKET, ~middle), (SHIRT, middle)]).median() < 0.15


def test_the_back_of_bare_shoulders_is_skin(head) -> None:
    assert far_from(head, SKIN, []).quantile(0.9) < 0.1


def test_long_hair_over_bare_shoulders_is_no_jacket(head) -> None:
    """The back then borrows from all that is near, hair and skin; as clothes it would be hair all over (0.87)."""
    middle = head.v_template[:, 0].abs() < 0.11
    assert far_from(head, SKIN, [(HAIR, ~middle)]).median() < 0.5


def test_a_jacket_as_dark_as_the_hair_is_one(head) -> None:
    middle = head.v_template[:, 0].abs() < 0.06
    assert far_from(head, HAIR, [(HAIR, ~middle)]).median() < 0.15


def test_a_jacket_goes_on_below_the_photo(head) -> None:
    everywhere = torch.ones(len(head.v_template), dtype=torch.bool)
    assert far_from(head, JACKET, [(JACKET, everywhere)], kept=0.85).quantile(0.9) < 0.1
