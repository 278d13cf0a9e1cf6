"""The soft outline of the person in a head crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ffavatar.photo.graph import Graph
from ffavatar.photo.records import MATTE

LOW, RANGE = 0.1, 0.8  # matte = clip((m - 0.1) / 0.8, 0, 1), docs/conventions.md
FACE_SHRINK = 0.95  # of the landmarks' hull: what is surely face, a few pixels inside its edge
CELL = 8  # the search for what hangs together with the face runs on cells of 8 px


class Matte(nn.Module):
    """MediaPipe's selfie segmentation on the photo's part of the head crop, plus what the landmarks know.

    Where the photo ends inside the crop, as frames of films do at forehead and collar, the network has to read a
    picture that is not square, and each way of making it one goes wrong somewhere: stretched, with its edge pixels
    going on, or white around it (shoulders turn into clouds beside a white band). The median of the three is right
    where two are. Wider context, averaging with the mirrored picture, closer looks at the head and guided filtering
    gave nothing (docs/photo.md). Weights are frozen; gradients reach the pictures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = Graph(MATTE)
        self.side = self.network.size[0]
        self.eval()

    def forward(self, crops: Tensor, valid: Tensor, landmarks: Tensor, once: bool = False) -> Tensor:
        """(B, S, S, 3) in [0, 1], (B, S, S), (B, 478, >= 2) crop units -> mattes (B, S, S) in [0, 1].

        The face is filled; parts that do not hang together with it are removed; outside the photo the matte is 0.
        ``once``: of the three ways to read a photo that ends inside the crop only the first, for films.
        """
        size = crops.shape[1]
        soft = torch.cat([self._read(crop[None], _Window.around(inside), once) for crop, inside in zip(crops, valid)])
        face = torch.stack([face_mask(points, size) for points in landmarks]).to(soft)[:, None]
        soft = torch.maximum(soft, face) * _connected(soft.detach(), face)
        return soft[:, 0] * valid

    def _read(self, crop: Tensor, window: _Window, once: bool) -> Tensor:
        """(1, S, S, 3) -> what the network finds in it, (1, 1, S, S)."""
        picture = crop.movedim(-1, 1)
        top, bottom, left, right = window.photo
        photo = picture[..., top:bottom, left:right]
        shapes = [photo]
        if bottom - top != right - left and not once:
            beside = (left - window.left, window.left + window.side - right)
            above = (top - window.top, window.top + window.side - bottom)
            shapes.append(F.pad(photo, beside + above, mode="replicate"))
            shapes.append(picture[..., window.top : window.top + window.side, window.left : window.left + window.side])
        squares = torch.cat([_resized(shape, self.side, self.side, antialias=True) for shape in shapes])
        mask = _without_checkerboard(self.network(squares)[0])
        soft = ((mask - LOW) / RANGE).clamp(0, 1)
        size = picture.shape[-1]
        stretched = _placed(soft[:1], top, left, bottom - top, right - left, size)
        if len(soft) == 1:
            return stretched
        edged, white = (_placed(one, window.top, window.left, window.side, window.side, size) for one in soft[1:, None])
        return torch.maximum(torch.minimum(stretched, edged), torch.minimum(torch.maximum(stretched, edged), white))


@dataclass(frozen=True)
class _Window:
    """The photo's part of a crop, and the smallest square of the crop that holds it; in pixels, ends excluded."""

    photo: tuple[int, int, int, int]  # top, bottom, left, right
    top: int
    left: int
    side: int

    @classmethod
    def around(cls, valid: Tensor) -> _Window:
        """Of a mask (S, S) of the pixels inside the photo; all of the crop where there are none."""
        size = len(valid)
        spans = []
        for along in (1, 0):
            inside = (valid > 0.5).any(along).nonzero()[:, 0]
            spans.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, size))
        side = max(end - start for start, end in spans)

        def begin(start: int, end: int) -> int:
            """The square grows to both sides in proportion to the room there is."""
            room = start + size - end
            return start - round((side - (end - start)) * start / room) if room else start

        (top, bottom), (left, right) = spans
        return cls((top, bottom, left, right), begin(top, bottom), begin(left, right), side)


