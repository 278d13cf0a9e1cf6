"""The viewer's pictures in headless Chromium against ``ffavatar.render.rasterize``."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from viewer_tools import build, lively_poses, params_json, run_in_browser, synthetic_avatars, workshop, write_json

from ffavatar.animate import pose_gaussians
from ffavatar.avatar import Avatar
from ffavatar.geometry import normalised_camera
from ffavatar.render import rasterize
from ffavatar.types import Camera

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PRECISIONS = ("float16", "float32", "byte")  # the first is what viewers use; the others draw one pose only
OTHERS_POSE = 1
LEAST_PSNR_DB = 40.0


def turned_camera(yaw: float, pitch: float, distance: float, focal: float, width: int, height: int) -> Camera:
    """On a sphere about the head, looking past its middle so that the picture's edge cuts splats."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    back = torch.tensor([sy * cp, sp, cy * cp])
    rows = torch.stack([torch.tensor([cy, 0, -sy]), torch.tensor([sy * sp, -cp, cy * sp]), -back])
    eye = torch.tensor([0.01, 0.02, -1.15]) + distance * back
    world_to_cam = torch.eye(4)
    world_to_cam[:3, :3], world_to_cam[:3, 3] = rows, -rows @ eye
    K = torch.tensor([[focal, 0, 0.47 * width], [0, focal * 1.02, 0.52 * height], [0, 0, 1]])
    return Camera(world_to_cam[None], K[None], width, height)


CAMERAS = (
    normalised_camera(384),
    turned_camera(0.7, 0.2, 0.8, 680, 300, 360),
    turned_camera(-0.4, -0.25, 0.45, 520, 384, 288),  # near: the head fills more than the picture
)


def camera_json(camera: Camera) -> dict[str, object]:
    K = camera.K[0]
    place = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    sizes = {"width": camera.width, "height": camera.height}
    return {name: float(v) for name, v in place.items()} | sizes | {"worldToCam": camera.world_to_cam[0].tolist()}


@pytest.fixture(scope="module")
def drawn():
    """folder, params and which precisions Chromium really had."""
    dist, _ = build()
    folder = workshop() / "pictures"
    folder.mkdir()
    for path in synthetic_avatars():
        shutil.copy(path, folder / path.name)
    params = lively_poses(Avatar.load(synthetic_avatars()[0]))
    spec = {
        "avatars": [path.name for path in synthetic_avatars()],
        "params": params_json(params),
        "cameras": [camera_json(camera) for camera in CAMERAS],
        "precisions": list(PRECISIONS),
    }
    write_json(folder / "spec.json", spec)
    run_in_browser("pictures.mjs", dist, folder, timeout_s=500)
    return folder, params, json.loads((folder / "used.json").read_text())


def pictures(path, count: int) -> list[list[np.ndarray]]:
    """(poses) lists of one (H, W, 4) picture a camera."""
    rows = np.fromfile(path, np.float32)
    sizes = [c.width * c.height * 4 for c in CAMERAS] * count
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    shapes = [(c.height, c.width, 4) for c in CAMERAS] * count
    flat = [part.reshape(shape) for part, shape in zip(parts, shapes)]
    return [flat[k : k + len(CAMERAS)] for k in range(0, len(flat), len(CAMERAS))]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(max(float(np.square(a.astype(np.float64) - b).mean()), 1e-12))


def test_pictures_equal_the_rasterizer(drawn) -> None:
    folder, params, used = drawn
    assert used["float16"] == "float16", "Chromium here should be able to draw to half floats"
    worst = {}
    for path in synthetic_avatars():
        avatar = Avatar.load(path)
        names = [(p, suffix) for p in PRECISIONS for suffix in ("", ".linear")]
        counts = {p: len(params) if p == PRECISIONS[0] else 1 for p in PRECISIONS}
        seen = {n: pictures(folder / f"{n[0]}-{path.name}{n[1]}.f32", counts[n[0]]) for n in names}
        for pose in range(len(params)):
            for view, camera in enumerate(CAMERAS):
                posed = pose_gaussians(avatar.rig, avatar.canonical, params[[pose]], camera=camera)
                color, alpha, _ = rasterize(
                    posed.means[0], posed.quats[0], posed.scales, posed.opacities, posed.colors[0],
                    camera.world_to_cam, camera.K, camera.width, camera.height, backgrounds=torch.ones(1, 3),
                )  # fmt: skip
                expected = color[0].numpy()
                assert 0.05 < alpha.mean() and expected.std() > 0.05  # a head is in the picture
                said = []
                for (precision, suffix), all_views in seen.items():
                    if precision != PRECISIONS[0] and pose != OTHERS_POSE:
                        continue
                    picture = all_views[pose if precision == PRECISIONS[0] else 0][view]
                    rgb = picture[..., :3]
                    if suffix and precision != "byte":  # before the background: premultiplied
                        rgb = rgb + (1 - picture[..., 3:])
                    value = psnr(rgb, expected)
                    key = precision + suffix
                    worst[key] = min(worst.get(key, math.inf), value)
                    said.append(f"{key} {value:.1f}")
                print(f"{path.stem} pose {pose} camera {view}: " + ", ".join(said))
    print("worst: " + ", ".join(f"{name} {value:.1f} dB" for name, value in worst.items()))
    assert worst["float16"] >= LEAST_PSNR_DB
    if used["float32"] == "float32":
        assert worst["float32"] >= LEAST_PSNR_DB
    assert worst["byte"] >= LEAST_PSNR_DB


def test_three_object_draws_the_same(tmp_path) -> None:
    """In a byte canvas, through three.js's own camera; at rest and driven."""
    dist, _ = build()
    path = synthetic_avatars()[2]
    run_in_browser("three.mjs", dist, path, tmp_path)
    avatar = Avatar.load(path)
    params = avatar.neutral_params(2)
    params.jaw[1] += avatar.rig.head.arkit_pose["jawOpen"][2]
    params.neck[1, 1] += 0.4
    expected = avatar.render(params, 320).images.numpy()
    for name, wanted in zip(("three", "three-driven"), expected):
        picture = np.fromfile(tmp_path / f"{name}.u8", np.uint8).reshape(320, 320, 4)[..., :3] / 255
        value = psnr(picture, wanted)
        print(f"{name}: {value:.1f} dB")
        assert value >= LEAST_PSNR_DB
    assert psnr(expected[0], expected[1]) < 30
