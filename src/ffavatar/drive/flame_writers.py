"""FLAME motions in the layouts of other programs: VHAP folders, GaussianAvatars npz, LAM's JSON, Pixel3DMM frames.

No shape coefficients are written but zeros: a motion holds no identity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.drive.flame_tracks import EYELIDS
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError
from ffavatar.files import atomic_folder, atomic_path
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.head.flame import EXPRESSION, IDENTITY
from ffavatar.types import Camera

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def _arrays(motion: Motion, path: Path, pivot: bool = False) -> dict[str, np.ndarray]:
    """VHAP's arrays, one row per frame; ``eyelids`` where the motion has them."""
    if not motion.head_edition.startswith("flame"):
        words = f"a motion of the head {motion.head_edition} has no FLAME parameters; retarget it to FLAME first"
        raise InputError(f"{path} was not written: {words}.")
    if motion.root_pivot_m is not None and not pivot:
        raise InputError(
            f"{path} was not written: the motion turns about another point than FLAME's joint; write it for pixel3dmm."
        )
    p = motion.params
    expression = np.zeros((len(motion), EXPRESSION), np.float32)
    eyelids = np.zeros((len(motion), 2), np.float32)
    for column, name in enumerate(motion.expression_names):
        if name in EYELIDS:
            eyelids[:, EYELIDS.index(name)] = p.expression[:, column].numpy()
            continue
        place = name.removeprefix("expression_")
        if not place.isdigit() or int(place) >= EXPRESSION:
            raise InputError(f"{path} was not written: {name} is no expression of FLAME; retarget the motion first.")
        expression[:, int(place)] = p.expression[:, column].numpy()
    found = {
        "translation": p.translation.numpy(), "rotation": p.root.numpy(), "neck_pose": p.neck.numpy(),
        "jaw_pose": p.jaw.numpy(), "eyes_pose": torch.cat([p.eye_left, p.eye_right], 1).numpy(),
        "shape": np.zeros(IDENTITY, np.float32), "expr": expression,
    }  # fmt: skip
    if set(EYELIDS) & set(motion.expression_names):
        found["eyelids"] = eyelids
    return found


def write_flame_npz(motion: Motion, path: Path) -> None:
    """One npz with a row per frame and ``fps``, in GaussianAvatars' names."""
    arrays = _arrays(motion, path) | {"fps": np.float32(motion.fps)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_flame_json(motion: Motion, path: Path) -> None:
    """LAM's ``flame_params.json`` (expressions as ``{"expr0": ...}`` objects, one for each frame), and ``fps``."""
    data: dict[str, Any] = {k: np.round(v.astype(np.float64), 7).tolist() for k, v in _arrays(motion, path).items()}
    data["expr"] = [{f"expr{k}": value for k, value in enumerate(row)} for row in data["expr"]]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data | {"fps": motion.fps}, allow_nan=False), encoding="utf-8")


def write_vhap_folder(motion: Motion, path: Path) -> None:
    """``flame_param/00000.npz`` ... and, where the motion has a camera, ``transforms.json``; the folder is new."""
    arrays = _arrays(motion, path)
    with atomic_folder(path) as temporary:
        (temporary / "flame_param").mkdir()
        for i in range(len(motion)):
            one = {k: v if k == "shape" else v[i : i + 1] for k, v in arrays.items()}
            np.savez(temporary / "flame_param" / f"{i:05d}.npz", **one)  # type: ignore[arg-type]
        if motion.camera is not None:
            text = json.dumps(_transforms(motion.camera), allow_nan=False)
            (temporary / "transforms.json").write_text(text, encoding="utf-8")


def _transforms(camera: Camera) -> dict[str, Any]:
    frames = []
    for i, (pose, lens) in enumerate(zip(camera.world_to_cam.double().numpy(), camera.K.double().numpy())):
        frames.append({
            "timestep_index": i, "camera_index": 0,
            "fl_x": lens[0, 0], "fl_y": lens[1, 1], "cx": lens[0, 2], "cy": lens[1, 2],
            "w": camera.width, "h": camera.height,
            "transform_matrix": np.linalg.inv(_FLIP @ pose).tolist(), "flame_param_path": f"flame_param/{i:05d}.npz",
        })  # fmt: skip
    return {"frames": frames}


def write_pixel3dmm(motion: Motion, path: Path) -> None:
    """A new folder of ``.frame`` files as Pixel3DMM's tracker saves them (numpy arrays inside ``torch.save``)."""
    if motion.root_pivot_m != (0.0, 0.0, 0.0):
        raise InputError(f"{path} was not written: it does not turn about FLAME's origin as Pixel3DMM's do.")
    arrays = _arrays(motion, path, pivot=True)

    def six(values: np.ndarray) -> np.ndarray:
        return axis_angle_to_matrix(torch.from_numpy(values))[:, :2].flatten(1).numpy()

    eyes = np.concatenate([six(arrays["eyes_pose"][:, :3]), six(arrays["eyes_pose"][:, 3:])], 1)
    turned = {"R": six(arrays["rotation"]), "neck": six(arrays["neck_pose"]), "jaw": six(arrays["jaw_pose"])}
    rows = turned | {"eyes": eyes, "t": arrays["translation"], "exp": arrays["expr"]}
    rows["eyelids"] = arrays.get("eyelids", np.zeros((len(motion), 2), np.float32))
    with atomic_folder(path) as temporary:
        for i in range(len(motion)):
            flame = {k: np.ascontiguousarray(v[i : i + 1]) for k, v in rows.items()}
            flame["shape"] = arrays["shape"][None]
            frame: dict[str, Any] = {"flame": flame, "frame_id": i, "global_step": 0}
            if motion.camera is not None:
                frame |= _pixel3dmm_camera(motion.camera, i)
            torch.save(frame, temporary / f"{i:05d}.frame")


def _pixel3dmm_camera(camera: Camera, i: int) -> dict[str, Any]:
    pose, lens = _FLIP @ camera.world_to_cam[i].double().numpy(), camera.K[i].double().numpy()
    side = camera.width
    made = {
        "R_base_0": pose[None, :3, :3].astype(np.float32), "t_base_0": pose[None, :3, 3].astype(np.float32),
        "fl": np.array([[lens[0, 0] / side]], np.float32),
        "pp": np.array([[lens[0, 2] / side - 0.5, lens[1, 2] / side - 0.5]], np.float32),
    }  # fmt: skip
    return {"camera": made, "img_size": np.array([camera.height, side])}
