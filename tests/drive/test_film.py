"""Driver to film: frames, framing, sound, frames without a face, nothing half-written. NASA's astronaut drives."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_avatar import StandInModel, small_avatar
from made_films import add_tone
from PIL import Image
from skimage.data import astronaut

from ffavatar.drive.film import (
    FilmStyle,
    Moment,
    Sighting,
    cut_window,
    estimate_motion,
    film_motion,
    make_film,
    perform,
)
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.drive.pose import posed, write_turntable
from ffavatar.drive.video import FrameReader
from ffavatar.drive.window import Box
from ffavatar.errors import InputError
from ffavatar.photo import FrontEnd
from ffavatar.types import HeadParams, Views


@pytest.fixture(scope="module")
def front_end() -> FrontEnd:
    return FrontEnd()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames: the portrait moving to the right by 3 px a frame, frames 5 and 6 grey; with sound."""
    path = tmp_path_factory.mktemp("driver") / "driver.mp4"
    photo = np.asarray(astronaut())[:360, 60:420]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = 320, 360, "yuv420p"
        audio = container.add_stream("aac", rate=44100)
        audio.layout = "stereo"
        for index in range(12):
            image = np.full((360, 320, 3), 128, np.uint8)
            if index not in (5, 6):
                image = np.ascontiguousarray(photo[:, 36 - 3 * index : 356 - 3 * index])
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        add_tone(container, audio, 12 / 25)
    return path


@pytest.fixture(scope="module")
def model() -> StandInModel:
    return StandInModel(small_avatar().rig.head)


def frames_of(path: Path) -> np.ndarray:
    return np.stack([f.image for f in FrameReader(path)])


def test_film_of_a_video(tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd) -> None:
    seen = []
    report = make_film(
        small_avatar(), driver, tmp_path / "out.mp4", FilmStyle(size=128), model=model, front_end=front_end,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    frames = frames_of(tmp_path / "out.mp4")
    assert frames.shape == (12, 128, 128, 3)
    assert (report.frames, report.held, report.bridged) == (12, 0, 2) and "2 of 12 frames" in report.notes[0]
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == list(range(1, 13))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1 and container.streams.video[0].average_rate == 25
    assert (frames[:, :8, :8] > 250).all()  # white above the shoulder
    assert frames[:, 60:70, 60:70].mean() < 230  # a head in the middle


def test_side_by_side_and_background(tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd) -> None:
    style = FilmStyle(size=128, side_by_side=True, background=(0.0, 0.0, 1.0))
    make_film(small_avatar(), driver, tmp_path / "out.mp4", style, model=model, front_end=front_end)
    frames = frames_of(tmp_path / "out.mp4")
    assert frames.shape == (12, 128, 256, 3)
    assert np.abs(frames[0, 4:8, 132:136].astype(int) - (0, 0, 255)).max() < 16
    assert np.abs(frames[5, 40:80, 40:80].astype(int) - 128).max() < 12  # the driver's grey frame


def test_beyond_the_drivers_picture_is_the_background() -> None:
    picture = np.full((20, 20, 3), 90, np.uint8)
    beside = cut_window(picture, Box(-10, 0, 20, 20), 40, 40, (0.5, 0.0, 1.0))
    assert (beside[:, :18] == (128, 0, 255)).all() and (beside[:, 22:] == 90).all()


def test_a_gif_has_the_odd_sides_that_are_asked_for(tmp_path: Path, model: StandInModel, front_end: FrontEnd) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.asarray(astronaut())[:360, 60:420]).save(tmp_path / "in" / "0.jpg")
    given = (small_avatar(), tmp_path / "in")
    for name, shape in (("o.gif", (1, 65, 65, 3)), ("o.mp4", (1, 66, 66, 3))):
        make_film(*given, tmp_path / name, FilmStyle(65), model=model, front_end=front_end)
        assert frames_of(tmp_path / name).shape == shape


def head_middle(frame: np.ndarray) -> float:
    """Mean column of what is not white in the upper part of a picture."""
    columns = (frame[: frame.shape[0] // 2].min(-1) < 200).sum(0)
    return float((columns * np.arange(len(columns))).sum() / columns.sum())


def test_full_frame_puts_the_head_where_the_driver_has_it(
    tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd
) -> None:
    style = FilmStyle(full_frame=True)
    make_film(small_avatar(), driver, tmp_path / "out.mp4", style, model=model, front_end=front_end)
    frames = frames_of(tmp_path / "out.mp4")
    assert frames.shape == (12, 360, 320, 3)
    assert head_middle(frames[11]) - head_middle(frames[0]) == pytest.approx(33, abs=5)
    left, _, right, _ = front_end.analyse(next(iter(FrameReader(driver))).image).report.face_box
    assert abs(head_middle(frames[0]) - (left + right) / 2) < 0.25 * (right - left)


def test_transparent_frames(tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd) -> None:
    style = FilmStyle(size=64, alpha=True)
    make_film(small_avatar(), driver, tmp_path / "frames", style, model=model, front_end=front_end)
    files = sorted((tmp_path / "frames").iterdir())
    assert len(files) == 12
    with Image.open(files[3]) as image:
        rgba = np.asarray(image)
    assert rgba.shape == (64, 64, 4) and rgba[2, 2, 3] == 0 and rgba[32, 32, 3] > 250


def test_folder_of_pictures_drives(tmp_path: Path, model: StandInModel, front_end: FrontEnd) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(np.asarray(astronaut())[:360, 60:420]).save(tmp_path / "in" / f"{index}.jpg")
    report = make_film(
        small_avatar(), tmp_path / "in", tmp_path / "out.webm", FilmStyle(64), model=model, front_end=front_end
    )
    assert report.frames == 3 and frames_of(tmp_path / "out.webm").shape == (3, 64, 64, 3)


def test_driver_without_a_face(tmp_path: Path, model: StandInModel, front_end: FrontEnd) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64), (90, 120, 90)).save(tmp_path / "in" / "0.png")
    with pytest.raises(InputError, match="no usable face in any of its 1 frames"):
        make_film(small_avatar(), tmp_path / "in", tmp_path / "out.mp4", model=model, front_end=front_end)
    assert not (tmp_path / "out.mp4").exists()


