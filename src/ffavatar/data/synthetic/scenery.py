"""Painted places behind people, as a camera with an open lens sees them, and the light of such places."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ffavatar.data.synthetic.lighting import directions_of
from ffavatar.data.synthetic.painting import NOISE_PX, field_patch, smoothstep
from ffavatar.data.synthetic.variety import cloth_color
from ffavatar.render.mesh import GAMMA, Array

CANVAS_PX = 160  # backgrounds are out of focus: this is all they hold


def paint_scenery(rng: np.random.Generator, kind: str, size: int) -> Array:
    """(size, size, 3) linear: a ``room`` (walls, shelves, windows, pictures), a ``wall`` (plaster, bricks, boards),
    ``lights`` (discs of confusion in the dark) or ``leaves`` (foliage and sky)."""
    paint = {"room": _room, "wall": _wall, "lights": _lights, "leaves": _leaves}[kind]
    canvas = paint(rng)
    blur = {"room": (0.4, 3.5), "wall": (0.0, 1.5), "lights": (0.0, 1.0), "leaves": (0.5, 3.0)}[kind]
    canvas = _soft(canvas, rng.uniform(*blur))
    y = np.linspace(-1, 1, CANVAS_PX)
    shade = 1 + rng.normal(0, 0.18) * y[:, None] + rng.normal(0, 0.18) * y[None]  # light falls off across a room
    canvas = np.clip(canvas * np.clip(shade, 0.4, 1.6)[..., None], 0, 3)
    planes = [
        np.asarray(Image.fromarray(canvas[..., c].astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return np.clip(np.stack(planes, -1), 0, 3)


def _soft(canvas: Array, sigma: float) -> Array:
    """Blurred by a disc of radius ``sigma``: what is out of focus has edges, not tails."""
    reach = int(np.ceil(sigma))
    if reach < 1:
        return canvas
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(sigma + 0.5 - np.hypot(x, y), 0, 1)
    padded = np.pad(canvas, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    out = np.zeros_like(canvas)
    for (row, column), weight in np.ndenumerate(disc):
        if weight:
            out += weight * padded[row : row + CANVAS_PX, column : column + CANVAS_PX]
    return out / disc.sum()


def _grained(rng: np.random.Generator, color: Array, amount: float) -> Array:
    grain = sum(field_patch(rng, scale, CANVAS_PX) * weight for scale, weight in ((1.5, 0.3), (8.0, 0.5), (40.0, 0.7)))
    return np.clip(color * (1 + amount * np.asarray(grain)[..., None]), 0, 2)


def _drawn(color: Array) -> tuple[int, int, int]:
    r, g, b = (np.clip(color, 0, 1) ** (1 / GAMMA) * 255 + 0.5).astype(int)
    return int(r), int(g), int(b)


def _furniture_color(rng: np.random.Generator) -> Array:
    wood = np.array([0.32, 0.18, 0.09]) * rng.uniform(0.2, 1.8)
    return np.clip(wood if rng.random() < 0.5 else cloth_color(rng), 0, 1)


def _room(rng: np.random.Generator) -> Array:
    wall = np.clip(rng.uniform(0.15, 0.8) * (1 + 0.12 * rng.normal(0, 1, 3)), 0.02, 0.9)
    picture = Image.new("RGB", (CANVAS_PX, CANVAS_PX), _drawn(wall))
    draw = ImageDraw.Draw(picture)
    px = CANVAS_PX
    if rng.random() < 0.5:  # a corner: the other wall is darker
        corner, lean = int(rng.uniform(0, px)), int(rng.normal(0, 6))
        right = [(corner, 0), (px, 0), (px, px), (corner + lean, px)]
        left = [(0, 0), (corner, 0), (corner, px), (0, px)]
        draw.polygon(right if rng.random() < 0.5 else left, fill=_drawn(wall * rng.uniform(0.5, 0.85)))
    bright = []
    for _ in range(int(rng.integers(1, 6))):
        kind = rng.choice(["shelf", "window", "frame", "box", "lamp", "door"])
        x, y = rng.uniform(-0.2, 0.9) * px, rng.uniform(-0.1, 0.7) * px
        w, h = rng.uniform(0.12, 0.5) * px, rng.uniform(0.15, 0.6) * px
        if kind == "shelf":
            draw.rectangle([x, y, x + w, y + h], fill=_drawn(_furniture_color(rng)))
            for level in np.arange(y, y + h, rng.uniform(14, 26)):
                at = x + 2
                while at < x + w - 4:  # books
                    wide, high = rng.uniform(2, 6), rng.uniform(8, 13)
                    draw.rectangle([at, level + 14 - high, at + wide, level + 14], fill=_drawn(cloth_color(rng)))
                    at += wide + (rng.uniform(0, 6) if rng.random() < 0.2 else 0.5)
        elif kind == "window":
            bright.append((x, y, w, h, rng.uniform(0.8, 2.2)))
        elif kind == "frame":
            draw.rectangle([x, y, x + w, y + h], fill=_drawn(_furniture_color(rng)))
            draw.rectangle([x + 3, y + 3, x + w - 3, y + h - 3], fill=_drawn(rng.uniform(0.1, 0.8, 3)))
            draw.ellipse([x + 6, y + 8, x + w * 0.7, y + h * 0.8], fill=_drawn(rng.uniform(0.05, 0.8, 3)))
        elif kind == "lamp":
            draw.line([x, y, x, px], fill=_drawn(np.full(3, 0.03)), width=2)
            bright.append((x - 8, y - 10, 16, 14, 1.8))
        else:
            low = px if kind == "door" else y + h
            draw.rectangle([x, y, x + w * 0.7, low], fill=_drawn(_furniture_color(rng)))
            draw.line([x + w * 0.35, y, x + w * 0.35, low], fill=_drawn(_furniture_color(rng) * 0.5), width=1)
    out = (np.asarray(picture, np.float32) / 255) ** GAMMA
    out = _grained(rng, out, 0.1)
    for x, y, w, h, level in bright:
        rows, columns = slice(max(0, int(y)), max(0, int(y + h))), slice(max(0, int(x)), max(0, int(x + w)))
        out[rows, columns] = level * np.array([1, 0.97, 0.9]) * (0.8 + 0.2 * rng.random(3))
        middle = int(x + w / 2)
        if w > 30 and 0 <= middle < px:
            out[rows, middle : middle + 2] = 0.2
    return out * rng.uniform(0.5, 1.1)


def _wall(rng: np.random.Generator) -> Array:
    color = np.clip(rng.uniform(0.05, 0.75) * (1 + 0.2 * rng.normal(0, 1, 3)), 0.02, 0.9)
    kind = rng.choice(["plaster", "bricks", "boards"])
    out = _grained(rng, np.broadcast_to(color, (CANVAS_PX, CANVAS_PX, 3)), rng.uniform(0.03, 0.14))
    y, x = np.mgrid[:CANVAS_PX, :CANVAS_PX].astype(float)
    if kind == "bricks":
        high = rng.uniform(8, 18)
        row = np.floor(y / high)
        shift = x + (row % 2) * high * 1.1
        joint = np.minimum(y % high, shift % (high * 2.2)) < 1.4
        tone = rng.normal(1, 0.14, (64, 64))[row.astype(int) % 64, np.floor(shift / (high * 2.2)).astype(int) % 64]
        out = np.where(joint[..., None], out * rng.uniform(0.6, 1.5), out * tone[..., None])
    elif kind == "boards":
        wide = rng.uniform(14, 40)
        across = y if rng.random() < 0.4 else x
        tone = rng.normal(1, 0.1, 64)[np.floor(across / wide).astype(int) % 64]
        out = np.where((across % wide < 1.2)[..., None], out * 0.4, out * tone[..., None])
    return np.clip(out, 0, 1)


def _lights(rng: np.random.Generator) -> Array:
    out = np.broadcast_to(rng.uniform(0.005, 0.12, 3), (CANVAS_PX, CANVAS_PX, 3)).copy()
    out = _grained(rng, out, 0.5)
    y, x = np.mgrid[:CANVAS_PX, :CANVAS_PX].astype(float)
    size = rng.uniform(3, 12)
    for _ in range(int(rng.integers(8, 40))):
        radius = size * rng.uniform(0.7, 1.2)
        away = np.hypot(x - rng.uniform(0, CANVAS_PX), y - rng.uniform(0, CANVAS_PX))
        disc = smoothstep(radius + 1, radius - 1, away) * (0.75 + 0.25 * smoothstep(radius * 0.6, radius, away))
        hue = np.clip(np.array([1.0, 0.75, 0.45]) + rng.normal(0, 0.25, 3), 0.05, 1.2)
        out = out + disc[..., None] * hue * rng.uniform(0.1, 0.9)
    return np.minimum(out, 2.0)


def _leaves(rng: np.random.Generator) -> Array:
    start = rng.integers(0, NOISE_PX - 1)
    field = sum(
        field_patch(rng, scale, CANVAS_PX) * w for scale, w in ((2.0, 0.5), (6.0, 0.8), (20.0, 1.0), (60.0, 1.0))
    )
    green = np.array([0.10, 0.16, 0.035]) * rng.uniform(0.3, 1.6) * np.clip(1 + rng.normal(0, 0.2, 3), 0.5, 1.6)
    out = green * np.exp(0.55 * np.asarray(field))[..., None]
    autumn = smoothstep(0.3, 1.5, field_patch(rng, 10.0, CANVAS_PX))[..., None] * rng.uniform(0, 0.6)
    out = out * (1 - autumn) + autumn * np.array([0.3, 0.13, 0.03])
    y = np.mgrid[:CANVAS_PX, :CANVAS_PX][0] / CANVAS_PX
    sky = smoothstep(-0.3, 0.8, np.asarray(field) + 3.5 * (rng.uniform(0.0, 0.5) - y))[..., None] * (start % 3 > 0)
    ground = smoothstep(0.7, 0.95, y + 0.04 * np.asarray(field))[..., None] * (start % 2)
    out = out * (1 - ground) + ground * np.array([0.2, 0.17, 0.12]) * np.exp(0.2 * np.asarray(field))[..., None]
    return np.clip(out * (1 - sky) + sky * np.array([0.7, 0.85, 1.1]) * rng.uniform(0.6, 1.6), 0, 2.5)


def painted_place(rng: np.random.Generator, height: int = 32) -> Array:
    """Radiance of a place (height, 2 height, 3), linear: a room with windows, an office ceiling, or open sky."""
    direction = directions_of(height)
    x, y, z = np.moveaxis(direction, -1, 0)
    azimuth, elevation = np.arctan2(x, -z), np.arcsin(np.clip(y, -1, 1))
    kind = rng.choice(["windows", "ceiling", "sky"], p=[0.45, 0.25, 0.3])
    walls = rng.uniform(0.08, 0.35) * np.clip(1 + rng.normal(0, 0.08, 3), 0.8, 1.2)
    out = np.broadcast_to(walls, (*x.shape, 3)) * (1 + 0.3 * y)[..., None]
    if kind == "sky":
        blue, warm = np.array([0.45, 0.65, 1.0]), np.array([1.0, 0.93, 0.82])
        cloud = rng.random()
        heaven = (blue * (1 - cloud) + 0.9 * cloud) * (0.6 + 0.6 * np.exp(-np.maximum(y, 0) * 3))[..., None]
        ground = np.array([0.18, 0.16, 0.12]) * rng.uniform(0.4, 1.6)
        up = smoothstep(-0.04, 0.04, y)[..., None]
        out = heaven * up + ground * (1 - up)
        sun_azimuth, sun_height = rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 1.2)
        sun = np.array([np.sin(sun_azimuth) * np.cos(sun_height), np.sin(sun_height),
                        -np.cos(sun_azimuth) * np.cos(sun_height)])  # fmt: skip
        disc = np.exp((direction @ sun - 1) / rng.uniform(0.004, 0.02))
        out = out + disc[..., None] * warm * rng.uniform(2, 30) * (1 - 0.85 * cloud)
    elif kind == "ceiling":
        rows = smoothstep(0.3, 0.6, np.sin(elevation * rng.uniform(8, 16))) * (y > 0.35)
        out = out + (rows * smoothstep(0.2, 0.5, np.cos(azimuth * rng.integers(1, 4) + rng.uniform(0, 6))))[
            ..., None
        ] * rng.uniform(3, 9) * np.clip(1 + rng.normal(0, 0.06, 3), 0.8, 1.2)
    else:
        for _ in range(int(rng.integers(1, 4))):
            middle, wide, low = rng.uniform(-np.pi, np.pi), rng.uniform(0.2, 0.8), rng.uniform(-0.4, 0.1)
            turn = np.abs((azimuth - middle + np.pi) % (2 * np.pi) - np.pi)
            pane = (
                smoothstep(wide + 0.05, wide - 0.05, turn) * (elevation > low) * (elevation < low + rng.uniform(0.5, 1))
            )
            out = out + pane[..., None] * rng.uniform(2, 10) * np.clip(1 + rng.normal(0, 0.1, 3), 0.7, 1.3)
        floor = smoothstep(-0.2, -0.6, y)[..., None] * rng.uniform(0.0, 0.5)
        out = out * (1 - floor) + floor * np.array([0.25, 0.16, 0.09])
    return np.clip(out, 0, 40).astype(np.float32)
