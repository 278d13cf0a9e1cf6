"""The landmarker: regions, geometry, tracking, gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ffavatar.photo import Landmarker
from ffavatar.photo.landmarks import CROP_SCALE, crop_region, cut, region_of, turn

ROUGH = torch.tensor([[223.0, 110.0, 200.0, 0.0]])  # about where the portrait's face is


@pytest.fixture(scope="module")
def landmarker():
    return Landmarker()


@pytest.fixture(scope="module")
def picture(portrait):
    return torch.from_numpy(portrait)[None].float() / 255


@pytest.fixture(scope="module")
def found(landmarker, picture):
    with torch.inference_mode():
        return landmarker(picture, ROUGH, passes=4)


def test_the_face_is_found_where_it_is(found):
    assert found.points.shape == (1, 478, 3) and found.blendshapes.shape == (1, 52)
    assert found.presence.item() > 0.99
    low, high = found.points[0, :, :2].aminmax(dim=0)
    assert (low - torch.tensor([180.5, 70.0])).abs().max() < 3 and (high - torch.tensor([271.0, 179.0])).abs().max() < 3
    nose, left_iris, right_iris = found.points[0, 1], found.points[0, 468], found.points[0, 473]
    assert left_iris[0] < nose[0] < right_iris[0] and nose[1] > left_iris[1]
    assert nose[2] < left_iris[2]  # the nose is nearer


def test_a_wall_is_no_face(landmarker):
    wall = torch.full((1, 200, 200, 3), 0.5)
    with torch.inference_mode():
        assert landmarker(wall).presence.item() < 0.5


def test_rough_regions_converge(landmarker, picture, found):
    with torch.inference_mode():
        other = landmarker(picture, torch.tensor([[235.0, 125.0, 150.0, 0.1]]), passes=4)
    assert (other.points - found.points).norm(dim=-1).mean() < 0.015 * 91


def test_tracking_from_the_frame_before(landmarker, picture, found):
    moved = picture.roll((6, -9), (1, 2))
    with torch.inference_mode():
        followed = landmarker.track(moved, found.points)
    assert followed.presence.item() > 0.99
    expected = found.points + torch.tensor([-9.0, 6.0, 0.0])
    assert (followed.points - expected).norm(dim=-1).mean() < 0.02 * 91


def test_batch_rows_do_not_mix(landmarker, picture, found):
    pair = torch.cat([torch.full_like(picture, 0.5), picture])
    with torch.inference_mode():
        both = landmarker(pair, ROUGH.expand(2, 4), passes=4)
    torch.testing.assert_close(both.points[1], found.points[0], atol=0.05, rtol=0)


def test_mirrored_picture_gives_mirrored_points(landmarker, picture, found):
    with torch.inference_mode():
        mirrored = landmarker(
            picture.flip(2), ROUGH * torch.tensor([-1.0, 1, 1, 1]) + torch.tensor([512.0, 0, 0, 0]), 4
        )
    for middle in (1, 10, 152, 13, 168):  # points on the face's own mid line keep their index
        expected = found.points[0, middle, :2] * torch.tensor([-1.0, 1]) + torch.tensor([512.0, 0])
        assert (mirrored.points[0, middle, :2] - expected).norm() < 0.02 * 91


def test_turned_picture_keeps_blendshapes(landmarker, picture, found):
    """The region turns with the head, so neither the scores nor the points in the head's frame depend on roll."""
    side = torch.tensor([[256.0, 256.0, 512.0, math.radians(25)]])
    turned = cut(picture.movedim(-1, 1), side, 512).movedim(1, -1)  # the head now leans anticlockwise
    centre = turn(ROUGH[:, None, :3] - torch.tensor([256.0, 256, 0]), -side[:, 3])[0, 0, :2] + 256
    with torch.inference_mode():
        rolled = landmarker(turned, torch.tensor([[*centre.tolist(), 200.0, -math.radians(25)]]), 4)
    assert (rolled.blendshapes - found.blendshapes).abs().max() < 0.1
    back = turn(rolled.points - torch.tensor([256.0, 256, 0]), side[:, 3]) + torch.tensor([256.0, 256, 0])
    assert (back - found.points).norm(dim=-1).mean() < 0.015 * 91


def test_head_crops_need_no_region(landmarker, picture, found):
    low, high = found.points[:, :, :2].amin(1), found.points[:, :, :2].amax(1)
    side = (high - low).amax() * CROP_SCALE
    centre = (low + high) / 2 - torch.tensor([0.0, 0.04]) * side
    crop_place = torch.cat([centre, side[None, None], torch.zeros(1, 1)], 1)
    crop = cut(picture.movedim(-1, 1), crop_place, 256).movedim(1, -1)
    assert crop_region(crop)[0, 2].item() == pytest.approx(256 * 1.5 / 2.1)
    with torch.inference_mode():
        seen = landmarker(crop)
    corner = F.pad(centre - side / 2, (0, 1))
    assert (seen.points * side / 256 + corner - found.points)[..., :2].norm(dim=-1).mean() < 0.015 * 91


def test_gradient_reaches_the_pixels(landmarker, picture):
    crop = picture[:, 30:222, 130:322].clone().requires_grad_()
    result = landmarker(crop, torch.tensor([[95.0, 92.0, 165.0, 0.0]]), passes=1)
    (result.points.square().mean() + result.blendshapes.sum()).backward()
    assert crop.grad is not None and torch.isfinite(crop.grad).all()
    assert (crop.grad != 0).float().mean() > 0.3
    gradient = crop.grad
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        values = [
            landmarker(crop + sign * step, torch.tensor([[95.0, 92.0, 165.0, 0.0]]), passes=1) for sign in (1, -1)
        ]
        up, down = ((v.points.square().mean() + v.blendshapes.sum()).double() for v in values)
    assert (up - down).item() / 2e-3 == pytest.approx(gradient.norm().item(), rel=0.1)  # central difference


def test_doubt_rises_when_the_eyes_are_hidden(landmarker, picture, found):
    hidden = picture.clone()
    hidden[:, 60:125, 175:280] = 0.45
    with torch.inference_mode():
        after = landmarker(hidden, ROUGH)
        clear, covered = landmarker.doubt(picture, found.points), landmarker.doubt(hidden, after.points)
    assert clear.item() < 0.015 and covered.item() > 0.03


def test_region_holds_the_points():
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(2, 478, 3, generator=generator) * 100 + 50
    region = region_of(points)
    local = turn(points - F.pad(region[:, :2], (0, 1))[:, None], -region[:, 3])[..., :2] / region[:, 2, None, None]
    assert local.abs().amax().item() == pytest.approx(1 / 3, abs=1e-5)  # 1.5 times: the longer side spans 2/3
    corners = turn(points - F.pad(region[:, :2], (0, 1))[:, None], -region[:, 3])
    torch.testing.assert_close(corners[:, 33, 1], corners[:, 263, 1], atol=1e-3, rtol=0)  # the eyes are level


def test_cut_reads_pixel_centres():
    """A whole-picture region at the picture's own size is the picture; a half-size one averages 2 x 2 pixels."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    whole = torch.tensor([[32.0, 32.0, 64.0, 0.0]])
    torch.testing.assert_close(cut(picture, whole, 64), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(cut(picture, whole, 32), F.avg_pool2d(picture, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(cut(picture, whole, 16), F.avg_pool2d(picture, 4), atol=1e-5, rtol=0)
