"""Readers of the exported formats, written from their specifications and sharing nothing with the writers."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image, ImageSequence

from ffavatar.types import Gaussians


def gaussians(means: Any, quats: Any, scales: Any, opacities: Any, colors: Any) -> Gaussians:
    parts = (torch.from_numpy(np.ascontiguousarray(np.asarray(x, np.float32))) for x in (quats, scales, opacities))
    quats_, scales_, opacities_ = parts
    means_, colors_ = (torch.from_numpy(np.ascontiguousarray(np.asarray(x, np.float32))) for x in (means, colors))
    return Gaussians(means_, torch.nn.functional.normalize(quats_, dim=-1), scales_, opacities_, colors_)


def read_ply(content: bytes) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns by name and the comments, of a little-endian PLY with one element."""
    head, _, body = content.partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count, names, comments = 0, [], []
    for line in lines[2:]:
        word, *rest = line.split(" ")
        if word == "comment":
            comments.append(" ".join(rest))
        elif word == "element":
            assert rest[0] == "vertex"
            count = int(rest[1])
        else:
            assert (word, rest[0]) == ("property", "float")
            names.append(rest[1])
    rows = np.frombuffer(body, "<f4").reshape(count, len(names))
    return dict(zip(names, rows.T)), comments


def ply_gaussians(columns: dict[str, np.ndarray]) -> Gaussians:
    """As the reference implementation activates them: exp, sigmoid, 0.5 + C0 * f_dc; rot_0 is the real part."""

    def block(*names: str) -> np.ndarray:
        return np.stack([columns[name] for name in names], 1).astype(np.float64)

    return gaussians(
        block("x", "y", "z"),
        block("rot_0", "rot_1", "rot_2", "rot_3"),
        np.exp(block("scale_0", "scale_1", "scale_2")),
        1 / (1 + np.exp(-columns["opacity"].astype(np.float64))),
        0.5 + block("f_dc_0", "f_dc_1", "f_dc_2") / (2 * math.sqrt(math.pi)),
    )


def read_spz(path: Path) -> Gaussians:
    """SPZ versions 3 without harmonics beyond the first."""
    data = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, flags, reserved = struct.unpack_from("<IIIBBBB", data)
    assert (magic, version, degree, flags, reserved) == (0x5053474E, 3, 0, 0, 0)
    assert len(data) == 16 + count * 20
    at = 16

    def take(width: int) -> np.ndarray:
        nonlocal at
        block = np.frombuffer(data, np.uint8, count * width, at).reshape(count, width)
        at += count * width
        return block

    raw = take(9).reshape(count, 3, 3).astype(np.int64)
    fixed = raw[..., 0] | raw[..., 1] << 8 | raw[..., 2] << 16
    means = np.where(fixed >= 1 << 23, fixed - (1 << 24), fixed) / 2.0**bits
    alphas, colours, sizes, turns = take(1), take(3), take(3), take(4)
    words = turns.astype(np.uint64) @ (1 << np.array([0, 8, 16, 24], np.uint64))
    quats = np.array([unpack_quaternion(int(word)) for word in words])
    f_dc = (colours / 255 - 0.5) / 0.15
    rgb = 0.5 + f_dc / (2 * math.sqrt(math.pi))
    return gaussians(means, quats, np.exp(sizes / 16 - 10), alphas[:, 0] / 255, rgb)


def unpack_quaternion(word: int) -> list[float]:
    """Thirty-two bits -> w, x, y, z."""
    largest, xyzw = word >> 30, [0.0] * 4
    for component in (3, 2, 1, 0):
        if component != largest:
            magnitude = (word & 511) / 511 * math.sqrt(0.5)
            xyzw[component] = -magnitude if word >> 9 & 1 else magnitude
            word >>= 10
    xyzw[largest] = math.sqrt(max(0.0, 1 - sum(value * value for value in xyzw)))
    return [xyzw[3], *xyzw[:3]]


def read_splat(path: Path) -> Gaussians:
    data = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 32)
    floats = np.ascontiguousarray(data[:, :24]).view("<f4").astype(np.float64)
    turns = (data[:, 28:].astype(np.float64) - 128) / 128
    return gaussians(floats[:, :3], turns, floats[:, 3:], data[:, 27] / 255, data[:, 24:27] / 255)


def usd_array(text: str, name: str) -> np.ndarray:
    """An array of a .usda text: (N, width)."""
    found = re.search(rf" {re.escape(name)} = \[(.*)\]", text)
    assert found is not None
    rows = re.findall(r"\(([^)]*)\)", found[1]) or [found[1]]
    return np.array([[float(v) for v in row.split(",")] for row in rows])


