"""From calibrated pictures to head crops whose cameras are known in our head space.

Every capture has its own axes. The head's place in them is found from the head itself: face landmarks of the pictures
that show the face are triangulated, and the embedded head's landmarks are laid on them rigidly. World space of a sample
is then head space: +x the person's left, +y up, +z out of the face, metres; cameras are OpenCV.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ffavatar.data.captures.geometry import cropped_intrinsics, project, rigid_align, triangulate
from ffavatar.data.people import front_end
from ffavatar.data.shards import PersonSample
from ffavatar.head import load_head
from ffavatar.photo.crop import cut_square, head_crop_box, valid_mask
from ffavatar.photo.report import PRESENCE

BLENDSHAPES = 52
CHEEK_RIGHT, CHEEK_LEFT = 234, 454  # the points at the widest part of the face
MESH_POINTS = 468  # irises follow the gaze
LARGEST_ERROR = 0.03  # of the face's width: a view whose landmarks lie farther from the others' is left out
FARTHEST_READ = 0.15  # of the face's width: mean distance of a crop's own landmarks from where the head is known to be
LARGEST_MISFIT_M = 0.015  # mean distance of triangulated landmarks and the embedded head's: faces differ by half

Find = Callable[[np.ndarray, str], np.ndarray | None]
"""(picture (H, W, 3) uint8, its name) -> landmarks (478, 2) in its pixels, or None."""
Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray] | None]
"""Crop (S, S, 3) uint8 -> landmarks (478, 3) crop units and blendshapes (52,), or None where no face is seen."""
Matter = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(crop (S, S, 3) uint8, valid (S, S) bool, landmarks (478, 2) crop units) -> matte (S, S) uint8."""


@dataclass(frozen=True)
class Shot:
    """One picture of a calibrated camera. ``world_to_cam`` (4, 4) is in metres, in any frame of the capture."""

    camera: str
    sequence: str
    frame: int
    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray | None  # (H, W) uint8, the person; None where the capture has none
    K: np.ndarray  # (3, 3) pixels
    world_to_cam: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.sequence}/{self.camera}/{self.frame}"


def find_with_front_end(image: np.ndarray, name: str) -> np.ndarray | None:
    """The photo front end's landmarks, of photos that it would use."""
    result = front_end().analyse(image, name)
    if result.views is None or result.landmarks is None:
        return None
    return result.landmarks[:, :2].double().numpy()


