"""From a photo or a video frame to ``Views``: detect, place 478 landmarks, cut the head crop, find its outline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.photo import report as verdicts
from ffavatar.photo.crop import head_crop, head_crop_box
from ffavatar.photo.detector import Detector
from ffavatar.photo.landmarks import Landmarker, LandmarkResult, region_of
from ffavatar.photo.matte import Matte
from ffavatar.photo.read import open_photo
from ffavatar.photo.report import PhotoReport
from ffavatar.types import Views

FaceChoice = Literal["largest"] | int
AROUND = 2.2  # side of what the landmarker is shown, in region sides: the region moves while it is refined
AROUND_STILL = 1.5  # where it does not: a turned square's diagonal, and a little
REGION_PX = 320  # larger faces are averaged down to about this before the landmarker sees them
MOST_FACES = 12  # that are looked at closely in one photo; crowds show many more
AGAIN = 1.0  # how far a chosen face that was lost may have gone, in parts of its size
FOLLOW_SHIFT = 0.5  # a face that jumps by more than this part of its size between frames is searched anew


@dataclass(frozen=True)
class PhotoResult:
    """A photo's report and, if it was kept, its one view. ``landmarks`` are in photo pixels, if a face was found."""

    report: PhotoReport
    views: Views | None
    landmarks: Float[Tensor, "478 3"] | None = None


