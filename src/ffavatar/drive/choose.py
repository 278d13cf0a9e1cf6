"""Choosing the views to reconstruct from: a few sharp pictures, spread over the directions the head was seen from."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ffavatar.drive.video import VIDEO_SUFFIXES, FrameReader, existing_input, list_pictures
from ffavatar.errors import InputError
from ffavatar.pipeline import LOOK
from ffavatar.types import Views

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.photo import FrontEnd, PhotoReport
    from ffavatar.photo.front_end import FaceChoice

MOST_VIEWS = 6  # more hardly add to an avatar, and each costs time and memory
VIDEO_SAMPLES = 48  # frames of a film that are looked at
SAME_PERSON = 0.35  # cosine of identity embeddings below which a photo is taken for another person's
SAME_AS_AVATAR = 0.28  # the same to an avatar's picture, which is less like its person than photos are
SURELY_SAME = 0.45  # below it a photo is used, but remarked on; docs/photo.md has the figures


class StrangersError(InputError):
    """No photo shows the person of the avatar that they were given for."""


Progress = Callable[[int, int | None], None]
_FRAME = re.compile(r"frame \d+")  # the name of a film's frame
Embed = Callable[[Views], Tensor]  # identity embeddings (S, D), normalised


@dataclass(frozen=True)
class Candidate:
    """One photo or frame: its view if it can be used, and what is said about it."""

    name: str
    views: Views | None
    reason: str  # why it was refused or left out, or remarks about a photo that is used
    report: PhotoReport | None = None  # None where the file could not be read

    @property
    def usable(self) -> bool:
        return self.views is not None

    @property
    def direction(self) -> np.ndarray:
        """(yaw, pitch) in degrees."""
        return np.array([self.report.yaw_deg, self.report.pitch_deg] if self.report else [0.0, 0.0])

    @property
    def sharpness(self) -> float:
        return self.report.sharpness if self.report else 0.0


@dataclass(frozen=True)
class Choice:
    """The chosen views, in the order of the input, and one row per photo with the reasons."""

    views: Views
    rows: tuple[tuple[Candidate, bool], ...]  # (photo, kept)
    identity_checked: bool
    notes: tuple[str, ...] = ()

    @property
    def spare(self) -> str:
        """A sentence that says how many more could have been used; empty where none could."""
        names = [photo.name for photo, kept in self.rows if photo.usable and not kept]
        if not names:
            return ""
        what = "frame" if _FRAME.fullmatch(names[0]) else "photo"
        return f"{len(names)} more usable {what}{' was' if len(names) == 1 else 's were'} not needed."

    def view_of(self, row: int) -> int | None:
        """Number of the view made from the photo of a row; None where it was not kept."""
        return sum(kept for _, kept in self.rows[:row]) if self.rows[row][1] else None


def choose_views(
    inputs: Sequence[str | Path],
    front_end: FrontEnd,
    size: int = 512,
    face: FaceChoice = "largest",
    most: int = MOST_VIEWS,
    embed: Embed | None = None,
    progress: Progress | None = None,
    must: str | Path | None = None,
    avatar: Tensor | None = None,
) -> Choice:
    """Look at photos, folders of photos or one video, and take up to ``most`` views.

    Photos are all taken if there are no more than ``most``; otherwise, and from a video, those that are sharp and far
    apart in direction, and in any case the one that ``must`` names, if it can be used. With ``embed``, photos unlike
    the majority are refused as another person's, and first those unlike the ``avatar`` (its embedding, of length 1), if
    they are for one that exists. A photo that is given twice counts once. Raises ``InputError`` where nothing can be
    used, with the first photo's reason.
    """
    sources, notes = _sources(inputs)
    candidates, more = _look_at(sources, front_end, size, face, progress)
    notes += more
    if not any(c.usable for c in candidates):
        film = sources.path if isinstance(sources, FrameReader) else None
        raise InputError(_nothing_usable(candidates, film))
    number = None
    if must is not None:
        usable = [i for i, c in enumerate(candidates) if c.usable]
        with contextlib.suppress(InputError):
            number = usable[view_named(must, [candidates[i].name for i in usable])]
    return choose_among(candidates, most, embed, tuple(notes), number, avatar)


def choose_among(
    candidates: list[Candidate],
    most: int = MOST_VIEWS,
    embed: Embed | None = None,
    notes: tuple[str, ...] = (),
    must: int | None = None,
    avatar: Tensor | None = None,
) -> Choice:
    """The second half of ``choose_views``: which of the photos that were looked at to take. At least one is usable.

    ``must``: number of the candidate that is taken before others, unless it cannot be used or is a stranger's.

    Raises:
        StrangersError: all are unlike the ``avatar``.
    """
    doubts: dict[int, list[str]] = {}
    if embed is not None:
        candidates, doubts = _refuse_strangers(candidates, embed, avatar)
    kept = _spread(candidates, most, must)
    notes += tuple(doubt for i in sorted(kept) for doubt in doubts.get(i, ()))
    rows = tuple((_explained(c, i in kept, most), i in kept) for i, c in enumerate(candidates))
    views = Views.cat([c.views for c, taken in rows if taken and c.views is not None])
    return Choice(views, rows, embed is not None, notes)


def look_notes(choice: Choice, avatar: Avatar, like: int | None = None) -> tuple[str, ...]:
    """What to say of an avatar made from the chosen views where they show different hair or clothes.

    ``like``: number of the view whose look was asked for; where they show no different ones, that is said.
    """
    names = [photo.name for photo, kept in choice.rows if kept]
    if LOOK not in avatar.about:
        if like is None or len(names) < 2:
            return ()
        return (
            f"All photos used seem to show the same hair and clothes, so they are not taken from {names[like]} alone.",
        )
    taken = [names[int(number)] for number in avatar.about[LOOK].split()]
    count = len(names) - len(taken)
    others = "one" if count == 1 else str(count)
    return (f"Hair and clothes are those of {', '.join(taken)}; of the other {others} only the face is used.",)


def check_look(look: str | Path, inputs: Sequence[str | Path]) -> None:
    """Whether ``look`` names one of the photos that are given, asked before they are looked at.

    Raises:
        InputError: it does not. The frames of a video have their names only later: any is taken.
    """
    sources, _ = _sources(inputs)
    if not isinstance(sources, FrameReader):
        view_named(look, [str(path) for path in sources], "the photos given")


def view_named(photo: str | Path, names: Sequence[str], which: str = "the photos that can be used") -> int:
    """Number of the view made from a photo, by its name or path among those of all views.

    Raises:
        InputError: no view, or several, are called so.
    """
    found = [i for i, name in enumerate(names) if str(photo) == name] or [
        i for i, name in enumerate(names) if Path(photo).name == Path(name).name
    ]
    if len(found) != 1:
        what = f"none of {which}" if not found else f"{len(found)} of {which}"
        raise InputError(f"The look {photo} is {what}; name one of: {', '.join(names)}.")
    return found[0]


def _sources(inputs: Sequence[str | Path]) -> tuple[list[Path] | FrameReader, list[str]]:
    """Photo files, or a reader for the one video; and remarks."""
    if not inputs:
        raise InputError("No photo was given; give at least one photo, a folder of photos, or a video.")
    paths = [_given(path) for path in inputs]
    videos = [p for p in paths if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES and p.suffix.lower() != ".gif"]
    if videos and len(paths) > 1:
        raise InputError(f"{videos[0]} is a video; give it alone, or give photos only.")
    if videos:
        return FrameReader(videos[0]), []
    photos: dict[Path, Path] = {}  # by what they are when links are followed
    notes: list[str] = []
    for path in paths:
        found = list_pictures(path) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no photos; give a folder with jpg, png or webp files.")
        for photo in found:
            if (first := photos.setdefault(photo.resolve(), photo)) is not photo:
                same = "" if first == photo else f", also as {first}"
                notes.append(f"{photo} was given more than once{same}: it counts once.")
    return list(photos.values()), notes


def _given(path: str | Path) -> Path:
    """As ``existing_input``, but an empty photo is refused later, with its reason, as one in a folder is."""
    try:
        return existing_input(path)
    except InputError:
        place = Path(path).expanduser()
        if os.path.isfile(place) and os.path.getsize(place) == 0 and place.suffix.lower() not in VIDEO_SUFFIXES:
            return place
        raise


def _look_at(
    sources: list[Path] | FrameReader, front_end: FrontEnd, size: int, face: FaceChoice, progress: Progress | None
) -> tuple[list[Candidate], list[str]]:
    from ffavatar.photo import read_photo

    candidates: list[Candidate] = []
    if isinstance(sources, FrameReader):
        step = max((sources.count or 0) / VIDEO_SAMPLES, 1.0)
        for index, frame in enumerate(sources):
            if index >= len(candidates) * step and len(candidates) < VIDEO_SAMPLES:
                candidates.append(_candidate(frame.image, f"frame {index}", front_end, size, face))
                if progress is not None:
                    progress(len(candidates), VIDEO_SAMPLES if step > 1 else sources.count)
        return candidates, sources.notes
    for index, path in enumerate(sources):
        try:
            candidates.append(_candidate(read_photo(path), str(path), front_end, size, face))
        except InputError as error:
            candidates.append(Candidate(str(path), None, str(error)))
        if progress is not None:
            progress(index + 1, len(sources))
    return candidates, []


def _candidate(image: np.ndarray, name: str, front_end: FrontEnd, size: int, face: FaceChoice) -> Candidate:
    result = front_end.analyse(image, name, face, size)
    return Candidate(name, result.views, result.report.reason or " ".join(result.report.notes), result.report)


def _nothing_usable(candidates: list[Candidate], film: Path | None) -> str:
    first = candidates[0]
    reason = first.reason if first.name in first.reason else f"{first.name}: {first.reason}"
    if film is not None:
        return f"{film}: none of the {len(candidates)} frames looked at can be used; the first: {reason}"
    if len(candidates) == 1:
        return reason
    return f"None of the {len(candidates)} photos can be used; the first: {reason}"


def _refuse_strangers(
    candidates: list[Candidate], embed: Embed, avatar: Tensor | None
) -> tuple[list[Candidate], dict[int, list[str]]]:
    """Compare each photo with the avatar, if there is one, and then with the photo that is most like all others.

    A photo is as like the avatar as the best of the photos that surely show its person: one of another light or age
    alone may be little like it. Returns the candidates, strangers refused, and sentences by number for those that are
    not surely the same person.
    """
    usable = [i for i, c in enumerate(candidates) if c.usable]
    if len(usable) < 2 and avatar is None:
        return candidates, {}
    faces = embed(Views.cat([views for c in candidates if (views := c.views) is not None]))
    checked, doubts = list(candidates), dict[int, list[str]]()
    rows = list(range(len(usable)))

    def compare(cosines: Tensor, least: float, other: str, where: str = "") -> list[int]:
        """The rows that stay."""
        for row in rows:
            index, likeness = usable[row], float(cosines[row])
            if likeness < least:
                reason = f"seems to be another person than {where}{other} (likeness {likeness:.2f})"
                checked[index] = replace(candidates[index], views=None, reason=reason)
            elif likeness < SURELY_SAME:
                name = candidates[index].name
                doubt = f"{name}: likeness {likeness:.2f} to {other}: check that it is the same person."
                doubts.setdefault(index, []).append(doubt)
        return [row for row in rows if checked[usable[row]].usable]

    if avatar is not None:
        cosines = (faces @ avatar.to(faces)).expand(len(faces), -1)
        cosines = cosines.where(faces @ faces.T >= SURELY_SAME, -1.0).amax(1)
        rows = compare(cosines, SAME_AS_AVATAR, "the avatar")
        if not rows:
            raise StrangersError(
                f"None of the photos that can be used seems to show the avatar's person (likeness "
                f"{float(cosines.max()):.2f} at most); give photos of the person that the avatar was made from."
            )
    if len(rows) > 1:
        among = faces[rows] @ faces[rows].T
        centre = rows[int(among.median(0).values.argmax())]
        compare(faces @ faces[centre], SAME_PERSON, candidates[usable[centre]].name, "in ")
    return checked, doubts


def _spread(candidates: list[Candidate], most: int, must: int | None = None) -> set[int]:
    """First the one that must be and a sharp frontal view, then always the one farthest in direction from those taken;
    blurred ones last."""
    usable = [i for i, c in enumerate(candidates) if c.usable]
    if len(usable) <= most:
        return set(usable)
    direction = {i: candidates[i].direction for i in usable}
    middle = max(float(np.median([candidates[i].sharpness for i in usable])), 1e-6)
    clear = {i: min(candidates[i].sharpness / middle, 1.5) for i in usable}
    frontal = max(usable, key=lambda i: clear[i] * math.exp(-float(np.abs(direction[i]).sum()) / 30))
    chosen = [frontal] if must not in usable else list(dict.fromkeys((must, frontal)))[:most]
    while len(chosen) < most:
        rest = [i for i in usable if i not in chosen]

        def gain(i: int) -> float:
            nearest = min(float(np.hypot(*(direction[i] - direction[j]))) for j in chosen)
            return (nearest + 2.0) * clear[i]  # 2 degrees: alike views are told apart by sharpness

        chosen.append(max(rest, key=gain))
    return set(chosen)


def _explained(candidate: Candidate, kept: bool, most: int) -> Candidate:
    if kept or not candidate.usable:
        return candidate
    return replace(candidate, reason=f"usable, but {most} views that are sharper or farther apart were taken")
