"""Surfaces that things to wear are laid over: how far a head or a neck reaches in each direction, and swept grids.

Heights are read off a depth map: the triangles are rewritten as (angle, height or angle, -radius), in which the map's
nearest surface is the outermost one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.data.synthetic.body import Body, Neutral
from ffavatar.data.synthetic.painting import HEAD_CENTRE, ear_mask
from ffavatar.render.mesh import Array, rasterize_mesh

NECK_AXIS_Z = -0.035  # of the upright axis through the neck, on the template
FIELD_PX = 72
FAR_M = 1.0


@dataclass(frozen=True)
class Field:
    """Radii (FIELD_PX, FIELD_PX) about a centre or an upright axis: rows by height, columns by azimuth from -pi.

    Azimuth 0 is ahead, pi/2 the person's left.
    """

    radius: Array
    centre: Array  # (3,)
    low: float  # of the rows: metres (axis) or radians of elevation (centre)
    high: float

    def at(self, azimuth: Array, height: Array) -> Array:
        """Bilinear; the azimuth repeats, the height is held at the ends."""
        column = (np.asarray(azimuth) / (2 * np.pi) + 0.5) * FIELD_PX - 0.5
        row = np.clip((np.asarray(height) - self.low) / (self.high - self.low) * FIELD_PX - 0.5, 0, FIELD_PX - 1)
        c, r = np.floor(column).astype(int), np.minimum(np.floor(row).astype(int), FIELD_PX - 2)
        a, b = column - c, row - r
        c0, c1 = c % FIELD_PX, (c + 1) % FIELD_PX
        return (self.radius[r, c0] * (1 - a) + self.radius[r, c1] * a) * (1 - b) + (
            self.radius[r + 1, c0] * (1 - a) + self.radius[r + 1, c1] * a
        ) * b


def _field(points: Array, faces: Array, centre: Array, sphere: bool, low: float, high: float, smooth: int) -> Field:
    d = points - centre
    azimuth = np.arctan2(d[:, 0], d[:, 2])
    flat = np.hypot(d[:, 0], d[:, 2])
    height = np.arctan2(d[:, 1], flat) if sphere else points[:, 1]
    radius = np.linalg.norm(d, axis=1) if sphere else flat
    place = np.stack([(azimuth / (2 * np.pi) + 0.5) * FIELD_PX, (height - low) / (high - low) * FIELD_PX,
                      FAR_M - radius], 1)  # fmt: skip
    corners = place[faces]
    wide = np.ptp(corners[..., 0], axis=1) > FIELD_PX / 2  # across the seam at the back
    left = corners.copy()
    left[wide, :, 0] -= FIELD_PX * (left[wide, :, 0] > FIELD_PX / 2)
    right = left[wide]
    right[..., 0] += FIELD_PX
    both = np.concatenate([left, right]).astype(np.float32)
    depth = rasterize_mesh(both, FIELD_PX, FIELD_PX, orthographic=True, near=0.0).depth
    out = np.where(np.isfinite(depth), FAR_M - depth, np.nan)
    for _ in range(FIELD_PX):  # holes take what lies beside them
        if not np.isnan(out).any():
            break
        padded = np.pad(np.pad(out, ((1, 1), (0, 0)), mode="edge"), ((0, 0), (1, 1)), mode="wrap")
        near = np.stack([padded[i : i + FIELD_PX, j : j + FIELD_PX] for i in range(3) for j in range(3)])
        known = ~np.isnan(near)
        mean = np.where(known, near, 0).sum(0) / np.maximum(known.sum(0), 1)
        out = np.where(np.isnan(out) & known.any(0), mean, out)
    for _ in range(smooth):  # cloth and hair span hollows: grow, then blur
        padded = np.pad(np.pad(out, ((1, 1), (0, 0)), mode="edge"), ((0, 0), (1, 1)), mode="wrap")
        near = np.stack([padded[i : i + FIELD_PX, j : j + FIELD_PX] for i in range(3) for j in range(3)])
        out = np.maximum(near.mean(0), 0.6 * out + 0.4 * near.mean(0))
    return Field(out, centre, low, high)


def head_centre(body: Body, neutral: Neutral) -> Array:
    """(3,) the middle of this identity's skull, where ``HEAD_CENTRE`` is on the template."""
    scalp = body.regions["scalp"]
    return HEAD_CENTRE + (neutral.vertices[scalp] - body.template[scalp]).mean(0)


