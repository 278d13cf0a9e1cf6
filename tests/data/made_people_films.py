"""Films of synthetic people, small enough to look through in seconds; an embedding that needs no network."""

from __future__ import annotations

from pathlib import Path

import torch
from made_captures import film

from ffavatar.types import Views


def people_films(folder: Path, seeds: range, frames: int = 5, size: int = 256) -> list[Path]:
    """``pSEED.mp4`` for each seed: pictures of one synthetic person, each another pose and expression."""
    from ffavatar.data.synthetic import synthetic_person

    folder.mkdir(parents=True, exist_ok=True)
    places = []
    for seed in seeds:
        places.append(folder / f"p{seed}.mp4")
        film(places[-1], [p for p in synthetic_person(seed, shots=frames, size=size).images for _ in range(6)])
    return places


def embed(views: Views) -> torch.Tensor:
    """The picture's mean colours in a grid: of no use for faces, but of one value for one film."""
    grid = torch.nn.functional.adaptive_avg_pool2d(views.images.permute(0, 3, 1, 2), 4).flatten(1) - 0.5
    return torch.nn.functional.normalize(grid, dim=-1)


def make_embed():
    return embed
