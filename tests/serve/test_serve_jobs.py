"""Jobs over HTTP: creation, queue, cancelling, accidents, restarts."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from served import create, fake_settings, make_avatar, problem, read_events, serving, upload, wait_for

from ffavatar.serve.store import Store


def test_photos_become_an_avatar(client: httpx.Client) -> None:
    photos = upload(client, "good one", "good two")
    answer = client.post("/api/jobs", json={"kind": "reconstruct", "photos": photos, "name": "  Ann\n<b>  "})
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/jobs/{job['id']}" and job["created"].endswith("Z")
    done = wait_for(client, job["id"])
    assert done["state"] == "done" and done["finished"] >= done["created"] and done["notes"] == ["one note"]
    avatar = client.get(f"/api/avatars/{done['avatar']}").json()
    assert avatar["name"] == "Ann <b>" and avatar["version"] == 1 and not avatar["personalized"]
    assert avatar in client.get("/api/avatars").json()["avatars"]
    assert len(client.get(avatar["container"]).content) == avatar["bytes"]
    assert client.get(avatar["thumbnail"]).content == b"thumbnail"


def test_refinement_gives_newer_versions_while_it_runs(client: httpx.Client) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good refined"), "personalize": True})
    events = read_events(client, job["id"], "0")
    versions = [data["version"] for _, name, data in events if name == "avatar"]
    assert versions == [1, 2, 3, 4]
    last = [data for _, name, data in events if name == "avatar"][-1]
    assert client.get(last["url"]).status_code == 200
    avatar = client.get(f"/api/avatars/{last['avatar']}").json()
    assert avatar["version"] == 4 and avatar["personalized"]


def test_one_of_the_photos_is_named_for_its_look(client: httpx.Client) -> None:
    *photos, other = upload(client, "good monday", "good tuesday", "good other")
    body = {"kind": "reconstruct", "photos": photos, "look": photos[1]}
    done = wait_for(client, create(client, body)["id"])
    assert done["state"] == "done" and done["notes"] == ["look 1"]
    for wrong in (other, "0" * 32 + "-0", "", "../etc/passwd"):
        refused = problem(client.post("/api/jobs", json={**body, "look": wrong}), 422)
        assert refused == "look: it is none of the job's photos; give the id of one of them, or leave it away."
    assert "look" in problem(client.post("/api/jobs", json={**body, "look": 1}), 422)
    done = wait_for(client, create(client, {**body, "look": None})["id"])
    assert done["notes"] == ["one note"]


@pytest.mark.parametrize(
    ("words", "state", "personalized", "said"),
    [
        ("good slow stopped", "cancelled", True, "was stopped before the end; what it had reached is kept"),
        ("good fails-late", "failed", True, "failed before the end; what it had reached is kept"),
        ("good fails", "failed", False, "failed before the end; the avatar is as it was before"),
        ("good useless", "done", False, "did not help"),
        ("good whole", "done", True, None),
    ],
)
def test_a_refinement_that_ends_early_says_so(
    folder: Path, words: str, state: str, personalized: bool, said: str | None
) -> None:
    with serving(fake_settings(folder)) as client:
        avatar = make_avatar(client)
        job = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, words)})
        if state == "cancelled":
            wait_for_stage(client, job["id"], "working")
            client.delete(f"/api/jobs/{job['id']}")
        ended = wait_for(client, job["id"])
        assert ended["state"] == state
    with serving(fake_settings(folder)) as client:  # kept over a restart
        found = client.get(f"/api/avatars/{avatar}").json()
        assert found["personalized"] is personalized
        if said is None:
            assert found["note"] is None
            return
        assert said in found["note"] and found["note"] in ended["notes"]
        # one that comes to its end takes the sentence away
        job = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, "good again")})
        wait_for(client, job["id"], "done")
        assert client.get(f"/api/avatars/{avatar}").json()["note"] is None


def wait_for_stage(client: httpx.Client, job: str, stage: str, seconds: float = 60) -> None:
    """Until a running job is there."""
    end = time.monotonic() + seconds
    while client.get(f"/api/jobs/{job}").json()["stage"] != stage:
        assert time.monotonic() < end, f"the job does not come to {stage}"
        time.sleep(0.02)


def test_old_versions_go_and_the_first_stays(client: httpx.Client) -> None:
    avatar = make_avatar(client)
    for _ in range(2):
        job = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, "good")})
        assert wait_for(client, job["id"])["state"] == "done"
    url = f"/api/avatars/{avatar}/container"
    there = [version for version in range(1, 8) if client.get(f"{url}?version={version}").status_code == 200]
    assert there == [1, 5, 6, 7]
    assert "newest, 7" in problem(client.get(f"{url}?version=3"), 404)


def test_results_are_files(client: httpx.Client) -> None:
    avatar = make_avatar(client)
    job = create(client, {"kind": "export", "avatar": avatar, "format": "ply"})
    files = wait_for(client, job["id"])["files"]
    assert list(files) == ["avatar.ply"]
    whole = client.get(files["avatar.ply"])
    assert whole.content == bytes(range(256)) and whole.headers["content-disposition"] == 'attachment; filename="A.ply"'
    part = client.get(files["avatar.ply"], headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))
    assert part.headers["content-range"] == "bytes 10-19/256"
    assert client.get(files["avatar.ply"], headers={"Range": "bytes=300-"}).status_code == 416
    kept = client.get(files["avatar.ply"], headers={"If-None-Match": whole.headers["etag"]})
    assert kept.status_code == 304 and not kept.content
    resumed = {"Range": "bytes=250-", "If-Range": whole.headers["etag"]}
    assert client.get(files["avatar.ply"], headers=resumed).content == bytes(range(250, 256))
    assert client.get(f"/api/avatars/{avatar}").json()["files"] == files
    assert client.delete(f"/api/files/{job['id']}").status_code == 204
    problem(client.get(files["avatar.ply"]), 404)
    problem(client.get(f"/api/jobs/{job['id']}"), 404)


def test_containers_come_in_ranges_too(client: httpx.Client) -> None:
    avatar = client.get(f"/api/avatars/{make_avatar(client)}").json()
    whole = client.get(avatar["container"])
    half = len(whole.content) // 2
    assert whole.headers["accept-ranges"] == "bytes" and "immutable" in whole.headers["cache-control"]
    one = client.get(avatar["container"], headers={"Range": f"bytes=0-{half - 1}"})
    rest = {"Range": f"bytes={half}-", "If-Range": whole.headers["etag"]}
    other = client.get(avatar["container"], headers=rest)
    assert one.status_code == other.status_code == 206 and one.content + other.content == whole.content
    assert client.get(avatar["container"], headers={**rest, "If-Range": '"other"'}).content == whole.content
    head = client.head(avatar["container"])
    assert int(head.headers["content-length"]) == len(whole.content) and not head.content


def test_driving_by_a_film(client: httpx.Client) -> None:
    film = client.post("/api/films", files={"file": ("me.mp4", b"good film")}).json()
    assert film["seconds"] == 1.0 and film["name"] == "me.mp4"
    avatar = make_avatar(client)
    job = create(client, {"kind": "drive", "avatar": avatar, "film": film["id"], "size": 256})
    done = wait_for(client, job["id"])
    assert set(done["files"]) == {"film.mp4", "motion.json"} and done["notes"] == ["relative False, same person False"]
    for relative, same in ((True, False), (False, True)):
        options = {"relative": relative, "same_person": same}
        job = create(client, {"kind": "drive", "avatar": avatar, "film": film["id"], **options})
        assert wait_for(client, job["id"])["notes"] == [f"relative {relative}, same person {same}"]
    odd = client.post("/api/jobs", json={"kind": "drive", "avatar": avatar, "film": film["id"], "size": 255})
    assert "even number" in problem(odd, 422)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"kind": "reconstruct", "photos": []}, 422, "1 to 16"),
        ({"kind": "reconstruct", "photos": ["0" * 32 + "-0"]}, 404, "photo"),
        ({"kind": "reconstruct", "photos": ["../../../etc/passwd"]}, 404, "photo"),
        ({"kind": "reconstruct", "photos": "abc"}, 422, "photos"),
        ({"kind": "personalize", "avatar": "0" * 16, "photos": []}, 404, "avatar"),
        ({"kind": "export", "avatar": "../x", "format": "ply"}, 404, "avatar"),
        ({"kind": "export", "avatar": "0" * 16, "format": "exe"}, 422, "format"),
        ({"kind": "explode"}, 422, "explode"),
        ({"kind": "reconstruct", "photos": ["a"], "personalise": True}, 422, "personalise"),
        ([], 422, ""),
    ],
)
def test_bad_jobs_are_refused_in_one_sentence(client: httpx.Client, body: object, status: int, words: str) -> None:
    assert words in problem(client.post("/api/jobs", json=body), status)


def test_refused_and_double_photos_make_no_job(client: httpx.Client) -> None:
    bad, good = upload(client, "bad", "good")
    assert "0.jpg is no photo" in problem(client.post("/api/jobs", json={"kind": "reconstruct", "photos": [bad]}), 422)
    assert "once" in problem(client.post("/api/jobs", json={"kind": "reconstruct", "photos": [good, good]}), 422)
    assert problem(client.post("/api/jobs", content=b"{", headers={"Content-Type": "application/json"}), 422)


def test_one_key_makes_one_job_however_many_race(client: httpx.Client) -> None:
    body = {"kind": "reconstruct", "photos": upload(client, "good race")}
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(client.post("/api/jobs", json=body, headers={"Idempotency-Key": "race"}))

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    other = client.post("/api/jobs", json={**body, "name": "B"}, headers={"Idempotency-Key": "race"})
    assert "new key" in problem(other, 409)
    problem(client.post("/api/jobs", json=body, headers={"Idempotency-Key": "k" * 201}), 422)


def test_failure_is_one_sentence_and_the_worker_goes_on(client: httpx.Client) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good fails")})
    failed = wait_for(client, job["id"])
    assert failed["state"] == "failed" and failed["error"] == "These photos are of no use; take others."
    assert failed["avatar"] is None
    crashed = create(client, {"kind": "reconstruct", "photos": upload(client, "good crash")})
    found = wait_for(client, crashed["id"])
    assert found["state"] == "failed" and "process ended" in found["error"]
    make_avatar(client)


def test_a_full_queue_says_when_to_return(folder: Path) -> None:
    with serving(fake_settings(folder, queue=2)) as client:
        photos = upload(client, "good slow")
        first = create(client, {"kind": "reconstruct", "photos": photos})
        wait_for(client, first["id"], "running")
        waiting = [create(client, {"kind": "reconstruct", "photos": photos}) for _ in range(2)]
        assert [client.get(f"/api/jobs/{job['id']}").json()["position"] for job in waiting] == [1, 2]
        answer = client.post("/api/jobs", json={"kind": "reconstruct", "photos": photos})
        problem(answer, 503)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "ffavatar_queue_length 2.0" in client.get("/metrics").text
        assert client.delete(f"/api/jobs/{waiting[0]['id']}").status_code == 204
        assert client.get(f"/api/jobs/{waiting[0]['id']}").json()["state"] == "cancelled"
        assert client.get(f"/api/jobs/{waiting[1]['id']}").json()["position"] == 1
        for job in (first, waiting[1]):
            client.delete(f"/api/jobs/{job['id']}")


def test_cancelling_is_prompt_even_where_the_work_does_not_listen(client: httpx.Client) -> None:
    for words in ("good slow", "good stuck"):  # the second sleeps for a minute
        job = create(client, {"kind": "reconstruct", "photos": upload(client, words)})
        wait_for(client, job["id"], "running")
        began = time.monotonic()
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204
        assert time.monotonic() - began < 10
        found = client.get(f"/api/jobs/{job['id']}").json()
        assert found["state"] == "cancelled" and found["error"] is None
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204  # again: nothing happens
    assert client.delete(f"/api/jobs/{'0' * 16}").status_code == 404
    make_avatar(client)  # a new process took the place of the killed one


def test_an_avatar_can_be_deleted_while_a_job_uses_it(client: httpx.Client, folder: Path) -> None:
    avatar = make_avatar(client)
    job = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, "good slow")})
    wait_for(client, job["id"], "running")
    assert client.delete(f"/api/avatars/{avatar}").status_code == 204
    problem(client.get(f"/api/avatars/{avatar}"), 404)
    problem(client.get(f"/api/avatars/{avatar}/container"), 404)
    problem(client.get(f"/api/jobs/{job['id']}"), 404)
    problem(client.delete(f"/api/avatars/{avatar}"), 404)


def test_two_refinements_of_one_avatar_run_one_after_the_other(folder: Path) -> None:
    with serving(fake_settings(folder, devices=("cpu", "cpu"))) as client:
        avatar = make_avatar(client)
        slow = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, "good slow")})
        wait_for(client, slow["id"], "running")
        second = create(client, {"kind": "personalize", "avatar": avatar, "photos": upload(client, "good")})
        other = make_avatar(client, "good other")  # the other worker is free for other avatars
        assert other != avatar and client.get(f"/api/jobs/{second['id']}").json()["state"] == "queued"
        client.delete(f"/api/jobs/{slow['id']}")
        assert wait_for(client, second["id"])["state"] == "done"
        assert client.get(f"/api/avatars/{avatar}").json()["version"] == 7


def test_photos_of_a_job_cannot_be_deleted_under_it(client: httpx.Client) -> None:
    photos = upload(client, "good slow and needed")
    job = create(client, {"kind": "reconstruct", "photos": photos})
    assert "cancel the job" in problem(client.delete(f"/api/photos/{photos[0]}"), 409)
    client.delete(f"/api/jobs/{job['id']}")
    assert client.delete(f"/api/photos/{photos[0]}").status_code == 204
    problem(client.get(f"/api/photos/{photos[0]}"), 404)


def test_what_takes_too_long_is_given_up(folder: Path) -> None:
    with serving(fake_settings(folder, job_s=0.5)) as client:
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
        found = wait_for(client, job["id"])
        assert found["state"] == "failed" and "longer than" in found["error"]


def test_stopping_sets_the_running_job_aside_and_the_next_start_takes_it_up(folder: Path) -> None:
    settings = fake_settings(folder)
    with serving(settings) as client:
        avatar = make_avatar(client)
        key = {"Idempotency-Key": "kept"}
        photos = upload(client, "good slow")
        body = {"kind": "reconstruct", "photos": photos, "personalize": True}
        job = create(client, body, headers=key)
        wait_for(client, job["id"], "running")
        while client.get(f"/api/jobs/{job['id']}").json()["stage"] != "working":
            time.sleep(0.02)
        waiting = create(client, {"kind": "export", "avatar": avatar, "format": "spz"})
        made = client.get(f"/api/jobs/{job['id']}").json()["avatar"]
    kept = json.loads((folder / "jobs" / job["id"] / "job.json").read_text())
    assert kept["state"] == "queued" and kept["attempts"] == 0
    with serving(settings) as client:
        assert {a["id"] for a in client.get("/api/avatars").json()["avatars"]} == {avatar, made}
        found = wait_for(client, job["id"], "running")
        assert found["avatar"] == made  # the same avatar, not one more
        assert create(client, body, headers=key)["id"] == job["id"]
        client.delete(f"/api/jobs/{job['id']}")
        assert wait_for(client, waiting["id"])["state"] == "done"
        assert len(client.get("/api/avatars").json()["avatars"]) == 2


STOPPABLE = """
import sys
from dataclasses import replace
from pathlib import Path
from served import fake_settings
from ffavatar.serve.server import run
run(replace(fake_settings(Path(sys.argv[1])), grace_s=120.0, port=0), lambda text: print(text, flush=True))
"""


def test_a_second_interrupt_does_not_wait_for_the_running_job(folder: Path) -> None:
    """It is set aside all the same, and the processes end with the server."""
    command = [sys.executable, "-c", STOPPABLE, str(folder)]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        with httpx.Client(base_url=found[0], timeout=60) as client:
            job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
            wait_for_stage(client, job["id"], "working")
        process.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert process.poll() is None  # within the time of grace
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert json.loads((folder / "jobs" / job["id"] / "job.json").read_text())["state"] in ("queued", "running")
    with serving(fake_settings(folder)) as client:
        assert wait_for(client, job["id"], "running")["created"] == job["created"]
        client.delete(f"/api/jobs/{job['id']}")


def test_a_job_that_twice_saw_the_server_die_is_not_tried_again(folder: Path) -> None:
    settings = fake_settings(folder)
    with serving(settings) as client:
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow")})
        wait_for(client, job["id"], "running")
    path = folder / "jobs" / job["id"] / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running", "attempts": 2}))
    with serving(settings) as client:
        found = client.get(f"/api/jobs/{job['id']}").json()
        assert found["state"] == "failed" and "twice" in found["error"]


def test_a_job_whose_photos_are_gone_fails_by_itself(folder: Path) -> None:
    settings = fake_settings(folder)
    with serving(settings) as client:
        photos = upload(client, "good slow")
        job = create(client, {"kind": "reconstruct", "photos": photos})
        wait_for(client, job["id"], "running")
    (folder / "photos" / photos[0] / "photo.json").rename(folder / "photos" / "gone")
    for path in (folder / "photos" / photos[0]).iterdir():
        path.unlink()
    (folder / "photos" / photos[0]).rmdir()
    with serving(settings) as client:
        found = wait_for(client, job["id"])
        assert found["state"] == "failed" and "upload them again" in found["error"]


def test_a_worker_that_cannot_start_fails_jobs_and_not_the_server(folder: Path) -> None:
    with serving(fake_settings(folder, worker=("/nonexistent/program",))) as client:
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good")})
        assert "No worker" in wait_for(client, job["id"])["error"]
        assert client.get("/healthz").json() == {"status": "ok"}


def test_a_full_disk_fails_the_job_in_one_sentence_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(fake_settings(folder)) as client:
        photos = upload(client, "good")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_avatar", full)
            found = wait_for(client, create(client, {"kind": "reconstruct", "photos": photos})["id"])
            assert found["state"] == "failed" and found["error"].startswith("The disk is full")
            patch.setattr(Store, "save_photo", full)
            assert "disk is full" in problem(client.post("/api/photos", files={"files": ("a", b"good 2")}), 507)
            patch.setattr(Store, "save_job", full)
            problem(client.post("/api/jobs", json={"kind": "reconstruct", "photos": photos}), 507)
        make_avatar(client)
        assert client.get("/api/avatars").json()["avatars"]
        assert [path.name for path in (folder / "incoming").iterdir()] == []


def test_processes_that_died_while_idle_cost_nobody_anything(folder: Path) -> None:
    """An out-of-memory killer takes both children; the next photo and the next job do not notice."""
    with serving(fake_settings(folder)) as client:
        make_avatar(client)
        killed = 0
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mine = f"\nPPid:\t{os.getpid()}\n" in (path / "status").read_text()
                if mine and b"fakes.py" in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
                    killed += 1
        assert killed >= 2
        make_avatar(client, "good again")


def test_the_same_photo_sent_again_does_not_disturb_a_job(client: httpx.Client, folder: Path) -> None:
    job = create(client, {"kind": "reconstruct", "photos": upload(client, "good slow twice")})
    wait_for(client, job["id"], "running")
    again = client.post("/api/photos", files={"files": ("new.jpg", b"good slow twice")}).json()["photos"][0]
    assert again["name"] == "new.jpg" and client.get(again["crop"]).content == b"crop"
    assert 'verdict="known"}' in client.get("/metrics").text  # it was not looked at again
    client.delete(f"/api/jobs/{job['id']}")


def test_a_job_can_be_cancelled_before_its_process_is_there(folder: Path) -> None:
    slow = (sys.executable, "-c", "import time; time.sleep(30)")
    with serving(fake_settings(folder, worker=slow)) as client:
        time.sleep(0.1)
        job = create(client, {"kind": "reconstruct", "photos": upload(client, "good")})
        began = time.monotonic()
        assert client.delete(f"/api/jobs/{job['id']}").status_code == 204 and time.monotonic() - began < 10
        assert client.get(f"/api/jobs/{job['id']}").json()["state"] == "cancelled"
