"""The newest picture for a browser on this computer: a page with a stream of JPEGs (multipart/x-mixed-replace)."""

from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import numpy as np

from ffavatar.errors import InputError

_PAGE = b"""<!doctype html><meta charset="utf-8"><title>FFAvatar</title>
<body style="margin:0;display:grid;place-items:center;height:100vh;background:#222"><img src="/picture" alt="avatar">"""
_WAIT_S = 1.0


class PictureStream:
    """Serves on 127.0.0.1 only, while it is entered. Slow viewers miss pictures; they never hold up ``show``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._new = threading.Condition()
        self._jpeg = b""
        self._count = 0
        self._viewers = 0
        self._ended = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def show(self, picture: np.ndarray) -> None:
        """(H, W, 3) uint8. Costs nothing while nobody looks."""
        from PIL import Image

        if not self._viewers and self._jpeg:
            return
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=85)
        with self._new:
            self._jpeg = buffer.getvalue()
            self._count += 1
            self._new.notify_all()

    def __enter__(self) -> PictureStream:
        stream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Host", "").partition(":")[0] not in ("127.0.0.1", "localhost"):
                    self.send_error(403)  # another site's name that was made to point here
                elif self.path == "/":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html; charset=utf-8")
                    self.send_header("Content-Length", str(len(_PAGE)))
                    self.end_headers()
                    self.wfile.write(_PAGE)
                elif self.path == "/picture":
                    self.send_response(200)
                    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
                    self.end_headers()
                    stream._feed(self)
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        except OSError as error:
            raise InputError(f"Port {self._port} cannot be used ({error.strerror}); give another --port.") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True, name="ffavatar-stream").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._new:
            self._ended = True
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _feed(self, handler: BaseHTTPRequestHandler) -> None:
        self._viewers += 1
        seen = -1
        try:
            while not self._ended:
                with self._new:
                    if self._count == seen:
                        self._new.wait(_WAIT_S)
                    fresh, jpeg = self._count != seen, self._jpeg
                    seen = self._count
                if fresh and jpeg:
                    head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    handler.wfile.write(head.encode() + jpeg + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self._viewers -= 1
