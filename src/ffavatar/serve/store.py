"""What a server keeps on disk. Avatars outlive every accident: their files appear whole or not at all, and the index is
read from them at each start.

    avatars/ID/  v1.safetensors, v2.safetensors, ...  avatar.json  thumbnail.webp
    jobs/ID/     job.json and the files that the job made
    photos/ID/   photo.json, crop.webp, matte.webp, views.safetensors   (deleted after a time)
    films/ID/    film.json, film.mp4                                    (deleted after a time)
    motions/ID/  about.json, motion.json or motion.npz                  (deleted after a time)
    incoming/    what is arriving
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.serve.messages import AvatarMade
from ffavatar.serve.problems import Problem
from ffavatar.serve.records import Film, Kind, MotionFile, Photo, State, now

T = TypeVar("T")
log = logging.getLogger("ffavatar.serve")
IDS = {
    "avatars": re.compile(r"[0-9a-f]{16}"),
    "jobs": re.compile(r"[0-9a-f]{16}"),
    "photos": re.compile(r"[0-9a-f]{32}-\d{1,2}"),
    "films": re.compile(r"[0-9a-f]{32}"),
    "motions": re.compile(r"[0-9a-f]{32}"),
}
FILM_FILE = "film.mp4"  # whatever it is: FFmpeg looks at the content
MOTION_FILE = "motion.json"  # what a job that drives makes, and an upload unless it is
MOTION_NPZ = "motion.npz"
UPLOADS = {"photos": "photo.json", "films": "film.json", "motions": "about.json"}  # each with its record
_VERSION = re.compile(r"v(\d{1,9})\.safetensors")
_COUNT_AGAIN_S = 3.0  # counting bytes reads every folder
_KEPT_VERSIONS = 3  # newest states of an avatar, besides the first: viewers may still be fetching them


@dataclass
class AvatarEntry:
    """An avatar as ``avatar.json`` holds it."""

    id: str
    name: str
    created: str
    version: int
    gaussians: int
    personalized: bool
    note: str | None = None
    """One sentence where the last refinement did not come to its end."""


@dataclass
class JobEntry:
    """A job as ``job.json`` holds it: all that a restarted server needs to go on."""

    id: str
    kind: Kind
    request: dict[str, Any]
    state: State
    created: str
    avatar: str
    """The avatar that the job works on or will make; it exists when the store has it."""
    attempts: int = 0
    key: str | None = None
    error: str | None = None
    finished: str | None = None
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class PhotoEntry:
    """A judged photo; the picture itself is not kept."""

    photo: Photo
    report: dict[str, Any]


def new_id() -> str:
    return secrets.token_hex(8)


class Store:
    """One folder, used by one server. All calls are short and made from the server's event loop."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InputError`` where the folder cannot be used or another server uses it."""
        self.folder = folder
        try:
            for name in (*IDS, "incoming"):
                (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("a")
        except OSError as error:
            raise InputError(f"{folder} cannot be used ({error.strerror}); give another --folder.") from None
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when we are killed
        except ImportError:
            pass
        except OSError:
            self._lock.close()
            raise InputError(f"Another server already uses {folder}; stop it or give another --folder.") from None
        self.avatars: dict[str, AvatarEntry] = {}
        self._bytes: dict[str, int] = {}
        self._counted = -_COUNT_AGAIN_S
        for path in self.folder.glob("incoming/*"):
            _remove(path)
        for kind in IDS:
            for path in self.folder.glob(f"{kind}/.*"):  # was being made or deleted
                _remove(path)
        self._read_avatars()

    def close(self) -> None:
        """Let another server have the folder."""
        self._lock.close()

    def place(self, kind: str, name: str) -> Path | None:
        """The folder of an id, if it is one and is there."""
        if not IDS[kind].fullmatch(name):
            return None
        path = self.folder / kind / name
        return path if path.is_dir() else None

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    def bytes_used(self) -> dict[str, int]:
        """Bytes on the disk of each kind of thing, as they were a few seconds ago."""
        if time.monotonic() - self._counted > _COUNT_AGAIN_S:
            self._bytes = {kind: sum(size for _, size in _files(self.folder / kind)) for kind in IDS}
            self._counted = time.monotonic()
        return self._bytes

    def free_bytes(self) -> int:
        """Space left on the disk."""
        return shutil.disk_usage(self.folder).free

    # avatars

    def _read_avatars(self) -> None:
        for path in sorted(self.folder.glob("avatars/*")):
            if IDS["avatars"].fullmatch(path.name):
                entry = _avatar_of(path)
                if entry is None:
                    log.warning("%s holds no readable avatar; it is left as it is", path)
                else:
                    self.avatars[entry.id] = entry
                    for version in _versions(path):  # nobody is fetching any
                        if version not in (1, entry.version):
                            (path / f"v{version}.safetensors").unlink(missing_ok=True)

    def container(self, name: str, version: int | None = None) -> Path | None:
        """The file of an avatar's version, by default its newest; None where there is none (any more)."""
        entry = self.avatars.get(name)
        if entry is None:
            return None
        path = self.folder / "avatars" / name / f"v{version or entry.version}.safetensors"
        return path if path.is_file() else None

    def thumbnail(self, name: str) -> Path:
        return self.folder / "avatars" / name / "thumbnail.webp"

    def add_avatar(self, name: str, title: str, made: AvatarMade) -> AvatarEntry:
        """Take a new avatar's files; it is there with all of them or not at all."""
        entry = AvatarEntry(name, title, now(), 1, made.gaussians, made.personalized)
        temporary = self.folder / "avatars" / f".{name}.part"
        _remove(temporary)
        temporary.mkdir()
        os.replace(made.path, temporary / "v1.safetensors")
        os.replace(made.thumbnail, temporary / "thumbnail.webp")
        _write_for_good(temporary / "avatar.json", entry)
        os.replace(temporary, self.folder / "avatars" / name)
        self.avatars[name] = entry
        return entry

    def refine_avatar(self, name: str, made: AvatarMade) -> AvatarEntry:
        """Take a newer state of an avatar as its next version. Old states go, but for the newest few and the first."""
        entry = self.avatars[name]
        place = self.folder / "avatars" / name
        version = entry.version + 1
        os.replace(made.path, place / f"v{version}.safetensors")
        os.replace(made.thumbnail, place / "thumbnail.webp")
        changed = replace(entry, version=version, gaussians=made.gaussians, personalized=made.personalized)
        _write_for_good(place / "avatar.json", changed)
        self.avatars[name] = changed
        for old in _versions(place):
            if 1 < old <= version - _KEPT_VERSIONS:
                (place / f"v{old}.safetensors").unlink(missing_ok=True)
        return changed

    def rename_avatar(self, name: str, title: str) -> AvatarEntry:
        changed = replace(self.avatars[name], name=title)
        _write_for_good(self.folder / "avatars" / name / "avatar.json", changed)
        self.avatars[name] = changed
        return changed

    def note_avatar(self, name: str, note: str | None) -> None:
        """Keep what is to be said of an avatar; None where there is nothing (any more)."""
        if self.avatars[name].note != note:
            changed = replace(self.avatars[name], note=note)
            _write_for_good(self.folder / "avatars" / name / "avatar.json", changed)
            self.avatars[name] = changed

    def delete_avatar(self, name: str) -> None:
        self.avatars.pop(name, None)
        self.delete("avatars", name)

    def borrow(self, name: str, place: Path) -> bool:
        """Give the newest container of an avatar a second name, so that it stays whatever becomes of the avatar."""
        container = self.container(name)
        if container is None:
            return False
        place.unlink(missing_ok=True)
        try:
            os.link(container, place)
        except OSError:  # a file system without links
            shutil.copyfile(container, place)
        return True

    # jobs

    def save_job(self, entry: JobEntry) -> None:
        place = self.folder / "jobs" / entry.id
        place.mkdir(exist_ok=True)
        write_json(place / "job.json", asdict(entry))

    def read_jobs(self) -> list[JobEntry]:
        """All jobs, the oldest first."""
        found = (_read(path / "job.json", JobEntry) for path in self.folder.glob("jobs/*"))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.created)

    def job_folder(self, name: str) -> Path:
        return self.folder / "jobs" / name

    # uploads

    def save_photo(self, photo: Photo, report: dict[str, Any], made: Path | None) -> None:
        """Keep a verdict and, in the folder ``made``, what belongs to it; an earlier one of the same id goes."""
        temporary = self.incoming / f"photo-{secrets.token_hex(8)}"
        if made is None:
            temporary.mkdir()
        else:
            os.replace(made, temporary)
        write_json(temporary / "photo.json", {"photo": asdict(photo), "report": report})
        self.delete("photos", photo.id)
        os.replace(temporary, self.folder / "photos" / photo.id)

    def rename_photo(self, photo: Photo, report: dict[str, Any]) -> None:
        """Write another record of a photo that is there; its time begins anew."""
        write_json(self.folder / "photos" / photo.id / "photo.json", {"photo": asdict(photo), "report": report})

    def photo(self, name: str) -> PhotoEntry | None:
        place = self.place("photos", name)
        values = _values(place / "photo.json") if place else None
        if values is None:
            return None
        return PhotoEntry(Photo(**values["photo"]), values["report"])

    def save_film(self, film: Film, path: Path) -> None:
        place = self.folder / "films" / film.id
        place.mkdir(exist_ok=True)
        os.replace(path, place / FILM_FILE)
        write_json(place / "film.json", asdict(film))

    def film(self, name: str) -> Film | None:
        place = self.place("films", name)
        return _read(place / "film.json", Film) if place else None

    def save_motion(self, motion: MotionFile, path: Path) -> None:
        place = self.folder / "motions" / motion.id
        place.mkdir(exist_ok=True)
        os.replace(path, place / (MOTION_NPZ if path.suffix == ".npz" else MOTION_FILE))
        write_json(place / UPLOADS["motions"], asdict(motion))

    def motion(self, name: str) -> MotionFile | None:
        place = self.place("motions", name)
        return _read(place / UPLOADS["motions"], MotionFile) if place else None

    def motion_path(self, name: str) -> Path | None:
        """The file of an uploaded motion, or of the one that a job made; None where there is none."""
        uploaded, driven = self.place("motions", name), self.place("jobs", name)
        places = [uploaded / MOTION_FILE, uploaded / MOTION_NPZ] if uploaded else []
        places += [driven / MOTION_FILE] if driven else []
        return next((path for path in places if path.is_file()), None)

    def delete(self, kind: str, name: str) -> bool:
        """Remove a thing with all its files; whether it was there. A half-done removal is finished at the next
        start."""
        place = self.place(kind, name)
        if place is None:
            return False
        gone = place.with_name(f".{name}.{secrets.token_hex(4)}.gone")
        os.replace(place, gone)
        _remove(gone)
        return True

    def old_uploads(self, seconds: float) -> Iterator[tuple[str, str]]:
        """(kind, id) of uploads that are older than so many seconds, and of remains without a record."""
        limit = time.time() - seconds
        for kind, record in UPLOADS.items():
            for place in self.folder.glob(f"{kind}/*"):
                path = place / record
                try:
                    age = (path if path.exists() else place).stat().st_mtime
                except OSError:
                    continue
                if age < limit and IDS[kind].fullmatch(place.name):
                    yield kind, place.name


