"""What happens to a job, as server-sent events that a client can take up again where it lost them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

EventName = Literal["job", "avatar", "end"]
_KEPT = 64  # events that a client may have missed and still get one by one
HEARTBEAT_S = 15.0  # between two signs of life, so that proxies and clients notice a dead line


@dataclass(frozen=True)
class Event:
    """``number`` counts from 1 within a job."""

    number: int
    name: EventName
    data: dict[str, Any]

    def wire(self) -> bytes:
        """As ``text/event-stream`` has it."""
        return f"id: {self.number}\nevent: {self.name}\ndata: {json.dumps(self.data)}\n\n".encode()


class EventLog:
    """The events of one job. Readers pull from it, each at its own speed: a slow one costs no memory."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._latest: dict[EventName, Event] = {}
        self._count = 0
        self._news = asyncio.Event()

    def add(self, name: EventName, data: dict[str, Any]) -> None:
        """Append an event and wake its readers."""
        self._count += 1
        event = Event(self._count, name, data)
        self._events.append(event)
        self._latest[name] = event
        self.wake()

    def settle(self) -> None:
        """Keep the newest of each name alone: nobody is following any more."""
        self._events = deque(sorted(self._latest.values(), key=lambda event: event.number), maxlen=_KEPT)

    def wake(self) -> None:
        """Let the readers look again."""
        self._news.set()
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        return "end" in self._latest

    def after(self, number: int | None) -> list[Event]:
        """What a client that has seen everything up to ``number`` lacks.

        Each event says how things stand, so a client that has seen nothing, or too little, or numbers of another server
        process, gets the newest of each name alone.
        """
        oldest = self._events[0].number if self._events else 1
        if number is None or number > self._count or number < oldest - 1:
            return sorted(self._latest.values(), key=lambda event: event.number)
        return [event for event in self._events if event.number > number]

    async def follow(self, number: int | None, stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """The events after ``number`` and all to come, as bytes for the wire, until the last one or ``stopping``."""
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while True:
                news = self._news
                missed = self.after(number)
                for event in missed:
                    number = event.number
                    yield event.wire()
                if missed:
                    continue  # while they were sent, others may have come, the end too
                if self.ended or stopping.is_set():
                    return
                waiting = asyncio.ensure_future(news.wait())
                try:
                    done, _ = await asyncio.wait(
                        (waiting, stop), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    waiting.cancel()
                if not done:
                    yield b": still here\n\n"
        finally:
            stop.cancel()
