"""The queue: jobs that wait, one running on each device, what becomes of them, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict

from ffavatar.serve.child import Child
from ffavatar.serve.messages import AvatarMade, Cancel, Cancelled, Done, Failed, Message, Ready, Stage
from ffavatar.serve.metrics import Metrics
from ffavatar.serve.problems import Problem, busy, unknown
from ffavatar.serve.records import Job, JobRequest, Kind, ReconstructRequest, State, now, shown_name
from ffavatar.serve.settings import Settings
from ffavatar.serve.store import JobEntry, Store, check_space, new_id
from ffavatar.serve.tasks import BASE_FILE, check_request, note_refinement, same_request, task_of
from ffavatar.serve.work import Work

log = logging.getLogger("ffavatar.serve")
MOST_ATTEMPTS = 2  # a job during which the server died is tried once more
_EVENTS_EVERY_S = 0.2  # progress within a stage
_START_S = 180.0  # to load the networks on a busy machine
_SETTLE_S = 600.0  # after a job's end, for which clients may still take up its events one by one
_NO_WORKER = "No worker could be started; see the server's messages and try again."


class Jobs:
    """All jobs of one server. Everything but the waiting happens between two awaits, so nothing is seen half done."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.works: dict[str, Work] = {}
        self.queue: list[Work] = []
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()  # set while stopping: no time of grace for what runs
        self.device = settings.devices[0]
        self.metrics = Metrics(store, self._tally, lambda: len(self.queue))
        self._settings, self._store = settings, store
        self._keys: dict[str, str] = {}
        self._news = asyncio.Event()
        self._running: set[Work] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._lasted: deque[float] = deque([10.0], maxlen=10)  # seconds of the latest jobs
        for entry in store.read_jobs():
            self._take_up(entry)

    def _tally(self) -> Iterator[tuple[Kind, State]]:
        return ((work.entry.kind, work.entry.state) for work in self.works.values())

    def _take_up(self, entry: JobEntry) -> None:
        """A job of an earlier run of the server."""
        work = Work(entry)
        self.works[entry.id] = work
        if entry.key is not None:
            self._keys[entry.key] = entry.id
        if work.ended:
            work.over.set()
            self._tell(work, end=True)
        elif entry.attempts < MOST_ATTEMPTS:
            entry.state = "queued"
            self.queue.append(work)
        else:
            self._finish(work, "failed", "The server stopped twice while it ran; try it with fewer or smaller files.")

    # what the routes ask for

    def get(self, name: str) -> Work:
        """Raises ``Problem`` 404."""
        if name not in self.works:
            raise unknown("job", name)
        return self.works[name]

    def view(self, work: Work) -> Job:
        """As the interface shows it."""
        entry = work.entry
        return Job(
            id=entry.id,
            kind=entry.kind,
            state=entry.state,
            position=self.queue.index(work) + 1 if work in self.queue else None,
            stage=work.stage,
            done=work.done,
            total=work.total,
            seconds_left=work.seconds_left(),
            error=entry.error,
            avatar=entry.avatar if entry.avatar in self._store.avatars else None,
            files={name: f"/api/files/{entry.id}/{name}" for name in entry.files},
            notes=entry.notes,
            created=entry.created,
            finished=entry.finished,
        )

    def create(self, request: JobRequest, key: str | None) -> tuple[Work, bool]:
        """A new job, or the one that the same key made before, and whether it is new.

        Raises ``Problem``: 404, 409, 422, 503, 507.
        """
        values = asdict(request)
        digest = hashlib.sha256(key.encode()).hexdigest() if key is not None else None
        if digest is not None and digest in self._keys:
            work = self.works[self._keys[digest]]
            if not same_request(work.entry.request, request):
                raise Problem(409, "This Idempotency-Key was used with another request; send a new key.")
            return work, False
        check_request(request, self._store, self._settings.limits)
        if self.stopping.is_set():
            raise busy("The server is stopping", 10)
        if len(self.queue) >= self._settings.limits.queue:
            raise busy(f"{len(self.queue)} jobs wait already", min(60.0, sum(self._lasted) / len(self._lasted)))
        check_space(self._store, self._settings.limits.free_bytes)
        avatar = new_id() if isinstance(request, ReconstructRequest) else request.avatar
        entry = JobEntry(new_id(), request.kind, values, "queued", now(), avatar, key=digest)
        self._store.save_job(entry)
        work = Work(entry)
        self.works[entry.id] = work
        if digest is not None:
            self._keys[digest] = entry.id
        self.queue.append(work)
        self._tell(work)
        self._wake()
        return work, True

    async def cancel(self, name: str) -> None:
        """End a job and wait until it has ended. Does nothing to one that has."""
        work = self.get(name)
        if work in self.queue:
            self.queue.remove(work)
            self._finish(work, "cancelled")
            self._tell_waiting()
        elif not work.ended and not work.cancelling:
            work.cancelling = True
            if work.child is None:  # its process is still being started
                self._finish(work, "cancelled")
            else:
                work.child.send(Cancel(name))
                try:
                    await asyncio.wait_for(asyncio.shield(work.over.wait()), self._settings.cancel_s)
                except TimeoutError:
                    if work.child is not None:
                        await work.child.end()
        await work.over.wait()

    async def forget(self, name: str) -> None:
        """Cancel a job and remove it with its results."""
        await self.cancel(name)
        work = self.works.pop(name, None)
        if work is not None:
            if work.entry.key is not None:
                self._keys.pop(work.entry.key, None)
            self._store.delete("jobs", name)

    async def forget_avatar(self, avatar: str) -> None:
        """End and remove all that has to do with an avatar, and the avatar itself."""
        for name in [work.entry.id for work in self.works.values() if work.entry.avatar == avatar]:
            if name in self.works:
                await self.forget(name)
        self._store.delete_avatar(avatar)

    def results_of(self, avatar: str) -> dict[str, str]:
        """Addresses of the files made from an avatar; of several with one name, the newest."""
        found: dict[str, str] = {}
        for work in self.works.values():
            if work.entry.avatar == avatar and work.entry.state == "done":
                found |= self.view(work).files
        return found

    def in_use(self, upload: str) -> bool:
        """Whether a job that has not ended reads a photo or film."""
        return any(not work.ended and upload in work.uploads() for work in self.works.values())

    # the life of the server

    def start(self) -> None:
        """Begin to work: one loop for each device."""
        self._tasks = [asyncio.create_task(self._serve(device)) for device in self._settings.devices]

    async def stop(self) -> None:
        """Let running jobs end within the time of grace; set aside what is left for the next start."""
        self.stopping.set()
        self._wake()
        if self._tasks:
            ends = [asyncio.ensure_future(asyncio.wait(self._tasks)), asyncio.ensure_future(self.hurry.wait())]
            await asyncio.wait(ends, timeout=self._settings.grace_s, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            for work in list(self._running):
                if work.child is not None:
                    await work.child.end()
            if late := [task for task in self._tasks if not task.done()]:
                await asyncio.wait(late, timeout=5.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tidy(self) -> None:
        """Remove uploads and results whose time is over."""
        for kind, name in list(self._store.old_uploads(self._settings.keep_uploads_s)):
            if not self.in_use(name):
                self._store.delete(kind, name)
        ended = [work for work in self.works.values() if work.ended]
        for work in ended:
            if time.monotonic() - work.told > _SETTLE_S:
                work.events.settle()
        for work in ended[: max(0, len(ended) - self._settings.limits.jobs_kept)]:
            await self.forget(work.entry.id)
        for work in ended:
            place = self._store.job_folder(work.entry.id) / "job.json"
            with contextlib.suppress(OSError):
                if time.time() - place.stat().st_mtime > self._settings.keep_results_s:
                    await self.forget(work.entry.id)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # one device

    async def _serve(self, device: str) -> None:
        """Take one job after the other; the process with the model stays warm between them."""
        child: Child | None = None
        try:
            child = await self._ready(None, device)
            while not self.stopping.is_set():
                news = self._news
                work = self._next()
                if work is None:
                    await news.wait()
                    continue
                child = await self._perform(work, child, device)
        finally:
            if child is not None:
                await child.end()

    async def _ready(self, child: Child | None, device: str) -> Child | None:
        """A process with the model loaded; None where none can be had."""
        if child is not None and child.running:
            return child
        name, _, number = device.partition(":")
        options = ["--device", name, "--memory", str(self._settings.limits.job_bytes)]
        if self._settings.weights is not None:
            options += ["--weights", str(self._settings.weights)]
        environment = {"CUDA_VISIBLE_DEVICES": number} if number else {}
        try:
            child = await Child.start([*self._settings.worker, *options], environment)
        except OSError:
            log.exception("a worker cannot be started")
            return None
        said: Message | None = None
        try:
            said = await asyncio.wait_for(child.receive(), _START_S)
        except TimeoutError:
            log.error("a worker for %s does not answer", device)
        finally:
            if not isinstance(said, Ready):
                await child.end()
        if not isinstance(said, Ready):
            return None
        self.device = said.device
        return child

    def _next(self) -> Work | None:
        """The first job that can begin: of those that change one avatar, one at a time."""
        changing = {w.entry.avatar for w in self._running if w.entry.kind in ("reconstruct", "personalize")}
        for work in self.queue:
            if work.entry.kind != "personalize" or work.entry.avatar not in changing:
                self.queue.remove(work)
                return work
        return None

    async def _perform(self, work: Work, child: Child | None, device: str) -> Child | None:
        """One job from its start to its end, whatever happens. Returns the process for the next one."""
        began = time.monotonic()
        settled = False  # the worker itself said how it ended
        self._running.add(work)
        try:
            work.entry.state = "running"
            work.entry.attempts += 1
            self._enter(work, Stage("loading the networks" if child is None or not child.running else "starting"))
            self._store.save_job(work.entry)
            self._tell_waiting()
            warm = child
            child = await self._ready(child, device)
            fresh = child is not warm
            if child is None:
                self._finish(work, "failed", _NO_WORKER)
                return None
            if work.ended:  # cancelled meanwhile
                return child
            work.child = child
            child.send(task_of(work.entry, self._store, self._settings))
            heard = fresh
            while not work.ended:
                left = began + self._settings.limits.job_s - time.monotonic()
                message = await asyncio.wait_for(child.receive(), left)
                if message is not None:
                    self._hear(work, message)
                elif heard or work.cancelling or self.stopping.is_set():
                    self._died(work)
                    return None
                else:  # it had died before the job began
                    child = await self._ready(None, device)
                    if child is None:
                        self._finish(work, "failed", _NO_WORKER)
                        return None
                    work.child = child
                    child.send(task_of(work.entry, self._store, self._settings))
                heard = True
            settled = True
        except TimeoutError:
            self._finish(
                work, "failed", f"It took longer than {self._settings.limits.job_s / 60:.0f} minutes; try less."
            )
        except Problem as problem:
            self._finish(work, "failed", problem.detail)
        except OSError as error:
            log.exception("job %s", work.entry.id)
            full = "The disk is full; delete avatars or files that are no longer needed."
            self._finish(work, "failed", full if error.errno == errno.ENOSPC else f"The disk fails: {error.strerror}.")
        except Exception:
            log.exception("job %s", work.entry.id)
            self._finish(work, "failed", "The server made a mistake; see its messages.")
        finally:
            work.child = None
            self._running.discard(work)
            self._wake()  # for what waited for the same avatar
        if work.entry.state == "done":
            self._lasted.append(time.monotonic() - began)
            return child
        if child is not None and not settled:
            await child.end()  # nobody knows what it is doing
        return child

    def _died(self, work: Work) -> None:
        """The worker's process ended under a job."""
        self.metrics.children.labels("worker").inc()
        if work.cancelling:
            self._finish(work, "cancelled")
        elif self.stopping.is_set():
            work.entry.state = "queued"
            work.entry.attempts -= 1  # not its fault
            self._store.save_job(work.entry)
            work.over.set()
        else:
            self._finish(
                work, "failed", "Its process ended, perhaps for lack of memory; try fewer photos or a shorter film."
            )

    def _hear(self, work: Work, message: Message) -> None:
        """What a worker says about its job."""
        if isinstance(message, Stage):
            self._enter(work, message)
        elif isinstance(message, AvatarMade):
            if not work.cancelling:
                self._keep(work, message)
        elif isinstance(message, Done):
            folder = self._store.job_folder(work.entry.id)
            work.entry.files = [name for name in message.files if (folder / name).is_file()]
            work.entry.notes = list(message.notes)
            self._finish(work, "done")
        elif isinstance(message, Failed):
            if not message.theirs:
                log.error("job %s: %s", work.entry.id, message.reason)
            self._finish(work, "failed", message.reason)
        elif isinstance(message, Cancelled):
            self._finish(work, "cancelled")

    def _enter(self, work: Work, stage: Stage) -> None:
        moment = time.monotonic()
        fresh = stage.name != work.stage
        if fresh:
            self._leave(work)
            work.stage, work.stage_began, work.paced = stage.name, moment, (moment, 0)
        if stage.done and not work.paced[1]:
            work.paced = (moment, stage.done)
        work.done, work.total = stage.done, stage.total
        if fresh or moment - work.told > _EVENTS_EVERY_S:
            self._tell(work)

    def _leave(self, work: Work) -> None:
        if work.stage is not None:
            lasted = time.monotonic() - work.stage_began
            self.metrics.stages.labels(work.entry.kind, work.stage).observe(lasted)

    def _keep(self, work: Work, made: AvatarMade) -> None:
        """A new avatar or a newer state of one."""
        name, entry = work.entry.avatar, work.entry
        if name in self._store.avatars:
            avatar = self._store.refine_avatar(name, made)
        elif entry.kind == "reconstruct":
            given = entry.request.get("name") or ""
            avatar = self._store.add_avatar(name, shown_name(given) or f"Avatar {entry.created[:10]}", made)
            if entry.request.get("personalize"):
                self._store.borrow(name, self._store.job_folder(entry.id) / BASE_FILE)
        else:
            return  # deleted meanwhile
        url = f"/api/avatars/{name}/container?version={avatar.version}"
        work.events.add("avatar", {"avatar": name, "version": avatar.version, "url": url})
        self._tell(work)

    def _finish(self, work: Work, state: State, error: str | None = None) -> None:
        """The end of a job: written to disk first, then told."""
        entry = work.entry
        if work.ended:
            return
        if entry.state == "running":
            self._leave(work)
        entry.state, entry.error, entry.finished = state, error, now()
        try:
            note_refinement(entry, self._store)
            for path in self._store.job_folder(entry.id).iterdir():
                if path.is_file() and path.name not in ("job.json", *entry.files):
                    path.unlink(missing_ok=True)
            self._store.save_job(entry)
        except OSError:
            log.exception("the record of job %s cannot be written", entry.id)
        work.over.set()
        self.metrics.jobs_ended.labels(entry.kind, state).inc()
        self._tell(work, end=True)

    def _tell(self, work: Work, end: bool = False) -> None:
        """Send how a job stands to all who follow it."""
        state = asdict(self.view(work))
        work.told = time.monotonic()
        work.events.add("job", state)
        if end:
            work.events.add("end", state)

    def _tell_waiting(self) -> None:
        for work in self.queue:
            self._tell(work)
