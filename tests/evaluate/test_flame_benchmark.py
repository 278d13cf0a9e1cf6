"""The NeRSemble benchmark end to end on a generated download: avatars from training frames, driven by FLAME tracks of a
head that nobody knows, drawn in cameras that the avatar never saw, packed into a submission."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "head"))
from made_benchmark import CAMERAS, HELD_OUT, SIZE, SMALLER, TRAIN, Truth, make_benchmark
from made_flame import flame_arrays

from ffavatar.commands.submission import submission
from ffavatar.errors import InputError
from ffavatar.evaluate import flame_benchmark
from ffavatar.evaluate import submission as submissions
from ffavatar.evaluate.flame_benchmark import Drawn, RenderPlan, read_cameras, render_benchmark, training_frames
from ffavatar.evaluate.submission import Task, check_submission, write_submission
from ffavatar.model import FFAvatar, load_model
from ffavatar.photo import FrontEnd

TASK = Task(("393",), HELD_OUT, CAMERAS, size=SIZE)
PLAN = RenderPlan(size=SIZE, level=0)
CLOSE_PX = 6.0  # mean over a face about 90 px wide


@pytest.fixture(scope="module")
def model() -> FFAvatar:
    return load_model("lite")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("download")
    return root, make_benchmark(root)


@pytest.fixture(scope="module")
def rendered(made: tuple[Path, Truth], model: FFAvatar, tmp_path_factory) -> tuple[Path, list[Drawn]]:
    out = tmp_path_factory.mktemp("pictures")
    return out, render_benchmark(made[0], out, model, PLAN, TASK)


def shown(place: Path) -> np.ndarray:
    with Image.open(place) as picture:
        assert picture.mode == "RGBA"
        return np.array(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))


def test_faces_are_where_the_held_out_pictures_have_them(made: tuple[Path, Truth], rendered) -> None:
    """In both cameras, of which one gave no picture; the landmarker reads our pictures, the truth is the drawing's."""
    out, drawn = rendered
    front_end = FrontEnd()
    for serial in CAMERAS:
        for frame in range(3):
            image = shown(out / "393" / "FREE" / f"cam_{serial}" / f"{frame:06d}.png")
            found = front_end.analyse(image).landmarks
            assert found is not None
            away = found[:468, :2].numpy() - made[1].landmarks[serial][frame][:468]
            assert np.linalg.norm(away, axis=1).mean() < CLOSE_PX, (serial, frame)
    (row,) = drawn
    # of the drawn head to "FLAME's"; the avatar's own size is read from crops, which do not tell it well
    assert row.frames == 4 and row.alignment.error < 0.03 and 0.8 * SMALLER < row.alignment.scale < 1.2 * SMALLER
    assert "expression coefficients of flame2023 were left out" in row.notes[0] and "jaw and eyes drive" in row.notes[0]
    assert (out / "393" / "alignment.png").is_file()


def test_the_pictures_make_a_submission(made: tuple[Path, Truth], rendered, tmp_path: Path) -> None:
    out, _ = rendered
    place = write_submission(out, tmp_path / "s.zip", made[0], TASK)
    assert check_submission(place, made[0], TASK) == []


def test_a_stopped_run_goes_on_and_settings_are_not_mixed(
    made: tuple[Path, Truth], model: FFAvatar, rendered, tmp_path: Path
) -> None:
    out = tmp_path / "pictures"

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_benchmark(made[0], out, model, PLAN, TASK, stop)
    first = out / "393" / "FREE" / f"cam_{CAMERAS[0]}" / "000000.png"
    before = first.stat().st_mtime_ns
    render_benchmark(made[0], out, model, PLAN, TASK)
    assert first.stat().st_mtime_ns == before
    files = sorted(p.relative_to(out) for p in out.rglob("*.png"))
    assert files == sorted(p.relative_to(rendered[0]) for p in rendered[0].rglob("*.png"))
    assert all((out / f).read_bytes() == (rendered[0] / f).read_bytes() for f in files)
    assert render_benchmark(made[0], out, model, PLAN, TASK) == []
    with pytest.raises(InputError, match="of other settings or weights"):
        render_benchmark(made[0], out, model, RenderPlan(views=2, size=SIZE, level=0), TASK)


