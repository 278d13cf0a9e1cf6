"""Every example runs as it is written, on a portrait, with a tiny model in place of the weights."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_avatar import StandInModel, small_avatar
from PIL import Image
from skimage.data import astronaut

import ffavatar
from ffavatar.drive.video import FrameReader
from ffavatar.drive.writer import FilmWriter

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
PORTRAIT = np.asarray(astronaut())[:360, 60:420]


def test_examples_are_numbered_and_short() -> None:
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1)) and len(EXAMPLES) >= 5
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 100 for path in EXAMPLES)


def test_the_live_driver_of_the_docs_runs_as_it_is_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "driving.md").read_text(encoding="utf-8")
    (snippet,) = [block.split("```")[0] for block in page.split("```python\n")[1:] if "LiveDriver(" in block]
    monkeypatch.setattr("ffavatar.model.load_model", lambda *_, **options: StandInModel(small_avatar().rig.head))
    monkeypatch.chdir(tmp_path)
    small_avatar().save("me.safetensors")
    with FilmWriter("driver.mp4", 25, (360, 360)) as film:
        film.write(PORTRAIT)
    names: dict[str, object] = {}
    exec(snippet, names)
    assert names["params"] is not None


def test_the_pose_of_the_readme_runs_as_it_is_pasted() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (snippet,) = [block.split("```")[0] for block in page.split("```python\n")[1:] if "neutral_params()" in block]
    names: dict[str, object] = {"avatar": small_avatar()}
    exec(snippet, names)
    picture, rest = names["picture"], small_avatar().render().images[0]
    assert isinstance(picture, torch.Tensor) and picture.shape == rest.shape and not torch.equal(picture, rest)


def test_the_package_lists_its_names() -> None:
    assert set(ffavatar.__all__) <= set(dir(ffavatar))
    assert all(getattr(ffavatar, name) is not None for name in ffavatar.__all__)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ffavatar.model import create_model

    model = create_model("tiny").eval()
    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": model)
    monkeypatch.setattr("ffavatar.model.load_model", lambda *arguments, **options: model)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PORTRAIT).save("photo.jpg")
    Image.fromarray(PORTRAIT[:, 10:]).save("side.jpg")
    small_avatar().save("me.safetensors")
    with FilmWriter("driver.mp4", 25, (360, 360)) as film:
        for _ in range(3):
            film.write(PORTRAIT)
    before = set(tmp_path.iterdir())
    usage = (path.read_text(encoding="utf-8").split('"""')[1]).split()
    arguments = [word for word in usage[usage.index(f"examples/{path.name}") + 1 :]]
    names = {"front.jpg": "photo.jpg"}
    monkeypatch.setattr(sys, "argv", [str(path), *(names.get(a, a) for a in arguments)])
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    assert out.strip()
    for made in set(tmp_path.iterdir()) - before:
        assert made.name in out  # each says what it wrote
        if made.suffix == ".mp4":
            assert len(list(FrameReader(made))) >= 3