def usd_gaussians(positions: Any, orientations: Any, scales: Any, opacities: Any, coefficients: Any) -> Gaussians:
    return gaussians(
        positions, orientations, scales, opacities, 0.5 + np.asarray(coefficients) / (2 * math.sqrt(math.pi))
    )


def read_usda(path: Path) -> Gaussians:
    text = path.read_text(encoding="utf-8")
    harmonics = usd_array(text, "radiance:sphericalHarmonicsCoefficients")
    parts = [usd_array(text, name) for name in ("positions", "orientations", "scales")]
    return usd_gaussians(*parts, usd_array(text, "opacities")[0], harmonics)


def read_lam(path: Path) -> Gaussians:
    """LAM's zip at rest: offsets on the skin's vertices, colours raw in f_dc."""
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0]
        columns, _ = read_ply(archive.read(f"{folder}offset.ply"))
        skin = Gltf(archive.read(f"{folder}skin.glb"))
    means = np.stack([columns[k] for k in "xyz"], 1) + skin.attribute(skin.node("avatar"), "POSITION")
    turns = np.stack([columns[f"rot_{k}"] for k in range(4)], 1)
    scales = np.exp(np.stack([columns[f"scale_{k}"] for k in range(3)], 1))
    opacities = 1 / (1 + np.exp(-columns["opacity"].astype(np.float64)))
    return gaussians(means, turns, scales, opacities, np.stack([columns[f"f_dc_{k}"] for k in range(3)], 1))


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), colours (V, 3) and triangles (F, 3) from 0."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = np.array([[float(word) for word in line.split()[1:]] for line in lines if line.startswith("v ")])
    faces = np.array([[int(word) for word in line.split()[1:]] for line in lines if line.startswith("f ")])
    return rows[:, :3], rows[:, 3:], faces - 1


def read_film(path: Path, alpha: bool = False, fps: float | None = None) -> list[np.ndarray]:
    """Frames (H, W, 3) or, with ``alpha``, (H, W, 4) uint8 of a film, an animation or a folder of pictures.

    Animated WebP holds a picture that stays once, for longer; with ``fps`` it is given as often as it is shown."""
    mode = "RGBA" if alpha else "RGB"
    if path.is_dir():
        return [np.asarray(Image.open(file).convert(mode)) for file in sorted(path.iterdir())]
    if path.suffix in (".gif", ".webp"):
        frames, ends = [], 0.0
        with Image.open(path) as picture:
            for frame in ImageSequence.Iterator(picture):
                shown = np.asarray(frame.convert(mode))
                ends += frame.info["duration"] / 1000
                frames += [shown] * (round(ends * fps) - len(frames) if fps else 1)
        return frames
    with av.open(str(path)) as container:
        if alpha and path.suffix == ".webm":  # FFmpeg's own VP9 decoder leaves transparency out, libvpx reads it
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            frames = [f for packet in container.demux(video=0) for f in (decoder.decode(packet) if packet.size else [])]
            frames += decoder.decode(None)
        else:
            frames = list(container.decode(video=0))
    return [
        f.reformat(format=mode.lower() + ("" if alpha else "24"), src_colorspace="ITU709").to_ndarray() for f in frames
    ]


