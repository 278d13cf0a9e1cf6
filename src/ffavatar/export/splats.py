"""Clouds of Gaussians: PLY as 3D Gaussian splatting writes it, SPZ version 3, and antimatter15's .splat.

None of them can move: each holds the resting avatar or one pose. Their axes and errors are in docs/export.md.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from ffavatar.avatar import Avatar
from ffavatar.export.options import ExportOptions, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.files import atomic_path
from ffavatar.types import Gaussians

SH_C0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + SH_C0 * f_dc
SPZ_MAGIC, SPZ_VERSION = 0x5053474E, 3  # "NGSP", little-endian
SPZ_COLOR_SCALE = 0.15  # what the reference implementation multiplies f_dc by before it stores 8 bits
_SPZ_MOST_BITS = 16  # of the fraction: 0.015 mm at a range of 128 m
_OPACITY_RANGE = (1 / 1024, 1 - 1 / 1024)  # their logarithmic odds stay finite, and far finer than 8 bits
_SMALLEST = 1e-7  # metres; a logarithm must exist

PLY_PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_ply(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """Binary PLY with the properties of the reference implementation of 3D Gaussian splatting (Kerbl et al. 2023).

    y points down and z away from the viewer, as in scenes trained from COLMAP, which the usual viewers expect of a
    PLY. Float32 throughout: exact but for rounding, and opacities kept 1/1024 away from 0 and 1.
    """
    refuse_flame(avatar, path, options)
    made = posed_splats(avatar, options.moment(avatar, path), options.scale, y_down=True)
    colours = (numpy32(made.colors) - 0.5) / SH_C0
    content = ply_bytes(made, colours, list(provenance(avatar).values()))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def ply_bytes(made: Gaussians, f_dc: np.ndarray, comments: list[str]) -> bytes:
    """The file's content; ``f_dc`` (N, 3) goes in as it is."""
    opacity = made.opacities.double().clamp(*_OPACITY_RANGE)
    columns = [
        numpy32(made.means),
        np.zeros((len(made), 3), "<f4"),
        f_dc.astype("<f4"),
        numpy32(torch.logit(opacity))[:, None],
        numpy32(made.scales.double().clamp_min(_SMALLEST).log()),
        numpy32(made.quats),
    ]
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {_ascii(line)}" for line in comments]
    header += [f"element vertex {len(made)}", *(f"property float {name}" for name in PLY_PROPERTIES), "end_header"]
    return ("\n".join(header) + "\n").encode("ascii") + np.concatenate(columns, 1).astype("<f4").tobytes()


def _ascii(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "replace").decode()


def write_spz(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """SPZ version 3 (github.com/nianticlabs/spz): 20 bytes a Gaussian, then gzip.

    y up, z towards the viewer (the format's own RUB). Positions are 24-bit fixed point with as many fractional bits
    as fit, sizes 8-bit logarithms in steps of 1/16, quaternions the smallest three components in 10 bits each,
    colours and opacities 8 bits.
    """
    refuse_flame(avatar, path, options)
    content = spz_bytes(posed_splats(avatar, options.moment(avatar, path), options.scale))
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        # no name and no time in the gzip header: the same avatar gives the same bytes
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as file:
            file.write(content)


def spz_bytes(made: Gaussians) -> bytes:
    """The stream before gzip: a 16-byte header, then one block per attribute."""
    means = made.means.double().numpy()
    reach = max(float(np.abs(means).max(initial=0.0)), 1e-3)
    bits = int(np.clip(np.floor(np.log2((2**23 - 1) / reach)), 0, _SPZ_MOST_BITS))
    fixed = np.round(means * 2**bits).astype("<i4")
    positions = np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 4)[:, :3]  # little-endian: drop the top byte
    blocks = (
        positions,
        _byte(made.opacities.numpy() * 255.0),
        _byte((made.colors.double().numpy() - 0.5) / SH_C0 * (SPZ_COLOR_SCALE * 255) + 127.5),
        _byte((made.scales.double().clamp_min(_SMALLEST).log().numpy() + 10) * 16),
        smallest_three(made.quats.double().numpy()),
    )
    header = struct.pack("<IIIBBBB", SPZ_MAGIC, SPZ_VERSION, len(made), 0, bits, 0, 0)
    return header + b"".join(np.ascontiguousarray(block).tobytes() for block in blocks)


def smallest_three(quats: np.ndarray) -> np.ndarray:
    """(N, 4) unit quaternions wxyz -> (N,) uint32: the index of the largest component (in xyzw) in the top two bits,
    the three others in 10 bits each, sign and 9-bit magnitude in units of sqrt(1/2), in falling order of significance.
    """
    xyzw = quats[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(1)
    flip = np.take_along_axis(xyzw, largest[:, None], 1)[:, 0] < 0  # -q is the same rotation
    packed = largest.astype(np.uint32)
    for component in range(4):
        value = xyzw[:, component]
        magnitude = np.minimum(np.floor(511 * np.abs(value) * np.sqrt(2) + 0.5), 511).astype(np.uint32)
        sign = ((value < 0) ^ flip).astype(np.uint32)
        packed = np.where(component == largest, packed, (packed << 10) | (sign << 9) | magnitude)
    return packed.astype("<u4")


def write_splat(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """antimatter15's .splat: 32 bytes a Gaussian, the most visible first, y down as in its PLY sources.

    Positions and sizes are float32, colour, opacity and the quaternion's components 8 bits each.
    """
    refuse_flame(avatar, path, options)
    made = posed_splats(avatar, options.moment(avatar, path), options.scale, y_down=True)
    rows = np.empty(len(made), [("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])
    rows["means"], rows["scales"] = numpy32(made.means), numpy32(made.scales)
    rows["rgba"] = _byte(torch.cat([made.colors, made.opacities[:, None]], 1).numpy() * 255.0)
    rows["quats"] = _byte(made.quats.double().numpy() * 128 + 128)
    seen = made.scales.double().prod(1) * made.opacities.double()
    order = torch.argsort(seen, descending=True, stable=True).numpy()
    with atomic_path(path) as temporary:
        temporary.write_bytes(rows[order].tobytes())


def _byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
