"""Downloads of Ava-256 and NeRSemble in which a drawn head is seen by calibrated cameras, so that all of the chain, the
photo front end included, has a face to work on. As ``made_captures``, nothing here imports the readers."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from made_captures import encoded, film
from scipy.spatial.transform import Rotation

from ffavatar.data.synthetic import synthetic_person
from ffavatar.data.synthetic.body import load_body
from ffavatar.data.synthetic.people import head_rotation, matrix_to_axis_angle, sample_person, sample_shot
from ffavatar.data.synthetic.variety import Lens

sys.path.insert(0, str(Path(__file__).parent.parent / "evaluate"))
from made_benchmark import FLIP, heads, landmarks_of

DRAWN_PX = 512
YAWS_DEG = (0.0, 24.0, -24.0, 46.0, -46.0, 12.0)


@dataclass(frozen=True)
class Drawn:
    """One head in one pose, as cameras around it see it. ``K`` is that of the drawn squares."""

    images: np.ndarray  # (C, S, S, 3) uint8
    mattes: np.ndarray  # (C, S, S) uint8
    head_to_cam: np.ndarray  # (C, 4, 4) from the person's resting head, metres, OpenCV
    landmarks: np.ndarray  # (478, 3) true, in head space
    K: np.ndarray  # (3, 3)


def drawn_head(seed: int) -> Drawn:
    """The head stands still and looks ahead; where a shot turns it, a camera has gone around it."""
    body = load_body()
    person = replace(sample_person(seed, body.identities, None), light_fixed=True)
    still = sample_shot(person, 0, body.expressions, None)
    none = np.zeros(3)
    still = replace(
        still, neck=none, jaw=none, eye_left=none, eye_right=none, expression=np.zeros_like(still.expression),
        zoom=1.0, shift=np.zeros(2), lens=Lens(),
    )  # fmt: skip
    shots = [
        replace(still, root=matrix_to_axis_angle(head_rotation(0.02 * k, np.radians(yaw), 0)))
        for k, yaw in enumerate(YAWS_DEG)
    ]
    made = synthetic_person(seed, size=DRAWN_PX, chosen=shots, person=person, degrade=False)
    turn, shift = heads(made)
    matrices = np.tile(np.eye(4), (len(shots), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = FLIP @ turn.as_matrix(), shift @ FLIP
    # one and the same head: its points in the first picture's world, brought back to rest
    resting = turn[0].inv().apply(landmarks_of(made)[0] - shift[0])
    K = np.array([[3.0 * DRAWN_PX, 0, DRAWN_PX / 2], [0, 3.0 * DRAWN_PX, DRAWN_PX / 2], [0, 0, 1]])
    return Drawn(made.images, made.mattes, matrices, resting, K)


def on_canvas(square: np.ndarray, width: int, height: int, left: int, top: int, fill: int) -> np.ndarray:
    """The square in a larger picture of one grey."""
    canvas = np.full((height, width, *square.shape[2:]), fill, np.uint8)
    canvas[top : top + len(square), left : left + len(square)] = square
    return canvas


def make_nersemble_head(root: Path, drawn: Drawn, person: str = "017") -> tuple[str, ...]:
    """``ID/calibration`` and one sequence of one frame, films of 550 x 802 px; returns the serials."""
    serials = ("222200037", "222200046", "220700191", "222200039", "221501007", "222200040")
    left, top, scale = 20, 150, 2200 / 550
    K = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]]) @ drawn.K
    K[:2] *= scale
    place = Rotation.from_euler("xyz", [100, 14, -8], degrees=True).as_matrix()
    world = np.eye(4)  # resting head to the capture's world
    world[:3, :3], world[:3, 3] = place, [0.1, 0.9, -0.3]
    folder = root / person / "sequences" / "FREE"
    for name in ("images", "alpha_maps"):
        (folder / name).mkdir(parents=True)
    for number, serial in enumerate(serials):
        shown = on_canvas(drawn.images[number], 550, 802, left, top, 128)
        alpha = on_canvas(np.repeat(drawn.mattes[number][..., None], 3, 2), 550, 802, left, top, 0)
        film(folder / "images" / f"cam_{serial}.mp4", [shown])
        film(folder / "alpha_maps" / f"cam_{serial}.mp4", [alpha])
    poses = {s: (m @ np.linalg.inv(world)).tolist() for s, m in zip(serials, drawn.head_to_cam)}
    (root / person / "calibration").mkdir()
    parameters = {"world_2_cam": poses, "intrinsics": K.tolist()}
    (root / person / "calibration" / "camera_params.json").write_text(json.dumps(parameters))
    return serials


def make_ava_head(root: Path, drawn: Drawn, name: str = "20230831--0814--ADL311") -> tuple[str, ...]:
    """``NAME/decoder`` with one frame, AVIF pictures of 667 x 1024 px, K and T transposed, millimetres; returns the
    cameras."""
    cameras = tuple(f"40{number}41{number}" for number in range(len(drawn.images)))
    left, top, frame = 80, 250, 4711
    folder = root / name / "decoder"
    for part in ("image", "segmentation_parts", "head_pose"):
        (folder / part).mkdir(parents=True)
    K = np.diag([2668 / 667, 4096 / 1024, 1]) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]]) @ drawn.K
    pose = Rotation.from_euler("xyz", [170, 6, -4], degrees=True).as_matrix()
    shift_mm = np.array([120.0, -60.0, 950.0])
    rows = "\n".join(" ".join(f"{v:.9f}" for v in [*row, s]) for row, s in zip(pose, shift_mm))
    with zipfile.ZipFile(folder / "head_pose" / "head_pose.zip", "w") as archive:
        archive.writestr(f"{frame:06d}.txt", rows)
    (folder / "frame_list.csv").write_text(f"seg_id,frame_id\nEXP_neutral,{frame:06d}\n")
    krt = []
    for camera, image, matte, matrix in zip(cameras, drawn.images, drawn.mattes, drawn.head_to_cam):
        # world (mm) -> camera (mm): the head stands in the world at ``pose``, ``shift_mm``
        turn = matrix[:3, :3] @ pose.T
        T = np.concatenate([turn, (1000 * matrix[:3, 3] - turn @ shift_mm)[:, None]], 1)
        krt.append({"cameraId": camera, "K": K.T.tolist(), "T": T.T.tolist(), "distortion": [0.0] * 5})
        krt[-1]["distortionModel"] = "radial-tangential"
        shown = on_canvas(image, 667, 1024, left, top, 128)
        labels = on_canvas(np.where(matte > 127, 2, 0).astype(np.uint8), 667, 1024, left, top, 0)
        labels[-200:, :200] = 3  # a chair
        with zipfile.ZipFile(folder / "image" / f"cam{camera}.zip", "w") as archive:
            archive.writestr(f"cam{camera}/{frame:06d}.avif", encoded(shown, "AVIF", quality=95, speed=10))
        with zipfile.ZipFile(folder / "segmentation_parts" / f"cam{camera}.zip", "w") as archive:
            archive.writestr(f"cam{camera}/{frame:06d}.png", encoded(labels, "PNG"))
    (folder / "camera_calibration.json").write_text(json.dumps({"KRT": krt}))
    return cameras
