"""The child process that does the jobs, with the model in memory: ``python -m ffavatar.serve.worker --device cpu ...``.

It reads a ``Task`` at a time and answers with stages, avatars and an end. A cancelled job ends at its next report of
progress; where none comes soon, the server kills the process and starts another.
"""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffavatar.errors import InputError
from ffavatar.serve.checker import VIEWS_FILE
from ffavatar.serve.inside import Line, limit_memory
from ffavatar.serve.messages import AvatarMade, Cancel, Cancelled, Done, Failed, Message, Ready, Stage, Task

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.choose import Candidate, Embed
    from ffavatar.model import FFAvatar
    from ffavatar.photo import FrontEnd
    from ffavatar.types import Views

THUMBNAIL_PX = 256
_MOST_FPS = 120  # a film whose header lies about its length is given up after this many frames for each second allowed


class JobCancelledError(Exception):
    """The job was told to end."""


class Desk:
    """The line to the server with the job at hand."""

    def __init__(self) -> None:
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._job = ""
        self.line = Line(self._at_once)

    def _at_once(self, message: Message) -> bool:
        if isinstance(message, Cancel):
            with self._lock:
                self._cancelled.add(message.job)
        return isinstance(message, Cancel)

    def begin(self) -> Task:
        """Wait for the next job."""
        while True:
            message = self.line.next()
            if isinstance(message, Task):
                self._job = message.job
                return message

    def stage(self, name: str, done: int = 0, total: int | None = 0) -> None:
        """Say where the job is. Raises ``JobCancelledError`` where it is no longer wanted."""
        with self._lock:
            if self._job in self._cancelled:
                self._cancelled.discard(self._job)
                raise JobCancelledError
        self.line.send(Stage(name, done, max(total or 0, done) if total else 0))


@dataclass(frozen=True)
class Tools:
    """What stays in memory between jobs."""

    device: str
    model: FFAvatar
    front_end: FrontEnd


