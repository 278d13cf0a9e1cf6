"""GLB: an evaluator of glTF's own formulas finds the avatar's shape, at rest and in every frame of an animation."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from readers import Gltf

from ffavatar.animate import pose_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion
from ffavatar.drive.pose import posed
from ffavatar.export.formats import export
from ffavatar.export.gltf import Glb, srgb_to_linear
from ffavatar.export.mesh import ColouredMesh, dense_faces, posed_mesh, vertex_colours, vertex_normals
from ffavatar.export.options import ExportOptions, head_space, posed_splats
from ffavatar.types import CanonicalGaussians, HeadParams

ARKIT = 52


@pytest.fixture(scope="module")
def moving(avatar: Avatar, motion: Motion, tmp_path_factory) -> Gltf:
    path = tmp_path_factory.mktemp("glb") / "moving.glb"
    export(avatar, path, ExportOptions(motion=motion))
    return Gltf(path.read_bytes())


@pytest.fixture(scope="module")
def meshed(flat: Avatar, motion: Motion, tmp_path_factory) -> Gltf:
    path = tmp_path_factory.mktemp("glb") / "moving.mesh.glb"
    export(flat, path, ExportOptions(motion=motion))
    return Gltf(path.read_bytes())


def wanted_vertices(avatar: Avatar, params: HeadParams) -> np.ndarray:
    params = head_space(params, avatar)
    return avatar.rig.head.pose(avatar.rig.neutral[None], avatar.rig.joints[None], params).vertices[0].numpy()


def test_resting_gaussians_draw_the_avatar(avatar, draw, likeness, moving) -> None:
    back = moving.gaussians(moving.node("avatar"))
    wanted = avatar.render(avatar.neutral_params(), 192).images[0]
    assert likeness(draw(back), wanted) > 80


def test_gaussian_attributes_are_as_the_extension_says(avatar, moving) -> None:
    node = moving.node("avatar")
    primitive = moving.primitive(node)
    assert primitive["mode"] == 0 and "KHR_gaussian_splatting" in moving.json["extensionsUsed"]
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    made = posed_splats(avatar, None)
    scales = moving.attribute(node, "KHR_gaussian_splatting:SCALE")
    np.testing.assert_allclose(scales, made.scales, rtol=1e-6)  # linear, not logarithms
    turns = moving.attribute(node, "KHR_gaussian_splatting:ROTATION")
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-4)
    shown = moving.attribute(node, "COLOR_0")  # linear light, for programs that do not know the extension
    np.testing.assert_allclose(shown[:, :3], srgb_to_linear(made.colors.numpy()), atol=1e-5)
    np.testing.assert_allclose(shown[:, 3], made.opacities, atol=1e-5)


@pytest.mark.parametrize("frame", [0, 9, 19])
def test_animated_mesh_is_the_posed_head(avatar, motion, meshed, frame) -> None:
    """Morph targets, correctives, joints and skin together: within 0.03 mm of the head model in float32."""
    vertices = meshed.skinned(meshed.node("head"), meshed.sample(0, frame))
    params = motion.for_head(avatar.rig.head)[frame : frame + 1]
    wanted = wanted_vertices(avatar, params)
    still = wanted_vertices(avatar, avatar.neutral_params())
    assert frame == 0 or np.abs(wanted - still).max() > 5e-3
    assert np.abs(vertices - wanted).max() < 3e-5


@pytest.mark.parametrize("frame", [9, 19])
def test_animated_gaussians_follow(avatar, motion, moving, frame) -> None:
    """glTF skins a splat at its own place instead of mixing its base vertices: 2 mm at most, 0.1 mm on average."""
    points = moving.skinned(moving.node("avatar"), moving.sample(0, frame))
    params = head_space(motion.for_head(avatar.rig.head)[frame : frame + 1], avatar)
    wanted = pose_gaussians(avatar.rig, avatar.canonical, params).means[0].numpy()
    apart = np.linalg.norm(points - wanted, axis=1)
    assert apart.max() < 2e-3 and apart.mean() < 1e-4


def test_joints_that_follow_expression_are_animated(restless, motion, tmp_path) -> None:
    motion = replace(motion, head_edition=restless.rig.head.edition)  # whose expressions that head has
    params = motion.for_head(restless.rig.head)
    for name, node in (("a.glb", "avatar"), ("a.mesh.glb", "head")):
        export(restless, tmp_path / name, ExportOptions(motion=motion, allow_flame=True))
        back = Gltf((tmp_path / name).read_bytes())
        for frame in (4, 15):
            vertices = back.skinned(back.node(node), back.sample(0, frame))
            assert np.abs(vertices - wanted_vertices(restless, params[frame : frame + 1])).max() < 3e-5


@pytest.mark.parametrize(("name", "what"), [("a.glb", "avatar"), ("a.mesh.glb", "head")])
def test_arkit_names_move_the_resting_head(flat, tmp_path, name, what) -> None:
    """All 52 are there without a motion; weight 1 of each is what the avatar does, also where it is a joint's turn."""
    export(flat, tmp_path / name)
    back = Gltf((tmp_path / name).read_bytes())
    assert "animations" not in back.json and len(back.json["scenes"]) == 1
    node = back.node(what)
    names = back.target_names(node)
    assert len(names) == len(set(names)) == ARKIT and {"jawOpen", "eyeBlinkLeft", "eyeLookInLeft"} <= set(names)
    for target in ("jawOpen", "mouthSmileLeft", "eyeLookInLeft"):
        weights = np.array([float(n == target) for n in names])
        vertices = back.skinned(node, {(node, "weights"): weights})
        wanted = wanted_vertices(flat, posed(flat, (0, 0, 0), {target: 1.0}))
        assert np.abs(wanted - wanted_vertices(flat, flat.neutral_params())).max() > 2e-3
        assert np.abs(vertices - wanted).max() < 3e-5


