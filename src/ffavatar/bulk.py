"""Avatars of thousands of people: from a list of people and their photos to a folder of avatars and a manifest.

Each person is one job (``jobs.run_jobs``), whose avatar and record are written whole or not at all. A stopped or killed
run goes on with those that have no record yet; a changed photo, setting or weights file makes a person anew.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ffavatar.api import model_for
from ffavatar.drive.choose import MOST_VIEWS, choose_views
from ffavatar.drive.video import existing_input, list_pictures
from ffavatar.errors import InputError
from ffavatar.evaluate.identity import cached_embedding
from ffavatar.files import atomic_path
from ffavatar.jobs import Crew, Done, died, run_jobs
from ffavatar.model.weights import LITE
from ffavatar.photo import FrontEnd
from ffavatar.pipeline import reconstruct
from ffavatar.weights import sha256_of

Progress = Callable[[int, int | None], None]
State = Literal["done", "refused", "failed"]
MANIFEST, FAILURES = "manifest.jsonl", "failures.jsonl"
_KEY_BYTES = 120
_VERSION = 1  # of the avatars that the same photos and settings give


@dataclass(frozen=True)
class Person:
    """Somebody and their photos (or one video)."""

    name: str
    photos: tuple[Path, ...]
    mark: str = ""  # tells their files from those of others, whose names would give the same

    @property
    def key(self) -> str:
        """Name of the person's files, without ending."""
        return file_key(self.name) + self.mark


def file_key(name: str) -> str:
    """A file name made of any name: letters and digits of any script, - and _ stay, the rest becomes _."""
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in unicodedata.normalize("NFC", name))
    kept = kept if kept and kept[0].isalnum() else f"p{kept}"
    # file systems count bytes, and an unfinished file's name is longer
    return kept.encode()[:_KEY_BYTES].decode("utf-8", "ignore")


@dataclass(frozen=True)
class Plan:
    """What decides the avatars."""

    views: int = MOST_VIEWS  # at most
    size: int = 512  # of the head crops, pixels
    level: int | None = None  # as ``pipeline.reconstruct``
    weights: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Record:
    """What became of a person. ``refused``: nothing usable in the photos, final while they stay as they are;
    ``failed``: something unexpected, tried again by the next run."""

    person: str
    state: State
    reason: str = ""  # why there is no avatar
    avatar: str = ""  # file name in the output folder
    sha256: str = ""
    bytes: int = 0
    gaussians: int = 0
    views: int = 0
    identity_checked: bool = False  # whether the photos were compared for showing one person
    left_out: tuple[str, ...] = ()  # photos that were not used, and why
    seconds: float = 0.0  # of processor time
    key: str = ""  # of photos, settings and weights


def read_people(source: Path) -> list[Person]:
    """People of a folder (one subfolder of photos each), a ``.csv`` with the columns ``person`` and ``photo`` (a row
    per photo), or a ``.jsonl`` of ``{"person": NAME, "photos": [FILE, ...]}``; paths are relative to the list.

    Photos that do not exist are no error here, nor is a subfolder without any: their person's record says so. Raises
    ``InputError`` for another form, and an empty list.
    """
    if source.is_dir():
        people = [
            Person(place.name, tuple(list_pictures(place)))
            for place in sorted(source.iterdir())
            if place.is_dir() and not place.name.startswith(".")
        ]
    else:
        try:
            people = _listed(source)
        except FileNotFoundError:
            raise InputError(f"{source} does not exist; check the name.") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(
                f"{source} is no list of people ({type(error).__name__}: {error}); give a folder of folders, a .csv "
                'with the columns person and photo, or a .jsonl of {"person": NAME, "photos": [FILE]}.'
            ) from error
    if not any(person.photos for person in people):
        raise InputError(f"{source} names nobody; give a folder with a subfolder of photos per person, or a list.")
    return _told_apart(people)


