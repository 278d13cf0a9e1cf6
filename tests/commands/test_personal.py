"""``ffavatar personalize``: an avatar, figures and a picture out; bad input in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import typer
from made_avatar import StandInModel, small_avatar
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from ffavatar.avatar import Avatar
from ffavatar.commands.avatars import reconstruct
from ffavatar.commands.personal import personalize, sheet_label
from ffavatar.errors import InputError
from ffavatar.personal.fit import Fit
from ffavatar.pipeline import animate, drive, targets_on_white


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An avatar's file and a photo's; the model is a stand-in."""
    model = StandInModel(small_avatar().rig.head)
    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": model)
    monkeypatch.setattr("ffavatar.evaluate.identity.cached_embedding", lambda place: None)
    small_avatar().save(tmp_path / "me.safetensors")
    Image.fromarray(astronaut()[:300, 70:370]).save(tmp_path / "photo.png")
    return tmp_path / "me.safetensors", tmp_path / "photo.png"


def run(*arguments: object, command: Callable[..., None] = personalize, code: int = 0) -> str:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def film(path: Path, frames: int) -> Path:
    """A film of a portrait that wanders a little."""
    photo = astronaut()[:320, 60:380]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for index in range(frames):
            x, y = 2 * index, index
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(photo[y : y + 256, x : x + 256]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_writes_avatar_and_report(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    out, picture = tmp_path / "out.safetensors", tmp_path / "report.png"
    text = run(
        *inputs, "-o", out, "--steps", 12, "--size", 64, "--no-perceptual", "--report", picture, "--device", "cpu"
    )
    figures = [float(line.split("PSNR")[1].split()[0]) for line in text.splitlines() if "PSNR" in line]
    assert len(figures) == 3 and figures[2] > figures[0]
    assert "12 steps over 1 view in" in text and text.startswith(f"kept     {inputs[1]}")
    made = Avatar.load(out)
    assert len(made) == len(small_avatar()) and made.about["personalized"] == "12 steps over 1 views"
    assert float((made.canonical.colors - small_avatar().canonical.colors).abs().max()) > 0.01  # 8 bits: 0.004
    with Image.open(picture) as sheet:
        assert sheet.height > 4 * 64


def test_labels_of_the_report_are_not_broken_inside_words() -> None:
    from PIL import ImageFont

    from ffavatar.evaluate.sheet import FONT_PX, LABEL_PX, MARGIN_PX, wrapped

    for name in ("before, driven", "after, driven", "after, refined"):
        label = sheet_label(name, 16.16)
        assert wrapped(label, ImageFont.load_default(FONT_PX), LABEL_PX - 2 * MARGIN_PX) == label


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


def test_photos_of_another_person_are_refused(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the avatar's embedding, a photo's is at a right angle; ``--no-identity`` does not ask."""
    avatar, photo = inputs
    given = (avatar, photo, "-o", tmp_path / "out.safetensors", "--steps", 1, "--size", 64, "--no-perceptual")
    monkeypatch.setattr("ffavatar.drive.likeness.avatar_embedding", lambda *_: torch.tensor([1.0, 0.0]))
    monkeypatch.setattr(
        "ffavatar.evaluate.identity.cached_embedding", lambda place: lambda views: torch.tensor([[0.0, 1.0]])
    )
    with pytest.raises(InputError, match=r"avatar's person \(likeness 0.00 at most\).*--no-identity"):
        run(*given)
    assert not (tmp_path / "out.safetensors").exists()
    assert "1 step over 1 view in" in run(*given, "--no-identity")


def test_says_that_photos_were_not_compared_and_what_was_refused(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
    text = run(
        *inputs, tmp_path / "grey.png", "-o", tmp_path / "out.safetensors", "--steps", 1, "--size", 64,
        "--no-perceptual",
    )  # fmt: skip
    assert f"refused  {tmp_path / 'grey.png'}" in text and "no face was found" in text
    assert "was not checked" in text and "--identity fetches it" in text


def test_video_of_the_person(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """Six of a film's frames are learned from; what was learned shows in frames that were not given."""
    from ffavatar.photo import FrontEnd

    out, report = tmp_path / "out.safetensors", tmp_path / "report.png"
    text = run(
        inputs[0], "--video", film(tmp_path / "film.mp4", 12), "-o", out, "--views", 6, "--steps", 40, "--size", 64,
        "--no-guard", "--no-perceptual", "--report", report, "--device", "cpu",
    )  # fmt: skip
    assert "40 steps over 6 views" in text and "first preview after" in text
    assert text.count("kept ") == 6 and "refused" not in text and "6 more usable frames were not needed.\n" in text
    assert report.is_file()
    held_out = FrontEnd().analyse(np.ascontiguousarray(astronaut()[7:263, 75:331]), "held out", "largest", 256).views
    assert held_out is not None
    model = StandInModel(small_avatar().rig.head)
    goal, _, _ = targets_on_white(held_out, 64)
    before, after = (
        float((animate(a, drive(model, a, held_out), 64).images - goal).square().mean())
        for a in (small_avatar(), Avatar.load(out))
    )
    assert after < 0.8 * before  # the stand-in reads poses poorly: they are refined for the given frames only


def test_interrupted_saves_exits_130_and_resumes(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (*inputs, "--steps", 30, "--size", 64, "--no-perceptual", "--device", "cpu")
    whole, part, kept = tmp_path / "whole.safetensors", tmp_path / "part.safetensors", tmp_path / "kept.pt"
    run(*given, "-o", whole)
    advance = Fit.advance

    def stopping(self: Fit) -> float:
        if self.step == 24:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "advance", stopping)
        text = run(*given, "-o", part, "--checkpoint", kept, code=130)
    assert "20 steps over 1 view in" in text  # the latest whole state
    assert kept.is_file() and Avatar.load(part).about["personalized"] == "20 steps over 1 views"
    run(*given, "-o", part, "--checkpoint", kept)
    assert not kept.exists()
    resumed, uninterrupted = (vars(Avatar.load(path).canonical).values() for path in (part, whole))
    assert all(torch.equal(a, b) for a, b in zip(resumed, uninterrupted))


def test_interrupted_before_anything_was_learned(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(self: Fit) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "advance", stopping)
    out, said = tmp_path / "out.safetensors", list[str]()
    monkeypatch.setattr("ffavatar.commands.personal.print_notes", said.extend)
    text = run(*inputs, "--steps", 9, "--size", 64, "--no-perceptual", "--device", "cpu", "-o", out, code=130)
    assert said == ["interrupted; no step that helps was finished, so it equals the input."]
    assert "0 steps over 1 view in" in text and len(Avatar.load(out)) == len(small_avatar())


def test_a_photo_of_two_people_names_the_option(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    pair = np.concatenate([astronaut()[:300, 70:370], astronaut()[:300, 370:70:-1]], 1)
    Image.fromarray(pair).save(tmp_path / "pair.png")
    text = run(
        inputs[0], tmp_path / "pair.png", "-o", tmp_path / "out.safetensors", "--steps", 1, "--size", 64,
        "--no-perceptual",
    )  # fmt: skip
    assert "--face N chooses who is meant (2 faces, counted from 0)" in text


def test_reconstruct_and_personalize_in_one_go(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffavatar.pipeline.reconstruct", lambda model, views, level, like: small_avatar())
    monkeypatch.setattr("ffavatar.commands.personal.perceptual_net", lambda wanted, place: None)
    out = tmp_path / "out.safetensors"
    text = run(inputs[1], "-o", out, "--personalize", "--steps", 5, "--device", "cpu", command=reconstruct)
    assert "5 steps over 1 view in" in text and "Gaussians from 1 view, " in text and "after, refined" in text
    assert Avatar.load(out).about["personalized"] == "5 steps over 1 views"
