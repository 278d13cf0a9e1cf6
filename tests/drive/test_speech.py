"""Lips from sound: vowels by made formants, hiss, silence, closures; the same for quiet and loud recordings."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from ffavatar.drive.arkit import ARKIT_NAMES
from ffavatar.drive.speech import RATE, blinks, is_speech, listen, mouth_shapes, read_sound, speech_motion
from ffavatar.errors import InputError

VOWELS = {"a": (750, 1250), "i": (290, 2250), "u": (320, 850), "e": (500, 1850)}


def vowel(name: str, seconds: float, pitch: float = 120.0, gain: float = 0.3) -> np.ndarray:
    """A pulse train through four resonators, as Klatt's synthesiser begins."""
    count = int(seconds * RATE)
    source = np.zeros(count)
    source[(np.arange(0, seconds, 1 / pitch) * RATE).astype(int)] = 1.0
    sound = lfilter([1], [1, -0.9], source)
    for centre, width in zip((*VOWELS[name], 2900, 3600), (70, 90, 120, 150)):
        radius, angle = np.exp(-np.pi * width / RATE), 2 * np.pi * centre / RATE
        sound = lfilter(
            [1 - 2 * radius * np.cos(angle) + radius**2], [1, -2 * radius * np.cos(angle), radius**2], sound
        )
    sound = sound * np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.02 * RATE))
    return gain * sound / np.abs(sound).max()


def hiss(seconds: float, gain: float = 0.15) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=int(seconds * RATE))
    return gain * lfilter([1, -1.8, 0.81], [1], noise) / 3


def quiet(seconds: float) -> np.ndarray:
    return 1e-4 * np.random.default_rng(1).normal(size=int(seconds * RATE))


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def middle(values: np.ndarray, start: float, end: float) -> float:
    return float(values[int(100 * (start + 0.12)) : int(100 * (end - 0.08))].mean())


SENTENCE = [(quiet(0.4), ""), (vowel("a", 0.4), "a"), (quiet(0.3), ""), (vowel("i", 0.4), "i"), (quiet(0.3), ""),
            (vowel("u", 0.4), "u"), (quiet(0.3), ""), (hiss(0.4), "s"), (quiet(0.4), "")]  # fmt: skip


def spans() -> dict[str, tuple[float, float]]:
    found, at = {}, 0.0
    for samples, name in SENTENCE:
        length = len(samples) / RATE
        found[name or f"pause {at:.1f}"] = (at, at + length)
        at += length
    return found


@pytest.mark.parametrize("name", list(VOWELS))
@pytest.mark.parametrize("pitch", [100.0, 190.0])
def test_formants_are_found(name: str, pitch: float) -> None:
    sound = listen(vowel(name, 0.5, pitch))
    for found, true in zip((sound.f1, sound.f2), VOWELS[name]):
        assert abs(np.median(found[10:-10]) - true) < 0.15 * true + 40
    assert np.median(sound.voiced[10:-10]) > 0.8 and sound.hiss[10:-10].max() < 0.2


def test_each_sound_has_its_lips() -> None:
    shapes = mouth_shapes(listen(np.concatenate([s for s, _ in SENTENCE])))
    at = spans()

    def strength(shape: str, sound: str) -> float:
        return middle(shapes[shape], *at[sound])

    assert strength("jawOpen", "a") > 0.25
    assert strength("jawOpen", "a") > 2 * strength("jawOpen", "i")
    assert strength("mouthStretchLeft", "i") > 0.25 > 5 * strength("mouthStretchLeft", "u")
    assert strength("mouthPucker", "u") > 0.3 > 5 * strength("mouthPucker", "i")
    assert strength("jawOpen", "s") < 0.12 and strength("mouthLowerDownLeft", "s") > 0.1
    for pause in (name for name in at if name.startswith("pause")):
        assert middle(shapes["jawOpen"], *at[pause]) < 0.05
    assert all(np.array_equal(shapes[n], shapes[n.replace("Left", "Right")]) for n in shapes if n.endswith("Left"))
    assert all(0 <= v.min() and v.max() <= 1 for v in shapes.values())