def test_held_out_films_are_never_opened(made: tuple[Path, Truth], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    place = tmp_path / "mono_flame_avatar" / "393" / "sequences" / HELD_OUT[0] / "images" / f"cam_{CAMERAS[0]}.mp4"
    place.parent.mkdir()
    place.write_bytes(b"not a film: opening it would raise")
    looked_at = training_frames(tmp_path, "393", TASK, FrontEnd(), 128)
    assert {one.name.split("/")[1].split(" frame")[0] for one in looked_at} == set(TRAIN)


def test_tracks_that_do_not_belong_to_the_films_are_refused(
    made: tuple[Path, Truth], tmp_path: Path, model: FFAvatar
) -> None:
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    place = tmp_path / "mono_flame_avatar" / "393" / "calibration" / "camera_params.json"
    content = json.loads(place.read_text())
    whole = json.dumps(content)
    for serial, pose in content["world_2_cam"].items():  # OpenGL's axes instead of OpenCV's
        content["world_2_cam"][serial] = (np.diag([1.0, -1.0, -1.0, 1.0]) @ np.array(pose)).tolist()
    place.write_text(json.dumps(content))
    with pytest.raises(InputError, match="do not belong together"):
        render_benchmark(tmp_path, tmp_path / "out", model, PLAN, TASK)
    lens = content["intrinsics"][CAMERAS[0]]
    place.write_text(json.dumps(json.loads(whole) | {"intrinsics": lens}))
    with pytest.raises(InputError, match="the calibration of the uncut films"):
        read_cameras(tmp_path, "393", TASK)


@pytest.mark.slow
def test_a_flame_file_gives_expressions_their_meaning(tmp_path: Path, model: FFAvatar) -> None:
    make_benchmark(tmp_path, matrices=True)
    flame = tmp_path / "flame2023.pkl"
    flame.write_bytes(pickle.dumps(flame_arrays()))
    plan = RenderPlan(size=SIZE, level=0, flame=flame)
    (row,) = render_benchmark(tmp_path, tmp_path / "out", model, plan, TASK)
    assert "carried over by least squares" in row.notes[0] and row.alignment.error < 0.03


@pytest.mark.parametrize("level", [0, pytest.param(None, marks=pytest.mark.slow)])
def test_the_command_renders_and_says_what_drives(
    made: tuple[Path, Truth], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, level: int | None
) -> None:
    """With a coarse head, and (slow) with the preset's, which is what the command draws."""
    monkeypatch.setattr(submissions, "mono_avatar", lambda: TASK)
    monkeypatch.setattr(flame_benchmark, "mono_avatar", lambda: TASK)
    asked: list[RenderPlan] = []

    def at_level(data: Path, out: Path, model: FFAvatar, plan: RenderPlan, **rest: Any) -> list[Drawn]:
        asked.append(plan)
        return render_benchmark(data, out, model, replace(plan, level=level), **rest)

    monkeypatch.setattr(flame_benchmark, "render_benchmark", at_level)
    out = tmp_path / "pictures"
    with pytest.raises(InputError, match="give the benchmark's download"):
        submission(out, tmp_path / "s.zip", render=True)
    submission(out, tmp_path / "s.zip", made[0], render=True, views=2, size=SIZE)
    assert [(plan.views, plan.size, plan.level) for plan in asked] == [(2, SIZE, None)]
    words = capsys.readouterr()
    assert "393: avatar of 2 training frames" in words.out and "2 films, ready" in words.out
    assert "were left out" in words.err
    assert (tmp_path / "s.zip").is_file()
