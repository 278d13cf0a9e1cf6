"""Ava-256 and NeRSemble trees: known points land where the sample's cameras say, within half a pixel."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_captures import GREY, Truth, dots, make_ava, make_nersemble
from PIL import features
from scipy.spatial.transform import Rotation

from ffavatar.data.captures import shots
from ffavatar.data.captures.ava256 import AvaCapture, list_captures
from ffavatar.data.captures.geometry import project, resized_intrinsics, rigid_align, triangulate
from ffavatar.data.captures.lens import distorted, read_coefficients
from ffavatar.data.captures.nersemble import NersemblePerson, corrected, list_people
from ffavatar.data.captures.prepare import make_split, prepare_ava, prepare_nersemble, read_split, write_split
from ffavatar.data.shards import PersonSample, ShardReader
from ffavatar.errors import InputError

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
SIZE = 512


def errors_px(sample: PersonSample, move: np.ndarray | None = None) -> np.ndarray:
    """Distances of where the sample's cameras see the known points and where they are in its pictures; infinite where
    there is no dot at all. ``move``: a transform of the world, to see that the measure notices it."""
    errors = []
    for row in range(len(sample)):
        world_to_cam = sample.arrays["world_to_cam"][row]
        at, _ = project(dots(), sample.arrays["K"][row], world_to_cam if move is None else world_to_cam @ move)
        dark = np.clip(GREY - 30 - sample.images[row].astype(float).mean(-1), 0, None)
        apart = np.linalg.norm(at[:, None] - at[None], axis=-1) + 1e9 * np.eye(len(at))
        for (u, v), nearest in zip(at, apart.min(1)):
            if nearest < 26 or not (14 < u < SIZE - 14 and 14 < v < SIZE - 14):
                continue
            x, y = int(u), int(v)
            window = dark[y - 11 : y + 12, x - 11 : x + 12]
            if window.sum() < 500:
                errors.append(np.inf)
                continue
            ys, xs = np.mgrid[y - 11 : y + 12, x - 11 : x + 12] + 0.5
            found = np.array([(window * xs).sum(), (window * ys).sum()]) / window.sum()
            errors.append(float(np.hypot(*(found - [u, v]))))
    assert len(errors) >= 5 * len(sample), "too few dots stand alone: the measure would say nothing"
    return np.array(errors)


FLIPS = [np.diag(signs) for signs in ([-1, 1, 1, 1], [1, -1, 1, 1], [1, 1, -1, 1], [-1, 1, -1, 1], [1, -1, -1, 1])]


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return shots.neutral_landmarks()


@pytest.fixture(scope="module")
def ava(tmp_path_factory, landmarks) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("ava")
    return root, make_ava(root, landmarks, missing=(("401001", 1010), ("404004", 1000)))


def ava_sample(root: Path, truth: Truth, frames: int = 3) -> tuple[PersonSample | None, Counter[str]]:
    refused: Counter[str] = Counter()
    capture = AvaCapture(root / list_captures(root)[0] / "decoder")
    moments = capture.moments(frames, sorted(capture.cameras), refused)
    sample, others = shots.capture_sample("ava", moments, SIZE, {}, truth.find)
    return sample, refused + others


def test_ava_cameras_see_known_points_where_they_are(ava) -> None:
    sample, refused = ava_sample(*ava)
    assert sample is not None and refused == {"a picture is missing": 2}
    assert len(sample) == 3 * 5 - 2
    errors = errors_px(sample)
    assert errors.max() <= 0.5 and np.median(errors) < 0.2
    for flip in FLIPS:
        assert np.median(errors_px(sample, flip)) > 2
    assert sorted(set(sample.arrays["frame"].tolist())) == [1000, 1010, 1021]
    assert set(sample.arrays["sequence"]) == {"EXP_smile"}  # the colour checker is left out


def test_ava_head_space_is_ours(ava, landmarks) -> None:
    """From camera 0, in front: the person's left on the right, up is up; camera 4 stands behind."""
    sample, _ = ava_sample(*ava)
    assert sample is not None
    for camera, sign in (("400000", 1), ("404004", -1)):
        row = int(np.flatnonzero(sample.arrays["camera"] == camera)[0])
        world_to_cam = sample.arrays["world_to_cam"][row]
        np.testing.assert_allclose(world_to_cam[:3, :3] @ world_to_cam[:3, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(world_to_cam[:3, :3]) == pytest.approx(1)
        place = -world_to_cam[:3, :3].T @ world_to_cam[:3, 3]
        assert sign * place[2] > 0.7 and 0.9 < np.linalg.norm(place) < 1.4  # metres, not millimetres
        moved, _ = project(np.array([[0.0, 0, 0], [0.05, 0, 0], [0, 0.05, 0]]), sample.arrays["K"][row], world_to_cam)
        assert sign * (moved[1, 0] - moved[0, 0]) > 5 and moved[2, 1] < moved[0, 1] - 5
        points, depth = project(landmarks, sample.arrays["K"][row], world_to_cam)
        np.testing.assert_allclose(sample.arrays["landmarks"][row][:, :2], points / SIZE, atol=2e-3)
        assert np.corrcoef(sample.arrays["landmarks"][row][:, 2], depth)[0, 1] > 0.999


def test_ava_mask_drops_the_chair(ava) -> None:
    sample, _ = ava_sample(*ava)
    assert sample is not None
    for matte in sample.mattes:
        assert 0.05 < (matte > 127).mean() < 0.7
        # labels 2 end 60 px below the dots' middle; all that is lower is chair or background
        assert (matte[int(0.75 * SIZE) :] > 0).mean() < 0.02


@pytest.mark.parametrize("kind", ["K", "T"])
def test_ava_matrices_that_are_not_transposed_are_noticed(tmp_path, landmarks, kind: str) -> None:
    def tamper(calibration: dict) -> None:
        for row in calibration["KRT"]:
            row[kind] = np.array(row[kind]).T.tolist()

    make_ava(tmp_path, landmarks, frames=(1,), tamper=tamper)
    with pytest.raises(InputError, match="no readable Ava-256 capture"):
        AvaCapture(tmp_path / list_captures(tmp_path)[0] / "decoder")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ava_a_flipped_axis_gives_no_sample_or_a_large_error(tmp_path, landmarks, axis: int) -> None:
    """Calibration with one world axis mirrored: nothing agrees any more, and it must not pass silently."""

    def tamper(calibration: dict) -> None:
        for row in calibration["KRT"]:
            T = np.array(row["T"])
            T[axis] *= -1  # stored transposed: row k is the world's k-th axis
            row["T"] = T.tolist()

    truth = make_ava(tmp_path, landmarks, frames=(1,), tamper=tamper)
    sample, _ = ava_sample(tmp_path, truth, 1)
    assert sample is None or errors_px(sample).max() > 0.5


@pytest.fixture(scope="module")
def nersemble(tmp_path_factory, landmarks) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("nersemble")
    return root, make_nersemble(root, landmarks, missing=("222200039",))


def test_nersemble_cameras_see_known_points_where_they_are(nersemble) -> None:
    root, truth = nersemble
    person = NersemblePerson(root / list_people(root)[0])
    refused: Counter[str] = Counter()
    moments = person.moments(person.sequences(), 3, sorted(person.cameras), refused)
    sample, others = shots.capture_sample("393", moments, SIZE, {}, truth.find)
    assert sample is not None and len(sample) == 3 * 4
    assert refused == {"a film is missing": 1} and not others
    errors = errors_px(sample)
    assert errors.max() <= 0.5 and np.median(errors) < 0.2
    for flip in FLIPS:
        assert np.median(errors_px(sample, flip)) > 2
    assert (sample.mattes[sample.valid] > 250).all()  # the alpha maps are white
    # the head moves from frame to frame, head space with it
    first, last = (np.flatnonzero(sample.arrays["frame"] == k)[0] for k in (0, 2))
    assert np.abs(sample.arrays["world_to_cam"][first] - sample.arrays["world_to_cam"][last]).max() > 0.1


LENS = (-0.35, 0.4, 0.004, -0.003, 0.1)  # barrel, decentred


def test_ava_lens_distortion_is_taken_out(tmp_path, landmarks) -> None:
    truth = make_ava(tmp_path, landmarks, frames=(1000,), lens=LENS)
    sample, _ = ava_sample(tmp_path, truth, 1)
    assert sample is not None and len(sample) == 5
    errors = errors_px(sample)
    assert errors.max() <= 0.5 and np.median(errors) < 0.2
    capture = AvaCapture(tmp_path / list_captures(tmp_path)[0] / "decoder", undistort=False)
    moments = capture.moments(1, sorted(capture.cameras), Counter())
    as_taken, _ = shots.capture_sample("ava", moments, SIZE, {}, truth.find)
    assert as_taken is not None and errors_px(as_taken).max() > 2  # the measure sees it


def test_nersemble_lens_distortion_is_taken_out_per_camera(tmp_path, landmarks) -> None:
    lens = {"222200037": LENS, "220700191": (0.5, -0.2, -0.003, 0.004, 0.0)}
    truth = make_nersemble(tmp_path, landmarks, frames=1, lens=lens)

    def errors(undistort: bool) -> np.ndarray:
        person = NersemblePerson(tmp_path / list_people(tmp_path)[0], undistort)
        moments = person.moments(person.sequences(), 1, sorted(person.cameras), Counter())
        sample, _ = shots.capture_sample("393", moments, SIZE, {}, truth.find)
        assert sample is not None and set(lens) <= set(sample.arrays["camera"])
        return errors_px(sample)

    assert errors(True).max() <= 0.5 and np.median(errors(True)) < 0.2
    assert errors(False).max() > 2


def test_lens_coefficients_are_read_or_refused(tmp_path, landmarks) -> None:
    assert read_coefficients(None) is None and read_coefficients([0.0] * 5, "unheard-of") is None
    assert read_coefficients([0.1, 0, 0, 0]).tolist() == [0.1, 0, 0, 0]
    for value, model in (([0.1], ""), ([0.1, 0, 0, float("nan")], ""), ([0.1, 0, 0, 0], "fisheye"), (["a"] * 4, "")):
        with pytest.raises(ValueError):
            read_coefficients(value, model)
    # the rational model against its formula at one point
    x, y, k = 0.3, -0.2, np.array([0.1, 0.02, 0.01, -0.02, 0.003, 0.05, 0.01, 0.002])
    r = x * x + y * y
    bent = (1 + k[0] * r + k[1] * r**2 + k[4] * r**3) / (1 + k[5] * r + k[6] * r**2 + k[7] * r**3)
    expected = [
        x * bent + 2 * k[2] * x * y + k[3] * (r + 2 * x * x), y * bent + k[2] * (r + 2 * y * y) + 2 * k[3] * x * y
    ]  # fmt: skip
    np.testing.assert_allclose(distorted(np.array([x, y]), k), expected, rtol=1e-12)
    make_ava(
        tmp_path, landmarks, frames=(1,), lens=LENS, tamper=lambda c: c["KRT"][0].update(distortionModel="fisheye")
    )
    with pytest.raises(InputError, match="fisheye"):
        AvaCapture(tmp_path / list_captures(tmp_path)[0] / "decoder")


def test_both_go_into_shards_and_are_not_done_twice(ava, nersemble, tmp_path, monkeypatch) -> None:
    for (root, truth), prepare, key in (
        (ava, prepare_ava, "20210810--1306--FXN596"), (nersemble, prepare_nersemble, "nersemble-393")
    ):  # fmt: skip
        monkeypatch.setattr(shots, "find_with_front_end", truth.find)
        writer = prepare(root, tmp_path / key, size=64, frames=1)
        (sample,) = ShardReader(tmp_path / key)
        assert sample.key == key and sample.arrays["camera"].dtype.kind == "U"
        assert writer.manifest.provenance.licence not in ("", "unknown")
        monkeypatch.setattr(shots, "find_with_front_end", None)  # would fail if it were called
        assert prepare(root, tmp_path / key, size=64, frames=1).manifest == writer.manifest
        with pytest.raises(InputError, match="of the split"):
            prepare(root, tmp_path / "x", people=["nobody"])


def test_landmarks_that_do_not_agree_give_no_sample(ava) -> None:
    root, truth = ava
    wrong = Truth({k: v[:, ::-1] for k, v in truth.landmarks.items()})
    sample, refused = ava_sample(root, wrong)
    assert sample is None and refused["the face was not found alike by two cameras"] == 13


def test_triangulation_and_alignment_undo_known_cameras_and_motions() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(30, 3)) + np.array([0, 0, 5])
    K = np.array([[900.0, 0, 320], [0, 910, 240], [0, 0, 1]])
    cameras = np.stack([np.eye(4)] * 3)
    cameras[1, :3, 3], cameras[2, :3, :3] = [0.4, 0.1, 0], Rotation.from_euler("y", 5, degrees=True).as_matrix()
    cameras[2, 0, 3] = -0.5
    pixels = np.stack([project(points, K, c)[0] for c in cameras])
    np.testing.assert_allclose(triangulate(pixels, np.stack([K] * 3), cameras), points, atol=1e-8)
    half = resized_intrinsics(K, (640, 480), (320, 240))
    np.testing.assert_allclose(project(points, half, cameras[0])[0], pixels[0] / 2)
    with pytest.raises(InputError, match="not the shape"):
        resized_intrinsics(K, (640, 480), (480, 640))
    with pytest.raises(ValueError, match="no depth"):
        triangulate(pixels[:1], K[None], cameras[:1])
    turn = Rotation.from_euler("xyz", [1, 2, 3]).as_matrix()
    found = rigid_align(points, points @ turn.T + np.array([1, 2, 3]))
    np.testing.assert_allclose(found[:3, :3], turn, atol=1e-9)
    np.testing.assert_allclose(found[:3, 3], [1, 2, 3], atol=1e-8)
    mirrored = rigid_align(points, points * [-1, 1, 1])
    assert np.linalg.det(mirrored[:3, :3]) == pytest.approx(1)


def test_colour_correction_is_the_published_polynomial() -> None:
    image = np.random.default_rng(1).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(corrected(image, np.eye(3)), image)
    for terms in (4, 7, 10, 11):
        identity = np.eye(3, terms)
        assert np.array_equal(corrected(image, identity), image)
    # one pixel by hand: red becomes half of linear red plus a tenth of green times blue
    matrix = np.eye(3, 7)
    matrix[0, 0], matrix[0, 5] = 0.5, 0.1
    r, g, b = (((v / 255 + 0.055) / 1.055) ** 2.4 for v in (200, 150, 100))
    expected = round(255 * (1.055 * (0.5 * r + 0.1 * g * b) ** (1 / 2.4) - 0.055))
    assert corrected(np.array([[[200, 150, 100]]], np.uint8), matrix).tolist() == [[[expected, 150, 100]]]
    with pytest.raises(InputError, match="6 terms"):
        corrected(image, np.eye(3, 6))


def test_nersemble_colours_are_corrected_by_each_cameras_own_matrix(tmp_path, landmarks) -> None:
    """One camera's matrix halves linear red, another's takes green away and adds blue, the third has none."""
    halved = np.eye(3, 7)
    halved[0, 0] = 0.5
    tinted = np.eye(3, 4)
    tinted[1:, 3] = [-0.1, 0.1]  # of a grey picture: less green, more blue
    table = {"222200037": halved.tolist(), "222200046": tinted.tolist()}
    make_nersemble(tmp_path / "plain", landmarks, frames=1)
    make_nersemble(tmp_path / "own", landmarks, frames=1, colours=table)

    def pictures(root: Path) -> dict[str, np.ndarray]:
        person = NersemblePerson(root / list_people(root)[0])
        (moment,) = person.moments(person.sequences(), 1, sorted(person.cameras), Counter())
        return {shot.camera: shot.image.astype(float) for shot in moment.shots}

    plain, own = pictures(tmp_path / "plain"), pictures(tmp_path / "own")
    linear = ((plain["222200037"][..., 0].max() / 255 + 0.055) / 1.055) ** 2.4
    red = 255 * (1.055 * (0.5 * linear) ** (1 / 2.4) - 0.055)
    assert abs(own["222200037"][..., 0].max() - red) <= 1
    assert np.array_equal(own["222200037"][..., 1:], plain["222200037"][..., 1:])
    bright = plain["222200046"][..., 0] > 150
    moved = own["222200046"] - plain["222200046"]
    assert moved[bright][:, 0].max() == 0 and moved[bright][:, 1].max() < -10 and moved[bright][:, 2].min() > 10
    assert np.array_equal(own["220700191"], plain["220700191"])


def test_splits_are_files_drawn_by_seed(tmp_path) -> None:
    names = [f"p{k}" for k in range(20)]
    split = make_split(names, 8, 3)
    assert split == make_split(names[::-1], 8, 3) != make_split(names, 8, 4)
    assert len(split["held_out"]) == 8 and sorted(split["held_out"] + split["train"]) == sorted(names)
    write_split(tmp_path / "split.json", split, 3)
    assert read_split(tmp_path / "split.json", "held_out") == split["held_out"]
    assert json.loads((tmp_path / "split.json").read_text())["seed"] == 3
    assert read_split("nersemble_benchmark", "people") == ["393", "404", "461", "477", "486"]
    for place, part in ((tmp_path / "split.json", "test"), (tmp_path / "none.json", "train")):
        with pytest.raises(InputError, match="no split"):
            read_split(place, part)
    with pytest.raises(InputError, match="cannot be held out"):
        make_split(names, 20)


def test_folders_of_other_things_are_refused(tmp_path) -> None:
    for listing in (list_captures, list_people):
        with pytest.raises(InputError, match="give its folder"):
            listing(tmp_path)
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration" / "camera_params.json").write_text("[]")
    with pytest.raises(InputError, match="no readable NeRSemble"):
        NersemblePerson(tmp_path)