def _resized(picture: Tensor, height: int, width: int, antialias: bool = False) -> Tensor:
    if picture.shape[-2:] == (height, width):
        return picture
    return F.interpolate(picture, (height, width), mode="bilinear", antialias=antialias, align_corners=False)


def _placed(mask: Tensor, top: int, left: int, height: int, width: int, size: int) -> Tensor:
    """(1, 1, h, w) resized to a part of a crop of ``size``, zero around it."""
    mask = _resized(mask, height, width)
    return F.pad(mask, (left, size - left - width, top, size - top - height))


def _without_checkerboard(mask: Tensor) -> Tensor:
    """Average (..., H, W) over 2 x 2 pixels, twice: the network's last layer has a pattern of two pixels' period."""
    mask = F.pad(mask, (1, 1, 1, 1), mode="replicate")
    rows = mask[..., 2:, :] + 2 * mask[..., 1:-1, :] + mask[..., :-2, :]
    return (rows[..., 2:] + 2 * rows[..., 1:-1] + rows[..., :-2]) / 16


def face_mask(points: Tensor, size: int) -> Tensor:
    """(478, >= 2) crop units -> (size, size) in [0, 1]: the landmarks' convex hull, shrunk a little, edge softened."""
    coarse = max(16, size // 4)  # drawn small and enlarged: that softens the edge
    places = points[:, :2].detach().cpu().double().numpy()
    hull = convex_hull((places - places.mean(0)) * FACE_SHRINK + places.mean(0)) * coarse
    canvas = Image.new("L", (coarse, coarse))
    ImageDraw.Draw(canvas).polygon([(float(x) - 0.5, float(y) - 0.5) for x, y in hull], fill=255)
    mask = torch.from_numpy(np.array(canvas)).float()[None, None] / 255
    return F.interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)[0, 0]


def convex_hull(points: np.ndarray) -> np.ndarray:
    """(P, 2) -> (H, 2) corners in order: Andrew's monotone chain, on the points that can be corners."""
    ordered = sorted(map(tuple, _outer(points).tolist()))

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(kept) >= 2:
                (x1, y1), (x2, y2) = kept[-2:]
                if (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _outer(points: np.ndarray) -> np.ndarray:
    """(P, 2) without those that lie well inside the polygon of the outermost points in sixteen directions."""
    angles = np.arange(16) * (np.pi / 8)
    extreme = points[(points @ np.stack([np.cos(angles), np.sin(angles)])).argmax(0)]
    edge = np.roll(extreme, -1, 0) - extreme
    away = points[:, None] - extreme  # (P, 16, 2)
    depth = edge[:, 0] * away[..., 1] - edge[:, 1] * away[..., 0]
    return points[(depth <= 1e-9 * np.ptp(points, 0).max() ** 2).any(1)]


def _connected(soft: Tensor, face: Tensor) -> Tensor:
    """Factor in [0, 1] per pixel that removes what is reached from the face only through a fainter matte.

    Grey-scale reconstruction (Vincent 1993) by repeated dilation under the matte, on coarse cells.
    """
    size = soft.shape[-1]
    limit = F.adaptive_avg_pool2d(torch.maximum(soft, face), max(1, size // CELL))
    reached = torch.minimum(limit, F.adaptive_avg_pool2d(face, limit.shape[-1]))
    for _ in range(limit.shape[-1]):
        grown = torch.minimum(limit, F.max_pool2d(reached, 5, 1, 2))
        if torch.equal(grown, reached):
            break
        reached = grown
    factor = torch.where(limit > 1e-3, reached / limit.clamp_min(1e-3), torch.ones_like(limit))
    return F.interpolate(factor, size=(size, size), mode="bilinear", align_corners=False)
