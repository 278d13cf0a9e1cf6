"""A pose set by hand, and the turntable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ffavatar.drive.film import BATCH, FilmReport, FilmStyle, Progress, render_uint8, write_film
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.types import HeadParams

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar

TURNTABLE_FPS = 30


def posed(
    avatar: Avatar, turn_deg: tuple[float, float, float] = (0, 0, 0), expressions: dict[str, float] | None = None
) -> HeadParams:
    """One frame: the resting avatar turned by (yaw, pitch, roll) in degrees, with expressions by name.

    ARKit's names that stand for joint rotations with this head (jawOpen, eyeLook...) turn the joints. Raises
    ``InputError`` for a name the head does not know, with those that are like it.
    """
    head = avatar.rig.head
    params = avatar.neutral_params()
    expression = params.expression.clone()
    joints = params.joint_rotations().clone()
    for name, value in (expressions or {}).items():
        if name in head.expression_names:
            expression[0, list(head.expression_names).index(name)] = value
        elif name in head.arkit_pose:
            joints[0] += value * head.arkit_pose[name].to(joints)
        else:
            raise InputError(_unknown(name, head.expression_names, tuple(head.arkit_pose)))
    yaw, pitch, roll = (math.radians(angle) for angle in turn_deg)
    joints[0, 0] = _turned(yaw, pitch, roll).to(joints)
    root, neck, jaw, eye_left, eye_right = joints.unbind(1)
    return HeadParams(root, params.translation, neck, jaw, eye_left, eye_right, expression)


def _turned(yaw: float, pitch: float, roll: float) -> torch.Tensor:
    """Axis-angle of roll, then pitch, then yaw."""
    turns = [axis_angle_to_quat(torch.tensor(axis)) for axis in ([0.0, yaw, 0.0], [pitch, 0.0, 0.0], [0.0, 0.0, roll])]
    return quat_to_axis_angle(quat_multiply(turns[0], quat_multiply(turns[1], turns[2])))


def _unknown(name: str, expressions: tuple[str, ...], turns: tuple[str, ...]) -> str:
    import difflib

    known = [*expressions, *turns]
    near = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
    return (
        f"{name!r} is no expression of this head; there are {len(expressions)}, and {len(turns)} turns "
        f"of jaw and eyes, such as {', '.join(near)}; `ffavatar inspect` lists them."
    )


def write_turntable(
    avatar: Avatar,
    params: HeadParams,
    out: str | Path,
    style: FilmStyle | None = None,
    seconds: float = 6.0,
    progress: Progress | None = None,
) -> FilmReport:
    """A film of one full turn of the avatar in the pose ``params`` (one frame); it loops."""
    style = style or FilmStyle()
    frames = max(round(seconds * TURNTABLE_FPS), 2)
    report = FilmReport()

    def pictures() -> Iterator[tuple[np.ndarray, int]]:
        for start in range(0, frames, BATCH):
            yaws = torch.arange(start, min(start + BATCH, frames)) * (2 * math.pi / frames)
            rows = HeadParams.cat([_yawed(params, float(yaw)) for yaw in yaws])
            for image in render_uint8(avatar, rows, style, style.size or 512):
                yield image, 1

    write_film(pictures(), out, Fraction(TURNTABLE_FPS), style.alpha, None, frames, report, progress)
    return report


def _yawed(params: HeadParams, yaw: float) -> HeadParams:
    turn = axis_angle_to_quat(torch.tensor([[0.0, yaw, 0.0]], device=params.root.device))
    return replace(params, root=quat_to_axis_angle(quat_multiply(turn, axis_angle_to_quat(params.root))))
