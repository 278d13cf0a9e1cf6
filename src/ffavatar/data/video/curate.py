"""Films to shards of people. First each film by itself, by any number of processes or machines, its faces kept in a
work folder; then all tracks together become people, and the most different frames of each become a sample."""

from __future__ import annotations

import hashlib
import html
import json
import time
import zipfile
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ffavatar.data.people import Progress, front_end, safe_key
from ffavatar.data.shards import PersonSample, Provenance, ShardReader, ShardWriter
from ffavatar.data.shards.writer import SHARD_BYTES
from ffavatar.data.video.people import feature, group, most_different
from ffavatar.data.video.tracks import Embed, Face, FilmFaces, film_faces
from ffavatar.drive.video import VIDEO_SUFFIXES, existing_input
from ffavatar.errors import InputError
from ffavatar.files import atomic_path
from ffavatar.jobs import Crew, run_jobs

WORK_SCHEMA = 1
_ROWS = ("images", "mattes", "valid", "landmarks", "blendshapes", "embedding", "angles_deg", "sharpness", "frame")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
KILLER = "the film's worker processes died of it"
PAGE_PEOPLE = 200
PICTURE_PX = 112
EXAMPLES = 6  # pictures of a reason on the page, each of another film


@dataclass(frozen=True)
class Plan:
    """What decides the content of the shards."""

    size: int = 512
    frames: int = 8  # of each person at most
    fewest: int = 3  # people with fewer different frames are left out
    licence: str = "unknown"
    workers: int = 1
    shard_bytes: int = SHARD_BYTES
    ray: str | None = None  # as ``jobs.Crew``; all machines must see the films and the work folder


@dataclass(frozen=True)
class KeptTrack:
    """A track in the work folder. Only its embedding is in memory: millions of tracks are."""

    place: Path
    number: int
    first: int  # frames
    last: int
    embedding: np.ndarray  # (D,) mean of the faces', unit

    @property
    def film(self) -> str:
        return self.place.stem

    def rows(self) -> dict[str, np.ndarray]:
        """Arrays with a row per face. Raises ``InputError`` where the file is damaged or gone."""
        try:
            with np.load(self.place, allow_pickle=False) as file:
                return {name: file[f"{self.number}.{name}"] for name in _ROWS}
        except _UNREADABLE as error:
            raise _lost(self.place) from error


@dataclass(frozen=True)
class Curated:
    """What came of all films."""

    people: int
    films: int
    tracks: int
    frames: int
    samples: int
    seconds: float  # of processor time spent on films in this run, over all processes
    refused: dict[str, int]