class FrontEnd:
    """The networks of the photo front end on one device. Loading takes about a tenth of a second; keep it."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.detector = Detector().to(self.device)
        self.landmarker = Landmarker().to(self.device)
        self.matte = Matte().to(self.device)

    @torch.no_grad()
    def analyse(
        self, image: UInt8[np.ndarray, "H W 3"], name: str = "the photo", face: FaceChoice = "largest", size: int = 512
    ) -> PhotoResult:
        """Find a face, judge the photo, and make the view.

        image: (H, W, 3) uint8 sRGB, upright. face: "largest", or which one counted from the largest (0) down. size:
        side of the crop in pixels. Never raises for what the photo shows: the report says why it was refused. Raises
        InputError for an array of another shape or type.
        """
        _check(image, name)
        found = self.faces(image)
        if not found:
            return PhotoResult(self._nothing_found(image, name), None)
        index = 0 if face == "largest" else face
        if not 0 <= index < len(found):
            reason = f"{name}: there is no face {index}; the photo shows {len(found)}, counted from 0, the largest."
            return PhotoResult(PhotoReport(name, False, reason, faces=len(found)), None)
        return self.judge(image, found, name, index, size)

    @torch.no_grad()
    def judge(
        self, image: np.ndarray, found: list[LandmarkResult], name: str = "the photo", index: int = 0, size: int = 512
    ) -> PhotoResult:
        """The second half of ``analyse``, for one of the faces that ``faces`` found in the image."""
        others = [_width(other) for place, other in enumerate(found) if place != index]
        return self._judge(image, name, found[index], others, index, size)

    @torch.no_grad()
    def faces(self, image: UInt8[np.ndarray, "H W 3"]) -> list[LandmarkResult]:
        """Landmarks, in photo pixels, of every face of an (H, W, 3) uint8 photo that the landmarker confirms.

        The largest first; at most MOST_FACES.
        """
        for candidates in self.detector.search(Image.fromarray(image), verdicts.SMALLEST_FACE_PX):
            results = [self._landmarks(image, candidate.region()) for candidate in candidates[:MOST_FACES]]
            confirmed = [result for result in results if float(result.presence) >= verdicts.PRESENCE]
            if confirmed:
                return sorted(confirmed, key=_width, reverse=True)
        return []

    @torch.no_grad()
    def analyse_frame(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        previous: Float[Tensor, "478 3"] | None = None,
        name: str = "the frame",
        size: int = 512,
        face: FaceChoice = "largest",
    ) -> PhotoResult:
        """``analyse`` for video: follows the face from the landmarks of the frame before, without detection.

        previous: (478, 3) in frame pixels (``PhotoResult.landmarks``), or None for the first frame. The face is
        searched anew where it was lost: the largest, or, where another one was chosen by ``face``, the one nearest to
        where that was, which must not be further away than ``AGAIN`` of its widths. A face that is followed is not
        judged: its report has no sharpness, brightness, doubt or notes.
        """
        _check(image, name)
        if previous is not None:
            region = region_of(previous[None].float().cpu())
            result = self._landmarks(image, region, passes=1)
            moved = (result.region[0, :2] - region_of(result.points)[0, :2]).norm() / region[0, 2]
            if float(result.presence) >= verdicts.PRESENCE and float(moved) < FOLLOW_SHIFT:
                return self._judge(image, name, result, [], 0, size, film=True)
            if face != "largest":
                return self._nearest(image, previous, name, size)
        return self.analyse(image, name, face, size)

    def _nearest(self, image: np.ndarray, previous: Tensor, name: str, size: int) -> PhotoResult:
        """``analyse`` of the face nearest to where ``previous`` (478, 3) is: of several, widths tell nothing."""
        found, place = self.faces(image), region_of(previous[None].float().cpu())[0]
        apart = [float((region_of(other.points)[0, :2] - place[:2]).norm() / place[2]) for other in found]
        if not apart or min(apart) > AGAIN:
            reason = f"{name}: the chosen face was lost and is not near where it was."
            return PhotoResult(PhotoReport(name, False, reason, faces=len(found)), None)
        return self.judge(image, found, name, apart.index(min(apart)), size)

    def _window(self, image: np.ndarray, region: Tensor, still: bool = False) -> tuple[Tensor, Tensor, int]:
        """The surroundings of a region (1, 4): pixels (1, h, w, 3) on the device, their corner (4,) in the photo, and
        the whole number of photo pixels that each of them averages. ``still``: the region will not move."""
        height, width = image.shape[:2]
        x, y, side = (float(value) for value in region[0, :3])
        step = max(1, int(side / REGION_PX))
        reach = side * (AROUND_STILL if still and step == 1 else AROUND) / 2
        low = np.clip([x - reach, y - reach], 0, [width - 1, height - 1]).astype(int)
        high = np.clip(np.ceil([x + reach, y + reach]), low + 1, [width, height]).astype(int)
        part = image[low[1] : high[1], low[0] : high[0]]
        if step > 1:
            part = np.array(Image.fromarray(part).reduce(step))
        pixels = torch.tensor(part, device=self.device)[None].float().div_(255)
        return pixels, torch.tensor([low[0], low[1], 0.0, 0.0]), step

    def _landmarks(self, image: np.ndarray, region: Tensor, passes: int = 3) -> LandmarkResult:
        """Run the landmarker around a region (1, 4) only; everything in photo pixels, on the CPU."""
        pixels, corner, step = self._window(image, region, still=passes == 1)
        scale = torch.tensor([step, step, step, 1.0])
        found = self.landmarker(pixels, ((region - corner) / scale).to(self.device), passes)
        points = found.points.cpu() * step + corner[:3]
        return LandmarkResult(
            points, found.presence.cpu(), found.blendshapes.cpu(), found.region.cpu() * scale + corner
        )

    def _doubt(self, image: np.ndarray, points: Tensor) -> float:
        """``Landmarker.doubt`` of one face, points (1, 478, 3) in photo pixels."""
        pixels, corner, step = self._window(image, region_of(points))
        return float(self.landmarker.doubt(pixels, ((points - corner[:3]) / step).to(self.device)))

    def _nothing_found(self, image: np.ndarray, name: str) -> PhotoReport:
        """The refusal of a photo without a face; looks whether turning it would show one."""
        advice = "use a photo that shows one from the front, not too small"
        for turns, words in ((1, "clockwise"), (3, "anticlockwise"), (2, "upside down")):
            turned = np.ascontiguousarray(np.rot90(image, -turns))
            for face in next(self.detector.search(Image.fromarray(turned), float("inf")), [])[:1]:
                result = self._landmarks(turned, face.region())
                upright = abs(verdicts.head_angles_deg(result.points[0])[2]) < 45
                if upright and float(result.presence) >= verdicts.PRESENCE:
                    advice = f"turn the photo {'by 90 degrees ' if turns != 2 else ''}{words}"
                    return PhotoReport(name, False, f"{name}: no upright face was found; {advice}.")
        return PhotoReport(name, False, f"{name}: no face was found; {advice}.")

    def _judge(
        self, image: np.ndarray, name: str, result: LandmarkResult, others: list[float], index: int, size: int,
        film: bool = False,
    ) -> PhotoResult:  # fmt: skip
        points, presence = result.points[0], float(result.presence)
        face_box = verdicts.as_box(points)
        width_px = face_box[2] - face_box[0]
        angles = verdicts.head_angles_deg(points)
        sharp, bright, doubt = 0.0, 0.0, 0.0
        if not film:
            sharp, bright = verdicts.sharpness_and_brightness(image, face_box)
            doubt = self._doubt(image, result.points)
        # a film is read as it comes: a blurred or turned frame is better than a frozen one
        reason = "" if film else verdicts.refusal(name, width_px, angles, sharp, doubt)
        box = head_crop_box(points)
        summary = PhotoReport(
            name, not reason, reason, (), 1 + len(others), index, face_box, (box.left, box.top, box.side), width_px,
            presence, *angles, sharp, bright, doubt,
        )  # fmt: skip
        if reason:
            return PhotoResult(summary, None, points)
        crop, valid = head_crop(image, box, size)
        crop, valid = crop[None].to(self.device), valid[None].to(self.device)
        landmarks = box.to_crop(points)[None].to(self.device)
        matte = self.matte(crop, valid, landmarks, once=film)
        notes = [] if film else verdicts.remarks(summary, others, clipped=1 - float(valid.mean()))
        views = Views(crop, matte, valid, landmarks, result.blendshapes.to(self.device))
        return PhotoResult(replace(summary, notes=tuple(notes)), views, points)


def load_views(
    paths: Iterable[str | Path],
    size: int = 512,
    face: FaceChoice = "largest",
    device: torch.device | str = "cpu",
    front_end: FrontEnd | None = None,
) -> tuple[Views, list[PhotoReport]]:
    """Views of all usable photos, in the order given, and one report per photo.

    Raises InputError if a file cannot be read, or if none of the photos can be used (then with the reasons).
    """
    front_end = front_end or FrontEnd(device)
    reports: list[PhotoReport] = []
    views: list[Views] = []
    for path in paths:
        photo = open_photo(path)
        result = front_end.analyse(photo.image, photo.name, face, size)
        reading = tuple(f"Note that {note}." for note in photo.notes)
        reports.append(replace(result.report, notes=reading + result.report.notes))
        if result.views is not None:
            views.append(result.views)
    if not views:
        if not reports:
            raise InputError("No photos were given: name at least one.")
        raise InputError(
            " ".join(["None of the photos can be used."] * (len(reports) > 1) + [r.reason for r in reports])
        )
    return Views.cat(views), reports


def _width(result: LandmarkResult) -> float:
    return float(result.points[0, :, 0].max() - result.points[0, :, 0].min())


def _check(image: np.ndarray, name: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{name} is an array of {image.dtype} {image.shape}: give (H, W, 3) uint8 sRGB.")
