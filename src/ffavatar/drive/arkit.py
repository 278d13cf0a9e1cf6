"""ARKit's 52 face coefficients: JSON and Live Link Face CSV, read and written, and the way to and from a head.

A coefficient is an expression of the embedded head by its own name, or, for jawOpen, jawLeft, jawRight and eyeLook...,
a rotation of a joint (``HeadModel.arkit_pose``).
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffavatar.drive.motion import Motion
from ffavatar.drive.unpack import MOST_FRAMES, check_size, number, read_json, table
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.geometry import axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.photo.blendshapes import BLENDSHAPE_NAMES
from ffavatar.types import HeadParams

EDITION = "arkit"
ARKIT_NAMES: tuple[str, ...] = (*BLENDSHAPE_NAMES[1:], "tongueOut")  # the landmarker scores all but the tongue
_BY_LOWER = {name.lower(): name for name in ARKIT_NAMES}
# Live Link Face names head and eyes beside the 52; its eyes say the same as eyeLook... and are left out.
_HEAD_COLUMNS = ("HeadYaw", "HeadPitch", "HeadRoll")
_EYE_COLUMNS = tuple(f"{side}Eye{turn}" for side in ("Left", "Right") for turn in ("Yaw", "Pitch", "Roll"))
_TIMECODE = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2}):(\d{1,4}(?:\.\d{1,9})?)")
_WHOLE = 3e-4  # relative distance up to which a rate is a whole number: a third of that of 29.97 from 30
_PREAMBLE = ("timecode", "blendshapecount", "frame", "time", "timestamp")


class ArkitHead(Protocol):
    """What the conversions need to know of a head."""

    edition: str
    expression_names: tuple[str, ...]
    arkit_pose: dict[str, Tensor]


def canonical_name(name: str) -> str | None:
    """ARKit's spelling of a coefficient: ``EyeBlinkLeft``, ``eyeBlink_L`` and ``eye_blink_left`` all are
    ``eyeBlinkLeft``; None for what is none of the 52."""
    plain = name.strip()
    for short, long in (("_L", "Left"), ("_R", "Right"), (".L", "Left"), (".R", "Right")):
        if plain.endswith(short):
            plain = plain.removesuffix(short) + long
    return _BY_LOWER.get(plain.replace("_", "").replace(" ", "").lower())


def arkit_motion(
    weights: np.ndarray, names: list[str], turns: np.ndarray | None, fps: float, source: str, notes: tuple[str, ...]
) -> Motion:
    """A motion from weights (T, K), their names, and head rotations (T, 3): pitch, yaw, roll in radians, or None.

    The rotations are about the head's axes (+ is chin down, to the person's left, and towards the person's right
    shoulder), applied roll first, then pitch, then yaw. Unknown names are left out and reported in the notes.
    """
    found: dict[str, np.ndarray] = {}
    unknown, twice = [], []
    for column, name in enumerate(names):
        known = canonical_name(name)
        if known is None:
            unknown.append(name)
        elif known in found:
            twice.append(name)
        else:
            found[known] = weights[:, column]
    if not found:
        raise InputError(f"{source} has none of ARKit's 52 names, such as jawOpen; give ARKit face data.")
    told = list(notes)
    if unknown:
        told.append(f"{len(unknown)} names are none of ARKit's 52 and are left out, such as {unknown[0]!r}.")
    if twice:
        told.append(f"{len(twice)} names come twice, such as {twice[0]!r}; the first is taken.")
    rows = torch.from_numpy(np.stack(list(found.values()), 1).astype(np.float32))
    params = HeadParams.neutral(len(rows), rows.shape[1])
    root = params.root if turns is None else _from_angles(torch.from_numpy(turns.astype(np.float32)))
    params = replace(params, root=root, translation=torch.zeros(len(rows), 3), expression=rows)
    return Motion(fps, params, EDITION, tuple(found), source, placed=False, notes=tuple(told))


def _from_angles(angles: Tensor) -> Tensor:
    """(T, 3) pitch, yaw, roll -> axis-angle of yaw after pitch after roll."""
    zero = torch.zeros_like(angles[:, 0])
    pitch, yaw, roll = angles.unbind(-1)
    axes = ([zero, yaw, zero], [pitch, zero, zero], [zero, zero, roll])
    turn = [axis_angle_to_quat(torch.stack(axis, -1)) for axis in axes]
    return quat_to_axis_angle(quat_multiply(turn[0], quat_multiply(turn[1], turn[2])))


def to_angles(rotation: Tensor) -> Tensor:
    """(T, 3) axis-angle -> pitch, yaw, roll, the inverse of the way in; pitch within a quarter turn."""
    w, x, y, z = axis_angle_to_quat(rotation).unbind(-1)
    pitch = torch.asin((2 * (w * x - y * z)).clamp(-1, 1))
    yaw = torch.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))
    roll = torch.atan2(2 * (x * y + w * z), 1 - 2 * (x * x + z * z))
    return torch.stack([pitch, yaw, roll], -1)


def read_arkit_json(path: Path, fps: float | None = None) -> Motion:
    """``{"names": [...], "frames": [{"weights": [...], "time": s, "rotation": [3]}]}``, optionally ``head_pose`` and
    ``fps`` beside them. Raises ``InputError`` for anything else."""
    data = read_json(path)
    names, frames = data.get("names"), data.get("frames")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not 1 <= len(names) <= 4096:
        raise InputError(f"{path}: names is not a list of names; export the ARKit data again.")
    if not isinstance(frames, list) or not 1 <= len(frames) <= MOST_FRAMES:
        raise InputError(f"{path} holds no frames; export the ARKit data again.")
    if not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path}: a frame is no JSON object; export the ARKit data again.")
    weights = table([frame.get("weights") for frame in frames], path, "weights", (len(names),))
    notes: list[str] = []
    turns = None
    own = [frame.get("rotation") for frame in frames]
    if all(isinstance(row, list) and len(row) == 3 for row in own):
        turns = table(own, path, "rotation", (3,))
    elif isinstance(data.get("head_pose"), list) and len(data["head_pose"]) == len(frames):
        turns = table(data["head_pose"], path, "head_pose", (3,))
    rate = fps
    if rate is None and "fps" in data:
        rate = number(data["fps"], path, "fps", 0.1, 1000)
    if rate is None:
        rate = _rate([frame.get("time") for frame in frames], path, notes)
    return arkit_motion(weights, names, turns, rate, f"ARKit file {path.name}", tuple(notes))


def _rate(times: list[Any], path: Path, notes: list[str]) -> float:
    """Frames per second from time stamps in seconds."""
    usable = all(isinstance(t, int | float) and not isinstance(t, bool) for t in times)
    if usable and len(times) > 1:
        stamps = np.asarray(times, dtype=np.float64)
        step = float(np.median(np.diff(stamps))) if np.isfinite(stamps).all() else 0.0
        if 1e-3 <= step <= 10:
            return round(1 / step, 3)
    notes.append(f"{path} states no usable frame rate; 30 frames per second are assumed.")
    return 30.0


def read_live_link_csv(path: Path, fps: float | None = None) -> Motion:
    """Live Link Face's CSV: Timecode, BlendShapeCount, the 52 names, HeadYaw, HeadPitch, HeadRoll, eyes.

    The rate comes from the time codes (``HH:MM:SS:FF.fraction``). Raises ``InputError``.
    """
    check_size(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); export it from Live Link Face again.") from None
    if len(rows) < 2:
        raise InputError(f"{path} holds no frames; export it from Live Link Face again.")
    header = [name.strip() for name in rows[0]]
    short = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if short is not None:
        raise InputError(
            f"{path}: line {short + 1} has {len(rows[short])} columns, the first {len(header)}; export again."
        )
    taken = [i for i, name in enumerate(header) if name.lower() not in _PREAMBLE]
    try:
        values = np.array([[float(row[i]) for i in taken] for row in rows[1:]], dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path} holds something that is no number ({error}); export it again.") from None
    values = table(values, path, "its columns", (len(taken),))
    columns = {header[i]: values[:, k] for k, i in enumerate(taken)}
    turns = None
    if all(name in columns for name in _HEAD_COLUMNS):
        turns = np.stack([columns["HeadPitch"], columns["HeadYaw"], columns["HeadRoll"]], 1)
    names = [name for name in columns if name not in (*_HEAD_COLUMNS, *_EYE_COLUMNS)]
    notes: list[str] = []
    if fps is None:
        codes = [row[header.index("Timecode")] for row in rows[1:]] if "Timecode" in header else []
        fps = _timecode_rate(codes, path, notes)
        if fps is None:
            fps = 60.0
            notes.append(f"{path} has no usable time codes; 60 frames per second are assumed.")
    weights = np.stack([columns[name] for name in names], 1) if names else np.zeros((len(values), 0))
    return arkit_motion(weights, names, turns, fps, f"Live Link Face file {path.name}", tuple(notes))


def _timecode_rate(codes: list[str], path: Path, notes: list[str]) -> float | None:
    """Frames per second of time codes ``HH:MM:SS:FF.fraction``; None where they do not tell.

    FF counts in frames of the time code, which may be more or fewer than were recorded: how many of them a second has
    shows where the second changes. Lost frames do not change the rate, nor does jitter by less than half a frame.
    """
    labels = [match for match in map(_TIMECODE.fullmatch, map(str.strip, codes)) if match]
    if len(labels) < len(codes) or len(codes) < 2:
        return None
    hour, minute, second, frame = np.array([[float(part) for part in label.groups()] for label in labels]).T
    whole = (hour * 60 + minute) * 60 + second
    later, ahead = np.diff(whole) % (24 * 3600), np.diff(frame)
    within, crosses = later == 0, later == 1
    step = float(np.median(ahead[within])) if within.any() else 1.0
    per_second = int(frame.max()) + 1
    if crosses.any():
        per_second = max(per_second, round(float(np.median(step - ahead[crosses]))))
    elif within.all():
        notes.append(
            f"{path} is too short to say how many frames its time code has in a second; {per_second} are assumed, "
            "unless a rate is given."
        )
    times = later + ahead / per_second
    usual = float(np.median(times))
    if usual <= 0:
        return None
    frames = np.rint(times / usual)
    rate = float(frames.sum() / times.sum()) if times.sum() > 0 else 0.0
    rate = round(rate) if abs(rate - round(rate)) < _WHOLE * rate else round(rate, 3)
    return float(rate) if 0.1 <= rate <= 1000 else None


def write_arkit_json(motion: Motion, path: Path) -> None:
    """The layout ``read_arkit_json`` reads, all 52 names in ARKit's order, 6 decimals. Raises ``InputError`` for a
    motion of another head: ``to_arkit`` comes first."""
    weights, turns = _arkit_rows(motion, path)
    data = {
        "names": list(ARKIT_NAMES),
        "fps": motion.fps,
        "frames": [
            {"weights": row, "time": round(i / motion.fps, 6), "rotation": turn}
            for i, (row, turn) in enumerate(zip(weights.round(6).tolist(), turns.round(6).tolist()))
        ],
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")


def write_live_link_csv(motion: Motion, path: Path) -> None:
    """A CSV as Live Link Face writes it, 61 values a row; eyes and their joints as far as eyeLook... tells them.

    The time code has a whole number of frames in a second; the fraction of them tells any rate to the thousandth. So
    that a reader sees a second change, a motion of less than one begins with the last frame of a second.
    """
    weights, turns = _arkit_rows(motion, path)
    column = {name: weights[:, k] for k, name in enumerate(ARKIT_NAMES)}
    eyes = []
    for side, out in (("Left", 1.0), ("Right", -1.0)):
        yaw = out * (column[f"eyeLookOut{side}"] - column[f"eyeLookIn{side}"]) * np.radians(30)
        pitch = (column[f"eyeLookDown{side}"] - column[f"eyeLookUp{side}"]) * np.radians(25)
        eyes += [yaw, pitch, np.zeros_like(yaw)]
    names = [name[0].upper() + name[1:] for name in ARKIT_NAMES]
    header = ["Timecode", "BlendShapeCount", *names, *_HEAD_COLUMNS, *_EYE_COLUMNS]
    table_ = np.concatenate([weights, turns[:, [1, 0, 2]], np.stack(eyes, 1)], 1)
    per_second = max(math.ceil(motion.fps - 1e-3), 1)  # never fewer than frames, so that each has a number of its own
    first = 0 if len(motion) > per_second else per_second - 1
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i, row in enumerate(table_):
            thousandths = round(1000 * (first + i / motion.fps * per_second))
            frame, fraction = divmod(thousandths, 1000)
            second, part = divmod(frame, per_second)
            code = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}:{part:02d}.{fraction:03d}"
            writer.writerow([code, len(row), *(f"{value:.6f}" for value in row)])


def _arkit_rows(motion: Motion, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if motion.head_edition != EDITION:
        words = f"a motion of the head {motion.head_edition} is no ARKit motion; convert it with to_arkit first"
        raise InputError(f"{path} was not written: {words}.")
    weights = np.zeros((len(motion), len(ARKIT_NAMES)))
    for column, name in enumerate(motion.expression_names):
        if name in ARKIT_NAMES:
            weights[:, ARKIT_NAMES.index(name)] = motion.params.expression[:, column].numpy()
    return weights, to_angles(motion.params.root).double().numpy()


def from_arkit(motion: Motion, head: ArkitHead) -> tuple[HeadParams, list[str]]:
    """Parameters of ``head`` from an ARKit motion, and the used names that ``head`` has in neither form.

    The head's turn goes to ``root``; how torso and neck share it is decided later (``retarget``).
    """
    params = motion.params
    expression = torch.zeros(len(motion), len(head.expression_names))
    joints = torch.zeros(len(motion), 5, 3)
    lost = []
    for column, name in enumerate(motion.expression_names):
        weight = params.expression[:, column]
        if name in head.expression_names:
            expression[:, head.expression_names.index(name)] = weight
        elif name in head.arkit_pose:
            joints += weight[:, None, None] * head.arkit_pose[name].cpu()
        elif float(weight.abs().max()) > 1e-4:
            lost.append(name)
    made = replace(
        params,
        neck=joints[:, 1],
        jaw=joints[:, 2],
        eye_left=joints[:, 3],
        eye_right=joints[:, 4],
        expression=expression,
    )
    return made, lost


def to_arkit(motion: Motion, head: ArkitHead) -> Motion:
    """An ARKit motion from one of ``head``: the inverse of ``from_arkit`` where ARKit can say it.

    Joint turns become the coefficients whose turn they are, least squares and not negative; weights are clamped to
    [0, 1]. Root and neck become one head rotation. What ARKit has no name for is left out and reported in the notes.
    """
    if motion.head_edition != head.edition:
        raise InputError(f"the motion is of the head {motion.head_edition}, not of {head.edition}; convert it first.")
    params = motion.params
    weights = torch.zeros(len(motion), len(ARKIT_NAMES))
    dropped = []
    for column, name in enumerate(motion.expression_names):
        if name in ARKIT_NAMES:
            weights[:, ARKIT_NAMES.index(name)] = params.expression[:, column]
        elif float(params.expression[:, column].abs().max()) > 1e-3:
            dropped.append(name)
    joints = params.joint_rotations()
    for name, turn in head.arkit_pose.items():
        axis = turn.cpu().to(joints)
        # the coefficients' axes are orthogonal but for sign, so each is a projection; its opposite takes the negatives
        weights[:, ARKIT_NAMES.index(name)] = (joints * axis).sum((1, 2)) / axis.square().sum()
    notes = [*motion.notes]
    if dropped:
        notes.append(f"{len(dropped)} expressions have no ARKit name and are left out, such as {dropped[0]!r}.")
    turned = quat_multiply(axis_angle_to_quat(params.root), axis_angle_to_quat(params.neck))
    made = replace(
        HeadParams.neutral(len(motion), len(ARKIT_NAMES)),
        root=quat_to_axis_angle(turned),
        translation=torch.zeros(len(motion), 3),
        expression=weights.clamp(0, 1),
    )
    return Motion(motion.fps, made, EDITION, ARKIT_NAMES, motion.source, placed=False, notes=tuple(notes))