def read_with_front_end(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The landmarker's reading of a head crop."""
    with torch.no_grad():
        seen = front_end().landmarker(torch.from_numpy(crop).float()[None] / 255)
    if float(seen.presence) < PRESENCE:
        return None
    return (seen.points[0] / crop.shape[0]).numpy(), seen.blendshapes[0].numpy()


def matte_with_front_end(crop: np.ndarray, valid: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The matte net's matte of a head crop."""
    with torch.no_grad():
        matte = front_end().matte(
            torch.from_numpy(crop).float()[None] / 255,
            torch.from_numpy(valid).float()[None],
            torch.from_numpy(landmarks).float()[None],
        )
    return (matte[0] * 255).round().to(torch.uint8).numpy()


@lru_cache(maxsize=1)
def neutral_landmarks() -> np.ndarray:
    """(478, 3) landmarks of the resting embedded head, metres, head space."""
    head = load_head()
    return head.landmarks(head.v_template[None])[0].double().numpy()


def triangulated_landmarks(shots: Sequence[Shot], find: Find) -> np.ndarray | None:
    """(478, 3) landmarks of one moment in the shots' frame; None where fewer than two views agree on them."""
    seen = [(shot, points) for shot in shots if (points := find(shot.image, shot.name)) is not None]
    while len(seen) >= 2:
        cameras = [shot for shot, _ in seen]
        K, world_to_cam = np.stack([s.K for s in cameras]), np.stack([s.world_to_cam for s in cameras])
        points = triangulate(np.stack([p for _, p in seen]), K, world_to_cam)
        errors = []
        for shot, found in seen:
            again, depth = project(points, shot.K, shot.world_to_cam)
            width = np.ptp(found[:, 0])
            wrong = np.linalg.norm(again - found, axis=1).mean() / width
            errors.append(np.inf if not (depth > 0).all() else wrong)
        worst = int(np.argmax(errors))
        if errors[worst] <= LARGEST_ERROR:
            return points
        del seen[worst]
    return None


def head_to_world(points: np.ndarray) -> np.ndarray | None:
    """(4, 4) from our head space to the frame of triangulated landmarks (478, 3); None where they are no such face."""
    neutral = neutral_landmarks()
    transform = rigid_align(neutral[:MESH_POINTS], points[:MESH_POINTS])
    moved = neutral @ transform[:3, :3].T + transform[:3, 3]
    misfit = np.linalg.norm(moved - points, axis=1)[:MESH_POINTS].mean()
    return transform if misfit <= LARGEST_MISFIT_M else None


@dataclass(frozen=True)
class Moment:
    """Shots that share one place of the head: one instant, or many where the capture has taken head motion out."""

    shots: Sequence[Shot]
    reference: Sequence[Sequence[Shot]]  # instants among them, of which landmarks are triangulated and averaged


def capture_sample(
    key: str,
    moments: Sequence[Moment],
    size: int,
    notes: dict[str, Any],
    find: Find = find_with_front_end,
    matte: Matter = matte_with_front_end,
    read: Read = read_with_front_end,
) -> tuple[PersonSample | None, Counter[str]]:
    """All moments' shots as head crops in head space, and why some were left out.

    Arrays: ``K`` (P, 3, 3) pixels of the crop, ``world_to_cam`` (P, 4, 4) from head space, ``camera``, ``sequence``,
    ``frame``; ``detected`` (P,) whether the landmarker sees the face where the head is known to be, and of these its
    ``landmarks`` (P, 478, 3) crop units and ``blendshapes`` (P, 52), which tell this picture's expression. Of the
    others, from behind too, the landmarks are projected and the blendshapes zero.
    """
    rows: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    for moment in moments:
        found = [p for shots in moment.reference if (p := triangulated_landmarks(shots, find)) is not None]
        points = np.median(np.stack(found), 0) if found else None
        place = None if points is None else head_to_world(points)
        if points is None or place is None:
            refused["the face was not found alike by two cameras"] += len(moment.shots)
            continue
        local = (points - place[:3, 3]) @ place[:3, :3]
        for shot in moment.shots:
            row = _crop(shot, shot.world_to_cam @ place, local, size, matte, read)
            if row is None:
                refused["the head is behind the camera or out of the picture"] += 1
            else:
                rows.append(row)
    if not rows:
        return None, refused
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    images, mattes, valid = (columns.pop(name) for name in ("image", "matte", "valid"))
    return PersonSample(key, images, mattes, valid, columns, (), notes), refused


def _crop(
    shot: Shot, world_to_cam: np.ndarray, points: np.ndarray, size: int, matte: Matter, read: Read
) -> dict[str, Any] | None:
    pixels, depth = project(points, shot.K, world_to_cam)
    if not (depth > 0.05).all():
        return None
    box = head_crop_box(torch.from_numpy(pixels))
    height, width = shot.image.shape[:2]
    valid = valid_mask((width, height), box, size)
    if valid.mean() < 0.25:
        return None
    image = cut_square(shot.image, box, size)
    image[~valid] = 255
    places = (pixels - [box.left, box.top]) / box.side
    if shot.mask is None:
        alpha = matte(image, valid, places)
    else:
        alpha = cut_square(np.repeat(shot.mask[..., None], 3, 2), box, size)[..., 0]
    mean = depth.mean()
    away = shot.K[0, 0] * (depth - mean) / mean / box.side
    projected = np.concatenate([places, away[:, None]], 1)
    seen = read(image)
    if seen is not None and _distance(seen[0], projected) > FARTHEST_READ:
        seen = None  # a face elsewhere, or none: landmarkers see faces in the backs of heads
    landmarks, scores = (projected, np.zeros(BLENDSHAPES)) if seen is None else seen
    return {
        "image": image,
        "matte": np.where(valid, alpha, 0).astype(np.uint8),
        "valid": valid,
        "detected": np.array(seen is not None),
        "landmarks": landmarks.astype(np.float32),
        "blendshapes": scores.astype(np.float32),
        "K": cropped_intrinsics(shot.K, box, size),
        "world_to_cam": world_to_cam,
        "camera": np.array(shot.camera),
        "sequence": np.array(shot.sequence),
        "frame": np.array(shot.frame, np.int64),
    }


def _distance(found: np.ndarray, known: np.ndarray) -> float:
    """Mean distance in the picture of mesh landmarks (478, >= 2) in widths of the known face, measured in space."""
    width = np.linalg.norm(known[CHEEK_LEFT] - known[CHEEK_RIGHT])
    return float(np.linalg.norm(found[:MESH_POINTS, :2] - known[:MESH_POINTS, :2], axis=1).mean() / width)
