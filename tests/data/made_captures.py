"""Tiny downloads in the published layouts of Ava-256 and NeRSemble v2, written from those layouts alone: nothing here
imports the readers. What is pictured is a cloud of black dots and, as segmentation, a disc and a chair."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

GREY, DOT_RADIUS_PX = 180, 5.0


def dots() -> np.ndarray:
    """(40, 3) known points around a head, metres, head space (+x its left, +y up, +z out of the face); no symmetry."""
    random = np.random.default_rng(8)
    return random.uniform([-0.12, -0.14, -0.1], [0.13, 0.15, 0.12], (40, 3))


@dataclass
class Truth:
    """``landmarks[camera, frame]``: (478, 2) true pixels of the stored pictures, of cameras that see the face."""

    landmarks: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def find(self, image: np.ndarray, name: str) -> np.ndarray | None:
        _sequence, camera, frame = name.split("/")
        return self.landmarks.get((camera, int(frame)))


def look_at(eye: np.ndarray, centre: np.ndarray, up: np.ndarray, roll: float) -> np.ndarray:
    """(4, 4) world to an OpenCV camera at ``eye``: x right, y down, z towards ``centre``."""
    forward = (centre - eye) / np.linalg.norm(centre - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = Rotation.from_rotvec([0, 0, roll]).as_matrix() @ np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    return matrix


def picture(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: discs with soft edges whose centres are at ``pixels`` (0 is the first pixel's edge)."""
    grey = np.full((height, width), float(GREY))
    reach = int(DOT_RADIUS_PX) + 2
    for u, v in pixels:
        top, left = max(int(v) - reach, 0), max(int(u) - reach, 0)
        part = grey[top : max(int(v) + reach + 1, 0), left : max(int(u) + reach + 1, 0)]
        y, x = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
        cover = np.clip(DOT_RADIUS_PX + 0.5 - np.hypot(x + left - u, y + top - v), 0, 1)
        np.minimum(part, GREY * (1 - cover), out=part)
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, 2)


def in_picture(points_head: np.ndarray, head_to_cam: np.ndarray, K: np.ndarray) -> np.ndarray:
    seen = points_head @ head_to_cam[:3, :3].T + head_to_cam[:3, 3]
    pixels = seen @ K.T
    return pixels[:, :2] / pixels[:, 2:]


def through_lens(pixels: np.ndarray, K: np.ndarray, lens: tuple[float, ...] | None) -> np.ndarray:
    """Where a lens puts what a pinhole camera sees at ``pixels``, point by point: the formulas of OpenCV's calib3d page
    with k1, k2, p1, p2 and k3."""
    if lens is None:
        return pixels
    k1, k2, p1, p2, k3 = lens
    moved = []
    for u, v in pixels:
        y = (v - K[1, 2]) / K[1, 1]
        x = (u - K[0, 2] - K[0, 1] * y) / K[0, 0]
        r = np.hypot(x, y)
        bent = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
        x2 = x * bent + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
        y2 = y * bent + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
        moved.append((K[0, 0] * x2 + K[0, 1] * y2 + K[0, 2], K[1, 1] * y2 + K[1, 2]))
    return np.array(moved)


def yaws() -> dict[str, float]:
    """Where five cameras stand around the head, degrees; the last sees it from behind."""
    return {"0": 0.0, "1": 25.0, "2": -40.0, "3": 85.0, "4": 170.0}


