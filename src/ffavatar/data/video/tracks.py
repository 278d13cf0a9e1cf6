"""Faces of a film as tracks: sampled frames, gates with reasons, and the crops of what passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from ffavatar.data.people import plain_reason
from ffavatar.data.video.cuts import CutFinder
from ffavatar.drive.video import FrameReader
from ffavatar.photo import LandmarkResult, PhotoResult
from ffavatar.photo.crop import CropBox, cut_square
from ffavatar.types import Views

SAMPLES_PER_S = 4.0
SAME_FACE = 0.25  # overlap (intersection over union) of boxes in neighbouring samples that makes one track
LONGEST_GAP = 3  # samples without the face after which a track has ended
CROWDED = 0.15  # part of another face's box inside the head crop: then two people are in the picture
EXAMPLE_PX = 112  # side of the picture that is kept of the first frame or face refused for each reason
MOST_FACES = 32  # kept of one track, evenly spread

Embed = Callable[[Views], Tensor]
"""Head crops -> unit identity embeddings (S, D)."""
Box = tuple[float, float, float, float]


class FaceFinder(Protocol):
    """What is needed of ``ffavatar.photo.FrontEnd``."""

    def faces(self, image: np.ndarray) -> list[LandmarkResult]: ...

    def judge(
        self, image: np.ndarray, found: list[LandmarkResult], name: str, index: int, size: int
    ) -> PhotoResult: ...


@dataclass(frozen=True)
class Face:
    """One usable face of a film."""

    frame: int
    views: Views  # one row
    angles_deg: tuple[float, float, float]  # yaw, pitch, roll
    sharpness: float
    embedding: np.ndarray  # (D,) unit


@dataclass
class Track:
    """One person over neighbouring samples of one shot."""

    shot: int
    first: int  # frame numbers
    last: int
    box: Box
    faces: list[Face] = field(default_factory=list)

    def embedding(self) -> np.ndarray:
        """(D,) mean of the faces', of unit length."""
        mean = np.mean([face.embedding for face in self.faces], axis=0)
        return mean / np.linalg.norm(mean)


@dataclass(frozen=True)
class FilmFaces:
    """What a film gave: tracks with at least one usable face, and how often each reason refused a face or a frame."""

    tracks: tuple[Track, ...]
    refused: dict[str, int]
    frames: int  # read
    samples: int  # looked at
    shots: int
    examples: dict[str, np.ndarray] = field(default_factory=dict)  # reason -> its first picture (112, 112, 3) uint8


def box_of(points: np.ndarray) -> Box:
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _common(a: Box, b: Box) -> float:
    return _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), in [0, 1]."""
    common = _common(a, b)
    return common / max(_area(a) + _area(b) - common, 1e-9)


def example_of(image: np.ndarray, box: Box | None) -> np.ndarray:
    """(112, 112, 3) uint8 of a refused face, twice as wide as its box, or of the whole frame."""
    height, width = image.shape[:2]
    left, top, right, bottom = box or (0.0, 0.0, float(width), float(height))
    side = max(right - left, bottom - top, 1.0) * (1 if box is None else 2)
    return cut_square(image, CropBox((left + right - side) / 2, (top + bottom - side) / 2, side), EXAMPLE_PX)


def crowded(crop: tuple[float, float, float], others: list[Box]) -> bool:
    """Whether another face reaches into a head crop (left, top, side)."""
    square = (crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[2])
    return any(_common(square, other) > CROWDED * _area(other) for other in others)


def film_faces(film: Path, front_end: FaceFinder, embed: Embed, size: int) -> FilmFaces:
    """Look through a film. Raises ``InputError`` where it cannot be read at all."""
    reader = FrameReader(film)
    step = max(1, round(float(reader.fps) / SAMPLES_PER_S))
    tracks: list[Track] = []
    refused: Counter[str] = Counter()
    examples: dict[str, np.ndarray] = {}
    samples = frames = 0
    shot = -1

    def refuse(reason: str, image: np.ndarray, box: Box | None = None) -> None:
        refused[reason] += 1
        if reason not in examples:
            examples[reason] = example_of(image, box)

    finder = CutFinder()
    for number, frame in enumerate(reader):
        frames += 1
        begins = finder.begins(frame.image)
        shot += begins
        if number % step and not begins:
            continue
        samples += 1
        found = front_end.faces(frame.image)
        if not found:
            refuse("no face was found", frame.image)
        boxes = [box_of(face.points[0].numpy()) for face in found]
        open_tracks = [t for t in tracks if t.shot == shot and number - t.last <= LONGEST_GAP * step]
        for index, track in _matched(boxes, open_tracks):
            if track is None:
                track = Track(shot, number, number, boxes[index])
                tracks.append(track)
            track.box, track.last = boxes[index], number
            face, reason = _gated(frame.image, found, boxes, index, number, front_end, embed, size)
            if face is None:
                refuse(reason, frame.image, boxes[index])
            else:
                track.faces.append(face)
    for track in tracks:
        if len(track.faces) > MOST_FACES:
            keep = np.linspace(0, len(track.faces) - 1, MOST_FACES).round().astype(int)
            track.faces = [track.faces[k] for k in keep]
    return FilmFaces(tuple(t for t in tracks if t.faces), dict(refused), frames, samples, shot + 1, examples)


def _matched(boxes: list[Box], tracks: list[Track]) -> Iterator[tuple[int, Track | None]]:
    """Each face with the track that it continues, the best pairs first; None begins a track."""
    pairs = sorted(
        ((overlap(box, track.box), i, k) for i, box in enumerate(boxes) for k, track in enumerate(tracks)), reverse=True
    )
    faces, used = set(range(len(boxes))), set()
    for score, i, k in pairs:
        if score >= SAME_FACE and i in faces and k not in used:
            faces.discard(i)
            used.add(k)
            yield i, tracks[k]
    for i in sorted(faces):
        yield i, None


def _gated(
    image: np.ndarray, found: list[LandmarkResult], boxes: list[Box], index: int, number: int, front_end: FaceFinder,
    embed: Embed, size: int,
) -> tuple[Face | None, str]:  # fmt: skip
    result = front_end.judge(image, found, f"frame {number}", index, size)
    report = result.report
    if result.views is None or report.crop_box is None:
        return None, plain_reason(report.reason)
    if crowded(report.crop_box, [box for k, box in enumerate(boxes) if k != index]):
        return None, "another person reaches into the crop"
    angles = (report.yaw_deg, report.pitch_deg, report.roll_deg)
    embedding = embed(result.views)[0].double().cpu().numpy()
    return Face(number, result.views, angles, report.sharpness, embedding), ""