def test_only_used_extras_are_written(avatar, motion, moving) -> None:
    names = moving.target_names(moving.node("avatar"))
    used = avatar.expression_names[60]
    assert used.startswith("mh_") and used in names
    assert len([n for n in names if n.startswith("mh_")]) == 1
    assert any(n.startswith("corrective_") for n in names)


def test_rotations_take_the_short_way(avatar, motion, tmp_path) -> None:
    """A turn through 180 degrees flips the quaternion's sign; interpolation must not notice."""
    params = replace(motion.params, root=torch.zeros(20, 3))
    yaw = torch.linspace(2.8, 3.6, 20)
    params.root[:, 1] = torch.remainder(yaw + torch.pi, 2 * torch.pi) - torch.pi  # beyond half a turn it is negative
    export(avatar, tmp_path / "a.glb", ExportOptions(motion=replace(motion, params=params)))
    back = Gltf((tmp_path / "a.glb").read_bytes())
    turns = np.stack([back.sample(0, i)[back.node("global"), "rotation"] for i in range(20)])
    assert ((turns[1:] * turns[:-1]).sum(1) > 0.99).all()


def test_a_pose_is_baked_without_rig(avatar, draw, likeness, tmp_path) -> None:
    pose = posed(avatar, (30, 0, 0), {"jawOpen": 0.7})
    export(avatar, tmp_path / "a.glb", ExportOptions(pose=pose))
    back = Gltf((tmp_path / "a.glb").read_bytes())
    assert "skins" not in back.json and "targets" not in back.primitive(0)
    assert likeness(draw(back.gaussians(0)), avatar.render(pose, 192).images[0]) > 80


@pytest.mark.parametrize("scale", [10.0, 0.001])
def test_scale_carries_the_motion_with_it(avatar, motion, tmp_path, moving, scale) -> None:
    """In the points themselves too, which is all that a program without skins shows."""
    export(avatar, tmp_path / "a.glb", ExportOptions(motion=motion, scale=scale))
    other = Gltf((tmp_path / "a.glb").read_bytes())
    node = moving.node("avatar")
    for name in ("POSITION", "KHR_gaussian_splatting:SCALE"):
        np.testing.assert_allclose(other.attribute(node, name), scale * moving.attribute(node, name), atol=1e-6 * scale)
    a, b = other.skinned(node, other.sample(0, 9)), moving.skinned(node, moving.sample(0, 9))
    np.testing.assert_allclose(a, scale * b, atol=2e-6 * scale)


def test_files_say_that_they_are_synthetic(avatar, moving) -> None:
    extras = moving.json["asset"]["extras"]
    assert "AI-generated" in extras["notice"] and extras["digitalSourceType"].endswith("trainedAlgorithmicMedia")
    rights = moving.json["asset"]["copyright"]
    assert rights.startswith("Head model: CC0") and "the person shown holds" in rights
    assert extras["head"] == avatar.rig.head.edition


def test_misaligned_rows_are_refused() -> None:
    glb = Glb({"headLicence": "none"})
    with pytest.raises(ValueError, match="aligned"):
        glb.add(np.zeros((4, 3), np.uint8), 34962)