def make_ava(
    root: Path,
    landmarks: np.ndarray,
    name: str = "20210810--1306--FXN596",
    frames: tuple[int, ...] = (1000, 1010, 1021),
    missing: tuple[tuple[str, int], ...] = (),
    lens: tuple[float, ...] | None = None,
    tamper: Callable[[dict], None] = lambda calibration: None,
) -> Truth:
    """``name/decoder/...``: 667 x 1024 px AVIF pictures, zips, KRT in millimetres, K and T transposed."""
    folder, truth = root / name / "decoder", Truth()
    (folder / "image").mkdir(parents=True)
    (folder / "segmentation_parts").mkdir()
    (folder / "head_pose").mkdir()
    # The capture's head frame: y down, z backwards, its origin beside ours; millimetres.
    own = np.diag([1.0, -1.0, -1.0]) @ Rotation.from_euler("xyz", [5, -8, 3], degrees=True).as_matrix()
    own_shift = np.array([12.0, -30.0, 7.0])
    poses = {}
    for number, frame in enumerate(frames):
        turn = Rotation.from_euler("xyz", [170 + 4 * number, 9 * number, -5], degrees=True).as_matrix()
        poses[frame] = (turn, np.array([150.0 + 9 * number, -80.0, 1000.0]))
    cameras, krt = {}, []
    face = poses[frames[0]][0] @ own  # head space to world, rotation
    head = poses[frames[0]][0] @ own_shift + poses[frames[0]][1]
    for number, (camera, yaw) in enumerate(yaws().items()):
        ident = f"40{camera}00{camera}"
        direction = Rotation.from_euler("y", yaw, degrees=True).as_matrix() @ np.array([0, 0.1, 1.0])
        world_to_cam = look_at(head + 1100 * face @ direction, head, face @ np.array([0, 1.0, 0]), 0.05 * number)
        K = np.array([[5200.0 + 40 * number, 0, 1320 + 11 * number], [0, 5190, 2060 - 17 * number], [0, 0, 1]])
        cameras[ident] = (K, world_to_cam, yaw)
        krt.append({"cameraId": ident, "K": K.T.tolist(), "T": world_to_cam[:3].T.tolist()})
        krt[-1] |= {"distortion": list(lens or [0.0] * 5), "distortionModel": "radial-tangential"}
    calibration = {"KRT": krt}
    tamper(calibration)
    (folder / "camera_calibration.json").write_text(json.dumps(calibration))
    rows = ["seg_id,frame_id", "EXP_Neutral_color_checker,000500", *(f"EXP_smile,{f:06d}" for f in frames)]
    (folder / "frame_list.csv").write_text("\n".join(rows) + "\n")
    with zipfile.ZipFile(folder / "head_pose" / "head_pose.zip", "w") as archive:
        for frame, (turn, shift) in poses.items():
            text = "\n".join(" ".join(f"{v:.9f}" for v in [*row, s]) for row, s in zip(turn, shift))
            archive.writestr(f"{frame:06d}.txt", text)
    scale = np.diag([667 / 2668, 1024 / 4096, 1.0])
    for ident, (K, world_to_cam, yaw) in cameras.items():
        with (
            zipfile.ZipFile(folder / "image" / f"cam{ident}.zip", "w") as pictures,
            zipfile.ZipFile(folder / "segmentation_parts" / f"cam{ident}.zip", "w") as parts,
        ):
            for frame in reversed(frames):  # a zip keeps its own order
                turn, shift = poses[frame]
                head_to_cam = np.eye(4)
                head_to_cam[:3, :3] = world_to_cam[:3, :3] @ turn @ own * 1000  # metres in, millimetres out
                head_to_cam[:3, 3] = world_to_cam[:3, :3] @ (turn @ own_shift + shift) + world_to_cam[:3, 3]
                if abs(yaw) < 60:
                    truth.landmarks[ident, frame] = in_picture(landmarks, head_to_cam, scale @ K)
                if (ident, frame) in missing:
                    continue
                at = through_lens(in_picture(dots(), head_to_cam, scale @ K), scale @ K, lens)
                pictures.writestr(
                    f"cam{ident}/{frame:06d}.avif", encoded(picture(at, 667, 1024), "AVIF", quality=95, speed=10)
                )
                y, x = np.mgrid[:1024, :667]
                labels = np.where(np.hypot(*(at.mean(0)[:, None, None] - [x, y])) < 180, 2, 0)
                labels[at.mean(0)[1].astype(int) + 60 :, :] *= 0
                labels[at.mean(0)[1].astype(int) + 60 :, 200:] = 3  # the chair
                parts.writestr(f"cam{ident}/{frame:06d}.png", encoded(labels.astype(np.uint8), "PNG"))
    return truth


def encoded(pixels: np.ndarray, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def make_nersemble(
    root: Path,
    landmarks: np.ndarray,
    person: str = "393",
    sequence: str = "EMO-1-shout+laugh",
    frames: int = 3,
    colours: dict[str, list[list[float]]] | None = None,
    alpha: bool = True,
    missing: tuple[str, ...] = (),
    lens: dict[str, tuple[float, ...]] | None = None,
) -> Truth:
    """``ID/calibration``, ``ID/sequences/NAME/images/cam_SERIAL.mp4``: films of 550 x 802 px, metres."""
    folder, truth = root / person, Truth()
    (folder / "calibration").mkdir(parents=True)
    images = folder / "sequences" / sequence / "images"
    alphas = folder / "sequences" / sequence / "alpha_maps"
    images.mkdir(parents=True)
    alphas.mkdir()
    K = np.array([[4100.0, 0, 1085], [0, 4090, 1630], [0, 0, 1]])
    poses = []
    for frame in range(frames):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("xyz", [100, 12 * frame, 7 * frame - 4], degrees=True).as_matrix()
        pose[:3, 3] = [0.02 * frame, 0.9, -0.3 + 0.01 * frame]
        poses.append(pose)
    serials = dict(zip(("222200037", "222200046", "220700191", "222200039", "221501007"), yaws().values()))
    world_to_cam = {}
    scale = np.diag([550 / 2200, 802 / 3208, 1.0])
    for number, (serial, yaw) in enumerate(serials.items()):
        direction = Rotation.from_euler("y", yaw, degrees=True).as_matrix() @ np.array([0, 0.05, 1.0])
        head, face = poses[0][:3, 3], poses[0][:3, :3]
        world_to_cam[serial] = look_at(head + 1.05 * face @ direction, head, face @ [0, 1.0, 0], -0.04 * number)
        if serial in missing:
            continue
        shown = []
        for frame, pose in enumerate(poses):
            head_to_cam = world_to_cam[serial] @ pose
            if abs(yaw) < 60:
                truth.landmarks[serial, frame] = in_picture(landmarks, head_to_cam, scale @ K)
            at = through_lens(in_picture(dots(), head_to_cam, scale @ K), scale @ K, (lens or {}).get(serial))
            shown.append(picture(at, 550, 802))
        film(images / f"cam_{serial}.mp4", shown)
        if alpha:
            film(alphas / f"cam_{serial}.mp4", [np.full_like(p, 255) for p in shown])
    parameters = {"world_2_cam": {s: m.tolist() for s, m in world_to_cam.items()}, "intrinsics": K.tolist()}
    if lens is not None:
        parameters["distortion"] = {serial: list(values) for serial, values in lens.items()}
    (folder / "calibration" / "camera_params.json").write_text(json.dumps(parameters))
    if colours is not None:
        (folder / "calibration" / "color_calibration.json").write_text(json.dumps(colours))
    return truth


def film(place: Path, pictures: list[np.ndarray]) -> None:
    with av.open(str(place), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "8"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
