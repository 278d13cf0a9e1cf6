"""What was found in a photo, and whether it can be used: measurements, thresholds and the sentence for the user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ffavatar.photo.crop import CropBox, cut_square

PRESENCE = 0.5  # the landmarker's own "this is a face"
SMALLEST_FACE_PX = 64.0  # width of the landmarks' box
LARGEST_YAW_DEG = 65.0  # beyond, the landmarker invents the hidden half
LARGEST_ROLL_DEG = 60.0  # beyond, the photo lies on its side
SHARPNESS_SIDE = 128  # the face is resampled to this before its sharpness is measured
BLURRED, SOFT = 10.0, 40.0  # see sharpness_and_brightness; 112 clear pictures: 53 to 900
DRAWN = 2000.0  # sharper than any photographed face: line drawings, halftone, strong noise
HIDDEN, DOUBTFUL = 0.03, 0.02  # Landmarker.doubt
DARK, BRIGHT = 45.0, 225.0  # mean grey level of the face
CHOOSES = "the option face chooses who is meant"
COMPARABLE = 0.6  # of the chosen face's width: from here another face counts as a second person


@dataclass(frozen=True)
class PhotoReport:
    """One photo's verdict. Lengths in pixels of the upright photo, angles in degrees."""

    name: str
    kept: bool
    reason: str  # why the photo was refused, one sentence with the remedy; empty if kept
    notes: tuple[str, ...] = ()  # sentences worth knowing about a kept photo
    faces: int = 0
    chosen: int = -1  # which face, counted from the largest
    face_box: tuple[float, float, float, float] | None = None  # left, top, right, bottom of the landmarks
    crop_box: tuple[float, float, float] | None = None  # left, top, side
    face_width_px: float = 0.0
    presence: float = 0.0
    yaw_deg: float = 0.0  # positive: the face turns towards its own left, the right of the picture
    pitch_deg: float = 0.0  # positive: the face looks down
    roll_deg: float = 0.0  # positive: the head leans clockwise in the picture
    # not measured of a face that is followed through a film:
    sharpness: float = 0.0  # see sharpness_and_brightness
    brightness: float = 0.0  # mean grey level of the face, 0 to 255
    doubt: float = 0.0  # see Landmarker.doubt

    def __str__(self) -> str:
        if not self.kept:
            return self.reason
        return " ".join(
            [f"{self.name}: used (face {self.face_width_px:.0f} px, yaw {self.yaw_deg:+.0f}).", *self.notes]
        )


def head_angles_deg(points: Tensor) -> tuple[float, float, float]:
    """Yaw, pitch, roll of (478, 3) landmarks by the axes cheek to cheek and forehead to chin (z in pixels).

    A weak-perspective estimate, good to several degrees; the estimator of the model is the precise one.
    """
    across = (points[454] - points[234]).double().numpy()  # the person's right cheek to the left one: picture's right
    down = (points[152] - points[10]).double().numpy()
    forward = np.cross(down, across)
    forward /= np.linalg.norm(forward) + 1e-12  # towards the camera is -z
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    pitch = np.degrees(np.arcsin(np.clip(forward[1], -1, 1)))
    corners = (points[263] - points[33]).numpy()
    return float(yaw), float(pitch), float(np.degrees(np.arctan2(corners[1], corners[0])))


def sharpness_and_brightness(photo: np.ndarray, box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Sharpness and mean grey level of the face resampled to a fixed size.

    Sharpness is 1000 x variance of the Laplacian / variance of the grey levels. Resampling makes it mean the same for
    near and far faces (a small face enlarged is as blurred as it looks), the division for bright and dark ones.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    square = CropBox((left + right - side) / 2, (top + bottom - side) / 2, side)
    grey = np.asarray(Image.fromarray(cut_square(photo, square, SHARPNESS_SIDE)).convert("L"), np.float32)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    middle = slice(SHARPNESS_SIDE // 5, -SHARPNESS_SIDE // 5)
    seen = inner[middle, middle]
    return float(1000 * laplacian[middle, middle].var() / (seen.var() + 4.0)), float(seen.mean())


def refusal(name: str, width_px: float, angles: tuple[float, float, float], sharp: float, doubt: float) -> str:
    """The sentence that refuses a photo for its chosen face, or an empty string. Units as in PhotoReport."""
    yaw, _, roll = angles
    if abs(roll) > LARGEST_ROLL_DEG:
        return f"{name}: the head lies on its side ({roll:+.0f} degrees); turn the photo upright."
    if width_px < SMALLEST_FACE_PX:
        return (
            f"{name}: the face is too small ({width_px:.0f} px wide, at least {SMALLEST_FACE_PX:.0f} are needed); "
            "use a closer or larger photo."
        )
    if abs(yaw) > LARGEST_YAW_DEG:
        return f"{name}: the face is in profile (yaw {yaw:+.0f} degrees); use one that looks more towards the camera."
    if sharp > DRAWN:
        return f"{name}: the face looks drawn, printed or very noisy; use a clean photo of a real face."
    if sharp < BLURRED:
        return f"{name}: the face is blurred (sharpness {sharp:.0f}, at least {BLURRED:.0f}); use a sharper photo."
    if doubt > HIDDEN:
        return f"{name}: a large part of the face is hidden or unclear; use a photo that shows all of it."
    return ""


def remarks(report: PhotoReport, other_widths: list[float], clipped: float) -> list[str]:
    """Sentences about a kept photo's weaknesses. ``clipped``: part of the crop that lies outside the photo."""
    notes, sharp, brightness, width_px = [], report.sharpness, report.brightness, report.face_width_px
    if report.doubt > DOUBTFUL:
        notes.append("Part of the face may be hidden.")
    if any(other >= COMPARABLE * width_px for other in other_widths):
        notes.append(f"Another person is in the photo; {CHOOSES}.")
    if sharp < SOFT:
        notes.append("The face is rather soft.")
    if brightness < DARK:
        notes.append("The face is dark.")
    if brightness > BRIGHT:
        notes.append("The face is overexposed.")
    if clipped > 0.35:
        notes.append("The photo ends close to the face, so hair or neck are missing.")
    return notes


def as_box(points: Tensor) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of (P, >= 2) points."""
    low, high = torch.aminmax(points[:, :2], dim=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
