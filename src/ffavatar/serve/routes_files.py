"""Routes for avatars, the session cookie, and the page itself."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of functions that are made in a function.

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ffavatar.serve.guard import COOKIE, session_secret
from ffavatar.serve.parts import Parts
from ffavatar.serve.problems import Problem, unknown
from ffavatar.serve.records import About, AboutLimits, Avatar, AvatarChange, Avatars
from ffavatar.serve.tasks import checked_name

if TYPE_CHECKING:
    from fastapi import FastAPI

PAGE = Path(__file__).resolve().parent / "page"
_PLAIN = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>FFAvatar</title>
<h1>FFAvatar</h1><p>This server was installed without its page. Programs find the interface described in
<a href="/openapi.json">/openapi.json</a>.</p></html>"""
_CONTAINER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"description": "Part"},
    304: {"description": "Unchanged"},
}


def add_file_routes(app: "FastAPI", parts: Parts) -> None:
    """Add them to the application."""
    from fastapi import Query, Request, Response

    from ffavatar import __version__
    from ffavatar.serve.sending import send_file
    from ffavatar.viewer import BUNDLE

    settings, store, jobs = parts.settings, parts.store, parts.jobs
    webcam = _files_below(settings.webcam or settings.folder / "webcam")

    @app.get("/api/about", tags=["server"])
    async def about() -> About:
        """What this server is and takes."""
        limits = settings.limits
        shown = AboutLimits(
            limits.photos, limits.photo_bytes, limits.photo_pixels, limits.film_bytes, limits.film_seconds,
            limits.motion_bytes, limits.queue,
        )  # fmt: skip
        heic = find_spec("pillow_heif") is not None  # asked for, not loaded: the checker alone opens photos
        seen = "vision_bundle.mjs" in webcam
        return About(__version__, jobs.device, shown, personalize=True, webcam=seen, heic=heic)

    @app.post("/api/session", tags=["server"], status_code=204, response_class=Response)
    async def open_session(request: Request) -> Response:
        """A cookie in place of the token, for what a browser fetches without headers; send the token as bearer."""
        response = Response(status_code=204)
        if settings.token is not None:
            secret = session_secret(settings.token)
            safe = request.headers.get("origin", "").startswith("https://")
            response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=safe, path="/")
        return response

    def view(name: str) -> Avatar:
        entry, container = store.avatars.get(name), store.container(name)
        if entry is None or container is None:
            raise unknown("avatar", name)
        url = f"/api/avatars/{name}"
        return Avatar(
            entry.id, entry.name, entry.created, entry.version, entry.gaussians, entry.personalized,
            entry.note,
            f"{url}/thumbnail", f"{url}/container?version={entry.version}", container.stat().st_size,
            jobs.results_of(name),
        )  # fmt: skip

    @app.get("/api/avatars", tags=["avatars"])
    async def list_avatars() -> Avatars:
        """All avatars, the newest first."""
        names = sorted(store.avatars, key=lambda name: store.avatars[name].created, reverse=True)
        return Avatars([view(name) for name in names if store.container(name) is not None])

    @app.get("/api/avatars/{id}", tags=["avatars"])
    async def get_avatar(id: str) -> Avatar:
        """One avatar."""
        return view(id)

    @app.patch("/api/avatars/{id}", tags=["avatars"])
    async def rename_avatar(id: str, change: AvatarChange) -> Avatar:
        """Give an avatar another name."""
        view(id)
        store.rename_avatar(id, checked_name(change.name))
        return view(id)

    @app.delete("/api/avatars/{id}", tags=["avatars"], status_code=204)
    async def delete_avatar(id: str) -> None:
        """Delete an avatar with all that was made from it; jobs that use it are cancelled."""
        view(id)
        await jobs.forget_avatar(id)

    @app.get("/api/avatars/{id}/container", tags=["avatars"], response_class=Response, responses=_CONTAINER)
    @app.head("/api/avatars/{id}/container", include_in_schema=False)
    async def get_container(
        request: Request, id: str, version: Annotated[int | None, Query(ge=1, le=10**9)] = None
    ) -> Response:
        """The avatar's file (docs/container.md), by default its newest version; range requests are answered."""
        avatar = view(id)
        path = store.container(id, version)
        if path is None:
            raise Problem(404, f"Version {version} of this avatar is gone; fetch the newest, {avatar.version}.")
        cache = "private, no-cache" if version is None else "private, max-age=31536000, immutable"
        return send_file(request, path, tag=f"{id}-{version or avatar.version}", cache=cache)

    @app.get("/api/avatars/{id}/thumbnail", tags=["avatars"], response_class=Response)
    async def get_thumbnail(request: Request, id: str) -> Response:
        """A picture of the avatar, webp, 256 pixels."""
        view(id)
        return send_file(request, store.thumbnail(id), "image/webp", cache="private, no-cache")

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        index = PAGE / "index.html"
        if index.is_file():
            return send_file(request, index)
        return Response(_PLAIN, media_type="text/html; charset=utf-8")

    assets = {name: path for name, path in _files_below(PAGE).items() if name != "index.html"}

    @app.get("/assets/{name:path}", include_in_schema=False)
    @app.head("/assets/{name:path}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        return send_file(request, _listed(assets, name))

    @app.get("/viewer/ff-avatar.js", include_in_schema=False)
    @app.head("/viewer/ff-avatar.js", include_in_schema=False)
    async def viewer(request: Request) -> Response:
        return send_file(request, BUNDLE)

    @app.get("/webcam/{name:path}", include_in_schema=False)
    @app.head("/webcam/{name:path}", include_in_schema=False)
    async def webcam_file(request: Request, name: str) -> Response:
        return send_file(request, _listed(webcam, name))


def _files_below(folder: Path) -> dict[str, Path]:
    """Files of a folder by their names relative to it: only what is in this table is ever sent."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _listed(files: dict[str, Path], name: str) -> Path:
    if name not in files:
        raise unknown("file", name.rsplit("/", 1)[-1])
    return files[name]
