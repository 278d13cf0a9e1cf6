"""Whose hair and clothes the real worker takes, and what it says of them; the model itself is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_avatar import small_avatar

from ffavatar.avatar import Avatar
from ffavatar.drive.choose import MOST_VIEWS, Candidate
from ffavatar.photo import PhotoReport
from ffavatar.pipeline import LOOK
from ffavatar.serve import worker
from ffavatar.serve.messages import Done, Failed, Task
from ffavatar.types import Views

TOOLS = worker.Tools("cpu", None, None)  # type: ignore[arg-type]  # what would use them is replaced
YAWS = (0, 30, -30, 60, -60, 15, 1, -15)  # eight photos; the seventh is the last that would be chosen
SEVENTH = 6


class Quiet(worker.Desk):
    """A desk without a line."""

    def __init__(self) -> None:
        pass

    def stage(self, name: str, done: int = 0, total: int | None = 0) -> None:
        pass


def photos(count: int, stranger: int | None = None) -> list[Candidate]:
    """Pictures that hold their own number, in tenths; those of ``stranger`` are marked in its matte."""
    made = []
    for number, yaw in enumerate(YAWS[:count]):
        picture = torch.full((1, 4, 4, 3), number / 10)
        matte = torch.full((1, 4, 4), float(number == stranger))
        views = Views(picture, matte, matte, torch.zeros(1, 478, 3), torch.zeros(1, 52))
        name = f"{number}.jpg"
        made.append(Candidate(name, views, "", PhotoReport(name, True, "", faces=1, yaw_deg=yaw, sharpness=100.0)))
    return made


def embed(views: Views) -> torch.Tensor:
    """Two people."""
    return torch.stack([1 - views.mattes[:, 0, 0], views.mattes[:, 0, 0]], -1)


def work(
    monkeypatch: pytest.MonkeyPatch, folder: Path, given: list[Candidate], look: int | None, taken: str = ""
) -> tuple[list[float], float | None, tuple[str, ...]]:
    """Numbers of the photos that an avatar was made of, which of them the look was asked of, and the job's notes.

    ``taken``: what the model would say of the views taken.
    """
    asked: list[tuple[Views, int | None]] = []

    def reconstruct(model: object, views: Views, level: int | None = None, like: int | None = None) -> Avatar:
        asked.append((views, like))
        return replace(small_avatar(), about={LOOK: taken} if taken else {})

    monkeypatch.setattr("ffavatar.pipeline.reconstruct", reconstruct)
    monkeypatch.setattr(worker, "_candidates", lambda task, desk: given)
    monkeypatch.setattr(worker, "_identity_embedding", lambda device: embed)
    monkeypatch.setattr(worker, "_hand_over", lambda *args, **options: None)
    done = worker.perform(Task("j", "reconstruct", str(folder), look=look), TOOLS, Quiet())
    assert isinstance(done, Done), done
    ((views, like),) = asked
    numbers = [round(value * 10) for value in views.images[:, 0, 0, 0].tolist()]
    return numbers, None if like is None else numbers[like], done.notes


def test_its_photo_is_kept_among_more_than_an_avatar_is_made_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    numbers, like, notes = work(monkeypatch, tmp_path, photos(8), None)
    assert SEVENTH not in numbers and like is None and len(notes) == 2
    numbers, like, notes = work(monkeypatch, tmp_path, photos(8), SEVENTH, taken="5")
    assert len(numbers) == MOST_VIEWS and like == SEVENTH
    *left_out, look = notes
    assert len(left_out) == 2 and not any("6.jpg" in note for note in left_out)
    assert look.startswith("Hair and clothes are those of ") and "of the other 5 only the face is used" in look


def test_a_strangers_is_not_taken_and_the_job_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers, like, notes = work(monkeypatch, tmp_path, photos(4, stranger=2), 2, taken="0 1")
    assert numbers == [0, 1, 3] and like is None
    refused, told, look = notes
    assert refused.startswith("2.jpg: seems to be another person than in ")
    assert told == "Hair and clothes could not be those of 2.jpg, which was left out."
    assert look == "Hair and clothes are those of 0.jpg, 1.jpg; of the other one only the face is used."


def test_one_look_in_all_photos_is_told_where_one_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert work(monkeypatch, tmp_path, photos(3), None) == ([0, 1, 2], None, ())
    numbers, like, (note,) = work(monkeypatch, tmp_path, photos(3), 1)
    assert (numbers, like) == ([0, 1, 2], 1) and "seem to show the same hair and clothes" in note
    assert work(monkeypatch, tmp_path, photos(1), 0)[2] == ()  # nothing to choose from


@pytest.mark.parametrize(("given", "used"), [(photos(4, stranger=2), [0, 1, 3]), (photos(1, stranger=0), None)])
def test_an_avatar_is_personalized_by_photos_of_its_person(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: list[Candidate], used: list[int] | None
) -> None:
    refined: list[Views] = []
    monkeypatch.setattr(worker, "_candidates", lambda task, desk: given)
    monkeypatch.setattr(worker, "_identity_embedding", lambda device: embed)
    monkeypatch.setattr("ffavatar.drive.likeness.avatar_embedding", lambda *_: torch.tensor([1.0, 0.0]))
    monkeypatch.setattr(worker, "_refine", lambda avatar, views, *_: refined.append(views) or ("refined",))
    small_avatar().save(tmp_path / "me.safetensors")
    task = Task("j", "personalize", str(tmp_path), container=str(tmp_path / "me.safetensors"))
    done = worker.perform(task, TOOLS, Quiet())
    if used is None:
        assert isinstance(done, Failed) and done.theirs and "avatar's person" in done.reason and not refined
    else:
        assert isinstance(done, Done) and done.notes[-1] == "refined"
        assert done.notes[0] == "2.jpg: seems to be another person than the avatar (likeness 0.00)."
        assert [round(value * 10) for value in refined[0].images[:, 0, 0, 0].tolist()] == used