def head_field(body: Body, neutral: Neutral, smooth: int = 3, ears: bool = False) -> Field:
    """Radius of head and neck about the skull's middle by elevation from -80 to 90 degrees."""
    skin = body.regions["skin"] & ~body.regions["mouth_interior"] & (body.template[:, 1] > -0.16)
    if not ears:
        skin &= ear_mask(body.template) < 0.3
    faces = body.faces[skin[body.faces].all(1)]
    low, high = -np.radians(80), np.pi / 2
    return _field(neutral.vertices, faces, head_centre(body, neutral), True, low, high, smooth)


def neck_field(body: Body, neutral: Neutral) -> Field:
    """Radius of neck and shoulders about an upright axis, by height from -0.25 to -0.05 m."""
    part = (body.regions["neck"] | body.regions["torso"]) & body.regions["skin"] & (body.template[:, 1] > -0.29)
    faces = body.faces[part[body.faces].all(1)]
    neck = body.regions["neck"]
    moved = (neutral.vertices[neck] - body.template[neck]).mean(0)
    centre = np.array([0.0, 0.0, NECK_AXIS_Z + moved[2]])
    return _field(neutral.vertices, faces, centre, False, -0.25, -0.05, 2)


def on_sphere(field: Field, azimuth: Array, elevation: Array, radius: Array | None = None) -> Array:
    """Points (..., 3) in directions from the field's centre, at its radius or a given one."""
    r = field.at(azimuth, elevation) if radius is None else radius
    flat = r * np.cos(elevation)
    return field.centre + np.stack([flat * np.sin(azimuth), r * np.sin(elevation), flat * np.cos(azimuth)], -1)


def on_neck(field: Field, azimuth: Array, height: Array, out_m: Array | float) -> Array:
    """Points (..., 3) ``out_m`` beyond the field's radius, at a height (metres)."""
    r = field.at(azimuth, height) + out_m
    x, z = r * np.sin(azimuth), field.centre[2] + r * np.cos(azimuth)
    return np.stack([x, np.broadcast_to(height, x.shape), z], -1)


def height_where(field: Field, azimuth: Array, radius: Array | float) -> Array:
    """Metres: the greatest height at which a neck's field (``neck_field``) reaches ``radius``; its low end if never."""
    heights = np.linspace(field.high, field.low, 60)
    reach = field.at(np.asarray(azimuth)[:, None], np.broadcast_to(heights, (len(azimuth), 60)))
    enough = reach >= np.broadcast_to(radius, azimuth.shape)[:, None]
    return np.where(enough.any(1), heights[enough.argmax(1)], field.low)


def grid_faces(rows: int, columns: int, closed: bool) -> Array:
    """(F, 3) triangles of a grid of points numbered row by row; ``closed`` joins the last column to the first."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    n = (c + 1) % columns
    a, b, d, e = (x.ravel() for x in (r * columns + c, r * columns + n, (r + 1) * columns + c, (r + 1) * columns + n))
    return np.concatenate([np.stack([a, b, e], 1), np.stack([a, e, d], 1)]).astype(np.int32)


def grid_uvs(rows: int, columns: int, faces: Array, wide: float, high: float) -> Array:
    """(F, 3, 2) texture coordinates of ``grid_faces``: 0 to ``wide`` along the columns, 0 to ``high`` along rows.

    On a closed grid the last strip runs on to ``wide`` instead of jumping back to 0.
    """
    column, row = (faces % columns).astype(float), (faces // columns).astype(float)
    wraps = (column.max(1) - column.min(1)) > 1.5
    column[wraps] = np.where(column[wraps] == 0, columns, column[wraps])
    return np.stack([column / columns * wide, row / max(rows - 1, 1) * high], -1).astype(np.float32)


def roll(path: Array, radius: Array, sides: int = 10) -> Array:
    """(n * sides, 3) rings of a tube about a closed path (n, 3); ``radius`` (n,). Faces: ``grid_faces(.., closed)``."""
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    angle = np.arange(sides) / sides * 2 * np.pi
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    return (path[:, None] + radius[:, None, None] * ring).reshape(-1, 3)
