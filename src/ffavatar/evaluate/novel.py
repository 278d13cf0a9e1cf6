"""Novel views with known cameras: people of calibrated shards (``ffavatar prepare ava256`` or ``nersemble``) as cases.

One moment of each person, seen by many cameras at once: some are sources, the others targets.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from ffavatar.data.shards import PersonSample, ShardReader
from ffavatar.errors import InputError
from ffavatar.evaluate.clips import Clip, ClipViews, FrontEndLike, Side
from ffavatar.evaluate.protocol import Run
from ffavatar.evaluate.rules import Case
from ffavatar.photo import Landmarker
from ffavatar.photo.report import PRESENCE
from ffavatar.types import Camera, Views

LARGEST_TURN_DEG = 75.0  # between where the face looks and a camera: beyond, no figure of the face means anything
MOST_SOURCES, MOST_TARGETS = 4, 8


def camera_turns_deg(world_to_cam: np.ndarray) -> np.ndarray:
    """(P,) angles between the face's direction (head space +z) and the cameras (P, 4, 4)."""
    places = -np.einsum("pji,pj->pi", world_to_cam[:, :3, :3], world_to_cam[:, :3, 3])
    return np.degrees(np.arccos(np.clip(places[:, 2] / np.linalg.norm(places, axis=1), -1, 1)))


def choose_rows(sample: PersonSample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sources, targets) among the views of the moment that most cameras saw from the front half.

    Sources: the most frontal camera, then always the one farthest in direction from those taken, at most four and
    never all. Targets: the others, at most eight, the most frontal first. Both empty where fewer than three are left.
    """
    matrices = sample.arrays["world_to_cam"]
    turns = camera_turns_deg(matrices)
    moments: dict[tuple[str, int], list[int]] = {}
    for row, turn in enumerate(turns):
        if turn <= LARGEST_TURN_DEG:
            moment = (str(sample.arrays["sequence"][row]), int(sample.arrays["frame"][row]))
            moments.setdefault(moment, []).append(row)
    rows = max(moments.values(), key=len, default=[])
    if len(rows) < 3:
        return (), ()
    places = -np.einsum("pji,pj->pi", matrices[:, :3, :3], matrices[:, :3, 3])
    towards = places / np.linalg.norm(places, axis=1, keepdims=True)
    sources = [min(rows, key=lambda row: turns[row])]
    while len(sources) < min(MOST_SOURCES, len(rows) - 1):
        rest = [row for row in rows if row not in sources]
        sources.append(min(rest, key=lambda row: max(float(towards[row] @ towards[s]) for s in sources)))
    targets = sorted((row for row in rows if row not in sources), key=lambda row: turns[row])[:MOST_TARGETS]
    return tuple(sources), tuple(targets)


def novel_clips(folder: Path) -> list[Clip]:
    """A clip for each person: its frames are rows of the sample, its file the shards' manifest.

    Raises ``InputError`` for shards without cameras, or where nobody is seen by three cameras at once.
    """
    clips = []
    for sample in ShardReader(folder, shuffle=False):
        if not {"K", "world_to_cam", "frame", "sequence", "landmarks"} <= set(sample.arrays):
            raise InputError(f"{folder} holds people without known cameras; prepare Ava-256 or NeRSemble.")
        sources, targets = choose_rows(sample)
        if targets:
            clips.append(Clip(sample.key, folder / "manifest.json", sources, targets))
    if not clips:
        raise InputError(f"Nobody in {folder} is seen by three cameras at once; prepare more cameras.")
    return clips


def novel_views(row: Case, front_end: FrontEndLike, run: Run) -> ClipViews:
    """The crops and cameras of a case. Landmarks of sources are read from the pictures, those of targets too where the
    face is seen, else projected.

    Raises ``InputError`` where the shards hold crops of another size, or fewer than two sources show a face.
    """
    folder = row.source.file.parent
    sample = next(s for s in ShardReader(folder, shuffle=False) if s.key == row.source.id)
    size = sample.images.shape[1]
    if size != run.rules.size:
        raise InputError(f"{folder} holds crops of {size} px; give --size {size}.")
    landmarker = Landmarker()
    kept, sources, refused = [], [], []
    for number in row.source.source_frames:
        views = sample.views([number])
        with torch.no_grad():
            seen = landmarker(views.images)
        if float(seen.presence) < PRESENCE:
            refused.append(f"{row.id} view {number}: no face was found.")
            continue
        kept.append(number)
        points = seen.points / size
        sources.append(Views(views.images, views.mattes, views.valid, points, seen.blendshapes))
    if len(kept) < 2:
        raise InputError(f"{row.id}: fewer than two source views show a face; leave the person out with --clips.")
    targets = list(row.target.target_frames)
    key = hashlib.sha256(repr((sample.key, kept, targets, size)).encode())
    for array in (sample.images, sample.mattes, *(sample.arrays[n] for n in ("K", "world_to_cam", "landmarks"))):
        key.update(np.ascontiguousarray(array).tobytes())
    return ClipViews(
        Side(Views.cat(sources), tuple(kept), torch.zeros(len(kept), 3)),
        Side(sample.views(targets), tuple(targets), torch.zeros(len(targets), 3)),
        None,
        (0, 0),
        tuple(refused),
        key.hexdigest(),
        (_cameras(sample, kept, size), _cameras(sample, targets, size)),
    )


def _cameras(sample: PersonSample, rows: list[int], size: int) -> Camera:
    K, world_to_cam = (torch.from_numpy(sample.arrays[name][rows]).float() for name in ("K", "world_to_cam"))
    return Camera(world_to_cam, K, size, size)
