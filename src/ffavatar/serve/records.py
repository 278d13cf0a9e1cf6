"""What goes over HTTP as JSON. FastAPI reads the OpenAPI description from these dataclasses; their field names are the
contract. Times are ISO 8601 in UTC; urls begin with a slash and stay on the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["reconstruct", "personalize", "drive", "export"]
ExportFormat = Literal["ply", "glb", "spz", "html", "obj", "usda", "splat", "zip"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
LONGEST_NAME = 120


def now() -> str:
    """This moment, as the interface writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean_name(text: str, instead: str) -> str:
    """A name that a user gave, for showing: one line, no control characters, no folders. Never used as a path."""
    last = text.replace("\\", "/").rsplit("/", 1)[-1]
    shown = " ".join("".join(c if c.isprintable() else " " for c in last).split())[:LONGEST_NAME]
    return shown or instead


@dataclass
class Photo:
    """One uploaded photo, as it was judged. A file that cannot be decoded is here too, with the reason."""

    id: str
    name: str
    kept: bool
    reason: str | None
    width: int
    height: int
    faces: int
    crop: str | None
    matte: str | None


@dataclass
class Photos:
    photos: list[Photo]


@dataclass
class Film:
    """An uploaded film to drive an avatar with."""

    id: str
    name: str
    seconds: float
    width: int
    height: int
    fps: float


@dataclass
class Job:
    """One piece of work. ``done`` of ``total`` counts within the stage; ``position`` is the place in the queue, from
    1; ``notes`` are sentences on what was done, such as photos that were left out."""

    id: str
    kind: Kind
    state: State
    position: int | None = None
    stage: str | None = None
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    error: str | None = None
    avatar: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    created: str = ""
    finished: str | None = None


@dataclass
class Avatar:
    """A finished avatar. ``container`` always names its newest version; ``files`` are results made from it."""

    id: str
    name: str
    created: str
    version: int
    gaussians: int
    personalized: bool
    """Refined to its photos, if only in part: ``note`` then says so."""
    note: str | None
    """One sentence where the last refinement did not come to its end."""
    thumbnail: str
    container: str
    bytes: int
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Avatars:
    avatars: list[Avatar]


@dataclass
class AvatarChange:
    """A new name for an avatar."""

    name: str


@dataclass
class ReconstructRequest:
    """An avatar from photos; with ``personalize`` it is then refined in place."""

    kind: Literal["reconstruct"]
    photos: list[str]
    name: str | None = None
    personalize: bool = False


@dataclass
class PersonalizeRequest:
    """Refine an avatar further with photos of its person."""

    kind: Literal["personalize"]
    avatar: str
    photos: list[str]


@dataclass
class DriveRequest:
    """A film (mp4) and a motion file (json) of an avatar that does what the face in a film does."""

    kind: Literal["drive"]
    avatar: str
    film: str
    relative: bool = False
    """Count expressions from the calm face of the film: for another person's face."""
    same_person: bool = False
    """The film shows the avatar's own person: its outline places head and torso too; slower, closer."""
    size: int = 512


@dataclass
class ExportRequest:
    """An avatar as a file for other programs."""

    kind: Literal["export"]
    avatar: str
    format: ExportFormat


JobRequest = ReconstructRequest | PersonalizeRequest | DriveRequest | ExportRequest
for _request in (ReconstructRequest, PersonalizeRequest, DriveRequest, ExportRequest, AvatarChange):
    setattr(_request, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010  a misspelt field is an error


@dataclass
class AboutLimits:
    photos: int
    photo_bytes: int
    photo_pixels: int
    film_bytes: int
    film_seconds: float
    queue: int


@dataclass
class About:
    version: str
    device: str
    limits: AboutLimits
    personalize: bool
    webcam: bool


@dataclass
class Health:
    status: Literal["ok"]


@dataclass
class ProblemDetails:
    """RFC 9457; ``detail`` is one sentence with the remedy."""

    type: str
    title: str
    status: int
    detail: str
