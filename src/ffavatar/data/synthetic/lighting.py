"""Light of a shot: spherical harmonics of a surrounding (HDRI or a painted studio), key lights, and its background."""

from __future__ import annotations

import numpy as np

from ffavatar.render.mesh import Array, Lighting, sh_basis

# Lambert's convolution (Ramamoorthi and Hanrahan 2001) over pi, times the squared normalisation of each polynomial.
_SH_FACTORS = np.array(
    [1 / 4, *[(2 / 3) * 3 / 4] * 3, *[(1 / 4) * 15 / 4] * 2, (1 / 4) * 5 / 16, (1 / 4) * 15 / 4, (1 / 4) * 15 / 16]
) / np.pi  # fmt: skip


def directions_of(height: int) -> Array:
    """(height, 2 height, 3) unit directions of an equirectangular map; the middle column looks along -z."""
    latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    azimuth = ((np.arange(2 * height) + 0.5) / (2 * height) - 0.5) * 2 * np.pi
    y, radius = np.sin(latitude)[:, None], np.cos(latitude)[:, None]
    x, z = radius * np.sin(azimuth), -radius * np.cos(azimuth)
    return np.stack(np.broadcast_arrays(x, y, z), -1)


def project_sh(radiance: Array) -> Array:
    """Irradiance over pi of an equirectangular map (h, 2h, 3) as coefficients (9, 3) of ``sh_basis``."""
    height = len(radiance)
    latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    solid = np.cos(latitude)[:, None] * (np.pi / height) ** 2
    basis = sh_basis(directions_of(height)) * solid[..., None]
    return np.einsum("hwk,hwc->kc", basis, radiance) * _SH_FACTORS[:, None]


def painted_studio(rng: np.random.Generator, height: int = 32) -> Array:
    """A room with a few soft boxes, (height, 2 height, 3) linear radiance."""
    direction = directions_of(height)
    room = rng.uniform(0.15, 0.6) * (1 + rng.uniform(-0.2, 0.7) * direction[..., 1])
    out = room[..., None] * np.clip(1 + rng.normal(0, 0.07, 3), 0.75, 1.25)
    for _ in range(int(rng.integers(1, 4))):
        azimuth, height_rad = rng.uniform(-np.pi, np.pi), rng.uniform(-0.2, 1.1)
        centre = np.array(
            [np.sin(azimuth) * np.cos(height_rad), np.sin(height_rad), np.cos(azimuth) * np.cos(height_rad)]
        )
        glow = np.exp((direction @ centre - 1) / rng.uniform(0.02, 0.2))
        out = out + rng.uniform(1, 8) * glow[..., None] * np.clip(1 + rng.normal(0, 0.1, 3), 0.7, 1.3)
    return out.astype(np.float32)


def make_lighting(rng: np.random.Generator, radiance: Array, exposure: float) -> Lighting:
    """Lighting in which a white wall facing the camera has the brightness ``exposure``.

    The surrounding, a small map (h, 2h, 3), is turned about the vertical at random; its sun, if any, becomes the key
    light beside up to two more.
    """
    small = np.roll(radiance, int(rng.integers(radiance.shape[1])), 1)
    # What is much brighter than the rest cannot be held by nine coefficients without ringing: it becomes the key light.
    brightness = small.mean(-1)
    limit = 6 * brightness.mean() + 1e-6
    ambient = project_sh(np.minimum(small, limit))
    directions = directions_of(len(small)).reshape(-1, 3)
    peak = directions[int(np.argmax(brightness.ravel()))]
    toward, colors = [], []
    share = rng.uniform(0.15, 0.75)  # of the light on the face that comes from lamps
    count = int(rng.choice([0, 1, 2, 3], p=[0.08, 0.42, 0.35, 0.15]))
    for k in range(count):
        azimuth, elevation = np.radians(rng.uniform(-85, 85)), np.radians(rng.uniform(-10, 60))
        lamp = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
        if k == 0 and peak[2] > -0.2 and rng.random() < 0.5:
            lamp = peak
        toward.append(lamp)
        colors.append(np.clip(1 + rng.normal(0, 0.08, 3), 0.7, 1.3) / (1 + 0.7 * k))
    facing = np.array([[0.0, 0.0, 1.0], [0.5, 0.2, 0.84], [-0.5, 0.2, 0.84]])
    level = float(np.maximum(sh_basis(facing) @ ambient, 0).mean())
    ambient = ambient * ((1 - share if count else 1.0) * exposure / max(level, 1e-4))
    tint = np.clip(ambient[0] / max(float(ambient[0].mean()), 1e-6), 0.6, 1.5)
    ambient = ambient / (0.5 * tint + 0.5)  # cameras balance most of a room's colour away
    if count:
        got = sum(float(np.maximum(facing @ d, 0).mean()) * float(c.mean()) for d, c in zip(toward, colors))
        scale = share * exposure / max(got, 0.25)
        colors = [c * scale for c in colors]
    return Lighting(
        ambient.astype(np.float32),
        np.array(toward, np.float32).reshape(-1, 3),
        np.array(colors, np.float32).reshape(-1, 3),
    )
