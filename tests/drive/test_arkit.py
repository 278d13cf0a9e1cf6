"""ARKit's coefficients to a head and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_motions import arkit_track

from ffavatar.drive.arkit import (
    ARKIT_NAMES,
    canonical_name,
    from_arkit,
    read_live_link_csv,
    to_angles,
    to_arkit,
    write_live_link_csv,
)
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.head import load_head
from ffavatar.types import HeadParams

HEAD = load_head()
OPPOSED = (("jawLeft", "jawRight"), *((f"eyeLook{a}{side}", f"eyeLook{b}{side}")
           for side in ("Left", "Right") for a, b in (("Up", "Down"), ("In", "Out"))))  # fmt: skip


def test_every_name_is_a_shape_or_a_joint_of_the_embedded_head() -> None:
    assert len(set(ARKIT_NAMES)) == 52
    lost = [n for n in ARKIT_NAMES if n not in HEAD.expression_names and n not in HEAD.arkit_pose]
    assert lost == []
    assert all(canonical_name(n[0].upper() + n[1:]) == n for n in ARKIT_NAMES)


@given(st.lists(st.floats(0, 1, width=32), min_size=52, max_size=52), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_back(values: list[float], seed: int) -> None:
    """All coefficients, where of two opposed ones (left and right, up and down) only one is set."""
    weights = dict(zip(ARKIT_NAMES, values))
    for a, b in OPPOSED:
        weights[a if weights[a] < weights[b] else b] = 0.0
    motion = arkit_track(2, seed)
    expression = torch.tensor([list(weights.values()), [0.0] * 52])
    motion = Motion(30.0, HeadParams(**vars(motion.params) | {"expression": expression}), "arkit", ARKIT_NAMES)
    params, lost = from_arkit(motion, HEAD)
    assert lost == []
    back = to_arkit(Motion(30.0, params, HEAD.edition, tuple(HEAD.expression_names)), HEAD)
    assert back.expression_names == ARKIT_NAMES and back.head_edition == "arkit"
    assert (back.params.expression - expression).abs().max() < 1e-5
    turned = axis_angle_to_matrix(back.params.root) - axis_angle_to_matrix(motion.params.root)
    assert turned.abs().max() < 1e-4


def test_opposed_coefficients_leave_their_difference() -> None:
    motion = arkit_track(5)
    params, _ = from_arkit(motion, HEAD)
    back = to_arkit(Motion(30.0, params, HEAD.edition, tuple(HEAD.expression_names)), HEAD).params.expression
    for a, b in OPPOSED:
        i, j = ARKIT_NAMES.index(a), ARKIT_NAMES.index(b)
        went, came = (x[:, i] - x[:, j] for x in (motion.params.expression, back))
        assert torch.allclose(went, came, atol=1e-5) and float(torch.minimum(back[:, i], back[:, j]).max()) < 1e-6


def test_root_and_neck_become_one_turn_and_foreign_shapes_are_reported() -> None:
    params = HeadParams.neutral(1, HEAD.expression_size)
    params.root[0, 1], params.neck[0, 1] = 0.2, 0.3
    foreign = next(i for i, n in enumerate(HEAD.expression_names) if n.startswith("mh_"))
    params.expression[0, foreign] = 0.5
    made = to_arkit(Motion(30.0, params, HEAD.edition, tuple(HEAD.expression_names)), HEAD)
    assert to_angles(made.params.root)[0].tolist() == pytest.approx([0, 0.5, 0], abs=1e-6)
    assert any(HEAD.expression_names[foreign] in note for note in made.notes)


def with_codes(path: Path, codes: list[str]) -> Path:
    """A Live Link CSV with these time codes."""
    write_live_link_csv(arkit_track(len(codes)), path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(f"{code},{row.partition(',')[2]}" for code, row in zip(codes, rows))]))
    return path


@pytest.mark.parametrize("frames", [2, 25, 70, 400])
@pytest.mark.parametrize("fps", [60.0, 59.94, 30.0, 29.97, 24.0, 23.976, 25.0, 12.5, 37.3, 120.0, 1.5])
def test_live_link_keeps_the_rate(tmp_path: Path, fps: float, frames: int) -> None:
    write_live_link_csv(replace(arkit_track(frames), fps=fps), tmp_path / "a.csv")
    back = read_live_link_csv(tmp_path / "a.csv")
    assert len(back) == frames and not back.notes
    assert back.fps == pytest.approx(fps, rel=3e-5 if frames > 2 else 1e-3)


def test_live_link_codes_with_other_frames_than_were_recorded(tmp_path: Path) -> None:
    """60 frames a second under a code of 30, 30 under a code of 60, across midnight, with jitter, with frames lost."""
    half = [f"23:59:{59 if i < 80 else 0:02d}:{(i / 2 + 20) % 30:06.3f}" for i in range(20, 100)]
    half = [code if int(code[6:8]) else code.replace("23:59", "00:00") for code in half]
    double = [f"09:10:{11 + i // 30}:{2 * i % 60:02d}.250" for i in range(70)]
    jitter = [f"09:10:{11 + i // 60}:{i % 60:02d}.{480 + 37 * i % 40:03d}" for i in range(150)]
    lost = [code for i, code in enumerate(jitter) if i % 10]
    for codes, fps in ((half, 60), (double, 30), (jitter, 60), (lost, 60)):
        back = read_live_link_csv(with_codes(tmp_path / "a.csv", codes))
        assert back.fps == pytest.approx(fps, rel=2e-4) and not back.notes


def test_live_link_codes_within_a_second_are_doubted_and_broken_ones_not_used(tmp_path: Path) -> None:
    short = read_live_link_csv(with_codes(tmp_path / "a.csv", [f"09:10:11:{i:02d}.000" for i in range(25)]))
    assert short.fps == 25 and any("too short" in note for note in short.notes)
    for codes in (["09:10:11:05.000"] * 3, ["09:10:11:nan", "09:10:11:01"], ["x", "y"], ["09:10:11:05.000"]):
        back = read_live_link_csv(with_codes(tmp_path / "a.csv", codes))
        assert back.fps == 60 and any("60 frames" in note for note in back.notes)


def test_a_motion_of_another_head_is_refused() -> None:
    with pytest.raises(InputError, match="convert it first"):
        to_arkit(arkit_track(1), HEAD)


def test_unknown_shapes_of_a_head_are_told() -> None:
    class Bare:
        edition, expression_names, arkit_pose = "bare", ("mouthFunnel",), {"jawOpen": HEAD.arkit_pose["jawOpen"]}

    params, lost = from_arkit(arkit_track(2), Bare())
    assert params.expression.shape == (2, 1) and params.jaw.any()
    assert "browInnerUp" in lost and "jawOpen" not in lost and "mouthFunnel" not in lost
