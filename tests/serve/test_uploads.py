"""Uploads: counted while they arrive, judged in a child process, deleted in time."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from served import create, fake_settings, problem, serving, upload

from ffavatar.serve.records import clean_name


def form(*parts: tuple[str, str, bytes], boundary: str = "xyz") -> bytes:
    """A multipart body by hand."""
    out = b""
    for field, name, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        out += head.encode() + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


KIND = {"Content-Type": "multipart/form-data; boundary=xyz"}


BEGUN = (
    b"POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    b"Content-Type: multipart/form-data; boundary=xyz\r\n\r\n" + form(("files", "a.jpg", b"good"))[:80]
)


def incoming(folder: Path) -> list[str]:
    return os.listdir(folder / "incoming")


def test_photos_are_judged_one_by_one(client: httpx.Client) -> None:
    files = [
        ("files", (name, text)) for name, text in (("../../a.jpg", b"good"), ("b\r\n.png", b"bad"), ("", b"bad 2"))
    ]
    body = form(*((field, name.replace("\r\n", "%0D%0A"), text) for field, (name, text) in files))
    answer = client.post("/api/photos", content=body, headers=KIND).json()["photos"]
    good, bad, unnamed = answer
    assert (
        good["name"] == "a.jpg"
        and good["kept"]
        and good["reason"] is None
        and (good["width"], good["faces"]) == (64, 1)
    )
    assert client.get(good["crop"]).content == b"crop" and client.get(good["matte"]).content == b"matte"
    assert client.get(good["crop"]).headers["content-type"] == "image/webp"
    assert not bad["kept"] and bad["crop"] is bad["matte"] is None and "no photo" in bad["reason"]
    assert unnamed["name"] == "file 3"
    assert client.get(f"/api/photos/{good['id']}").json() == good
    again = client.post("/api/photos", content=form(("files", "other.jpg", b"good")), headers=KIND).json()["photos"][0]
    assert again["id"] == good["id"] and again["name"] == "other.jpg"  # the id is the content's


def test_the_face_is_part_of_the_id(client: httpx.Client) -> None:
    one, other = (
        client.post(f"/api/photos?face={face}", files={"files": ("a", b"good group")}).json()["photos"][0]["id"]
        for face in (0, 2)
    )
    assert one.endswith("-0") and other.endswith("-2") and one[:-2] == other[:-2]
    problem(client.post("/api/photos?face=100", files={"files": ("a", b"good")}), 422)


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{}", {"Content-Type": "application/json"}, 415, "multipart"),
        (b"", {"Content-Type": "multipart/form-data"}, 415, "multipart"),
        (form(), KIND, 422, "No file"),
        (form(("file", "a", b"x")), KIND, 422, "'files'"),
        (form(("files", "a", b"x"))[:-9], KIND, 400, "ended"),
        (b"garbage" * 100, KIND, 400, "damaged"),
        (form(*[("files", "a", b"good")] * 17), KIND, 413, "16"),
        (form(("files", "a" * 20_000, b"x")), KIND, 400, ""),
        (b"--xyz\r\n" + b"A: b\r\n" * 4000 + b"\r\n", KIND, 400, ""),
    ],
)
def test_bad_forms_are_refused(client: httpx.Client, body: bytes, headers: dict, status: int, words: str) -> None:
    assert words in problem(client.post("/api/photos", content=body, headers=headers), status)


def test_too_long_files_are_refused_while_they_arrive(folder: Path) -> None:
    with serving(fake_settings(folder, photo_bytes=1_000_000)) as client:
        body = form(("files", "a.jpg", bytes(1_000_001)))
        said = problem(client.post("/api/photos", content=body, headers=KIND), 413)
        assert "a.jpg" in said and "MB" in said
        sent = 0

        def endless():
            nonlocal sent
            yield form(("files", "a.jpg", b""))[:-11]
            while sent < 200_000_000:
                sent += 65536
                yield bytes(65536)

        try:
            problem(client.post("/api/photos", content=endless(), headers=KIND), 413)
        except httpx.TransportError:
            pass  # the server did not wait for the rest
        assert sent < 50_000_000
        assert incoming(folder) == []
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as line:
            head = "POST /api/photos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n"
            line.sendall(f"{head}Content-Type: {KIND['Content-Type']}\r\n\r\n".encode())
            assert line.recv(65536).split(b" ")[1] in (b"413", b"507")  # before a byte of it


def test_a_sender_that_falls_silent_is_let_go(folder: Path) -> None:
    with serving(fake_settings(folder, pause_s=0.3)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as line:
            line.sendall(BEGUN)
            assert b" 408 " in line.recv(65536).split(b"\r\n")[0]
        assert incoming(folder) == []


def test_a_sender_that_goes_away_leaves_nothing(folder: Path) -> None:
    with serving(fake_settings(folder)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as line:
            line.sendall(BEGUN)
            deadline = time.monotonic() + 20
            while not incoming(folder) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert incoming(folder)
        while incoming(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert incoming(folder) == []
        assert client.get("/healthz").status_code == 200


def test_what_kills_or_stalls_the_checker_is_refused_and_the_next_photo_is_taken(folder: Path) -> None:
    with serving(fake_settings(folder, check_s=2.0)) as client:
        for number, words in enumerate(("die", "hang")):
            answer = client.post("/api/photos", files={"files": ("a.jpg", words.encode())}).json()["photos"][0]
            assert not answer["kept"] and "too much memory or time" in answer["reason"]
            assert upload(client, f"good {number}")
        film = client.post("/api/films", files={"file": ("a.mp4", b"die")})
        assert "too much memory or time" in problem(film, 422)
        metrics = client.get("/metrics").text
        # what kills a process that was already there gets a second, fresh one: the first may have died of another cause
        ends = re.search(r'ffavatar_child_ends_total\{child="checker"\} (\S+)', metrics)
        assert ends and float(ends[1]) == 5
        assert 'ffavatar_uploads_total{kind="photo",verdict="kept"} 2.0' in metrics


def test_films(client: httpx.Client) -> None:
    film = client.post("/api/films", files={"file": ("..\\x/me.mp4", b"good")}).json()
    assert film["name"] == "me.mp4" and (film["width"], film["fps"]) == (64, 25.0)
    assert client.get(f"/api/films/{film['id']}").json() == film
    assert "is no film" in problem(client.post("/api/films", files={"file": ("a.mp4", b"bad")}), 422)
    two = [("file", ("a", b"good")), ("file", ("b", b"good"))]
    assert "More than 1" in problem(client.post("/api/films", files=two), 413)
    assert client.delete(f"/api/films/{film['id']}").status_code == 204
    problem(client.get(f"/api/films/{film['id']}"), 404)


def test_uploads_are_deleted_in_time_but_not_under_a_job(folder: Path) -> None:
    with serving(fake_settings(folder, keep_uploads_s=2.0)) as client:
        needed, idle = upload(client, "good slow", "good")
        job = create(client, {"kind": "reconstruct", "photos": [needed]})
        deadline = time.monotonic() + 30
        while client.get(f"/api/photos/{idle}").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        problem(client.get(f"/api/photos/{idle}"), 404)
        time.sleep(1.0)
        assert client.get(f"/api/photos/{needed}").status_code == 200
        client.delete(f"/api/jobs/{job['id']}")
        while client.get(f"/api/photos/{needed}").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert os.listdir(folder / "photos") == []


def test_a_full_disk_and_a_full_store_are_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffavatar.serve.store._COUNT_AGAIN_S", 0.0)
    with serving(fake_settings(folder, free_bytes=2**62)) as client:
        assert "disk" in problem(client.post("/api/photos", files={"files": ("a", b"good")}), 507)
    with serving(fake_settings(folder, stored_bytes=1)) as client:
        upload(client, "good")
        answer = client.post("/api/photos", files={"files": ("a", b"good")})
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0


def test_uploads_that_would_wait_too_long_are_told_to_return(folder: Path) -> None:
    with serving(fake_settings(folder, checks=2, check_s=2.0)) as client:
        upload(client, "good")
        statuses: list[int] = []

        def send() -> None:
            statuses.append(client.post("/api/photos", files={"files": ("a", b"hang")}).status_code)

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        while "ffavatar_checks_waiting 2.0" not in client.get("/metrics").text:
            time.sleep(0.02)
        answer = client.post("/api/photos", files={"files": ("a", b"good")})
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        for thread in threads:
            thread.join()
        assert statuses == [200, 200]


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a.jpg", "a.jpg"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.png", "y.png"), ("a\x00\x1b[31mb", "a [31mb"),
     ("", "else"), ("/", "else"), ("  x \n y ", "x y"), ("\u202egpj.exe", "gpj.exe"), ("n" * 500, "n" * 120)],
)  # fmt: skip
def test_names_are_for_showing(given: str, shown: str) -> None:
    assert clean_name(given, "else") == shown
