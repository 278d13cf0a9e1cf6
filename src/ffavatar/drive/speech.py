"""Lips from the sound of speech, by signal processing alone: no phonemes, no language, no trained network.

Loudness opens the mouth; the first two formants say how wide and how rounded it is (F1 rises with the jaw, F2 with
spread lips: Peterson and Barney 1952); hiss shows the teeth; a short drop inside speech, or a murmur without upper
formants, shuts the lips. Blinks, brows and a slight sway of the head are added so that the face does not freeze: they
are made up, not heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ffavatar.drive.arkit import ARKIT_NAMES, arkit_motion
from ffavatar.drive.motion import Motion
from ffavatar.drive.video import VIDEO_SUFFIXES, existing_input, open_media
from ffavatar.errors import InputError

Array = NDArray[np.float64]
RATE = 16_000  # Hz
STEP, WINDOW = 160, 400  # samples: 100 frames a second of 25 ms
LPC_ORDER = 14
LONGEST_S = 3600.0
LEAD_S = 0.04  # lips move before the sound
JAW_MOST = 0.5  # of ARKit's jawOpen, for the loudest open vowel
_SILENT_DB = -55.0  # below full scale: nothing is taken for speech there, however quiet the rest is


@dataclass(frozen=True)
class Sound:
    """What is heard in each hundredth of a second (T,): loudness, voicing and hiss in [0, 1], formants in Hz."""

    loudness: Array
    voiced: Array
    hiss: Array
    f1: Array
    f2: Array
    murmur: Array  # low energy alone: m, n and the closed part of b


def is_speech(path: str | Path) -> bool:
    """Whether a file holds sound and no pictures. Raises ``InputError`` where it cannot be opened at all.

    A file that calls itself a film is one: without pictures it is a broken film, not speech.
    """
    place = existing_input(path)
    if place.is_dir() or place.suffix.lower() in VIDEO_SUFFIXES:
        return False
    try:
        with open_media(place) as container:
            pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            return bool(container.streams.audio) and not pictures
    except (av.error.FFmpegError, OSError, ValueError, AttributeError):
        return False


def read_sound(path: str | Path) -> Array:
    """Samples (N,) in [-1, 1], mono at 16 kHz, of up to an hour. Raises ``InputError`` for what holds no sound."""
    place = existing_input(path)
    parts: list[np.ndarray] = []
    count = 0
    try:
        with open_media(place) as container:
            if not container.streams.audio:
                raise InputError(f"{path} holds no sound; give a recording of speech.")
            resampler = av.AudioResampler("flt", "mono", RATE)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    parts.append(piece.to_ndarray()[0])
                    count += len(parts[-1])
                if count > LONGEST_S * RATE:
                    raise InputError(f"{path} is longer than {LONGEST_S / 60:.0f} minutes; cut it into pieces.")
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        if count < RATE // 10:
            words = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"{path} cannot be read as sound ({words}); give a complete .wav or .mp3 file.") from None
    samples = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    if len(samples) < RATE // 10 or not np.isfinite(samples).all():
        raise InputError(f"{path} holds less than a tenth of a second of sound; give a recording of speech.")
    return samples


def listen(samples: Array) -> Sound:
    """Features of speech. ``samples`` (N,) at 16 kHz."""
    padded = np.pad(samples, (WINDOW // 2, WINDOW))
    count = max(len(samples) // STEP, 1)
    index = np.arange(count)[:, None] * STEP + np.arange(WINDOW)
    frames = padded[index]
    level = 10 * np.log10(np.maximum((frames**2).mean(1), 1e-12))
    top, floor = np.percentile(level, 95), max(np.percentile(level, 5), _SILENT_DB)
    if top < _SILENT_DB:
        zero = np.zeros(count)
        return Sound(zero, zero, zero, zero + 500, zero + 1500, zero)
    low = max(top - 35, min(floor + 6, top - 15))
    loudness = np.clip((level - low) / max(top - low, 1.0), 0, 1)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), 512)) ** 2
    hertz = np.fft.rfftfreq(512, 1 / RATE)

    def band(a: float, b: float) -> Array:
        return spectrum[:, (hertz >= a) & (hertz < b)].sum(1)

    whole = band(80, 8000) + 1e-12
    hiss = np.clip((band(3500, 8000) / whole - 0.25) / 0.4, 0, 1) * (loudness > 0.02)
    # a shut mouth lets only the lowest formant out: close vowels still have their second one
    upper = np.maximum(band(450, 1000) / whole / 0.05, band(1000, 3500) / whole / 0.018)
    murmur = np.clip((band(80, 450) / whole - 0.9) / 0.06, 0, 1) * np.clip(1.2 - upper, 0, 1) * (loudness > 0.05)
    f1, f2 = formants(frames)
    voiced = _voicing(frames) * (1 - hiss)
    return Sound(loudness, voiced, hiss, _median(f1, 5), _median(f2, 5), murmur)


def _voicing(frames: Array) -> Array:
    """Height of the autocorrelation's peak at the pitches of voices (70 to 400 Hz), 0 to 1."""
    size = 1024
    spectrum = np.abs(np.fft.rfft(frames - frames.mean(1, keepdims=True), size)) ** 2
    correlation = np.fft.irfft(spectrum, size)
    lags = np.arange(RATE // 400, RATE // 70)
    # a lag's overlap is shorter than the window
    normal = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-12) * (WINDOW / (WINDOW - lags))
    return np.clip((normal.max(1) - 0.3) / 0.4, 0, 1)


