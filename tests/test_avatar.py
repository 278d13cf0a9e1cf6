"""The container: what is written is what is read, and damage is refused in one sentence."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ffavatar.animate import Rig, pose_gaussians
from ffavatar.avatar import _SHADE_SHAPES, VERSION, Avatar
from ffavatar.drive.motion import demo_motion
from ffavatar.errors import InputError
from ffavatar.geometry import normalised_camera
from ffavatar.head import load_head
from ffavatar.types import Camera, CanonicalGaussians, HeadParams, Shades, Views


def test_what_holds_many_numbers_is_printed_by_its_shape(avatar):
    assert repr(avatar) == f"Avatar({len(avatar):,} Gaussians, embedded-1, no shades)"
    assert repr(demo_motion(avatar.rig.head, 1, 25)) == (
        f"Motion(25 frames at 25 per second, embedded-1, {len(avatar.expression_names)} expressions)"
    )
    assert repr(avatar.render(size=64)) == "Rendering(images 1x64x64x3, alphas 1x64x64)"
    assert repr(Camera(torch.eye(4), torch.eye(3), 8, 9)) == "Camera(world_to_cam 4x4, K 3x3, width 8, height 9)"
    one = torch.zeros(1, 2, 2)
    views = Views(one[..., None].expand(1, 2, 2, 3), one, one, torch.zeros(1, 478, 3), torch.zeros(1, 52))
    for record in (avatar.canonical, avatar.neutral_params(), views):
        assert "tensor" not in repr(record) and len(repr(record)) < 160


def distances(points):
    return (points[:, None] - points[None]).norm(dim=-1)


@pytest.fixture(scope="module")
def avatar():
    head = load_head()
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(100, generator=generator) * 0.5
    rig = Rig.of(head, identity, head.surface(0))
    count = len(rig.surface)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    made = CanonicalGaussians(
        offsets=torch.randn(count, 3, generator=generator) * 0.004,
        quats=quats,
        scales=torch.rand(count, 3, generator=generator) * 0.004 + 0.001,
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )
    return Avatar(rig, made, identity, {"made from": "a test"})


@pytest.fixture(scope="module")
def shaded(avatar):
    """The avatar with shades of two views: at rest, and with a smile, turned."""
    generator = torch.Generator().manual_seed(1)
    expression = torch.zeros(2, len(avatar.expression_names))
    expression[1, :8] = 0.5
    shades = Shades(
        colors=torch.rand(len(avatar), 2, 3, generator=generator) - 0.5,
        certainty=torch.rand(len(avatar), 2, generator=generator),
        expression=expression,
        jaw=torch.tensor([[0.0, 0, 0], [0.25, 0, 0]]),
        turn=torch.tensor([[0.0, 0, 0], [0.1, 0.4, 0]]),
    )
    return replace(avatar, rig=replace(avatar.rig, shades=shades))


@pytest.fixture
def talking(avatar):
    params = avatar.neutral_params(2)
    params.root[1, 1], params.neck[1, 0], params.jaw[1, 0] = 0.4, 0.2, 0.25
    params.expression[1, :8] = 0.5
    return params


def test_round_trip_draws_the_same_picture(avatar, talking, tmp_path):
    avatar.save(tmp_path / "me.safetensors")
    back = Avatar.load(tmp_path / "me.safetensors")
    assert back.about == avatar.about and back.expression_names == avatar.expression_names
    assert len(back) == len(avatar)
    a, b = avatar.render(talking, 128).images, back.render(talking, 128).images
    assert a.std() > 0.05  # there is something to compare
    assert -10 * torch.log10((a - b).square().mean()) > 45


def test_shades_come_back_and_change_the_picture(avatar, shaded, talking, tmp_path):
    shaded.save(tmp_path / "me.safetensors")
    back = Avatar.load(tmp_path / "me.safetensors")
    a, b, c = (one.render(talking, 128).images for one in (shaded, back, avatar))
    assert -10 * torch.log10((a - b).square().mean()) > 45
    assert (a - c).abs().mean() > 0.01
    avatar.save(tmp_path / "plain.safetensors")
    assert Avatar.load(tmp_path / "plain.safetensors").rig.shades is None


def test_readers_that_know_no_shades_find_the_same_avatar(avatar, shaded, tmp_path):
    """Shades stand beside what version 1 had from its beginning, and change none of it."""
    for name, one in (("plain", avatar), ("shaded", shaded)):
        one.save(tmp_path / f"{name}.safetensors")
    plain, more = (load_file(tmp_path / f"{name}.safetensors") for name in ("plain", "shaded"))
    assert {name for name in more if name not in plain} == set(_SHADE_SHAPES)
    assert all((more[name] == plain[name]).all() for name in plain)


def test_saving_twice_is_saving_once(avatar, tmp_path):
    avatar.save(tmp_path / "a.safetensors")
    once = Avatar.load(tmp_path / "a.safetensors")
    once.save(tmp_path / "b.safetensors")
    twice = Avatar.load(tmp_path / "b.safetensors")
    torch.testing.assert_close(once.canonical.scales, twice.canonical.scales, rtol=2e-3, atol=0)
    torch.testing.assert_close(once.canonical.colors, twice.canonical.colors)


def test_the_same_avatar_gives_the_same_bytes(avatar, tmp_path):
    """So that a manifest's sha256 means something. The library reads the file whose notes were put in order."""
    for number in range(6):  # the library's own order differs from call to call
        avatar.save(tmp_path / f"{number}.safetensors")
    kept = {(tmp_path / f"{number}.safetensors").read_bytes() for number in range(6)}
    assert len(kept) == 1
    (data,) = kept
    assert (8 + struct.unpack("<Q", data[:8])[0]) % 8 == 0
    load_file(tmp_path / "0.safetensors")


