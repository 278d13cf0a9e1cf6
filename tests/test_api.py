"""Models by name and file: which device and which weights are taken, and for how long they are kept."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut

import ffavatar
from ffavatar import api
from ffavatar.devices import choose_device
from ffavatar.errors import InputError
from ffavatar.model import PRESETS, create_model, load_model
from ffavatar.model.weights import CONFIG


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the weights files that were read had in them."""
    read: list[str] = []

    def load(preset: str, weights: Path | None, device: str) -> object:
        read.append("shipped" if weights is None else weights.read_text())
        return object()

    api._kept_model.cache_clear()
    monkeypatch.setattr(api, "load_model", load)
    return read


def test_a_model_is_kept_until_its_file_changes(loaded: list[str], tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_text("first")
    first = api.model_for(str(file), "cpu")
    monkeypatch.chdir(tmp_path)
    assert api.model_for(file, "cpu") is first and api.model_for(file.name, "cpu") is first
    file.write_text("second")
    assert api.model_for(str(file), "cpu") is not first
    assert api.model_for(device="cpu") is api.model_for(None, "cpu")
    assert loaded == ["first", "second", "shipped"]
    api._kept_model.cache_clear()


def test_auto_and_paths_serve_both_ways_to_a_model(tmp_path: Path) -> None:
    state = create_model("tiny").state_dict()
    path = tmp_path / "tiny.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("head.")}, path)
    model = load_model("tiny", path, device="auto")
    assert next(model.parameters()).device.type == choose_device("auto")
    assert load_model("tiny", str(path)).config.preset == "tiny"
    for call in (lambda: load_model("tiny", path, "elsewhere"), lambda: api.model_for(path, "elsewhere")):
        with pytest.raises(InputError, match="'elsewhere' is not available"):
            call()
    for call in (lambda: load_model("lite", tmp_path / "none"), lambda: api.model_for(tmp_path / "none")):
        with pytest.raises(InputError, match="none cannot be read"):
            call()


def test_a_model_loaded_under_inference_mode_can_be_trained() -> None:
    with torch.inference_mode():
        model = load_model("lite")
    assert not any(value.is_inference() for value in (*model.parameters(), *model.buffers()))


def test_pictures_in_memory_are_refused_in_a_sentence() -> None:
    picture = np.asarray(astronaut())
    for given in (picture, [picture], ["a.jpg", picture], Image.fromarray(picture), picture.tobytes()):
        with pytest.raises(InputError, match=r"by their files' names, and \w+ is none: save each picture as PNG"):
            api.reconstruct(given, device="cpu")  # type: ignore[arg-type]


def test_photos_that_are_not_used_are_warned_of(tmp_path: Path) -> None:
    Image.fromarray(np.asarray(astronaut())[:360, 60:420]).save(tmp_path / "a.png")
    Image.fromarray(np.asarray(astronaut())[:360, 50:410]).save(tmp_path / "d.png")
    Image.new("RGB", (200, 200), "green").save(tmp_path / "b.png")
    with pytest.warns(UserWarning) as warned:
        avatar = api.reconstruct(tmp_path, level=0, device="cpu", views=1)
    said = [str(one.message) for one in warned]
    assert len(said) == 2 and "b.png is not used: no face" in said[0] and said[1].startswith("1 more usable photo was")
    assert len(avatar) > 5000
    with pytest.raises(InputError, match=r"The look c\.png is none of the photos"):
        api.reconstruct(tmp_path, look="c.png")


@pytest.mark.parametrize("views", [0, -1])
def test_no_views_are_refused_before_any_photo_is_read(views: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"views={views} leaves nothing"):
        api.reconstruct([tmp_path / "nothing.jpg"], views=views)


def test_a_device_may_be_torchs_own() -> None:
    assert choose_device(torch.device("cpu")) == "cpu"


def test_a_film_reports_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ffavatar.drive import film

    told = film.FilmReport(frames=3)
    monkeypatch.setattr(film, "make_film", lambda avatar, driver, out, **options: told)
    assert api.make_film(None, tmp_path / "a.mp4", tmp_path / "b.mp4") is told  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ffavatar.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(ffavatar, name) is not None and name in dir(ffavatar)


def test_a_trained_file_says_what_its_model_is(tmp_path: Path) -> None:
    config = replace(PRESETS["tiny"], anchors=150)
    state = {name: value for name, value in create_model(config).state_dict().items() if not name.startswith("head.")}
    save_file(state, tmp_path / "own.safetensors", metadata={CONFIG: json.dumps(asdict(config))})
    assert load_model(weights=tmp_path / "own.safetensors").config == config
    assert api.model_for(tmp_path / "own.safetensors", "cpu").config == config
    with pytest.raises(InputError, match="do not fit preset 'lite'"):
        load_model("lite", tmp_path / "own.safetensors")
    for odd in ("{}", "[]", "no json", json.dumps(asdict(config) | {"colour": 1})):
        save_file(state, tmp_path / "odd.safetensors", metadata={CONFIG: odd})
        with pytest.raises(InputError, match="is of a model that this version does not know"):
            load_model(weights=tmp_path / "odd.safetensors")
    (tmp_path / "text.safetensors").write_text("none")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(weights=tmp_path / "text.safetensors")
