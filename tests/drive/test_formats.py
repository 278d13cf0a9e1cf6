"""Motion files of other programs: told by content, read, written, and refused where they are damaged or hostile."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_motions import arkit_json, arkit_track, flame_rows, flame_track
from scipy.spatial.transform import Rotation

from ffavatar.drive.arkit import ARKIT_NAMES, canonical_name, read_arkit_json, to_angles
from ffavatar.drive.flame_tracks import rotation_6d_to_axis_angle
from ffavatar.drive.formats import is_motion, read_motion, sniff, write_motion
from ffavatar.drive.motion import CHANNELS, Motion
from ffavatar.drive.unpack import read_frame
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix


def same(a: Motion, b: Motion, tolerance: float) -> None:
    assert a.expression_names == b.expression_names and a.head_edition == b.head_edition
    for name in CHANNELS:
        assert (getattr(a.params, name) - getattr(b.params, name)).abs().max() <= tolerance, name


@pytest.mark.parametrize(
    ("kind", "name", "found", "tolerance"),
    [
        ("vhap", "folder", "vhap-folder", 0), ("flame-npz", "m.bin", "flame-file", 0),
        ("flame-json", "flame_params.json", "flame-file", 1e-6), ("ffavatar", "m.npz", "ffavatar", 0),
        ("ffavatar", "m.json", "ffavatar", 1e-6),
    ],
)  # fmt: skip
def test_flame_round_trips(tmp_path: Path, kind: Any, name: str, found: str, tolerance: float) -> None:
    motion = flame_track(5)
    write_motion(motion, tmp_path / name, kind)
    assert sniff(tmp_path / name) == found and is_motion(tmp_path / name)
    back = read_motion(tmp_path / name)
    same(motion, back, tolerance)
    assert back.fps == (30.0 if kind == "vhap" else 25.0)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_cameras_survive_vhap_pixel3dmm_and_our_own_files(tmp_path: Path) -> None:
    motion = flame_track(4, camera=True)
    assert motion.camera is not None
    write_motion(motion, tmp_path / "v", "vhap")
    motion.save(tmp_path / "m.json")
    turned = Motion(**vars(motion) | {"root_pivot_m": (0.0, 0.0, 0.0)})
    write_motion(turned, tmp_path / "p", "pixel3dmm")
    turned.save(tmp_path / "p.npz")
    for place, pivot in (("v", None), ("m.json", None), ("p", (0.0, 0.0, 0.0)), ("p.npz", (0.0, 0.0, 0.0))):
        back = read_motion(tmp_path / place)
        assert back.camera is not None and back.placed and back.root_pivot_m == pivot
        assert torch.allclose(back.camera.world_to_cam, motion.camera.world_to_cam, atol=1e-5)
        assert torch.allclose(back.camera.K, motion.camera.K, atol=1e-3)
        assert (back.camera.width, back.camera.height) == (512, 512)


def test_of_many_cameras_the_first_is_taken_and_each_moment_once(tmp_path: Path) -> None:
    motion = flame_track(3, camera=True)
    assert motion.camera is not None
    write_motion(motion, tmp_path / "v", "vhap")
    place = tmp_path / "v" / "transforms.json"
    data = json.loads(place.read_text())
    other = [f | {"camera_index": 1, "fl_x": 77.0} for f in data["frames"]]
    place.write_text(json.dumps({"frames": [f for pair in zip(other, reversed(data["frames"])) for f in pair]}))
    back = read_motion(tmp_path / "v")
    assert back.camera is not None and torch.allclose(back.camera.world_to_cam, motion.camera.world_to_cam, atol=1e-5)
    assert torch.allclose(back.camera.K, motion.camera.K, atol=1e-3)
    for change, words in (({"transform_matrix": [[1.0] * 4] * 4}, "rigid"), ({"fl_x": -1}, "fl_x"),
                          ({"timestep_index": "one"}, "whole number")):  # fmt: skip
        place.write_text(json.dumps({"frames": [f | change for f in data["frames"]]}))
        with pytest.raises(InputError, match=words):
            read_motion(tmp_path / "v")
    place.write_text(json.dumps({"frames": data["frames"][:2]}))
    without = read_motion(tmp_path / "v")
    assert without.camera is None and any("without its camera" in note for note in without.notes)


def test_pixel3dmm_round_trip_is_tagged_2020_and_keeps_eyelids(tmp_path: Path) -> None:
    motion = flame_track(3, "flame2020")
    lids = torch.rand(3, 2)
    params = motion.params
    params = type(params)(**vars(params) | {"expression": torch.cat([params.expression, lids], 1)})
    names = (*motion.expression_names, "eyeBlinkLeft", "eyeBlinkRight")
    motion = Motion(25.0, params, "flame2020", names, placed=False, root_pivot_m=(0.0, 0.0, 0.0))
    write_motion(motion, tmp_path / "track", "pixel3dmm")
    assert sniff(tmp_path / "track") == "pixel3dmm" and sniff(tmp_path / "track" / "00001.frame") == "pixel3dmm"
    back = read_motion(tmp_path / "track", fps=25)
    same(motion, back, 2e-6)
    assert len(read_motion(tmp_path / "track" / "00001.frame")) == 1
    assert read_motion(tmp_path / "track", edition="flame2023").head_edition == "flame2023"


def test_rotation_6d_against_scipy() -> None:
    turns = Rotation.random(50, random_state=0)
    rows = turns.as_matrix()[:, :2].reshape(-1, 6) * np.linspace(0.5, 2, 50)[:, None]
    ours = Rotation.from_rotvec(rotation_6d_to_axis_angle(rows))
    assert (ours * turns.inv()).magnitude().max() < 1e-6


def test_arkit_round_trips(tmp_path: Path) -> None:
    motion = arkit_track(130)
    write_motion(motion, tmp_path / "a.txt", "arkit-json")
    write_motion(motion, tmp_path / "b.csv", "live-link-csv")
    for name, kind in (("a.txt", "arkit-json"), ("b.csv", "live-link-csv")):
        assert sniff(tmp_path / name) == kind
        back = read_motion(tmp_path / name)
        assert set(back.expression_names) == set(ARKIT_NAMES) and back.head_edition == "arkit"
        order = [back.expression_names.index(n) for n in motion.expression_names]
        assert (back.params.expression[:, order] - motion.params.expression).abs().max() < 1e-6
        turned = axis_angle_to_matrix(back.params.root) - axis_angle_to_matrix(motion.params.root)
        assert turned.abs().max() < 1e-5
        assert back.fps == pytest.approx(60.0)


def test_angles_against_scipy() -> None:
    root = torch.randn(40, 3) * 0.5
    ours = to_angles(root).numpy()
    theirs = Rotation.from_rotvec(root.numpy()).as_euler("YXZ")  # intrinsic: yaw, then pitch, then roll
    assert np.abs(ours - theirs[:, [1, 0, 2]]).max() < 1e-5


def test_the_slip_of_vhap_exports(tmp_path: Path) -> None:
    """Row i of a short ``expr`` belongs to frame i + 1; LAM names each number of a row."""
    rows = flame_rows(6)
    data: dict[str, Any] = {k: v.tolist() for k, v in rows.items()}
    data["expr"] = [{f"expr{k}": float(v) for k, v in enumerate(row)} for row in rows["expr"][1:]]
    (tmp_path / "flame_params.json").write_text(json.dumps(data))
    motion = read_motion(tmp_path)
    assert torch.equal(motion.params.expression[1:], torch.from_numpy(rows["expr"][1:]))
    assert torch.equal(motion.params.expression[0], motion.params.expression[1])
    assert any("frame i + 1" in note for note in motion.notes)
    data["expr"] = data["expr"][:3]
    (tmp_path / "flame_params.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="expression has 3 frames"):
        read_motion(tmp_path)


def test_smirk_flame_head_tracker_and_nersemble(tmp_path: Path) -> None:
    rows = flame_rows(4, expressions=50)
    lids = np.linspace(0, 1, 8).reshape(4, 2)
    (tmp_path / "fht").mkdir()
    for i in range(4):
        one = {"exp": rows["expr"], "head_pose": rows["rotation"], "jaw_pose": rows["jaw_pose"]}
        one |= {"neck_pose": rows["neck_pose"], "eye_pose": rows["eyes_pose"], "img": np.zeros((4, 1, 8, 8, 3))}
        np.savez(tmp_path / "fht" / f"{i * 5}.npz", **{k: v[i : i + 1] for k, v in one.items()})
    np.savez(
        tmp_path / "smirk.npz", pose_params=rows["rotation"], jaw_params=rows["jaw_pose"],
        expression_params=rows["expr"], eyelid_params=lids, cam=np.zeros((4, 3)),
    )  # fmt: skip
    np.savez(
        tmp_path / "nersemble.npz", rotation=rows["rotation"], translation=rows["translation"], jaw=rows["jaw_pose"],
        neck=rows["neck_pose"], eyes=rows["eyes_pose"], expression=rows["expr"], scale=np.full((1, 1), 1.25), fps=24.0,
    )  # fmt: skip
    tracker, smirk = read_motion(tmp_path / "fht"), read_motion(tmp_path / "smirk.npz")
    nersemble = read_motion(tmp_path / "nersemble.npz")
    assert sniff(tmp_path / "fht") == "npz-folder"
    for motion, edition in ((tracker, "flame2020"), (smirk, "flame2020"), (nersemble, "flame2023")):
        assert motion.head_edition == edition and len(motion) == 4 and not motion.placed
        assert motion is nersemble or torch.equal(motion.params.root, torch.from_numpy(rows["rotation"]))
        assert torch.equal(motion.params.jaw, torch.from_numpy(rows["jaw_pose"]))
        assert torch.equal(motion.params.expression[:, :50], torch.from_numpy(rows["expr"]))
    assert smirk.expression_names[-2:] == ("eyeBlinkLeft", "eyeBlinkRight")
    assert torch.allclose(smirk.params.expression[:, 50:], torch.from_numpy(lids).float())
    assert torch.equal(tracker.params.eye_right, torch.from_numpy(rows["eyes_pose"][:, 3:]))
    assert nersemble.fps == 24.0 and nersemble.root_pivot_m == (0, 0, 0)


@pytest.mark.parametrize("matrices", [False, True])
def test_nersemble_turns_by_euler_angles_about_the_origin(tmp_path: Path, matrices: bool) -> None:
    """Against what the benchmark's toolkit does to FLAME's vertices: scale R v + t, R of Euler angles 'XYZ'."""
    rows, scale = flame_rows(5, seed=3), 1.25
    rotation = 4 * rows["rotation"]
    expected = Rotation.from_euler("XYZ", rotation)
    extra = {"rotation_matrices": expected.as_matrix()} if matrices else {}
    np.savez(
        tmp_path / "n.npz", rotation=rotation, translation=rows["translation"], jaw=rows["jaw_pose"],
        expression=rows["expr"], scale=np.full((1, 1), scale), **extra,
    )  # fmt: skip
    motion = read_motion(tmp_path / "n.npz", fps=24.3)
    points = np.random.default_rng(0).normal(0, 0.1, (20, 3))
    ours = Rotation.from_rotvec(motion.params.root.numpy())
    for frame in range(5):
        world = scale * expected[frame].apply(points) + rows["translation"][frame]
        shown = scale * (ours[frame].apply(points) + motion.params.translation[frame].numpy())
        assert np.allclose(shown, world, atol=1e-6)
    if matrices:
        np.savez(
            tmp_path / "n.npz", rotation=rotation, jaw=rows["jaw_pose"], expression=rows["expr"], scale=np.ones(1),
            rotation_matrices=-expected.as_matrix(),
        )  # fmt: skip
        with pytest.raises(InputError, match="are no rotations"):
            read_motion(tmp_path / "n.npz")


def test_names_are_matched_and_unknown_ones_reported(tmp_path: Path) -> None:
    assert canonical_name("EyeBlinkLeft") == canonical_name("eyeBlink_L") == canonical_name("eye_blink_left")
    assert canonical_name("jawOpenWide") is None
    names = ["JawOpen", "mouthSmile_L", "earWiggle", "jawOpen"]
    frames = [{"weights": [0.1, 0.2, 0.3, 0.9], "time": i / 25} for i in range(3)]
    motion = read_arkit_json(arkit_json(tmp_path / "a.json", {"names": names, "frames": frames}))
    assert motion.expression_names == ("jawOpen", "mouthSmileLeft") and motion.fps == 25
    assert motion.params.expression[0].tolist() == pytest.approx([0.1, 0.2])
    assert any("earWiggle" in note for note in motion.notes) and any("twice" in note for note in motion.notes)


def test_byte_order_mark_and_short_recordings(tmp_path: Path) -> None:
    write_motion(arkit_track(20), tmp_path / "a.csv", "live-link-csv")
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text("\ufeff" + text, encoding="utf-8")
    assert read_motion(tmp_path / "a.csv").fps == 60.0
    (tmp_path / "a.csv").write_text(text.replace("00:00:0", "x"), encoding="utf-8")
    motion = read_motion(tmp_path / "a.csv")
    assert motion.fps == 60.0 and any("60 frames" in note for note in motion.notes)


class Trap:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.place),)


def torch_zip(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


def test_frame_files_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"flame": {"exp": Trap(tmp_path / "tripped")}}, tmp_path / "trap.frame")
    torch_zip(tmp_path / "plain.frame", pickle.dumps(Trap(tmp_path / "tripped")))
    for name in ("trap.frame", "plain.frame"):
        with pytest.raises(InputError, match=name):
            read_motion(tmp_path / name)
    assert not (tmp_path / "tripped").exists()


def test_frame_files_with_tensors_are_numbers(tmp_path: Path) -> None:
    values = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    torch.save(OrderedDict(a=values[1:], b=torch.nn.Parameter(values), c={"d": np.arange(3)}, e=[1.5]), tmp_path / "f")
    data = read_frame(tmp_path / "f")
    assert np.array_equal(data["a"], values[1:].numpy()) and np.array_equal(data["b"], values.numpy())
    assert np.array_equal(data["c"]["d"], np.arange(3)) and data["e"] == [1.5]
    torch.save({"a": values.T}, tmp_path / "g")
    with pytest.raises(InputError, match="layout"):
        read_frame(tmp_path / "g")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["names", "frames", "rotation", "translation", "jaw_pose", "expr", "fps"]), JSON)
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_motion_or_one_sentence(tmp_path: Path, data: dict[str, Any]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(data))
    try:
        assert len(read_motion(tmp_path / "x.json")) >= 1
    except InputError as error:
        assert "x.json" in str(error) and "\n" not in str(error)


@example(b"\x00\x00@", "vhap", 111843)  # a zip version of the future
@given(st.binary(max_size=400), st.sampled_from(["vhap", "frame", "csv"]), st.integers(0, 10**6))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_are_a_motion_or_one_sentence(tmp_path: Path, noise: bytes, kind: str, where: int) -> None:
    place = tmp_path / f"sound.{kind}"
    if not place.exists():
        if kind == "vhap":
            write_motion(flame_track(2), place, "flame-npz")
        elif kind == "csv":
            write_motion(arkit_track(3), place, "live-link-csv")
        else:
            torch.save({"flame": {"exp": np.zeros((1, 100)), "t": np.zeros((1, 3)), "R": np.ones((1, 6))}}, place)
    data = bytearray(place.read_bytes())
    start = where % len(data)
    data[start : start + len(noise)] = noise
    (tmp_path / "damaged.bin").write_bytes(bytes(data))
    try:
        assert len(read_motion(tmp_path / "damaged.bin")) >= 1
    except InputError as error:
        assert "damaged.bin" in str(error) and "\n" not in str(error)


@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 8))), st.sampled_from(["rotation", "expr", "eyes"])
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_array_is_a_motion_or_one_sentence(tmp_path: Path, values: np.ndarray, name: str) -> None:
    rows: dict[str, Any] = {k: v[:1] for k, v in flame_rows(4).items() if k != "shape"} | {name: values}
    buffer = io.BytesIO()
    np.savez(buffer, **rows)
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    try:
        motion = read_motion(tmp_path / "x.npz")
        assert all(torch.isfinite(getattr(motion.params, c)).all() for c in CHANNELS)
    except InputError as error:
        assert "x.npz" in str(error) and "\n" not in str(error)


def test_writers_refuse_motions_of_other_heads(tmp_path: Path) -> None:
    for motion, kind in ((arkit_track(2), "vhap"), (flame_track(2), "arkit-json"), (flame_track(2), "pixel3dmm")):
        with pytest.raises(InputError, match="was not written"):
            write_motion(motion, tmp_path / "out", kind)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_films_and_pictures_are_no_motions(tmp_path: Path, film: Any) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    assert sniff(film("a.mp4")) is None and not is_motion(tmp_path / "pictures")
    for name, words in (("a.mp4", "no motion that is known"), ("pictures", "no motion that is known")):
        with pytest.raises(InputError, match=words):
            read_motion(tmp_path / name)


def test_no_edition_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no FLAME edition"):
        read_motion(arkit_json(tmp_path / "a.json"), edition="flame2020")
    np.savez(tmp_path / "f.npz", **flame_rows(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no FLAME edition; use one of"):
        read_motion(tmp_path / "f.npz", edition="flame1999")