def test_lips_shut_between_syllables_but_not_in_pauses() -> None:
    """a-p-a: a stop of 80 ms presses the lips; a pause of 400 ms leaves them at rest."""
    shapes = mouth_shapes(listen(np.concatenate([vowel("a", 0.3), quiet(0.08), vowel("a", 0.3), quiet(0.4)])))
    press = shapes["mouthPressLeft"]
    assert press[28:45].max() > 0.1 and press[5:25].max() < 0.05 and press[90:].max() < 0.08
    assert shapes["jawOpen"][30:44].min() < 0.5 * shapes["jawOpen"][15:25].mean()


def test_quiet_recordings_move_the_lips_as_loud_ones() -> None:
    samples = np.concatenate([vowel("a", 0.5), quiet(0.5) * 0, vowel("e", 0.5), np.zeros(RATE // 2)])
    loud, soft = (mouth_shapes(listen(samples * gain)) for gain in (1.0, 0.1))
    for name in loud:
        assert np.abs(loud[name] - soft[name]).max() < 0.05, name


def test_silence_keeps_the_mouth_shut_and_the_eyes_alive(tmp_path: Path) -> None:
    motion = speech_motion(write(tmp_path / "s.wav", np.zeros(12 * RATE)))
    weights = motion.params.expression
    assert not weights[:, ARKIT_NAMES.index("jawOpen")].any()
    lids = weights[:, ARKIT_NAMES.index("eyeBlinkLeft")].numpy()
    times = int(((lids[1:] > 0.5) & (lids[:-1] <= 0.5)).sum())
    assert 2 <= times <= 8 and motion.params.root.abs().max() < 0.1


def test_blinks_avoid_stress() -> None:
    time = np.arange(0, 60, 1 / 60)
    stress = (np.sin(2 * np.pi * time / 1.5) > 0).astype(float)
    lids = blinks(time, 60.0, stress, np.random.default_rng(0))
    starts = np.flatnonzero((lids[1:] > 0.5) & (lids[:-1] <= 0.5))
    assert 10 <= len(starts) <= 30 and stress[starts].mean() < 0.3


def test_motion_is_as_long_as_the_sound_and_repeats(tmp_path: Path) -> None:
    place = write(tmp_path / "a.wav", np.concatenate([s for s, _ in SENTENCE]), RATE)
    a, b, other = speech_motion(place), speech_motion(place), speech_motion(place, seed=1)
    assert a.seconds == pytest.approx(spans()["pause 2.9"][1], abs=0.05) and a.head_edition == "arkit"
    assert np.array_equal(a.params.expression, b.params.expression) and not np.array_equal(
        a.params.root, other.params.root
    )
    jaw = ARKIT_NAMES.index("jawOpen")
    assert np.array_equal(a.params.expression[:, jaw], other.params.expression[:, jaw])
    assert any("made up" in note for note in a.notes)


def test_what_is_speech_and_what_is_not(tmp_path: Path, film: object) -> None:
    place = write(tmp_path / "a.wav", vowel("a", 0.5))
    assert is_speech(place) and not is_speech(tmp_path)
    assert not is_speech(film("talk.mp4", sound="aac"))  # type: ignore[operator]
    (tmp_path / "b.wav").write_bytes(place.read_bytes()[:60])
    (tmp_path / "c.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(InputError, match=r"b\.wav"):
        read_sound(tmp_path / "b.wav")
    with pytest.raises(InputError, match=r"c\.wav"):
        read_sound(tmp_path / "c.wav")
    with pytest.raises(InputError, match=r"silent\.mp4"):
        read_sound(film("silent.mp4"))  # type: ignore[operator]


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    from scipy.signal import resample_poly

    sound = vowel("i", 0.5)
    place = write(tmp_path / "a.wav", resample_poly(sound, 441, 160), 44100)
    read = read_sound(place)
    assert abs(len(read) - len(sound)) < 400
    assert abs(np.median(listen(read).f2[10:-10]) - VOWELS["i"][1]) < 300
