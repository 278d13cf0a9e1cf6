"""FLAME tracks of other programs: VHAP, GaussianAvatars, LAM, NeRSemble, Pixel3DMM, SMIRK, flame-head-tracker.

Each becomes a ``Motion`` whose expressions are named ``expression_0`` ... as those of a FLAME file are, tagged with the
FLAME edition that the program uses. What a head on another basis makes of it is ``ffavatar.drive.retarget``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.drive.motion import Motion
from ffavatar.drive.unpack import number, read_frame, read_json, read_npz, table
from ffavatar.drive.video import natural_key
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix, matrix_to_quat, quat_to_axis_angle
from ffavatar.head.flame import LICENCES
from ffavatar.types import Camera, HeadParams

DEFAULT_FPS = 30.0
EXPRESSIONS = 100
# Names by program: VHAP and GaussianAvatars; NeRSemble; Pixel3DMM; flame-head-tracker; SMIRK.
NAMES: dict[str, tuple[str, ...]] = {
    "root": ("rotation", "head_pose", "pose_params", "R"),
    "translation": ("translation", "t"),
    "neck": ("neck_pose", "neck"),
    "jaw": ("jaw_pose", "jaw", "jaw_params"),
    "eyes": ("eyes_pose", "eye_pose", "eyes"),
    "expression": ("expr", "exp", "expression", "expression_params"),
    "eyelids": ("eyelids", "eyelid_params"),
}
EYELIDS = ("eyeBlinkLeft", "eyeBlinkRight")  # closing in [0, 1], beside FLAME's basis; the left one first
EDITIONS = {
    "vhap": "flame2023", "nersemble": "flame2023", "pixel3dmm": "flame2020", "smirk": "flame2020",
    "flame-head-tracker": "flame2020",
}  # fmt: skip
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL camera axes <-> OpenCV's


def program_of(names: Mapping[str, Any]) -> str | None:
    """Which program's arrays these are; None where they are no FLAME track."""
    if "pose_params" in names and "expression_params" in names:
        return "smirk"
    if "exp" in names and "head_pose" in names:
        return "flame-head-tracker"
    if {"rotation", "jaw", "expression", "scale"} <= set(names):
        return "nersemble"
    has = {channel for channel, known in NAMES.items() if any(name in names for name in known)}
    if {"root", "jaw"} <= has and ("expr" in names or "expression" in names):
        return "vhap"
    return "flame" if {"jaw", "expression"} <= has else None


def motion_from_arrays(
    data: Mapping[str, Any], path: Path, program: str, edition: str | None = None, fps: float | None = None
) -> Motion:
    """A motion from a program's arrays, one row per frame. Channels that are missing rest.

    ``expr`` with one row less than the other channels is the known slip of VHAP exports, where ``expr[i]`` belongs to
    frame i + 1: frame 0 then takes the first row too. Raises ``InputError`` for anything that cannot be used.
    """
    rows: dict[str, np.ndarray] = {}
    for channel, known in NAMES.items():
        name = next((n for n in known if n in data), None)
        if name is not None:
            # eyes also come as one pair per frame, (T, 2, 3)
            value = _flat_eyes(data[name]) if channel == "eyes" else data[name]
            value = _named_rows(value, path, name) if channel == "expression" else value
            widths = {"expression": range(1, EXPRESSIONS + 1), "eyes": (6,), "eyelids": (2,)}.get(channel, (3,))
            rows[channel] = table(value, path, name, widths)
    if program == "nersemble":
        rows |= _nersemble_place(data, rows, path)
    frames = max((len(array) for array in rows.values()), default=0)
    if not frames:
        raise InputError(f"{path} holds no FLAME parameters; give a track by VHAP, Pixel3DMM, SMIRK or the like.")
    notes = []
    if len(rows.get("expression", ())) == frames - 1 and frames > 2:
        rows["expression"] = np.concatenate([rows["expression"][:1], rows["expression"]])
        notes.append(f"{path}: expr has one row less than the poses; row i is taken for frame i + 1, as VHAP means it.")
    for channel, array in rows.items():
        if len(array) == 1:
            rows[channel] = np.repeat(array, frames, 0)
        elif len(array) != frames:
            raise InputError(f"{path}: {channel} has {len(array)} frames, others have {frames}; export it again.")
    rate = fps
    if rate is None and "fps" in data:
        rate = number(data["fps"], path, "fps", 0.1, 1000)
    if rate is None:
        rate = DEFAULT_FPS
        if frames > 1:
            notes.append(f"{path} states no frame rate; {DEFAULT_FPS:g} frames per second are assumed.")
    motion = flame_motion(
        rows, rate, edition or EDITIONS.get(program, "flame_unknown"), f"{program} track", tuple(notes)
    )
    return replace(motion, root_pivot_m=(0.0, 0.0, 0.0)) if program == "nersemble" else motion


