"""Where the head is in the driver's picture, and the camera that shows the avatar there.

The estimator sees each frame through its own head crop, which follows the face. To let the avatar move as the head did,
it is shown through a *window* on the driver's picture that stays, or follows slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from ffavatar.geometry import NORMALISED_FOCAL
from ffavatar.types import Camera, HeadParams


@dataclass(frozen=True)
class Box:
    """A part of a picture in pixels, possibly beyond its edges."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    @staticmethod
    def square(centre: tuple[float, float], side: float) -> Box:
        return Box(centre[0] - side / 2, centre[1] - side / 2, side, side)


class SteadyWindow:
    """A square window that follows the head crops like a calm camera operator.

    Centre and (log) side approach the crop's with the time constant ``follow_s``; where the head leaves the middle by
    more than ``leash`` of the side the window keeps up, and at a cut (a jump by half a side, or a change of size by
    1.5) it starts anew.
    """

    def __init__(self, fps: float, follow_s: float = 1.5, leash: float = 0.2) -> None:
        self._part = 1 - math.exp(-1 / (fps * follow_s))
        self._leash = leash
        self._window: Box | None = None

    def follow(self, crop: Box) -> Box:
        """The window for the next frame."""
        old = self._window
        if old is None or is_cut(old, crop):
            self._window = crop
            return crop
        side = math.exp(math.log(old.width) + self._part * math.log(crop.width / old.width))
        centre = []
        for was, now in zip(old.centre, crop.centre):
            nearer = was + self._part * (now - was)
            limit = self._leash * side
            centre.append(min(max(nearer, now - limit), now + limit))
        self._window = Box.square((centre[0], centre[1]), side)
        return self._window


def is_cut(old: Box, crop: Box) -> bool:
    """Whether the head jumps by half a side, or changes its size by 1.5, as it does where a film is cut."""
    moved = max(abs(a - b) for a, b in zip(old.centre, crop.centre))
    return moved > 0.5 * old.width or not 1 / 1.5 < crop.width / old.width < 1.5


def window_camera(crops: list[Box], windows: list[Box], width: int, height: int) -> Camera:
    """Cameras that show, in a ``width`` x ``height`` picture of ``windows[i]``, what crop i showed in its own picture.

    The normalised camera of a crop maps to the driver's pixels by scale and shift; so does a window. Exact, no
    re-estimation: only the intrinsics change.
    """
    rows = []
    for crop, window in zip(crops, windows, strict=True):
        across, down = width / window.width, height / window.height
        focal = NORMALISED_FOCAL * crop.width
        x, y = crop.centre
        rows.append(
            [[focal * across, 0, (x - window.left) * across], [0, focal * down, (y - window.top) * down], [0, 0, 1]]
        )
    world_to_cam = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).expand(len(rows), 4, 4)
    return Camera(world_to_cam, torch.tensor(rows, dtype=torch.float32), width, height)


def to_window(params: HeadParams, crops: list[Box], windows: list[Box]) -> HeadParams:
    """Move the heads so that the *normalised* camera of the windows shows them where the crops did.

    Depth goes with the ratio of the sides, the lateral position with the shift; rotations stay. Exact at the root, to
    first order around it: good while windows follow their crops.
    """
    moved = []
    for (x, y, z), crop, window in zip(params.translation.tolist(), crops, windows, strict=True):
        depth = -z * window.width / crop.width
        u = (0.5 + NORMALISED_FOCAL * x / -z) * crop.width + crop.left  # driver's pixels
        v = (0.5 - NORMALISED_FOCAL * y / -z) * crop.height + crop.top
        at_x = ((u - window.left) / window.width - 0.5) * depth / NORMALISED_FOCAL
        at_y = -((v - window.top) / window.height - 0.5) * depth / NORMALISED_FOCAL
        moved.append([at_x, at_y, -depth])
    values = {f.name: getattr(params, f.name) for f in fields(HeadParams)}
    return HeadParams(**values | {"translation": torch.tensor(moved, dtype=torch.float32)})
