"""The server's side of a child process: starting it, talking to it, and being rid of it for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence

from ffavatar.serve.messages import LONGEST_LINE, Message, decode, encode

_KILL_WAIT_S = 10.0


class Child:
    """One running program that reads and writes messages. Use it from one event loop only."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Run ``command``, with ``environment`` added to this process' own. Raises ``OSError`` where it cannot be run.

        It gets a session of its own: Ctrl-C in a terminal is for the server to deal with.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def send(self, message: Message) -> None:
        """Does nothing where the child has ended: ``receive`` will tell."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(encode(message))

    async def receive(self) -> Message | None:
        """The next message; None where the child has ended or talks nonsense, which ends it."""
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            if line:
                return decode(line)
        except ValueError:  # also a line beyond the limit
            pass
        await self.end()
        return None

    async def end(self) -> None:
        """Kill it and wait until it is gone. It has nothing to tidy up: what it leaves behind, the server removes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _KILL_WAIT_S)
        # The transport is closed here, and not whenever it is collected, perhaps after its loop.
        self._process._transport.close()  # type: ignore[attr-defined]
