"""Routes for jobs, what happens to them and what they made."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of functions that are made in a function.

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Annotated, Any

from ffavatar.serve.parts import Parts
from ffavatar.serve.problems import Problem, busy, unknown
from ffavatar.serve.records import Job, JobRequest, title_of
from ffavatar.serve.store import IDS

if TYPE_CHECKING:
    from fastapi import FastAPI

_LONGEST_KEY = 200
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "Events `job` and `end` carry the job as JSON, `avatar` carries {avatar, version, url}.",
    }
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"description": "Part"},
}


def add_job_routes(app: "FastAPI", parts: Parts) -> None:
    """Add them to the application."""
    from fastapi import Body, Header, Request, Response
    from fastapi.responses import StreamingResponse

    from ffavatar.serve.sending import send_file

    jobs, store, limits = parts.jobs, parts.store, parts.settings.limits
    streams = jobs.metrics.streams
    open_streams = 0

    class Events(StreamingResponse):
        """Counts itself, and closes its source however it ends."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            nonlocal open_streams
            open_streams += 1
            streams.set(open_streams)
            try:
                await super().__call__(scope, receive, send)
            finally:
                open_streams -= 1
                streams.set(open_streams)
                source = self.body_iterator
                if isinstance(source, AsyncGenerator):
                    await source.aclose()

    @app.post("/api/jobs", tags=["jobs"], status_code=201, responses={200: {"model": Job}})
    async def create_job(
        response: Response,
        asked: Annotated[JobRequest, Body(discriminator="kind")],
        idempotency_key: Annotated[str | None, Header(max_length=_LONGEST_KEY, min_length=1)] = None,
    ) -> Job:
        """Create a job. The same `Idempotency-Key` with the same body gives the same job, however often it is sent."""
        work, new = jobs.create(asked, idempotency_key)
        response.headers["Location"] = f"/api/jobs/{work.entry.id}"
        response.status_code = 201 if new else 200
        return jobs.view(work)

    @app.get("/api/jobs/{id}", tags=["jobs"])
    async def get_job(id: str) -> Job:
        """How a job stands."""
        return jobs.view(jobs.get(id))

    @app.delete("/api/jobs/{id}", tags=["jobs"], status_code=204)
    async def cancel_job(id: str) -> None:
        """Cancel a job; it has ended when the answer comes. An avatar that it has already made stays."""
        await jobs.cancel(id)

    @app.get("/api/jobs/{id}/events", tags=["jobs"], response_class=StreamingResponse, responses=_EVENTS)
    async def follow_job(id: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
        """What happens to a job, as server-sent events; `Last-Event-ID` goes on where a connection was lost.

        204 where the job has ended and the client has seen its end.
        """
        work = jobs.get(id)
        if open_streams >= limits.streams:
            raise busy("Too many clients follow jobs", 5)
        seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 12 else None
        if work.events.ended and seen is not None and not work.events.after(seen):
            return Response(status_code=204)  # tells a browser's EventSource not to come again
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        source = work.events.follow(seen, jobs.stopping)
        return Events(source, media_type="text/event-stream", headers=headers)

    @app.get("/api/files/{job}/{name}", tags=["jobs"], response_class=Response, responses=_FILE)
    @app.head("/api/files/{job}/{name}", include_in_schema=False)
    async def get_file(request: Request, job: str, name: str) -> Response:
        """A file that a job made; range requests are answered."""
        entry = jobs.get(job).entry
        if name not in entry.files or not IDS["jobs"].fullmatch(entry.id):
            raise unknown("file", name)
        avatar = store.avatars.get(entry.avatar)
        title = title_of(avatar.name) if avatar is not None else "avatar"
        shown = f"{title}.{name.partition('.')[2]}"
        return send_file(request, store.job_folder(entry.id) / name, name=shown, cache="private, no-cache")

    @app.delete("/api/files/{job}", tags=["jobs"], status_code=204)
    async def delete_files(job: str) -> None:
        """Delete what an ended job made, and its record. Avatars stay."""
        if not jobs.get(job).ended:
            raise Problem(409, "The job has not ended; cancel it first.")
        if jobs.in_use(job):
            raise Problem(409, "Another job still needs its motion; cancel that job first.")
        await jobs.forget(job)
