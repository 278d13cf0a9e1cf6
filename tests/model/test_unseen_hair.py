"""Hair behind the outline: which places count as hair's, and that it looks like the hair that is seen."""

from __future__ import annotations

import torch

from ffavatar.animate import Rig, pose_surface
from ffavatar.geometry import turn_z_to, vertex_normals
from ffavatar.head import load_head
from ffavatar.model import unseen_hair as hair
from ffavatar.model.anchors import hairy_vertices
from ffavatar.model.ears import skull_at_ears
from ffavatar.types import CanonicalGaussians, HeadParams, Views


def test_nape_is_hairy_and_face_ears_and_throat_are_not() -> None:
    head = load_head()
    hairy = hairy_vertices(head)
    place = head.v_template
    assert (hairy & ~head.regions["scalp"]).any()
    skull = skull_at_ears(head)
    auricles = head.regions["ears"] & ~skull
    assert not (hairy & (head.regions["face"] | auricles | head.regions["torso"])).any()
    added = place[hairy & ~head.regions["scalp"] & ~skull]
    ears = place[head.regions["ears"]]
    assert added[:, 1].min() > ears[:, 1].min() - 0.021 and added[:, 2].max() < ears[:, 2].mean()


def test_the_skull_around_the_ears_is_hairy_and_what_sticks_out_is_not() -> None:
    head = load_head()
    skull, place = skull_at_ears(head), head.v_template
    assert 40 < int(skull.sum()) < 100 and (hairy_vertices(head) & skull).sum() == skull.sum()
    assert torch.equal(skull.nonzero()[:, 0], (head.regions["ears"] & skull).nonzero()[:, 0])
    assert place[skull, 0].abs().max() < 0.0705 < place[head.regions["ears"], 0].abs().max()
    auricles = place[head.regions["ears"] & (place[:, 0].abs() > 0.0705)]
    above, behind = place[skull, 1] > auricles[:, 1].max(), place[skull, 2] < auricles[:, 2].min() + 0.011
    assert (above | behind).all() and above.any() and (behind & ~above).any()


def test_farthest_points_start_where_told_and_repeat_none() -> None:
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    chosen = hair.far_apart(points, 7, 20)
    assert chosen[0] == 7 and len(set(chosen.tolist())) == 20
    apart = torch.cdist(points[chosen], points[chosen]) + 9 * torch.eye(20)
    assert apart.min() > torch.cdist(points, points[chosen]).amin(1).max() - 1e-6  # the law of this sampling
    assert len(hair.far_apart(points[:3], 0, 20)) == 3


def test_frames_are_orthonormal_and_flow_leaves_the_whorl() -> None:
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    points = torch.tensor([0.0, 0.05, 0.0]) + 0.09 * normals
    frames = hair._frames(points, normals)
    for first, second in ((frames.along, frames.across), (frames.along, normals), (frames.across, normals)):
        assert (first * second).sum(-1).abs().max() < 1e-5
    assert ((points - points.new_tensor(hair.WHORL)) * frames.along).sum(-1).min() > 0


def _case(hair_color: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Detail (N, 3) of a head whose one photo is noise about a colour; hairy, seen (N,) bool; the noise's deviation."""
    head = load_head()
    rig = Rig.of(head, torch.zeros(head.shapedirs.shape[2]), head.surface(1))
    count = len(rig.points())
    hairy = hairy_vertices(head)[rig.surface.parents].all(1)
    params = HeadParams.neutral(1, head.expdirs.shape[2])
    params.translation[:, 2] = -1.0
    points, _ = pose_surface(rig, params)
    normals = vertex_normals(rig.points(), rig.surface.faces)
    front = (normals * torch.nn.functional.normalize(-points[0], dim=-1)).sum(-1) > 0.1
    noise = 0.1 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    noise = torch.nn.functional.interpolate(noise, (512, 512), mode="bilinear")[0].permute(1, 2, 0)
    picture = (torch.tensor(hair_color) + noise)[None].clamp(0, 1)
    full = torch.ones(1, 512, 512)
    views = Views(picture, full, full, torch.zeros(1, 478, 3), torch.zeros(1, 52))
    canonical = CanonicalGaussians(
        offsets=torch.zeros(count, 3),
        scales=torch.full((count, 3), 0.003),
        quats=turn_z_to(normals),
        opacities=torch.ones(count),
        colors=torch.tensor(hair_color).expand(count, 3),
    )
    seen = front.float()
    skin = torch.tensor([0.8, 0.6, 0.5])
    detail = hair.unseen_detail(rig, canonical, hairy, seen, seen[None], skin, views, params)
    return detail, hairy, front, float(noise.std())


def test_unseen_hair_has_the_contrast_of_what_is_seen_and_nothing_else_changes() -> None:
    detail, hairy, front, deviation = _case((0.2, 0.15, 0.1))
    assert not detail[front | ~hairy].any()
    behind = detail[hairy & ~front]
    assert 0.7 * deviation < behind.std() < 1.1 * deviation  # the smoothing's share is not detail; overlaps add none
    assert behind.mean().abs() < 0.25 * deviation


def test_the_bald_get_no_hair() -> None:
    detail, *_ = _case((0.8, 0.6, 0.5))
    assert not detail.any()
