"""What is on the disk, after accidents too; and the line to the child processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fakes import container
from hypothesis import given, settings
from hypothesis import strategies as st

from ffavatar.errors import InputError
from ffavatar.serve import messages
from ffavatar.serve.messages import AvatarMade, Done, Stage, Task, decode, encode
from ffavatar.serve.records import Film, Photo
from ffavatar.serve.store import JobEntry, Store

ID = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path):
    found = Store(tmp_path / "s")
    yield found
    found.close()


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.folder)


def made(store: Store, gaussians: int = 3, personalized: bool = False) -> AvatarMade:
    path = store.incoming / f"made-{os.urandom(4).hex()}.safetensors"
    path.write_bytes(container(gaussians, '{"personalized": "9 steps"}' if personalized else "{}"))
    path.with_suffix(".webp").write_bytes(b"w")
    return AvatarMade(str(path), gaussians, personalized, str(path.with_suffix(".webp")))


def test_avatars_are_there_after_a_restart(store: Store) -> None:
    store.add_avatar(ID, "Ann", made(store))
    for _ in range(6):
        store.refine_avatar(ID, made(store, personalized=True))
    store.rename_avatar(ID, "Bea")
    again = reopened(store)
    assert again.avatars == store.avatars and again.avatars[ID].name == "Bea" and again.avatars[ID].version == 7
    assert sorted(path.name for path in (again.folder / "avatars" / ID).glob("v*")) == [
        "v1.safetensors",
        "v7.safetensors",
    ]
    again.close()


@pytest.mark.parametrize("record", [None, b"", b"{", b"[]", b'{"id": "x"}', b"\xff\xfe"])
def test_the_index_is_made_from_the_containers_where_the_record_is_lost(store: Store, record: bytes | None) -> None:
    store.add_avatar(ID, "Ann", made(store))
    store.refine_avatar(ID, made(store, gaussians=5, personalized=True))
    path = store.folder / "avatars" / ID / "avatar.json"
    path.unlink()
    if record is not None:
        path.write_bytes(record)
    again = reopened(store)
    entry = again.avatars[ID]
    assert (entry.version, entry.gaussians, entry.personalized) == (2, 5, True) and entry.created.endswith("Z")
    again.close()


def test_damaged_containers_are_passed_over_and_left(store: Store) -> None:
    store.add_avatar(ID, "Ann", made(store))
    store.refine_avatar(ID, made(store))
    place = store.folder / "avatars" / ID
    (place / "avatar.json").unlink()
    whole = (place / "v2.safetensors").read_bytes()
    (place / "v2.safetensors").write_bytes(whole[:-1])  # cut short
    other = store.folder / "avatars" / ("f" * 16)
    other.mkdir()
    (other / "v1.safetensors").write_bytes(b"\xff" * 64)
    again = reopened(store)
    assert again.avatars[ID].version == 1 and "f" * 16 not in again.avatars and other.is_dir()
    again.close()


def test_half_made_and_half_deleted_things_go_at_the_start(store: Store) -> None:
    (store.folder / "avatars" / f".{ID}.part").mkdir()
    (store.folder / "avatars" / f".{ID}.part" / "v1.safetensors").write_bytes(container())
    (store.folder / "photos" / ".x.gone").mkdir()
    (store.incoming / "a.part").write_bytes(b"x")
    again = reopened(store)
    assert not again.avatars and os.listdir(again.incoming) == os.listdir(again.folder / "photos") == []
    assert os.listdir(again.folder / "avatars") == []
    again.close()


def test_one_server_to_a_folder(store: Store) -> None:
    with pytest.raises(InputError, match="Another server"):
        Store(store.folder)
    reopened(store).close()


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--folder"):
        Store(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "name", ["..", "../avatars", "", ".", ID.upper(), ID + "\n", ID[:-1], "/etc", ID + "/..", "\0"]
)
def test_only_ids_lead_to_places(store: Store, name: str) -> None:
    (store.folder / "avatars" / ID).mkdir()
    assert store.place("avatars", ID) and store.place("avatars", name) is None
    assert store.delete("avatars", name) is False and (store.folder / "lock").exists()


def test_records_of_another_make_are_not_taken(store: Store) -> None:
    film = Film("0" * 32, "a.mp4", 1.0, 2, 2, 25.0)
    (store.incoming / "f").write_bytes(b"x")
    store.save_film(film, store.incoming / "f")
    assert store.film(film.id) == film
    path = store.folder / "films" / film.id / "film.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    assert store.film(film.id) is None
    photo = Photo("1" * 32 + "-0", "a", False, "no", 0, 0, 0, None, None)
    store.save_photo(photo, {}, None)
    assert store.photo(photo.id).photo == photo
    store.save_job(JobEntry(ID, "export", {}, "done", "now", ID))
    assert [job.id for job in store.read_jobs()] == [ID]
    (store.folder / "jobs" / ID / "job.json").write_text("{}")
    assert store.read_jobs() == []


def test_a_borrowed_container_outlives_its_avatar(store: Store) -> None:
    store.add_avatar(ID, "Ann", made(store))
    place = store.incoming / "base"
    assert store.borrow(ID, place) and store.borrow(ID, place)
    store.delete_avatar(ID)
    assert place.read_bytes() == container() and not store.borrow(ID, place)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=50), st.integers(0, 9), st.lists(st.text(max_size=9), max_size=3))
def test_messages_arrive_as_they_were_sent(text: str, number: int, many: list[str]) -> None:
    sent = (Stage(text, number, number), Done(tuple(many), (text,)), Task("j", "export", text, tuple(many)))
    for message in sent:
        wire = encode(message)
        assert wire.count(b"\n") == 1 and wire.endswith(b"\n") and decode(wire) == message


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_nonsense_is_no_message(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


@pytest.mark.parametrize(
    "line", [b"[]", b'{"message": "Nobody"}', b'{"message": "Stage"}', b'{"message": "Done", "x": 1}']
)
def test_other_json_is_no_message(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        decode(line)
    assert messages.LONGEST_LINE > 2**16
