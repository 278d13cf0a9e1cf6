"""Two servers behind the proxy of examples/scale_out: each client stays with one; uploads, events and ranges pass."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from served import create, fake_settings, make_avatar, parse_events, read_events, serving, upload, wait_for

pytestmark = pytest.mark.slow
PROXY = Path(__file__).parents[2] / "examples" / "scale_out" / "proxy.py"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[httpx.Client]]]:
    """The proxy's address, and clients of the two servers behind it."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("servers")
        direct = [stack.enter_context(serving(fake_settings(folder / name))) for name in ("a", "b")]
        addresses = [f"{client.base_url.host}:{client.base_url.port}" for client in direct]
        nowhere = "127.0.0.1:9"  # a third one that does not answer
        command = [sys.executable, str(PROXY), "--port", "0", nowhere, *addresses]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found
        try:
            yield found[0], direct
        finally:
            process.terminate()
            process.communicate(timeout=10)


def test_a_client_stays_with_its_server(proxied: tuple[str, list[httpx.Client]]) -> None:
    address, direct = proxied
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=address, timeout=20)) for _ in range(4)]
        for client in clients:  # each holds a connection, so the next one gets the other server
            assert client.get("/healthz").status_code == 200
        made = [make_avatar(client, f"good {number}") for number, client in enumerate(clients)]
        for client, avatar in zip(clients, made):
            listed = {found["id"] for found in client.get("/api/avatars").json()["avatars"]}
            assert avatar in listed and len(listed) == 2
    behind = [{found["id"] for found in client.get("/api/avatars").json()["avatars"]} for client in direct]
    assert set(made) == behind[0] | behind[1] and not behind[0] & behind[1]
    assert len(behind[0]) == len(behind[1]) == 2


def test_events_ranges_and_cancelling_pass_through(proxied: tuple[str, list[httpx.Client]]) -> None:
    address, _ = proxied
    with httpx.Client(base_url=address, timeout=20) as client:
        client.get("/healthz")
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow proxied")})
        with client.stream("GET", f"/api/jobs/{job['id']}/events") as answer:
            events = parse_events(answer.iter_lines())
            while next(events)[2].get("stage") != "working":
                pass
            began = time.monotonic()
            assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
            assert [name for _, name, _ in events][-1] == "end" and time.monotonic() - began < 3
        assert read_events(client, job["id"])[-1][2]["state"] == "cancelled"
        done = wait_for(
            client, create(client, {"kind": "export", "avatar": make_avatar(client), "format": "obj"})["id"]
        )
        part = client.get(done["files"]["avatar.obj"], headers={"Range": "bytes=-3"})
        assert part.status_code == 206 and part.content == bytes([253, 254, 255])


def test_the_servers_see_who_asks(proxied: tuple[str, list[httpx.Client]]) -> None:
    """Host and Origin are passed on as they are, so that the servers' own checks hold."""
    address, _ = proxied
    with httpx.Client(base_url=address, timeout=20) as client:
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 421
        assert client.post("/api/jobs", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
        own = address.rstrip("/")
        assert client.post("/api/jobs", json={}, headers={"Origin": own}).status_code == 422


def test_a_client_whose_server_is_down_is_told_so(proxied: tuple[str, list[httpx.Client]]) -> None:
    address, _ = proxied
    with httpx.Client(base_url=address, timeout=20, cookies={"ffavatar_home": "0"}) as client:
        answer = client.get("/api/avatars")
        assert answer.status_code == 503 and answer.headers["retry-after"] and answer.json()["status"] == 503
