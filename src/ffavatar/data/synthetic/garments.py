"""Clothes at the neck, caps, beanies and head scarves: swept surfaces around the neck and over the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ffavatar.data.synthetic import painting, wraps
from ffavatar.data.synthetic.body import Body, Neutral
from ffavatar.data.synthetic.painting import smoothstep
from ffavatar.data.synthetic.variety import Clothes, Headwear
from ffavatar.render.mesh import Array

AROUND = 48  # columns of what goes round a neck or a head
TILE_M = 0.06  # side of a cloth texture
HAIR_UNDER_HAT_M = 0.005


@dataclass(frozen=True)
class Worn:
    """A surface in the neutral head of an identity."""

    vertices: Array  # (P, 3)
    faces: Array  # (F, 3) int32
    uvs: Array  # (F, 3, 2) in cloth textures
    head_share: Array  # (P,) 1 turns with the head, 0 stays with the torso
    second: bool = False  # of the second colour


def neckline(body: Body, neutral: Neutral, collar: tuple[float, float, float]) -> Array:
    """(AROUND, 3) where the shirt of this collar ends on the skin, from the back around over the person's right."""
    value, chin = painting.neckline_field(body.template, collar)
    edges = np.concatenate([body.faces[:, [0, 1]], body.faces[:, [1, 2]], body.faces[:, [2, 0]]])
    usable = body.regions["skin"] & ~chin & (body.template[:, 1] < -0.085)
    edges = edges[usable[edges].all(1)]
    a, b = value[edges[:, 0]] - 1, value[edges[:, 1]] - 1
    cross = np.sign(a) != np.sign(b)
    edges, t = edges[cross], (a / (a - b))[cross][:, None]
    own = neutral.vertices[edges[:, 0]] * (1 - t) + neutral.vertices[edges[:, 1]] * t
    place = body.template[edges[:, 0]] * (1 - t) + body.template[edges[:, 1]] * t
    azimuth = np.arctan2(place[:, 0], place[:, 2] - wraps.NECK_AXIS_Z)
    order = np.argsort(azimuth)
    azimuth, own = azimuth[order], own[order]
    wrapped = np.concatenate([azimuth - 2 * np.pi, azimuth, azimuth + 2 * np.pi])
    want = around()
    out = np.stack([np.interp(want, wrapped, np.tile(own[:, k], 3)) for k in range(3)], 1)
    for _ in range(2):
        out = 0.25 * np.roll(out, 1, 0) + 0.5 * out + 0.25 * np.roll(out, -1, 0)
    return out


def around() -> Array:
    """(AROUND,) azimuths from -pi."""
    return (np.arange(AROUND) + 0.5) / AROUND * 2 * np.pi - np.pi


def _grid(rows: list[Array], closed: bool, share: Array | float = 0.0, second: bool = False) -> Worn:
    """Rows of equally many points as one surface; ``share`` per row."""
    points = np.stack(rows)
    count, columns = points.shape[:2]
    faces = wraps.grid_faces(count, columns, closed)
    wide = np.linalg.norm(np.diff(points[0], axis=0), axis=1).sum() / TILE_M
    high = np.linalg.norm(np.diff(points[:, 0], axis=0), axis=1).sum() / TILE_M
    uvs = wraps.grid_uvs(count, columns, faces, max(1, round(wide)), max(high, 0.1))
    flat = points.reshape(-1, 3)
    a, b, c = flat[faces[:, 0]], flat[faces[:, 1]], flat[faces[:, 2]]
    normal = np.cross(b - a, c - a)
    if (normal * ((a + b + c) / 3 - flat.mean(0))).sum() < 0:  # the outer side is what light and occlusion see
        faces, uvs = np.ascontiguousarray(faces[:, ::-1]), np.ascontiguousarray(uvs[:, ::-1])
    shares = np.repeat(np.broadcast_to(share, (count,)), columns).astype(np.float64)
    return Worn(flat, faces, uvs, shares, second)


