"""Frame by frame: poses at once, faces that come and go, the newest picture, the page that shows it."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from made_avatar import StandInModel, small_avatar
from skimage.data import astronaut

from ffavatar import pipeline
from ffavatar.drive.live import (
    HOLD_S,
    TO_REST_S,
    LiveDriver,
    LiveReport,
    Recorder,
    camera_frames,
    file_frames,
    newest,
    run_live,
)
from ffavatar.drive.motion import CHANNELS
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.stream import PictureStream
from ffavatar.errors import InputError
from ffavatar.photo import FrontEnd
from ffavatar.types import HeadParams, Views

PORTRAIT = np.asarray(astronaut())[:360, 60:420]
GREY = np.full_like(PORTRAIT, 128)


@pytest.fixture(scope="module")
def front_end() -> FrontEnd:
    return FrontEnd()


class Talking(StandInModel):
    """Reads an expression that is the driver's own plus what is played."""

    played: list[float]
    own = 0.3

    def estimator(self, views: Views, identity: torch.Tensor | None = None):  # type: ignore[override]
        found = super().estimator(views, identity)
        found.params.expression[:] = self.own + self.played.pop(0)
        return found


def live(front_end: FrontEnd, options: DriveOptions | None = None, model: StandInModel | None = None) -> LiveDriver:
    avatar = small_avatar()
    return LiveDriver(avatar, model or StandInModel(avatar.rig.head), front_end, options, fps=25)  # type: ignore[arg-type]


def test_nothing_until_a_face_then_a_pose_at_once(front_end: FrontEnd) -> None:
    driver = live(front_end)
    assert driver.push(GREY) is None
    made = driver.push(PORTRAIT)
    assert isinstance(made, HeadParams) and len(made) == 1
    assert made.translation[0, 2] == pytest.approx(-1.15, abs=0.01)


@pytest.mark.parametrize("own", [False, True])
def test_outlines_are_evidence_of_ones_own_person_only(front_end: FrontEnd, monkeypatch, own: bool) -> None:
    asked = []

    def drive(model, avatar, views, own):
        asked.append(own)
        return model.estimator(views, avatar.identity).params

    monkeypatch.setattr(pipeline, "drive", drive)
    assert live(front_end, DriveOptions(same_person=own)).push(PORTRAIT) is not None
    assert asked == [own]


def test_a_lost_face_holds_and_goes_to_rest(front_end: FrontEnd) -> None:
    driver = live(front_end)
    first = driver.push(PORTRAIT, 10.0)
    assert first is not None
    held = driver.push(GREY, 10.0 + 0.9 * HOLD_S)
    assert held is not None and torch.equal(held.root, first.root)
    between = driver.push(GREY, 10.0 + HOLD_S + TO_REST_S / 2)
    rest = driver.push(GREY, 10.0 + HOLD_S + TO_REST_S + 0.1)
    assert between is not None and rest is not None
    assert 0.3 < float(between.root.norm() / first.root.norm()) < 0.7
    neutral = small_avatar().neutral_params()
    for name in CHANNELS:
        assert torch.allclose(getattr(rest, name), getattr(neutral, name), atol=1e-6)
    assert driver.push(PORTRAIT, 13.0) is not None


def test_the_same_pictures_give_the_same_poses(front_end: FrontEnd) -> None:
    pictures = [np.roll(PORTRAIT, 2 * k, 1) for k in range(4)]
    a, b = ([driver.push(p) for p in pictures] for driver in (live(front_end), live(front_end)))
    for one, other in zip(a, b):
        assert one is not None and other is not None
        assert all(torch.equal(getattr(one, n), getattr(other, n)) for n in CHANNELS)


def test_the_torso_can_stand_still(front_end: FrontEnd) -> None:
    turned, still = (live(front_end, DriveOptions(torso=way)).push(PORTRAIT) for way in ("follow", "still"))  # type: ignore[arg-type]
    assert turned is not None and still is not None
    assert turned.root.norm() > 0.01 and still.root.norm() < 1e-6
    assert torch.allclose(still.neck, turned.root, atol=1e-5)  # the made model turns the root alone


def test_relative_takes_the_drivers_own_features_away(front_end: FrontEnd) -> None:
    model = Talking(small_avatar().rig.head)
    model.played = [0.0] * 26 + [0.5] * 4
    driver = live(front_end, DriveOptions(relative=True, smooth=False), model)
    made = [driver.push(PORTRAIT) for _ in range(30)]
    assert all(m is not None and m.expression.abs().max() < 1e-5 for m in made[:26])
    assert made[-1] is not None and torch.allclose(made[-1].expression, torch.tensor(0.5), atol=1e-5)


def test_run_counts_and_measures(front_end: FrontEnd) -> None:
    shown: list[np.ndarray] = []
    frames = [(GREY, 0.0), (PORTRAIT, 0.04), (PORTRAIT, 0.08), (PORTRAIT, 0.12)]
    report = run_live(live(front_end), iter(frames), 64, shown.append, most=3)
    assert report.frames == 3 and report.faceless == 1 and len(report.latency_s) == 3
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in shown)
    assert shown[0].std() > 5  # the resting avatar, until a face is seen
    assert "3 frames" in report.summary() and LiveReport().summary() == "no frame was shown"


def test_only_the_newest_picture_is_taken() -> None:
    report = LiveReport()
    given = threading.Event()

    def quick() -> Iterator[tuple[np.ndarray, float]]:
        for k in range(50):
            yield GREY, float(k)
        given.set()

    stream = newest(quick(), report)
    first = next(stream)
    assert given.wait(5)
    rest = [first, *stream]
    assert rest[-1][1] == 49.0 and len(rest) + report.dropped == 50 and len(rest) <= 4


def test_errors_of_the_source_come_out() -> None:
    def broken() -> Iterator[tuple[np.ndarray, float]]:
        yield GREY, 0.0
        raise InputError("the camera was unplugged; plug it in.")

    with pytest.raises(InputError, match="unplugged"):
        list(newest(broken(), LiveReport()))
    with pytest.raises(InputError, match="cannot be opened"):
        camera_frames("no-such-camera")


def test_a_recording_keeps_time() -> None:
    """Pictures at 0, 0.1, 0.35 and 0.4 s, recorded at 20 a second."""
    written: list[int] = []
    recorder = Recorder(lambda picture: written.append(int(picture[0, 0, 0])), 20.0)
    for value, now in ((1, 7.0), (2, 7.1), (3, 7.35), (4, 7.4)):
        recorder.show(np.full((2, 2, 3), value, np.uint8), now)
    recorder.finish()
    assert written == [1, 1, 2, 2, 2, 2, 2, 3, 4]


def test_a_film_plays_at_its_own_speed(film) -> None:
    start = time.monotonic()
    times = [t for _, t in file_frames(film("a.mp4", frames=6, fps=25), realtime=True)]
    assert time.monotonic() - start >= 0.19 and times == pytest.approx([k / 25 for k in range(6)], abs=1e-3)


def test_the_page_shows_the_newest_picture_to_this_computer_only() -> None:
    port = 18765
    with PictureStream(port) as stream:
        stream.show(GREY)
        with urllib.request.urlopen(stream.address, timeout=5) as page:
            assert b"/picture" in page.read()
        with urllib.request.urlopen(f"{stream.address}/picture", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
            assert answer.readline() == b"--picture\r\n" and b"image/jpeg" in answer.readline()
        stranger = urllib.request.Request(stream.address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(stranger, timeout=5)
        with pytest.raises(InputError, match="cannot be used"), PictureStream(port):
            pass
