"""Files of a multipart request, written to disk and counted while they arrive: nothing waits in memory, nothing is
read beyond its limit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ffavatar.serve.problems import Problem
from ffavatar.serve.records import clean_name

if TYPE_CHECKING:
    from starlette.requests import Request

_HEADERS_BYTES = 16 * 2**10  # of one part
_DRAIN_BYTES, _DRAIN_S = 4 * 2**20, 2.0  # of a refused upload that are still read
_FRAME_BYTES = 4 * 2**10  # what the form adds to one file, at most: for the check of the announced length


@dataclass
class Received:
    """A whole file as it arrived: ``path`` is ours, ``name`` is the user's and only for showing."""

    path: Path
    name: str
    size: int = 0
    sha256: str = ""


@dataclass
class _Part:
    disposition: bytes = b""
    header: bytes = b""
    value: bytes = b""
    header_bytes: int = 0
    received: Received | None = None
    file: BinaryIO | None = None
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)


class _Form:
    """The callbacks of the multipart parser. Refusals are raised from within."""

    def __init__(self, folder: Path, name: str, most_files: int, most_bytes: int) -> None:
        self.folder, self.name, self.most_files, self.most_bytes = folder, name, most_files, most_bytes
        self.files: list[Received] = []
        self.ended = False
        self._part = _Part()

    def on_part_begin(self) -> None:
        self._part = _Part()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]
        self._count_header(end - start)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]
        self._count_header(end - start)

    def _count_header(self, size: int) -> None:
        self._part.header_bytes += size
        if self._part.header_bytes > _HEADERS_BYTES:
            raise Problem(400, "A part of the form has too long headers; send plain multipart/form-data.")

    def on_header_end(self) -> None:
        if self._part.header.lower() == b"content-disposition":
            self._part.disposition = self._part.value
        self._part.header = self._part.value = b""

    def on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._part.disposition)
        if options.get(b"name", b"").decode("utf-8", "replace") != self.name or b"filename" not in options:
            raise Problem(422, f"The form holds something else than files; send files in the field {self.name!r} only.")
        if len(self.files) == self.most_files:
            raise Problem(413, f"More than {self.most_files} files were sent at once; send fewer.")
        shown = clean_name(options[b"filename"].decode("utf-8", "replace"), f"file {len(self.files) + 1}")
        received = Received(self.folder / f"{secrets.token_hex(8)}.part", shown)
        self.files.append(received)
        self._part.received, self._part.file = received, received.path.open("xb")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        received, file = self._part.received, self._part.file
        assert received is not None and file is not None
        received.size += end - start
        if received.size > self.most_bytes:
            raise Problem(413, f"{received.name} is larger than {megabytes(self.most_bytes)}; send a smaller file.")
        piece = data[start:end]
        file.write(piece)
        self._part.digest.update(piece)

    def on_part_end(self) -> None:
        assert self._part.received is not None
        self._part.received.sha256 = self._part.digest.hexdigest()
        self.close()

    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        """Close the file that is being written."""
        if self._part.file is not None:
            self._part.file.close()
            self._part.file = None


def megabytes(count: int) -> str:
    return f"{count / 2**20:.3g} MB"


async def receive_files(
    request: Request, name: str, folder: Path, most_files: int, most_bytes: int, pause_s: float
) -> list[Received]:
    """The files in the field ``name`` of a form, written into ``folder``; the caller removes them when done.

    Raises ``Problem`` (400, 408, 413, 415, 422) where a limit is passed, the sender pauses for more than ``pause_s``
    or the form is none; then nothing is left in ``folder``.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(415, f"The request is no form; send multipart/form-data with files in the field {name!r}.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_files * (most_bytes + _FRAME_BYTES):
        words = f"The upload is larger than {most_files} files of {megabytes(most_bytes)}; send less."
        raise Problem(413, words, {"Connection": "close"})
    form = _Form(folder, name, most_files, most_bytes)
    events = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "part_end")
    callbacks = {f"on_{event}": getattr(form, f"on_{event}") for event in (*events, "end")}
    pieces = _pieces(request, pause_s)
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        async for piece in pieces:
            parser.write(piece)
        if not form.ended:
            raise Problem(400, "The upload ended before its end; send it again.")
        if not form.files:
            raise Problem(422, f"No file was sent; send files in the field {name!r}.")
    except BaseException as error:
        form.close()
        discard(form.files)
        if isinstance(error, FormParserError):
            error = Problem(400, "The form is damaged; send plain multipart/form-data.")
        if isinstance(error, Problem) and not await _ends_soon(pieces):
            error.headers["Connection"] = "close"  # do not wait for the rest
        raise error from None
    return form.files


async def _ends_soon(pieces: AsyncIterator[bytes]) -> bool:
    """Read on a little, for a client that reads no answer before it has sent all; whether that was all."""
    count = 0
    with contextlib.suppress(TimeoutError, Problem):
        async with asyncio.timeout(_DRAIN_S):
            async for piece in pieces:
                count += len(piece)
                if count > _DRAIN_BYTES:
                    return False
            return True
    return False


async def _pieces(request: Request, pause_s: float) -> AsyncIterator[bytes]:
    """The body piece by piece; 408 for a sender that falls silent."""
    stream = request.stream()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, None), pause_s)
        except TimeoutError:
            raise Problem(408, f"Nothing arrived for {pause_s:.0f} s; send the upload again.") from None
        if piece is None:
            return
        yield piece


def discard(files: list[Received]) -> None:
    """Remove what was received."""
    for received in files:
        with contextlib.suppress(OSError):
            received.path.unlink(missing_ok=True)
