"""The real ``ffavatar serve`` in a process of its own, with the real model: photos in, avatars out, kills survived."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image
from served import create, read_events, wait_for
from skimage.data import astronaut

from ffavatar.avatar import Avatar
from ffavatar.drive.motion import demo_motion

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LONG_S = 240


def portrait(format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(astronaut()[:360, 60:420]).save(buffer, format)
    return buffer.getvalue()


def started(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    if not found:
        process.kill()
        raise AssertionError(f"no address: {line} {process.communicate()[1]}")
    return process, found[0]


def ended(process: subprocess.Popen[str], seconds: float = 30) -> int:
    """Its exit code; it must end by itself."""
    try:
        process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode


@contextmanager
def ffavatar_serve(folder: Path, *options: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    command = ["-m", "ffavatar", "serve", "--port", "0", "--no-browser", "--device", "cpu", "--folder", str(folder)]
    process, address = started([*command, *options])
    try:
        with httpx.Client(base_url=address.partition("#")[0], timeout=LONG_S) as client:
            yield client, process
    finally:
        process.kill()
        process.communicate()


def photos(client: httpx.Client) -> list[str]:
    answer = client.post("/api/photos", files={"files": ("me.jpg", portrait())})
    assert answer.status_code == 200, answer.text
    found = answer.json()["photos"]
    assert found[0]["kept"], found
    return [photo["id"] for photo in found]


def children(process: subprocess.Popen[str]) -> set[int]:
    """Ids of the processes that a server has started and that run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == process.pid and words[0] != "Z":
            found.add(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: set[int], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_a_photo_becomes_a_moving_avatar_and_every_file(tmp_path: Path) -> None:
    with ffavatar_serve(tmp_path / "s", "--steps", "20", "--token", "a token for a test") as (client, process):
        assert client.get("/api/about").status_code == 401
        client.headers["Authorization"] = "Bearer a token for a test"
        body = {"kind": "reconstruct", "photos": photos(client), "name": "Eileen", "personalize": True}
        job = create(client, body)
        events = read_events(client, job["id"], "0")
        assert events[-1][1] == "end" and events[-1][2]["state"] == "done", events[-1]
        stages = list(dict.fromkeys(data["stage"] for _, name, data in events if name == "job"))
        assert [stage for stage in stages if stage in ("reading photos", "reconstructing", "personalizing")] == [
            "reading photos", "reconstructing", "personalizing",
        ]  # fmt: skip
        made = [data for _, name, data in events if name == "avatar"]
        assert [data["version"] for data in made] == list(range(1, len(made) + 1)) and len(made) >= 2
        first, last = (tmp_path / name for name in ("first.safetensors", "last.safetensors"))
        first.write_bytes(client.get(made[0]["url"]).content)
        last.write_bytes(client.get(made[-1]["url"]).content)
        before, after = Avatar.load(first), Avatar.load(last)
        assert len(before) == len(after) == client.get(f"/api/avatars/{made[0]['avatar']}").json()["gaussians"]
        assert float((before.canonical.colors - after.canonical.colors).abs().mean()) > 1e-4
        picture = after.render(size=64).images[0]
        assert float(picture.std()) > 0.1
        avatar = made[0]["avatar"]
        assert not any(path.read_bytes()[:3] == b"\xff\xd8\xff" for path in tmp_path.rglob("*") if path.is_file())
        kinds = {"ply": b"ply\n", "glb": b"glTF", "mesh.glb": b"glTF", "spz": b"\x1f\x8b", "html": b"<!", "zip": b"PK"}
        for kind, magic in kinds.items():
            made = create(client, {"kind": "export", "avatar": avatar, "format": kind})
            done = wait_for(client, made["id"], seconds=LONG_S)
            assert done["state"] == "done", done
            assert client.get(done["files"][f"avatar.{kind}"]).content.startswith(magic)
        demo_motion(after.rig.head, 2.0, 10.0).save(tmp_path / "walk.npz")
        sent = client.post("/api/motions", files={"file": ("walk.npz", (tmp_path / "walk.npz").read_bytes())}).json()
        assert (sent["frames"], sent["seconds"]) == (20, 2.0)
        look = {"size": 96, "background": "transparent"}
        for kind, options in (("png", {"frame": -1}), ("gif", {})):
            order = {"kind": "export", "avatar": avatar, "format": kind, "motion": sent["id"], **look, **options}
            done = wait_for(client, create(client, order)["id"], seconds=LONG_S)
            assert done["state"] == "done", done
            with Image.open(io.BytesIO(client.get(done["files"][f"custom.{kind}"]).content)) as made:
                assert made.size == (96, 96) and getattr(made, "n_frames", 1) == (20 if kind == "gif" else 1)
                assert made.convert("RGBA").getchannel("A").getextrema() == (0, 255)
        process.send_signal(signal.SIGINT)
        assert ended(process) == 0


def test_driving_by_a_film(tmp_path: Path) -> None:
    from ffavatar.drive.motion import Motion
    from ffavatar.drive.video import FrameReader
    from ffavatar.drive.writer import FilmWriter

    driver = tmp_path / "driver.mp4"
    with FilmWriter(driver, 25, (360, 360)) as film:
        for shift in range(8):
            film.write(astronaut()[shift : 360 + shift, 60:420])
    with ffavatar_serve(tmp_path / "s") as (client, _):
        avatar = wait_for(
            client, create(client, {"kind": "reconstruct", "photos": photos(client)})["id"], seconds=LONG_S
        )
        film_id = client.post("/api/films", files={"file": ("d.mp4", driver.read_bytes())}).json()["id"]
        body = {"kind": "drive", "avatar": avatar["avatar"], "film": film_id, "size": 128}
        done = wait_for(client, create(client, body)["id"], seconds=LONG_S)
        assert done["state"] == "done", done
        for name in ("film.mp4", "motion.json"):
            (tmp_path / name).write_bytes(client.get(done["files"][name]).content)
        assert len(list(FrameReader(tmp_path / "film.mp4"))) == len(Motion.load(tmp_path / "motion.json")) == 8


def test_a_kill_loses_no_avatar_and_the_job_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with ffavatar_serve(folder, "--steps", "400") as (client, process):
        body = {"kind": "reconstruct", "photos": photos(client), "personalize": True}
        job = create(client, body, headers={"Idempotency-Key": "one"})
        end = time.monotonic() + LONG_S
        while not (made := client.get(f"/api/jobs/{job['id']}").json()["avatar"]) and time.monotonic() < end:
            time.sleep(0.1)
        assert made
        below = children(process)
        assert len(below) == 2
        process.kill()
        assert gone(below), "child processes outlive a killed server"
    with ffavatar_serve(folder, "--steps", "20") as (client, process):
        assert [avatar["id"] for avatar in client.get("/api/avatars").json()["avatars"]] == [made]
        (tmp_path / "a.safetensors").write_bytes(client.get(f"/api/avatars/{made}/container").content)
        assert len(Avatar.load(tmp_path / "a.safetensors")) > 1000
        assert create(client, body, headers={"Idempotency-Key": "one"})["id"] == job["id"]
        done = wait_for(client, job["id"], seconds=LONG_S)
        assert done["state"] == "done" and done["avatar"] == made, done
        assert len(client.get("/api/avatars").json()["avatars"]) == 1
        assert client.get(f"/api/avatars/{made}").json()["personalized"]


def test_a_polite_stop_during_a_job_sets_it_aside(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with ffavatar_serve(folder, "--grace", "0.5", "--steps", "400") as (client, process):
        job = create(client, {"kind": "reconstruct", "photos": photos(client), "personalize": True})
        wait_for(client, job["id"], "running", seconds=LONG_S)
        below = children(process)
        with client.stream("GET", f"/api/jobs/{job['id']}/events") as answer:
            next(answer.iter_lines())
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert ended(process) == 0
            assert time.monotonic() - began < 12
        assert gone(below)
    with ffavatar_serve(folder, "--grace", "0.5") as (client, process):
        found = wait_for(client, job["id"], "running", "queued")
        assert found["created"] == job["created"]
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
        assert wait_for(client, job["id"])["state"] == "cancelled"


def test_a_taken_port_and_a_taken_folder_are_said(tmp_path: Path) -> None:
    with ffavatar_serve(tmp_path / "s") as (client, _):
        command = [sys.executable, "-m", "ffavatar", "serve", "--no-browser"]
        taken = [*command, "--folder", str(tmp_path / "t"), "--port", str(client.base_url.port)]
        for arguments, words in (
            (taken, "--port"),
            ([*command, "--port", "0", "--folder", str(tmp_path / "s")], "--folder"),
        ):
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
            assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_the_client_example_works_as_written(tmp_path: Path) -> None:
    (tmp_path / "front.jpg").write_bytes(portrait())
    with ffavatar_serve(tmp_path / "s") as (client, _):
        example = [sys.executable, str(ROOT / "examples" / "serve_client.py"), str(client.base_url), "front.jpg"]
        done = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, timeout=LONG_S)
        assert done.returncode == 0, done.stderr
        count = len(Avatar.load(tmp_path / "me.safetensors"))
        assert done.stdout.strip() == f"me.safetensors: {count:,} Gaussians"
