"""What every request passes before anything else reads it: whom it comes from, whom it is meant for, how long it is.

A page of another site cannot read answers of this server (no CORS headers), but it could send requests, or give its own
name this server's address (DNS rebinding). Both are refused by what browsers say in Host, Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ffavatar.serve.metrics import Metrics
from ffavatar.serve.problems import JSON_TYPE, Problem
from ffavatar.serve.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "ffavatar_session"
UPLOADS = ("/api/photos", "/api/films", "/api/motions")  # have limits of their own
POLICY = (
    "default-src 'self'; worker-src 'self' blob:; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; style-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)
_SAFE = ("GET", "HEAD", "OPTIONS")
_CLOSED = ("/api", "/metrics", "/openapi.json")  # what needs the token, where there is one


def session_secret(token: str) -> str:
    """What the cookie holds: made from the token, so that it outlives a restart, and of no use to find the token."""
    return hmac.new(token.encode(), b"ffavatar session 1", hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware around the whole application, which is ``app``."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self.app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        begun = False
        late: list[Problem] = []  # found while the body was read
        replaced: list[Problem] = []

        async def guarded_send(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if replaced:
                return
            if late and not begun:  # instead of what the application made of it
                replaced.append(late.pop())
                await answer(replaced[0], plain_send)
                return
            await plain_send(message)

        async def plain_send(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _with_headers(scope["path"], message["headers"])
                if message["status"] >= 400:
                    self._metrics.refused.labels(str(message["status"])).inc()
            await send(message)

        try:
            headers = _headers(scope)
            self._check(scope, headers)
            if not scope["path"].startswith(UPLOADS):
                receive = self._counted(receive, headers, late)
            await self.app(scope, receive, guarded_send)
        except Problem as problem:
            if begun:
                raise
            await answer(problem, plain_send)

    def _check(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        """Raises ``Problem``: 400, 401, 403, 421."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or _host_name(hosts[0]) not in self._settings.host_names:
            raise Problem(
                421,
                "This server does not go by the name in Host; use the address it printed, or have whoever runs it "
                "start it with --allowed-host NAME.",
            )
        closed = scope["path"].startswith(_CLOSED)
        site = headers.get("sec-fetch-site", ["none"])[0]
        if closed and site not in ("same-origin", "none"):
            raise Problem(403, "Pages of other sites may not use this server; open its own page.")
        origin = headers.get("origin")
        if origin is not None and not _same_origin(origin, hosts[0]) and (closed or scope["method"] not in _SAFE):
            raise Problem(403, "The request comes from a page of another site; open this server's own page.")
        token = self._settings.token
        if token is None or not closed:
            return
        if self._bearer(headers, token):
            return
        if not _cookie_is(headers, session_secret(token)):
            raise Problem(
                401, "A token is needed; send it as Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"}
            )
        if origin is None and scope["method"] not in _SAFE:
            raise Problem(403, "A request with a cookie alone must say its Origin; send the token as bearer instead.")

    @staticmethod
    def _bearer(headers: dict[str, list[str]], token: str) -> bool:
        given = headers.get("authorization", [])
        if len(given) != 1:
            return False
        scheme, _, value = given[0].partition(" ")
        return scheme.lower() == "bearer" and _equal(value.strip(), token)

    def _counted(self, receive: Receive, headers: dict[str, list[str]], late: list[Problem]) -> Receive:
        """``receive`` for small requests: a body that is too long or too slow ends in a ``Problem``, kept in ``late``
        because frameworks turn what is raised here into words of their own."""
        limits = self._settings.limits
        announced = headers.get("content-length", ["0"])[0]
        close = {"Connection": "close"}  # what is still to come is not read
        refusal = Problem(413, f"The request is longer than {limits.json_bytes // 1024} KB; send less.", close)
        if announced.isdecimal() and int(announced) > limits.json_bytes:
            raise refusal
        silence = Problem(408, f"Nothing arrived for {limits.pause_s:.0f} s; send the request again.", close)
        count, whole = 0, False

        def refuse(problem: Problem) -> Problem:
            late.append(problem)
            return problem

        async def counted() -> MutableMapping[str, Any]:
            nonlocal count, whole
            if whole:
                return await receive()  # waits for the client to go away
            try:
                message = await asyncio.wait_for(receive(), limits.pause_s)
            except TimeoutError:
                raise refuse(silence) from None
            count += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if count > limits.json_bytes:
                raise refuse(refusal)
            return message

        return counted


async def answer(problem: Problem, send: Send) -> None:
    """Send a problem as the whole response."""
    body = problem.body()
    headers = [(b"content-type", JSON_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _with_headers(path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    there = {name.lower() for name, _ in headers}
    added = [pair for pair in HEADERS if pair[0] not in there]
    if path.startswith("/api") and b"cache-control" not in there:
        added.append((b"cache-control", b"no-store"))
    return [*headers, *added]


def _host_name(host: str) -> str:
    """The name in a Host header, without port, in lower case; empty for anything odd."""
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        return name.lower() if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = host.partition(":")
    return name.lower().rstrip(".") if not colon or _is_port(f":{port}") else ""


def _is_port(text: str) -> bool:
    return text[0] == ":" and text[1:].isascii() and text[1:].isdigit()


def _same_origin(origins: list[str], host: str) -> bool:
    """Whether the one Origin names the host of the request. The scheme may differ: a proxy may add TLS."""
    if len(origins) != 1:
        return False
    scheme, mark, name = origins[0].partition("://")
    return mark != "" and scheme in ("http", "https") and name.lower() == host.lower()


def _cookie_is(headers: dict[str, list[str]], secret: str) -> bool:
    for line in headers.get("cookie", []):
        for pair in line.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE and _equal(value, secret):
                return True
    return False


def _equal(one: str, other: str) -> bool:
    """Compare without telling by the time how much is right."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