def main() -> None:
    """Work until the server goes away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--memory", type=int, required=True)
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    desk = Desk()
    from ffavatar.api import choose_device, model_for
    from ffavatar.photo import FrontEnd

    place = choose_device(given.device)
    tools = Tools(place, model_for(given.weights, place), FrontEnd(place))
    if place == "cpu":  # drivers of GPUs map more address space than there is memory
        limit_memory(given.memory)
    desk.line.send(Ready(place))
    while True:
        task = desk.begin()
        desk.line.send(perform(task, tools, desk))


def perform(task: Task, tools: Tools, desk: Desk) -> Done | Failed | Cancelled:
    """One job; its end, whatever it is."""
    try:
        return _KINDS[task.kind](task, tools, desk)
    except JobCancelledError:
        return Cancelled()
    except InputError as error:
        return Failed(str(error).replace(f"{task.folder}/", "").replace(task.film or "\0", "the film"), theirs=True)
    except MemoryError:
        return Failed("There is not enough memory for it; try fewer photos or a shorter film.", theirs=False)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return Failed("The disk is full; delete avatars or files that are no longer needed.", theirs=False)
        traceback.print_exc(file=sys.stderr)
        return Failed(f"A file could not be read or written ({error.strerror}); try again.", theirs=False)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return Failed(f"An unexpected {type(error).__name__} ended it; see the server's messages.", theirs=False)


def _reconstruct(task: Task, tools: Tools, desk: Desk) -> Done:
    if task.container:  # an earlier attempt made the avatar
        return _personalize(task, tools, desk) if task.personalize else Done()
    from ffavatar.avatar import Avatar
    from ffavatar.drive.choose import choose_among, look_notes
    from ffavatar.pipeline import reconstruct
    from ffavatar.types import Views

    candidates = _candidates(task, desk)
    desk.stage("choosing views", 0, 1)
    choice = choose_among(candidates, embed=_identity_embedding(tools.device), must=task.look)
    notes = [f"{photo.name}: {photo.reason}." for photo, kept in choice.rows if not kept] + [*choice.notes]
    like = None if task.look is None else choice.view_of(task.look)
    if task.look is not None and like is None:
        notes.append(f"Hair and clothes could not be those of {candidates[task.look].name}, which was left out.")
    desk.stage("reconstructing", 0, 1)
    avatar = reconstruct(tools.model, choice.views.to(tools.device), like=like)
    notes += look_notes(choice, avatar, like)
    desk.stage("reconstructing", 1, 1)
    path = _write(avatar, Path(task.folder))
    # what a later attempt would find: its checkpoint must fit
    stored = Avatar.load(path).to(tools.device) if task.personalize else avatar
    _hand_over(stored, path, desk, personalized=False)
    if task.personalize:
        views = [photo.views for photo, _ in choice.rows if photo.views is not None]  # without those of strangers
        notes += _refine(stored, Views.cat(views), task, tools, desk)
    return Done((), tuple(notes))


def _personalize(task: Task, tools: Tools, desk: Desk) -> Done:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.choose import choose_among
    from ffavatar.drive.likeness import avatar_embedding

    candidates, avatar = _candidates(task, desk), Avatar.load(task.container).to(tools.device)
    embed = _identity_embedding(tools.device)
    # an avatar that is refined right after it was made has had its photos compared
    whose = avatar_embedding(avatar, tools.front_end, embed) if embed is not None and not task.personalize else None
    choice = choose_among(candidates, len(candidates), embed, avatar=whose)
    notes = [f"{photo.name}: {photo.reason}." for photo, kept in choice.rows if not kept] + [*choice.notes]
    return Done((), (*notes, *_refine(avatar, choice.views, task, tools, desk)))


def _refine(avatar: Avatar, views: Views, task: Task, tools: Tools, desk: Desk) -> tuple[str, ...]:
    """Personalization, each of whose snapshots is handed over. Returns what the user must know of its end."""
    from ffavatar.evaluate.lpips import ALEX, load_lpips
    from ffavatar.personal import PersonalRecipe, personalize

    folder = Path(task.folder)
    net = load_lpips("alex", tools.device) if ALEX.path.is_file() else None

    def advance(done: int, total: int) -> None:
        desk.stage("personalizing", done, total)

    def snapshot(current: Avatar, step: int) -> None:
        _hand_over(current, _write(current, folder), desk, personalized=True)

    advance(0, task.steps)
    made = personalize(
        tools.model, avatar, views.to(tools.device), PersonalRecipe(steps=task.steps), advance,
        folder / "checkpoint.pt", net, on_snapshot=snapshot,
    )  # fmt: skip
    better = made.steps > 0 or "personalized" in avatar.about  # a photo held out may say that no step helped
    _hand_over(made.avatar, _write(made.avatar, folder), desk, personalized=better)
    if 0 < made.steps < task.steps:
        return (f"Refined in {made.steps} of at most {task.steps} steps: more did not help or could not be checked.",)
    return ()


def _drive(task: Task, tools: Tools, desk: Desk) -> Done:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.film import FilmStyle, estimate_motion, film_motion
    from ffavatar.drive.options import DriveOptions

    most = int(task.most_seconds * _MOST_FPS)

    def reading(done: int, total: int | None) -> None:
        if done > most:
            raise InputError(f"The film is longer than the {task.most_seconds:.0f} s that its header may say; cut it.")
        desk.stage("reading the film", done, total)

    def drawing(done: int, total: int | None) -> None:
        desk.stage("drawing", done, total)

    avatar = Avatar.load(task.container).to(tools.device)
    film, folder = Path(task.film), Path(task.folder)
    desk.stage("reading the film", 0, 0)
    motion, read = estimate_motion(tools.model, film, avatar, tools.front_end, progress=reading, own=task.same_person)
    motion.save(folder / "motion.json")
    options = DriveOptions(relative=task.relative, same_person=task.same_person)
    drawn = film_motion(avatar, motion, folder / "film.mp4", FilmStyle(task.size), drawing, options, film)
    notes = (note.replace(task.film, "the film") for note in (*read.notes, *drawn.notes))
    return Done(("film.mp4", "motion.json"), tuple(notes))


def _export(task: Task, tools: Tools, desk: Desk) -> Done:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.background import parse_background
    from ffavatar.drive.film import FilmStyle, film_motion
    from ffavatar.drive.motion import Motion
    from ffavatar.drive.pose import posed
    from ffavatar.export.formats import export, format_of
    from ffavatar.export.options import ExportOptions

    def drawing(done: int, total: int | None) -> None:
        desk.stage("drawing", done, total)

    desk.stage("writing", 0, 1)
    path = Path(task.folder) / task.name
    avatar = Avatar.load(task.container)
    colour, alpha = parse_background(task.background)
    style = FilmStyle(task.size, colour, alpha)
    motion = Motion.load(task.motion) if task.motion else None
    unknown = motion.unmatched(avatar.rig.head) if motion is not None else []
    notes = [f"This head knows no expression called {', '.join(unknown)}; left out."] if unknown else []
    if format_of(path).film and motion is not None:
        report = film_motion(avatar.to(tools.device), motion, path, style, drawing)
        return Done((task.name,), (*notes, *(note.replace(task.motion, "the motion") for note in report.notes)))
    pose = posed(avatar, task.turn_deg, task.expression) if any(task.turn_deg) or task.expression else None
    export(avatar, path, ExportOptions(pose, motion, task.frame, task.scale, task.allow_flame, style))
    desk.stage("writing", 1, 1)
    return Done((task.name,), tuple(notes))


_KINDS: dict[str, Any] = {
    "reconstruct": _reconstruct, "personalize": _personalize, "drive": _drive, "export": _export,
}  # fmt: skip


def _candidates(task: Task, desk: Desk) -> list[Candidate]:
    """The photos of a job as the checker left them."""
    import json

    from safetensors.torch import load_file

    from ffavatar.drive.choose import Candidate
    from ffavatar.photo import PhotoReport
    from ffavatar.types import Views

    found = []
    for number, place in enumerate(map(Path, task.photos)):
        desk.stage("reading photos", number, len(task.photos))
        report = json.loads((place / "photo.json").read_text(encoding="utf-8"))["report"]
        views = Views(**load_file(place / VIEWS_FILE))
        found.append(Candidate(report["name"], views, "", PhotoReport(**report)))
    desk.stage("reading photos", len(task.photos), len(task.photos))
    return found


def _identity_embedding(device: str) -> Embed | None:
    """The identity network if it is in the cache; it is not fetched for this."""
    from ffavatar.evaluate.identity import MOBILE_FACE_NET, load_identity

    if not MOBILE_FACE_NET.path.is_file():
        return None
    net = load_identity(device)
    return lambda views: net.embed(views.images.to(device), views.landmarks.to(device))


def _write(avatar: Avatar, folder: Path) -> Path:
    """The container of an avatar in a job's folder, under a new name."""
    path = folder / f"made-{secrets.token_hex(4)}.safetensors"
    avatar.save(path)
    return path


def _hand_over(avatar: Avatar, path: Path, desk: Desk, personalized: bool) -> None:
    """Tell the server of an avatar's container; it takes it away with the picture made here."""
    import numpy as np
    from PIL import Image

    pixels = (avatar.render(size=THUMBNAIL_PX).images[0].clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
    thumbnail = path.with_suffix(".webp")
    Image.fromarray(np.ascontiguousarray(pixels)).save(thumbnail, quality=90)
    desk.line.send(AvatarMade(str(path), len(avatar), personalized, str(thumbnail)))


if __name__ == "__main__":
    main()
