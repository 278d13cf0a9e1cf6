"""Motion files: round trip, names, resampling, damage, the demonstration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_films import NamedHead

from ffavatar.drive.motion import CHANNELS, Motion, demo_motion, slerp_axis_angle
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.types import Camera, HeadParams

HEAD = NamedHead("embedded-1", ("eyeBlinkLeft", "eyeBlinkRight", "mouthFunnel", "browInnerUp"))


def random_motion(frames: int = 7, seed: int = 0) -> Motion:
    generator = torch.Generator().manual_seed(seed)
    parts = {name: 0.3 * torch.randn(frames, 3, generator=generator) for name in CHANNELS[:-1]}
    expression = torch.rand(frames, len(HEAD.expression_names), generator=generator)
    return Motion(25.0, HeadParams(**parts, expression=expression), HEAD.edition, HEAD.expression_names, "a test")


@pytest.mark.parametrize(("name", "tolerance"), [("m.json", 1e-6), ("m.npz", 0.0)])
def test_round_trip(tmp_path: Path, name: str, tolerance: float) -> None:
    motion = random_motion()
    motion.save(tmp_path / name)
    read = Motion.load(tmp_path / name)
    assert (read.fps, read.head_edition, read.expression_names, read.source) == (
        25.0, HEAD.edition, HEAD.expression_names, "a test",
    )  # fmt: skip
    for channel in CHANNELS:
        assert (getattr(read.params, channel) - getattr(motion.params, channel)).abs().max() <= tolerance
        assert getattr(read.params, channel).dtype == torch.float32
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_notes_are_kept(tmp_path: Path, ending: str) -> None:
    notes = ("Assumed: 30 frames per second.", "Left out: zwölf Namen.")
    replace(random_motion(), notes=notes).save(tmp_path / f"m{ending}")
    assert Motion.load(tmp_path / f"m{ending}").notes == notes
    random_motion().save(tmp_path / f"plain{ending}")
    assert Motion.load(tmp_path / f"plain{ending}").notes == ()


def with_value(name: str, value: float) -> Motion:
    motion = random_motion()
    getattr(motion.params, name)[2, 1] = value
    return motion


UNREADABLE: dict[str, Motion] = {
    "slow": replace(random_motion(), fps=0.01),
    "no rate": replace(random_motion(), fps=float("nan")),
    "nan": with_value("root", float("nan")),
    "infinite": with_value("expression", float("inf")),
    "huge": with_value("translation", 1e6),
    "empty": replace(random_motion(), params=random_motion().params[:0]),
    "twice": replace(random_motion(), expression_names=("a", "b", "a", "c")),
    "camera": replace(random_motion(), camera=Camera(torch.eye(4)[None], torch.eye(3)[None], 64, 64)),
}


@pytest.mark.parametrize("name", list(UNREADABLE))
@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_what_could_not_be_read_is_not_written(tmp_path: Path, name: str, ending: str) -> None:
    with pytest.raises(InputError, match=rf"m\{ending} was not written: [^\n]+$"):
        UNREADABLE[name].save(tmp_path / f"m{ending}")
    assert not list(tmp_path.iterdir())


def test_a_file_too_large_to_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_motion().save(tmp_path / "m.json")
    monkeypatch.setattr("ffavatar.drive.motion._MOST_BYTES", 1000)
    with pytest.raises(InputError, match=r"b\.json was not written: it is too large"):
        random_motion().save(tmp_path / "b.json")
    with pytest.raises(InputError, match=r"m\.json is too large"):
        Motion.load(tmp_path / "m.json")
    assert [file.name for file in tmp_path.iterdir()] == ["m.json"]


def test_expressions_are_matched_by_name() -> None:
    motion = random_motion()
    other = NamedHead("flame2023", ("mouthFunnel", "unknown", "eyeBlinkLeft"))
    expression = motion.for_head(other).expression
    assert torch.equal(expression[:, 0], motion.params.expression[:, 2])
    assert torch.equal(expression[:, 2], motion.params.expression[:, 0])
    assert not expression[:, 1].any()
    assert motion.unmatched(other) == ["eyeBlinkRight", "browInnerUp"]
    assert torch.equal(motion.for_head(HEAD).expression, motion.params.expression)


def test_numbered_names_do_not_cross_editions() -> None:
    """Column 12 of FLAME 2020 and of FLAME 2023 are different movements."""
    params = HeadParams.neutral(2, 1)
    params = HeadParams(**{c: getattr(params, c) for c in CHANNELS[:-1]}, expression=torch.ones(2, 1))
    motion = Motion(25.0, params, "flame2020", ("exp_12",))
    assert not motion.for_head(NamedHead("flame2023", ("exp_12",))).expression.any()
    assert motion.unmatched(NamedHead("flame2023", ("exp_12",))) == ["exp_12"]
    assert motion.for_head(NamedHead("flame2020", ("exp_12",))).expression.all()


def test_resample() -> None:
    motion = random_motion(21)
    assert len(motion.resample(50.0)) == 42 and motion.resample(50.0).seconds == pytest.approx(motion.seconds)
    same = motion.resample(25.0)
    for channel in CHANNELS:
        assert torch.allclose(getattr(same.params, channel), getattr(motion.params, channel), atol=1e-5)
    back = motion.resample(50.0).resample(25.0)
    assert torch.allclose(back.params.root, motion.params.root, atol=1e-5)
    assert torch.allclose(back.params.expression, motion.params.expression, atol=1e-6)
    with pytest.raises(InputError):
        motion.resample(0)


def test_slerp_goes_the_short_way_at_even_speed() -> None:
    start, end = torch.tensor([0.0, 3.0, 0.0]), torch.tensor([0.0, -3.0, 0.0])  # 0.28 rad apart across the half turn
    half = axis_angle_to_matrix(slerp_axis_angle(start, end, torch.tensor([0.5])))
    assert torch.allclose(half, axis_angle_to_matrix(torch.tensor([0.0, torch.pi, 0.0])), atol=1e-5)
    third = slerp_axis_angle(torch.zeros(3), torch.tensor([0.6, 0.0, 0.0]), torch.tensor([1 / 3]))
    assert torch.allclose(third, torch.tensor([0.2, 0.0, 0.0]), atol=1e-6)


def damaged(change: Any) -> str:
    data = json.loads(json.dumps({
        "format": "ffavatar-motion", "version": 1, "fps": 25, "head_edition": "e", "source": "",
        "expression_names": ["a"],
        **{c: [[0.0] * 3] * 2 for c in CHANNELS[:-1]}, "expression": [[0.0]] * 2,
    }))  # fmt: skip
    change(data)
    return json.dumps(data)


DAMAGES: dict[str, Any] = {
    "version": lambda d: d.update(version=99),
    "format": lambda d: d.update(format="other"),
    "fps text": lambda d: d.update(fps="25"),
    "fps zero": lambda d: d.update(fps=0),
    "fps missing": lambda d: d.pop("fps"),
    "names": lambda d: d.update(expression_names=[1]),
    "twice": lambda d: d.update(expression_names=["a", "a"], expression=[[0.0, 0.0]] * 2),
    "short": lambda d: d.update(jaw=[[0.0] * 3]),
    "ragged": lambda d: d.update(neck=[[0.0] * 3, [0.0] * 2]),
    "wide": lambda d: d.update(expression=[[0.0, 0.0]] * 2),
    "text": lambda d: d.update(root=[["x"] * 3] * 2),
    "nan": lambda d: d.update(root=[[float("nan")] * 3] * 2),
    "huge": lambda d: d.update(root=[[1e300] * 3] * 2),
    "missing": lambda d: d.pop("translation"),
    "no frames": lambda d: d.update({c: [] for c in CHANNELS}),
    "notes": lambda d: d.update(notes="one"),
    "no text": lambda d: d.update(source=None),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_json_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.json").write_text(damaged(DAMAGES[name]))
    with pytest.raises(InputError) as caught:
        Motion.load(tmp_path / "m.json")
    assert "m.json" in str(caught.value) and "\n" not in str(caught.value)


def test_undamaged_base_of_these_tests_loads(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(damaged(lambda d: None))
    assert len(Motion.load(tmp_path / "m.json")) == 2


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"\xff\xfe not json"),
        ("deep.json", b"[" * 200_000),
        ("list.json", b"[1, 2]"),
        ("long.json", b'{"fps": ' + b"9" * 10_000 + b"}"),
        ("a.npz", b"PK\x03\x04 not a zip"),
        ("a.txt", b"x"),
        ("empty.json", b""),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        Motion.load(tmp_path / name)


def test_npz_without_our_arrays_or_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    objects: dict[str, Any] = {c: np.array([{}], dtype=object) for c in CHANNELS}
    np.savez(tmp_path / "objects.npz", header=np.array(json.dumps({"format": "ffavatar-motion"})), **objects)
    for name in ("other.npz", "objects.npz"):
        with pytest.raises(InputError, match=name):
            Motion.load(tmp_path / name)


def test_demo_is_deterministic_smooth_and_alive() -> None:
    motion, again = demo_motion(HEAD, 8.0, 30.0), demo_motion(HEAD, 8.0, 30.0)
    assert len(motion) == 240
    for channel in CHANNELS:
        assert torch.equal(getattr(motion.params, channel), getattr(again.params, channel))
        if channel in ("root", "neck"):
            assert getattr(motion.params, channel).diff(dim=0).abs().max() < 0.05  # rad a frame
    params = motion.params
    yaw = params.root[:, 1] + params.neck[:, 1]
    assert yaw.max() > 0.25 and yaw.min() < -0.25  # both cheeks are seen
    assert params.jaw[:, 0].max() > 0.08 and params.jaw.min() >= 0  # it talks
    lids = params.expression[:, 0]
    blinks = int(((lids[1:] > 0.5) & (lids[:-1] <= 0.5)).sum())
    assert 2 <= blinks <= 6 and lids.max() > 0.95
    assert params.eye_left[:, :2].abs().max() > 0.1
    assert torch.equal(params.eye_left, params.eye_right)
    for end in (0, -1):  # it loops
        assert yaw[end].abs() < 1e-3
        assert params.jaw[end].abs().max() < 1e-3 and params.expression[end].abs().max() < 1e-3


def test_demo_needs_no_arkit_names() -> None:
    motion = demo_motion(NamedHead("flame2023", ("exp_0",)), 2.0, 25.0)
    assert len(motion) == 50 and not motion.params.expression.any() and motion.params.jaw.any()
