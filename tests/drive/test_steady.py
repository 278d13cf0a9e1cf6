"""Gaps, tremble, calm faces, gains and head motion of films and motions."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffavatar.drive.adjust import MOST_JAW_RAD, Adjuster, Neutral, adjust_params
from ffavatar.drive.motion import CHANNELS
from ffavatar.drive.options import DriveOptions, group_of
from ffavatar.drive.steady import MOST_BRIDGED, Moment, bridge, steadied
from ffavatar.drive.window import Box, window_camera
from ffavatar.errors import InputError
from ffavatar.geometry import project
from ffavatar.head import load_head
from ffavatar.types import HeadParams

NAMES = ("browInnerUp", "eyeBlinkLeft", "mouthFunnel", "mh_mouth-open_L", "jawForward")
BLACK = np.zeros((4, 4, 3), np.uint8)


def row(value: float = 0.0, seed: int | None = None) -> HeadParams:
    if seed is None:
        parts = [torch.full((1, 3), value) for _ in range(6)]
        made = HeadParams(*parts, torch.full((1, len(NAMES)), value))
    else:
        generator = torch.Generator().manual_seed(seed)
        parts = [0.1 * torch.randn(1, 3, generator=generator) for _ in range(6)]
        made = HeadParams(*parts, torch.rand(1, len(NAMES), generator=generator))
    return replace(made, translation=made.translation * 0.1 + torch.tensor([[0.0, 0.0, -1.2]]))


def play(seen: list[bool], values: list[float] | None = None) -> Generator[Moment]:
    """Moments as ``perform`` gives them: frames without a face repeat the pose before."""
    last = (row(0.0), Box(0, 0, 100, 100))
    for index, face in enumerate(seen):
        if face:
            value = 0.02 * index if values is None else values[index]
            last = (row(value), Box(2.0 * index, 0, 100, 100))
        yield Moment(*last, BLACK, 1, face)


def test_a_gap_moves_evenly_between_its_ends() -> None:
    made = list(bridge(play([True, True, False, False, False, True, True])))
    assert [m.bridged for m in made] == [False, False, True, True, True, False, False]
    for index, moment in enumerate(made):
        assert moment.params.expression[0, 0] == pytest.approx(0.02 * index, abs=1e-6)
        assert moment.params.root[0].tolist() == pytest.approx([0.02 * index] * 3, abs=1e-4)
        assert moment.crop.left == pytest.approx(2.0 * index)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=80, deadline=None)
def test_no_frame_is_lost_or_doubled_and_long_gaps_hold(seen: list[bool]) -> None:
    plain, made = list(play(seen)), list(bridge(play(seen)))
    assert [m.seen for m in made] == seen
    for before, after in zip(plain, made):
        if before.seen:
            assert after.params is before.params or torch.equal(after.params.root, before.params.root)
    runs = "".join("x" if s else "." for s in seen)
    inner = [run for run in runs.strip(".").split("x") if run]
    expected = sum(len(run) for run in inner if len(run) <= MOST_BRIDGED)
    assert sum(m.bridged for m in made) == expected


def test_a_cut_is_not_bridged() -> None:
    moments = list(play([True, False, True]))
    moments[2] = replace(moments[2], crop=Box(500, 0, 100, 100))
    assert not any(m.bridged for m in bridge(m for m in moments))


def test_smoothing_keeps_a_moving_head_and_calms_a_still_one() -> None:
    """The picture's position of a still head under jittering crops and poses, in pixels of 512."""
    rng = np.random.default_rng(0)

    def noisy() -> Generator[Moment]:
        for _ in range(150):
            shake = torch.from_numpy(rng.normal(0, 1, (2, 1, 3))).float()
            params = row(0.0)
            params = replace(params, root=0.004 * shake[0], translation=params.translation + 2e-4 * shake[1])
            yield Moment(params, Box(*rng.normal(0, 0.1, 2), 100, 100), BLACK, 1, True)

    def seen(options: DriveOptions) -> np.ndarray:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state
        rows = list(steadied(noisy(), 30.0, options, NAMES))
        window = Box(0, 0, 100, 100)
        camera = window_camera([m.crop for m in rows], [window] * len(rows), 512, 512)
        return project(torch.cat([m.params.translation for m in rows])[:, None], camera)[0][60:, 0].numpy()

    raw, calm = seen(DriveOptions(smooth=False)), seen(DriveOptions())
    assert np.diff(calm, axis=0).std() < 0.35 * np.diff(raw, axis=0).std()
    assert np.abs(calm.mean(0) - raw.mean(0)).max() < 1.0