def test_root_motion_is_rigid(avatar):
    still = pose_gaussians(avatar.rig, avatar.canonical, avatar.neutral_params())
    params = avatar.neutral_params()
    params.root[0] = torch.tensor([0.3, -0.5, 0.1])
    turned = pose_gaussians(avatar.rig, avatar.canonical, params)
    pick = torch.arange(0, len(avatar), 37)
    a, b = distances(still.means[0, pick]), distances(turned.means[0, pick])
    torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_native_and_readable_form_agree(avatar, talking):
    with torch.no_grad():
        native = pose_gaussians(avatar.rig, avatar.canonical, talking)
    wanted = replace(avatar.canonical, offsets=avatar.canonical.offsets.clone().requires_grad_(True))
    readable = pose_gaussians(avatar.rig, wanted, talking)
    assert readable.means.requires_grad and not native.means.requires_grad
    torch.testing.assert_close(native.means, readable.means.detach(), atol=1e-6, rtol=0)
    torch.testing.assert_close(native.quats, readable.quats.detach(), atol=1e-5, rtol=0)


def test_paper_form_keeps_covariances(avatar, talking):
    paper = pose_gaussians(avatar.rig, avatar.canonical, talking, rotate_covariance=False)
    torch.testing.assert_close(paper.quats[1], avatar.canonical.quats)


