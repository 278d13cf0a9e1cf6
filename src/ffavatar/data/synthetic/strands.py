"""Hair that is grown, not hung: shells of fur for short hair and beards, cards for long hair, buns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.data.synthetic import painting, wraps
from ffavatar.data.synthetic.body import Body, Neutral
from ffavatar.data.synthetic.painting import smoothstep
from ffavatar.data.synthetic.variety import Beard, Cut
from ffavatar.render.mesh import Array

BEARD_LAYERS = 9
CARDS, CARD_STEPS = 330, 11


@dataclass(frozen=True)
class Shells:
    """Layers over some of the head's own triangles; they follow its skin."""

    rows: Array  # (n,) head vertices, once per layer
    faces: Array  # (F, 3) into rows
    uvs: Array  # (F, 3, 2) of the skin atlas
    layer: Array  # (F,)
    along: Array  # (n,) metres along the skin's normal
    lean: Array  # (n, 3) metres, turned with the head


def beard_shells(body: Body, neutral: Neutral, beard: Beard, rng: np.random.Generator) -> Shells:
    """Layers of a beard over the skin of the lower face."""
    amount = (
        painting.beard_amount(body.template, beard.style) * (1 - body.regions["lips"]) * ~body.regions["mouth_interior"]
    )
    chosen = np.flatnonzero((amount[body.faces].max(1) > 0.05) & body.regions["skin"][body.faces].all(1)
                            & ~body.regions["mouth_interior"][body.faces].any(1))  # fmt: skip
    used, faces = np.unique(body.faces[chosen], return_inverse=True)
    faces = faces.reshape(-1, 3)
    p = body.template[used]
    # Longest at the chin; the cheeks' beard is short whatever its length.
    reach = beard.length_m * amount[used] * (0.35 + 0.65 * smoothstep(-0.05, -0.085, p[:, 1])) + 0.0004
    down = np.stack([0.25 * np.sign(p[:, 0]) * rng.uniform(0, 1), np.full(len(p), -0.7), np.full(len(p), 0.12)], 1)
    rows, triangles, along, lean, layer = [], [], [], [], []
    for k in range(BEARD_LAYERS):
        height = (k + 0.5) / BEARD_LAYERS
        rows.append(used)
        triangles.append(faces + k * len(used))
        along.append(reach * height * (1 - 0.35 * height) + 0.0004)
        lean.append(down * (reach * height**1.5)[:, None])
        layer.append(np.full(len(faces), k))
    return Shells(np.concatenate(rows), np.concatenate(triangles), np.tile(body.uvs[chosen], (BEARD_LAYERS, 1, 1)),
                  np.concatenate(layer), np.concatenate(along), np.concatenate(lean))  # fmt: skip


@dataclass(frozen=True)
class Cards:
    """Strips of hair in the neutral head of an identity."""

    vertices: Array  # (P, 3)
    faces: Array  # (F, 3) int32
    uvs: Array  # (F, 3, 2) in a strand texture


