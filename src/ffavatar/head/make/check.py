"""Compares a made head with the shipped one, array by array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.errors import InputError

LENGTHS = ("v_template", "vertices", "expdirs", "posedirs", "helper_expdirs")  # metres: shown in millimetres
SUBSPACES = ("shapedirs", "helper_shapedirs")
HEAD = ("face", "scalp", "ears", "eyeballs", "teeth", "tongue")
CARRIED = ("landmark_faces", "landmark_barycentric", "landmark_weights", "mh_vertex")


@dataclass(frozen=True)
class Difference:
    """How far a made array lies from the shipped one."""

    name: str
    unit: str  # mm, "" for plain numbers, "entries" for how many rows of indices or names differ
    largest: float
    rms: float


def subspace_residual(shipped: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Rms length over vertices (S,) of what of each ``shipped`` (V, 3, S) the best mix of ``made`` (V, 3, M) leaves."""
    target, basis = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (shipped, made))
    mix = np.linalg.lstsq(basis, target, rcond=None)[0]
    left = (target - basis @ mix).reshape(shipped.shape)
    return np.sqrt((left**2).sum(1).mean(0))


def compare(made: dict[str, np.ndarray], shipped: dict[str, np.ndarray]) -> list[Difference]:
    """Differences in the order of the shipped keys. Raises InputError if keys or shapes differ.

    Identity bases are compared as subspaces: the largest and the mean of the components' rms residuals, in mm.
    """
    if set(made) != set(shipped):
        raise InputError(f"the heads differ in their arrays {sorted(set(made) ^ set(shipped))}; make the head again.")
    out = []
    for name, theirs in shipped.items():
        ours = made[name]
        if name in ("uvs", "faces_uv"):
            continue  # compared by corner, below
        if ours.shape != theirs.shape:
            raise InputError(f"{name} has shape {ours.shape}, the shipped one {theirs.shape}; make the head again.")
        if name in SUBSPACES:
            left = 1e3 * subspace_residual(theirs, ours)
            out.append(Difference(name + " (subspace)", "mm", float(left.max()), float(left.mean())))
        elif theirs.dtype.kind != "f":
            rows = (ours != theirs).reshape(len(theirs) if theirs.ndim else 1, -1).any(1)
            out.append(Difference(name, "entries", float(rows.sum()), float(np.sqrt(rows.mean()))))
        else:
            scale = 1e3 if name in LENGTHS else 1.0
            gap = scale * (ours.astype(np.float64) - theirs)
            unit = "mm" if name in LENGTHS else ""
            out.append(Difference(name, unit, float(np.abs(gap).max()), float(np.sqrt((gap**2).mean()))))
    if "region_names" in shipped:
        masks = np.unpackbits(shipped["region_masks"], axis=1, count=len(shipped["v_template"])).astype(bool)
        head = masks[np.isin(shipped["region_names"], HEAD)].any(0)
        gap = 1e3 * (made["v_template"][head].astype(np.float64) - shipped["v_template"][head])
        largest, rms = float(np.abs(gap).max()), float(np.sqrt((gap**2).mean()))
        out.append(Difference("v_template (head)", "mm", largest, rms))
        left = 1e3 * subspace_residual(shipped["shapedirs"][head], made["shapedirs"][head])
        out.append(Difference("shapedirs (subspace, head)", "mm", float(left.max()), float(left.mean())))
    if "uvs" in shipped:
        corners = [
            {tuple(f): u for f, u in zip(d["faces"].tolist(), d["uvs"][d["faces_uv"]], strict=True)}
            for d in (made, shipped)
        ]
        both = [f for f in corners[0] if f in corners[1]]
        gap = np.array([corners[0][f] - corners[1][f] for f in both], np.float64)
        out.append(Difference("uvs (by corner)", "", float(np.abs(gap).max()), float(np.sqrt((gap**2).mean()))))
    return out


def report(differences: list[Difference]) -> str:
    """One line an array."""
    lines = [f"{'array':28s} {'largest':>12s} {'rms':>12s}"]
    for d in differences:
        note = " carried over, not made" if d.name in CARRIED else ""
        lines.append(f"{d.name:28s} {d.largest:12.6f} {d.rms:12.6f} {d.unit}{note}")
    return "\n".join(lines)