def formants(frames: Array) -> tuple[Array, Array]:
    """First and second formant in Hz of frames (T, WINDOW), by linear prediction (autocorrelation method) and the
    angles of the polynomial's roots; 500 and 1500 Hz, a tube's, where none is found."""
    emphasised = frames[:, 1:] - 0.97 * frames[:, :-1]
    emphasised = emphasised * np.hamming(WINDOW - 1)
    power = np.abs(np.fft.rfft(emphasised, 1024)) ** 2
    lags = np.fft.irfft(power, 1024)[:, : LPC_ORDER + 1]
    gap = np.abs(np.subtract.outer(np.arange(LPC_ORDER), np.arange(LPC_ORDER)))
    matrix = lags[:, gap] + np.eye(LPC_ORDER) * (1e-6 * lags[:, :1, None] + 1e-12)
    weights = np.linalg.solve(matrix, lags[:, 1:, None])[..., 0]
    companion = np.zeros((len(frames), LPC_ORDER, LPC_ORDER))
    companion[:, 0] = weights
    companion[:, np.arange(1, LPC_ORDER), np.arange(LPC_ORDER - 1)] = 1
    roots = np.linalg.eigvals(companion)
    hertz = np.angle(roots) * RATE / (2 * np.pi)
    width = -np.log(np.maximum(np.abs(roots), 1e-6)) * RATE / np.pi
    usable = (hertz > 180) & (hertz < 3500) & (width < 500)
    ordered = np.sort(np.where(usable, hertz, np.inf), 1)
    first, second = ordered[:, 0], ordered[:, 1]
    return np.where(np.isfinite(first), first, 500.0), np.where(np.isfinite(second), second, 1500.0)


