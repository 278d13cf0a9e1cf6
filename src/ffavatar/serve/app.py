"""The HTTP interface. Each route is a few lines over ``Jobs``, ``Checks`` and ``Store``; docs/serve.md lists them."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of functions that are made in a function.

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from ffavatar.errors import InputError
from ffavatar.serve.checks import Checks
from ffavatar.serve.guard import Guard
from ffavatar.serve.jobs import Jobs
from ffavatar.serve.parts import Parts
from ffavatar.serve.problems import JSON_TYPE, Problem
from ffavatar.serve.records import Health, ProblemDetails
from ffavatar.serve.settings import Settings
from ffavatar.serve.store import Store

log = logging.getLogger("ffavatar.serve")
DESCRIPTION = """Photos to an animatable 3D head avatar, over HTTP.

Upload photos, create a job, follow its events, fetch the avatar. Errors are RFC 9457 problem details. Where the server
asks for a token, send it as `Authorization: Bearer TOKEN`. 503 comes with `Retry-After`."""
_TIDY_S = 60.0  # at most, between two looks for what has grown old


def need_extra() -> None:
    """Raises ``InputError`` where the extra ``serve`` is not installed."""
    try:
        import fastapi
        import prometheus_client
        import python_multipart
        import uvicorn
    except ImportError as error:
        raise InputError(f"The server needs {error.name}: pip install 'ffavatar[serve]'.") from None
    del fastapi, prometheus_client, python_multipart, uvicorn


def create_app(settings: Settings) -> tuple[Guard, Parts]:
    """The application of one server, guarded, and its parts; it works while its lifespan lasts.

    Raises:
        InputError: the extra ``serve`` is not installed, or the folder cannot be used.
    """
    need_extra()
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.params import Security
    from fastapi.security import HTTPBearer
    from starlette.exceptions import HTTPException

    from ffavatar import __version__
    from ffavatar.serve.routes_files import add_file_routes
    from ffavatar.serve.routes_jobs import add_job_routes
    from ffavatar.serve.routes_uploads import add_upload_routes

    store = Store(settings.folder)
    jobs = Jobs(settings, store)
    parts = Parts(settings, store, jobs, Checks(settings, store, jobs.metrics))
    errors: dict[int | str, dict[str, Any]] = {"4XX": {"model": ProblemDetails}, "503": {"model": ProblemDetails}}
    app = FastAPI(
        title="FFAvatar", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None,
        lifespan=lambda app: _life(parts), responses=errors,
        dependencies=[Security(HTTPBearer(auto_error=False, description="where the server asks for a token"))],
    )  # fmt: skip

    def respond(problem: Problem) -> Response:
        return Response(problem.body(), problem.status, problem.headers, JSON_TYPE)

    @app.exception_handler(Problem)
    async def _problem(request: Request, problem: Problem) -> Response:
        return respond(problem)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        words = {404: "There is nothing at this address; see /openapi.json.", 405: "This address takes other methods."}
        detail = words.get(error.status_code, f"{error.detail}.")
        return respond(Problem(error.status_code, detail, dict(error.headers or {})))

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return respond(Problem(422, f"{where[:80]}: {str(first['msg'])[:200]}; see /openapi.json for what is taken."))

    @app.exception_handler(OSError)
    async def _disk(request: Request, error: OSError) -> Response:
        log.error("%s %s: %s", request.method, request.url.path, error)
        return respond(Problem(507, "The disk is full or fails; delete avatars that are no longer needed."))

    @app.exception_handler(Exception)
    async def _mistake(request: Request, error: Exception) -> Response:
        return respond(Problem(500, "The server made a mistake; see its messages."))

    @app.get("/healthz", tags=["server"])
    async def healthz() -> Health:
        """Whether the server answers."""
        return Health("ok")

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(jobs.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    add_upload_routes(app, parts)
    add_job_routes(app, parts)
    add_file_routes(app, parts)
    return Guard(app, settings, jobs.metrics), parts


@contextlib.asynccontextmanager
async def _life(parts: Parts) -> AsyncIterator[None]:
    """From the start of the server to its end."""
    tasks = [asyncio.create_task(_keep_tidy(parts)), asyncio.create_task(_warm(parts.checks))]
    parts.jobs.start()
    try:
        yield
    finally:
        await parts.jobs.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.checks.stop()
        parts.store.close()


async def _warm(checks: Checks) -> None:
    try:
        await checks.start()
    except (Problem, OSError, TimeoutError):
        log.exception("the process that looks at uploads does not start")


async def _keep_tidy(parts: Parts) -> None:
    while True:
        try:
            await parts.jobs.tidy()
        except OSError:
            log.exception("old files cannot be removed")
        await asyncio.sleep(min(_TIDY_S, parts.settings.keep_uploads_s / 4))
