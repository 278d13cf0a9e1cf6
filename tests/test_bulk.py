"""Avatars of many people: lists, manifest and failures, going on after kills with nothing lost and nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ffavatar.avatar import Avatar
from ffavatar.bulk import Person, Plan, read_people, reconstruct_many
from ffavatar.commands.avatars import reconstruct
from ffavatar.errors import InputError

PLAN = Plan(size=128, level=0)


def photos_of(folder: Path, seeds: dict[str, int], shots: int = 1) -> Path:
    """A subfolder of synthetic photos per person."""
    from ffavatar.data.synthetic import synthetic_person

    for name, seed in seeds.items():
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(synthetic_person(seed, shots=shots, size=256, degrade=False).images):
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = photos_of(tmp_path_factory.mktemp("photos"), {"Anna B.": 3, "carl": 4})
    (folder / "nobody").mkdir()
    Image.new("RGB", (300, 300), "grey").save(folder / "nobody" / "grey.png")
    (folder / "empty").mkdir()
    return folder


def rows_of(place: Path) -> list[dict]:
    return [json.loads(line) for line in place.read_text().splitlines()]


def test_avatars_manifest_and_failures(photos: Path, tmp_path: Path) -> None:
    lines = [
        {"person": "carl", "photos": [str(photos / "carl" / "0.png"), "gone.png"]},
        {"person": "nobody", "photos": [str(photos / "nobody" / "grey.png")]},
        {"person": "lost", "photos": ["gone.png"]},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    people = read_people(tmp_path / "list.jsonl")
    out = tmp_path / "out"
    seen: list[tuple[int, int | None]] = []
    summary = reconstruct_many(people, out, PLAN, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (summary.made, summary.count("done"), summary.count("refused"), summary.count("failed")) == (1, 1, 2, 0)
    manifest, failures = rows_of(out / "manifest.jsonl"), rows_of(out / "failures.jsonl")
    assert [row["person"] for row in manifest] == ["carl", "nobody", "lost"] and failures == manifest[1:]
    assert "no face was found" in manifest[1]["reason"] and "does not exist" in manifest[2]["reason"]
    carl = manifest[0]
    data = (out / carl["avatar"]).read_bytes()
    assert carl["sha256"] == hashlib.sha256(data).hexdigest() and carl["bytes"] == len(data)
    assert carl["gaussians"] == len(Avatar.load(out / "carl.safetensors")) and carl["views"] == 1
    assert len(carl["left_out"]) == 1 and "gone.png" in carl["left_out"][0] and carl["seconds"] > 0

    # nothing is done twice: neither the avatar nor the refusals
    def files() -> dict[str, tuple[int, int]]:
        kept = [*out.glob("*.safetensors"), *out.glob("records/*.json")]
        return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in kept}

    before = files()
    again = reconstruct_many(people, out, PLAN)
    assert again.made == 0 and again.records == summary.records and files() == before

    # a lost avatar, an unexpected failure and a changed setting are made again
    (out / "carl.safetensors").unlink()
    assert reconstruct_many(people, out, PLAN).made == 1
    assert (out / "carl.safetensors").read_bytes() == data
    record = json.loads((out / "records" / "carl.json").read_text())
    (out / "records" / "carl.json").write_text(json.dumps(record | {"state": "failed"}))
    assert reconstruct_many(people, out, PLAN).made == 1
    assert reconstruct_many(people[:1], out, Plan(size=160, level=0)).made == 1
    assert (out / "carl.safetensors").read_bytes() != data and len(rows_of(out / "manifest.jsonl")) == 1


def test_one_persons_trouble_does_not_stop_the_others(photos: Path, tmp_path: Path, monkeypatch) -> None:
    def broken(photos, *rest):
        raise RuntimeError("out of something")

    people = read_people(photos)
    assert [p.name for p in people] == ["Anna B.", "carl", "empty", "nobody"] and people[0].key == "Anna_B_"
    monkeypatch.setattr("ffavatar.bulk.choose_views", broken)
    summary = reconstruct_many(people, tmp_path / "out", PLAN)
    assert summary.count("failed") == 3 and summary.records[0].reason == "RuntimeError: out of something"
    assert len(rows_of(tmp_path / "out" / "failures.jsonl")) == 4 and summary.made == 0


def test_lists_of_people_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffphoto,person\n1.jpg,Ann\nsub/2.jpg,Ben\n/abs/3.jpg,Ann\n", encoding="utf-8")
    assert read_people(tmp_path / "a.csv") == [
        Person("Ann", (tmp_path / "1.jpg", Path("/abs/3.jpg"))), Person("Ben", (tmp_path / "sub" / "2.jpg",))
    ]  # fmt: skip
    for name, text, message in (
        ("b.csv", "person\nAnn\n", "no list of people"),
        ("c.csv", "person,photo\n", "names nobody"),
        ("c.csv", "person,photo\nAnn,\n", "no list of people"),
        ("e.jsonl", '{"person": "Ann", "photos": "1.jpg"}\n', "photos is no list"),
        ("e.jsonl", '{"person": "Ann", "photos": []}\n', "photos is empty"),
        ("e.jsonl", "[1]\n", "no list of people"),
        ("f.txt", "1.jpg\n", "another kind of file"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_people(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_people(tmp_path / "none.csv")
    with pytest.raises(InputError, match="names nobody"):
        (tmp_path / "folder").mkdir()
        read_people(tmp_path / "folder")
    with pytest.raises(InputError, match="does not exist"):
        reconstruct_many([Person("a", (Path("x"),))], tmp_path / "o", Plan(weights=tmp_path / "none"))
    with pytest.raises(InputError, match="is a file"):
        reconstruct_many([Person("a", (Path("x"),))], tmp_path / "f.txt", PLAN)


def test_any_names_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["张三", "李四", "a b", "a_b", "A_B", "Zoë", "Zoe\u0308", "..", "/etc/x", "n" * 300, "王" * 300, "!?"]
    (tmp_path / "a.csv").write_text("person,photo\n" + "".join(f"{name},1.jpg\n" for name in names), encoding="utf-8")
    keys = {person.name: person.key for person in read_people(tmp_path / "a.csv")}
    assert list(keys) == names and len({key.casefold() for key in keys.values()}) == len(names)
    assert (keys["张三"], keys["李四"], keys["a_b"], keys["Zoë"]) == ("张三", "李四", "a_b", "Zoë")
    assert re.fullmatch("a_b-[0-9a-f]{8}", keys["a b"]) and re.fullmatch("A_B-[0-9a-f]{8}", keys["A_B"])
    for key in keys.values():
        (tmp_path / f".{key}.01234567.part.safetensors").touch()  # as an unfinished file is called
        assert key[0].isalnum() and "/" not in key


def test_a_folder_without_photos_is_reported(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "people" / "empty").mkdir(parents=True)
    (tmp_path / "people" / "grey").mkdir()
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "people" / "grey" / "a.png")
    summary = reconstruct_many(read_people(tmp_path / "people"), tmp_path / "out", PLAN)
    assert [(record.person, record.state) for record in summary.records] == [("empty", "refused"), ("grey", "refused")]
    assert "holds no photos" in rows_of(tmp_path / "out" / "failures.jsonl")[0]["reason"]


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=120).map(lambda t: ("person,photo\n" + t).encode())))
def test_any_list_is_read_or_refused_in_one_sentence(tmp_path_factory, data: bytes) -> None:
    for suffix in (".csv", ".jsonl"):
        place = tmp_path_factory.getbasetemp() / f"any{suffix}"
        place.write_bytes(data)
        try:
            people = read_people(place)
        except InputError as error:
            assert "any" in str(error)
        else:
            assert people and all(person.photos for person in people)


@pytest.mark.slow
@pytest.mark.parametrize("ray", [False, True])
def test_the_command_killed_again_and_again_ends_as_if_never_killed(tmp_path: Path, ray: bool) -> None:
    """SIGKILL to a worker at work, then to the command itself; a third run ends it. No finished avatar is touched."""
    folder = photos_of(tmp_path / "photos", {f"p{k}": 50 + k for k in range(7)})
    alone = reconstruct_many(read_people(folder), tmp_path / "alone", Plan(level=0))
    assert alone.count("done") >= 5, "hardly a face was found: nothing would be tested"
    out = tmp_path / "out"
    words = ["reconstruct", "--many", str(folder), "-o", str(out), "--points", "5k", "--workers", "2"]
    words += ["--ray", "local"] if ray else []
    seen: dict[str, tuple[int, int]] = {}

    def note() -> int:
        for file in out.glob("records/[!.]*.json"):
            stat = file.stat()
            assert seen.setdefault(file.name, (stat.st_ino, stat.st_mtime_ns)) == (stat.st_ino, stat.st_mtime_ns)
        return len(seen)

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "ffavatar", *words], start_new_session=True)

    def wait_for(count: int, running: subprocess.Popen) -> None:
        until = time.monotonic() + 400
        while note() < count:
            assert running.poll() is None and time.monotonic() < until, "the run ended, or hung, before its kill"
            time.sleep(0.02)

    first = start()
    wait_for(1, first)
    workers = busy_workers(first.pid)
    os.kill(workers[0], signal.SIGKILL)
    wait_for(3, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert note() < 7, "killed too late to prove anything"
    time.sleep(2)  # an orphan may end the one it is at
    note()
    last = start()
    while last.poll() is None:
        note()
        time.sleep(0.02)
    assert last.returncode == 0 and note() == 7
    rows = rows_of(out / "manifest.jsonl")
    names = ("person", "state", "sha256", "views", "gaussians")
    assert [[row[n] for n in names] for row in rows] == [[getattr(r, n) for n in names] for r in alone.records]


def busy_workers(parent: int) -> list[int]:
    """Processes of a session that do avatars' work, the busiest first: the command's children, or Ray's workers."""
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parts = (place / "stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue
        ours = int(parts[3]) == parent and int(place.name) != parent  # of its session
        if ours and ("spawn_main" in command or "ray::" in command) and "IDLE" not in command:
            found[int(place.name)] = int(parts[11])
    assert found, "no worker is at work"
    return sorted(found, key=lambda pid: -found[pid])


def test_the_command_says_who_has_no_avatar(tmp_path: Path, capsys) -> None:
    (tmp_path / "photos" / "nobody").mkdir(parents=True)
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "photos" / "nobody" / "grey.png")
    with pytest.raises(InputError, match="Nobody of 1 people has an avatar"):
        reconstruct(tmp_path / "out", many=tmp_path / "photos")
    told = capsys.readouterr().out
    assert "refused  nobody: " in told and "0 avatars of 1 people, 0 made now" in told
    for options, message in (
        ({"photos": [tmp_path / "a.png"], "many": tmp_path}, "leave out PHOTO"), ({}, "No photo was given")
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            reconstruct(tmp_path / "out", **options)
