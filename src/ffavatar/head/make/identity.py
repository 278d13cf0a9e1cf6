"""Random people out of MakeHuman's macro targets and sliders, and the identity basis that they span.

The spread of the people was chosen for the head and is stated here in numbers; which people come out hangs on the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.head.make.source import AGES, FACE_TYPES, MUSCLES, SEXES, WEIGHTS, Slider

PEOPLE = 1500
# Places of the whole head or neck, which the alignment takes out, and measures that repeat other sliders
LEFT_OUT = ("head/head-trans", "neck/neck-trans", "neck/measure-")


@dataclass(frozen=True)
class People:
    """Macro values in 0..1 and slider values in -1..1 of N people."""

    age: np.ndarray  # (N,) 0 baby, 1/3 child, 2/3 young, 1 old
    sex: np.ndarray  # (N,) 0 female, 1 male
    muscle: np.ndarray
    weight: np.ndarray
    proportions: np.ndarray  # (N,) 0 uncommon, 1 ideal
    face_type: np.ndarray  # (N, 3) shares
    sliders: np.ndarray  # (N, S)


def kept_sliders(sliders: list[Slider]) -> list[Slider]:
    return [s for s in sliders if not s.name.startswith(LEFT_OUT)]


def draw_people(count: int, names: list[str], generator: np.random.Generator) -> People:
    """``count`` random people. The right side's sliders follow the left's but for a tenth; asymmetries small."""
    g = generator
    sliders = np.clip(g.normal(0, 0.33, (count, len(names))) * (g.random((count, len(names))) < 0.65), -1, 1)
    for k, name in enumerate(names):
        if name.startswith("asym/"):
            sliders[:, k] *= 0.4
        elif "/r-" in name:
            sliders[:, k] = 0.9 * sliders[:, names.index(name.replace("/r-", "/l-"))] + 0.1 * sliders[:, k]
    return People(
        age=0.28 + 0.72 * g.beta(2.2, 2.2, count),
        sex=np.clip(g.choice([0.08, 0.92], count) + g.normal(0, 0.12, count), 0, 1),
        muscle=g.beta(3, 3, count),
        weight=g.beta(2.5, 2.5, count),
        proportions=g.beta(3, 3, count),
        face_type=g.dirichlet([0.5] * 3, count),
        sliders=sliders,
    )


def hat_weights(values: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Piecewise linear interpolation weights (N, A) of ``values`` (N,) between ascending ``anchors`` (A,)."""
    return np.stack([np.interp(values, anchors, row) for row in np.eye(len(anchors))], 1)


def macro_weights(people: People, labels: list[tuple[str, ...]]) -> np.ndarray:
    """(N, M): MakeHuman weighs a macro target by the product of its labels' weights."""
    table: dict[str, np.ndarray] = {}
    for names, values in ((AGES, people.age), (SEXES, people.sex), (MUSCLES, people.muscle), (WEIGHTS, people.weight)):
        rows = hat_weights(values, np.linspace(0, 1, len(names)))
        table |= {name: rows[:, k] for k, name in enumerate(names)}
    table |= {name: people.face_type[:, k] for k, name in enumerate(FACE_TYPES)}
    table["uncommonproportions"] = np.clip(1 - 2 * people.proportions, 0, 1)
    table["idealproportions"] = np.clip(2 * people.proportions - 1, 0, 1)
    return np.stack([np.prod([table[label] for label in row], 0) for row in labels], 1)


def mixtures(people: People, labels: list[tuple[str, ...]]) -> np.ndarray:
    """(N, M + 2 S) coefficients of the macro targets, the sliders' positive ends, and their negative ends."""
    return np.concatenate(
        [macro_weights(people, labels), np.maximum(people.sliders, 0), np.maximum(-people.sliders, 0)], 1
    )


def principal_scores(offsets: np.ndarray, importance: np.ndarray, count: int) -> np.ndarray:
    """Uncorrelated scores (N, count) of unit variance of samples' ``offsets`` (N, V, 3) from their mean.

    ``importance`` (V,) weighs squared distances; vertices of none do not shape the scores and follow by regression.
    """
    rows = np.flatnonzero(importance)
    flat = (offsets[:, rows] * np.sqrt(importance[rows, None]).astype(offsets.dtype)).reshape(len(offsets), -1)
    values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    order = np.argsort(values)[::-1][:count]
    return vectors[:, order] * np.sqrt(len(offsets))


def regress(offsets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(count, V, 3): what each unit of the scores moves."""
    flat = offsets.reshape(len(offsets), -1)
    return (scores.T.astype(flat.dtype) @ flat / len(flat)).reshape(scores.shape[1], *offsets.shape[1:])