def test_batch_equals_single_frames(avatar, talking):
    together = avatar.render(talking, 64).images
    apart = torch.cat([avatar.render(talking[[k]], 64).images for k in range(2)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_params_of_neutral_do_not_share_memory():
    params = HeadParams.neutral(1, 3)
    params.root[:] = 1
    assert params.neck.abs().max() == 0


def test_a_move_leaves_what_others_hold(shaded):
    """``meta`` stands for a device of its own; the head is that of the caller's avatar, and may be a model's."""
    head = shaded.rig.head
    moved = shaded.to("meta")
    assert all(value.device.type == "cpu" for value in head.buffers())
    assert shaded.render(size=32).images.std() > 0.05
    held = moved.rig, moved.rig.surface, moved.rig.shades, moved.canonical, moved
    tensors = [v for record in held for v in vars(record).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) > 15 and all(v.device.type == "meta" for v in (*tensors, *moved.rig.head.buffers()))
    assert moved.rig.head.expression_names == head.expression_names
    assert shaded.to("cpu") is shaded and head.copied_to("cpu") is head and moved.to("meta") is moved
    assert head.surface(0).parents.device.type == "cpu"


def test_a_callers_autocast_changes_no_picture(shaded, talking):
    camera = normalised_camera(64, 2)
    wanted = shaded.render(talking, 64, camera=camera).images
    again = Rig.of(shaded.rig.head, shaded.identity, shaded.rig.surface)
    with torch.autocast("cpu", torch.bfloat16):
        fresh = replace(shaded, rig=replace(shaded.rig))  # keeps nothing of what was computed before
        assert torch.equal(fresh.render(talking, 64, camera=camera).images, wanted)
        assert torch.equal(Rig.of(shaded.rig.head, shaded.identity, shaded.rig.surface).neutral, again.neutral)


def test_a_camera_in_double_precision_serves(avatar, shaded, talking):
    camera = normalised_camera(64, 2)
    double = replace(camera, world_to_cam=camera.world_to_cam.double(), K=camera.K.double())
    for one in (avatar, shaded):
        a, b = (one.render(talking, camera=each).images for each in (camera, double))
        torch.testing.assert_close(a, b.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["avatar", "shaded"])
def test_one_pose_serves_many_cameras_and_one_camera_many_poses(kind, request, talking):
    one = request.getfixturevalue(kind)
    camera = normalised_camera(64, 3)
    camera = replace(camera, world_to_cam=camera.world_to_cam.clone())
    camera.world_to_cam[1:, 0, 3] = torch.tensor([0.05, -0.05])

    def only(row: int) -> Camera:
        return replace(camera, world_to_cam=camera.world_to_cam[[row]], K=camera.K[[row]])

    around = one.render(talking[[1]], camera=camera).images
    wanted = torch.cat([one.render(talking[[1]], camera=only(row)).images for row in range(3)])
    assert wanted[0].sub(wanted[1]).abs().mean() > 0.01
    torch.testing.assert_close(around, wanted, atol=1e-5, rtol=0)
    alone = replace(camera, world_to_cam=camera.world_to_cam[1], K=camera.K[1])  # without the axis of views
    wanted = torch.cat([one.render(talking[[row]], camera=only(1)).images for row in range(2)])
    for single in (only(1), alone):
        torch.testing.assert_close(one.render(talking, camera=single).images, wanted, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="2 poses do not fit 3 cameras"):
        one.render(talking, camera=camera)


@pytest.fixture
def written(avatar, tmp_path):
    path = tmp_path / "me.safetensors"
    avatar.save(path)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return path, load_file(path), json.loads(data[8 : 8 + length])["__metadata__"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("missing", lambda t: t.pop("quats")),
        ("type", lambda t: t.update(colors=t["colors"].astype(np.float32))),
        ("shape", lambda t: t.update(offsets=t["offsets"][:-1])),
        ("not finite", lambda t: t["offsets"].__setitem__(0, np.nan)),
        ("index", lambda t: t["parents"].__setitem__(0, 65535)),
    ],
)
def test_damage_is_refused(written, name, damage):
    path, tensors, header = written
    damage(tensors)
    save_file(tensors, path, metadata=header)
    with pytest.raises(InputError, match=r"me\.safetensors"):
        Avatar.load(path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("missing", lambda t: t.pop("shade_turn")),
        ("count", lambda t: t.update(shade_jaw=t["shade_jaw"][:1])),
        ("type", lambda t: t.update(shade_colors=t["shade_colors"].astype(np.float32))),
        ("not finite", lambda t: t["shade_expression"].__setitem__((0, 0), np.inf)),
    ],
)
def test_damaged_shades_are_refused(shaded, tmp_path, name, damage):
    path = tmp_path / "me.safetensors"
    shaded.save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path, metadata=header)
    with pytest.raises(InputError, match=r"me\.safetensors is a damaged avatar"):
        Avatar.load(path)


@pytest.mark.parametrize(
    "change",
    [{"version": str(VERSION + 1)}, {"version": "one"}, {"format": "else"}, {"expression_names": "["}, {"about": "3"}],
    ids=str,
)
def test_headers_that_do_not_fit_are_refused(written, change):
    path, tensors, header = written
    save_file(tensors, path, metadata=header | change)
    with pytest.raises(InputError, match=r"me\.safetensors"):
        Avatar.load(path)


@pytest.mark.parametrize("cut", [0, 7, 300, -1000])
def test_truncated_files_are_refused(written, cut):
    path, _, _ = written
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"me\.safetensors"):
        Avatar.load(path)


def test_an_avatar_is_not_written_under_another_ending(avatar, tmp_path):
    with pytest.raises(InputError, match=r"me\.txt: an avatar is written as \.safetensors; change"):
        avatar.save(tmp_path / "me.txt")
    assert not list(tmp_path.iterdir())


def test_flame_basis_needs_an_explicit_word(avatar, tmp_path, monkeypatch):
    monkeypatch.setattr(avatar.rig.head, "edition", "flame2023")
    with pytest.raises(InputError, match="allow"):
        avatar.save(tmp_path / "x.safetensors")
    avatar.save(tmp_path / "x.safetensors", allow_flame=True)
    assert Avatar.load(tmp_path / "x.safetensors").rig.head.edition == "flame2023"


def test_values_beyond_a_bytes_range_are_cut_not_wrapped(avatar, tmp_path):
    made = replace(
        avatar.canonical, colors=avatar.canonical.colors * 3 - 1, opacities=avatar.canonical.opacities * 2 - 0.5
    )
    replace(avatar, canonical=made).save(tmp_path / "a.safetensors")
    back = Avatar.load(tmp_path / "a.safetensors").canonical
    torch.testing.assert_close(back.colors, made.colors.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(back.opacities, made.opacities.clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
