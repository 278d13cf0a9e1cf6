"""The face landmarker: 478 points, presence and 52 blendshapes from pictures, batched and differentiable.

A *region* is a turned square (centre x, centre y, side, angle): pixels from the picture's top left corner (pixel
centres at +0.5), and radians, positive when the face's own x axis points downwards in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ffavatar.photo.blendshapes import BlendshapeMixer
from ffavatar.photo.graph import Graph
from ffavatar.photo.records import LANDMARKS

POINTS = 478  # 0 to 467 the face mesh, 468 to 472 the person's right iris (seen left), 473 to 477 the other
EYE_CORNERS = (33, 263)  # outer corners, the one seen on the left first: they give the region's angle
REGION_SCALE = 1.5  # region side over the longer side of the landmarks' box, as the network was trained
CROP_SCALE, CROP_RAISE = 2.1, 0.04  # the head crop (docs/conventions.md); here to find the face in one
NUDGES = ((0.0, 0.0, 1.25, 0.0), (0.06, 0.04, 0.9, 0.15), (-0.06, -0.04, 1.1, -0.15))  # see Landmarker.doubt
PARTS = (tuple(range(468)), (61, 291, 0, 17, 13, 14), (33, 133, 159, 145), (263, 362, 386, 374))  # all, mouth, eyes
LARGEST_STEP = 2.0  # source pixels per network pixel beyond which the picture is averaged down first


@dataclass(frozen=True)
class LandmarkResult:
    """What the landmarker says about each picture of a batch."""

    points: Float[
        Tensor, "B 478 3"
    ]  # pixels; x, y from the top left corner, z relative depth in the same unit, + is away
    presence: Float[Tensor, " B"]  # in [0, 1]: is this a face, and in the region?
    blendshapes: Float[Tensor, "B 52"]  # in [0, 1], in the order of blendshapes.BLENDSHAPE_NAMES
    region: Float[Tensor, "B 4"]  # the region of the last pass


class Landmarker(nn.Module):
    """MediaPipe's face landmarker v2 in plain torch. Weights are frozen; gradients reach the pictures.

    One pass reads a 256 px square cut from the picture, turned so that the eyes are level. A region that comes from a
    detector is only roughly right, so the network is run ``passes`` times, each on the region its last points give.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = Graph(LANDMARKS)
        self.mixer = BlendshapeMixer()
        self.side = self.network.size[0]
        self.eval()

    def forward(self, images: Tensor, roi: Tensor | None = None, passes: int = 3) -> LandmarkResult:
        """Points of one face in each picture.

        images: (B, H, W, 3) in [0, 1]; roi: (B, 4) regions, or None where the pictures are head crops as in
        docs/conventions.md. Only the last of the ``passes`` is differentiable; the region counts as a constant.
        """
        region = crop_region(images) if roi is None else roi.to(images)
        for _ in range(passes - 1):
            with torch.no_grad():
                points, _ = self._points(images, region)
                region = region_of(points)
        points, presence = self._points(images, region)
        upright = turn(points, -region[:, 3])  # the mixer expects a head without roll
        return LandmarkResult(points, presence, self.mixer(upright), region)

    def track(self, images: Tensor, previous: Tensor) -> LandmarkResult:
        """One pass that starts from the points of the frame before. images: (B, H, W, 3); previous: (B, 478, 3)."""
        return self(images, region_of(previous.detach()), passes=1)

    @torch.no_grad()
    def doubt(self, images: Tensor, points: Tensor) -> Tensor:
        """How far the points move, as a part of the face's size, when the region is nudged, scaled and turned.

        images: (B, H, W, 3); points: (B, 478, 3). Returns (B,): the worst of whole face, mouth and either eye. Clear
        faces give 0.006 to 0.022, faces with a hidden part mostly more (docs/photo.md); presence stays near 1 there.
        """
        region = region_of(points)
        moved = []
        for right, down, scale, angle in NUDGES:
            side = region[:, 2]
            nudged = [region[:, 0] + right * side, region[:, 1] + down * side, side * scale, region[:, 3] + angle]
            again, _ = self._points(images, torch.stack(nudged, -1))
            moved.append((again - points)[..., :2].norm(dim=-1))
        mean = torch.stack(moved).mean(0) / (region[:, 2:3] / REGION_SCALE)
        return torch.stack([mean[:, list(part)].mean(-1) for part in PARTS]).amax(0)

    def _points(self, images: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        square = cut(images.movedim(-1, 1), region, self.side)
        raw, presence, _tongue = self.network(square)
        points = raw.reshape(-1, POINTS, 3) / self.side  # x, y in [0, 1] of the square, z in the same unit
        scale = region[:, 2, None]
        centred = torch.cat([points[..., :2] - 0.5, points[..., 2:]], -1) * scale[..., None]
        placed = turn(centred, region[:, 3])
        shift = F.pad(region[:, :2], (0, 1))
        return placed + shift[:, None], torch.sigmoid(presence.reshape(-1))


def turn(points: Tensor, angle: Tensor) -> Tensor:
    """Turn points in the picture plane about the origin. (B, P, 3), (B,) radians -> (B, P, 3); z stays."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y, z = points.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], -1)


def region_of(points: Tensor) -> Tensor:
    """The region whose upright square holds the points 1.5 times. (B, 478, 3) pixels -> (B, 4)."""
    left, right = points[:, EYE_CORNERS[0]], points[:, EYE_CORNERS[1]]
    angle = torch.atan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0])
    upright = turn(points, -angle)[..., :2]
    low, high = upright.amin(1), upright.amax(1)
    centre = turn(F.pad((low + high) / 2, (0, 1))[:, None], angle)[:, 0, :2]
    side = (high - low).amax(-1) * REGION_SCALE
    return torch.cat([centre, side[:, None], angle[:, None]], -1)


def crop_region(images: Tensor) -> Tensor:
    """Where the face is in head crops: (B, H, W, 3) -> (B, 4)."""
    height, width = images.shape[1:3]
    region = [width / 2, height / 2 + CROP_RAISE * height, height * REGION_SCALE / CROP_SCALE, 0.0]
    return torch.tensor(region, device=images.device, dtype=images.dtype).expand(images.shape[0], 4)


def cut(images: Tensor, region: Tensor, side: int) -> Tensor:
    """Sample turned squares: (B, C, H, W), (B, 4) -> (B, C, side, side). Bilinear; edge pixels continue outside.

    Pictures much larger than the square are averaged down by a whole number first, against aliasing.
    """
    step = int(region[:, 2].detach().amin().item() / side / LARGEST_STEP + 0.5)
    if step >= 2:
        images = F.avg_pool2d(images, step, ceil_mode=True, count_include_pad=False)
        region = torch.cat([region[:, :3] / step, region[:, 3:]], -1)
    height, width = images.shape[2:]
    axis = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side - 0.5
    # a turned plane is the sum of a row and a column: (B, 1, side) + (B, side, 1)
    along, across = (axis * (region[:, 2] * f(region[:, 3]))[:, None] for f in (torch.cos, torch.sin))
    x = (along + region[:, 0, None])[:, None, :] - across[:, :, None]
    y = (along + region[:, 1, None])[:, :, None] + across[:, None, :]
    grid = torch.stack([x * (2 / width) - 1, y * (2 / height) - 1], -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