def test_a_face_that_no_frame_has(tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd) -> None:
    with pytest.raises(InputError, match=r"driver\.mp4: there is no face 1; its frames show one face, counted from 0"):
        make_film(small_avatar(), driver, tmp_path / "out.mp4", model=model, front_end=front_end, face=1)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_on_the_way_leaves_nothing(
    tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd, failure: type[BaseException]
) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise failure

    with pytest.raises(failure):
        make_film(
            small_avatar(), driver, tmp_path / "o.mp4", FilmStyle(64), model=model, front_end=front_end, progress=stop
        )
    assert list(tmp_path.iterdir()) == []


def test_estimate_then_play(tmp_path: Path, driver: Path, model: StandInModel, front_end: FrontEnd) -> None:
    motion, report = estimate_motion(model, driver, front_end=front_end)  # type: ignore[arg-type]
    assert len(motion) == 12 and motion.fps == 25 and report.bridged == 2
    assert motion.expression_names == tuple(small_avatar().rig.head.expression_names)
    # The head moves to the right of the picture, which is the person's left: +x.
    assert motion.params.translation[11, 0] > motion.params.translation[0, 0] + 0.005
    motion.save(tmp_path / "m.npz")
    report = film_motion(small_avatar(), Motion.load(tmp_path / "m.npz"), tmp_path / "o.mp4", FilmStyle(64))
    assert report.frames == 12 and report.notes == []
    with pytest.raises(InputError, match="no pictures"):
        film_motion(small_avatar(), motion, tmp_path / "o2.mp4", FilmStyle(64, side_by_side=True))


def dummy_views(value: float) -> Views:
    one = torch.full((1, 2, 2), value)
    return Views(one[..., None].expand(1, 2, 2, 3), one, one, torch.zeros(1, 478, 3), torch.zeros(1, 52))


def test_faceless_beginning_takes_the_first_pose(tmp_path: Path) -> None:
    for index in range(10):
        Image.new("RGB", (8, 8), (20 * index, 0, 0)).save(tmp_path / f"{index}.png")

    def find():
        def look(image: np.ndarray) -> Sighting | None:
            red = int(image[0, 0, 0])
            return Sighting(dummy_views(float(red)), Box(red, 0, 10, 10)) if red in (120, 140, 180) else None

        return look

    def read_pose(views: Views) -> HeadParams:
        params = HeadParams.neutral(len(views), 1)
        shift = torch.zeros(len(views), 3)
        shift[:, 0] = views.images[:, 0, 0, 0]
        return HeadParams(
            params.root, shift, params.neck, params.jaw, params.eye_left, params.eye_right, params.expression
        )

    moments: list[Moment] = list(perform(FrameReader(tmp_path, Fraction(10)), find, read_pose))
    assert [float(m.params.translation[0, 0]) for m in moments] == [120] * 7 + [140, 140, 180]
    assert [m.crop.left for m in moments] == [120] * 7 + [140, 140, 180]
    assert [m.seen for m in moments] == [False] * 6 + [True, True, False, True]


def test_pose_by_hand_and_turntable(tmp_path: Path) -> None:
    avatar = small_avatar()
    params = posed(avatar, (30, 0, 0), {"jawOpen": 1.0, "eyeBlinkLeft": 0.5})
    assert torch.allclose(params.root[0], torch.tensor([0.0, np.pi / 6, 0.0]), atol=1e-5)
    assert params.jaw[0, 0] > 0.1
    assert params.expression[0, avatar.expression_names.index("eyeBlinkLeft")] == 0.5
    with pytest.raises(InputError, match="jawOpen"):
        posed(avatar, expressions={"jawopen": 1.0})
    report = write_turntable(avatar, posed(avatar), tmp_path / "t.mp4", FilmStyle(64), seconds=0.5)
    frames = frames_of(tmp_path / "t.mp4")
    assert report.frames == len(frames) == 15
    assert np.abs(frames[7].astype(int) - frames[0]).mean() > 5  # the back differs from the front


def test_demo_motion_plays(tmp_path: Path) -> None:
    motion = demo_motion(small_avatar().rig.head, 1.0, 10)
    report = film_motion(small_avatar(), motion, tmp_path / "d.gif", FilmStyle(64))
    assert report.frames == 10
