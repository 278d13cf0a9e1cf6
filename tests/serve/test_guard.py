"""Who may ask: hosts, origins, tokens, cookies; and what every answer carries."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import fake_settings, problem, serving, upload

from ffavatar.errors import InputError
from ffavatar.serve.guard import COOKIE, POLICY, _host_name, _same_origin, session_secret
from ffavatar.serve.settings import Settings

TOKEN = "correct horse battery"


def raw(client: httpx.Client, request: bytes) -> bytes:
    """The answer to a request that httpx would not send."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as line:
        line.sendall(request)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8460", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_other_names_are_refused(client: httpx.Client, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name was made to point here says so in Host."""
    for path in ("/", "/api/avatars", "/healthz"):
        assert "allowed-host" in problem(client.get(path, headers={"Host": host}), 421)


def test_a_missing_or_second_host_is_refused(client: httpx.Client) -> None:
    assert b" 400 " in raw(client, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]
    assert b" 421 " in raw(client, b"GET /healthz HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
    two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 200 " not in raw(client, two).split(b"\r\n")[0]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:8460", "127.0.0.1"])
def test_own_names_are_taken(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_name_can_be_allowed(folder: Path) -> None:
    with serving(fake_settings(folder, allowed_hosts=("avatars.example",))) as client:
        assert client.get("/healthz", headers={"Host": "avatars.example:443"}).status_code == 200
        problem(client.get("/healthz", headers={"Host": "other.example"}), 421)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "http://localhost"]
)
def test_pages_of_other_origins_may_do_nothing(client: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin}
    before = client.get("/metrics").text.count("\n")
    for method, path in (("POST", "/api/jobs"), ("DELETE", f"/api/avatars/{'0' * 16}"), ("GET", "/api/avatars")):
        assert "another site" in problem(client.request(method, path, headers=headers), 403)
    answer = client.options("/api/jobs", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert answer.status_code >= 400 and not any("access-control" in name for name in answer.headers)
    assert before


def test_fetches_by_other_sites_are_refused_even_without_origin(client: httpx.Client) -> None:
    for site in ("cross-site", "same-site"):
        problem(client.get("/api/avatars", headers={"Sec-Fetch-Site": site}), 403)
        assert client.get("/", headers={"Sec-Fetch-Site": site}).status_code == 200  # a link to the page
    assert client.get("/api/avatars", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_own_page_may(client: httpx.Client) -> None:
    own = str(client.base_url).rstrip("/")
    answer = client.post("/api/photos", files={"files": ("a.jpg", b"good")}, headers={"Origin": own})
    assert answer.status_code == 200


def test_every_answer_carries_the_policy(client: httpx.Client) -> None:
    photo = upload(client, "good")[0]
    for path in ("/", "/healthz", "/nowhere", "/api/about", f"/api/photos/{photo}/crop", "/api/jobs/x", "/metrics"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY and "unsafe-inline" not in POLICY
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/api/avatars").headers["cache-control"] == "no-store"
    refused = client.get("/", headers={"Host": "evil"}).headers
    assert refused["content-security-policy"] == POLICY


@pytest.mark.parametrize(
    "path",
    ["/assets/../store.py", "/assets/..%2f..%2fserve%2fstore.py", "/assets/%2e%2e/app.py", "/assets//etc/passwd",
     "/webcam/../../lock", "/webcam/..%5c..%5clock", "/viewer/../serve/app.py", "/api/files/0/..%2f..%2flock",
     "/api/photos/..%2f..%2flock/crop", "/api/avatars/../jobs/container", "/api/films/..", "/api/jobs/%00"],
)  # fmt: skip
def test_paths_lead_nowhere_else(client: httpx.Client, path: str) -> None:
    answer = raw(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"404", b"405") and b"import annotations" not in answer


def test_requests_that_are_no_uploads_are_short(client: httpx.Client) -> None:
    long = b'{"kind":"reconstruct","photos":["' + b"x" * 70_000 + b'"]}'
    kind = {"Content-Type": "application/json"}
    assert "64 KB" in problem(client.post("/api/jobs", content=long, headers=kind), 413)
    assert "64 KB" in problem(client.post("/api/jobs", content=iter([long[:40_000], long[40_000:]]), headers=kind), 413)


def test_a_request_that_stops_arriving_is_ended(folder: Path) -> None:
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with serving(fake_settings(folder, pause_s=0.3)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as line:
            line.sendall(head)
            assert b" 408 " in line.recv(65536).split(b"\r\n")[0]


def test_a_token_opens_everything_and_nothing_else_does(folder: Path) -> None:
    with serving(fake_settings(folder, token=TOKEN)) as client:
        assert client.get("/api/about").status_code == 200
        for given in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \u00e9"):
            for path in ("/api/about", "/api/avatars", "/metrics", "/openapi.json"):
                answer = client.get(path, headers={"Authorization": given.encode()})
                problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/healthz", "/viewer/ff-avatar.js"):
            assert client.get(path, headers={"Authorization": ""}).status_code == 200


def test_the_cookie_stands_for_the_token_where_browsers_send_no_header(folder: Path) -> None:
    with serving(fake_settings(folder, token=TOKEN)) as client:
        problem(client.post("/api/session", headers={"Authorization": ""}), 401)
        answer = client.post("/api/session")
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
        own = str(client.base_url).rstrip("/")
        bare = {"Authorization": "", "Cookie": cookie.split(";")[0]}
        assert client.get("/api/avatars", headers=bare).status_code == 200
        name = {"name": "x"}
        url = f"/api/avatars/{'0' * 16}"
        assert "Origin" in problem(client.patch(url, json=name, headers=bare), 403)
        problem(client.patch(url, json=name, headers={**bare, "Origin": own}), 404)
        problem(client.get("/api/avatars", headers={**bare, "Cookie": f"{COOKIE}={TOKEN}"}), 401)
        problem(client.get("/api/avatars", headers={**bare, "Cookie": f"{COOKIE}=" + "0" * 64}), 401)


def test_the_cookie_outlives_a_restart_and_not_another_token() -> None:
    assert session_secret(TOKEN) == session_secret(TOKEN) != session_secret(TOKEN + "2")


def test_settings_that_would_be_unsafe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="token"):
        Settings(tmp_path, host="0.0.0.0")
    with pytest.raises(InputError, match="16"):
        Settings(tmp_path, token="short")
    assert "0.0.0.0" not in Settings(tmp_path, host="0.0.0.0", token=TOKEN).host_names


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_host_names_are_never_more_than_one_name(text: str) -> None:
    name = _host_name(text)
    assert name == name.lower()
    if name in ("localhost", "127.0.0.1"):
        assert text.lower().rstrip("0123456789").rstrip(":").rstrip(".") == name


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30), st.sampled_from(["127.0.0.1:8460", "localhost"]))
def test_only_the_own_origin_is_the_same(origin: str, host: str) -> None:
    expected = origin.lower() in (f"http://{host}", f"https://{host}")
    assert _same_origin([origin], host) == expected
    assert _same_origin([f"http://{host}"], host) and not _same_origin([f"http://{host}"] * 2, host)
