"""A performance on its own: head parameters over time, saved with the names of its expressions."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ffavatar.drive.video import existing_input
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.geometry import axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.types import Camera, HeadParams

FORMAT, VERSION = "ffavatar-motion", 1
MOTION_SUFFIXES = (".json", ".npz")
ROTATIONS = ("root", "neck", "jaw", "eye_left", "eye_right")
CHANNELS = tuple(f.name for f in fields(HeadParams))

_MOST_BYTES = 64 * 2**20  # hours of motion
_UNPACKED = 4  # times as much may an npz hold unpacked
_MOST_FRAMES = 1_000_000
_MOST_NAMES = 4096
_LARGEST = 1e4  # metres, radians or expression units: far beyond use, far below overflow
_POSITIONAL = re.compile(r"[A-Za-z]*[ _-]?\d+")  # names such as exp_012 mean something only within one head edition


class Expressions(Protocol):
    """What a motion needs to know of a head: ``HeadModel`` and an avatar's head have it."""

    edition: str
    expression_names: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Motion:
    """``params`` (T frames, CPU, float32) at ``fps`` frames per second, estimated with the head ``head_edition``.

    ``expression_names[e]`` names column e of ``params.expression``: another head takes the columns whose names it
    knows. ``source`` says in words where the motion is from, ``notes`` what its reader had to assume or leave out.

    Without ``camera`` the motion is in the world of the normalised camera, or, where ``placed`` is False, its file says
    nothing of where the head is. With it (T, 4, 4 and T, 3, 3), it is in that camera's world. ``root_pivot_m`` is the
    point of the resting head that ``root`` turns about; None stands for the head model's own root joint.
    """

    fps: float
    params: HeadParams
    head_edition: str
    expression_names: tuple[str, ...]
    source: str = ""
    camera: Camera | None = None
    placed: bool = True
    root_pivot_m: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.expression_names) != self.params.expression.shape[-1]:
            named, given = len(self.expression_names), self.params.expression.shape[-1]
            raise ValueError(f"{named} expression names for {given} expression coefficients")

    def __len__(self) -> int:
        return len(self.params)

    def __repr__(self) -> str:
        names = len(self.expression_names)
        return f"Motion({len(self)} frames at {self.fps:.5g} per second, {self.head_edition}, {names} expressions)"

    @property
    def seconds(self) -> float:
        return len(self) / self.fps

    def save(self, path: str | Path) -> None:
        """Write ``.json`` (readable, 6 decimals) or ``.npz`` (exact), atomically.

        Raises ``InputError`` for another ending, and for what ``load`` would refuse: nothing is written then.
        """
        path = Path(path)
        arrays = {name: getattr(self.params, name).detach().cpu().float().numpy() for name in CHANNELS}
        head: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "fps": float(self.fps), "head_edition": self.head_edition,
            "source": self.source, "expression_names": list(self.expression_names),
        }  # fmt: skip
        if self.notes:
            head["notes"] = list(self.notes)
        if not self.placed:
            head["placed"] = False
        if self.root_pivot_m is not None:
            head["root_pivot_m"] = list(self.root_pivot_m)
        if self.camera is not None:
            head["camera"] = {
                "world_to_cam": self.camera.world_to_cam.tolist(), "K": self.camera.K.tolist(),
                "width": self.camera.width, "height": self.camera.height,
            }  # fmt: skip
        if path.suffix.lower() not in MOTION_SUFFIXES:
            raise InputError(f"{path}: motions are written as .json or .npz; change the file name's ending.")
        _validated(head | arrays, lambda what: InputError(f"{path} was not written: {what}; mend the motion first."))
        with atomic_path(path) as temporary:
            if path.suffix.lower() == ".json":
                rounded = {name: np.round(a.astype(np.float64), 6).tolist() for name, a in arrays.items()}
                temporary.write_text(json.dumps(head | rounded, allow_nan=False), encoding="utf-8")
            else:
                with temporary.open("wb") as file:
                    np.savez_compressed(file, header=np.array(json.dumps(head)), **arrays)  # type: ignore[arg-type]
            unpacked = sum(a.nbytes for a in arrays.values())
            size = max(temporary.stat().st_size, unpacked // _UNPACKED)  # of the two that ``load`` asks for
            _check_size(size, path, "was not written: it is", "cut the motion into parts, or write .npz for .json")

    @staticmethod
    def load(path: str | Path) -> Motion:
        """Read what ``save`` wrote. Raises ``InputError`` for anything else, damage, or a version from the future."""
        place = existing_input(path)
        if place.is_dir():
            raise InputError(f"{path} is a folder; give a motion file (.json or .npz).")
        _check_size(place.stat().st_size, path, "is", "check the name")
        match place.suffix.lower():
            case ".json":
                data = _read_json(place)
            case ".npz":
                data = _read_npz(place)
            case _:
                raise InputError(f"{path} is not named like a motion file; give a .json or .npz file.")
        remedy = "make it again with `ffavatar estimate`."
        return _validated(data, lambda what: InputError(f"{place} is not a usable motion file: {what}; {remedy}"))

    def for_head(self, head: Expressions) -> HeadParams:
        """The parameters for another head: expressions matched by name, unknown ones left out, the others zero."""
        expression = torch.zeros(len(self), len(head.expression_names))
        columns = {name: i for i, name in enumerate(self.expression_names)}
        for target, name in enumerate(head.expression_names):
            if name in columns and self._means_the_same(name, head):
                expression[:, target] = self.params.expression[:, columns[name]]
        return HeadParams(**{name: getattr(self.params, name) for name in CHANNELS[:-1]}, expression=expression)

    def unmatched(self, head: Expressions) -> list[str]:
        """Names of expressions that this motion uses and ``head`` does not know."""
        known = {name for name in head.expression_names if self._means_the_same(name, head)}
        used = self.params.expression.abs().amax(0) > 1e-4 if len(self) else torch.zeros(0)
        return [name for name, use in zip(self.expression_names, used.tolist()) if use and name not in known]

    def _means_the_same(self, name: str, head: Expressions) -> bool:
        return head.edition == self.head_edition or not _POSITIONAL.fullmatch(name)

    def resample(self, fps: float) -> Motion:
        """The same motion at another rate: slerp for rotations, linear for the rest; the duration is kept to half a
        frame."""
        if not 0.1 <= fps <= 1000:
            raise InputError(f"{fps} frames per second cannot be used; choose 0.1 to 1000.")
        frames = max(round(self.seconds * fps), 1)
        at = (torch.arange(frames, dtype=torch.float64) * (self.fps / fps)).clamp(max=len(self) - 1)
        before = at.floor().long()
        after = (before + 1).clamp(max=len(self) - 1)
        part = (at - before).float()[:, None]
        mixed: dict[str, Tensor] = {}
        for name in CHANNELS:
            a, b = getattr(self.params, name)[before], getattr(self.params, name)[after]
            mixed[name] = slerp_axis_angle(a, b, part) if name in ROTATIONS else a + (b - a) * part
        camera = self.camera
        if camera is not None:  # cameras of trackers stand still, or move with the crop: the nearest one is near enough
            nearest = (before + (part[:, 0] > 0.5)).clamp(max=len(self) - 1)
            camera = Camera(camera.world_to_cam[nearest], camera.K[nearest], camera.width, camera.height)
        return replace(self, fps=fps, params=HeadParams(**mixed), camera=camera)


def slerp_axis_angle(start: Tensor, end: Tensor, part: Tensor) -> Tensor:
    """Rotation ``part`` (..., 1) of the shortest way from ``start`` to ``end``, (..., 3) axis-angle radians."""
    inverse = axis_angle_to_quat(-start)
    step = quat_to_axis_angle(quat_multiply(inverse, axis_angle_to_quat(end)))
    return quat_to_axis_angle(quat_multiply(axis_angle_to_quat(start), axis_angle_to_quat(step * part)))


def _check_size(size: int, path: str | Path, verdict: str, remedy: str) -> None:
    if size > _MOST_BYTES:
        raise InputError(f"{path} {verdict} too large for a motion file ({size >> 20} MB); {remedy}.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:  # includes wrong encodings and numbers of absurd length
        reason = "nested too deeply" if isinstance(error, RecursionError) else "not JSON"
        raise InputError(f"{path} is not a motion file ({reason}); make one with `ffavatar estimate`.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a motion file (no JSON object); make one with `ffavatar estimate`.")
    return data


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > _UNPACKED * _MOST_BYTES:
            raise InputError(f"{path} would unpack to {unpacked >> 20} MB; a motion file never does, check the name.")
        with np.load(path, allow_pickle=False) as archive:
            wanted = ("header", *CHANNELS)
            missing = [name for name in wanted if name not in archive.files]
            if missing:
                raise InputError(f"{path} is not a motion file ({missing[0]!r} is missing); give one made by FFAvatar.")
            header = archive["header"]
            if header.dtype.kind != "U" or header.ndim:
                raise InputError(f"{path} is not a motion file (its header is no text); give one made by FFAvatar.")
            data = json.loads(str(header))
            if not isinstance(data, dict):
                raise InputError(f"{path} is not a motion file (its header is no object); give one made by FFAvatar.")
            return data | {name: archive[name] for name in CHANNELS}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib, struct, numpy and json each have their own errors for damage
        raise InputError(f"{path} is damaged or no npz file ({type(error).__name__}); make it again.") from None


def _validated(data: dict[str, Any], refuse: Callable[[str], InputError]) -> Motion:
    """Check everything before use; what ``refuse`` is given names the first field that is wrong."""
    if data.get("format") != FORMAT:
        raise refuse(f"its format is not {FORMAT!r}")
    version = data.get("version")
    if version != VERSION:
        raise refuse(f"its version is {version!r:.20}, this FFAvatar reads {VERSION}")
    fps = data.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0.1 <= fps <= 1000:
        raise refuse("fps is not a number from 0.1 to 1000")
    names = data.get("expression_names")
    if not isinstance(names, list) or len(names) > _MOST_NAMES or not all(isinstance(n, str) for n in names):
        raise refuse("expression_names is not a list of names")
    if len(set(names)) != len(names):
        raise refuse("expression_names has a name twice")
    for text in ("head_edition", "source"):
        if not isinstance(data.get(text), str):
            raise refuse(f"{text} is not text")
    tensors: dict[str, Tensor] = {}
    frames: int | None = None
    for channel in CHANNELS:
        width = len(names) if channel == "expression" else 3
        try:
            array = np.asarray(data.get(channel), dtype=np.float64)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise refuse(f"{channel} is not a table of numbers") from None
        if array.size == 0 and array.ndim >= 1 and width == 0:
            array = array.reshape(array.shape[0], 0)
        if array.ndim != 2 or array.shape[1] != width:
            raise refuse(f"{channel} is not a table of {width} numbers per frame")
        if frames is not None and array.shape[0] != frames:
            raise refuse(f"{channel} has {array.shape[0]} frames, {CHANNELS[0]} has {frames}")
        frames = array.shape[0]
        if not 1 <= frames <= _MOST_FRAMES:
            raise refuse(f"it has {frames} frames")
        if not np.isfinite(array).all() or (array.size and np.abs(array).max() > _LARGEST):
            raise refuse(f"{channel} holds values that are not finite or beyond any use")
        tensors[channel] = torch.from_numpy(array.astype(np.float32))
    placed = data.get("placed", True)
    if not isinstance(placed, bool):
        raise refuse("placed is neither true nor false")
    pivot = data.get("root_pivot_m")
    if pivot is not None:
        pivot = tuple(_table(pivot, (3,), "root_pivot_m", refuse).tolist())
    camera = _camera(data["camera"], frames or 0, refuse) if "camera" in data else None
    notes = data.get("notes", [])
    if not isinstance(notes, list) or len(notes) > _MOST_NAMES or not all(isinstance(note, str) for note in notes):
        raise refuse("notes is not a list of sentences")
    named = data["head_edition"], tuple(names), data["source"]
    return Motion(float(fps), HeadParams(**tensors), *named, camera, placed, pivot, tuple(notes))


def _table(value: Any, shape: tuple[int, ...], name: str, refuse: Callable[[str], InputError]) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise refuse(f"{name} is not a table of numbers") from None
    if array.shape != shape or not np.isfinite(array).all() or np.abs(array).max(initial=0) > 1e6:
        raise refuse(f"{name} is not a table of {' x '.join(map(str, shape))} usable numbers")
    return array


def _camera(data: Any, frames: int, refuse: Callable[[str], InputError]) -> Camera:
    if not isinstance(data, dict):
        raise refuse("camera is no object")
    size: list[int] = [s for s in (data.get("width"), data.get("height")) if type(s) is int and 1 <= s <= 65536]
    if len(size) != 2:
        raise refuse("the camera's width and height are not whole numbers of pixels")
    pose = _table(data.get("world_to_cam"), (frames, 4, 4), "world_to_cam", refuse)
    lens = _table(data.get("K"), (frames, 3, 3), "K", refuse)
    if (lens[:, 0, 0] <= 0).any() or (lens[:, 1, 1] <= 0).any():
        raise refuse("the camera has a focal length that is not positive")
    return Camera(torch.from_numpy(pose).float(), torch.from_numpy(lens).float(), size[0], size[1])


def demo_motion(head: Expressions, seconds: float = 8.0, fps: float = 30.0, distance_m: float = 1.15) -> Motion:
    """Looking around, blinking and talking: the same for the same arguments, beginning and ending at rest.

    Uses ARKit's expression names where ``head`` has them; turning, jaw and eyes work with any head. The head is
    ``distance_m`` in front of the normalised camera.
    """
    frames = max(round(seconds * fps), 2)
    time = torch.arange(frames, dtype=torch.float64) / fps
    total = frames / fps
    rest = _ramp(time, 0.0, 0.5) * (1 - _ramp(time, total - 0.6, 0.5))  # 0 at both ends: the film loops

    def wander(*waves: tuple[float, float, float]) -> Tensor:
        """Sum of slow sines (amplitude, period in s, phase in turns)."""
        parts = [a * torch.sin(2 * math.pi * (time / period + phase)) for a, period, phase in waves]
        return torch.stack(parts).sum(0) * rest

    yaw = wander((0.34, 6.1, 0.02), (0.10, 2.7, 0.3))
    pitch = wander((0.10, 4.3, 0.15), (0.035, 1.9, 0.6))
    roll = wander((0.05, 5.3, 0.4), (0.02, 2.3, 0.1))
    # The neck leads; the shoulders follow a fifth of the way, a quarter of a second late.
    follow = 0.2 * torch.roll(yaw, round(0.25 * fps)) * rest
    neck = torch.stack([pitch, yaw - follow, roll], -1)
    root = torch.stack([0.15 * pitch, follow, 0.3 * roll], -1)
    breath = 0.0012 * torch.sin(2 * math.pi * time / 3.6)
    sway = wander((0.003, 7.0, 0.2), (0.0015, 3.1, 0.0))
    translation = torch.stack([sway, breath * rest, torch.full_like(time, -distance_m)], -1)

    syllables = _syllables(time, total) * rest
    jaw = torch.zeros(frames, 3, dtype=torch.float64)
    jaw[:, 0] = 0.16 * syllables
    gaze_yaw, gaze_pitch = _gaze(time, yaw)
    eyes = torch.stack([gaze_pitch, gaze_yaw, torch.zeros_like(time)], -1) * rest[:, None]

    blink = _blinks(time, total)
    shape = _ramp(torch.sin(2 * math.pi * time / 1.7), -0.4, 0.8)  # 0 spread lips, 1 rounded lips
    smile = _ramp(time, 0.62 * total, 0.7) * (1 - _ramp(time, 0.9 * total, 0.6))
    brows = (_ramp(time, 0.22 * total, 0.4) * (1 - _ramp(time, 0.22 * total + 1.2, 0.6)) + 0.15 * syllables) * rest
    voices = {
        "eyeBlinkLeft": blink, "eyeBlinkRight": blink,
        "mouthFunnel": 0.45 * syllables * shape, "mouthPucker": 0.35 * syllables * shape,
        "mouthStretchLeft": 0.25 * syllables * (1 - shape), "mouthStretchRight": 0.25 * syllables * (1 - shape),
        "mouthUpperUpLeft": 0.2 * syllables * (1 - shape), "mouthUpperUpRight": 0.2 * syllables * (1 - shape),
        "mouthLowerDownLeft": 0.25 * syllables, "mouthLowerDownRight": 0.25 * syllables,
        "mouthSmileLeft": 0.55 * smile * rest, "mouthSmileRight": 0.5 * smile * rest,
        "cheekSquintLeft": 0.3 * smile * rest, "cheekSquintRight": 0.3 * smile * rest,
        "browInnerUp": 0.5 * brows, "browOuterUpLeft": 0.4 * brows, "browOuterUpRight": 0.35 * brows,
    }  # fmt: skip
    names = tuple(head.expression_names)
    expression = torch.zeros(frames, len(names))
    for index, name in enumerate(names):
        if name in voices:
            expression[:, index] = voices[name].float()
    params = HeadParams(
        root.float(), translation.float(), neck.float(), jaw.float(), eyes.float(), eyes.clone().float(), expression
    )
    return Motion(fps, params, head.edition, names, "FFAvatar's look-around demonstration")


def _ramp(x: Tensor, start: float, width: float) -> Tensor:
    """Smoothstep from 0 at ``start`` to 1 at ``start + width``."""
    t = ((x - start) / width).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _syllables(time: Tensor, total: float) -> Tensor:
    """Mouth opening in [0, 1]: about four syllables a second, in phrases with pauses between them."""
    phrase = _ramp(torch.sin(2 * math.pi * (time / 3.3 - 0.12)), -0.15, 0.4)
    fast = 0.5 + 0.5 * torch.sin(2 * math.pi * 3.9 * time + 1.3 * torch.sin(2 * math.pi * 0.9 * time))
    weight = 0.55 + 0.45 * torch.sin(2 * math.pi * 1.3 * time + 0.7)
    return phrase * fast * weight


def _blinks(time: Tensor, total: float) -> Tensor:
    """Eyelids in [0, 1]: closing in 70 ms, opening in 150 ms, at uneven times."""
    lids = torch.zeros_like(time)
    at, gaps = 0.9, (2.6, 1.7, 3.4, 0.45, 2.9)
    for index in range(max(int(total), 1)):
        if at + 0.3 > total:
            break
        lids = torch.maximum(lids, _ramp(time, at, 0.07) * (1 - _ramp(time, at + 0.09, 0.15)))
        at += gaps[index % len(gaps)]
    return lids


def _gaze(time: Tensor, head_yaw: Tensor) -> tuple[Tensor, Tensor]:
    """Eye rotations (yaw, pitch) in radians: held between quick jumps, half turned back towards the camera."""
    yaw, pitch = torch.zeros_like(time), torch.zeros_like(time)
    targets = ((0.0, 0.0), (0.16, 0.03), (-0.05, -0.04), (-0.18, 0.02), (0.02, 0.05), (0.1, -0.03))
    period = 1.15
    previous = targets[0]
    for index in range(int(float(time[-1]) / period) + 2):
        target = targets[index % len(targets)]
        jump = _ramp(time, index * period, 0.05)  # a saccade takes about 50 ms
        yaw, pitch = yaw + jump * (target[0] - previous[0]), pitch + jump * (target[1] - previous[1])
        previous = target
    return yaw - 0.5 * head_yaw, pitch
