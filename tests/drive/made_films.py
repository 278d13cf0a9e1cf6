"""Small films and heads made on the fly; no file of a real person."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True)
class NamedHead:
    """What a motion needs to know of a head."""

    edition: str
    expression_names: tuple[str, ...]


def level(index: int) -> int:
    """Grey level of frame ``index`` of a made film."""
    return (20 + 7 * index) % 220


def make_film(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 48),
    fps: int = 25,
    sound: str | None = None,
    times: list[int] | None = None,
) -> Path:
    """A film whose left half has grey level(i) and whose right half is its complement; ``sound`` is a codec's name."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "8"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = container.add_stream(sound, rate=44100) if sound else None
        if audio is not None:
            audio.layout = "stereo"
        for index in range(frames):
            image = np.full((size[1], size[0], 3), level(index), np.uint8)
            image[:, size[0] // 2 :] = 255 - level(index)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            add_tone(container, audio, frames / fps)
    return path


def add_tone(container: av.container.OutputContainer, audio: av.AudioStream, seconds: float) -> None:
    """A 440 Hz tone on a stereo stream of 44.1 kHz."""
    resampler = av.AudioResampler(audio.format, "stereo", 44100)
    for block in range(int(seconds * 44100 / 1024)):
        tone = 8000 * np.sin(2 * np.pi * 440 * (np.arange(1024) + 1024 * block) / 44100)
        samples = np.repeat(tone.astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 1024 * block
        for piece in resampler.resample(frame):
            container.mux(audio.encode(piece))
    container.mux(audio.encode(None))
