"""A file with FLAME's keys, shapes, types and topology counts, holding smooth random numbers instead of FLAME."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix
from scipy.spatial import ConvexHull

HEAD, EYE = 3931, 546


def _ball(count: int) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(count) + 0.5
    polar, around = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    points = np.stack([np.cos(around) * np.sin(polar), np.cos(polar), np.sin(around) * np.sin(polar)], 1)
    return points, ConvexHull(points).simplices.astype(np.int64)


def _cut_hole(faces: np.ndarray, size: int, start: int) -> np.ndarray:
    """Remove a patch of ``size`` triangles that hides no vertex, so that all vertices stay in use."""
    sides: dict[tuple[int, int], list[int]] = {}
    for f, (a, b, c) in enumerate(faces):
        for side in ((a, b), (b, c), (c, a)):
            sides.setdefault((min(side), max(side)), []).append(f)
    gone, corners, queue = {start}, set(faces[start].tolist()), [start]
    while len(gone) < size:
        a, b, c = faces[queue.pop(0)]
        for side in ((a, b), (b, c), (c, a)):
            for f in sides[min(side), max(side)]:
                fresh = set(faces[f].tolist()) - corners
                if f not in gone and len(fresh) == 1 and len(gone) < size:
                    gone.add(f)
                    corners |= fresh
                    queue.append(f)
    return np.delete(faces, list(gone), axis=0)


def topology() -> tuple[np.ndarray, np.ndarray]:
    """5,023 vertices and 9,976 triangles: a head with two holes and two closed eyeballs, as FLAME has."""
    head, faces = _ball(HEAD)
    lowest, highest = head[faces].mean(1)[:, 1].argmin(), head[faces].mean(1)[:, 1].argmax()
    high_corners = faces[highest].copy()
    faces = _cut_hole(faces, 29, int(lowest))
    faces = _cut_hole(faces, 29, int(np.flatnonzero((faces == high_corners).all(1))[0]))
    eye, eye_faces = _ball(EYE)
    left, right = eye * 0.012 + [0.03, 0.02, 0.05], eye * 0.012 + [-0.03, 0.02, 0.05]
    points = np.concatenate([head * [0.08, 0.13, 0.1], left, right])
    return points, np.concatenate([faces, eye_faces + HEAD, eye_faces + HEAD + EYE])


def flame_arrays(seed: int = 0) -> dict:
    """FLAME's dictionary."""
    rng = np.random.default_rng(seed)
    template, faces = topology()
    wave = np.sin(template @ rng.normal(0, 12, (3, 40)) + rng.uniform(0, 6, 40))  # smooth functions over the head
    shapedirs = (wave @ rng.normal(0, 2e-4, (40, 1200))).reshape(-1, 3, 400)
    posedirs = (wave @ rng.normal(0, 2e-4, (40, 108))).reshape(-1, 3, 36)
    height = template[:, 1]
    neck = 1 / (1 + np.exp(-(height + 0.07) / 0.01))
    jaw = np.exp(-(((height + 0.05) / 0.03) ** 2)) * (template[:, 2] > 0) * neck * 0.9
    weights = np.stack([1 - neck, neck - jaw, jaw, 0 * jaw, 0 * jaw], 1)
    weights[HEAD : HEAD + EYE] = [0, 0, 0, 1, 0]
    weights[HEAD + EYE :] = [0, 0, 0, 0, 1]
    regressor = np.zeros((5, len(template)))
    for joint, place in enumerate([(0, -0.13, 0), (0, -0.05, 0), (0, -0.01, 0.01)]):
        near = np.linalg.norm(template[:HEAD] - place, axis=1).argsort()[:60]
        regressor[joint, near] = rng.dirichlet(np.ones(60))
    regressor[3, HEAD : HEAD + EYE] = 1 / EYE
    regressor[4, HEAD + EYE :] = 1 / EYE
    return {
        "f": faces.astype(np.uint32),
        "J_regressor": csc_matrix(regressor),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "J": regressor @ template,
        "weights": weights,
        "posedirs": posedirs,
        "v_template": template,
        "shapedirs": shapedirs,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
