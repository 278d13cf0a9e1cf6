"""What goes over HTTP as JSON. FastAPI reads the OpenAPI description from these dataclasses; their field names are the
contract. Times are ISO 8601 in UTC; urls begin with a slash and stay on the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["reconstruct", "personalize", "drive", "export"]
ExportFormat = Literal[
    "ply", "glb", "mesh.glb", "spz", "html", "obj", "usda", "splat", "zip",
    "png", "jpg", "webp", "mp4", "mov", "webm", "gif",
]  # fmt: skip
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
LONGEST_NAME = 120


@dataclass(frozen=True)
class Between:
    """The least and the most that a number of a request may be: in its annotation, so that the description says it.

    The server checks it itself (``tasks.check_ranges``), for a refusal of one sentence.
    """

    least: float
    most: float

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """What pydantic asks of annotations: the JSON schema with these bounds."""
        made: dict[str, Any] = handler(core)
        return made | {"minimum": self.least, "maximum": self.most}


def now() -> str:
    """This moment, as the interface writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean_name(text: str, instead: str) -> str:
    """The name of a file that was sent, for showing: as ``shown_name``, without its folders. Never used as a path."""
    return shown_name(text.replace("\\", "/").rsplit("/", 1)[-1]) or instead


def shown_name(text: str) -> str:
    """A name that a user gave, as it is shown: one line, no control characters; empty where nothing is left.

    Any other character stays, also slashes and what HTML means something by: whoever shows it, escapes it.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST_NAME].strip()


def title_of(name: str) -> str:
    """A name that a user gave as part of a file's name, on any system."""
    return "".join("-" if c in '/\\:*?"<>|' else c for c in shown_name(name)).strip(" .") or "avatar"


@dataclass
class Photo:
    """One uploaded photo, as it was judged. A file that cannot be decoded is here too, with the reason."""

    id: str
    name: str
    kept: bool
    reason: str | None
    """Why it cannot be used; of a kept one what to know of it."""
    width: int
    height: int
    faces: int
    """Faces found; ``face`` of the upload chooses among them."""
    crop: str | None
    """Address of the crop around the head."""
    matte: str | None
    """Address of the person's outline in the crop."""


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
class MotionFile:
    """An uploaded motion, to export an avatar in it or in one of its frames."""

    id: str
    name: str
    frames: int
    fps: float
    seconds: float


@dataclass
class Job:
    """One piece of work."""

    id: str
    kind: Kind
    state: State
    position: int | None = None
    """Place in the queue, from 1."""
    stage: str | None = None
    """What is being done."""
    done: int = 0
    """Of ``total``, within the stage."""
    total: int = 0
    """0 where it is not known."""
    seconds_left: float | None = None
    """Of the stage, by its pace."""
    error: str | None = None
    """Why it failed, in one sentence."""
    avatar: str | None = None
    """Id of the avatar that it made or works on, as soon as there is one."""
    files: dict[str, str] = field(default_factory=dict)
    """Name and address of each file that it made."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what was done, such as photos that were left out."""
    created: str = ""
    finished: str | None = None


@dataclass
class Avatar:
    """A finished avatar."""

    id: str
    name: str
    created: str
    version: int
    """Counts its states from 1."""
    gaussians: int
    personalized: bool
    """Refined to its photos, if only in part: ``note`` then says so."""
    note: str | None
    """One sentence where the last refinement did not come to its end."""
    thumbnail: str
    """Address of a picture of it."""
    container: str
    """Address of its newest version."""
    bytes: int
    """Of the container."""
    files: dict[str, str] = field(default_factory=dict)
    """Name and address of each file made from it."""


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
    """Ids of uploaded photos that were kept, all of one person."""
    name: str | None = None
    """For showing; one line of up to 120 characters."""
    personalize: bool = False
    """Refine the avatar to its photos afterwards, in place: minutes."""
    look: str | None = None
    """The one of ``photos`` whose hair and clothes are taken where photos of several days show different ones."""