@given(st.lists(st.floats(-0.4, 0.4), min_size=len(NAMES), max_size=len(NAMES)), st.floats(0, 0.04))
@settings(max_examples=40, deadline=None)
def test_relative_driving_does_not_leak_the_drivers_features(bias: list[float], jaw: float) -> None:
    """A driver whose resting face reads as an expression (narrow eyes, a smiling mouth) drives as one without."""
    generator = torch.Generator().manual_seed(3)
    plain = HeadParams.cat([row(seed=k) for k in range(40)])
    expression = torch.rand(40, len(NAMES), generator=generator)
    plain = replace(plain, expression=expression)
    shift = torch.zeros(3)
    shift[0] = jaw
    other = replace(plain, expression=expression + torch.tensor(bias))
    options = DriveOptions(relative=True)
    a, b = (adjust_params(p, options, NAMES) for p in (plain, other))
    assert torch.allclose(a.expression, b.expression, atol=1e-5)
    assert torch.allclose(a.jaw, b.jaw, atol=1e-6)
    still = replace(plain, jaw=plain.jaw * 0 + shift)  # a jaw that never moves is the driver's own
    assert adjust_params(still, options, NAMES).jaw.abs().max() < 1e-6


def test_the_calm_face_is_found_among_talk() -> None:
    params = HeadParams.cat([row(0.0) for _ in range(50)])
    expression, jaw = torch.rand(50, len(NAMES)), torch.zeros(50, 3)
    jaw[:, 0] = 0.2
    rest = torch.tensor([0.1, 0.3, 0.05, 0.0, 0.2])
    expression[20:32], jaw[20:32, 0] = rest, 0.01
    found = Neutral.of(replace(params, expression=expression, jaw=jaw))
    assert torch.allclose(found.expression, rest, atol=0.02) and float(found.jaw[0]) == pytest.approx(0.01, abs=1e-3)


def test_an_open_mouth_is_not_taken_for_a_calm_one() -> None:
    """A driver who speaks all the time keeps the opening beyond what a resting jaw may be misread by."""
    params = HeadParams.cat([row(0.0) for _ in range(20)])
    jaw = torch.zeros(20, 3)
    jaw[:, 0] = 0.2
    made = adjust_params(replace(params, jaw=jaw), DriveOptions(relative=True), NAMES)
    assert torch.allclose(made.jaw[:, 0], torch.tensor(0.2 - MOST_JAW_RAD))


def test_gains_by_group() -> None:
    params = row(seed=1)
    gains = {"brows": 2.0, "eyes": 0.0, "mouth": 0.5, "jaw": 3.0, "gaze": 0.25}
    made = Adjuster(DriveOptions(gains=gains), NAMES)(params)
    assert torch.allclose(made.expression, params.expression * torch.tensor([2.0, 0.0, 0.5, 0.5, 3.0]))
    assert torch.equal(made.jaw, params.jaw * 3) and torch.equal(made.eye_left, params.eye_left * 0.25)
    assert torch.equal(made.root, params.root)
    grouped = [n for n in load_head().expression_names if group_of(n) is None]
    assert grouped == ["mh_neck-platysma"]


def test_head_motion_off_and_scaled() -> None:
    params = row(seed=2)
    off = Adjuster(DriveOptions(head_motion="off"), NAMES)(params)
    assert not off.root.any() and not off.neck.any() and torch.equal(off.expression, params.expression)
    half = Adjuster(DriveOptions(head_motion="scaled", head_gain=0.5), NAMES)(params)
    assert torch.allclose(half.root, params.root / 2) and torch.allclose(half.neck, params.neck / 2)
    assert torch.allclose(half.translation - off.translation, (params.translation - off.translation) / 2)
    rows = list(steadied(play([True] * 5), 30.0, DriveOptions(head_motion="off"), NAMES))
    assert len({m.crop for m in rows}) == 1  # the camera stands still too


def test_the_default_without_smoothing_changes_nothing() -> None:
    for plain, made in zip(play([True] * 9), steadied(play([True] * 9), 30.0, DriveOptions(smooth=False), NAMES)):
        for name in CHANNELS:
            assert torch.equal(getattr(plain.params, name), getattr(made.params, name))


def test_closing_ends_the_source() -> None:
    ended = []

    def endless() -> Generator[Moment]:
        try:
            while True:
                yield Moment(row(0.0), Box(0, 0, 1, 1), BLACK, 1, True)
        finally:
            ended.append(True)

    stream = steadied(endless(), 30.0, DriveOptions(relative=True), NAMES)
    next(stream)
    stream.close()
    assert ended == [True]


@pytest.mark.parametrize("wrong", [{"gains": {"ears": 1.0}}, {"gains": {"mouth": 9.0}}, {"head_gain": -1.0}])
def test_options_are_checked(wrong: dict) -> None:
    with pytest.raises(InputError):
        DriveOptions(**wrong)
