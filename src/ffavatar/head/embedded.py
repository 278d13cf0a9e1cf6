"""Loads heads: the embedded one, or a user's FLAME file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffavatar.errors import InputError
from ffavatar.head.flame import read_flame
from ffavatar.head.model import HeadArrays, HeadModel

DATA = Path(__file__).parent / "data"
PLAIN = (
    *("v_template", "faces", "shapedirs", "expdirs", "posedirs", "J_regressor", "lbs_weights", "uvs", "faces_uv"),
    *("landmark_faces", "landmark_barycentric", "landmark_weights", "mh_vertex", "mirror"),
)
DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz, never unpickling. Raises InputError if the file is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a head model (.npz or FLAME .pkl).")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (*DAMAGE, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an npz ({error}); get the file again.") from error


def _own_arrays(data: dict[str, np.ndarray], source: str) -> HeadArrays:
    try:
        count = len(data["v_template"])
        masks = np.unpackbits(data["region_masks"], axis=1, count=count).astype(bool)
        names = [str(n) for n in data["region_names"]]
        arrays = HeadArrays(
            expression_names=tuple(str(n) for n in data["expression_names"]),
            regions=dict(zip(names, masks, strict=True)),
            edition=str(data["edition"]),
            licence=str(data["licence"]),
            joints_follow_expression=False,
            arkit_pose=dict(zip((str(n) for n in data["arkit_pose_names"]), data["arkit_pose"], strict=True)),
            **{key: data[key] for key in PLAIN},
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{source} lacks parts of a head model ({error}); get the file again.") from error
    arrays.check(source)
    return arrays


def load_head(path: str | Path | None = None, edition: str | None = None) -> HeadModel:
    """A head model: the embedded one, one of our npz files, or a FLAME file (.pkl or .npz with FLAME's keys).

    ``edition`` overrides what a FLAME file is recognised as, e.g. ``flame2020``. Raises InputError for anything else.
    """
    path = DATA / "embedded.npz" if path is None else Path(path)
    if path.suffix.lower() in (".pkl", ".pickle"):
        return HeadModel(read_flame(path, edition))
    data = read_npz(path)
    if "kintree_table" in data:
        return HeadModel(read_flame(path, edition, data))
    return HeadModel(_own_arrays(data, str(path)))


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's whole base mesh in head coordinates, for binding its hair, brows and lashes to the embedded head.

    A vertex of the artwork's ``.mhclo`` refers to base vertices; where those are not in ``HeadModel.mh_vertex``
    (helpers for hair, eyes, lashes), the ``helper_*`` arrays say how they move. Row k of them is ``helper_vertex[k]``.
    """

    vertices: np.ndarray  # (19158, 3) metres, the neutral mean head, arms lowered
    helper_vertex: np.ndarray  # (H,) base vertices of the helpers
    helper_shapedirs: np.ndarray  # (H, 3, I) metres
    helper_expdirs: np.ndarray  # (H, 3, E)
    helper_weights: np.ndarray  # (H, 5) skinning


def load_base_mesh() -> BaseMesh:
    """The base mesh that belongs to the embedded head."""
    data = read_npz(DATA / "base_mesh.npz")
    return BaseMesh(
        data["vertices"],
        data["helper_vertex"],
        *(data[f"helper_{k}"].astype(np.float32) for k in ("shapedirs", "expdirs", "weights")),
    )
