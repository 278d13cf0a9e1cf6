"""Answers that are files: ranges, tags, types."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ffavatar.serve.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".glb": "model/gltf-binary",
    ".zip": "application/zip",
}
REVALIDATE = "no-cache"  # may be stored, must be asked for again


def send_file(
    request: Request, path: Path, kind: str | None = None, *, name: str | None = None, tag: str | None = None,
    cache: str = REVALIDATE,
) -> Response:  # fmt: skip
    """A file, or 304, or the ranges asked for. ``name`` makes it a download; ``tag`` replaces the ETag made from time
    and size. Raises ``Problem`` 404 where it is gone."""
    from starlette.responses import FileResponse, Response

    try:
        found = os.stat(path)
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise Problem(404, "This file has been deleted; ask for the newest one.")
    tag = f'"{tag}"' if tag is not None else f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
    headers = {"ETag": tag, "Cache-Control": cache}
    given = request.headers.get("if-none-match", "")
    if given == "*" or tag in (one.strip().removeprefix("W/") for one in given.split(",")):
        return Response(status_code=304, headers=headers)
    media = kind or TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, headers=headers, media_type=media, stat_result=found, filename=name)
