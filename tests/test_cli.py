"""The command line: help, exit codes, the commands on small inputs, interruption."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_avatar import StandInModel, small_avatar
from PIL import Image
from skimage.data import astronaut

import ffavatar
from ffavatar import cli
from ffavatar.drive.background import parse_background
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.drive.video import FrameReader
from ffavatar.errors import InputError


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FFAVATAR_DEBUG", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(a) for a in arguments])
        signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def avatar_file(tmp_path: Path) -> Path:
    small_avatar().save(tmp_path / "me.safetensors")
    return tmp_path / "me.safetensors"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Films and estimates without weights."""
    model = StandInModel(small_avatar().rig.head)
    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": model)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.asarray(astronaut())[:360, 60:420]).save(folder / f"{index}.jpg")
    return folder


def test_help_lists_every_command_and_option(run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in cli.COMMANDS:
        assert command.__name__ in out and (command.__doc__ or "").split(".")[0].split(",")[0][:30] in out
        code, text, _ = run(command.__name__, "--help")
        assert code == 0
        for name in command.__annotations__:
            if name not in ("return", "avatar", "photos", "video", "file", "data", "source"):
                option = {"layout": "to"}.get(name, name.replace("_", "-"))
                assert f"--{option}" in text, f"{command.__name__} --help does not show --{option}"
        assert "consent" in out


def test_version(run) -> None:
    assert run("--version") == (0, f"ffavatar {ffavatar.__version__}\n", "")


def test_usage_errors_exit_with_two(run, avatar_file: Path) -> None:
    for arguments in (
        ("nonsense",),
        ("animate", avatar_file),
        ("render", avatar_file, "-o", "x.png", "--size", "7"),
        ("reconstruct", "-o", "x.safetensors"),
    ):
        code, out, err = run(*arguments)
        assert code == 2 and "Traceback" not in err and err and not out


def test_render_still_and_turntable(run, avatar_file: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "render", avatar_file, "-o", tmp_path / "a.png", "--size", 96, "--yaw", 20, "--expression", "jawOpen=0.5",
        "--background", "#102030",
    )  # fmt: skip
    assert (code, err) == (0, "") and "a.png" in out
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (96, 96) and image.getpixel((1, 1)) == (0x10, 0x20, 0x30)
    code, _, err = run("render", avatar_file, "-o", tmp_path / "clear.png", "--size", 96, "--background", "transparent")
    with Image.open(tmp_path / "clear.png") as image:
        assert image.mode == "RGBA" and image.getpixel((1, 1))[3] == 0
    code, _, err = run("render", avatar_file, "-o", tmp_path / "t.mp4", "--turntable", "--seconds", 0.5, "--size", 96)
    assert (code, err) == (0, "") and len(list(FrameReader(tmp_path / "t.mp4"))) == 15


def test_animate_by_pictures_and_by_motion(
    run, avatar_file: Path, pictures: Path, tmp_path: Path, stand_in: None
) -> None:
    code, out, err = run(
        "animate", avatar_file, "--driver", pictures, "-o", tmp_path / "a.mp4", "--size", 96, "--side-by-side"
    )
    assert (code, err) == (0, "") and "3 frames" in out
    assert FrameReader(tmp_path / "a.mp4").size == (192, 96)
    demo_motion(small_avatar().rig.head, 0.5, 10).save(tmp_path / "m.json")
    code, out, err = run(
        "animate", avatar_file, "--driver", tmp_path / "m.json", "-o", tmp_path / "b.webm", "--size", 96
    )
    assert (code, err) == (0, "") and "5 frames" in out
    code, out, err = run(
        "animate", avatar_file, "--driver", tmp_path / "m.json", "-o", tmp_path / "c.mp4", "--full-frame"
    )
    assert code == 2 and "--full-frame" in err and not (tmp_path / "c.mp4").exists()


def test_estimate_and_inspect(run, avatar_file: Path, pictures: Path, tmp_path: Path, stand_in: None) -> None:
    code, out, err = run("estimate", pictures, "-o", tmp_path / "m.json")
    assert (code, err) == (0, "") and "3 frames" in out
    assert len(Motion.load(tmp_path / "m.json")) == 3
    code, out, _ = run("inspect", tmp_path / "m.json")
    assert code == 0 and "3 at 25 per second" in out and "embedded-1" in out
    code, out, _ = run("inspect", avatar_file)
    assert code == 0
    for text in ("version", "licence", "CC0", f"{len(small_avatar()):,}", "made from", "the average head"):
        assert text in out


def test_reconstruct_prints_a_row_per_photo(
    run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffavatar.avatar import Avatar
    from ffavatar.model import create_model

    monkeypatch.setattr("ffavatar.api.model_for", lambda weights=None, device="auto": create_model("tiny").eval())
    monkeypatch.setenv("FFAVATAR_CACHE", str(tmp_path / "no cache"))
    Image.new("RGB", (64, 64), (90, 120, 90)).save(pictures / "meadow.png")
    code, out, err = run("reconstruct", pictures, "-o", tmp_path / "me.safetensors", "--points", "5k", "--size", 128)
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert [row.split()[0] for row in rows[:4]] == ["kept", "kept", "kept", "refused"]
    assert "meadow.png" in rows[3] and "no face was found" in rows[3]
    assert "was not checked" in rows[4]
    assert "from 3 views" in rows[5]
    assert len(Avatar.load(tmp_path / "me.safetensors")) > 1000
    code, out, _ = run("inspect", tmp_path / "me.safetensors")
    assert code == 0 and "avatar" in out


def test_background_colours() -> None:
    assert parse_background("white") == ((1.0, 1.0, 1.0), False)
    assert parse_background("#ff8000") == ((1.0, 128 / 255, 0.0), False)
    assert parse_background("transparent")[1]
    for wrong in ("#ff80", "blurple", "#gggggg", ""):
        with pytest.raises(InputError, match="no background"):
            parse_background(wrong)


def test_unexpected_error_is_one_sentence_unless_asked(run, avatar_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("ffavatar.avatar.Avatar.load", broken)
    code, out, err = run("inspect", avatar_file)
    assert code == 1 and out == ""
    assert err.count("\n") == 1 and "RuntimeError (first line second line)" in err and "--debug" in err
    code, _, err = run("inspect", avatar_file, "--debug")
    assert code == 1 and "Traceback" in err
    monkeypatch.setenv("FFAVATAR_DEBUG", "1")
    assert "Traceback" in run("inspect", avatar_file)[2]


def test_keyboard_interrupt_exits_with_130(run, avatar_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ffavatar.avatar.Avatar.load", stopped)
    code, _, err = run("inspect", avatar_file)
    assert code == 130 and re.fullmatch(r"ffavatar: interrupted.*\n", err)


def _bytes_in(folder: Path) -> int:
    """The bytes in a folder's files, of which another process may remove some while they are counted."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_middle_of_a_film(avatar_file: Path, tmp_path: Path, number: signal.Signals) -> None:
    """A real process, stopped while frames are written: exit 130, one line, no half-written file."""
    demo_motion(small_avatar().rig.head, 60.0, 30).save(tmp_path / "m.npz")
    out = tmp_path / "out"
    out.mkdir()
    arguments = [
        "animate",
        str(avatar_file),
        "--driver",
        str(tmp_path / "m.npz"),
        "-o",
        str(out / "f.mp4"),
        "--size",
        "512",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "ffavatar", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell's background jobs ignore SIGINT and hand that on: the test must not depend on how it was started
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not _bytes_in(out) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)  # the temporary file has its first bytes
            assert process.poll() is None and _bytes_in(out)
            process.send_signal(number)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()  # nothing outlives a failed assertion; nothing happens where it has ended
    assert process.returncode == 130
    assert re.fullmatch(r"ffavatar: interrupted.*\n", err)
    assert list(out.iterdir()) == []