def list_films(source: Path) -> list[Path]:
    """Films of a folder (with subfolders, sorted), or of a text file with one path per line.

    Raises ``InputError`` where there is none, or the list names a missing one.
    """
    source = existing_input(source)
    if source.is_dir():
        films = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES)
    elif source.suffix.lower() in VIDEO_SUFFIXES:
        films = [source]
    else:
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{source} is neither a folder, a film nor a text file with one film per line.") from None
        films = [source.parent / line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if missing := [film for film in films if not film.is_file()]:
            raise InputError(f"{source} names {missing[0]}, which does not exist; correct the list.")
    if not films:
        raise InputError(f"{source} holds no films ({', '.join(VIDEO_SUFFIXES)}); give another folder or list.")
    return films


def film_key(film: Path) -> str:
    """A name for the work folder: of the file's name, size and first megabyte, wherever it lies."""
    with film.open("rb") as file:
        digest = hashlib.sha256(file.read(1 << 20) + str(film.stat().st_size).encode())
    return f"{safe_key(film.stem)[:60]}-{digest.hexdigest()[:12]}"


def curate(
    films: Sequence[Path],
    out: Path,
    work: Path,
    plan: Plan,
    load_embed: Callable[[], Embed],
    progress: Progress | None = None,
) -> Curated:
    """Films to shards in ``out`` and a page ``out/people.html``; faces of finished films are taken from ``work``.

    ``load_embed`` makes the identity network; it must be picklable with several workers. A film that cannot be read is
    counted, and the others go on. Raises ``InputError`` for an ``out`` made from other films or settings.
    """
    if plan.frames < 1 or plan.fewest < 1 or plan.fewest > plan.frames:
        raise InputError(
            f"{plan.fewest} to {plan.frames} frames of a person cannot be; give 1 or more, at most as many."
        )
    work = work.absolute()  # workers on other machines have other working folders
    work.mkdir(parents=True, exist_ok=True)
    keys = {film_key(film): film.absolute() for film in films}  # the same film twice is one film
    settings = {
        "films": hashlib.sha256("".join(sorted(keys)).encode()).hexdigest(), "size": plan.size, "frames": plan.frames,
        "fewest": plan.fewest,
    }  # fmt: skip
    provenance = Provenance("video", f"{len(keys)} films", plan.licence, settings)
    with ShardWriter(out, provenance, "jpeg", plan.shard_bytes) as writer:
        jobs = [(key, film, work, plan.size, load_embed) for key, film in keys.items()]
        seconds = 0.0
        for done, one in enumerate(run_jobs(_look_through, jobs, Crew(plan.workers, plan.ray)), 1):
            if one.result is None:  # kept, or it would kill workers for ever; deleting the file lets it try again
                _write_work(work / f"{one.job[0]}-{plan.size}.npz", FilmFaces((), {KILLER: 1}, 0, 0, 0))
            seconds += one.result or 0.0
            if progress is not None:
                progress(done, len(jobs))
        return _write_people(sorted(keys), work, plan, writer, out, seconds)


Job = tuple[str, Path, Path, int, Callable[[], Embed]]
_embedders: dict[Callable[[], Embed], Embed] = {}


def _look_through(job: Job) -> float:
    """One film's faces into the work folder, unless they are there. Returns the processor seconds it took."""
    key, film, work, size, load_embed = job
    place = work / f"{key}-{size}.npz"
    if _read_head(place) is not None:
        return 0.0
    if load_embed not in _embedders:
        _embedders[load_embed] = load_embed()
    start = time.process_time()
    try:
        found = film_faces(film, front_end(), _embedders[load_embed], size)
    except InputError:
        found = FilmFaces((), {"the film cannot be read": 1}, 0, 0, 0)
    _write_work(place, found)
    return time.process_time() - start


def _write_work(place: Path, found: FilmFaces) -> None:
    head = {
        "schema": WORK_SCHEMA, "refused": found.refused, "frames": found.frames, "samples": found.samples,
        "shots": found.shots, "examples": list(found.examples),
        "tracks": [[t.first, t.last, len(t.faces)] for t in found.tracks],
    }  # fmt: skip
    arrays: dict[str, Any] = {"head": np.array(json.dumps(head))}
    arrays |= {f"example.{number}": picture for number, picture in enumerate(found.examples.values())}
    for number, track in enumerate(found.tracks):
        rows = [_row(face) for face in track.faces]
        arrays |= {f"{number}.{name}": np.stack([row[name] for row in rows]) for name in _ROWS}
    with atomic_path(place) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _row(face: Face) -> dict[str, np.ndarray]:
    views = face.views
    return {
        "images": (views.images[0] * 255).round().to(torch.uint8).cpu().numpy(),
        "mattes": (views.mattes[0] * 255).round().to(torch.uint8).cpu().numpy(),
        "valid": (views.valid[0] > 0.5).cpu().numpy(),
        "landmarks": views.landmarks[0].cpu().numpy(),
        "blendshapes": views.blendshapes[0].cpu().numpy(),
        "embedding": face.embedding,
        "angles_deg": np.array(face.angles_deg),
        "sharpness": np.array(face.sharpness),
        "frame": np.array(face.frame),
    }


def _read_head(place: Path) -> dict[str, Any] | None:
    """None where the file is missing, cut off or of another version: the film is then looked through again."""
    try:
        with np.load(place, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
        return head if head["schema"] == WORK_SCHEMA else None
    except _UNREADABLE:
        return None


def _read_tracks(place: Path) -> tuple[dict[str, Any], list[KeptTrack]]:
    """A film's counts and tracks. Raises ``InputError`` where the file is damaged or gone."""
    head = _read_head(place)
    try:
        if head is None:
            raise ValueError("no head")
        tracks = []
        with np.load(place, allow_pickle=False) as file:
            for number, (first, last, _faces) in enumerate(head["tracks"]):
                mean = file[f"{number}.embedding"].mean(0)
                tracks.append(KeptTrack(place, number, first, last, mean / np.linalg.norm(mean)))
        return head, tracks
    except _UNREADABLE as error:
        raise _lost(place) from error


def _read_examples(place: Path) -> dict[str, np.ndarray]:
    """A film's picture of each reason; none where the film was looked through before they were kept."""
    try:
        with np.load(place, allow_pickle=False) as file:
            reasons = json.loads(str(file["head"])).get("examples", [])
            return {reason: file[f"example.{number}"] for number, reason in enumerate(reasons)}
    except _UNREADABLE as error:
        raise _lost(place) from error


def _lost(place: Path) -> InputError:
    return InputError(f"{place} was lost or damaged while people were made of it; delete it and run again.")


def same_time(tracks: Sequence[KeptTrack]) -> list[tuple[int, int]]:
    """Pairs of tracks of one film that overlap in time: two people."""
    by_film: dict[str, list[int]] = {}
    for number, track in enumerate(tracks):
        by_film.setdefault(track.film, []).append(number)
    return [
        (a, b)
        for numbers in by_film.values()
        for a, b in combinations(numbers, 2)
        if tracks[a].first <= tracks[b].last and tracks[b].first <= tracks[a].last
    ]


def _write_people(keys: list[str], work: Path, plan: Plan, writer: ShardWriter, out: Path, seconds: float) -> Curated:
    refused: Counter[str] = Counter()
    tracks: list[KeptTrack] = []
    frames = samples = 0
    examples: dict[str, list[np.ndarray]] = {}
    for key in keys:
        head, found = _read_tracks(work / f"{key}-{plan.size}.npz")
        for reason in head["refused"]:
            if len(examples.setdefault(reason, [])) < EXAMPLES:
                picture = _read_examples(work / f"{key}-{plan.size}.npz").get(reason)
                examples[reason] += [] if picture is None else [picture]
        refused.update(head["refused"])
        frames, samples = frames + head["frames"], samples + head["samples"]
        tracks += found
    owners = group(np.stack([t.embedding for t in tracks]), same_time(tracks)) if tracks else []
    people: dict[int, list[KeptTrack]] = {}
    for track, owner in zip(tracks, owners):
        people.setdefault(owner, []).append(track)
    for person, mine in people.items():
        sample = _sample(person, mine, plan, refused)
        if sample is not None:
            writer.add(sample)
    if not writer.manifest.refused:
        for reason, count in sorted(refused.items()):
            writer.refuse(reason, count)
    writer.flush()
    total = Curated(writer.manifest.samples, len(keys), len(tracks), frames, samples, seconds, dict(refused))
    write_page(out, total, examples)
    return total


def _sample(person: int, tracks: list[KeptTrack], plan: Plan, refused: Counter[str]) -> PersonSample | None:
    parts = [track.rows() for track in tracks]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in _ROWS}
    films = np.concatenate([np.repeat(track.film, len(part["frame"])) for track, part in zip(tracks, parts)])
    features = np.stack([feature(a, b) for a, b in zip(rows["angles_deg"], rows["blendshapes"])])
    chosen = most_different(features, rows["sharpness"], plan.frames)
    if len(chosen) < plan.fewest:
        refused[f"a person with fewer than {plan.fewest} different frames"] += 1
        return None
    refused["usable, but other frames of the person differ more"] += len(features) - len(chosen)
    arrays = {name: rows[name][chosen] for name in ("landmarks", "blendshapes", "embedding", "angles_deg", "frame")}
    arrays["film"] = films[chosen]
    notes = {"tracks": len(tracks), "films": len(set(films.tolist()))}
    return PersonSample(
        f"video-{person:06d}", rows["images"][chosen], rows["mattes"][chosen], rows["valid"][chosen], arrays, (), notes
    )


def write_page(out: Path, total: Curated, examples: Mapping[str, Sequence[np.ndarray]]) -> None:
    """``out/people.html``: counts and ``examples`` of every reason, and the kept frames of each person; pictures are
    inside."""
    reader = ShardReader(out, shuffle=False)
    rate = f", {total.frames / total.seconds:.1f} frames per second and core" if total.seconds else ""
    reasons = "".join(
        f"<tr><td>{count}<td>{html.escape(reason)}<td>{_image(some) if (some := examples.get(reason)) else ''}"
        for reason, count in sorted(total.refused.items(), key=lambda pair: -pair[1])
    )
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>People</title><style>body{font:15px sans-serif;"
        "margin:2rem}td{padding:.1rem .6rem}img{display:block;margin:.2rem 0 1rem}</style>",
        f"<h1>{total.people} people</h1><p>{total.films} films, {total.frames:,} frames, {total.samples:,} looked at, "
        f"{total.tracks} face tracks{rate}. Licence: {html.escape(reader.manifest.provenance.licence)}.</p>",
        f"<h2>Left out</h2><table>{reasons}</table>",
    ]
    for number, sample in enumerate(reader):
        if number == PAGE_PEOPLE:
            parts.append(f"<p>The other {total.people - PAGE_PEOPLE} people are not shown.</p>")
            break
        shown = (sample.views().on_white() * 255).round().to(torch.uint8).numpy()
        counts = ((len(sample), "frame"), (sample.notes["tracks"], "track"), (sample.notes["films"], "film"))
        frames, tracks, films = (f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)
        words = f"{sample.key}: {frames} of {tracks} in {films}"
        parts.append(f"<p>{html.escape(words)}{_image(shown)}")
    with atomic_path(out / "people.html") as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def _image(pictures: Sequence[np.ndarray] | np.ndarray) -> str:
    """Pictures (H, W, 3) uint8 beside each other, small, as an element of the page."""
    small = [np.asarray(Image.fromarray(p).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BOX)) for p in pictures]
    buffer = BytesIO()
    Image.fromarray(np.concatenate(small, 1)).save(buffer, "JPEG", quality=80)
    return f"<img loading=lazy alt='' src='data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}'>"
