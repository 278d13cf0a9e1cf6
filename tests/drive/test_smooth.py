"""The One Euro filter: against its published formula, and its lag and jitter on the motions of faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ffavatar.drive.motion import CHANNELS
from ffavatar.drive.smooth import TUNINGS, OneEuro, ParamsFilter, Tuning
from ffavatar.types import HeadParams

FPS = 30.0


def reference(values: np.ndarray, tuning: Tuning, step: float) -> np.ndarray:
    """Casiez et al. 2012, float64; the speed is that of the value against the filtered one, as in their second form."""
    out, speed = [values[0]], 0.0
    for value in values[1:]:
        speed_alpha = 1 / (1 + 1 / (2 * math.pi * tuning.speed_cutoff * step))
        speed = speed_alpha * (value - out[-1]) / step + (1 - speed_alpha) * speed
        alpha = 1 / (1 + 1 / (2 * math.pi * (tuning.min_cutoff + tuning.beta * abs(speed)) * step))
        out.append(alpha * value + (1 - alpha) * out[-1])
    return np.array(out)


def run(tuning: Tuning, values: np.ndarray, rotation: bool = False) -> np.ndarray:
    one = OneEuro(tuning, rotation)
    return np.stack([one(torch.from_numpy(v), 1 / FPS).numpy() for v in values])


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=40), st.floats(0.3, 4), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_against_the_formula(values: list[float], cutoff: float, beta: float) -> None:
    tuning = Tuning(cutoff, beta)
    data = np.array(values)
    assert np.allclose(run(tuning, data[:, None])[:, 0], reference(data, tuning, 1 / FPS), atol=1e-12)


def test_rotations_about_one_axis_are_numbers() -> None:
    angle = np.cumsum(np.random.default_rng(0).normal(0, 0.05, 60))
    tuning = TUNINGS["neck"]
    axis = np.array([0.6, 0.0, 0.8])
    turned = run(tuning, angle[:, None] * axis, rotation=True) @ axis
    assert np.allclose(turned, reference(angle, tuning, 1 / FPS), atol=1e-9)


def test_rotations_cross_the_half_turn() -> None:
    """Axis-angle jumps from +pi to -pi; the filtered rotation moves on."""
    angle = np.linspace(2.8, 3.5, 30)
    vectors = Rotation.from_rotvec(angle[:, None] * [0, 1.0, 0]).as_rotvec()
    out = Rotation.from_rotvec(run(Tuning(2.0, 5.0), vectors, rotation=True))
    assert (out[:-1].inv() * out[1:]).magnitude().max() < 0.06


@pytest.mark.parametrize(("channel", "noise"), [("root", 0.003), ("neck", 0.003), ("translation", 3e-4),
                                                ("jaw", 0.003), ("expression", 0.01), ("eye_left", 0.005)])  # fmt: skip
def test_jitter_of_a_still_face_is_cut(channel: str, noise: float) -> None:
    """Noise of the estimator's size loses at least 55 percent of its frame-to-frame change."""
    data = np.random.default_rng(1).normal(0, noise, (600, 3))
    out = run(TUNINGS[channel], data, channel not in ("translation", "expression"))
    assert np.diff(out[60:], axis=0).std() < 0.45 * np.diff(data[60:], axis=0).std()


LAGS_MS = [("root", 1.0, 35), ("neck", 1.0, 25), ("translation", 0.2, 20), ("jaw", 2.0, 15), ("eye_left", 4.0, 10)]


@pytest.mark.parametrize(("channel", "speed", "most_ms"), LAGS_MS)
def test_lag_behind_a_steady_movement(channel: str, speed: float, most_ms: float) -> None:
    time = np.arange(90) / FPS
    data = np.stack([speed * time, 0 * time, 0 * time], 1)
    data = data if channel == "translation" else Rotation.from_rotvec(data).as_rotvec()
    out = run(TUNINGS[channel], data, channel != "translation")
    if channel == "translation":
        behind = (data[60:, 0] - out[60:, 0]) / speed
    else:
        behind = (Rotation.from_rotvec(out[60:]).inv() * Rotation.from_rotvec(data[60:])).magnitude() / speed
    assert 0 < 1e3 * behind.mean() < most_ms


def test_a_blink_arrives_at_once() -> None:
    """Lids shut within 70 ms: the filtered blink is at most a frame late and as deep as 90 percent."""
    lids = np.interp(np.arange(40), [10, 12, 14, 19], [0, 1, 1, 0])
    out = run(TUNINGS["expression"], lids[:, None])[:, 0]
    assert out.max() > 0.9
    crossed = [int(np.argmax(x > 0.5)) for x in (lids, out)]
    assert crossed[1] - crossed[0] <= 1


def test_params_channel_by_channel_and_reset() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [
        HeadParams(*(0.1 * torch.randn(1, 3, generator=generator) for _ in range(6)), torch.rand(1, 4))
        for _ in range(5)
    ]
    whole = ParamsFilter()
    out = [whole(row, 1 / FPS) for row in rows]
    for name in CHANNELS:
        alone = OneEuro(TUNINGS[name], name not in ("translation", "expression"))
        for row, made in zip(rows, out):
            assert torch.allclose(alone(getattr(row, name), 1 / FPS), getattr(made, name))
    whole.reset()
    assert torch.equal(whole(rows[3], 1 / FPS).root, rows[3].root)
