"""Exports as jobs of a running server: poses, motions, and what is refused before it waits."""

from __future__ import annotations

import httpx
import pytest
from served import create, make_avatar, problem, upload, wait_for

from ffavatar.serve.records import ExportRequest
from ffavatar.serve.tasks import same_request


@pytest.fixture(scope="module")
def shared_avatar(client: httpx.Client) -> str:
    return make_avatar(client)


def upload_motion(client: httpx.Client, text: bytes = b"good") -> str:
    answer = client.post("/api/motions", files={"file": ("walk.json", text)})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_an_export_takes_a_pose_a_motion_and_a_scale(client: httpx.Client) -> None:
    avatar = make_avatar(client)
    asked = {"kind": "export", "avatar": avatar}
    for options, told in (
        (
            {"format": "obj", "yaw": 30, "expression": {"jawOpen": 0.5}},
            "(30.0, 0.0, 0.0) {'jawOpen': 0.5}  None 1.0 512",
        ),
        ({"format": "ply", "scale": 10, "pitch": -5.5}, "(0.0, -5.5, 0.0) {}  None 10.0 512"),
        ({"format": "spz", "motion": upload_motion(client), "frame": -1}, "{} motion.json -1 1.0 512"),
        ({"format": "glb", "motion": upload_motion(client, b"PK good")}, "{} motion.npz None 1.0 512"),
        ({"format": "webm", "motion": upload_motion(client), "size": 256, "background": "transparent"}, "256 transp"),
        ({"format": "png", "size": 2048, "background": "#ff8000"}, "2048 #ff8000 False"),
        ({"format": "usda", "allow_flame": True}, "white True"),
    ):
        done = wait_for(client, create(client, {**asked, **options})["id"])
        assert done["state"] == "done" and told in done["notes"][0], done
        assert list(done["files"]) == [f"custom.{options['format']}"]
    plain = wait_for(client, create(client, {**asked, "format": "obj", "yaw": 0, "scale": 1.0})["id"])
    assert list(plain["files"]) == ["avatar.obj"]  # beside the posed one
    assert {"avatar.obj", "custom.obj"} <= set(client.get(f"/api/avatars/{avatar}").json()["files"])


def test_an_export_takes_the_motion_of_a_film(client: httpx.Client) -> None:
    film = client.post("/api/films", files={"file": ("me.mp4", b"good film")}).json()
    avatar = make_avatar(client)
    driven = create(client, {"kind": "drive", "avatar": avatar, "film": film["id"]})
    wait_for(client, driven["id"], "done")
    done = wait_for(
        client, create(client, {"kind": "export", "avatar": avatar, "format": "glb", "motion": driven["id"]})["id"]
    )
    assert done["state"] == "done" and "motion.json" in done["notes"][0]


def test_motions_are_uploads_as_films_are(client: httpx.Client) -> None:
    motion = client.post("/api/motions", files={"file": ("a/walk.json", b"good walk")}).json()
    assert motion == {"id": motion["id"], "name": "walk.json", "frames": 50, "fps": 25.0, "seconds": 2.0}
    assert client.get(f"/api/motions/{motion['id']}").json() == motion
    assert problem(client.post("/api/motions", files={"file": ("x.json", b"bad")}), 422) == "x.json is no motion."
    assert client.delete(f"/api/motions/{motion['id']}").status_code == 204
    problem(client.get(f"/api/motions/{motion['id']}"), 404)
    avatar = make_avatar(client)
    gone = {"kind": "export", "avatar": avatar, "format": "glb", "motion": motion["id"]}
    assert "motion" in problem(client.post("/api/jobs", json=gone), 404)


def test_what_a_waiting_export_needs_cannot_be_deleted(client: httpx.Client) -> None:
    avatar, motion = make_avatar(client), upload_motion(client, b"good stays")
    slow = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow stays")})
    waiting = create(client, {"kind": "export", "avatar": avatar, "format": "glb", "motion": motion})
    assert "cancel" in problem(client.delete(f"/api/motions/{motion}"), 409)
    for job in (waiting, slow):
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert client.delete(f"/api/motions/{motion}").status_code == 204


MOTION = "0" * 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "ply", "yaw": 181}, "yaw: 181 is out of range; give a number from -180 to 180."),
        ({"format": "ply", "roll": -90.5}, "-90 to 90"),
        ({"format": "ply", "expression": {"jawOpen": 4}}, "expression 'jawOpen': 4 is out of range"),
        ({"format": "ply", "expression": {str(n): 0.1 for n in range(201)}}, "200"),
        ({"format": "ply", "expression": {"jawOpen": "wide"}}, "expression"),
        ({"format": "ply", "scale": 0}, "0.0001 to 10000"),
        ({"format": "png", "scale": 2}, "scale"),
        ({"format": "zip", "scale": 2}, "scale"),
        ({"format": "ply", "yaw": 5, "motion": MOTION}, "not both"),
        ({"format": "ply", "frame": 5}, "frame"),
        ({"format": "ply", "motion": MOTION}, "one moment"),
        ({"format": "ply", "motion": MOTION, "frame": 10**9}, "out of range"),
        ({"format": "html", "yaw": 5}, "whole avatar"),
        ({"format": "zip", "motion": MOTION, "frame": 0}, "whole avatar"),
        ({"format": "mp4"}, "needs one"),
        ({"format": "mp4", "yaw": 5}, "whole motion"),
        ({"format": "gif", "motion": MOTION, "frame": 1}, "whole motion"),
        ({"format": "png", "size": 32}, "64 to 4096"),
        ({"format": "webp", "motion": MOTION, "size": 1025}, "1024"),
        ({"format": "obj", "size": 512}, "no picture"),
        ({"format": "obj", "background": "black"}, "background"),
        ({"format": "png", "background": "pink"}, "'pink' is no background"),
        ({"format": "jpg", "background": "transparent"}, "transparency"),
        ({"format": "glb", "motion": "../../x", "frame": 0}, "motion"),
    ],
)
def test_exports_that_cannot_be_are_refused_before_they_wait(
    client: httpx.Client, shared_avatar: str, options: dict[str, object], words: str
) -> None:
    answer = client.post("/api/jobs", json={"kind": "export", "avatar": shared_avatar, **options})
    assert words in problem(answer, 404 if "../" in str(options) else 422)


def test_numbers_that_are_none_are_refused(client: httpx.Client, shared_avatar: str) -> None:
    for text in ("NaN", "Infinity", "1e999"):
        body = f'{{"kind": "export", "avatar": "{shared_avatar}", "format": "ply", "scale": {text}}}'
        answer = client.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
        assert "scale" in problem(answer, 422)


def test_a_record_of_an_older_version_still_answers_its_key() -> None:
    old = {"kind": "export", "avatar": "0" * 16, "format": "ply"}
    request = ExportRequest("export", "0" * 16, "ply")
    assert same_request(old, request)
    assert not same_request({**old, "yaw": 3.0}, request) and not same_request({**old, "later": 1}, request)
    assert not same_request({**old, "kind": "drive"}, request)
