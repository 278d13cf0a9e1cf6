"""Ava-256 as downloaded (Martinez et al., NeurIPS 2024): ``CAPTURE/decoder/`` with zips of AVIF pictures.

Layout, as its own loader reads it: ``camera_calibration.json`` with ``KRT`` (``K`` and ``T`` stored transposed, T from
world to camera in millimetres, K for pictures of 2668 x 4096 px), ``frame_list.csv`` (``seg_id,frame_id``),
``image/camID.zip`` (``camID/FRAME.avif``), ``segmentation_parts/camID.zip`` (``camID/FRAME.png``, labels) and
``head_pose/head_pose.zip`` (``FRAME.txt``, 3 x 4, head to world). Pictures may be smaller than calibrated for.
A camera's ``distortion`` (with ``distortionModel``), where it is there and not zero, is taken out of the pictures
unless that is switched off; the authors' loader takes the pictures as they are.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ffavatar.data.captures.geometry import resized_intrinsics
from ffavatar.data.captures.lens import read_coefficients, undistorted
from ffavatar.data.captures.shots import Moment, Shot
from ffavatar.errors import InputError

CALIBRATED_PX = (2668, 4096)  # width, height
MILLIMETRES = 1000.0
PERSON = (1, 2, 4, 5, 6, 7, 8, 9, 10)  # labels: hair, body, apparel, lenses, mouth; 0 is background, 3 the chair
# Segments without the head as it is: the colour checker, and hair in motion or held away.
LEFT_OUT = (
    "EXP_Neutral_color_checker", "EXP_hair_dynamics_no_hand_interaction", "EXP_hair_dynamics_hand_interaction",
    "EXP_neutral_hairline", "EXP_ear",
)  # fmt: skip
REFERENCE_FRAMES = 3  # of which the head's place in the capture's head frame is averaged


def list_captures(root: Path) -> list[str]:
    """Names of the captures (``mcd--mct--sid``) below a download's folder, sorted.

    Raises ``InputError`` where there is none.
    """
    found = sorted(p.parent.parent.name for p in root.glob("*/decoder/camera_calibration.json"))
    if not found:
        raise InputError(f"{root} holds no Ava-256 capture (CAPTURE/decoder/camera_calibration.json); give its folder.")
    return found


class AvaCapture:
    """One capture. Raises ``InputError`` where its calibration or frame list cannot be read."""

    def __init__(self, folder: Path, undistort: bool = True):
        self.folder = folder
        try:
            rows = json.loads((folder / "camera_calibration.json").read_text(encoding="utf-8"))["KRT"]
            self.cameras = {str(row["cameraId"]): _camera(row) for row in rows}
            self.lenses = {
                str(row["cameraId"]): read_coefficients(row.get("distortion"), row.get("distortionModel"))
                for row in rows
                if undistort
            }
            with (folder / "frame_list.csv").open(newline="", encoding="utf-8") as file:
                self.frames = [
                    (row["seg_id"], int(row["frame_id"]))
                    for row in csv.DictReader(file)
                    if row["seg_id"] not in LEFT_OUT
                ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder} is no readable Ava-256 capture ({error!r}); download it again.") from error
        if not self.frames or not self.cameras:
            raise InputError(f"{folder} lists no frames or no cameras; download it again.")

    def chosen_frames(self, count: int) -> list[tuple[str, int]]:
        """``count`` frames evenly spread over the list."""
        index = np.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().astype(int)
        return [self.frames[k] for k in index]

    def moments(self, frames: int, cameras: Sequence[str], refused: Counter[str]) -> list[Moment]:
        """The pictures of evenly spread frames in the capture's head frame: one moment, for head motion is taken out.

        ``cameras``: ids; those that the capture lacks are left out. Missing pictures and poses are counted in
        ``refused`` (about one in a thousand is).
        """
        chosen = self.chosen_frames(frames)
        poses = self._poses([frame for _, frame in chosen])
        shots: list[Shot] = []
        for camera in cameras:
            if camera not in self.cameras:
                continue
            pictures = _members(self.folder / "image" / f"cam{camera}.zip", f"cam{camera}/", ".avif", chosen)
            parts = _members(self.folder / "segmentation_parts" / f"cam{camera}.zip", f"cam{camera}/", ".png", chosen)
            for segment, frame in chosen:
                image, labels = _decoded(pictures.get(frame)), _decoded(parts.get(frame))
                if image is None or image.ndim != 3 or frame not in poses:
                    refused["a picture is missing" if frame in poses else "a head pose is missing"] += 1
                    continue
                K, world_to_cam = self.cameras[camera]
                size = (image.shape[1], image.shape[0])
                K, lens, mask = resized_intrinsics(K, CALIBRATED_PX, size), self.lenses.get(camera), _mask(labels, size)
                image = undistorted(image, K, lens)
                mask = None if mask is None else undistorted(mask, K, lens)
                shots.append(Shot(camera, segment, frame, image, mask, K, world_to_cam @ poses[frame]))
        instants = [[s for s in shots if s.frame == frame] for _, frame in chosen]
        reference = sorted(instants, key=len, reverse=True)[:REFERENCE_FRAMES]
        return [Moment(shots, reference)] if shots else []

    def _poses(self, frames: Sequence[int]) -> dict[int, np.ndarray]:
        """(4, 4) from the capture's head frame to its world, metres, of the frames that have one."""
        poses = {}
        for frame, data in _members(
            self.folder / "head_pose" / "head_pose.zip", "", ".txt", [("", frame) for frame in frames]
        ).items():
            try:
                values = np.loadtxt(io.BytesIO(data), dtype=np.float64).reshape(3, 4)
            except ValueError:
                continue  # counted as missing by the caller
            poses[frame] = np.eye(4)
            poses[frame][:3] = values
            poses[frame][:3, 3] /= MILLIMETRES
        return poses


def _camera(row: dict) -> tuple[np.ndarray, np.ndarray]:
    K = np.array(row["K"], np.float64).T
    T = np.array(row["T"], np.float64).T
    if K.shape != (3, 3) or T.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"camera {row['cameraId']} has K {K.shape} and T {T.shape}")
    if abs(K[2, 2] - 1) > 1e-6 or abs(K[2, :2]).max() > 1e-6:
        raise ValueError(f"camera {row['cameraId']}: K is not stored transposed")
    world_to_cam = np.eye(4)
    world_to_cam[:3] = T[:3]
    world_to_cam[:3, 3] /= MILLIMETRES
    return K, world_to_cam


def _members(archive: Path, prefix: str, suffix: str, frames: Sequence[tuple[str, int]]) -> dict[int, bytes]:
    """The bytes of the frames that an archive holds, read in the archive's own order."""
    wanted = {f"{prefix}{frame:06d}{suffix}": frame for _, frame in frames}
    found = {}
    try:
        with zipfile.ZipFile(archive) as file:
            for info in sorted(file.infolist(), key=lambda info: info.header_offset):
                if info.filename in wanted:
                    try:
                        found[wanted[info.filename]] = file.read(info)
                    except (zipfile.BadZipFile, EOFError, OSError):
                        continue  # one damaged member is one missing picture
    except (OSError, zipfile.BadZipFile):
        return {}
    return found


def _decoded(data: bytes | None) -> np.ndarray | None:
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.array(picture if picture.mode in ("L", "P") else picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def _mask(labels: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
    """The person without the chair, at the picture's size."""
    if labels is None or labels.ndim != 2:
        return None
    person = Image.fromarray(np.isin(labels, PERSON).astype(np.uint8) * 255)
    return np.array(person if person.size == size else person.resize(size, Image.Resampling.BILINEAR))
