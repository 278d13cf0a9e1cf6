"""The expression basis: ARKit's units that are not rotations, and MakeHuman's own units by side."""

from __future__ import annotations

import numpy as np

SIDE_WIDTH = 0.08  # decimetres: scale of the soft border between left and right


def left_share(x: np.ndarray) -> np.ndarray:
    """How far a vertex at ``x`` decimetres to the person's left belongs to the left side, 0 to 1."""
    return 1 / (1 + np.exp(-np.clip(x / SIDE_WIDTH, -50, 50)))


def expression_basis(
    arkit: dict[str, np.ndarray], units: dict[str, np.ndarray], base: np.ndarray, rotations: set[str]
) -> tuple[list[str], np.ndarray]:
    """Names and displacements (E, V, 3) of the base mesh ``base`` (V, 3).

    Coefficients in ``rotations`` are left out. Units of both sides become two, ``_L`` and ``_R``, that sum to the unit.
    """
    names = [name for name in arkit if name not in rotations]
    moved = [arkit[name] for name in names]
    left = left_share(base[:, :1])
    for name, unit in units.items():
        if "left" in name or "right" in name or name == "neck-platysma":
            names.append(f"mh_{name}")
            moved.append(unit)
        else:
            names += [f"mh_{name}_L", f"mh_{name}_R"]
            moved += [unit * left, unit * (1 - left)]
    return names, np.array(moved)