def cards(body: Body, neutral: Neutral, cut: Cut, hairline: float, rng: np.random.Generator) -> Cards:
    """Strips that follow the scalp from the parting down, then hang; the face stays free but for a fringe."""
    field = wraps.head_field(body, neutral, smooth=4, ears=False)
    wave = cut.wave * (0.25 if cut.bun else 1.0)  # what is tied up is drawn straight
    count = CARDS
    # Roots over the scalp inside the hairline, the lowest first so that upper strands lie over them.
    golden = np.pi * (3 - np.sqrt(5))
    k = np.arange(count * 3)
    elevation = np.arcsin(np.clip(1 - 1.45 * (k + 0.5) / len(k), -1, 1))
    azimuth = (golden * k + np.pi) % (2 * np.pi) - np.pi
    root = wraps.on_sphere(field, azimuth, elevation)
    template = root - field.centre + painting.HEAD_CENTRE
    inside = np.flatnonzero(painting.hairline_depth(template, hairline) > 2)
    inside = inside[np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int)]
    elevation, azimuth = elevation[inside], azimuth[inside]
    n = len(inside)
    side = np.where(azimuth > cut.parting, 1.0, -1.0)
    start = np.abs(azimuth)
    # Where a strand leaves the skull: in front of the ears for the front ones, behind for the rest.
    front = smoothstep(1.9, 0.9, start)
    leave = np.maximum(start, 1.15 + 0.35 * rng.random(n)) * front + start * (1 - front)
    falls = (rng.random(n) < cut.fringe) & (start < 0.85) & (elevation > 0.5)
    leave = np.where(falls, start * 1.05, leave)
    side = np.where(start > 2.6, np.sign(azimuth), side)
    low = np.where(falls, np.radians(rng.uniform(12, 24, n)), np.radians(rng.uniform(-14, -4, n)))
    if cut.bun:  # straight to the knot
        leave, low = np.where(falls, leave, start), np.where(falls, low, elevation - 0.15)
    layer = (1 - np.arange(n) / n) * 0.6 + 0.4 * rng.random(n)  # what grows higher lies above
    lift = 0.003 + cut.lift_m * (0.35 + 0.65 * layer)
    length = cut.length_m * rng.uniform(0.82, 1.0, n)
    length = np.where(falls, 0.0, length)
    steps = np.linspace(0, 1, CARD_STEPS)
    phase, beat = rng.uniform(0, 6.3, n), cut.curls * rng.uniform(0.8, 1.25, n)
    over = 0.6  # share of the steps spent on the skull
    points = np.zeros((n, CARD_STEPS, 3))
    for s, t in enumerate(steps):
        on = np.minimum(t / over, 1.0)
        where = side * (start + (leave - start) * on**0.8)
        height = elevation + (low - elevation) * on
        standing = 0.002 + (lift - 0.002) * smoothstep(0.0, 0.55, np.array(on))
        place = wraps.on_sphere(field, where, height, field.at(where, height) + standing)
        hang = np.maximum(t - over, 0) / (1 - over)
        rest = np.maximum(length - 0.15, 0.0) if not cut.bun else np.zeros(n)
        place[:, 1] -= hang * rest
        inward = -0.25 * np.minimum(hang * rest, 0.05)  # cheeks narrow towards the jaw
        place[:, 0] += side * inward * np.sin(leave)
        far = np.maximum(hang * rest - 0.11, 0)  # and shoulders widen again
        place[:, 0] += side * np.abs(np.sin(leave)) * far * 0.35
        place[:, 2] += np.where(np.cos(leave) > -0.3, 0.25, -0.25) * far
        travelled = t * (0.15 + rest)
        swing = wave * np.sin(beat * 2 * np.pi * travelled + phase) * smoothstep(0.1, 0.5, np.array(t))
        other = wave * np.cos(beat * 2 * np.pi * travelled + phase) * smoothstep(0.1, 0.5, np.array(t))
        place += np.stack([swing * np.cos(where), 0.3 * other, -swing * np.sin(where)], 1)
        points[:, s] = place
    if cut.bun:  # all strands gather at the back of the head
        knot = wraps.on_sphere(field, np.array([np.pi]), np.array([np.radians(rng.uniform(-5, 55))]))[0]
        for s, t in enumerate(steps):
            pull = smoothstep(0.25, 1.0, np.array(t))
            toward = points[:, s] + (knot - points[:, s]) * pull
            d = toward - field.centre
            az, el = np.arctan2(d[:, 0], d[:, 2]), np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2]))
            least = field.at(az, el) + lift * 0.6
            grow = np.maximum(least / np.maximum(np.linalg.norm(d, axis=1), 1e-6), 1)[:, None]
            points[:, s] = np.where(falls[:, None], points[:, s], field.centre + d * grow)
    tangent = np.gradient(points, axis=1)
    outward = points - field.centre
    across = np.cross(tangent, outward)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    width = 0.011 * rng.uniform(0.7, 1.3, n)[:, None, None] * (1 - 0.35 * steps[None, :, None] ** 2)
    pair = np.stack([points - across * width, points + across * width], 2)  # (n, steps, 2, 3)
    one = wraps.grid_faces(CARD_STEPS, 2, False)
    faces = (one[None] + (np.arange(n) * CARD_STEPS * 2)[:, None, None]).reshape(-1, 3)
    strip = rng.integers(0, 8, n) / 8
    u = np.where(one % 2 == 0, 0.0, 0.125)
    v = 1 - (one // 2) / (CARD_STEPS - 1)
    uvs = np.stack([np.broadcast_to(u, (n, *u.shape)) + strip[:, None, None], np.broadcast_to(v, (n, *v.shape))], -1)
    made = Cards(pair.reshape(-1, 3), faces.astype(np.int32), uvs.reshape(-1, 3, 2).astype(np.float32))
    return _with_knot(made, knot - field.centre, field.centre, rng) if cut.bun else made


def _with_knot(made: Cards, place: Array, centre: Array, rng: np.random.Generator) -> Cards:
    """A ball of hair at ``place``."""
    rows, columns = 9, 16
    polar = np.linspace(0.02, np.pi - 0.02, rows)[:, None]
    turn = np.arange(columns) / columns * 2 * np.pi
    lumps = 1 + 0.06 * np.sin(3 * turn + 4 * polar + rng.uniform(0, 6))
    ball = np.stack([np.sin(polar) * np.cos(turn), np.broadcast_to(np.cos(polar), lumps.shape),
                     np.sin(polar) * np.sin(turn)], -1) * lumps[..., None]  # fmt: skip
    size = rng.uniform(0.024, 0.036)
    middle = centre + place * (1 + 0.6 * size / np.linalg.norm(place))
    faces = wraps.grid_faces(rows, columns, True)
    uvs = wraps.grid_uvs(rows, columns, faces, 1.0, 0.3)[..., ::-1] * [1.0, 0.35] + [0.0, 0.62]
    return Cards(np.concatenate([made.vertices, middle + (ball * size).reshape(-1, 3)]),
                 np.concatenate([made.faces, faces + len(made.vertices)]).astype(np.int32),
                 np.concatenate([made.uvs, uvs.astype(np.float32)]))  # fmt: skip


def strand_texture(rng: np.random.Generator, color: Array, tips: Array, size: int = 256) -> Array:
    """(size, size, 4) uint8: eight bundles side by side, roots at v = 1, thinning and ragged towards v = 0."""
    columns = np.arange(size)
    shade = 1 + 0.13 * rng.normal(0, 1, size) + 0.1 * np.repeat(rng.normal(0, 1, size // 4), 4)
    v = 1 - (np.arange(size) + 0.5)[:, None] / size
    across = np.abs((columns % (size // 8)) / (size // 8) * 2 - 1)
    end = rng.uniform(0.0, 0.25, size) + 0.25 * across**2
    edge = smoothstep(1.0, 0.72, across + 0.15 * rng.normal(0, 1, size))
    alpha = edge[None] * smoothstep(-0.05, 0.12, v - end[None])
    blend = smoothstep(0.75, 0.15, v)[..., None]
    base = color * (1 - blend) + tips * blend
    base = base * np.clip(shade, 0.35, 1.8)[None, :, None] * (0.8 + 0.2 * v[..., None])
    out = np.empty((size, size, 4), np.uint8)
    out[..., :3] = np.clip(base, 0, 1) ** (1 / painting.GAMMA) * 255 + 0.5
    out[..., 3] = np.clip(alpha, 0, 1) * 255 + 0.5
    return out
