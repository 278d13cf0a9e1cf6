"""PLY, SPZ and .splat: what independent readers find draws the same picture, in the axes that the format promises."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import gaussians, ply_gaussians, read_ply, read_splat, read_spz, unpack_quaternion

from ffavatar.drive.pose import posed
from ffavatar.export.formats import export
from ffavatar.export.options import ExportOptions, posed_splats
from ffavatar.export.splats import PLY_PROPERTIES, smallest_three
from ffavatar.geometry import quat_to_matrix
from ffavatar.types import Gaussians

POSE = {"jawOpen": 0.6, "mouthSmileLeft": 0.8}


def angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Degrees between rotations."""
    return torch.rad2deg(2 * torch.acos((a.double() * b.double()).sum(-1).abs().clamp(max=1)))


@pytest.fixture(scope="module")
def pose(avatar):
    return posed(avatar, (25, 10, -5), POSE)


@pytest.mark.parametrize("moved", [False, True], ids=["rest", "posed"])
def test_ply_draws_the_avatar(avatar, pose, draw, likeness, tmp_path, moved) -> None:
    params = pose if moved else avatar.neutral_params()
    export(avatar, tmp_path / "a.ply", ExportOptions(pose=pose if moved else None))
    columns, comments = read_ply((tmp_path / "a.ply").read_bytes())
    assert tuple(columns) == PLY_PROPERTIES
    assert any("trainedAlgorithmicMedia" in c for c in comments) and any("AI-generated" in c for c in comments)
    # an OpenCV camera at the origin's side of the face: y down and z away, without any turn of axes
    seen, wanted = draw(ply_gaussians(columns), y_down=True), avatar.render(params, 192).images[0]
    assert wanted.std() > 0.1
    # opacities stay 1/1024 away from 0 and 1, which is all that differs
    assert likeness(seen, wanted) > 70


def test_ply_is_exact_but_for_extreme_opacities(avatar, tmp_path) -> None:
    export(avatar, tmp_path / "a.ply")
    back, wanted = ply_gaussians(read_ply((tmp_path / "a.ply").read_bytes())[0]), posed_splats(avatar, None)
    flipped = wanted.means * torch.tensor([1.0, -1.0, -1.0])
    assert (back.means - flipped).abs().max() < 1e-7
    assert (back.scales / wanted.scales - 1).abs().max() < 2e-6
    assert (back.colors - wanted.colors).abs().max() < 1e-6
    assert (back.opacities - wanted.opacities).abs().max() < 1 / 1000


@pytest.mark.parametrize("moved", [False, True], ids=["rest", "posed"])
def test_spz_draws_the_avatar(avatar, pose, draw, likeness, tmp_path, moved) -> None:
    params = pose if moved else avatar.neutral_params()
    export(avatar, tmp_path / "a.spz", ExportOptions(pose=pose if moved else None))
    seen, wanted = draw(read_spz(tmp_path / "a.spz")), avatar.render(params, 192).images[0]
    assert likeness(seen, wanted) > 48


def test_spz_errors_are_its_quantisation(avatar, tmp_path) -> None:
    export(avatar, tmp_path / "a.spz")
    back, wanted = read_spz(tmp_path / "a.spz"), posed_splats(avatar, None)
    assert (back.means - wanted.means).abs().max() <= 0.5 / 2**16 + 1e-7  # half of 0.015 mm
    assert (back.scales.log() - wanted.scales.log()).abs().max() <= 1 / 32 + 1e-5
    assert (back.opacities - wanted.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.colors - wanted.colors).abs().max() <= 0.5 / 255 / 0.15 * 0.28210 + 1e-6
    assert angles(back.quats, wanted.quats).max() < 0.25


def test_spz_is_the_same_every_time(avatar, tmp_path) -> None:
    for name in ("a", "b"):
        export(avatar, tmp_path / f"{name}.spz")
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()


def test_spz_gives_up_precision_for_range(avatar, tmp_path) -> None:
    """A thousand units per metre would overflow 16 fractional bits; the header says how many there are."""
    export(avatar, tmp_path / "a.spz", ExportOptions(scale=1000.0))
    back, wanted = read_spz(tmp_path / "a.spz"), posed_splats(avatar, None, 1000.0)
    assert wanted.means.abs().max() > 2**23 / 2**16
    assert (back.means - wanted.means).abs().max() < 1e-4


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 1e-3))
@settings(max_examples=300, deadline=None)
def test_smallest_three_loses_no_more_than_its_steps(values: list[float]) -> None:
    """Half a step of sqrt(1/2) / 511 in each of three components, at worst all at 1/2, where the fourth then takes all
    their errors: 2.4e-3 in the quaternion, 0.28 degrees of turn."""
    length = math.sqrt(sum(v * v for v in values))
    quat = np.array([[v / length for v in values]])
    back = np.array(unpack_quaternion(int(smallest_three(quat)[0])))
    assert abs(np.linalg.norm(back) - 1) < 1e-9
    assert math.degrees(2 * math.acos(min(1.0, abs(float(back @ quat[0]))))) < 0.28


@pytest.mark.parametrize("moved", [False, True], ids=["rest", "posed"])
def test_splat_draws_the_avatar(avatar, pose, draw, likeness, tmp_path, moved) -> None:
    params = pose if moved else avatar.neutral_params()
    export(avatar, tmp_path / "a.splat", ExportOptions(pose=pose if moved else None))
    seen = draw(read_splat(tmp_path / "a.splat"), y_down=True)
    assert likeness(seen, avatar.render(params, 192).images[0]) > 48