def test_an_empty_morph_target_is_one_zero() -> None:
    glb = Glb({"headLicence": "none"})
    index = glb.add_sparse(7, np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    assert not Gltf(glb.content()).accessor(index).any()


# Meshes


def signed_volume(mesh: ColouredMesh) -> float:
    a, b, c = mesh.vertices.astype(np.float64)[mesh.faces].transpose(1, 0, 2)
    return float((np.cross(a, b) * c).sum() / 6)


def test_mesh_is_made_of_the_gaussians_and_looks_outwards(avatar) -> None:
    pose = posed(avatar, (20, 0, 0), {"jawOpen": 0.5})
    made, cloud = posed_mesh(avatar, pose), posed_splats(avatar, pose)
    kept = cloud.means.numpy()[(cloud.opacities >= 0.2).numpy()]
    places = {tuple(row) for row in kept.tolist()}
    assert all(tuple(row) in places for row in made.vertices.tolist())
    share = len(made.faces) / len(avatar.rig.head.faces)
    assert 0.45 < share < 0.58  # opacities are uniform: three corners above 0.2 are 0.8 cubed
    assert np.unique(made.faces).tolist() == list(range(len(made.vertices)))
    solid = replace(avatar, canonical=replace(avatar.canonical, opacities=torch.ones(len(avatar))))
    whole = posed_mesh(solid, None)
    assert len(whole.faces) == len(avatar.rig.head.faces)
    assert signed_volume(whole) > 0.01  # cubic metres, positive if triangles run counter-clockwise from outside


@pytest.mark.parametrize("level", [0, 1, 2])
def test_triangles_between_dense_points_are_found(avatar, level) -> None:
    surface = avatar.rig.head.surface(level)
    faces = dense_faces(replace(avatar.rig, surface=surface))
    assert faces is not None and np.array_equal(faces, surface.faces.numpy())


def test_gaussians_beyond_the_surface_do_not_cost_the_mesh_its_fineness(avatar, tmp_path) -> None:
    """Split splats and hair that outgrows the head stand after the points of the surface, which stay what is joined."""
    surface = avatar.rig.head.surface(1)
    count, some = len(surface), torch.arange(0, len(surface), 7)
    more = replace(
        surface,
        parents=torch.cat([surface.parents, surface.parents[some]]),
        barycentric=torch.cat([surface.barycentric, surface.barycentric[some]]),
    )
    assert np.array_equal(dense_faces(replace(avatar.rig, surface=more)), surface.faces.numpy())
    generator = torch.Generator().manual_seed(5)
    made = CanonicalGaussians(
        offsets=torch.randn(len(more), 3, generator=generator) * 1e-3,
        quats=torch.tensor([1.0, 0, 0, 0]).expand(len(more), 4).clone(),
        scales=torch.full((len(more), 3), 2e-3),
        opacities=torch.ones(len(more)),
        colors=torch.rand(len(more), 3, generator=generator),
    )
    split = replace(avatar, rig=replace(avatar.rig, surface=more), canonical=made)
    mesh = posed_mesh(split, None)
    assert len(mesh.vertices) == count > 3 * len(avatar.rig.neutral)
    np.testing.assert_array_equal(mesh.vertices, posed_splats(split, None).means[:count].numpy())
    np.testing.assert_array_equal(mesh.colours, made.colors[:count].numpy())
    for name in ("a.obj", "a.zip", "a.mesh.glb"):
        export(split, tmp_path / name)
    rigged = Gltf((tmp_path / "a.mesh.glb").read_bytes())
    np.testing.assert_allclose(rigged.skinned(rigged.node("head"), {}), mesh.vertices, atol=1e-6)


def test_thinned_avatars_give_the_base_mesh(avatar, tmp_path) -> None:
    some = torch.arange(0, len(avatar), 2)
    surface = replace(avatar.rig.surface, parents=avatar.rig.surface.parents[some])
    surface = replace(surface, barycentric=avatar.rig.surface.barycentric[some])
    canonical = replace(avatar.canonical, **{k: v[some] for k, v in vars(avatar.canonical).items()})
    thin = replace(avatar, rig=replace(avatar.rig, surface=surface), canonical=canonical)
    assert dense_faces(thin.rig) is None
    made = posed_mesh(thin, None)
    assert len(made.faces) == len(avatar.rig.head.faces)
    pose = posed(thin, (30, 0, 0))
    np.testing.assert_allclose(posed_mesh(thin, pose).vertices, wanted_vertices(avatar, pose), atol=1e-6)
    for name in ("a.obj", "a.zip", "a.glb"):
        assert export(thin, tmp_path / name).stat().st_size > 1000
    export(thin, tmp_path / "a.mesh.glb")
    back = Gltf((tmp_path / "a.mesh.glb").read_bytes())
    np.testing.assert_allclose(back.skinned(back.node("head"), {}), avatar.rig.neutral, atol=1e-6)


def test_rigged_mesh_leaves_faint_corners_out(avatar, motion, tmp_path) -> None:
    """Its vertices are some of the Gaussians, and their weights and targets are those of the same ones."""
    export(avatar, tmp_path / "a.mesh.glb", ExportOptions(motion=motion))
    back, made = Gltf((tmp_path / "a.mesh.glb").read_bytes()), posed_mesh(avatar, None)
    assert made.points is not None and len(made.points) < len(avatar)
    params = head_space(motion.for_head(avatar.rig.head)[9:10], avatar)
    wanted = pose_gaussians(avatar.rig, avatar.canonical, params).means[0].numpy()[made.points]
    apart = np.linalg.norm(back.skinned(back.node("head"), back.sample(0, 9)) - wanted, axis=1)
    assert apart.max() < 2e-3 and apart.mean() < 1e-4


def test_vertex_colours_are_what_hangs_there(avatar) -> None:
    """On the undivided head each Gaussian hangs on one vertex."""
    seen = (avatar.canonical.opacities > 0.01).numpy()
    np.testing.assert_allclose(vertex_colours(avatar)[seen], avatar.canonical.colors.numpy()[seen], atol=1e-5)


def test_normals_are_unit_and_outward() -> None:
    ball = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1], [9, 9, 9]], np.float32)
    faces = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    normals = vertex_normals(ball, faces)
    np.testing.assert_allclose(normals[:6], ball[:6], atol=1e-6)
    np.testing.assert_allclose(normals[6], [0, 1, 0])  # unused


