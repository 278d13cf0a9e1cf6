"""Protocols as small pinned files: what is shown to whom. Some ship; any other JSON file of the same form will do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip

FOLDER = Path(__file__).parent / "protocols"
BENCH_METHODS = {"copy", "warp", "true", "driven", "tracked", "personalized", "personalized_tracked"}


@dataclass(frozen=True)
class Rules:
    """A protocol. ``name`` and ``version`` change with anything that changes a figure."""

    name: str
    version: int
    kind: Literal["self", "cross", "novel", "bench"]
    what: str  # one sentence for the report
    size: int  # side of the compared pictures in pixels
    views: tuple[int, ...]  # numbers of source views, the first so many
    methods: tuple[str, ...]
    film_frames: int  # consecutive frames for the figures of motion; 0: none
    drivers: int  # cross: how many clips after each in the index drive it, in a ring
    turn_deg: int = 180  # bench: targets are the heads turned by at most this
    box: str = "head"  # the square in which pictures are compared: our crop, or five_points (windows.five_point_box)
    frames: int = 0  # of each clip in a folder without an index (vfhq.vfhq_clips); 0: the index names them


@dataclass(frozen=True)
class Case:
    """One row of a table: the person of one clip, the frames of the same or another one."""

    id: str
    source: Clip
    target: Clip


def shipped_protocols() -> list[str]:
    """The names that ``read_rules`` knows."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_rules(name: str | Path) -> Rules:
    """A shipped protocol by its name, or one from a JSON file.

    Raises ``InputError`` for an unknown name and for a file that is not a protocol.
    """
    path = FOLDER / f"{name}.json" if str(name) in shipped_protocols() else Path(name)
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        rules = Rules(**{**row, "views": tuple(row["views"]), "methods": tuple(row["methods"])})
        for field in fields(Rules):
            kind = {"str": str, "int": int}.get(str(field.type))
            if kind is not None and not isinstance(getattr(rules, field.name), kind):
                raise ValueError(f"{field.name} must be {field.type}")
        return check_rules(rules)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name} is not a protocol ({error}); give {', '.join(shipped_protocols())} or a protocol file."
        ) from error


def check_rules(rules: Rules) -> Rules:
    """The rules, if they can be followed. Raises ``InputError`` otherwise."""
    if rules.kind not in ("self", "cross", "novel", "bench"):
        raise InputError(
            f"The protocol {rules.name} is of the unknown kind {rules.kind!r}; self, cross, novel and bench are."
        )
    if rules.size < 64 or rules.size > 2048:
        raise InputError(f"The size of the compared pictures is {rules.size} px; give 64 to 2048.")
    if not rules.views or not all(isinstance(n, int) and n >= 1 for n in rules.views):
        raise InputError("The numbers of source views must be whole and at least 1, such as 1,2,4.")
    if rules.film_frames and rules.film_frames < 3:
        raise InputError(f"{rules.film_frames} consecutive frames show no shaking; give 0 or at least 3.")
    if rules.box not in ("head", "five_points") or (rules.box != "head" and rules.kind != "self"):
        raise InputError(f"The box {rules.box!r} is not known for {rules.kind}; head is, and five_points for self.")
    if rules.kind == "novel" and (set(rules.methods) - {"copy", "warp", "placed"} or rules.film_frames):
        raise InputError("Novel views know the methods copy, warp and placed, and no films; choose among them.")
    if rules.kind == "novel" and min(rules.views) < 2:
        raise InputError("Novel views need two source views at least: one does not tell where the head is.")
    if rules.kind == "bench" and (set(rules.methods) - BENCH_METHODS or rules.film_frames):
        raise InputError(f"The bench knows the methods {', '.join(sorted(BENCH_METHODS))}, and no films.")
    if "true" in rules.methods and rules.kind != "bench":
        raise InputError("The method true needs exact labels; use the protocol synthetic-bench.")
    if rules.kind == "cross" and rules.drivers < 1:
        raise InputError(f"The protocol {rules.name} names no drivers; cross-reenactment needs at least one.")
    return rules


def cases(clips: Sequence[Clip], rules: Rules) -> list[Case]:
    """The rows of a protocol on some clips.

    Raises ``InputError`` where cross-reenactment finds no two clips of different subjects.
    """
    if rules.kind != "cross":
        return [Case(clip.id, clip, clip) for clip in clips]
    found = [
        Case(f"{clip.id}--{driver.id}", clip, driver)
        for place, clip in enumerate(clips)
        for step in range(1, rules.drivers + 1)
        if (driver := clips[(place + step) % len(clips)]).subject != clip.subject
    ]
    if not found:
        raise InputError("Cross-reenactment needs at least two clips of different people; give more clips.")
    return found