def dress(body: Body, neutral: Neutral, collar: tuple[float, float, float], clothes: Clothes, rng) -> list[Worn]:
    """The surfaces of a garment beyond the painted shirt; none for a plain neckline."""
    if clothes.kind == "tee":
        return []
    field = wraps.neck_field(body, neutral)
    angle = around()
    if clothes.kind == "crew":
        line = neckline(body, neutral, (collar[0] + 0.006, collar[1] + 0.004, collar[2]))
        ring = wraps.roll(line + np.array([0, 0.001, 0]), np.full(AROUND, 0.0065), 6).reshape(AROUND, 6, 3)
        return [_grid([*ring, ring[0]], True)]
    if clothes.kind == "turtleneck":
        heights = np.linspace(-0.145, -0.082, 6)
        rows = [wraps.on_neck(field, angle, np.full(AROUND, y), 0.005) for y in heights]
        rows += [wraps.on_neck(field, angle, np.full(AROUND, y), 0.011) for y in (-0.080, -0.086, -0.125)]
        return [_grid(rows, True, np.clip((np.array([r[0, 1] for r in rows]) + 0.15) / 0.2, 0, 0.3))]
    if clothes.kind == "scarf":
        return _scarf(field, angle, rng)
    if clothes.kind == "hood":
        return _hood(field, angle, clothes, rng)
    thick = clothes.lift_m + clothes.fold_m
    if clothes.kind == "jacket":  # over the shirt's collar a wider one that stands open down to a V
        shirt = [_collar(field, clothes, rng, 0.0, True)] if rng.random() < 0.6 else []
        return [*shirt, _lapels(field, thick)]
    return [_collar(field, clothes, rng, thick, False)]


def _collar(field: wraps.Field, clothes: Clothes, rng, out: float, second: bool) -> Worn:
    """A turned-down shirt collar: a band up the neck, then a leaf that falls outwards to points at the front."""
    angle = np.linspace(clothes.gap, 2 * np.pi - clothes.gap, AROUND)
    front = np.minimum(angle, 2 * np.pi - angle)  # from straight ahead
    low = -0.142 + 0.012 * smoothstep(0.8, 2.5, front)
    top = low + clothes.height_m * (0.8 + 0.2 * smoothstep(0.3, 1.5, front)) + 0.006 * smoothstep(1.2, 2.8, front)
    points = np.exp(-(((front - clothes.gap) / 0.35) ** 2))
    leaf = clothes.height_m * (1.15 + rng.uniform(0.3, 0.9) * points) * (0.7 if second else 1.0)
    rows = [wraps.on_neck(field, angle, low, 0.004), wraps.on_neck(field, angle, top, 0.004)]
    rows.append(wraps.on_neck(field, angle, top + 0.002, 0.007))
    for t in (0.4, 0.75, 1.0):
        down = top - leaf * t
        # The leaf keeps off the shoulder: its radius is that of the body below it.
        reach = np.maximum(field.at(angle, down), field.at(angle, top) + 0.012 * t)
        rows.append(wraps.on_neck(field, angle, down, reach - field.at(angle, down) + 0.006 + out * t + 0.003 * t))
    return _grid(rows, False, np.array([0.0, 0.12, 0.12, 0.06, 0.0, 0.0]), second)


def _lapels(field: wraps.Field, thick: float) -> Worn:
    angle = np.linspace(0.3, 2 * np.pi - 0.3, AROUND)
    front = np.minimum(angle, 2 * np.pi - angle)
    top = wraps.height_where(field, angle, 0.078 - 0.006 * smoothstep(1.5, 2.6, front)) + 0.012
    top = np.minimum(top, -0.112)
    inner = top + (-0.225 - top) * smoothstep(1.35, 0.3, front)
    width = 0.032 + 0.018 * smoothstep(1.6, 0.6, front)
    rows = []
    for t, out in ((0.0, 0.003), (0.03, 0.008), (0.5, 0.008), (1.0, 0.006), (1.05, -0.004)):
        reach = thick * smoothstep(0.0, 0.3, np.array(t))
        down = np.where(front > 1.2, inner - width * t, inner - width * t * 0.5)
        hang = np.maximum(field.at(angle, inner) + 0.004 * t - field.at(angle, down), 0)
        rows.append(wraps.on_neck(field, angle, down, out + reach + hang))
    return _grid(rows, False)


def _scarf(field: wraps.Field, angle: Array, rng) -> list[Worn]:
    parts = []
    for height, thick, share in ((-0.142, 0.026, 0.0), (-0.108, 0.021, 0.15)):
        wave = sum(rng.normal(0, 0.2) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5, 8))
        radius = thick * (1 + 0.5 * np.clip(wave, -0.6, 0.8))
        level = height + 0.012 * np.cos(angle - rng.uniform(-0.4, 0.4)) * -1 + 0.004 * wave
        path = wraps.on_neck(field, angle, level, radius * 0.75 - 0.002)
        ring = wraps.roll(path, radius, 12).reshape(AROUND, 12, 3)
        crease = 1 + 0.12 * np.cos(np.arange(12) * 2.1 + 3 * np.sin(2 * angle)[:, None] + rng.uniform(0, 6))
        ring = path[:, None] + (ring - path[:, None]) * crease[..., None]
        parts.append(_grid([*ring, ring[0]], True, share))
    return parts


