"""A real server on a free port of this computer, in a thread, with stand-ins for its children."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from ffavatar.serve.server import bind, run
from ffavatar.serve.settings import Limits, Settings

FAKES = str(Path(__file__).with_name("fakes.py"))


def fake_settings(folder: Path, **changes: Any) -> Settings:
    """Settings with stand-ins; limits may be given by their own names."""
    limits = {name: changes.pop(name) for name in list(changes) if name in Limits.__dataclass_fields__}
    plain = Settings(
        folder=folder,
        devices=("cpu",),
        grace_s=0.3,
        cancel_s=0.5,
        worker=(sys.executable, FAKES, "worker"),
        checker=(sys.executable, FAKES, "checker"),
        limits=replace(Limits(free_bytes=0, check_s=20.0, pause_s=20.0), **limits),
    )
    return replace(plain, **changes)


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a running server, which is stopped at the end; ``client.headers`` carry the token."""
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    started = threading.Event()
    stops: list[Callable[[], None]] = []
    errors: list[BaseException] = []

    def ready(stop: Callable[[], None]) -> None:
        stops.append(stop)
        started.set()

    def work() -> None:
        try:
            run(settings, lambda text: None, listening=sock, ready=ready)
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(120), "the server does not start"
    try:
        if not errors:
            headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
                yield client
    finally:
        for stop in stops:
            stop()
        thread.join(60)
    assert not thread.is_alive(), "the server does not stop"
    if errors:
        raise errors[0]


def upload(client: httpx.Client, *texts: str) -> list[str]:
    """Ids of photos with these texts."""
    files = [("files", (f"{number}.jpg", text.encode())) for number, text in enumerate(texts)]
    answer = client.post("/api/photos", files=files)
    assert answer.status_code == 200, answer.text
    return [photo["id"] for photo in answer.json()["photos"]]


def create(client: httpx.Client, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A new job."""
    answer = client.post("/api/jobs", json=body, **options)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def wait_for(client: httpx.Client, job: str, *states: str, seconds: float = 60) -> dict[str, Any]:
    """A job once it has come to one of the states, by default to an end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = client.get(f"/api/jobs/{job}").json()
        if found["state"] in (states or ("done", "failed", "cancelled")):
            return found
        time.sleep(0.02)
    raise AssertionError(f"the job does not come to {states}: {found}")


def make_avatar(client: httpx.Client, text: str = "good") -> str:
    """The id of a new avatar."""
    job = create(client, {"kind": "reconstruct", "photos": upload(client, text), "name": "A"})
    return wait_for(client, job["id"], "done")["avatar"]


def read_events(client: httpx.Client, job: str, last: str | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """(number, name, data) of a job's events to their end."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    with client.stream("GET", f"/api/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        return list(parse_events(answer.iter_lines()))


def parse_events(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def problem(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal, whose form is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"} and body["status"] == status
    assert body["detail"].endswith(".") and "\n" not in body["detail"]
    return body["detail"]
