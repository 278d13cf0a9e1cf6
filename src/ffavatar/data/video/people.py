"""Which tracks are the same person, and which frames of a person to keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAME_PERSON = 0.5  # mean cosine of MobileFaceNet embeddings between two groups of tracks (evidence: docs/data.md)
DUPLICATE = 0.12  # distance in ``feature`` below which two frames show the same
ANGLE_UNIT_DEG = 25.0
SCORE_UNIT = 0.5


def group(embeddings: np.ndarray, apart: Sequence[tuple[int, int]] = (), threshold: float = SAME_PERSON) -> list[int]:
    """The person of each track, numbered by first appearance.

    Agglomerative clustering with average linkage: the two groups with the largest mean cosine are joined while it is at
    least ``threshold``. ``embeddings`` (T, D) unit; ``apart``: pairs that are seen at one time, so never one person.

    Two groups whose mean cosine reaches the threshold hold a pair that does: so only tracks that are linked by such
    pairs (``linked``) can come together, and each set of those is clustered by itself. Same result, and memory for the
    square of the largest set only, instead of all tracks.
    """
    owner = np.zeros(len(embeddings), int)
    places = linked(embeddings, threshold)
    beside: dict[int, list[tuple[int, int]]] = {}
    for a, b in apart:
        if places[a] == places[b]:
            beside.setdefault(places[a], []).append((a, b))
    members: dict[int, list[int]] = {}
    for row, place in enumerate(places):
        members.setdefault(place, []).append(row)
    people = 0
    for place, rows in members.items():
        local = {row: k for k, row in enumerate(rows)}
        pairs = [(local[a], local[b]) for a, b in beside.get(place, [])]
        found = _average_linkage(embeddings[rows], pairs, threshold)
        owner[rows] = np.array(found) + people
        people += max(found) + 1
    numbers = {name: number for number, name in enumerate(dict.fromkeys(owner.tolist()))}
    return [numbers[name] for name in owner.tolist()]


def linked(embeddings: np.ndarray, threshold: float, block: int = 1024) -> list[int]:
    """For each row (T, D) the first row that it reaches over pairs with a cosine of at least ``threshold``.

    Memory ``block`` x T; time T^2 D.
    """
    first = list(range(len(embeddings)))

    def root(row: int) -> int:
        while first[row] != row:
            first[row] = row = first[first[row]]
        return row

    for start in range(0, len(embeddings), block):
        likeness = embeddings[start : start + block] @ embeddings[start:].T
        for a, b in np.argwhere(likeness >= threshold - 1e-9).tolist():
            if a < b and (one := root(start + a)) != (other := root(start + b)):
                first[max(one, other)] = min(one, other)
    return [root(row) for row in range(len(embeddings))]


def _average_linkage(embeddings: np.ndarray, apart: Sequence[tuple[int, int]], threshold: float) -> list[int]:
    count = len(embeddings)
    if count == 1:
        return [0]
    likeness = embeddings @ embeddings.T
    np.fill_diagonal(likeness, -np.inf)
    for a, b in apart:
        likeness[a, b] = likeness[b, a] = -np.inf
    sizes, owner = np.ones(count), list(range(count))
    while True:
        a, b = divmod(int(likeness.argmax()), count)
        if likeness[a, b] < threshold:
            break
        # the mean over all pairs of two joined groups; minus infinity (seen at one time) stays
        joined = (sizes[a] * likeness[a] + sizes[b] * likeness[b]) / (sizes[a] + sizes[b])
        likeness[a], likeness[:, a] = joined, joined
        likeness[b], likeness[:, b] = -np.inf, -np.inf
        likeness[a, a] = -np.inf
        sizes[a] += sizes[b]
        owner = [a if o == b else o for o in owner]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(owner))}
    return [numbers[name] for name in owner]


def feature(angles_deg: Sequence[float], blendshapes: np.ndarray) -> np.ndarray:
    """(55,) pose and expression in units in which 1 is a clear difference."""
    return np.concatenate([np.asarray(angles_deg) / ANGLE_UNIT_DEG, np.asarray(blendshapes) / SCORE_UNIT])


def most_different(features: np.ndarray, sharpness: np.ndarray, count: int) -> list[int]:
    """Rows of ``features`` (F, D) that differ most, at most ``count``, none a near-duplicate of another.

    First the sharpest frame near the middle, then always the one farthest from those taken (Gonzalez 1985), until the
    farthest is a near-duplicate.
    """
    middle = np.linalg.norm(features - np.median(features, 0), axis=1)
    clear = sharpness / max(float(np.median(sharpness)), 1e-9)
    chosen = [int((middle - 0.3 * np.minimum(clear, 1.5)).argmin())]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < count:
        farthest = int(distance.argmax())
        if distance[farthest] < DUPLICATE:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(features - features[farthest], axis=1))
    return chosen
