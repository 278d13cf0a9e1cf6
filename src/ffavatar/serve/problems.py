"""Refusals over HTTP: RFC 9457 problem details, one sentence each."""

from __future__ import annotations

import json
from http import HTTPStatus

JSON_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is refused. ``detail`` is one sentence that says what is wrong and what to do."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}

    def body(self) -> bytes:
        """The JSON document."""
        title = HTTPStatus(self.status).phrase
        return json.dumps(
            {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        ).encode()


def busy(what: str, seconds: float) -> Problem:
    """503 with Retry-After in whole seconds."""
    wait = max(1, round(seconds))
    return Problem(503, f"{what}; try again in {wait} s.", {"Retry-After": str(wait)})


def unknown(what: str, name: str) -> Problem:
    """404 that repeats no more of the name than is safe to show."""
    shown = "".join(c for c in name if c.isalnum() or c in "-_.")[:64]
    return Problem(404, f"There is no {what} {shown}; it may have been deleted: list or upload anew.")
