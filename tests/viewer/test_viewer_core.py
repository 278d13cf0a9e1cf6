"""The viewer's core in Node: the same Gaussians as Python's, to a micrometre, and the order of their depths."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from viewer_tools import VIEWER, build, lively_poses, params_json, run, synthetic_avatars, workshop, write_json

from ffavatar.animate import Rig, pose_gaussians
from ffavatar.avatar import Avatar
from ffavatar.head import load_head
from ffavatar.types import CanonicalGaussians, HeadParams

pytestmark = pytest.mark.slow
LARGEST_ERROR_M = 1e-6


def flame_like_avatar() -> Path:
    """On a head of FLAME's structure, whose expressions move the joints; made of random numbers."""
    sys.path.append(str(VIEWER.parent / "tests" / "head"))
    try:
        import pickle

        from made_flame import flame_arrays
    finally:
        sys.path.pop()
    source = workshop() / "flame2023.pkl"
    source.write_bytes(pickle.dumps(flame_arrays()))
    head = load_head(source)
    generator = torch.Generator().manual_seed(0)
    rig = Rig.of(head, torch.randn(head.identity_size, generator=generator), head.surface(1))
    count = len(rig.surface)
    made = CanonicalGaussians(
        offsets=torch.randn(count, 3, generator=generator) * 0.004,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        scales=torch.rand(count, 3, generator=generator) * 0.004 + 0.001,
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )
    path = workshop() / "flame-like.safetensors"
    Avatar(rig, made, torch.zeros(head.identity_size)).save(path, allow_flame=True)
    return path


def rotation_of(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def quat_of(vector: np.ndarray) -> np.ndarray:
    """wxyz with the sign that half the angle gives: neighbours blend."""
    angle = np.linalg.norm(vector)
    axis = vector / angle if angle else vector
    return np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis])


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton products, (..., 4) wxyz."""
    w = a[..., :1] * b[..., :1] - (a[..., 1:] * b[..., 1:]).sum(-1, keepdims=True)
    v = a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + np.cross(a[..., 1:], b[..., 1:])
    return np.concatenate([w, v], -1)


def reference(path: Path, params: HeadParams, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 3) and quaternions (N, 4) in float64 after docs/container.md, written from that page alone."""
    data = {name: value.astype(np.float64) for name, value in load_file(path).items()}
    parents, rows = data["parents"].astype(int), data["basis_rows"].astype(int)
    joints = params.joint_rotations()[frame].double().numpy()
    expression = params.expression[frame].double().numpy()
    local = [rotation_of(vector) for vector in joints]
    feature = np.concatenate([(matrix - np.eye(3)).ravel() for matrix in local[1:]])
    vertices = data["neutral"].copy()
    vertices[rows] += data["expdirs"] @ expression + data["posedirs"] @ feature
    rest = data["joints"] + data["joint_expdirs"] @ expression
    world: list[np.ndarray] = []
    quats: list[np.ndarray] = []
    for j, parent in enumerate((-1, 0, 1, 1, 1)):
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = local[j], rest[j] - local[j] @ rest[j]
        world.append(step if parent < 0 else world[parent] @ step)
        quats.append(quat_of(joints[j]) if parent < 0 else times(quats[parent], quat_of(joints[j])))
    weights = data["lbs_weights"] / data["lbs_weights"].sum(1, keepdims=True)
    matrices = np.einsum("vj,jrc->vrc", weights, np.stack(world))
    posed = np.einsum("vrc,vc->vr", matrices[:, :3, :3], vertices) + matrices[:, :3, 3]
    posed += params.translation[frame].double().numpy()
    turns = weights @ np.stack(quats)
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    share = data["barycentric"][..., None]
    turn = (turns[parents] * share).sum(1)
    turn /= np.linalg.norm(turn, axis=1, keepdims=True)
    offsets = np.concatenate([np.zeros((len(parents), 1)), data["offsets"]], 1)
    turned = times(times(turn, offsets), turn * [1, -1, -1, -1])[:, 1:]
    own = data["quats"] / np.linalg.norm(data["quats"], axis=1, keepdims=True)
    return (posed[parents] * share).sum(1) + turned, times(turn, own)


@pytest.fixture(scope="module")
def posed_in_node():
    """(avatar's path, params, (5, N, 8) posed in Node, (5, N) orders) of four avatars."""
    dist, _ = build()
    paths = [*synthetic_avatars(), flame_like_avatar()]
    poses = [lively_poses(Avatar.load(path), seed=seed) for seed, path in enumerate(paths)]
    outs = [workshop() / f"{path.stem}.f32" for path in paths]
    spec = [{"avatar": str(a), "params": params_json(p), "out": str(o)} for a, p, o in zip(paths, poses, outs)]
    run(["node", "test/pose.mjs", str(dist), str(write_json(workshop() / "pose.json", spec))])
    results = []
    for path, params, out in zip(paths, poses, outs):
        orders = np.fromfile(f"{out}.order", np.uint32).reshape(len(params), -1)
        results.append((path, params, np.fromfile(out, np.float32).reshape(len(params), -1, 8), orders))
    return results