def over_white(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1] of uint8 RGB, or of straight RGBA laid over white."""
    values = image.astype(np.float64) / 255
    return values if image.shape[2] == 3 else 1 - values[..., 3:] * (1 - values[..., :3])


def film_psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """dB over white; 300 for equal pictures."""
    return -10 * math.log10(max(float(np.square(over_white(found) - over_white(wanted)).mean()), 1e-30))


def page_block(text: str, name: str) -> bytes:
    """A block of data of a self-contained page."""
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', text)
    assert found is not None
    return base64.b64decode(found[1], validate=True)


class Gltf:
    """A binary glTF: its JSON, its accessors, and its meshes morphed, posed and skinned in float64."""

    def __init__(self, content: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        at, self.binary = 12, b""
        while at < length:
            size, kind = struct.unpack_from("<I4s", content, at)
            assert size % 4 == 0
            chunk = content[at + 8 : at + 8 + size]
            if kind == b"JSON":
                self.json: dict[str, Any] = json.loads(chunk)
            else:
                assert kind == b"BIN\0"
                self.binary = chunk
            at += 8 + size
        assert at == length

    def _values(self, view: int, kind: int, count: int, width: int) -> np.ndarray:
        dtype = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[kind]
        place = self.json["bufferViews"][view]
        start = place.get("byteOffset", 0)
        assert start % 4 == 0 and count * width * np.dtype(dtype).itemsize <= place["byteLength"]
        return np.frombuffer(self.binary, dtype, count * width, start).reshape(count, width)

    def accessor(self, index: int) -> np.ndarray:
        """(count, width), normalised integers as fractions."""
        item = self.json["accessors"][index]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[item["type"]]
        count, kind = item["count"], item["componentType"]
        values = np.zeros((count, width))
        if "bufferView" in item:
            raw = self._values(item["bufferView"], kind, count, width)
            largest = np.iinfo(raw.dtype).max if item.get("normalized") else 1
            values = np.maximum(raw / largest, -1.0) if item.get("normalized") else raw.astype(np.float64)
        if "sparse" in item:
            sparse = item["sparse"]
            where = self._values(
                sparse["indices"]["bufferView"], sparse["indices"]["componentType"], sparse["count"], 1
            )
            assert (np.diff(where[:, 0].astype(np.int64)) > 0).all()
            values[where[:, 0]] = self._values(sparse["values"]["bufferView"], kind, sparse["count"], width)
        if "min" in item:
            np.testing.assert_allclose(values.min(0), item["min"], atol=1e-6)
            np.testing.assert_allclose(values.max(0), item["max"], atol=1e-6)
        return values

    def node(self, name: str) -> int:
        return next(i for i, node in enumerate(self.json["nodes"]) if node.get("name") == name)

    def primitive(self, node: int) -> dict[str, Any]:
        return self.json["meshes"][self.json["nodes"][node]["mesh"]]["primitives"][0]

    def attribute(self, node: int, name: str) -> np.ndarray:
        return self.accessor(self.primitive(node)["attributes"][name])

    def target_names(self, node: int) -> list[str]:
        return self.json["meshes"][self.json["nodes"][node]["mesh"]]["extras"]["targetNames"]

    def gaussians(self, node: int) -> Gaussians:
        kind = "KHR_gaussian_splatting"
        assert self.primitive(node)["extensions"][kind]["kernel"] == "ellipse"
        return gaussians(
            self.attribute(node, "POSITION"),
            self.attribute(node, f"{kind}:ROTATION")[:, [3, 0, 1, 2]],
            self.attribute(node, f"{kind}:SCALE"),
            self.attribute(node, f"{kind}:OPACITY")[:, 0],
            0.5 + self.attribute(node, f"{kind}:SH_DEGREE_0_COEF_0") / (2 * math.sqrt(math.pi)),
        )

    def sample(self, animation: int, frame: int) -> dict[tuple[int, str], np.ndarray]:
        """(node, path) -> value at a key frame."""
        clip = self.json["animations"][animation]
        found = {}
        for channel in clip["channels"]:
            sampler = clip["samplers"][channel["sampler"]]
            times, values = self.accessor(sampler["input"]), self.accessor(sampler["output"])
            rows = values.reshape(len(times), -1)
            found[channel["target"]["node"], channel["target"]["path"]] = rows[frame]
        return found

    def world(self, pose: dict[tuple[int, str], np.ndarray]) -> dict[int, np.ndarray]:
        """Global matrices of all nodes."""
        parents = {c: i for i, node in enumerate(self.json["nodes"]) for c in node.get("children", [])}

        def matrix(node: int) -> np.ndarray:
            item = self.json["nodes"][node]
            moved = np.eye(4)
            moved[:3, 3] = pose.get((node, "translation"), item.get("translation", [0, 0, 0]))
            x, y, z, w = pose.get((node, "rotation"), item.get("rotation", [0, 0, 0, 1]))
            turn = np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ]
            )
            moved[:3, :3] = turn * np.array(item.get("scale", [1, 1, 1]))
            return matrix(parents[node]) @ moved if node in parents else moved

        return {i: matrix(i) for i in range(len(self.json["nodes"]))}

    def skinned(self, node: int, pose: dict[tuple[int, str], np.ndarray]) -> np.ndarray:
        """Positions (N, 3) of a mesh: morph targets by their weights, then linear blend skinning."""
        primitive = self.primitive(node)
        points = self.attribute(node, "POSITION").copy()
        weights = pose.get((node, "weights"), np.zeros(len(primitive["targets"])))
        for weight, target in zip(weights, primitive["targets"], strict=True):
            if weight:
                points += weight * self.accessor(target["POSITION"])
        skin = self.json["skins"][self.json["nodes"][node]["skin"]]
        inverse = self.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        world = self.world(pose)
        matrices = np.stack([world[joint] for joint in skin["joints"]]) @ inverse
        joints = self.attribute(node, "JOINTS_0").astype(int)
        shares = self.attribute(node, "WEIGHTS_0")
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-9)
        blended = (matrices[joints] * shares[..., None, None]).sum(1)
        return (blended[:, :3, :3] @ points[..., None])[..., 0] + blended[:, :3, 3]
