"""Driving measured: the filter's lag and jitter, a still face's tremble, lips and blinks from driver to avatar, speed.

    python benchmarks/driving.py [--clip FILM ...] [--frames 150] [--markdown FILE]

The avatar is the demo's synthetic person (about 20K Gaussians, 256 px). The still face is NASA's portrait of Eileen
Collins with sensor noise. Without --clip the driver is the avatar's own demonstration motion, rendered. Lip aperture
(inner lips over the face's height) and eye openings are read by the landmarker in the driver's frames and in the
avatar's.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ffavatar.animate import pose_surface
from ffavatar.api import model_for
from ffavatar.avatar import Avatar
from ffavatar.demo import astronaut_photo, synthetic_views
from ffavatar.drive.live import LiveDriver
from ffavatar.drive.motion import demo_motion
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.smooth import TUNINGS, OneEuro
from ffavatar.drive.video import FrameReader
from ffavatar.geometry import normalised_camera, project
from ffavatar.photo import FrontEnd
from ffavatar.pipeline import reconstruct
from ffavatar.types import HeadParams

FPS = 30.0
SIZE = 256
UPPER_LIP, LOWER_LIP, TOP, CHIN = 13, 14, 10, 152
LIDS = ((159, 145, 33, 133), (386, 374, 263, 362))  # upper, lower, corners
BLINK_DROP = 0.55  # of the median opening


def filter_table() -> list[str]:
    """Lag behind a steady movement and what is left of noise, per channel."""
    moves = {"root": 0.3, "neck": 0.3, "translation": 0.2, "jaw": 0.6, "eye_left": 1.0, "expression": 4.0}
    noises = {"translation": 3e-4, "expression": 0.01}
    lines = [
        "| channel | moving at | lag, ms | noise at rest | left of its frame-to-frame change |",
        "| --- | --- | --- | --- | --- |",
    ]
    rng = np.random.default_rng(0)
    for name, speed in moves.items():
        rotation = name not in noises
        ramp = torch.zeros(90, 3, dtype=torch.float64)
        ramp[:, 0] = speed * (torch.arange(90) - 60) / FPS  # near zero at the end: no rotation passes a half turn
        moving = OneEuro(TUNINGS[name], rotation)
        out = torch.stack([moving(row, 1 / FPS) for row in ramp])
        lag = float((ramp[60:, 0] - out[60:, 0]).mean() / speed)
        size = noises.get(name, 0.003)
        noise = torch.from_numpy(rng.normal(0, size, (600, 3)))
        still = OneEuro(TUNINGS[name], rotation)
        calm = torch.stack([still(row, 1 / FPS) for row in noise])
        left = float(calm[60:].diff(dim=0).std() / noise[60:].diff(dim=0).std())
        unit = {"translation": " m", "expression": ""}.get(name, " rad")
        lines.append(f"| {name} | {speed:g}{unit}/s | {1e3 * lag:.0f} | {size:g}{unit} | {100 * left:.0f} % |")
    return lines


def still_face(avatar: Avatar, eyes: FrontEnd, smooth: bool, frames: int = 90) -> tuple[float, float]:
    """Root mean square wander and change per frame of surface points, px of 512, under noise of sigma 4/255."""
    portrait = np.asarray(Image.open(astronaut_photo()).convert("RGB"))[:360, 60:420].astype(np.float64)
    driver = LiveDriver(avatar, model_for(None, "cpu"), eyes, DriveOptions(smooth=smooth), FPS)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(frames):
        noisy = (portrait + rng.normal(0, 4, portrait.shape)).clip(0, 255).astype(np.uint8)
        row = driver.push(noisy)
        assert row is not None
        rows.append(row)
    params = HeadParams.cat(rows[30:])
    camera = normalised_camera(512, len(params))
    points, _ = pose_surface(avatar.rig, params)
    neutral = avatar.rig.points()
    face = (neutral[:, 2] > 0.04) & (neutral[:, 1] > -0.1)
    pixels, _ = project(points[:, face], camera)
    wander = (pixels - pixels.mean(0)).square().sum(-1).mean().sqrt()
    change = pixels.diff(dim=0).square().sum(-1).mean().sqrt()
    return float(wander), float(change)


def features(eyes: FrontEnd, images: Iterable[np.ndarray]) -> np.ndarray:
    """(T, 2): lip aperture in face heights, eye opening in eye widths (the wider eye); NaN where no face is seen."""
    rows, last = [], None
    for image in images:
        found = eyes.analyse_frame(image, last, size=SIZE)
        last = found.landmarks
        if last is None:
            rows.append([np.nan, np.nan])
            continue
        p = last[:, :2].double().numpy()

        def between(a: int, b: int, p: np.ndarray = p) -> float:
            return float(np.linalg.norm(p[a] - p[b]))

        opening = max(between(u, d) / between(a, b) for u, d, a, b in LIDS)
        rows.append([between(UPPER_LIP, LOWER_LIP) / between(TOP, CHIN), opening])
    return np.array(rows)


def blinks_of(opening: np.ndarray) -> list[int]:
    """Frames at which a blink is deepest."""
    low = opening < BLINK_DROP * np.nanmedian(opening)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], low.astype(int), [0]])))
    return [int(a + np.nanargmin(opening[a:b])) for a, b in zip(edges[::2], edges[1::2]) if b - a <= 15]


def drive_clip(avatar: Avatar, eyes: FrontEnd, name: str, images: list[np.ndarray], fps: float) -> str:
    """A row of the table: correlation of lip apertures, blinks found again, speed."""
    driver = LiveDriver(avatar, model_for(None, "cpu"), eyes, DriveOptions(), fps)
    shown, reading, drawing = [], [], []
    cpu = time.process_time()
    for image in images:
        start = time.perf_counter()
        params = driver.push(image) or avatar.neutral_params()
        middle = time.perf_counter()
        shown.append((avatar.render(params, SIZE).images[0].clamp(0, 1) * 255).byte().numpy())
        reading.append(middle - start)
        drawing.append(time.perf_counter() - middle)
    cpu_ms = 1e3 * (time.process_time() - cpu) / len(images)
    before, after = features(eyes, images), features(eyes, shown)
    both = np.isfinite(before).all(1) & np.isfinite(after).all(1)
    lips = np.corrcoef(before[both, 0], after[both, 0])[0, 1]
    true, made = blinks_of(before[both, 1]), blinks_of(after[both, 1])
    hits = sum(any(abs(a - b) <= 3 for b in made) for a in true)
    right = sum(any(abs(a - b) <= 3 for b in true) for a in made)
    latency = 1e3 * (np.median(reading) + np.median(drawing))
    spread = 1e3 * before[both, 0].std()
    eyes_text = f"{hits} of {len(true)} | {right} of {len(made)}"
    times = f"{1e3 * np.median(reading):.0f} + {1e3 * np.median(drawing):.0f} = {latency:.0f}"
    return f"| {name} | {len(images)} | {lips:.2f} | {spread:.1f} | {eyes_text} | {times} | {cpu_ms:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    eyes = FrontEnd("cpu")
    avatar = reconstruct(model_for(None, "cpu"), synthetic_views(), 1)
    lines = [f"{len(avatar):,} Gaussians, {SIZE} px, torch {torch.__version__}, {platform.machine()}, one thread.", ""]
    lines += [*filter_table(), ""]
    for smooth in (False, True):
        wander, change = still_face(avatar, eyes, smooth)
        word = "with" if smooth else "without"
        lines.append(f"Still face {word} filter: wander {wander:.2f} px rms, {change:.2f} px a frame (of 512 px).")
    titles = (
        *(
            "driver",
            "frames",
            "lips: correlation",
            "lips: spread, 1/1000",
            "blinks found again",
            "blinks that are true",
        ),
        *("latency, ms (reading + drawing)", "CPU ms a frame"),
    )
    lines += ["", f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    if not options.clip:
        motion = demo_motion(avatar.rig.head, options.frames / FPS, FPS)
        rows = [motion.params[k : k + 1] for k in range(len(motion))]
        rendered = [(avatar.render(row, 512).images[0].clamp(0, 1) * 255).byte().numpy() for row in rows]
        lines.append(drive_clip(avatar, eyes, "demonstration", rendered, FPS))
    for number, path in enumerate(options.clip, 1):
        reader = FrameReader(path)
        images = [frame.image for frame, _ in zip(reader, range(options.frames))]
        lines.append(drive_clip(avatar, eyes, f"clip {number}", images, float(reader.fps)))
    text = "\n".join(lines)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