def write_json(path: Path, values: object) -> None:
    """Whole or not at all, whatever becomes of this process. A power cut may undo the latest writes: syncing takes too
    long for what happens several times in each job."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_for_good(path: Path, entry: AvatarEntry) -> None:
    """Whole or not at all, on the disk itself: an avatar outlives a power cut."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(asdict(entry), indent=1), encoding="utf-8")


def check_space(store: Store, free_bytes: int) -> None:
    """Raises ``Problem`` 507 where the disk is nearly full."""
    if store.free_bytes() < free_bytes:
        raise Problem(507, "The disk is nearly full; delete avatars or files that are no longer needed.")


def _values(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _read(path: Path, kind: type[T]) -> T | None:
    """A record from a file; None where it is missing, damaged or of another make."""
    values = _values(path)
    if values is None:
        return None
    known = fields(kind)  # type: ignore[arg-type]
    needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if not needed <= set(values) <= {f.name for f in known}:
        return None
    return kind(**values)


def _avatar_of(place: Path) -> AvatarEntry | None:
    """The entry of an avatar's folder, made up from the containers where ``avatar.json`` is lost or tells of none."""
    entry = _read(place / "avatar.json", AvatarEntry)
    if entry is not None and entry.id == place.name and (place / f"v{entry.version}.safetensors").is_file():
        return entry
    for version in reversed(_versions(place)):
        path = place / f"v{version}.safetensors"
        header = _container_header(path)
        if header is not None:
            created = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="milliseconds")
            name = entry.name if entry is not None else f"Avatar {place.name[:4]}"
            about = header.get("__metadata__", {}).get("about", "")
            count = int(header["opacities"]["shape"][0])
            return AvatarEntry(
                place.name, name, created.replace("+00:00", "Z"), version, count, "personalized" in about
            )
    return None


def _versions(place: Path) -> list[int]:
    return sorted(int(found[1]) for path in place.iterdir() if (found := _VERSION.fullmatch(path.name)))


def _container_header(path: Path) -> dict[str, Any] | None:
    """The JSON header of a safetensors file that is as long as it says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, 2**24)))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        if path.stat().st_size != 8 + length + max(ends) or header["__metadata__"]["format"] != "ffavatar":
            return None
        return header
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    """(path, bytes) of all files below; what vanishes meanwhile is left out."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry.path, entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
