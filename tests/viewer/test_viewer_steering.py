"""Clips, named values, eyes, idle motion and levels of detail in the viewer's core, against Python and against laws."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from viewer_tools import build, run, synthetic_avatars, workshop

from ffavatar.animate import Rig
from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.head import Surface
from ffavatar.types import CanonicalGaussians

pytestmark = pytest.mark.slow
NO_FACES = (torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int64))


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return Avatar.load(synthetic_avatars()[0])


@pytest.fixture(scope="module")
def clip(avatar) -> Motion:
    """Read back, since the file is rounded to six decimals."""
    path = workshop() / "steer.json"
    demo_motion(avatar.rig.head, 3.0).save(path)
    return Motion.load(path)


@pytest.fixture(scope="module")
def steered(clip):
    dist, _ = build()
    paths = [str(dist), str(synthetic_avatars()[0]), str(workshop() / "steer.json")]
    return json.loads(run(["node", "test/steer.mjs", *paths]))


def test_clip_between_frames_is_python_s(steered, clip) -> None:
    expected = clip.resample(17.0).params
    joints = expected.joint_rotations().numpy().reshape(len(expected), 15)
    for k, frame in enumerate(steered["between"]):
        np.testing.assert_allclose(frame["joints"], joints[k], atol=2e-6)
        np.testing.assert_allclose(frame["translation"], expected.translation[k], atol=1e-6)
        np.testing.assert_allclose(frame["expression"], expected.expression[k], atol=1e-6)
    assert np.ptp(joints, 0).max() > 0.1  # the clip moves


def test_what_is_no_motion_is_refused(steered) -> None:
    assert all(said.startswith("FileError: This is not a usable motion file") for said in steered["refused"])


def test_eyes_point_where_they_should(steered) -> None:
    free = 0
    for case in steered["gaze"]:
        root, neck, _, left, right = np.array(case["params"]["joints"]).reshape(5, 3)
        for eye, place in zip((left, right), case["eyes"]):
            head = Rotation.from_rotvec(root) * Rotation.from_rotvec(neck)
            x, y, z = head.inv().apply(np.array(case["point"]) - place)
            yaw, pitch = np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))
            free += abs(yaw) < 0.5 and abs(pitch) < 0.35
            yaw, pitch = np.clip(yaw, -0.5, 0.5), np.clip(pitch, -0.35, 0.35)  # as far as eyes turn
            wanted = [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
            np.testing.assert_allclose(Rotation.from_rotvec(eye).apply([0, 0, 1]), wanted, atol=1e-6)
    assert 2 <= free < 8  # some reach their point, some would turn too far


def test_named_values(steered, avatar) -> None:
    head = avatar.rig.head
    expected = 0.5 * head.arkit_pose["jawOpen"] + 1.0 * head.arkit_pose["eyeLookUpLeft"]
    expected[1, 1] += 0.2
    np.testing.assert_allclose(np.array(steered["driven"]["joints"]).reshape(5, 3), expected, atol=1e-6)
    used = {head.expression_names[e]: x for e, x in enumerate(steered["driven"]["expression"]) if x}
    assert used == {"mouthSmileLeft": 0.25}
    assert steered["unknown"] == ["nothing"]


def test_blinks(steered) -> None:
    lids = np.array(steered["blinks"])
    assert lids.min() == 0 and lids.max() > 0.95
    assert 0.01 < (lids > 0.5).mean() < 0.1  # mostly open
    assert np.abs(np.diff(lids)).max() < 0.25  # no jumps within 10 ms


def test_random_expressions_stay_within_the_sliders(steered) -> None:
    for values in steered["randoms"]:
        assert len(values) >= 3
        assert all(steered["limits"][name][0] <= x <= steered["limits"][name][1] for name, x in values.items())
    assert len({json.dumps(values) for values in steered["randoms"]}) == 50


def test_level_follows_the_speed(steered) -> None:
    expected = {"quick": 2, "slow": 1, "slower": 0, "rises": 2, "staysDown": 1, "hidden": 2}
    assert steered["levels"] == expected


def test_the_largest_avatars_of_ours_are_drawn_whole(steered) -> None:
    """163,000 Gaussians are no reason to leave some out where the finest level is asked for."""
    assert steered["whole"] == [True, True, False, True, False]


def test_levels_of_detail_are_partitions(steered, avatar) -> None:
    few, middle, all_of_them = steered["details"]
    assert all_of_them is None  # about 94,000 Gaussians are the 80K level
    for detail, wanted in ((few, 5_000), (middle, 20_000)):
        assert 0.8 * wanted <= detail["count"] <= 1.3 * wanted
        assert detail["members"] and detail["ordered"] and detail["own"] and detail["finite"]


def test_levels_of_detail_look_alike(steered, avatar) -> None:
    """Fewer Gaussians lose fineness, not the person: against all of them, and no hole shows what is behind."""
    full = avatar.render(size=256)
    for detail, least_db in zip(steered["details"], (20, 25)):
        index = torch.tensor(detail["index"])
        surface = Surface(avatar.rig.surface.parents[index], avatar.rig.surface.barycentric[index], *NO_FACES)
        colors = torch.tensor(detail["colors"]).reshape(-1, 4).float() / 255
        canonical = CanonicalGaussians(
            avatar.canonical.offsets[index], avatar.canonical.quats[index],
            torch.tensor(detail["scales"]).reshape(-1, 4)[:, :3].contiguous(), colors[:, 3].contiguous(),
            colors[:, :3].contiguous(),
        )  # fmt: skip
        rig = Rig(avatar.rig.head, avatar.rig.neutral, avatar.rig.joints, surface)
        fewer = Avatar(rig, canonical, avatar.identity).render(size=256)
        value = float(-10 * torch.log10((fewer.images - full.images).square().mean()))
        inside = full.alphas > 0.99
        print(f"{len(index)} Gaussians: {value:.1f} dB, {(fewer.alphas[inside] > 0.9).float().mean():.4f} covered")
        assert value >= least_db
        assert (fewer.alphas[inside] > 0.9).float().mean() > 0.97


def test_tracked_faces_are_calibrated_and_mirrored(steered) -> None:
    plain, mirrored = steered["tracked"]
    for case in (plain, mirrored):
        assert case["during"]  # nothing moves while the neutral face is gathered
        assert max(abs(value) for value in case["rest"].values()) < 1e-9
        assert case["last"]["browInnerUp"] == pytest.approx(0.5, abs=0.01)  # (0.6 - 0.2) / (1 - 0.2)
        assert case["last"]["headPitch"] == pytest.approx(0, abs=1e-6) and "_neutral" not in case["last"]
    assert plain["last"]["headYaw"] == pytest.approx(0.4, abs=0.005)
    assert plain["last"]["eyeBlinkLeft"] == pytest.approx(1, abs=0.01)
    assert mirrored["last"]["headYaw"] == pytest.approx(-0.4, abs=0.005)
    assert mirrored["last"]["eyeBlinkRight"] == pytest.approx(1, abs=0.01) and "eyeBlinkLeft" not in mirrored["last"]


def test_smoothing_takes_noise_and_follows_steps(steered) -> None:
    noise, smooth = np.array(steered["noisy"][50:]), np.array(steered["filtered"][50:])
    assert smooth.std() < 0.5 * noise.std()
    assert steered["step"][-1] > 0.45  # of 0.5, a third of a second later
    assert (np.diff(steered["step"]) > 0).all()


def test_orbit(steered) -> None:
    resting = steered["resting"]
    np.testing.assert_allclose(resting["camera"], resting["normalised"], atol=1e-12)
    assert resting["fx"] == 3 * 480
    turned = np.array(steered["turned"]).reshape(4, 4)
    np.testing.assert_allclose(turned[:3, :3] @ turned[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(turned @ [0, 0, -1.15, 1], [0, 0, 1.15, 1], atol=1e-12)  # still looks at the target
