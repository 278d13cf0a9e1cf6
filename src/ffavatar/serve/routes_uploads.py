"""Routes for what comes in: photos, films and motions."""

# No ``from __future__ import annotations``: FastAPI reads the annotations of functions that are made in a function.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ffavatar.serve.checker import CROP_FILE, MATTE_FILE
from ffavatar.serve.parts import Parts
from ffavatar.serve.problems import Problem, busy, unknown
from ffavatar.serve.records import Film, MotionFile, Photo, Photos
from ffavatar.serve.store import UPLOADS, check_space
from ffavatar.serve.uploads import discard, receive_files

if TYPE_CHECKING:
    from fastapi import FastAPI

_WEBP: dict[str, Any] = {"image/webp": {}}
_MOST_FACES = 99


def _form(field: str, many: bool) -> dict[str, Any]:
    """The OpenAPI description of a form that is read piece by piece."""
    file = {"type": "string", "format": "binary"}
    schema = {
        "type": "object",
        "required": [field],
        "properties": {field: {"type": "array", "items": file} if many else file},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def add_upload_routes(app: "FastAPI", parts: Parts) -> None:
    """Add them to the application."""
    from fastapi import Query, Request, Response

    from ffavatar.serve.sending import send_file

    store, checks, limits = parts.store, parts.checks, parts.settings.limits

    def check_room(request: Request) -> None:
        """Refuse an upload that there is no room for, before it is read."""
        checks.claim(1)
        announced = request.headers.get("content-length", "")
        check_space(store, limits.free_bytes + (int(announced[:15]) if announced.isdecimal() else 0))
        used = store.bytes_used()
        if sum(used[kind] for kind in UPLOADS) > limits.stored_bytes:
            raise busy("The room for uploads is full", 60)

    @app.post("/api/photos", tags=["uploads"], openapi_extra=_form("files", many=True))
    async def upload_photos(
        request: Request,
        face: Annotated[
            int, Query(ge=0, le=_MOST_FACES, description="Which of several people, counted from the largest face, 0.")
        ] = 0,
    ) -> Photos:
        """Upload photos; each is judged, and kept for a time if it can be used.

        The picture itself is deleted at once: what stays is the crop around the head.
        """
        check_room(request)
        received = await receive_files(
            request, "files", store.incoming, limits.photos, limits.photo_bytes, limits.pause_s
        )  # fmt: skip
        try:
            checks.claim(len(received))
            return Photos([await checks.photo(one, face) for one in received])
        finally:
            discard(received)

    @app.get("/api/photos/{id}", tags=["uploads"])
    async def get_photo(id: str) -> Photo:
        """What was found in a photo."""
        entry = store.photo(id)
        if entry is None:
            raise unknown("photo", id)
        return entry.photo

    def picture(id: str, name: str) -> Path:
        place = store.place("photos", id)
        if place is None or not (place / name).is_file():
            raise unknown("picture of photo", id)
        return place / name

    @app.get("/api/photos/{id}/crop", tags=["uploads"], response_class=Response, responses={200: {"content": _WEBP}})
    async def get_crop(request: Request, id: str) -> Response:
        """The crop around the head, 256 pixels."""
        return send_file(request, picture(id, CROP_FILE), "image/webp")

    @app.get("/api/photos/{id}/matte", tags=["uploads"], response_class=Response, responses={200: {"content": _WEBP}})
    async def get_matte(request: Request, id: str) -> Response:
        """The person's outline in the crop, grey, 256 pixels."""
        return send_file(request, picture(id, MATTE_FILE), "image/webp")

    def delete(kind: str, what: str, id: str) -> None:
        if parts.jobs.in_use(id):
            raise Problem(409, f"A job still needs this {what}; cancel the job first.")
        if not store.delete(kind, id):
            raise unknown(what, id)

    @app.delete("/api/photos/{id}", tags=["uploads"], status_code=204)
    async def delete_photo(id: str) -> None:
        """Delete a photo now."""
        delete("photos", "photo", id)

    @app.post("/api/films", tags=["uploads"], openapi_extra=_form("file", many=False))
    async def upload_film(request: Request) -> Film:
        """Upload a film whose face will drive an avatar; its sound is kept in what is made with it."""
        check_room(request)
        received = await receive_files(request, "file", store.incoming, 1, limits.film_bytes, limits.pause_s)
        try:
            return await checks.film(received[0])
        finally:
            discard(received)

    @app.get("/api/films/{id}", tags=["uploads"])
    async def get_film(id: str) -> Film:
        """What a film's header says."""
        film = store.film(id)
        if film is None:
            raise unknown("film", id)
        return film

    @app.delete("/api/films/{id}", tags=["uploads"], status_code=204)
    async def delete_film(id: str) -> None:
        """Delete a film now."""
        delete("films", "film", id)

    @app.post("/api/motions", tags=["uploads"], openapi_extra=_form("file", many=False))
    async def upload_motion(request: Request) -> MotionFile:
        """Upload a motion file (json or npz, as FFAvatar writes them) to export an avatar in it."""
        check_room(request)
        received = await receive_files(request, "file", store.incoming, 1, limits.motion_bytes, limits.pause_s)
        try:
            return await checks.motion(received[0])
        finally:
            discard(received)

    @app.get("/api/motions/{id}", tags=["uploads"])
    async def get_motion(id: str) -> MotionFile:
        """How long a motion is."""
        motion = store.motion(id)
        if motion is None:
            raise unknown("motion", id)
        return motion

    @app.delete("/api/motions/{id}", tags=["uploads"], status_code=204)
    async def delete_motion(id: str) -> None:
        """Delete a motion now."""
        delete("motions", "motion", id)