def _median(values: Array, width: int) -> Array:
    padded = np.pad(values, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def _follow(values: Array, rise_s: float, fall_s: float) -> Array:
    """A first-order lag with its own time for rising and for falling, at 100 frames a second."""
    out, now = np.empty_like(values), 0.0
    up, down = (1 - np.exp(-STEP / RATE / s) for s in (rise_s, fall_s))
    for i, value in enumerate(values):
        now += (up if value > now else down) * (value - now)
        out[i] = now
    return out


def mouth_shapes(sound: Sound) -> dict[str, Array]:
    """ARKit coefficients of the mouth (T,) from what is heard, at 100 frames a second."""
    speaking = sound.loudness**0.7
    vowel = speaking * np.maximum(sound.voiced, 0.25) * (1 - sound.hiss)
    open_ = np.clip((sound.f1 - 250) / 500, 0.1, 1)
    front = np.clip((sound.f2 - 1500) / 700, 0, 1)
    back = np.clip((1250 - sound.f2) / 450, 0, 1) * np.clip((620 - sound.f1) / 250, 0, 1)
    shut = np.maximum(sound.murmur * speaking, _dips(sound.loudness))
    free = 1 - shut
    jaw = JAW_MOST * vowel * open_ * free
    hiss = sound.hiss * np.clip(2 * speaking, 0, 1)
    shapes = {
        "jawOpen": np.maximum(jaw, 0.08 * hiss),
        "mouthClose": 0.25 * JAW_MOST * vowel * open_ * shut,
        "mouthPressLeft": 0.5 * shut * np.clip(3 * speaking + 0.3, 0, 1),
        "mouthRollLower": 0.25 * shut,
        "mouthPucker": 0.75 * vowel * back * free,
        "mouthFunnel": 0.35 * vowel * back * open_ * free + 0.1 * hiss,
        "mouthStretchLeft": 0.45 * vowel * front * free + 0.3 * hiss,
        "mouthSmileLeft": 0.15 * vowel * front * free,
        "mouthUpperUpLeft": 0.25 * vowel * free * (0.4 + 0.6 * front) + 0.15 * hiss,
        "mouthLowerDownLeft": 0.35 * vowel * free * open_ + 0.3 * hiss,
    }
    for name in [n for n in shapes if n.endswith("Left")]:
        shapes[name.replace("Left", "Right")] = shapes[name]
    return {name: _follow(np.clip(values, 0, 1), 0.03, 0.06) for name, values in shapes.items()}


def _dips(loudness: Array) -> Array:
    """1 in drops of 30 to 130 ms between louder parts: where p, b and their like may shut the lips."""
    quiet = loudness < 0.25
    out = np.zeros_like(loudness)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2]):
        if 3 <= end - start <= 13 and start >= 5 and end + 5 <= len(loudness):
            if min(loudness[start - 5 : start].max(), loudness[end : end + 5].max()) > 0.45:
                out[start:end] = 1.0
    return out


def speech_motion(path: str | Path, fps: float = 30.0, seed: int = 0) -> Motion:
    """The face of somebody who says what is recorded: an ARKit motion, the same for the same file and ``seed``.

    Raises ``InputError`` for a file without sound.
    """
    samples = read_sound(path)
    sound = listen(samples)
    shapes = mouth_shapes(sound)
    seconds = len(samples) / RATE
    frames = max(round(seconds * fps), 1)
    time = np.arange(frames) / fps
    at = (time + LEAD_S) * RATE / STEP
    source = np.arange(len(sound.loudness))
    rng = np.random.default_rng(seed)
    weights = np.zeros((frames, len(ARKIT_NAMES)))
    for name, values in shapes.items():
        weights[:, ARKIT_NAMES.index(name)] = np.interp(at, source, values)
    stress = np.interp(at, source, _follow(sound.loudness, 0.12, 0.4))
    lids = blinks(time, seconds, stress, rng)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        weights[:, ARKIT_NAMES.index(name)] = lids
    peak = np.clip((stress - 0.75) / 0.25, 0, 1)
    for name, most in (("browInnerUp", 0.25), ("browOuterUpLeft", 0.15), ("browOuterUpRight", 0.15)):
        weights[:, ARKIT_NAMES.index(name)] = most * peak
    turns = np.stack([_sway(time, rng, 0.02) + 0.03 * peak, _sway(time, rng, 0.04), _sway(time, rng, 0.015)], 1)
    notes = (f"{Path(path).name}: lips follow the sound's loudness and formants; blinks, brows and sway are made up.",)
    return arkit_motion(weights, list(ARKIT_NAMES), turns, fps, f"speech {Path(path).name}", notes)


def blinks(time: Array, seconds: float, stress: Array, rng: np.random.Generator) -> Array:
    """Lids (T,) in [0, 1]: shut in 70 ms, open in 150 ms, every 2 to 6 s, rather in pauses than in stressed words."""
    lids = np.zeros_like(time)
    at = rng.uniform(0.6, 2.0)
    while at + 0.3 < seconds:
        near = np.flatnonzero(np.abs(time - at) < 0.5)
        if len(near):
            at = max(float(time[near[stress[near].argmin()]]), 0.2)
        shut = np.clip((time - at) / 0.07, 0, 1) * np.clip((at + 0.26 - time) / 0.15, 0, 1)
        lids = np.maximum(lids, shut * (time >= at))
        at += rng.uniform(2.0, 6.0)
    return lids


def _sway(time: Array, rng: np.random.Generator, size: float) -> Array:
    """A slow wander (T,) of about ``size``, from three sines between 0.07 and 0.35 Hz."""
    parts = [np.sin(2 * np.pi * (time * rng.uniform(0.07, 0.35) + rng.uniform())) for _ in range(3)]
    return size / 2 * np.sum(parts, 0)