def test_agrees_with_float64(posed_in_node) -> None:
    for path, params, rows, _ in posed_in_node:
        for frame in range(len(params)):
            centres, quats = reference(path, params, frame)
            worst = np.abs(rows[frame, :, :3] - centres).max()
            print(f"{path.stem} pose {frame}: {worst:.1e} m from float64")
            assert worst < LARGEST_ERROR_M
            np.testing.assert_allclose(rows[frame, :, 4:], quats, atol=2e-6)


def test_agrees_with_the_package(posed_in_node) -> None:
    for path, params, rows, _ in posed_in_node:
        avatar = Avatar.load(path)
        with torch.no_grad():
            posed = pose_gaussians(avatar.rig, avatar.canonical, params)
        worst = np.abs(rows[..., :3] - posed.means.numpy()).max()
        print(f"{path.stem}: {worst:.1e} m from the package")
        assert worst < LARGEST_ERROR_M
        np.testing.assert_allclose(rows[..., 4:], posed.quats.numpy(), atol=1e-5)


def test_shades_agree_with_the_package(posed_in_node) -> None:
    """To a byte's rounding; the last pose is that of a view, where shades show most."""
    shaded = 0
    for path, params, _, _ in posed_in_node:
        avatar = Avatar.load(path)
        if avatar.rig.shades is None:
            assert "flame" in path.stem  # made of random numbers, not of views
            continue
        found = np.fromfile(workshop() / f"{path.stem}.f32.colors", np.uint8).reshape(len(params), -1, 4)
        posed = pose_gaussians(avatar.rig, avatar.canonical, params)
        drawn = avatar.canonical.opacities.numpy() > 0
        worst = np.abs(found[:, drawn, :3] - 255 * posed.colors.numpy()[:, drawn]).max()
        shown = (posed.colors[-1] - avatar.canonical.colors).abs().mean()
        print(f"{path.stem}: {worst:.2f} of 255 from the package, shades of {255 * shown:.1f}")
        assert worst < 0.52 and shown > 1 / 255
        assert np.array_equal(found[0, :, 3], (255 * avatar.canonical.opacities).round().byte().numpy())
        shaded += 1
    assert shaded == 3


def test_poses_differ(posed_in_node) -> None:
    """Else the comparisons above would say little."""
    for _, _, rows, _ in posed_in_node:
        assert all(np.abs(rows[k, :, :3] - rows[0, :, :3]).max() > 0.01 for k in range(1, len(rows)))


def test_order_is_farthest_first(posed_in_node) -> None:
    for _, _, rows, orders in posed_in_node:
        for posed, order in zip(rows, orders):
            assert np.array_equal(np.sort(order), np.arange(len(posed)))
            depth = -posed[order, 2].astype(np.float64)
            step = np.ptp(depth) / (2**22 - 1)
            assert np.diff(depth).max() <= step * 1.001


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "other file": lambda data: b"PK\x03\x04" + data[4:],
    "long header": lambda data: struct.pack("<Q", 2**40) + data[8:],
}


def test_damage_is_refused(tmp_path) -> None:
    """Each with a sentence, never with a wrong picture or a script's own error."""
    dist, _ = build()
    path = synthetic_avatars()[2]
    data = path.read_bytes()
    cases = {}
    for name, damage in DAMAGES.items():
        (tmp_path / name).write_bytes(damage(data))
        cases[name] = str(tmp_path / name)
    tensors = load_file(path)
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]

    def variant(name: str, changed: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        save_file(changed, tmp_path / name, metadata=metadata)
        cases[name] = str(tmp_path / name)

    variant("missing", {k: v for k, v in tensors.items() if k != "quats"}, header)
    variant("type", tensors | {"colors": tensors["colors"].astype(np.float32)}, header)
    variant("shape", tensors | {"offsets": tensors["offsets"][:-1]}, header)
    variant("not finite", tensors | {"offsets": np.full_like(tensors["offsets"], np.nan)}, header)
    variant("index", tensors | {"parents": np.full_like(tensors["parents"], 65535)}, header)
    variant("half the shades", {k: v for k, v in tensors.items() if k != "shade_jaw"}, header)
    variant("shades' shape", tensors | {"shade_certainty": tensors["shade_certainty"][:-1]}, header)
    variant("newer", tensors, header | {"version": "2"})
    variant("names", tensors, header | {"expression_names": "[]"})
    variant("format", tensors, header | {"format": "else"})
    script = (
        "const [core, list] = process.argv.slice(1); const { readAvatar } = await import(core);"
        "const { readFileSync } = await import('node:fs'); const said = {};"
        "for (const [name, path] of Object.entries(JSON.parse(readFileSync(list, 'utf8')))) {"
        " const b = readFileSync(path);"
        " try { readAvatar(b.buffer.slice(b.byteOffset, b.byteOffset + b.length)); said[name] = 'read'; }"
        " catch (e) { said[name] = `${e.name}: ${e.message}`; } } console.log(JSON.stringify(said));"
    )
    arguments = [(dist / "core.js").as_uri(), str(write_json(tmp_path / "list.json", cases | {"whole": str(path)}))]
    said = json.loads(run(["node", "--input-type=module", "-e", script, *arguments]))
    assert said.pop("whole") == "read"
    for name, message in said.items():
        assert message.startswith("FileError: This") and message.endswith("."), f"{name}: {message}"
