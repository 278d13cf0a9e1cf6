"""The One Euro filter (Casiez, Roussel and Vogel 2012) on numbers and on rotations, and on whole ``HeadParams``.

A low-pass whose cut-off rises with speed: still faces do not tremble, and quick turns and blinks hardly lag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ffavatar.geometry import axis_angle_to_quat, quat_multiply, quat_to_axis_angle
from ffavatar.types import HeadParams

ROTATIONS = ("root", "neck", "jaw", "eye_left", "eye_right")


@dataclass(frozen=True)
class Tuning:
    """``min_cutoff`` in Hz at rest, ``beta`` in Hz per unit of speed (units or radians a second), and the cut-off of
    the speed's own filter in Hz."""

    min_cutoff: float
    beta: float
    speed_cutoff: float = 4.0


# Lids close within 70 ms and eyes jump within 50 ms: their cut-off must leave rest at once; shoulders may take theirs.
TUNINGS: dict[str, Tuning] = {
    "root": Tuning(0.7, 5.0),
    "translation": Tuning(0.7, 60.0),
    "neck": Tuning(0.9, 8.0),
    "jaw": Tuning(1.5, 12.0, 8.0),
    "eye_left": Tuning(1.5, 10.0, 12.0),
    "eye_right": Tuning(1.5, 10.0, 12.0),
    "expression": Tuning(1.2, 5.0, 12.0),
}


def _share(cutoff: Tensor | float, step_s: float) -> Tensor | float:
    """Part of the way to the new value in one step of a first-order low-pass."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step_s))


class OneEuro:
    """Filters values (..., C), each by itself; with ``rotation``, axis-angle rotations (..., 3) as wholes."""

    def __init__(self, tuning: Tuning, rotation: bool = False) -> None:
        self._tuning, self._rotation = tuning, rotation
        self._value: Tensor | None = None
        self._speed: Tensor | None = None

    def reset(self) -> None:
        """Forget the past: the next value passes as it is."""
        self._value = self._speed = None

    def __call__(self, value: Tensor, step_s: float) -> Tensor:
        """The filtered value, ``step_s`` seconds after the one before."""
        if self._value is None or self._speed is None:
            self._value, self._speed = value.clone(), torch.zeros_like(value)
            return self._value
        if self._rotation:
            back = axis_angle_to_quat(-self._value)
            away = quat_to_axis_angle(quat_multiply(back, axis_angle_to_quat(value)))
        else:
            away = value - self._value
        speed_share = float(_share(self._tuning.speed_cutoff, step_s))
        self._speed = self._speed + speed_share * (away / step_s - self._speed)  # with its sign: tremble cancels
        speed = self._speed.norm(dim=-1, keepdim=True) if self._rotation else self._speed.abs()
        share = _share(self._tuning.min_cutoff + self._tuning.beta * speed, step_s)
        if self._rotation:
            step = axis_angle_to_quat(away * share)
            self._value = quat_to_axis_angle(quat_multiply(axis_angle_to_quat(self._value), step))
        else:
            self._value = self._value + share * away
        return self._value


class ParamsFilter:
    """One Euro on every channel of ``HeadParams``, one row at a time."""

    def __init__(self, tunings: dict[str, Tuning] | None = None) -> None:
        tunings = tunings or TUNINGS
        self._filters = {f.name: OneEuro(tunings[f.name], f.name in ROTATIONS) for f in fields(HeadParams)}

    def reset(self) -> None:
        for one in self._filters.values():
            one.reset()

    def __call__(self, params: HeadParams, step_s: float) -> HeadParams:
        """``params`` is one row, ``step_s`` seconds after the row before."""
        return HeadParams(**{name: one(getattr(params, name), step_s) for name, one in self._filters.items()})
