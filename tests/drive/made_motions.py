"""Motions and files of other programs, made on the fly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffavatar.drive.arkit import ARKIT_NAMES, EDITION
from ffavatar.drive.flame_tracks import flame_motion
from ffavatar.drive.motion import Motion
from ffavatar.types import Camera, HeadParams


def flame_rows(frames: int, seed: int = 0, expressions: int = 100) -> dict[str, np.ndarray]:
    """Smooth channels as VHAP names them."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)[:, None]

    def wave(width: int, size: float) -> np.ndarray:
        return (size * np.sin(2 * np.pi * (time * rng.uniform(0.5, 2, width) + rng.uniform(0, 1, width)))).astype("f4")

    return {
        "translation": wave(3, 0.02), "rotation": wave(3, 0.3), "neck_pose": wave(3, 0.1), "jaw_pose": wave(3, 0.1),
        "eyes_pose": wave(6, 0.1), "expr": wave(expressions, 1.0), "shape": np.zeros(300, np.float32),
    }  # fmt: skip


def flame_track(frames: int = 6, edition: str = "flame2023", seed: int = 0, camera: bool = False) -> Motion:
    """A FLAME motion, with a moving camera if asked for."""
    r = flame_rows(frames, seed)
    names = {"translation": "translation", "rotation": "root", "neck_pose": "neck", "jaw_pose": "jaw",
             "eyes_pose": "eyes", "expr": "expression"}  # fmt: skip
    motion = flame_motion({ours: r[theirs] for theirs, ours in names.items()}, 25.0, edition, "made")
    if not camera:
        return motion
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).repeat(frames, 1, 1)
    pose[:, 2, 3] = torch.linspace(0.8, 0.9, frames)
    lens = torch.tensor([[1400.0, 0, 250], [0, 1400, 260], [0, 0, 1]]).repeat(frames, 1, 1)
    return Motion(25.0, motion.params, edition, motion.expression_names, "made", Camera(pose, lens, 512, 512))


def arkit_track(frames: int = 6, seed: int = 0) -> Motion:
    generator = torch.Generator().manual_seed(seed)
    params = HeadParams.neutral(frames, 52)
    weights = torch.rand(frames, 52, generator=generator)
    root = 0.4 * torch.randn(frames, 3, generator=generator)
    still = {n: getattr(params, n) for n in ("neck", "jaw", "eye_left", "eye_right")}
    made = HeadParams(root=root, translation=torch.zeros(frames, 3), expression=weights, **still)
    return Motion(60.0, made, EDITION, ARKIT_NAMES, "made", placed=False)


def arkit_json(path: Path, change: dict[str, Any] | None = None, frames: int = 3) -> Path:
    data: dict[str, Any] = {
        "names": list(ARKIT_NAMES),
        "frames": [{"weights": [0.01 * (i + k) for k in range(52)], "time": i / 30} for i in range(frames)],
    }
    path.write_text(json.dumps(data | (change or {})))
    return path