@dataclass
class PersonalizeRequest:
    """Refine an avatar further with photos of its person."""

    kind: Literal["personalize"]
    avatar: str
    """Id of an avatar."""
    photos: list[str]
    """Ids of uploaded photos that were kept."""


@dataclass
class DriveRequest:
    """A film (mp4) and a motion file (json) of an avatar that does what the face in a film does."""

    kind: Literal["drive"]
    avatar: str
    """Id of an avatar."""
    film: str
    """Id of an uploaded film."""
    relative: bool = False
    """Count expressions from the calm face of the film: for another person's face."""
    same_person: bool = False
    """The film shows the avatar's own person: its outline places head and torso too; slower, closer."""
    size: Annotated[int, Between(64, 1024)] = 512
    """Side of the film in pixels: an even number from 64 to 1024."""


@dataclass
class ExportRequest:
    """An avatar as a file for other programs: at rest, in a pose set by hand, or in a motion or one of its frames.

    Files of one moment (ply, spz, splat, obj, usda, png, jpg) take a pose, or a motion with a frame; glb, mesh.glb and
    webp those or a whole motion; html and zip a motion, as their clip; mp4, mov, webm and gif need one.
    """

    kind: Literal["export"]
    avatar: str
    """Id of an avatar."""
    format: ExportFormat
    """The ending of the file, as docs/export.md explains them; ``mesh.glb`` is a mesh, ``glb`` Gaussians."""
    yaw: Annotated[float, Between(-180, 180)] = 0.0
    """Turn of the head in degrees; positive to the person's left."""
    pitch: Annotated[float, Between(-90, 90)] = 0.0
    """Nod in degrees; positive looks down."""
    roll: Annotated[float, Between(-90, 90)] = 0.0
    """Tilt in degrees."""
    expression: dict[str, Annotated[float, Between(-3, 3)]] = field(default_factory=dict)
    """Expressions by name, such as ``{"mouthSmileLeft": 0.6}``: ARKit's 52, or the head's own."""
    motion: str | None = None
    """Id of an uploaded motion, or of a finished job that drove an avatar."""
    frame: Annotated[int, Between(-1_000_000, 999_999)] | None = None
    """The moment of the motion, counted from 0; negative from its end."""
    scale: Annotated[float, Between(1e-4, 1e4)] = 1.0
    """Units per metre, in 3D files but html and zip."""
    size: Annotated[int, Between(64, 4096)] | None = None
    """Side of pictures and films in pixels, 512 where nothing is said; of films at most 1024."""
    background: str = "white"
    """Of pictures, films and html: white, black, grey, green, #rrggbb or, where the format can, transparent."""
    allow_flame: bool = False
    """Write a 3D file of an avatar on a FLAME basis, which its licence keeps to your own use."""


JobRequest = ReconstructRequest | PersonalizeRequest | DriveRequest | ExportRequest


@dataclass
class AboutLimits:
    photos: int
    photo_bytes: int
    photo_pixels: int
    film_bytes: int
    film_seconds: float
    """Of motions too."""
    motion_bytes: int
    queue: int


@dataclass
class About:
    version: str
    device: str
    limits: AboutLimits
    personalize: bool
    webcam: bool
    heic: bool
    """Whether HEIC photos, as phones take them, can be read."""


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


# Attribute docstrings go into the OpenAPI description; a misspelt field of a request is an error.
for _record in (Photo, Film, MotionFile, Job, Avatar, About, AboutLimits):
    setattr(_record, "__pydantic_config__", {"use_attribute_docstrings": True})  # noqa: B010
for _request in (ReconstructRequest, PersonalizeRequest, DriveRequest, ExportRequest, AvatarChange):
    setattr(_request, "__pydantic_config__", {"extra": "forbid", "use_attribute_docstrings": True})  # noqa: B010
