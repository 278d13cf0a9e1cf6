"""What a driver may do to an avatar: one record, made by the command line and read by every kind of driving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ffavatar.errors import InputError

Torso = Literal["own", "follow", "still", "split"]
HeadMotion = Literal["on", "off", "scaled"]
# ARKit's names begin with these; so do MakeHuman's after "mh_"
GROUPS: dict[str, tuple[str, ...]] = {
    "brows": ("brow", "mh_eyebrows"),
    "eyes": ("eye", "mh_eye-"),
    "mouth": ("mouth", "tongue", "mh_mouth"),
    "cheeks": ("cheek",),
    "nose": ("nose", "mh_nose"),
    "jaw": ("jaw",),
    "gaze": (),
}
MOST_GAIN = 3.0


@dataclass(frozen=True)
class DriveOptions:
    """How a motion is carried to an avatar.

    ``torso``: ``own`` leaves the driver's division of the head's turn, or splits it where the driver has none;
    ``follow`` keeps FLAME's (the torso turns with the root), ``still`` turns the neck alone, ``split`` gives a third to
    the torso. ``head_motion``: ``off`` keeps the head in its mean pose, ``scaled`` multiplies its turns and shifts by
    ``head_gain``. ``relative``: expressions and jaw count from the driver's calm face. ``gains`` multiply groups of
    expressions (``GROUPS``; ``jaw`` and ``gaze`` are joints). ``smooth`` is the One Euro filter of films.
    ``same_person``: the film shows the avatar's own person, so that its outline tells where torso and head stand.
    ``flame`` is a user's FLAME model file, which gives FLAME's expressions their meaning, and ``edition`` overrides the
    edition of a track.
    """

    torso: Torso = "own"
    head_motion: HeadMotion = "on"
    head_gain: float = 0.5
    relative: bool = False
    gains: Mapping[str, float] = field(default_factory=dict)
    smooth: bool = True
    same_person: bool = False
    flame: Path | None = None
    edition: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.gains if name not in GROUPS]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no group of expressions; choose from {', '.join(GROUPS)}.")
        wrong = [name for name, gain in self.gains.items() if not 0 <= gain <= MOST_GAIN]
        if wrong:
            raise InputError(f"the gain of {wrong[0]} is {self.gains[wrong[0]]:g}; give 0 to {MOST_GAIN:g}.")
        for name, kind in (("torso", Torso), ("head_motion", HeadMotion)):
            if (given := getattr(self, name)) not in get_args(kind):
                raise InputError(f"{name} {given!r} is not offered; choose from {', '.join(get_args(kind))}.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise InputError(f"{self.fps:g} frames per second cannot be; give a number above 0.")
        if not 0 <= self.head_gain <= MOST_GAIN:
            raise InputError(f"the gain of the head's motion is {self.head_gain:g}; give 0 to {MOST_GAIN:g}.")


def group_of(name: str) -> str | None:
    """The group of an expression by its name; None for names without meaning."""
    for group, starts in GROUPS.items():
        if name.startswith(starts) and starts:
            return group
    return None
