"""Procedural spectacles: two rims, a bridge and temples, as tubes, and lenses where they mirror or are dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.data.synthetic.body import Body, Neutral
from ffavatar.data.synthetic.painting import ear_mask, smoothstep
from ffavatar.data.synthetic.variety import Frames
from ffavatar.render.mesh import Array


@dataclass(frozen=True)
class Glasses:
    vertices: Array  # (P, 3) in the neutral head of an identity
    faces: Array  # (F, 3) int32
    lens: Array  # (F,) bool: faces of a lens
    uvs: Array  # (F, 3, 2): of the lenses, from -1 to 1 across; 0 elsewhere


def _tube(path: Array, radius: float, closed: bool, sides: int = 6) -> tuple[Array, Array]:
    """A tube of ``sides`` faces along a path (n, 3)."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not closed:
        tangent[0], tangent[-1] = path[1] - path[0], path[-1] - path[-2]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.where(np.abs(tangent[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    side = np.cross(tangent, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(side, tangent)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    faces = []
    for i in range(len(path) if closed else len(path) - 1):
        a, b = i * sides, (i + 1) % len(path) * sides
        for k in range(sides):
            n = (k + 1) % sides
            faces += [(a + k, b + k, b + n), (a + k, b + n, a + n)]
    return vertices, np.array(faces, np.int32)


def lens_texture(rng: np.random.Generator, frames: Frames, size: int = 64) -> Array:
    """(size, size, 4) uint8: where a lens mirrors the room (white), or is dark; alpha says how much of it is seen."""
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    slope, place = rng.uniform(-1, 1), rng.uniform(-0.5, 0.5)
    band = smoothstep(0.35, 0.2, np.abs(y - place - slope * x)) * smoothstep(-0.4, 0.6, rng.normal() * x + 0.4)
    out = np.full((size, size, 4), 255, np.uint8)
    if frames.style == "sun":
        shade = 12 + 40 * (0.5 - 0.5 * y) * rng.random() + 60 * band * frames.glare
        out[..., :3] = np.clip(shade, 0, 255)[..., None] * np.clip(1 + rng.normal(0, 0.08, 3), 0.8, 1.2)
    else:
        out[..., :3] = 150
        out[..., 3] = np.clip(band * frames.glare * 1.4, 0, 0.6) * 255
    return out


def make_glasses(body: Body, neutral: Neutral, rng: np.random.Generator, frames: Frames) -> Glasses:
    """Spectacles that rest in front of this identity's eyes and reach its ears."""
    skin = neutral.vertices[np.flatnonzero(body.regions["skin"])]
    cheek = neutral.vertices[np.flatnonzero(body.regions["skin"] & (ear_mask(body.template) < 0.5))]
    left, right = neutral.joints[3], neutral.joints[4]
    middle = (left + right) / 2
    half = abs(left[0] - right[0]) / 2
    width, height = half * rng.uniform(0.72, 0.84), half * rng.uniform(0.5, 0.74)
    power, _ = rng.choice([2.0, 2.6, 4.0]), rng.uniform(0.0009, 0.0022)
    thick = frames.thick_m
    if frames.style == "sun":
        width, height = width * 1.08, height * 1.12
    drop = rng.uniform(0.002, 0.006)
    near = skin[(np.abs(skin[:, 0]) < half * 1.7) & (np.abs(skin[:, 1] - middle[1]) < 0.028)]
    angle = np.arange(28) / 28 * 2 * np.pi
    pieces, lenses = [], []
    for eye in (left, right):
        c, s = np.cos(angle), np.sin(angle)
        x = eye[0] + width * np.sign(c) * np.abs(c) ** (2 / power)
        y = eye[1] - drop + height * np.sign(s) * np.abs(s) ** (2 / power)
        front = np.full(len(angle), eye[2] + 0.024)
        for k in range(len(angle)):  # clear of brows and cheeks
            close = near[(np.abs(near[:, 0] - x[k]) < 0.007) & (np.abs(near[:, 1] - y[k]) < 0.007)]
            if len(close):
                front[k] = max(front[k], close[:, 2].max() + 0.002)
        plane = np.polyfit(y, np.maximum(front, front.mean()), 1)  # one flat rim that leans as the face does
        z = np.polyval(plane, y) + max(0.0, float((front - np.polyval(plane, y)).max()) - 0.004)
        rim = np.stack([x, y, z], 1)
        pieces.append(_tube(rim, thick if frames.style != "half" else thick * 0.35, True))
        if frames.style == "half":  # a strong upper rim, a thread below
            upper = np.flatnonzero(s > -0.05)
            pieces.append(_tube(rim[upper[np.argsort(x[upper])]], thick, False))
        if frames.style == "sun" or frames.glare > 0.05:
            lenses.append((np.concatenate([rim.mean(0)[None], rim]), np.stack([c, s], 1) * 0.98))
        outer = np.sign(eye[0])
        order = np.argsort(y)
        hinge_z = float(np.interp(eye[1], y[order], z[order]))
        hinge = np.array([eye[0] + outer * width, eye[1] - drop + height * 0.35, hinge_z])
        widths = []
        for z_at in (hinge[2] - 0.02, 0.02, -0.012):  # close along the temple, to where the ear begins
            level = (np.abs(cheek[:, 1] - hinge[1]) < 0.012) & (np.abs(cheek[:, 2] - z_at) < 0.014)
            side = cheek[(cheek[:, 0] * outer > 0) & level]
            widths.append(float((side[:, 0] * outer).max()) + 0.0015 if len(side) else abs(hinge[0]))
        reach = np.maximum.accumulate(np.maximum(widths, abs(hinge[0]) + 0.001))
        path = np.stack([hinge, [outer * reach[0], hinge[1], hinge[2] - 0.02], [outer * reach[1], hinge[1], 0.02],
                         [outer * reach[2], hinge[1] - 0.002, -0.012]])  # fmt: skip
        pieces.append(_tube(path, thick * 0.9, False))
    inner = [left[0] - width, right[0] + width]
    rim_z = float(pieces[0][0][:, 2].mean())
    nose = skin[(np.abs(skin[:, 0]) < 0.008) & (np.abs(skin[:, 1] - middle[1]) < 0.012)]
    rise = max(rim_z, float(nose[:, 2].max(initial=-1.0)) + 0.003) - rim_z  # the bridge clears the nose
    t = np.linspace(0, 1, 7)
    bow = np.sin(np.pi * t)
    x, y = inner[0] + (inner[1] - inner[0]) * t, middle[1] - drop + height * 0.3 + 0.004 * bow
    arch = np.stack([x, y, rim_z + rise * bow], 1)
    pieces.append(_tube(arch, thick, False))
    vertices, faces, count = [], [], 0
    for v, f in pieces:
        vertices.append(v)
        faces.append(f + count)
        count += len(v)
    frame = sum(len(f) for f in faces)
    uvs = [np.zeros((frame, 3, 2))]
    for v, around in lenses:
        corner = np.arange(len(around))
        fan: Array = np.stack([np.zeros_like(corner), corner + 1, (corner + 1) % len(corner) + 1], 1)
        vertices.append(v)
        faces.append(fan + count)
        count += len(v)
        uvs.append(np.concatenate([np.zeros((1, 2)), around])[fan] * 0.5 + 0.5)
    joined = np.concatenate(faces).astype(np.int32)
    return Glasses(np.concatenate(vertices), joined, np.arange(len(joined)) >= frame,
                   np.concatenate(uvs).astype(np.float32))  # fmt: skip
