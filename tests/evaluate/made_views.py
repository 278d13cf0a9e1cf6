"""Made-up views: a face-like cloud of landmarks and a smooth picture painted around it. No person is shown."""

from __future__ import annotations

import numpy as np
import torch

from ffavatar.types import Views


def landmark_cloud(seed: int = 0) -> torch.Tensor:
    """(478, 3) points in an ellipse in the middle of the crop, cheek points at its sides."""
    random = np.random.default_rng(seed)
    angle, radius = random.uniform(0, 2 * np.pi, 478), np.sqrt(random.uniform(0, 1, 478))
    points = np.stack([0.5 + 0.2 * radius * np.cos(angle), 0.52 + 0.25 * radius * np.sin(angle)], -1)
    points[[468, 473, 1, 61, 291]] = [[0.42, 0.45], [0.58, 0.45], [0.5, 0.55], [0.44, 0.65], [0.56, 0.65]]
    points[[234, 454]] = [[0.3, 0.52], [0.7, 0.52]]
    depth = 0.1 * (radius**2 - 1)
    return torch.tensor(np.concatenate([points, depth[:, None]], -1), dtype=torch.float32)


def painted(seed: int, size: int = 64) -> torch.Tensor:
    """(size, size, 3) smooth colours in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(x * random.uniform(2, 9) + y * random.uniform(2, 9) + random.uniform(0, 6)) for _ in range(3)]
    return torch.tensor(0.5 + 0.45 * np.stack(waves, -1), dtype=torch.float32)


def made_views(landmarks: list[torch.Tensor], seed: int = 0, size: int = 64) -> Views:
    """One view per set of landmarks; the matte is a disc around the middle, everything is inside the photo."""
    count = len(landmarks)
    y, x = np.mgrid[:size, :size] / size - 0.5
    disc = np.clip(20 * (0.45 - np.hypot(x, y)), 0, 1)
    return Views(
        images=torch.stack([painted(seed + index, size) for index in range(count)]),
        mattes=torch.tensor(disc, dtype=torch.float32).expand(count, -1, -1).clone(),
        valid=torch.ones(count, size, size),
        landmarks=torch.stack(landmarks),
        blendshapes=torch.zeros(count, 52),
    )


def fingerprint(values: np.ndarray) -> np.ndarray:
    """(8,) sums of all values (N,) with different weights: no one of them can change unseen."""
    return np.cos(np.outer(np.arange(8), np.arange(len(values)))) @ values / np.sqrt(len(values))