def test_splat_has_the_most_visible_first(avatar, tmp_path) -> None:
    """Viewers show the file while it loads, in its order."""
    export(avatar, tmp_path / "a.splat")
    back = read_splat(tmp_path / "a.splat")
    assert len(back) == len(avatar)
    weight = (back.scales.double().prod(1) * back.opacities.double()).numpy()
    middle = len(weight) // 2
    assert weight[:middle].min() > weight[middle:].max() * 0.8  # opacities are rounded to 8 bits
    assert weight[0] > 0.99 * weight.max()


@pytest.mark.parametrize("name", ["a.ply", "a.spz", "a.splat"])
def test_scale_multiplies_places_and_sizes(avatar, tmp_path: Path, name: str) -> None:
    read = {
        "a.ply": lambda p: ply_gaussians(read_ply(p.read_bytes())[0]),
        "a.spz": read_spz,
        "a.splat": read_splat,
    }[name]
    export(avatar, tmp_path / name)
    plain = read(tmp_path / name)
    export(avatar, tmp_path / name, ExportOptions(scale=2.0))
    large = read(tmp_path / name)
    assert (large.means - 2 * plain.means).abs().max() < 1e-4
    assert (large.scales / plain.scales - 2).abs().max() < 0.15  # two steps of SPZ's logarithm


def test_a_frame_of_a_motion_is_that_pose(avatar, motion, tmp_path) -> None:
    export(avatar, tmp_path / "a.ply", ExportOptions(motion=motion, frame=7))
    export(avatar, tmp_path / "b.ply", ExportOptions(pose=motion.for_head(avatar.rig.head)[7:8]))
    export(avatar, tmp_path / "c.ply", ExportOptions(motion=motion, frame=7 - len(motion)))
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "c.ply").read_bytes()
    export(avatar, tmp_path / "d.ply")
    assert (tmp_path / "a.ply").read_bytes() != (tmp_path / "d.ply").read_bytes()


def test_extreme_values_stay_finite(avatar, tmp_path) -> None:
    """Sizes of zero, opacities of 0 and 1, colours at the ends: logarithms exist all the same."""
    made = avatar.canonical
    hard = replace(
        avatar,
        canonical=replace(
            made,
            scales=torch.zeros_like(made.scales),
            opacities=(torch.arange(len(made)) % 2).float(),
            colors=(torch.arange(len(made)) % 2).float()[:, None].expand(-1, 3).contiguous(),
        ),
    )
    export(hard, tmp_path / "a.ply")
    columns, _ = read_ply((tmp_path / "a.ply").read_bytes())
    assert all(np.isfinite(values).all() for values in columns.values())
    export(hard, tmp_path / "a.spz")
    back = read_spz(tmp_path / "a.spz")
    assert set(back.opacities.tolist()) == {0.0, 1.0}
    assert (back.colors - hard.canonical.colors).abs().max() < 0.004


# The format's own library

READ_SPZ = """
import create from "@adobe/spz";
import fs from "fs";
const module = await create();
const found = {};
const content = new Uint8Array(fs.readFileSync("a.spz"));
for (const axes of ["RUB", "RDF"]) {
  const cloud = module.loadSpzFromBuffer(content, { to: module.CoordinateSystem[axes] });
  found[axes] = { count: cloud.numPoints, degree: cloud.shDegree };
  for (const name of ["positions", "scales", "rotations", "alphas", "colors"]) found[axes][name] = [...cloud[name]];
  found[axes].alphas = found[axes].alphas.map((v) => Math.max(-50, Math.min(50, v)));  // JSON has no infinity
}
fs.writeFileSync("a.json", JSON.stringify(found));
"""


@pytest.mark.slow
def test_the_reference_library_reads_spz(avatar, tmp_path) -> None:
    """As we do; and where it turns to a PLY's axes (right, down, forward) it finds our PLY."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.fail("this test needs node and npm; install them")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path), "@adobe/spz@0.2.3"]
    subprocess.run(install, check=True, capture_output=True, timeout=120)
    export(avatar, tmp_path / "a.spz")
    export(avatar, tmp_path / "a.ply")
    (tmp_path / "read.mjs").write_text(READ_SPZ)
    subprocess.run(["node", "read.mjs"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    found = json.loads((tmp_path / "a.json").read_text())

    def cloud(axes: str) -> Gaussians:
        raw = found[axes]
        assert (raw["count"], raw["degree"]) == (len(avatar), 0)
        rows = {name: np.array(raw[name]).reshape(len(avatar), -1) for name in raw if name not in ("count", "degree")}
        return gaussians(
            rows["positions"],
            rows["rotations"][:, [3, 0, 1, 2]],
            np.exp(rows["scales"]),
            1 / (1 + np.exp(-rows["alphas"][:, 0])),
            0.5 + rows["colors"] / (2 * math.sqrt(math.pi)),
        )

    theirs, ours = cloud("RUB"), read_spz(tmp_path / "a.spz")
    for name, tolerance in (("means", 1e-6), ("scales", 1e-6), ("opacities", 1e-5), ("colors", 1e-5)):
        assert (getattr(theirs, name) - getattr(ours, name)).abs().max() < tolerance, name
    assert angles(theirs.quats, ours.quats).max() < 0.05
    turned, ply = cloud("RDF"), ply_gaussians(read_ply((tmp_path / "a.ply").read_bytes())[0])
    assert (turned.means - ply.means).abs().max() < 1e-5
    # A half turn of a splat about its own axis changes nothing: the shapes agree, quaternions need not.
    shapes = [quat_to_matrix(q.double()) * ply.scales[:, None].double() for q in (turned.quats, ply.quats)]
    spread = [shape @ shape.mT for shape in shapes]
    largest = ply.scales.double().amax(1).square()[:, None, None]
    assert ((spread[0] - spread[1]) / largest).abs().max() < 0.01