def test_obj_and_mesh_glb_hold_the_same(avatar, tmp_path) -> None:
    pose = posed(avatar, (20, 0, 0), {"jawOpen": 0.5})
    export(avatar, tmp_path / "a.obj", ExportOptions(pose=pose))
    export(avatar, tmp_path / "a.mesh.glb", ExportOptions(pose=pose))
    lines = (tmp_path / "a.obj").read_text().splitlines()
    assert lines[0].startswith("# AI-generated")
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int) - 1
    back = Gltf((tmp_path / "a.mesh.glb").read_bytes())
    np.testing.assert_allclose(back.attribute(0, "POSITION"), points[:, :3], atol=1e-6)
    np.testing.assert_allclose(back.attribute(0, "COLOR_0")[:, :3], srgb_to_linear(points[:, 3:]), atol=2e-4)
    assert np.array_equal(back.accessor(back.primitive(0)["indices"]).reshape(-1, 3).astype(int), faces)
    assert "KHR_gaussian_splatting" not in back.json["extensionsUsed"]


def test_srgb_to_linear_against_the_standard() -> None:
    np.testing.assert_allclose(
        srgb_to_linear(np.array([0, 0.04045, 0.5, 1.0])), [0, 0.0031308, 0.2140411, 1], atol=1e-6
    )


# The Khronos validator

VALIDATE = """
const { validateBytes } = require("gltf-validator");
const fs = require("fs");
(async () => {
  const found = {};
  for (const name of process.argv.slice(2)) {
    const report = await validateBytes(new Uint8Array(fs.readFileSync(name)), { maxIssues: 0 });
    found[name.split("/").pop()] = report.issues.messages;
  }
  console.log(JSON.stringify(found));
})();
"""


@pytest.mark.slow
def test_khronos_validator(avatar, motion, tmp_path: Path) -> None:
    """No error and no warning, but that it knows neither the extension nor the names of its attributes."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.fail("this test needs node and npm; install them")
    export(avatar, tmp_path / "rest.glb")
    export(avatar, tmp_path / "moving.glb", ExportOptions(motion=motion))
    export(avatar, tmp_path / "scaled.glb", ExportOptions(motion=motion, scale=10.0))
    export(avatar, tmp_path / "baked.glb", ExportOptions(motion=motion, frame=3))
    export(avatar, tmp_path / "head.mesh.glb", ExportOptions(motion=motion, frame=3))
    export(avatar, tmp_path / "rigged.mesh.glb", ExportOptions(motion=motion))
    export(avatar, tmp_path / "lam.zip")
    shutil.unpack_archive(tmp_path / "lam.zip", tmp_path / "lam")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "gltf-validator@2.0.0-dev.3.10"]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    (tmp_path / "validate.cjs").write_text(VALIDATE)
    files = [*tmp_path.glob("*.glb"), *tmp_path.glob("lam/lam/*.glb")]
    done = subprocess.run(
        ["node", "validate.cjs", *map(str, files)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    splats = {"rest.glb", "moving.glb", "scaled.glb", "baked.glb"}
    assert set(found) == splats | {"skin.glb", "animation.glb", "head.mesh.glb", "rigged.mesh.glb"}
    for name, issues in found.items():
        serious = [i for i in issues if i["severity"] < 2]  # errors and warnings
        attributes = [i for i in serious if "/attributes/KHR_gaussian_splatting:" in i["pointer"]]
        assert serious == attributes, name
        assert {i["code"] for i in attributes} <= {"MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
        assert len(attributes) == (4 if name in splats else 0)
