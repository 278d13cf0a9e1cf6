"""Reads a user's FLAME file into our arrays; FLAME itself is neither shipped nor fetched.

FLAME 2020 (``generic_model.pkl``, ``male_model.pkl``, ``female_model.pkl``), FLAME 2023 with jaw (``flame2023.pkl``)
and without (``flame2023_no_jaw.pkl``), and FLAME 2023 Open (``flame2023_Open.pkl``) share 5,023 vertices, 9,976 faces,
300 identity and 100 expression components and five joints; their bases differ, so coefficients must not cross editions.
Pickles are read by an unpickler that knows numpy arrays, scipy's csc matrices and chumpy's plain arrays, and refuses
all else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ffavatar.errors import InputError
from ffavatar.head.model import PARENTS, HeadArrays

VERTICES, FACES, IDENTITY, EXPRESSION = 5023, 9976, 300, 100
RESEARCH = "FLAME model licence of the Max Planck Society: non-commercial scientific use, no redistribution"
LICENCES = {
    "flame2020": RESEARCH,
    "flame2023": RESEARCH,
    "flame2023_no_jaw": RESEARCH,
    "flame2023_open": "CC-BY-4.0 (FLAME 2023 Open, Max Planck Society; attribution required)",
    "flame_unknown": RESEARCH,
}
KNOWN_SHA256 = {
    "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "flame2023",
    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "flame2023_open",
}
NAMES_2020 = ("generic_model", "male_model", "female_model", "flame_neutral", "flame_male", "flame_female")
REQUIRED = ("v_template", "f", "shapedirs", "J_regressor", "kintree_table", "weights")


class _Chumpy:
    """Stands for any chumpy object; only the array that it was made from is kept."""

    def __setstate__(self, state: Any) -> None:
        self.x = state.get("x") if isinstance(state, dict) else None


class _Csc:
    """Stands for a scipy compressed-sparse-column matrix."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def dense(self) -> np.ndarray:
        shape = self.state["_shape"] if "_shape" in self.state else self.state["shape"]
        data, rows, starts = (np.asarray(self.state[k]) for k in ("data", "indices", "indptr"))
        out = np.zeros(tuple(int(n) for n in shape))
        columns = np.repeat(np.arange(out.shape[1]), np.diff(starts))
        np.add.at(out, (rows, columns), data)
        return out


def _empty_array(kind: type, shape: tuple, dtype: Any) -> np.ndarray:
    """numpy's own reconstructor, for the one way numpy calls it."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of an unusual kind")
    return np.ndarray.__new__(np.ndarray, (0,), dtype)


def _from_buffer(buffer: Any, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    """numpy's own constructor of protocol 5."""
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError("an array of an unusual kind")
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _new_stub(kind: type, base: type, state: Any) -> object:
    """copyreg's reconstructor (protocol 0 and 1), for the stubs only."""
    if kind not in (_Chumpy, _Csc) or base is not object or state is not None:
        raise pickle.UnpicklingError("an object of an unusual kind")
    return object.__new__(kind)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``, which protocol 2 uses for bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("text of an unusual kind")
    return text.encode("latin1")


def _number(dtype: np.dtype, data: bytes | None = None) -> Any:
    """A numpy scalar."""
    if dtype.kind not in "biufSU" or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError("a number of an unusual kind")
    return np.frombuffer(data, dtype)[0]


class ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and the two stubs; any other name in the pickle ends the reading before it can be called."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return _empty_array
            if name == "scalar":
                return _number
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _from_buffer
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return np.dtype
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csc_array"):
            return _Csc
        if module.split(".")[0] == "chumpy":
            return _Chumpy
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _new_stub
        if module in ("__builtin__", "builtins") and name == "object":
            return object
        if module == "_codecs" and name == "encode":
            return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the path of a FLAME file.") from error
    try:
        data = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can fail in any way; none of it may pass as a traceback
        raise InputError(f"{path} is not a FLAME pickle ({error}); download it again from the FLAME site.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} does not hold a dictionary as FLAME's files do; give an original FLAME file.")
    return {str(k): v for k, v in data.items()} | {"__sha256__": hashlib.sha256(content).hexdigest()}