def nersemble_scale(data: Mapping[str, Any], path: Path) -> float:
    """How much larger than FLAME the head of a NeRSemble track is in its world. Raises ``InputError``."""
    return number(np.asarray(data.get("scale", 1.0)).reshape(-1)[0], path, "scale", 1e-3, 1e3)


def _nersemble_place(data: Mapping[str, Any], rows: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Root (T, 3) axis-angle and translation (T, 3) in units of the unscaled head.

    As its toolkit has it (nersemble-benchmark, ``FlameProvider``): ``rotation`` are Euler angles, intrinsic XYZ, also
    given as ``rotation_matrices``; they turn the head about FLAME's origin, after ``scale`` and before ``translation``.
    """
    x, y, z = (np.eye(3)[axis] * rows["root"][:, axis : axis + 1] for axis in range(3))
    turns = [axis_angle_to_matrix(torch.from_numpy(part.astype(np.float64))) for part in (x, y, z)]
    matrices = turns[0] @ turns[1] @ turns[2]
    if "rotation_matrices" in data:
        given = table(np.asarray(data["rotation_matrices"]).reshape(-1, 9), path, "rotation_matrices", (9,))
        matrices = torch.from_numpy(given.reshape(-1, 3, 3).astype(np.float64))
        if float((matrices @ matrices.mT - torch.eye(3)).abs().max()) > 1e-2 or float(matrices.det().min()) < 0:
            raise InputError(f"{path}: rotation_matrices are no rotations; download the track again.")
    found = {"root": quat_to_axis_angle(matrix_to_quat(matrices)).numpy()}
    if "translation" in rows:
        found["translation"] = rows["translation"] / nersemble_scale(data, path)
    return found


def _flat_eyes(value: Any) -> Any:
    array = np.asarray(value) if isinstance(value, np.ndarray) else value
    if isinstance(array, np.ndarray) and array.ndim == 3 and array.shape[1:] == (2, 3):
        return array.reshape(-1, 6)
    return array


def _named_rows(value: Any, path: Path, name: str) -> Any:
    """LAM's rows are objects, ``{"expr0": ..., "expr1": ...}``; they become lists."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return value
    keys = [f"expr{k}" for k in range(len(value[0]))]
    if any(set(row) != set(keys) for row in value):
        raise InputError(f"{path}: the rows of {name} do not all name expr0 to expr{len(keys) - 1}; export it again.")
    return [[row[key] for key in keys] for row in value]


def flame_motion(
    rows: Mapping[str, np.ndarray], fps: float, edition: str, source: str, notes: tuple[str, ...] = ()
) -> Motion:
    """A motion from checked (T, W) arrays by channel; missing channels are zero.

    ``eyes`` and ``eyelids`` are left then right. Eyelids, which some trackers have beside FLAME's basis, become
    expressions named ``eyeBlinkLeft`` and ``eyeBlinkRight``.
    """
    if edition not in LICENCES:
        raise InputError(f"{edition} is no FLAME edition; use one of {', '.join(LICENCES)}.")
    frames = len(next(iter(rows.values())))

    def channel(name: str, width: int = 3) -> torch.Tensor:
        return torch.from_numpy(np.asarray(rows.get(name, np.zeros((frames, width))), dtype=np.float32).copy())

    eyes, expression = channel("eyes", 6), channel("expression", 0)
    names = tuple(f"expression_{k}" for k in range(expression.shape[1]))
    if "eyelids" in rows:
        expression, names = torch.cat([expression, channel("eyelids", 2)], 1), (*names, *EYELIDS)
    params = HeadParams(
        channel("root"), channel("translation"), channel("neck"), channel("jaw"), eyes[:, :3], eyes[:, 3:], expression
    )
    return Motion(fps, params, edition, names, source, placed=False, notes=notes)


def read_flame_file(path: Path, edition: str | None = None, fps: float | None = None) -> Motion:
    """A track in one file: npz with one row per frame or one frame, or ``flame_params.json``. Raises ``InputError``.

    ``transforms.json`` beside a ``flame_params.json`` gives the camera.
    """
    as_json = path.suffix.lower() == ".json" or path.read_bytes()[:1] in (b"{", b" ", b"\n")
    data: Mapping[str, Any] = read_json(path) if as_json else read_npz(path)
    program = program_of(data)
    if program is None:
        raise InputError(f"{path} holds no FLAME track; give one by VHAP, Pixel3DMM, SMIRK or the like.")
    motion = motion_from_arrays(data, path, program, edition, fps)
    beside = path.with_name("transforms.json")
    return _with_cameras(motion, beside) if as_json and beside.is_file() else motion


def read_vhap_folder(folder: Path, edition: str | None = None, fps: float | None = None) -> Motion:
    """A folder by VHAP or GaussianAvatars: ``transforms.json`` with ``flame_param/*.npz`` or ``flame_params.json``."""
    whole = folder / "flame_params.json"
    if whole.is_file():
        return read_flame_file(whole, edition, fps)
    found = sorted((folder / "flame_param").glob("*.npz"), key=natural_key)
    if not found:
        raise InputError(f"{folder} has neither flame_params.json nor flame_param/*.npz; give a whole VHAP export.")
    motion = read_npz_sequence(found, folder, edition, fps)
    transforms = folder / "transforms.json"
    return _with_cameras(motion, transforms) if transforms.is_file() else motion


def read_npz_sequence(files: list[Path], folder: Path, edition: str | None, fps: float | None) -> Motion:
    """One npz per frame, in the order given; ``InputError`` names the first file that does not fit."""
    parts: list[Motion] = []
    for file in files:
        data = read_npz(file)
        program = program_of(data)
        if program is None:
            raise InputError(f"{file} holds no FLAME parameters; remove it from the folder or export again.")
        one = motion_from_arrays(data, file, program, edition, fps)
        if len(one) != 1 or (parts and one.expression_names != parts[0].expression_names):
            raise InputError(f"{file} is not one frame of the same track as {files[0].name}; export the folder again.")
        parts.append(one)
    notes = () if fps else (f"{folder} states no frame rate; {DEFAULT_FPS:g} frames per second are assumed.",)
    return replace(parts[0], params=HeadParams.cat([p.params for p in parts]), notes=notes)


def _with_cameras(motion: Motion, path: Path) -> Motion:
    """Add the first camera of a ``transforms.json``: OpenGL camera-to-world, pixels."""
    frames = read_json(path).get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path} holds no list of frames; give a whole VHAP export.")
    by_step: dict[int, dict[str, Any]] = {}
    cameras = {frame.get("camera_index", 0) for frame in frames if isinstance(frame.get("camera_index", 0), int)}
    for place, frame in enumerate(frames):
        if frame.get("camera_index", 0) == min(cameras, default=0):
            step = frame.get("timestep_index", place)
            if not isinstance(step, int):
                raise InputError(f"{path}: a frame's timestep_index is no whole number; give a whole VHAP export.")
            by_step[step] = frame
    steps = sorted(by_step)
    if len(steps) != len(motion):
        words = f"{path} has {len(steps)} moments, the track {len(motion)}; the track is placed without its camera."
        return replace(motion, notes=(*motion.notes, words))
    poses, lenses = [], []
    sides = [int(number(by_step[steps[0]].get(k), path, k, 1, 65536)) for k in ("w", "h")]
    for step in steps:
        frame = by_step[step]
        pose = table(frame.get("transform_matrix"), path, "transform_matrix", (4,))
        if pose.shape != (4, 4) or abs(np.linalg.det(pose[:3, :3]) - 1) > 1e-2:
            raise InputError(f"{path}: a transform_matrix is no rigid 4 x 4 matrix; give a whole VHAP export.")
        poses.append(_FLIP @ np.linalg.inv(pose))
        fx, fy = (number(frame.get(k), path, k, 1, 1e6) for k in ("fl_x", "fl_y"))
        cx, cy = (number(frame.get(k), path, k, -1e6, 1e6) for k in ("cx", "cy"))
        lenses.append([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    world_to_cam, lens = (torch.from_numpy(np.asarray(a, np.float32)) for a in (poses, lenses))
    return replace(motion, camera=Camera(world_to_cam, lens, *sides), placed=True)


def rotation_6d_to_axis_angle(values: np.ndarray) -> np.ndarray:
    """(..., 6), the first two rows of a matrix as pytorch3d has them (Zhou et al. 2019) -> (..., 3) radians."""
    first, second = values[..., :3], values[..., 3:]
    first = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-12)
    second = second - (first * second).sum(-1, keepdims=True) * first
    second = second / np.maximum(np.linalg.norm(second, axis=-1, keepdims=True), 1e-12)
    matrix = np.stack([first, second, np.cross(first, second)], -2)
    return quat_to_axis_angle(matrix_to_quat(torch.from_numpy(matrix))).numpy()


def read_pixel3dmm(path: Path, edition: str | None = None, fps: float | None = None) -> Motion:
    """A ``.frame`` file or a folder of them. Its head turns about the origin, and its rotations are 6 numbers each.

    The camera (``R_base_*``, ``t_base_*``: OpenGL world-to-camera; ``fl`` in picture sides; ``pp`` from the middle) is
    the first one's. Raises ``InputError`` for anything else.
    """
    files = sorted(path.glob("*.frame"), key=natural_key) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no .frame files; give Pixel3DMM's checkpoint folder.")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    poses, lenses, size = [], [], 512
    for file in files:
        data = read_frame(file)
        flame, camera = data.get("flame"), data.get("camera")
        if not isinstance(flame, dict):
            raise InputError(f"{file} holds no FLAME parameters; give Pixel3DMM's checkpoint folder.")
        for channel, name in (("root", "R"), ("neck", "neck"), ("jaw", "jaw")):
            if name in flame:
                value = table(flame[name], file, name, (3, 6))
                rows[channel].append(rotation_6d_to_axis_angle(value) if value.shape[1] == 6 else value)
        eyes = table(flame.get("eyes", np.tile([1.0, 0, 0, 0, 1, 0], 2)), file, "eyes", (12,))
        rows["eyes"].append(np.concatenate([rotation_6d_to_axis_angle(eyes[:, k : k + 6]) for k in (0, 6)], 1))
        rows["translation"].append(table(flame.get("t", np.zeros(3)), file, "t", (3,)))
        rows["expression"].append(table(flame.get("exp"), file, "exp", range(1, EXPRESSIONS + 1)))
        if "eyelids" in flame:
            rows["eyelids"].append(table(flame["eyelids"], file, "eyelids", (2,)))
        if isinstance(camera, dict):
            pose, lens, size = _pixel3dmm_camera(camera, data.get("img_size", 512), file)
            poses.append(pose)
            lenses.append(lens)
    try:
        joined = {name: np.concatenate(parts) for name, parts in rows.items() if parts}
    except ValueError:
        raise InputError(f"{path}: its frames have different numbers of coefficients; export it again.") from None
    if {len(array) for array in joined.values()} != {len(files)}:
        raise InputError(f"{path}: its frames do not all hold the same parameters; export the track again.")
    notes = () if fps else (f"{path} states no frame rate; {DEFAULT_FPS:g} frames per second are assumed.",)
    motion = flame_motion(joined, fps or DEFAULT_FPS, edition or EDITIONS["pixel3dmm"], "pixel3dmm track", notes)
    motion = replace(motion, root_pivot_m=(0.0, 0.0, 0.0))
    if len(poses) != len(files):
        return motion
    stacked = [torch.from_numpy(np.asarray(a, np.float32)) for a in (poses, lenses)]
    return replace(motion, camera=Camera(stacked[0], stacked[1], size, size), placed=True)


def _pixel3dmm_camera(camera: dict[str, Any], side: Any, file: Path) -> tuple[np.ndarray, np.ndarray, int]:
    turns = sorted(name for name in camera if str(name).startswith("R_base"))
    shifts = sorted(name for name in camera if str(name).startswith("t_base"))
    if not turns or not shifts:
        raise InputError(f"{file} has a camera without R_base and t_base; export the track again.")
    pose = np.eye(4)
    turn = table(np.asarray(camera[turns[0]]).reshape(-1, 3), file, turns[0], (3,))
    if turn.shape != (3, 3) or abs(np.linalg.det(turn) - 1) > 1e-2:
        raise InputError(f"{file}: {turns[0]} is no rotation; export the track again.")
    pose[:3, :3] = turn
    pose[:3, 3] = table(np.asarray(camera[shifts[0]]).reshape(-1), file, shifts[0], (3,))[0]
    size = int(number(np.asarray(side).reshape(-1)[0], file, "img_size", 1, 65536))
    focal = number(np.asarray(camera.get("fl", 4.0)).reshape(-1)[0], file, "fl", 0.05, 1e3) * size
    centre = table(np.asarray(camera.get("pp", np.zeros(2))).reshape(-1), file, "pp", (2,))[0]
    x, y = size * (0.5 + centre)
    return _FLIP @ pose, np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]]), size
