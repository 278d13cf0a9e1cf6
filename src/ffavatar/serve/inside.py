"""A child process' side: its line to the server, and the memory it may take."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ffavatar.serve.messages import Message, decode, encode


class Line:
    """Standard input and output as messages. Whatever else prints goes to standard error.

    The process ends at once, whatever it does, when the server goes away or closes the line.
    """

    def __init__(self, at_once: Callable[[Message], bool] = lambda message: False) -> None:
        """``at_once`` sees each message in the reading thread; what it returns True for is not queued."""
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._writing = threading.Lock()
        self._incoming: queue.Queue[Message] = queue.Queue()
        self._at_once = at_once
        threading.Thread(target=self._read, daemon=True, name="ffavatar-line").start()

    def _read(self) -> None:
        try:
            for line in sys.stdin.buffer:
                message = decode(line)
                if not self._at_once(message):
                    self._incoming.put(message)
        finally:
            os._exit(0)

    def next(self) -> Message:
        """Wait for the next message."""
        return self._incoming.get()

    def send(self, message: Message) -> None:
        """Ends the process where nobody listens any more."""
        data = encode(message)
        try:
            with self._writing:
                while data:
                    data = data[os.write(self._out, data) :]
        except OSError:
            os._exit(0)


def limit_memory(extra_bytes: int) -> None:
    """From now on this process may take ``extra_bytes`` of address space more than it has; beyond, allocations fail.

    Kept by Linux alone (RLIMIT_AS); elsewhere nothing happens.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * resource.getpagesize() + extra_bytes
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