def _array(data: dict[str, Any], key: str, path: Path) -> np.ndarray:
    value = data[key]
    try:
        if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0:
            value = value.item()
        if isinstance(value, _Csc):
            value = value.dense()
        for _ in range(4):  # chumpy may wrap chumpy
            if isinstance(value, _Chumpy):
                value = value.x
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{array.dtype} values")
        return array
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: {key} is not an array of numbers ({error}); download the file again.") from error


def detect_edition(data: dict[str, Any], path: Path) -> str:
    """Which FLAME a file is: by checksum, by Open's own key, then by the file's name; ``flame_unknown`` otherwise.

    All editions have the same keys and shapes, so a renamed 2020 or 2023 file cannot be told; pass ``edition`` then.
    """
    known = KNOWN_SHA256.get(data.get("__sha256__", ""))
    if known:
        return known
    name = path.stem.lower().replace("-", "_")
    if "supr_expression_metadata" in data or "open" in name:
        return "flame2023_open"
    if "2023" in name:
        return "flame2023_no_jaw" if "no_jaw" in name or "nojaw" in name else "flame2023"
    if "2020" in name or name in NAMES_2020:
        return "flame2020"
    return "flame_unknown"


def read_flame(path: str | Path, edition: str | None = None, data: dict[str, Any] | None = None) -> HeadArrays:
    """Read a FLAME pickle, or the arrays of an npz with the same keys. Raises InputError for anything else.

    A file without ``posedirs`` gets none (zeros). Files of the no-jaw edition keep the jaw joint; their expression
    components already open the mouth, so a caller leaves ``HeadParams.jaw`` at zero. No uv and no landmarks are in
    FLAME's files; regions are what skinning tells: skin, eyeballs, neck, torso.
    """
    path = Path(path)
    data = _unpickle(path) if data is None else data
    missing = [k for k in REQUIRED if k not in data]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; give a FLAME model file, not a texture or mask file.")
    edition = edition or detect_edition(data, path)
    if edition not in LICENCES:
        raise InputError(f"unknown FLAME edition {edition}; use one of {', '.join(LICENCES)}.")
    template = _array(data, "v_template", path).astype(np.float32)
    directions = _array(data, "shapedirs", path).astype(np.float32)
    faces = _array(data, "f", path).astype(np.int64)
    expected = {"v_template": (VERTICES, 3), "f": (FACES, 3), "shapedirs": (VERTICES, 3, IDENTITY + EXPRESSION)}
    for key, array in (("v_template", template), ("f", faces), ("shapedirs", directions)):
        if array.shape != expected[key]:
            raise InputError(f"{path}: {key} has shape {array.shape}, not {expected[key]}; use an original FLAME file.")
    tree = _array(data, "kintree_table", path).astype(np.int64)
    if tree.shape != (2, 5) or tuple(tree[0, 1:]) != PARENTS[1:]:
        raise InputError(f"{path}: the joints are not FLAME's global, neck, jaw and eyes; use an original file.")
    posedirs = np.zeros((VERTICES, 3, 36), np.float32)
    if "posedirs" in data:
        posedirs = _array(data, "posedirs", path).astype(np.float32)
    weights = _array(data, "weights", path).astype(np.float32)
    arrays = HeadArrays(
        v_template=template,
        faces=faces,
        shapedirs=directions[..., :IDENTITY],
        expdirs=directions[..., IDENTITY:],
        posedirs=posedirs,
        J_regressor=_array(data, "J_regressor", path).astype(np.float32),
        lbs_weights=weights,
        expression_names=tuple(f"expression_{k}" for k in range(EXPRESSION)),
        regions=_regions(weights) if weights.shape == (VERTICES, 5) else {},
        edition=edition,
        licence=LICENCES[edition],
        joints_follow_expression=True,
    )
    arrays.check(str(path))
    return arrays


def _regions(weights: np.ndarray) -> dict[str, np.ndarray]:
    left, right = weights[:, 3] > 0.9, weights[:, 4] > 0.9
    skin = ~(left | right)
    torso = skin & (weights[:, 0] > 0.75)
    return {
        "skin": skin,
        "eyeball_left": left,
        "eyeball_right": right,
        "eyeballs": left | right,
        "torso": torso,
        "neck": skin & ~torso & (weights[:, 0] > 0.02),
    }
