"""A job in memory: its record, its events, and how far it is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from ffavatar.serve.child import Child
from ffavatar.serve.events import EventLog
from ffavatar.serve.records import ENDED
from ffavatar.serve.store import JobEntry


@dataclass(eq=False)
class Work:
    """A job in memory."""

    entry: JobEntry
    events: EventLog = field(default_factory=EventLog)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stage: str | None = None
    done: int = 0
    total: int = 0
    stage_began: float = 0.0
    paced: tuple[float, int] = (0.0, 0)  # moment and count of the first progress in this stage
    told: float = 0.0  # when the last event went out
    cancelling: bool = False
    child: Child | None = None  # that works on it

    @property
    def ended(self) -> bool:
        return self.entry.state in ENDED

    def seconds_left(self) -> float | None:
        """Of this stage, by its pace since its first progress, which often comes late."""
        moment, first = self.paced
        if self.entry.state != "running" or not first < self.done <= self.total:
            return None
        return round((time.monotonic() - moment) / (self.done - first) * (self.total - self.done), 1)

    def uploads(self) -> set[str]:
        """Ids of the photos, films and motions it reads."""
        request = self.entry.request
        return {*request.get("photos", ()), *(request[kind] for kind in ("film", "motion") if request.get(kind))}
