"""Running the application on a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType
from typing import Any

from ffavatar.errors import InputError
from ffavatar.serve.app import create_app
from ffavatar.serve.settings import Settings

_STREAMS_END_S = 5  # for answers that are still being sent when the server is told to stop
_KEEP_ALIVE_S = 75
_CONNECTIONS = 1024  # open at once; further ones get 503


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ``InputError`` where the address cannot be used."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise InputError(f"{host} is no address of this computer; give another --host.") from None
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(512)
    except OSError as error:
        found.close()
        raise InputError(f"Port {port} on {host} cannot be used ({error.strerror}); give another --port.") from None
    found.setblocking(False)
    return found


def address_of(settings: Settings, listening: socket.socket) -> str:
    """What to type into a browser on this computer, with the token in the fragment, which is never sent."""
    port = listening.getsockname()[1]
    host = settings.host
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"#token={settings.token}" if settings.token else "")


def run(
    settings: Settings,
    say: Callable[[str], None] = print,
    browse: bool = False,
    listening: socket.socket | None = None,
    ready: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; a second SIGINT does not wait for anything.

    ``say`` gets the address once it answers, ``browse`` opens it in the browser. ``ready`` is called then with a
    function that stops the server, which may be called from any thread.

    Raises:
        InputError: the folder or the address cannot be used, or the extra ``serve`` is missing.
    """
    app, parts = create_app(settings)
    import uvicorn

    try:
        sock = listening or bind(settings.host, settings.port)
    except InputError:
        parts.store.close()
        raise
    address = address_of(settings, sock)

    class Server(uvicorn.Server):
        """Tells event streams to end before it waits for open connections; does not raise the signal again."""

        loop: asyncio.AbstractEventLoop

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)
            say(f"FFAvatar is at {address} (Ctrl-C ends it)")
            if ready is not None:
                ready(self.stop)
            if browse:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        def stop(self) -> None:
            self.should_exit = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped
                self.loop.call_soon_threadsafe(parts.jobs.stopping.set)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:
                self.force_exit = True
                self.loop.call_soon_threadsafe(parts.jobs.hurry.set)
            self.stop()

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    options: dict[str, Any] = {
        "log_config": None, "access_log": False, "server_header": False, "date_header": False,
        "http": "h11", "loop": "asyncio",  # whatever else is installed: these are the ones that are tested
        "timeout_graceful_shutdown": _STREAMS_END_S, "limit_concurrency": _CONNECTIONS, "ws": "none",
        # longer than clients wait between two requests: a connection closed just as one is sent is an error to them
        "timeout_keep_alive": _KEEP_ALIVE_S, "proxy_headers": False, "h11_max_incomplete_event_size": 32 * 1024,
    }  # fmt: skip
    try:
        Server(uvicorn.Config(app, **options)).run(sockets=[sock])
    finally:
        sock.close()
        parts.store.close()
