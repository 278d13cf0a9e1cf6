"""Figures for Prometheus, one registry for each application."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from ffavatar.serve.records import Kind, State

if TYPE_CHECKING:
    from ffavatar.serve.store import Store

_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 900)


class Metrics:
    """``jobs`` gives (kind, state) of each known job, ``queued`` the length of the queue."""

    def __init__(
        self, store: Store, jobs: Callable[[], Iterator[tuple[Kind, State]]], queued: Callable[[], int]
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = r = CollectorRegistry()
        self.stages = Histogram(
            "ffavatar_stage_seconds", "Seconds in stages of jobs", ("kind", "stage"), registry=r, buckets=_BUCKETS_S
        )
        self.jobs_ended = Counter("ffavatar_jobs_ended", "Jobs by how they ended", ("kind", "state"), registry=r)
        self.uploads = Counter("ffavatar_uploads", "Uploads by verdict", ("kind", "verdict"), registry=r)
        self.upload_bytes = Counter("ffavatar_upload_bytes", "Bytes that were uploaded", ("kind",), registry=r)
        self.refused = Counter("ffavatar_refused_requests", "Requests refused, by status", ("status",), registry=r)
        self.children = Counter("ffavatar_child_ends", "Child processes lost or killed", ("child",), registry=r)
        self.checks = Gauge("ffavatar_checks_waiting", "Uploads that wait to be looked at, or are", registry=r)
        self.streams = Gauge("ffavatar_event_streams", "Open event streams", registry=r)
        self.registry.register(_Now(store, jobs, queued))

    def text(self) -> bytes:
        """The exposition format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


class _Now:
    """Figures that are looked up when somebody asks."""

    def __init__(
        self, store: Store, jobs: Callable[[], Iterator[tuple[Kind, State]]], queued: Callable[[], int]
    ) -> None:
        self._store, self._jobs, self._queued = store, jobs, queued

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        tally = Tally(self._jobs())
        jobs = GaugeMetricFamily("ffavatar_jobs", "Known jobs by state", labels=("kind", "state"))
        for kind in get_args(Kind):
            for state in get_args(State):
                jobs.add_metric((kind, state), tally[kind, state])
        yield jobs
        yield GaugeMetricFamily("ffavatar_queue_length", "Jobs that wait", value=self._queued())
        yield GaugeMetricFamily("ffavatar_avatars", "Avatars", value=len(self._store.avatars))
        disk = GaugeMetricFamily("ffavatar_disk_bytes", "Bytes on the disk", labels=("kind",))
        for kind, count in self._store.bytes_used().items():
            disk.add_metric((kind,), count)
        yield disk
        yield GaugeMetricFamily("ffavatar_disk_free_bytes", "Bytes left on the disk", value=self._store.free_bytes())
