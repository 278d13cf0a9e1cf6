"""Asking the checker about uploads: one after the other, never for longer than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from dataclasses import replace
from typing import TypeVar

from ffavatar.serve.checker import CROP_FILE, MATTE_FILE, too_heavy
from ffavatar.serve.child import Child
from ffavatar.serve.messages import CheckFilm, CheckMotion, CheckPhoto, FilmVerdict, MotionVerdict, PhotoVerdict, Ready
from ffavatar.serve.metrics import Metrics
from ffavatar.serve.problems import Problem, busy
from ffavatar.serve.records import Film, MotionFile, Photo
from ffavatar.serve.settings import Settings
from ffavatar.serve.store import Store
from ffavatar.serve.uploads import Received

Verdict = TypeVar("Verdict", PhotoVerdict, FilmVerdict, MotionVerdict)
_START_S = 120.0  # to load torch on a busy machine
ID_LENGTH = 32


class Checks:
    """Holds the checker's process and what it said."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics) -> None:
        self._settings, self._store, self._metrics = settings, store, metrics
        self._turn = asyncio.Lock()
        self._child: Child | None = None
        self._waiting = 0

    async def start(self) -> None:
        """Have the checker ready."""
        async with self._turn:
            await self._ready()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.end()

    def claim(self, count: int) -> None:
        """Refuse, with 503, what would wait too long. Ask before an upload is read."""
        if self._waiting + count > self._settings.limits.checks:
            raise busy("Too many uploads wait to be looked at", 5)

    async def photo(self, received: Received, face: int = 0) -> Photo:
        """Judge a photo and keep the verdict. The same bytes get the same id."""
        name = f"{received.sha256[:ID_LENGTH]}-{face}"
        known = self._store.photo(name)
        if known is not None and known.photo.kept:  # a job may be reading it: nothing but the name changes
            photo = replace(known.photo, name=received.name)
            self._store.rename_photo(photo, known.report)
            self._metrics.uploads.labels("photo", "known").inc()
            return photo
        folder = self._store.incoming / f"views-{secrets.token_hex(8)}"
        limits = self._settings.limits
        asked = CheckPhoto(str(received.path), received.name, face, str(folder), limits.photo_pixels)
        try:
            said = await self._ask(asked, PhotoVerdict(False, too_heavy(received.name)))
            made = folder if said.kept and folder.is_dir() else None
            url = f"/api/photos/{name}"
            photo = Photo(
                name, received.name, said.kept, said.reason or None, said.width, said.height, said.faces,
                f"{url}/{CROP_FILE.split('.')[0]}" if made else None,
                f"{url}/{MATTE_FILE.split('.')[0]}" if made else None,
            )  # fmt: skip
            self._store.save_photo(photo, said.report, made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._metrics.uploads.labels("photo", "kept" if said.kept else "refused").inc()
        self._metrics.upload_bytes.labels("photo").inc(received.size)
        return photo

    async def film(self, received: Received) -> Film:
        """Look at a film and keep it. Raises ``Problem`` 422 with the reason where it cannot be used."""
        limits = self._settings.limits
        asked = CheckFilm(str(received.path), received.name, limits.film_seconds, limits.film_pixels)
        said = await self._ask(asked, FilmVerdict(too_heavy(received.name)))
        self._metrics.uploads.labels("film", "refused" if said.reason else "kept").inc()
        self._metrics.upload_bytes.labels("film").inc(received.size)
        if said.reason:
            raise Problem(422, said.reason)
        film = Film(received.sha256[:ID_LENGTH], received.name, said.seconds, said.width, said.height, said.fps)
        self._store.save_film(film, received.path)
        return film

    async def motion(self, received: Received) -> MotionFile:
        """Look at a motion and keep it. Raises ``Problem`` 422 with the reason where it cannot be used."""
        with received.path.open("rb") as file:
            packed = file.read(2) == b"PK"  # npz files are zip files
        received.path = received.path.rename(received.path.with_suffix(".npz" if packed else ".json"))
        asked = CheckMotion(str(received.path), received.name, self._settings.limits.film_seconds)
        said = await self._ask(asked, MotionVerdict(f"{received.name} takes too long to read: cut it shorter."))
        self._metrics.uploads.labels("motion", "refused" if said.reason else "kept").inc()
        self._metrics.upload_bytes.labels("motion").inc(received.size)
        if said.reason:
            raise Problem(422, said.reason)
        seconds = round(said.frames / said.fps, 3)
        motion = MotionFile(received.sha256[:ID_LENGTH], received.name, said.frames, round(said.fps, 4), seconds)
        self._store.save_motion(motion, received.path)
        return motion

    async def _ask(self, asked: CheckPhoto | CheckFilm | CheckMotion, instead: Verdict) -> Verdict:
        """The checker's verdict, or ``instead`` where it dies of the question or takes too long."""
        self._waiting += 1
        self._metrics.checks.set(self._waiting)
        try:
            async with self._turn:
                for _ in range(2):  # it may have died before, of nothing to do with this file
                    warm = self._child
                    child = await self._ready()
                    try:
                        child.send(asked)
                        said = await asyncio.wait_for(child.receive(), self._settings.limits.check_s)
                    except TimeoutError:
                        await self._lose()
                        break
                    except asyncio.CancelledError:
                        await self._lose()  # its answer would be taken for that to the next question
                        raise
                    if isinstance(said, type(instead)):
                        return said
                    await self._lose()
                    if child is not warm:
                        break
                return instead
        finally:
            self._waiting -= 1
            self._metrics.checks.set(self._waiting)

    async def _ready(self) -> Child:
        if self._child is not None and self._child.running:
            return self._child
        settings = self._settings
        child = await Child.start([*settings.checker, "--memory", str(settings.limits.check_bytes)])
        try:
            said = await asyncio.wait_for(child.receive(), _START_S)
        except BaseException:
            await child.end()
            raise
        if not isinstance(said, Ready):
            await child.end()
            raise busy("Uploads cannot be looked at just now", 10)
        self._child = child
        return child

    async def _lose(self) -> None:
        child, self._child = self._child, None
        self._metrics.children.labels("checker").inc()
        if child is not None:
            with contextlib.suppress(OSError):
                await asyncio.shield(child.end())