def _hood(field: wraps.Field, angle: Array, clothes: Clothes, rng) -> list[Worn]:
    """A hood that lies on the back: thin and low at the front, a thick roll behind; cords hang from it."""
    back = 0.5 * (1 - np.cos(angle))
    wide = 0.094 - 0.012 * smoothstep(0.3, 0.9, back)
    level = np.clip(wraps.height_where(field, angle, wide), -0.2, -0.11) + 0.008 * smoothstep(0.2, 0.8, back)
    level = level + (-0.19 - level) * smoothstep(0.3, 0.0, back)
    for _ in range(3):
        level = 0.25 * np.roll(level, 1) + 0.5 * level + 0.25 * np.roll(level, -1)
    radius = 0.010 + rng.uniform(0.018, 0.034) * smoothstep(0.15, 1.0, back)
    radius = radius * (1 + 0.12 * np.cos(3 * angle + rng.uniform(0, 6)) + 0.08 * np.cos(7 * angle + rng.uniform(0, 6)))
    path = wraps.on_neck(field, angle, level, radius * 0.5 + 0.5 * clothes.lift_m)
    ring = wraps.roll(path, radius, 10).reshape(AROUND, 10, 3)
    parts = [_grid([*ring, ring[0]], True)]
    if rng.random() < 0.6:
        for side in (-1, 1):
            y = np.linspace(-0.176, -0.245, 8)
            turn = side * (0.3 + 0.1 * np.linspace(0, 1, 8) + 0.03 * np.sin(np.linspace(0, rng.uniform(2, 6), 8)))
            line = wraps.on_neck(field, turn, y, clothes.lift_m + 0.012)
            rows = [line + np.array([dx, 0, dz]) for dx, dz in ((-0.0028, 0), (0, 0.0028), (0.0028, 0), (-0.0028, 0))]
            parts.append(_grid(rows, False, 0.0, True))
    return parts


def hat_edge(worn: Headwear, azimuth: Array) -> Array:
    """Elevation (radians, from the skull's middle) of the edge of what is worn on the head."""
    ahead = np.cos(azimuth)
    if worn.kind == "beanie":
        return np.radians(-20 + 42 * (0.5 + 0.5 * ahead)) + worn.tilt * ahead * 0.6
    if worn.kind == "cap":
        return np.radians(-8 + 30 * (0.5 + 0.5 * ahead)) + worn.tilt * ahead * 0.5
    return np.radians(-75 + 105 * (0.5 + 0.5 * ahead))


def cover_head(body: Body, neutral: Neutral, worn: Headwear, rng) -> list[Worn]:
    """A cap, beanie or head scarf over hair that is pressed to ``HAIR_UNDER_HAT_M`` off the scalp."""
    hair_m = HAIR_UNDER_HAT_M
    if worn.kind == "headscarf":
        return _headscarf(body, neutral, hair_m, rng)
    field = wraps.head_field(body, neutral, smooth=5)
    angle = around()
    turn = np.pi if worn.backwards and worn.kind == "cap" else 0.0
    edge = hat_edge(worn, angle)
    if worn.kind == "beanie":
        bands: list[tuple[float, Any]] = [(0.0, 0.0), (0.0, 0.0045), (0.32, 0.0055), (0.36, 0.001)]
        bands += [(t, 0.001 + worn.slack_m * smoothstep(0.3, 0.9, t)) for t in np.linspace(0.42, 1.0, 10)]
    else:
        bands = [(0.0, 0.0)] + [(t, 0.003 + 0.006 * np.sin(np.pi * t)) for t in np.linspace(0.02, 1.0, 12)]
    ripple = sum(rng.normal(0, 0.0006) * np.cos(k * angle + rng.uniform(0, 6)) for k in (3, 5, 9))
    rows = []
    for t, out in bands:
        elevation = edge + (np.pi / 2 - 0.02 - edge) * t
        radius = field.at(angle, elevation)
        if t > 0.55:  # the crown is round whatever the skull is
            radius = radius + (radius.mean() - radius) * smoothstep(0.55, 1.0, np.array(t))
        rows.append(wraps.on_sphere(field, angle, elevation, radius + hair_m + 0.002 + out + ripple * (1 + 2 * t)))
    parts = [_grid(rows, True, 1.0)]
    if worn.kind == "cap":
        spread = np.linspace(-1.05, 1.05, 21)
        level = np.interp(spread, angle, edge) if not turn else np.full(21, float(edge[0]))
        root = wraps.on_sphere(field, spread + turn, level, field.at(spread + turn, level) + hair_m + 0.003)
        forward = np.array([0.0, -0.25, 1.0]) if not turn else np.array([0.0, -0.5, -1.0])
        long = rng.uniform(0.05, 0.07)
        brim = []
        for t in (0.0, 0.35, 0.7, 1.0):
            shape = np.sqrt(np.clip(1 - (spread / 1.12) ** 2, 0, 1))[:, None]
            drop = -0.022 * (spread[:, None] ** 2) * t
            brim.append(root + long * t * shape * forward + np.concatenate([0 * drop, drop, 0 * drop], 1))
        under = [row + np.array([0, -0.0035, 0]) for row in brim[::-1]]
        parts.append(_grid([*brim, *under], False, 1.0, rng.random() < 0.3))
    return parts


