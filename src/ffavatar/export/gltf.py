"""A small writer of binary glTF 2.0: accessors over one buffer, and the parts that heads need."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from ffavatar import __version__

COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
SHAPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}  # matrices by columns
VERTICES, INDICES = 34962, 34963  # bufferView targets
POINTS, TRIANGLES = 0, 4


class Glb:
    """One file in the making: add accessors and JSON objects, then take :meth:`content`.

    ``add`` and ``put`` return the index that other objects refer to.
    """

    def __init__(self, notice: dict[str, str]) -> None:
        self._chunks: list[bytes] = []
        self._length = 0
        rights = f"Head model: {notice['headLicence']}; the person shown holds the rights to their likeness"
        asset = {"version": "2.0", "generator": f"FFAvatar {__version__}", "copyright": rights}
        self.json: dict[str, Any] = {"asset": asset | {"extras": notice}}

    def put(self, kind: str, item: dict[str, Any]) -> int:
        """Append ``item`` to the top-level array ``kind``, such as ``nodes``."""
        items = self.json.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def uses(self, extension: str) -> None:
        used = self.json.setdefault("extensionsUsed", [])
        if extension not in used:
            used.append(extension)

    def view(self, values: np.ndarray, target: int | None = None) -> int:
        data = np.ascontiguousarray(values).tobytes()
        item = {"buffer": 0, "byteOffset": self._length, "byteLength": len(data)}
        padded = data + b"\0" * (-len(data) % 4)
        self._chunks.append(padded)
        self._length += len(padded)
        return self.put("bufferViews", item | ({"target": target} if target else {}))

    def add(self, values: np.ndarray, target: int | None = None, normalized: bool = False, bounds: bool = False) -> int:
        """An accessor of ``values`` (N, ...), whose type is one of ``COMPONENTS``.

        Rows of vertex attributes must fill whole groups of four bytes; ``bounds`` states minimum and maximum, which
        the specification asks of positions and times.
        """
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        if target == VERTICES and values.dtype.itemsize * values[0].size % 4:
            raise ValueError(f"rows of {values.dtype} {values.shape[1:]} are not aligned to four bytes")
        item: dict[str, Any] = {"bufferView": self.view(values, target), "componentType": COMPONENTS[kind]}
        item |= {"count": len(values), "type": SHAPES[values.shape[1:]]}
        if normalized:
            item["normalized"] = True
        return self.put("accessors", item | (_bounds(values) if bounds else {}))

    def add_sparse(self, count: int, rows: np.ndarray, values: np.ndarray) -> int:
        """An accessor of ``count`` float32 triples that are zero but for ``values`` (M, 3) at ``rows`` (M,), ascending.

        A wholly empty one still states one zero, since sparse accessors may not be empty.
        """
        if not len(rows):
            rows, values = np.zeros(1, np.int64), np.zeros((1, 3), np.float32)
        least, most = np.minimum(values.min(0), 0), np.maximum(values.max(0), 0)
        if len(rows) == count:
            least, most = values.min(0), values.max(0)
        index = rows.astype("<u2" if count <= 65535 else "<u4")
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": self.view(index), "componentType": COMPONENTS[f"u{index.itemsize}"]},
            "values": {"bufferView": self.view(values.astype("<f4"))},
        }
        item = {"componentType": COMPONENTS["f4"], "count": count, "type": "VEC3", "sparse": sparse}
        return self.put("accessors", item | {"min": _floats(least), "max": _floats(most)})

    def content(self) -> bytes:
        """The finished file: header, JSON chunk, binary chunk."""
        body = b"".join(self._chunks)
        if body:
            self.json["buffers"] = [{"byteLength": len(body)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        if body:
            chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _bounds(values: np.ndarray) -> dict[str, list[float]]:
    flat = values.reshape(len(values), -1)
    return {"min": _floats(flat.min(0)), "max": _floats(flat.max(0))}


def _floats(values: np.ndarray) -> list[float]:
    return [float(np.float32(value)) for value in values]


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: glTF's vertex colours are linear, ours are sRGB. Float32 in [0, 1]."""
    clipped = np.clip(values.astype(np.float64), 0, 1)
    return np.where(clipped <= 0.04045, clipped / 12.92, ((clipped + 0.055) / 1.055) ** 2.4).astype("<f4")
