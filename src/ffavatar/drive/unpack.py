"""Reading the containers that others keep motions in: JSON, npz, and torch's zip files, none of which may run code."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ffavatar.errors import InputError
from ffavatar.head.flame import ArrayUnpickler

MOST_BYTES = 64 * 2**20  # of a file; unpacked four times as much
MOST_FRAMES = 1_000_000
LARGEST = 1e4  # metres, radians, coefficients: beyond any use, far below overflow
_STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4",
}  # fmt: skip


def check_size(path: Path) -> None:
    """Raise ``InputError`` for a file that is larger than any motion."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{path} is too large for a motion file ({size >> 20} MB); check the name.")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ``InputError`` for anything else."""
    check_size(path)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:  # includes wrong encodings and numbers of absurd length
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not JSON"
        raise InputError(f"{path} cannot be read as a motion: {reason}; export it again.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} cannot be read as a motion: it holds no JSON object; export it again.")
    return data


def _open_zip(path: Path) -> zipfile.ZipFile:
    check_size(path)
    archive = zipfile.ZipFile(path)
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > 4 * MOST_BYTES:
        archive.close()
        raise InputError(f"{path} would unpack to {unpacked >> 20} MB; a motion file never does, check the name.")
    return archive


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of numbers in an npz; arrays of objects are never unpickled. Raises ``InputError`` for damage."""
    try:
        _open_zip(path).close()
        with np.load(path, allow_pickle=False) as archive:
            found = {}
            for name in archive.files:
                try:
                    found[name] = archive[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
            return found
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy each have their own errors for damage
        raise InputError(f"{path} is damaged or no npz file ({type(error).__name__}); export it again.") from None


class _TorchUnpickler(ArrayUnpickler):
    """``ArrayUnpickler`` that also rebuilds torch's tensors, as numpy arrays, from the zip file beside the pickle."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="latin1")
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _tensor if name == "_rebuild_tensor_v2" else _parameter
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key = pid[0], pid[1], pid[2]
        if kind != "storage" or dtype not in _STORAGES.values() or not str(key).isalnum():
            raise pickle.UnpicklingError("a storage of an unusual kind")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_unused: Any) -> np.ndarray:
    count = int(np.prod(size, dtype=np.int64)) if size else 1
    expected, step = [], 1
    for side in reversed(size):
        expected.append(step)
        step *= side
    plain = all(side == 1 or a == b for side, a, b in zip(size, stride, expected[::-1]))
    if not isinstance(storage, np.ndarray) or not plain or not 0 <= offset <= offset + count <= len(storage):
        raise pickle.UnpicklingError("a tensor of an unusual layout")
    return storage[offset : offset + count].reshape(size)


def _parameter(data: Any, *_unused: Any) -> Any:
    return data


def read_frame(path: Path) -> dict[str, Any]:
    """The dictionary that ``torch.save`` wrote, with tensors as numpy arrays. Raises ``InputError`` for anything else.

    Only numbers are built; a file that asks for anything that could run code is refused before it does.
    """
    try:
        with _open_zip(path) as archive:
            pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise ValueError("no torch file")
            folder = pickles[0].removesuffix("data.pkl")
            data = _TorchUnpickler(archive, folder, archive.read(pickles[0])).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way; none of it may pass as a traceback
        words = " ".join(str(error).split())[:80]
        raise InputError(f"{path} is not a tracker's frame file ({words}); export it again.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a tracker's frame file (no dictionary); export it again.")
    return {str(key): value for key, value in data.items()}


def table(value: Any, path: Path, name: str, widths: Iterable[int] | None = None) -> np.ndarray:
    """Numbers as (T, W) float64; a single row may come as (W,) and (T, 1, W) is taken as (T, W).

    Raises ``InputError``, naming ``path`` and ``name``, for what is no table, of another width than one of ``widths``,
    ragged, not finite, or larger than anything a head does.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InputError(f"{path}: {name} is not a table of numbers; export it again.") from None
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1:
        array = array[None]
    wanted = tuple(widths) if widths is not None else None
    if array.ndim != 2 or (wanted is not None and array.shape[1] not in wanted):
        width = " or ".join(map(str, wanted)) if wanted else "some"
        raise InputError(f"{path}: {name} has shape {array.shape}, not {width} numbers per frame; export it again.")
    if not 1 <= len(array) <= MOST_FRAMES:
        raise InputError(f"{path}: {name} has {len(array)} frames; export it again.")
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) > LARGEST:
        raise InputError(f"{path}: {name} holds values that are not finite or beyond any use; export it again.")
    return array


def number(value: Any, path: Path, name: str, low: float, high: float) -> float:
    """A number from ``low`` to ``high``; ``InputError`` otherwise."""
    try:
        if isinstance(value, bool | str):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: {name} is not a number; export it again.") from None
    if not low <= found <= high:
        raise InputError(f"{path}: {name} is {found:.6g}, not from {low:g} to {high:g}; export it again.")
    return found