def _told_apart(people: list[Person]) -> list[Person]:
    """The people, marked where their files would have the same name, also to file systems that ignore case.

    Who is called just as the file keeps the name. A record knows its person's name, so that a list that has changed
    makes anew those whose files are now called otherwise, and nobody takes another's.
    """
    groups: dict[str, list[Person]] = {}
    for person in people:
        groups.setdefault(person.key.casefold(), []).append(person)
    marked = {}
    for group in groups.values():
        group.sort(key=lambda person: person.key != person.name)
        for person in group[1:]:
            marked[person.name] = "-" + hashlib.sha256(person.name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return [replace(person, mark=marked.get(person.name, "")) for person in people]


def _listed(source: Path) -> list[Person]:
    photos: dict[str, list[Path]] = {}
    if source.suffix.lower() == ".csv":
        with source.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                photos.setdefault(_text(row["person"]), []).append(source.parent / _text(row["photo"]))
    elif source.suffix.lower() == ".jsonl":
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row["photos"], list) or not row["photos"]:
                    what = "empty" if row["photos"] == [] else "no list"
                    raise ValueError(f"line {number}: photos is {what}")
                photos.setdefault(_text(row["person"]), []).extend(
                    source.parent / _text(name) for name in row["photos"]
                )
    else:
        raise ValueError("another kind of file")
    return [Person(name, tuple(paths)) for name, paths in photos.items()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no name")
    return value.strip()


@dataclass(frozen=True)
class Summary:
    """What a run came to; ``made`` counts the avatars made by this run, ``seconds`` their processor time."""

    records: tuple[Record, ...]
    made: int
    seconds: float

    def count(self, state: State) -> int:
        return sum(record.state == state for record in self.records)


def reconstruct_many(
    people: Sequence[Person], out: Path, plan: Plan, crew: Crew | None = None, progress: Progress | None = None
) -> Summary:
    """An avatar ``OUT/NAME.safetensors`` of everybody, ``OUT/manifest.jsonl`` (a line per person, in the order of the
    list) and ``OUT/failures.jsonl`` (those without an avatar).

    People whose record in ``OUT/records`` is of the same photos, settings and weights are taken as they are. The
    manifest is written at the end, on an interruption too. With Ray, all machines must see photos and output folder.
    Raises ``InputError`` for a missing weights file, or an output that is no folder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder for the avatars.")
    if plan.weights is not None and not plan.weights.is_file():
        raise InputError(f"The weights file {plan.weights} does not exist; give a safetensors file of weights.")
    (out / "records").mkdir(parents=True, exist_ok=True)
    weights = sha256_of(plan.weights) if plan.weights else LITE.sha256
    settings = repr((_VERSION, plan.views, plan.size, plan.level, weights))
    # workers on other machines have other working folders
    people = [replace(person, photos=tuple(photo.absolute() for photo in person.photos)) for person in people]
    plan = replace(plan, weights=plan.weights.absolute() if plan.weights else None)
    jobs = [_Job(person, out.absolute(), plan, _key(person, settings)) for person in people]
    known = {job.person.key: record for job in jobs if (record := _kept(job)) is not None}
    waiting = [job for job in jobs if job.person.key not in known]
    made, seconds = 0, 0.0
    if progress is not None:
        progress(len(known), len(jobs))
    try:
        for done in run_jobs(_reconstruct_one, waiting, crew or Crew()):
            record = done.result or _dead(done)
            known[done.job.person.key] = record
            made, seconds = made + (record.state == "done"), seconds + record.seconds
            if progress is not None:
                progress(len(known), len(jobs))
    finally:
        records = tuple(known[job.person.key] for job in jobs if job.person.key in known)
        _write_lines(out / MANIFEST, records)
        _write_lines(out / FAILURES, [record for record in records if record.state != "done"])
    return Summary(records, made, seconds)


@dataclass(frozen=True)
class _Job:
    person: Person
    out: Path
    plan: Plan
    key: str

    @property
    def record(self) -> Path:
        return self.out / "records" / f"{self.person.key}.json"

    @property
    def avatar(self) -> Path:
        return self.out / f"{self.person.key}.safetensors"


def _key(person: Person, settings: str) -> str:
    """Of the photos' names, sizes and times of change: to read thousands of photos again would take minutes."""
    about: list[tuple[str, int, int]] = []
    for photo in person.photos:
        try:
            stat = photo.stat()
            about.append((str(photo), stat.st_size, stat.st_mtime_ns))
        except (OSError, ValueError):
            about.append((str(photo), -1, -1))
    return hashlib.sha256(repr((person.name, about, settings)).encode()).hexdigest()


def _kept(job: _Job) -> Record | None:
    """The record of an earlier run, if it is of the same inputs and final."""
    try:
        row = json.loads(job.record.read_text(encoding="utf-8"))
        record = Record(**{**row, "left_out": tuple(row["left_out"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if record.key != job.key or record.state == "failed":
        return None
    if record.state == "done" and (not job.avatar.is_file() or job.avatar.stat().st_size != record.bytes):
        return None
    return record


def _reconstruct_one(job: _Job) -> Record:
    """One person's avatar and record, unless another worker has finished them."""
    if (kept := _kept(job)) is not None:
        return kept
    start = time.process_time()
    try:
        record = _avatar_of(job)
    except InputError as error:
        record = Record(job.person.name, "refused", str(error))
    except Exception as error:  # one person's trouble must not stop the others
        record = Record(job.person.name, "failed", f"{type(error).__name__}: {error}")
    if record.state != "done":
        job.avatar.unlink(missing_ok=True)  # of other photos or settings
    record = replace(record, seconds=round(time.process_time() - start, 3), key=job.key)
    _write_record(job, record)
    return record


@lru_cache(maxsize=1)
def _front_end(device: str) -> FrontEnd:
    """This process' photo front end, loaded once."""
    return FrontEnd(device)


_embedding = lru_cache(maxsize=1)(cached_embedding)


def _avatar_of(job: _Job) -> Record:
    plan, person = job.plan, job.person
    photos, missing = _readable(person.photos)
    choice = choose_views(
        photos, _front_end(plan.device), plan.size, "largest", plan.views, _embedding(plan.device)
    )  # fmt: skip
    model = model_for(str(plan.weights) if plan.weights else None, plan.device)
    avatar = reconstruct(model, choice.views.to(plan.device), plan.level)
    avatar.save(job.avatar)
    left_out = [f"{Path(photo.name).name}: {photo.reason}" for photo, kept in choice.rows if not kept]
    return Record(
        person.name, "done", "", job.avatar.name, sha256_of(job.avatar), job.avatar.stat().st_size, len(avatar),
        len(choice.views), choice.identity_checked, (*missing, *left_out),
    )  # fmt: skip


def _readable(photos: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that are there, and a sentence for each that is not. Raises ``InputError`` where none is."""
    if not photos:
        raise InputError("The person's folder holds no photos; put jpg, png or webp files into it.")
    there, missing = [], []
    for photo in photos:
        try:
            there.append(existing_input(photo))
        except InputError as error:
            missing.append(str(error))
    if not there:
        raise InputError(missing[0])
    return there, missing


def _dead(done: Done[_Job, Record]) -> Record:
    record = Record(done.job.person.name, "failed", died(done.attempts), key=done.job.key)
    _write_record(done.job, record)
    return record


def _write_record(job: _Job, record: Record) -> None:
    with atomic_path(job.record) as temporary:
        temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")


def _write_lines(place: Path, records: Iterable[Record]) -> None:
    names = [one.name for one in fields(Record) if one.name != "key"]
    with atomic_path(place) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            row = asdict(record)
            file.write(json.dumps({name: row[name] for name in names}) + "\n")
