"""Shots in which the front end found no face: targets of steps with exact poses, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_people import SIZE, drawn, made_sample

from ffavatar.data.shards import PersonSample
from ffavatar.model import create_model
from ffavatar.train.losses import Goal
from ffavatar.train.networks import prepare_model
from ffavatar.train.recipe import SMOKE
from ffavatar.train.samples import FEWEST_VIEWS, PARAM_NAMES, Person, load_person, person_of_sample
from ffavatar.train.sources import Example, InMemory
from ffavatar.train.stages import avatar_step, estimator_step

SHOTS = 8
FOUND = np.array([True, False, True, True, False, False, True, False])
ORDER = [0, 2, 3, 6, 1, 4, 5, 7]
RECIPE = replace(SMOKE, level=0, max_sources=2, targets=4, learn="both")


def partly_found(found: np.ndarray = FOUND, labelled: bool = True, nothing: float = 0.0) -> PersonSample:
    """A sample with ``nothing`` for readings of what was not found, each shot with its own part outside the photo."""
    sample = made_sample(1, labelled, SHOTS)
    scores = np.repeat(np.arange(SHOTS, dtype=np.float32)[:, None] / SHOTS, 52, 1)
    readings = {
        "detected": found,
        "detected_matte": np.where(found[:, None, None], sample.mattes // 2, 0).astype(np.uint8),
        "landmarks": np.where(found[:, None, None], sample.arrays["landmarks"], np.float32(nothing)),
        "blendshapes": np.where(found[:, None], scores, np.float32(nothing)),
    }
    valid = sample.valid.copy()
    for shot in range(SHOTS):
        valid[shot, : shot + 1] = False
    return replace(sample, valid=valid, arrays={**sample.arrays, **readings})


def of_file(sample: PersonSample, folder) -> Person | None:
    """As ``load_person`` reads it from a file, which knows no part outside the photo."""
    readings = {name: sample.arrays[name] for name in ("detected", "detected_matte", "blendshapes")}
    readings["detected_landmarks"] = sample.arrays["landmarks"]
    np.savez(folder / "person_00000001.npz", **drawn(1, SHOTS).arrays() | readings)
    return load_person(folder / "person_00000001.npz")


@pytest.mark.parametrize("door", ["shards", "files"])
def test_they_follow_the_found_ones_in_all_that_is_known_of_them(door, tmp_path):
    sample, truth = partly_found(), drawn(1, SHOTS)
    person = person_of_sample(sample) if door == "shards" else of_file(sample, tmp_path)
    assert len(person) == 4 and person.unread == 4
    assert np.array_equal(person.images, truth.images[ORDER])
    assert np.array_equal(person.mattes, truth.mattes[ORDER])
    assert np.array_equal(person.seen_mattes, sample.arrays["detected_matte"][ORDER])
    assert np.array_equal(person.landmarks, sample.arrays["landmarks"][ORDER])
    assert np.array_equal(person.blendshapes, sample.arrays["blendshapes"][ORDER])
    assert np.array_equal(person.exact_landmarks.numpy(), truth.landmarks[ORDER])
    for name in PARAM_NAMES:
        assert torch.equal(getattr(person.params, name), getattr(truth.params, name)[ORDER]), name
    assert len(person.outlines) == SHOTS
    if door == "shards":
        assert person.valid[:, :, 0].argmax(1).tolist() == [shot + 1 for shot in ORDER]


@pytest.mark.parametrize("lacking", [("identity", *PARAM_NAMES), ("identity",), ("jaw",)], ids=["all", "who", "how"])
def test_without_labels_they_are_left_out(lacking):
    sample = partly_found()
    arrays = {name: value for name, value in sample.arrays.items() if name not in lacking}
    person = person_of_sample(replace(sample, arrays=arrays, shared=()))
    assert len(person) == 4 and person.unread == 0 and not person.labelled
    kept = ORDER[:4]
    assert np.array_equal(person.images, sample.images[kept]) and np.array_equal(person.mattes, sample.mattes[kept])
    assert np.array_equal(person.valid, sample.valid[kept])
    assert {len(rows) for rows in (person.landmarks, person.outlines, person.seen_mattes, person.exact_landmarks)} == {
        4
    }


def test_who_was_found_in_too_few_is_left_out_however_many_others_there_are(tmp_path):
    for count in (FEWEST_VIEWS - 1, FEWEST_VIEWS):
        sample = partly_found(np.arange(SHOTS) < count)
        for person in (person_of_sample(sample), of_file(sample, tmp_path)):
            assert (person is None) == (count < FEWEST_VIEWS)


def shown_in(person: Person, recipe, steps: int) -> list[tuple[list[int], list[int]]]:
    """Which shots were sources and goals of each step, told by their pictures."""
    torch.manual_seed(0)
    step = avatar_step(InMemory([person]), recipe, None)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    everything = np.arange(SHOTS)
    sources = person.views(everything).on_white()
    goals = Goal.of(person.views(everything, exact_matte=True), SIZE).images

    def number(pictures: torch.Tensor, among: torch.Tensor) -> list[int]:
        same = (pictures[:, None] == among).flatten(2).all(2)
        assert (same.sum(1) == 1).all()
        return same.float().argmax(1).tolist()

    found = []
    for at in range(steps):
        outcome = step(model, Example.of(0, at))
        assert torch.isfinite(outcome.loss) and torch.isfinite(outcome.pictures.drawn).all()
        found.append((number(outcome.pictures.sources, sources), number(outcome.pictures.goals, goals)))
    return found


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_they_are_targets_of_steps_with_exact_poses_alone_and_never_sources(share):
    """Their readings are not even looked at."""
    person = person_of_sample(partly_found(nothing=np.nan))
    assert np.isnan(person.landmarks[4:]).all()
    steps = shown_in(person, replace(RECIPE, label_share=share), 6)
    for sources, goals in steps:
        assert max(sources) < 4 and not {*sources} & {*goals} and len({*goals}) == len(goals)
        assert len(goals) == (4 if share else 4 - len(sources))
    aims = {goal for _, goals in steps for goal in goals}
    assert aims >= {0, 1, 2, 3} and (aims >= {4, 5, 6, 7} if share else max(aims) < 4)


def test_exact_poses_are_those_of_the_shots_that_are_drawn():
    """The head that is drawn for a goal covers what that goal's matte says."""
    recipe = replace(RECIPE, label_share=1.0, targets=8)
    person = person_of_sample(partly_found())
    torch.manual_seed(0)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    pictures = avatar_step(InMemory([person]), recipe, None)(model, Example.of(0, 0)).pictures
    person_in, drawn_in = ((p < 0.98).any(-1).flatten(1).float() for p in (pictures.goals, pictures.drawn))
    both = person_in @ drawn_in.T
    overlap = both / (person_in.sum(1)[:, None] + drawn_in.sum(1) - both)
    assert len(overlap) > 4 and torch.equal(overlap.argmax(1), torch.arange(len(overlap)))


def test_the_estimators_stage_never_reads_them():
    recipe = replace(RECIPE, stage="estimator", people=2, views_per_person=4)
    person = person_of_sample(partly_found(nothing=np.nan))
    torch.manual_seed(0)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    for at in range(3):
        assert torch.isfinite(estimator_step(InMemory([person]), recipe)(model, Example.of(0, at)).loss)
