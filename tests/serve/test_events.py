"""Server-sent events: order, resuming, clients that vanish."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import create, fake_settings, make_avatar, parse_events, read_events, serving, upload, wait_for

from ffavatar.serve.events import EventLog


def test_events_tell_the_whole_story_in_order(client: httpx.Client) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good story"), "personalize": True})
    events = read_events(client, job["id"], "0")
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    names = [name for _, name, _ in events]
    assert names[0] == "job" and names[-1] == "end" and names.count("end") == 1
    states = [data["state"] for _, name, data in events if name == "job"]
    assert states[0] == "queued" and "running" in states and states[-1] == "done"
    final = client.get(f"/api/jobs/{job['id']}").json()
    assert events[-1][2] == final and final["avatar"]
    first = next(data for _, name, data in events if name == "avatar")
    url = f"/api/avatars/{final['avatar']}/container?version=1"
    assert first == {"avatar": final["avatar"], "version": 1, "url": url}
    stages = [data["stage"] for _, name, data in events if name == "job"]
    assert list(dict.fromkeys(stages))[-2:] == ["reading", "personalizing"]


def test_a_lost_connection_is_taken_up_where_it_broke(client: httpx.Client) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good resume"), "personalize": True})
    whole = read_events(client, job["id"], "0")
    for seen in (1, len(whole) // 2, len(whole) - 1):
        assert read_events(client, job["id"], str(seen)) == whole[seen:]
    over = client.get(f"/api/jobs/{job['id']}/events", headers={"Last-Event-ID": str(len(whole))})
    assert over.status_code == 204 and not over.content  # an EventSource stops asking


@pytest.mark.parametrize("last", [None, "x", "-1", "99999", "9" * 30, "1; drop"])
def test_whoever_comes_anew_gets_how_things_stand(client: httpx.Client, last: str | None) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good anew"), "personalize": True})
    wait_for(client, job["id"])
    events = read_events(client, job["id"], last)
    assert [name for _, name, _ in events] == ["avatar", "job", "end"] and events[0][2]["version"] == 4


def test_events_come_while_the_job_runs_and_stop_with_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffavatar.serve.server._STREAMS_END_S", 60)
    with serving(fake_settings(folder)) as client:
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
        with client.stream("GET", f"/api/jobs/{job['id']}/events") as answer:
            events = parse_events(answer.iter_lines())
            while next(events)[2].get("stage") != "working":
                pass
            one, two = next(events), next(events)
            assert two[2]["done"] > one[2]["done"] and two[2]["seconds_left"] > 0
            client.delete(f"/api/jobs/{job['id']}")
            assert [name for _, name, _ in events][-1] == "end"
        last = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
        stream = client.stream("GET", f"/api/jobs/{last['id']}/events")
        answer = stream.__enter__()
        next(parse_events(answer.iter_lines()))
        began = time.monotonic()
    assert time.monotonic() - began < 20  # the open stream does not hold the server up


def test_clients_that_vanish_are_forgotten(folder: Path) -> None:
    with serving(fake_settings(folder, streams=4)) as client:
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
        request = f"GET /api/jobs/{job['id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        lines = []
        for _ in range(4):
            line = socket.create_connection((client.base_url.host, client.base_url.port), timeout=10)
            line.sendall(request)
            assert line.recv(100)
            lines.append(line)
        busy = client.get(f"/api/jobs/{job['id']}/events")
        assert busy.status_code == 503 and int(busy.headers["retry-after"]) > 0
        for line in lines:
            line.close()
        deadline = time.monotonic() + 10
        while "ffavatar_event_streams 0.0" not in client.get("/metrics").text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "ffavatar_event_streams 0.0" in client.get("/metrics").text
        client.delete(f"/api/jobs/{job['id']}")


def test_metrics_count_what_happened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffavatar.serve.store._COUNT_AGAIN_S", 0.0)
    with serving(fake_settings(folder)) as client:
        make_avatar(client)
        text = client.get("/metrics").text
        for line in (
            'ffavatar_jobs{kind="reconstruct",state="done"} 1.0', "ffavatar_avatars 1.0", "ffavatar_queue_length 0.0",
            'ffavatar_jobs_ended_total{kind="reconstruct",state="done"} 1.0',
            'ffavatar_stage_seconds_count{kind="reconstruct",stage="reading"} 1.0',
        ):  # fmt: skip
            assert line in text
        disk = {kind: float(count) for kind, count in re.findall(r'ffavatar_disk_bytes\{kind="(\w+)"\} (\S+)', text)}
        stored = sum(path.stat().st_size for path in (folder / "avatars").rglob("*") if path.is_file())
        assert disk["avatars"] == stored > 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.one_of(st.none(), st.integers(-5, 300)))
def test_nothing_is_missed_and_nothing_told_twice(count: int, seen: int | None) -> None:
    """Resuming gives exactly the later events, or how things stand where those are not kept."""
    log = EventLog()
    for number in range(count):
        log.add("job", {"n": number})
    found = [event.number for event in log.after(seen)]
    if seen is not None and max(count - 64, 0) <= seen <= count:
        assert found == list(range(seen + 1, count + 1))
    else:
        assert found == ([count] if count else [])


def test_a_slow_reader_gets_the_newest_and_the_log_stays_small() -> None:
    async def late() -> list[bytes]:
        log = EventLog()
        log.add("job", {"n": -1})
        got: list[bytes] = []
        async for wire in log.follow(None, asyncio.Event()):
            got.append(wire)
            if len(got) == 1:
                for number in range(1000):
                    log.add("job", {"n": number})
                log.add("end", {})
        return got

    got = asyncio.run(late())
    assert [wire.split(b"\n")[0] for wire in got] == [b"id: 1", b"id: 1001", b"id: 1002"]


def test_a_settled_log_still_says_how_things_stand() -> None:
    log = EventLog()
    for number in range(40):
        log.add("avatar" if number % 10 == 0 else "job", {"n": number})
    log.add("end", {})
    before = log.after(None)
    log.settle()
    assert log.after(None) == before == log.after(0) and [event.number for event in log.after(35)] == [40, 41]
