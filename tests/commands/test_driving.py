"""The commands that drive: any driver by its content, conversions, the live loop on a file; errors in one sentence."""

from __future__ import annotations

import json
import pickle
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import typer
from made_avatar import StandInModel, small_avatar
from skimage.data import astronaut
from typer.testing import CliRunner

from ffavatar.commands.driving import animate, live, motion
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError

sys.path += [str(Path(__file__).parents[1] / name) for name in ("drive", "head")]
from made_flame import flame_arrays
from made_motions import arkit_track, flame_track

from ffavatar.drive.formats import read_motion, write_motion


@pytest.fixture(scope="module")
def avatar_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "me.safetensors"
    small_avatar().save(path)
    return path


def run(*arguments: object) -> tuple[str, str]:
    """stdout and stderr of a command; its exceptions come out."""
    app = typer.Typer()
    for command in (animate, live, motion):
        app.command()(command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_every_kind_of_motion_drives(avatar_file: Path, tmp_path: Path) -> None:
    write_motion(flame_track(3, camera=True), tmp_path / "vhap", "vhap")
    write_motion(arkit_track(3), tmp_path / "arkit.txt", "arkit-json")
    write_motion(arkit_track(3), tmp_path / "face.csv", "live-link-csv")
    write_motion(flame_track(3), tmp_path / "track.npz", "flame-npz")
    for name, words in (("vhap", "left out"), ("arkit.txt", ""), ("face.csv", ""), ("track.npz", "--flame FILE")):
        out, err = run("animate", avatar_file, "--driver", tmp_path / name, "-o", tmp_path / "o.mp4", "--size", 64)
        assert "3 frames" in out and words in err


def test_speech_drives_and_is_heard(avatar_file: Path, tmp_path: Path) -> None:
    import av

    with wave.open(str(tmp_path / "say.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        tone = 0.3 * np.sign(np.sin(2 * np.pi * 130 * np.arange(8000) / 16000))
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    out, err = run("animate", avatar_file, "--driver", tmp_path / "say.wav", "-o", tmp_path / "o.mp4", "--size", 64)
    assert "15 frames" in out and "made up" in err
    with av.open(str(tmp_path / "o.mp4")) as film:
        assert len(film.streams.audio) == 1


def test_options_reach_the_motion(avatar_file: Path, tmp_path: Path) -> None:
    write_motion(arkit_track(2), tmp_path / "a.json", "arkit-json")
    common = ("animate", avatar_file, "--driver", tmp_path / "a.json", "--size", 64, "-o")
    run(
        *common,
        tmp_path / "plain",
    )
    run(*common, tmp_path / "still", "--head-motion", "off", "--gain", "mouth=0", "--gain", "jaw=0", "--gain", "eyes=0",
        "--gain", "brows=0", "--gain", "cheeks=0", "--gain", "nose=0", "--gain", "gaze=0")  # fmt: skip
    frames = [sorted((tmp_path / name).iterdir()) for name in ("plain", "still")]
    assert frames[0][0].read_bytes() != frames[0][1].read_bytes()
    assert frames[1][0].read_bytes() == frames[1][1].read_bytes()  # nothing moves
    for wrong, words in ((("--gain", "mouth"), "GROUP=FACTOR"), (("--gain", "ears=1"), "no group"),
                         (("--edition", "flame2020"), "no FLAME edition")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            run(*common, tmp_path / "x.mp4", *wrong)


def test_motion_converts(tmp_path: Path) -> None:
    write_motion(arkit_track(4), tmp_path / "a.csv", "live-link-csv")
    out, _ = run("motion", tmp_path / "a.csv", "-o", tmp_path / "a.json", "--fps", 25)
    own = Motion.load(tmp_path / "a.json")
    assert own.head_edition == "embedded-1" and own.fps == 25 and "4 frames" in out
    run("motion", tmp_path / "a.json", "-o", tmp_path / "b.json", "--to", "arkit-json")
    assert len(json.loads((tmp_path / "b.json").read_text())["names"]) == 52
    write_motion(flame_track(3), tmp_path / "f.npz", "flame-npz")
    _, err = run("motion", tmp_path / "f.npz", "-o", tmp_path / "f.json")
    assert "left out" in err
    run("motion", tmp_path / "f.npz", "-o", tmp_path / "lam.json", "--to", "flame-json")
    assert read_motion(tmp_path / "lam.json").head_edition == "flame2023"
    with pytest.raises(InputError, match="--flame FILE"):
        run("motion", tmp_path / "a.json", "-o", tmp_path / "v", "--to", "vhap")
    (tmp_path / "flame2023.pkl").write_bytes(pickle.dumps(flame_arrays()))
    _, err = run(
        "motion", tmp_path / "a.json", "-o", tmp_path / "v", "--to", "vhap", "--flame", tmp_path / "flame2023.pkl"
    )
    assert "mm rms" in err and read_motion(tmp_path / "v").params.expression.any()


def test_live_plays_a_folder_into_a_film(avatar_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    for k in range(3):
        Image.fromarray(np.asarray(astronaut())[:360, 60 + k : 420 + k]).save(tmp_path / "in" / f"{k}.png")
    monkeypatch.setattr("ffavatar.api.model_for", lambda *_: StandInModel(small_avatar().rig.head))
    out, _ = run("live", avatar_file, "--source", tmp_path / "in", "-o", tmp_path / "o.mp4", "--port", 0, "--size", 64)
    assert "CPU ms a frame" in out and (tmp_path / "o.mp4").stat().st_size > 500
    with pytest.raises(InputError, match="Nothing would be shown"):
        run("live", avatar_file, "--source", tmp_path / "in", "--port", 0)
    with pytest.raises(InputError, match="no transparency"):
        run("live", avatar_file, "--background", "transparent")