def _headscarf(body: Body, neutral: Neutral, hair_m: float, rng) -> list[Worn]:
    """Cloth from an oval about the face over the head, and a wrap from the chin down onto the shoulders."""
    field = wraps.head_field(body, neutral, smooth=6)
    theta = around()  # about the axis that looks ahead; 0 is up
    up = np.cos(theta)
    wide, high, low = np.radians(rng.uniform(46, 54)), np.radians(rng.uniform(30, 40)), np.radians(66)
    opening = np.where(up > 0, 1 / np.hypot(up / high, np.sin(theta) / wide),
                       1 / np.hypot(up / low, np.sin(theta) / wide))  # fmt: skip
    fold = sum(rng.normal(0, 0.0012) * np.cos(k * theta + rng.uniform(0, 6)) for k in (3, 5, 8, 13))
    rows = []
    for k, t in enumerate(np.linspace(0, 1, 16) ** 1.15):
        away = opening + (np.radians(172) - opening) * t
        x, y, z = np.sin(away) * np.sin(theta), np.sin(away) * up, np.cos(away)
        azimuth, elevation = np.arctan2(x, z), np.maximum(np.arcsin(np.clip(y, -1, 1)), -np.radians(78))
        out = 0.004 + (hair_m + 0.004) * smoothstep(0.0, 0.25, np.array(t)) + fold * (1 + 3 * t)
        if k == 0:
            out = out - 0.006  # tucked in at the edge
        rows.append(wraps.on_sphere(field, azimuth, elevation, field.at(azimuth, elevation) + out))
    over = _grid(rows, True, 1.0)
    share = smoothstep(-0.16, -0.09, over.vertices[:, 1])
    over = Worn(over.vertices, over.faces, over.uvs, share, False)
    neck, angle = wraps.neck_field(body, neutral), around()
    pleat = sum(rng.normal(0, 0.35) * np.cos(k * angle + rng.uniform(0, 6)) for k in (4, 7, 11, 17))
    drape = []
    for t in np.linspace(0, 1, 8):
        y = -0.088 - 0.012 * np.cos(angle) - 0.12 * t
        inner = np.maximum(neck.at(angle, np.full(AROUND, -0.1)) + 0.016 + 0.035 * t, neck.at(angle, y) + 0.010)
        drape.append(wraps.on_neck(neck, angle, y, inner - neck.at(angle, y) + 0.004 * pleat * np.sqrt(t + 0.1)))
    return [over, _grid(drape, True, np.linspace(0.35, 0, 8))]


def cloth_texture(rng, color: Array, second: Array, pattern: str, size: int = 128) -> Array:
    """(size, size, 4) uint8, repeating; one tile is ``TILE_M`` wide."""
    y, x = np.mgrid[:size, :size] / size
    base = np.broadcast_to(color, (size, size, 3)).copy()
    grain = painting.field_patch(rng, 1.2, size) * 0.05 + painting.field_patch(rng, 8.0, size) * 0.05
    if pattern == "rib":
        base *= (0.72 + 0.28 * np.sin(x * 2 * np.pi * 16)[..., None] ** 2) * 1.1
    elif pattern == "knit":
        loops = np.sin(2 * np.pi * 12 * x) * np.sin(2 * np.pi * (16 * y + 1.5 * np.abs(np.sin(2 * np.pi * 6 * x))))
        base *= (0.85 + 0.25 * loops)[..., None]
    elif pattern in ("stripes", "checks"):
        period = int(rng.integers(1, 4))
        mix = smoothstep(-0.2, 0.2, np.sin(2 * np.pi * period * y))
        if pattern == "checks":
            mix = (mix + smoothstep(-0.2, 0.2, np.sin(2 * np.pi * period * x))) / 2
        base = base * (1 - mix[..., None]) + second * mix[..., None]
    else:
        base *= (1 + 0.05 * np.sin(2 * np.pi * 40 * (x + y)))[..., None]
    out = np.full((size, size, 4), 255, np.uint8)
    out[..., :3] = np.clip(base * (1 + grain[..., None]), 0, 1) ** (1 / painting.GAMMA) * 255 + 0.5
    return out
