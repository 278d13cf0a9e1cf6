"""A run goes on with the data and files that it was begun with, or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from made_people import write_shards
from safetensors.torch import save_file

from ffavatar.errors import InputError
from ffavatar.train.origin import Origin
from ffavatar.train.recipe import SMOKE
from ffavatar.train.run import train

RECIPE = replace(SMOKE, steps=1, level=0, max_sources=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return write_shards(folder / "one", [1]), write_shards(folder / "other", [2])


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """A run of one step, from the weights of another."""
    folder = tmp_path_factory.mktemp("runs")
    weights = train(RECIPE, data[0], folder / "first", device="cpu")
    train(RECIPE, data[0], folder / "second", weights, device="cpu")
    return folder / "second", weights


def test_the_same_content_goes_on_wherever_it_lies(data, begun, tmp_path, capsys):
    out, weights = begun
    shutil.copytree(data[0], tmp_path / "moved")
    shutil.copy(weights, tmp_path / "start.safetensors")
    train(RECIPE, tmp_path / "moved", out, tmp_path / "start.safetensors", device="cpu")
    said = capsys.readouterr().out
    assert "going on from step 1" in said and "does not tell" not in said


@pytest.mark.parametrize("what", ["--data", "--people", "--weights"])
def test_another_origin_is_refused(data, begun, what):
    out, weights = begun
    place, people = data[1] if what == "--data" else data[0], 1 if what == "--people" else None
    with pytest.raises(InputError, match=rf"checkpoint\.pt was begun with other {what}; give the same"):
        train(RECIPE, place, out, None if what == "--weights" else weights, people, device="cpu")


def test_an_older_checkpoint_goes_on_with_what_is_given_and_says_so(data, begun, tmp_path, capsys):
    shutil.copytree(begun[0], tmp_path / "run")
    place = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(place, weights_only=True)
    assert state.pop("origin")["weights"] is not None
    torch.save(state, place)
    train(RECIPE, data[1], tmp_path / "run", device="cpu")
    said = capsys.readouterr().out
    assert "does not tell its data and start weights" in said and "going on from step 1" in said


def test_files_are_told_apart_by_their_content(tmp_path):
    for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        save_file({"x": torch.full((3,), value)}, tmp_path / f"{name}.safetensors")
        (tmp_path / f"person_{name}.npz").write_bytes(name.encode())
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    first = Origin.of(tmp_path, 2, a, a)
    assert first == Origin.of(tmp_path, 2, b, b)
    assert first.differences(Origin.of(tmp_path, 2, c, c)) == ["--weights", "--vit"]
    assert first.differences(Origin.of(tmp_path, 1, a, a)) == ["--data", "--people"]
    (tmp_path / "person_c.npz").write_bytes(b"changed, but beyond the limit")
    assert first == Origin.of(tmp_path, 2, a, a)
    (tmp_path / "person_a.npz").write_bytes(b"changed")
    assert first.differences(Origin.of(tmp_path, 2, a, a)) == ["--data"]
