"""``ffavatar personalize``: an avatar, figures and a picture out; bad input in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from made_avatar import StandInModel, small_avatar
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from ffavatar.avatar import Avatar
from ffavatar.commands.personal import personalize
from ffavatar.errors import InputError


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An avatar's file and a photo's; the model is a stand-in."""
    model = StandInModel(small_avatar().rig.head)
    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": model)
    small_avatar().save(tmp_path / "me.safetensors")
    Image.fromarray(astronaut()[:300, 70:370]).save(tmp_path / "photo.png")
    return tmp_path / "me.safetensors", tmp_path / "photo.png"


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(personalize)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_writes_avatar_and_report(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    out, picture = tmp_path / "out.safetensors", tmp_path / "report.png"
    text = run(
        *inputs, "-o", out, "--steps", 12, "--size", 64, "--no-perceptual", "--report", picture, "--device", "cpu"
    )
    figures = [float(line.split("PSNR")[1].split()[0]) for line in text.splitlines() if "PSNR" in line]
    assert len(figures) == 3 and figures[2] > figures[0]
    assert "12 steps over 1 views" in text
    made = Avatar.load(out)
    assert len(made) == len(small_avatar()) and made.about["personalized"] == "12 steps over 1 views"
    assert float((made.canonical.colors - small_avatar().canonical.colors).abs().max()) > 0.01  # 8 bits: 0.004
    with Image.open(picture) as sheet:
        assert sheet.height > 4 * 64


def test_bad_input(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    avatar, photo = inputs
    with pytest.raises(InputError, match="either photos"):
        run(avatar, "-o", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="either photos"):
        run(avatar, photo, "--video", photo, "-o", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="ending"):
        run(avatar, photo, "-o", tmp_path / "out.ply")
    with pytest.raises(InputError, match="ending"):
        run(avatar, photo, "-o", tmp_path / "out.safetensors", "--report", tmp_path / "report.gif")
    assert not (tmp_path / "out.safetensors").exists()
