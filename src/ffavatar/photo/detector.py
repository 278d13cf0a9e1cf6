"""Finds all faces in a photo with MediaPipe's full-range detector, first in the whole photo, then in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ffavatar.photo.graph import Graph
from ffavatar.photo.landmarks import REGION_SCALE
from ffavatar.photo.records import DETECTOR

STRIDE = 4  # network pixels per anchor
SCORE = 0.5
SAME_FACE = 0.3  # intersection over union from which two boxes are one face, as in MediaPipe
TILE_OVERLAP = 0.25  # of a tile's side, so that a face cut by one tile is whole in the next
SMALLEST_FACE = 0.06  # of the searched square's side: below, the network starts to miss faces


@dataclass(frozen=True)
class Face:
    """A detected face, in pixels of the photo."""

    score: float  # in [0, 1]
    box: np.ndarray  # (4,) left, top, right, bottom: brows to chin
    keypoints: np.ndarray  # (6, 2) eye seen left, eye seen right, nose tip, mouth, ear seen left, ear seen right

    @property
    def width(self) -> float:
        return float(self.box[2] - self.box[0])

    def region(self) -> Tensor:
        """(1, 4) the region (see ``landmarks``) where the landmarker starts."""
        left, right = self.keypoints[0], self.keypoints[1]
        angle = np.arctan2(right[1] - left[1], right[0] - left[0])
        side = max(self.box[2] - self.box[0], self.box[3] - self.box[1]) * REGION_SCALE
        centre = (self.box[:2] + self.box[2:]) / 2
        return torch.tensor([[centre[0], centre[1], side, angle]], dtype=torch.float32)


class Detector(nn.Module):
    """The full-range detector: a 192 px square in, one scored box with six keypoints per 4 px cell out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Graph(DETECTOR)
        self.side = self.network.size[0]
        cells = self.side // STRIDE
        axis = (torch.arange(cells) + 0.5) * STRIDE
        down, right = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("anchors", torch.stack([right, down], -1).reshape(-1, 1, 2), persistent=False)
        self.eval()

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 192, 192, 3) in [0, 1] -> scores (B, 2304), and (B, 2304, 8, 2) pixels: box corners, then keypoints."""
        raw, logits = self.network(squares.movedim(-1, 1) * 2 - 1)
        places = raw.unflatten(-1, (8, 2))
        centre = places[:, :, :1] + self.get_buffer("anchors")
        half = places[:, :, 1:2] / 2
        points = places[:, :, 2:] + self.get_buffer("anchors")
        return torch.sigmoid(logits[..., 0].clamp(-80, 80)), torch.cat([centre - half, centre + half, points], 2)

    def search(self, photo: Image.Image, smallest_px: float = 64.0) -> Iterator[list[Face]]:
        """Faces of a photo, the largest first, by ever finer looks; stop when a look's faces satisfy you.

        First the whole photo, then with a margin (a face that fills the photo), then tiles of half and of a quarter the
        side, unless the look before already saw faces of ``smallest_px``.
        """
        width, height = photo.size
        longest = max(width, height)
        for tile, margin in ((longest, 0.0), (longest, 0.5), (longest / 2, 0.0), (longest / 4, 0.0)):
            if tile < longest and smallest_px > SMALLEST_FACE * tile * 2:
                return
            faces = self._look(photo, [_square(place, tile, margin) for place in _tiles(width, height, tile)])
            if faces:
                yield faces

    def find(self, photo: Image.Image, smallest_px: float = 64.0) -> list[Face]:
        """Faces of the first look that shows any."""
        return next(self.search(photo, smallest_px), [])

    @torch.inference_mode()
    def _look(self, photo: Image.Image, squares: list[tuple[float, float, float]]) -> list[Face]:
        device = self.get_buffer("anchors").device
        pictures = np.stack([_letterbox(photo, square, self.side) for square in squares])
        found: list[tuple[float, np.ndarray]] = []
        for start in range(0, len(squares), 8):
            batch = torch.from_numpy(pictures[start : start + 8]).to(device).float() / 255
            scores, places = self(batch)
            for row, (left, top, side) in enumerate(squares[start : start + 8]):
                good = (scores[row] >= SCORE).nonzero()[:, 0]
                points = places[row, good].cpu().double().numpy() * (side / self.side) + (left, top)
                found += zip(scores[row, good].tolist(), points)
        faces = [Face(score, points[:2].reshape(4), points[2:]) for score, points in _merge(found)]
        return sorted((f for f in faces if f.width > 0), key=lambda face: -face.width)


def _tiles(width: int, height: int, tile: float) -> list[tuple[float, float]]:
    """Top left corners of overlapping squares that cover the photo, evenly spread."""
    starts = []
    for length in (width, height):
        count = 1 if length <= tile else int(np.ceil((length - tile) / (tile * (1 - TILE_OVERLAP)))) + 1
        spare = length - tile
        starts.append([spare / 2] if count == 1 else [spare * index / (count - 1) for index in range(count)])
    return [(left, top) for top in starts[1] for left in starts[0]]


def _square(place: tuple[float, float], tile: float, margin: float) -> tuple[float, float, float]:
    return place[0] - tile * margin, place[1] - tile * margin, tile * (1 + 2 * margin)


def _letterbox(photo: Image.Image, square: tuple[float, float, float], side: int) -> np.ndarray:
    """The square (left, top, side; it may reach outside, black there) of the photo as (side, side, 3) uint8."""
    left, top, length = square
    scale = side / length
    inside = (max(left, 0.0), max(top, 0.0), min(left + length, photo.width), min(top + length, photo.height))
    corner = (round((inside[0] - left) * scale), round((inside[1] - top) * scale))
    size = (
        max(1, min(side - corner[0], round((inside[2] - inside[0]) * scale))),
        max(1, min(side - corner[1], round((inside[3] - inside[1]) * scale))),
    )
    canvas = Image.new("RGB", (side, side))
    canvas.paste(photo.resize(size, Image.Resampling.BILINEAR, box=inside, reducing_gap=3.0), corner)
    return np.asarray(canvas)


def _merge(found: list[tuple[float, np.ndarray]]) -> list[tuple[float, np.ndarray]]:
    """Weighted non-maximum suppression: overlapping detections become their score-weighted mean (8, 2)."""
    left = sorted(found, key=lambda item: -item[0])
    merged = []
    while left:
        best = left[0]
        same = [item for item in left if _overlap(best[1], item[1]) > SAME_FACE] or [best]
        left = [item for item in left if item is not best and _overlap(best[1], item[1]) <= SAME_FACE]
        weights = np.array([score for score, _ in same])
        mean = np.tensordot(weights / weights.sum(), np.stack([points for _, points in same]), 1)
        merged.append((best[0], mean))
    return merged


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of the boxes in the first two rows."""
    low, high = np.maximum(one[0], other[0]), np.minimum(one[1], other[1])
    shared = np.prod(np.clip(high - low, 0, None))
    return float(shared / (np.prod(one[1] - one[0]) + np.prod(other[1] - other[0]) - shared + 1e-12))
