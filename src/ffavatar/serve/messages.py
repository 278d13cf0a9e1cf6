"""What the server and its child processes say to each other: one JSON object per line, each a small record.

The server writes to a child's standard input and reads from its standard output. ``path`` and ``folder`` are places
that only this server's own code has made up; names from users are never paths.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

LONGEST_LINE = 2**20


@dataclass(frozen=True)
class CheckPhoto:
    """To the checker: judge a photo, write ``crop.webp``, ``matte.webp`` and ``views.safetensors`` to ``folder``."""

    path: str
    name: str
    face: int
    folder: str
    pixels: int  # most


@dataclass(frozen=True)
class CheckFilm:
    """To the checker: read a film's header."""

    path: str
    name: str
    seconds: float  # longest
    pixels: int  # of a frame, most


@dataclass(frozen=True)
class CheckMotion:
    """To the checker: read a motion file, whose ending says which kind it is."""

    path: str
    name: str
    seconds: float  # longest


@dataclass(frozen=True)
class PhotoVerdict:
    """From the checker. ``report`` is the photo front end's, as a JSON object; empty where nothing was decoded."""

    kept: bool
    reason: str
    width: int = 0
    height: int = 0
    faces: int = 0
    report: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class FilmVerdict:
    """From the checker; ``reason`` is empty where the film can be used."""

    reason: str
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    fps: float = 0.0


@dataclass(frozen=True)
class MotionVerdict:
    """From the checker; ``reason`` is empty where the motion can be used."""

    reason: str
    frames: int = 0
    fps: float = 0.0


@dataclass(frozen=True)
class Task:
    """To a worker: one job. Which fields are used depends on ``kind``."""

    job: str
    kind: Literal["reconstruct", "personalize", "drive", "export"]
    folder: str  # of results; exists and may hold a checkpoint of an earlier attempt
    photos: tuple[str, ...] = ()  # folders that the checker wrote
    look: int | None = None  # number of the photo whose hair and clothes are taken
    container: str = ""  # avatar to work on; with ``reconstruct`` the one that an earlier attempt made
    personalize: bool = False
    steps: int = 0
    film: str = ""
    relative: bool = False
    same_person: bool = False
    size: int = 512
    most_seconds: float = 0.0
    name: str = ""  # of the file of an export; its ending says the format
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)  # yaw, pitch, roll
    expression: dict[str, float] = field(default_factory=dict)
    motion: str = ""
    frame: int | None = None
    scale: float = 1.0
    background: str = "white"
    allow_flame: bool = False


@dataclass(frozen=True)
class Cancel:
    """To a worker: end the job as soon as you can."""

    job: str


@dataclass(frozen=True)
class Ready:
    """From a child, once: the networks are loaded."""

    device: str


@dataclass(frozen=True)
class Stage:
    """From a worker: where it is. ``total`` 0 means unknown."""

    name: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class AvatarMade:
    """From a worker: an avatar, or a newer state of it, lies at ``path`` and the server may take it away."""

    path: str
    gaussians: int
    personalized: bool
    thumbnail: str


@dataclass(frozen=True)
class Done:
    """From a worker: the job is done; ``files`` are names in its folder, ``notes`` sentences for the user."""

    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """From a worker: why not, in one sentence. ``theirs``: what the user gave is the reason, not a fault here."""

    reason: str
    theirs: bool


@dataclass(frozen=True)
class Cancelled:
    """From a worker: ended because it was asked to."""


Asked = CheckPhoto | CheckFilm | CheckMotion | Task | Cancel
Said = PhotoVerdict | FilmVerdict | MotionVerdict | Ready | Stage | AvatarMade | Done | Failed | Cancelled
Message = Asked | Said
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """One line with its end."""
    return json.dumps({"message": type(message).__name__, **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The record of a line. Raises ``ValueError`` for anything else."""
    values = json.loads(line)
    if not isinstance(values, dict) or (kind := _KINDS.get(str(values.pop("message", "")))) is None:
        raise ValueError(f"not a message: {line[:80]!r}")
    try:
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
    except TypeError as error:
        raise ValueError(f"not a message: {error}") from None
