"""Paints a person's surfaces: the skin atlas with hairline, stubble, freckles and shirt; irises and hair textures.

Masks are functions of the place on the head model's template (metres), so that artwork and procedural skin are treated
alike. All painting is done on the atlas' texels in linear light.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ffavatar.data.synthetic.artwork import Artwork
from ffavatar.data.synthetic.body import ATLAS_PX, Body, Texels
from ffavatar.data.synthetic.people import Person
from ffavatar.data.synthetic.variety import Beard, stream
from ffavatar.render.mesh import GAMMA, Array

HEAD_CENTRE = np.array([0.0, 0.03, -0.012], np.float32)  # of the skull on the template, about which the hairline runs
# The hairline: elevation (degrees, seen from HEAD_CENTRE) by azimuth from straight ahead.
_HAIRLINE_AZIMUTH = np.array([0, 25, 45, 60, 72, 80, 95, 115, 140, 180.0])
_HAIRLINE_ELEVATION = np.array([39, 38, 34, 25, 2, -20, -22, -32, -42, -46.0])
NOISE_PX = 512


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between; ``low`` may be the greater."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=16)
def _noise_field(scale_px: float, seed: int) -> Array:
    """(NOISE_PX, NOISE_PX) tileable noise of zero mean and unit variance with features of about ``scale_px``."""
    white = np.random.default_rng([seed, 77]).normal(size=(NOISE_PX, NOISE_PX))
    f = np.fft.fftfreq(NOISE_PX)
    kernel = np.exp(-2 * (np.pi * scale_px) ** 2 * (f[:, None] ** 2 + f[None] ** 2) * 0.25)
    field = np.fft.ifft2(np.fft.fft2(white) * kernel).real
    return ((field - field.mean()) / field.std()).astype(np.float32)


def field_patch(rng: np.random.Generator, scale_px: float, size: int) -> Array:
    """(size, size) noise of zero mean and unit variance; repeats where ``size`` is ``NOISE_PX``."""
    shift = rng.integers(0, NOISE_PX, 2)
    field = np.roll(_noise_field(scale_px, int(rng.integers(3))), shift, (0, 1))
    return field[:size, :size]


def noise_at(rng: np.random.Generator, index: Array, scale_px: float) -> Array:
    """Noise at flat atlas indices; its place in the field is drawn from ``rng``."""
    shift = rng.integers(0, NOISE_PX, 2)
    rows, columns = np.divmod(index, ATLAS_PX)
    return _noise_field(scale_px, int(rng.integers(3)))[(rows + shift[0]) % NOISE_PX, (columns + shift[1]) % NOISE_PX]


def hairline_depth(points: Array, hairline: float = 0.0) -> Array:
    """Degrees that a place lies inside the hair of the scalp, negative outside. ``hairline``: metres moved back."""
    d = np.asarray(points) - HEAD_CENTRE
    azimuth = np.degrees(np.abs(np.arctan2(d[..., 0], d[..., 2])))
    elevation = np.degrees(np.arctan2(d[..., 1], np.hypot(d[..., 0], d[..., 2])))
    edge = np.interp(azimuth, _HAIRLINE_AZIMUTH, _HAIRLINE_ELEVATION)
    return elevation - edge - np.degrees(hairline / 0.1) * smoothstep(75, 40, azimuth)


def ear_mask(points: Array) -> Array:
    """[0, 1] on the auricle and inside the ear, where no hair of the head grows."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    return smoothstep(1.15, 0.95, ((y - 0.001) / 0.036) ** 2 + ((z + 0.013) / 0.022) ** 2) * (np.abs(x) > 0.045)


def hair_amount(person: Person, texels: Texels) -> Array:
    """(n,) in [0, 1]: how densely the scalp is covered. The hairline is frayed, each person's in its own way."""
    rng = np.random.default_rng([person.seed, 12])
    fray = 1.2 * noise_at(rng, texels.index, 2.5) + 1.8 * noise_at(rng, texels.index, 14)
    amount = smoothstep(-3, 8, hairline_depth(texels.points, person.hairline) + fray) * (1 - ear_mask(texels.points))
    if person.crown:  # a ring of hair remains
        d = texels.points - HEAD_CENTRE
        elevation = np.degrees(np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2])))
        bare = smoothstep(12, 38, elevation - 22 * smoothstep(0.02, -0.08, d[:, 2]) + 2 * fray)
        amount = amount * (1 - (0.55 + 0.45 * person.crown) * bare)
    return amount


def beard_mask(points: Array) -> Array:
    """[0, 1] where a beard grows: jaw, chin, upper lip and the upper throat."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    side = np.abs(x)
    # The line of the cheeks: from the sideburns down to the corners of the mouth, and over the upper lip.
    line = (
        -0.03
        + 0.9 * np.maximum(side - 0.042, 0)
        - 0.012 * smoothstep(0.016, 0.04, side) * smoothstep(0.06, 0.045, side)
    )
    jaw = smoothstep(0.005, -0.010, y - line) * smoothstep(-0.125, -0.095, y)
    return jaw * smoothstep(-0.005, 0.02, z) * smoothstep(0.09, 0.066, side)


def neckline_field(points: Array, collar: tuple[float, float, float]) -> tuple[Array, Array]:
    """A function of places that is 1 on the neckline and greater in the shirt, and whether a place is of the chin.

    ``collar``: half width, depth and notch of the neckline in metres.
    """
    width, depth, notch = collar
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    top = -0.118  # where the neck meets the shoulders
    drop = np.maximum(top - y - notch * np.clip(z - 0.0, 0, 0.05) / 0.05 * np.exp(-((x / 0.03) ** 2)), 0)
    inside = (x / width) ** 2 + (drop / depth) ** 2 + ((z + 0.035) / (width * 1.0)) ** 2
    # The chin and jaw reach as low as the collar of some: they lie in front of the throat.
    chin = (y > -0.135) & (z > 0.022 + 0.9 * np.maximum(-0.105 - y, 0)) & (np.abs(x) < 0.075)
    return inside, chin


def beard_amount(points: Array, style: str) -> Array:
    """[0, 1] where a beard of a style (``variety.BEARDS``) grows."""
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    whole = beard_mask(points)
    if style == "full":
        return whole
    lip = smoothstep(0.034, 0.026, np.abs(x)) * smoothstep(-0.045, -0.036, y) * smoothstep(0.05, 0.07, z)
    chin = smoothstep(0.034, 0.022, np.abs(x)) * smoothstep(-0.040, -0.052, y) * smoothstep(0.03, 0.055, z)
    if style == "moustache":
        return whole * lip
    return whole * (np.maximum(lip, chin) if style == "goatee" else chin * smoothstep(-0.058, -0.066, y))


def shirt_mask(points: Array, collar: tuple[float, float, float]) -> Array:
    """[0, 1] what a collar leaves clothed."""
    inside, chin = neckline_field(points, collar)
    return smoothstep(0.97, 1.03, inside) * (np.asarray(points)[..., 1] < -0.085) * ~chin


def paint_atlas(body: Body, person: Person, artwork: Artwork | None) -> Array:
    """(ATLAS_PX, ATLAS_PX, 4) uint8 texture of skin and shirt."""
    texels = body.texels()
    rng = np.random.default_rng([person.seed, 5])
    p = texels.points
    color = _artwork_skin(person, artwork, texels.index) if artwork is not None and person.skins else None
    if color is None:
        color = _procedural_skin(body, person, texels, rng)
    lips = texels.interpolate(body.regions["lips"].astype(np.float32))
    color = color * (1 + lips[:, None] * (person.lip_tint - 1)).astype(np.float32)
    face = texels.interpolate(body.regions["face"].astype(np.float32))

    blotches = noise_at(rng, texels.index, 24)
    flush = person.redness * np.exp(-(((np.abs(p[:, 0]) - 0.036) / 0.02) ** 2) - ((p[:, 1] + 0.012) / 0.022) ** 2)
    flush = flush + 0.6 * person.redness * np.exp(-((p[:, 0] / 0.014) ** 2) - ((p[:, 1] + 0.006) / 0.014) ** 2) * (
        p[:, 2] > 0.06
    )
    flush = np.clip(flush * (1 + 0.4 * blotches), 0, 1)[:, None] * np.array([0.02, 0.2, 0.17], np.float32)
    color = color * (1 - flush) * (1 + 0.025 * blotches[:, None])
    if person.freckles > 0.05:
        spots = smoothstep(1.9 - 0.9 * person.freckles, 2.6 - 0.9 * person.freckles, noise_at(rng, texels.index, 2.0))
        where = np.exp(-(((p[:, 1] - 0.0) / 0.035) ** 2)) * face
        color = color * (1 - (0.55 * spots * where)[:, None] * np.array([0.35, 0.6, 0.75], np.float32))
    for _ in range(person.moles):
        centre = p[int(rng.choice(np.flatnonzero(p[:, 1] > -0.12)))] if len(p) else p
        radius = rng.uniform(0.0008, 0.002)
        dark = np.exp(-((((p - centre) ** 2).sum(1) / radius**2) ** 2))
        color = color * (1 - dark[:, None] * np.array([0.6, 0.72, 0.75], np.float32))
    if person.makeup:
        lids = sum(np.exp(-((p - body.joints[j] - [0, 0.011, 0.008]) ** 2).sum(1) / 0.011**2) for j in (3, 4))
        tint = np.array([0.75, 0.55, 0.6], np.float32)
        color = color * (1 - (person.makeup * lids)[:, None] * (1 - tint))
    if person.brows is None or artwork is None:
        color = _paint_brows(body, person, texels, color, rng)
    if person.stubble:
        # Hairs are finer than texels: a shadow of their mean colour, hardly grained.
        grain = np.clip(0.9 + 0.22 * noise_at(rng, texels.index, 1.2) + 0.12 * noise_at(rng, texels.index, 6), 0, 1.4)
        where = beard_mask(p) * (1 - lips) * (1 - _inside(body, texels))
        amount = np.clip(person.stubble * where * grain, 0, 1) * 0.5
        color = color * (1 - amount[:, None]) + amount[:, None] * _beard_color(person, color)
    if person.variety.beard is not None:
        beard = person.variety.beard
        grain = np.clip(0.9 + 0.25 * noise_at(rng, texels.index, 1.2), 0, 1.3)
        under = beard_amount(p, beard.style) * (1 - lips) * (1 - _inside(body, texels))
        amount = np.clip(0.8 * beard.density * under * grain, 0, 0.9)[:, None]
        color = color * (1 - amount) + amount * beard.color.astype(np.float32)
    color = color * _skin_detail(body, person, texels, lips, face)
    if person.hair is not None:
        amount = hair_amount(person, texels) * (0.88 if person.hair != "buzz" else 0.8)
        grain = np.clip(0.85 + 0.3 * noise_at(rng, texels.index, 1.2), 0.3, 1.5)
        hair = person.hair_color[None].astype(np.float32) * grain[:, None] * 0.9
        color = color * (1 - amount[:, None]) + amount[:, None] * hair
    cover = shirt_mask(p, person.collar)[:, None]
    color = color * (1 - cover) + cover * _cloth(person, p, rng, texels.index)

    atlas = np.zeros((ATLAS_PX * ATLAS_PX, 4), np.uint8)
    atlas[:, 3] = 255
    atlas[texels.index, :3] = np.clip(color, 0, 1) ** (1 / GAMMA) * 255 + 0.5
    return atlas.reshape(ATLAS_PX, ATLAS_PX, 4)


def _beard_color(person: Person, skin: Array) -> Array:
    """(n, 3): short hairs take half of the colour of the skin between and beneath them."""
    return (0.45 * skin + 0.55 * np.clip(person.hair_color * 1.1 + 0.01, 0, 0.35)).astype(np.float32)


def _skin_detail(body: Body, person: Person, texels: Texels, lips: Array, face: Array) -> Array:
    """(n, 3) factors: pores, lines of age, red spots, shadows under the eyes, make-up of lids and cheeks."""
    detail, p, rng = person.variety.skin, texels.points, stream(person.seed, "skin paint")
    x, y, z = p.T
    side = np.abs(x)
    pores = noise_at(rng, texels.index, 1.0) * (0.3 + 0.7 * np.exp(-(((side - 0.02) / 0.025) ** 2)))
    out = (1 + detail.pores * face * (0.03 * pores + 0.02 * noise_at(rng, texels.index, 3.0)))[:, None].repeat(3, 1)
    wobble = 0.0012 * noise_at(rng, texels.index, 20)
    lines: Array = np.zeros(len(p), np.float32)
    for k in range(int(rng.integers(2, 5))):  # across the forehead
        level = 0.052 + 0.0085 * k + rng.normal(0, 0.001)
        bend = y - level - 0.15 * side + 2.2 * wobble
        lines = lines + rng.uniform(0.3, 0.8) * np.exp(-((bend / 0.0009) ** 2)) * smoothstep(0.042, 0.02, side)
    frown = np.exp(-(((side - 0.006 + wobble) / 0.0009) ** 2)) * smoothstep(0.016, 0.03, y) * smoothstep(0.052, 0.04, y)
    lines = lines + 0.7 * rng.random() * frown
    # From the nose past the corners of the mouth, and from the corners down.
    fold = side - 0.019 - 0.42 * np.maximum(-0.014 - y, 0) + wobble
    lines = lines + 1.1 * np.exp(-((fold / 0.0016) ** 2)) * smoothstep(-0.052, -0.038, y) * smoothstep(
        -0.008, -0.018, y
    )
    for joint in (3, 4):
        eye = body.joints[joint]
        out_x = (x - eye[0]) * np.sign(eye[0])
        for k in range(3):  # crow's feet
            ray = (y - eye[1] + 0.001) - (k - 1) * 0.55 * (out_x - 0.014) + wobble
            lines = lines + 0.6 * np.exp(-((ray / 0.0009) ** 2)) * smoothstep(0.017, 0.021, out_x) * (out_x < 0.034)
        bag = ((x - eye[0]) / 0.015) ** 2 + ((y - eye[1] + 0.015 + wobble) / 0.0055) ** 2
        out = out * (1 - (0.16 * detail.tired * np.exp(-bag))[:, None] * np.array([0.8, 1.0, 0.75]))
        rim = 0.45 * detail.lines * np.exp(-(((y - eye[1] + 0.019 - 9 * (x - eye[0]) ** 2 + wobble) / 0.0012) ** 2))
        lines = lines + rim * (np.abs(x - eye[0]) < 0.016) * (z > 0.05)
        if detail.liner:
            distance = np.linalg.norm(p - eye, axis=1)
            rim = texels.interpolate(body.regions["eyelids"].astype(np.float32)) * smoothstep(0.0185, 0.0168, distance)
            out = out * (1 - 0.85 * detail.liner * (rim * (y > eye[1] - 0.002))[:, None])
        if detail.blush:
            cheek = ((x - 1.35 * eye[0]) / 0.016) ** 2 + ((y - eye[1] + 0.036) / 0.012) ** 2
            out = out * (1 - (0.16 * detail.blush * np.exp(-cheek) * face)[:, None] * np.array([0.0, 0.75, 0.55]))
    out = out * (1 - (0.34 * detail.lines * np.clip(lines, 0, 1) * (z > 0) * (1 - lips))[:, None]
                 * np.array([0.75, 1.0, 1.0]))  # fmt: skip
    usual = np.flatnonzero(face > 0.5)
    for _ in range(detail.blemishes if len(usual) else 0):
        centre = p[int(rng.choice(usual))]
        near = np.exp(-((p - centre) ** 2).sum(1) / rng.uniform(0.0012, 0.0028) ** 2)
        out = out * (1 - (0.4 * near)[:, None] * np.array([0.15, 0.8, 0.7]))
    return np.clip(out, 0.05, 1.3).astype(np.float32)


def _inside(body: Body, texels: Texels) -> Array:
    return texels.interpolate(body.regions["mouth_interior"].astype(np.float32))


def _artwork_skin(person: Person, artwork: Artwork, index: Array) -> Array:
    assert person.skins is not None
    first, second = (artwork.skin(name, ATLAS_PX).reshape(-1, 3)[index] for name in person.skins)
    mixed = first * (1 - person.skin_mix) + second * person.skin_mix
    # The artwork knows light and dark: its detail stays, its mean becomes (mostly) this person's own tone.
    ratio = np.clip(person.skin_color / np.maximum(mixed.mean(0), 1e-4), 0.05, 12) ** 0.85
    return np.clip(mixed * (ratio * person.skin_tone), 0, 0.95).astype(np.float32)


def _procedural_skin(body: Body, person: Person, texels: Texels, rng: np.random.Generator) -> Array:
    p = texels.points
    color = np.broadcast_to(person.skin_color.astype(np.float32), (len(p), 3)).copy()
    fine, middle = noise_at(rng, texels.index, 1.5), noise_at(rng, texels.index, 8)
    color *= np.exp(0.045 * fine + 0.05 * middle)[:, None]
    lips = texels.interpolate(body.regions["lips"].astype(np.float32))[:, None]
    inside = np.clip(_inside(body, texels), 0, 1)[:, None]
    mouth = person.skin_color * [0.75, 0.5, 0.52] + [0.04, 0.01, 0.014]
    amount = np.maximum(smoothstep(0.3, 1.0, lips) * 0.5, inside)
    color = color * (1 - amount) + mouth.astype(np.float32) * amount
    for joint in (3, 4):  # a little darker around the eyes, and dark at the rim of the lids where lashes grow
        distance = np.linalg.norm(p - body.joints[joint], axis=1)
        color *= (1 - 0.18 * smoothstep(0.032, 0.019, distance))[:, None]
        rim = (
            texels.interpolate(body.regions["eyelids"].astype(np.float32))
            * smoothstep(0.0178, 0.0165, distance)
            * (p[:, 2] > 0.05)
        )
        color *= (1 - (0.75 if person.makeup else 0.55) * rim)[:, None]
    return color.astype(np.float32)


def _paint_brows(body: Body, person: Person, texels: Texels, color: Array, rng: np.random.Generator) -> Array:
    p = texels.points
    arch, thick = rng.uniform(0.002, 0.007), rng.uniform(0.0022, 0.0045)
    grain = np.clip(0.8 + 0.35 * noise_at(rng, texels.index, 1.5), 0, 1.3)
    amount: Array = np.zeros(len(p), np.float32)
    for joint, side in ((3, 1), (4, -1)):
        eye = body.joints[joint]
        along = (p[:, 0] * side - 0.011) / 0.04  # 0 at the nose, 1 at the temple
        line = eye[1] + 0.0185 + arch * np.sin(np.pi * np.clip(along * 0.85, 0, 1)) - 0.006 * np.clip(along - 0.6, 0, 1)
        width = thick * smoothstep(1.08, 0.55, along) + 0.0006
        inside = smoothstep(-0.06, 0.06, along) * smoothstep(1.08, 0.98, along) * (p[:, 2] > 0.03)
        amount = amount + np.exp(-(((p[:, 1] - line) / width) ** 2)) * inside
    amount = np.clip(amount * grain * person.brow_strength, 0, 1)[:, None]
    return color * (1 - amount) + amount * np.clip(person.hair_color, 0, 0.3).astype(np.float32)


def _cloth(person: Person, p: Array, rng: np.random.Generator, index: Array) -> Array:
    first, second = person.shirt_color.astype(np.float32), person.shirt_second.astype(np.float32)
    if person.shirt_pattern == "plain":
        mix: Array = np.zeros(len(p), np.float32)
    elif person.shirt_pattern == "noise":
        mix = smoothstep(-0.3, 0.3, noise_at(rng, index, 6))
    else:
        period = rng.uniform(0.012, 0.05)
        angle = 0.0 if person.shirt_pattern == "checks" else rng.choice([0.0, np.pi / 2])
        across = np.cos(angle) * p[:, 0] + np.sin(angle) * (p[:, 1] + 0.3 * p[:, 2])
        mix = smoothstep(-0.1, 0.1, np.sin(across * 2 * np.pi / period) + rng.uniform(-0.6, 0.6))
        if person.shirt_pattern == "checks":
            mix = (mix + smoothstep(-0.1, 0.1, np.sin((p[:, 1] + 0.3 * p[:, 2]) * 2 * np.pi / period))) / 2
    weave = 1 + 0.06 * noise_at(rng, index, 1.0) + 0.06 * noise_at(rng, index, 16)
    color = first * (1 - mix[:, None]) + second * mix[:, None]
    return _tailored(person, p, color, index) * weave[:, None].astype(np.float32)


def _tailored(person: Person, p: Array, color: Array, index: Array) -> Array:
    """The shirt's colour with folds, placket, buttons or zip, and a jacket's front over it."""
    clothes, rng = person.variety.clothes, stream(person.seed, "cloth paint")
    x, y, z = p.T
    folds = np.clip(noise_at(rng, index, 30) * 0.6 + noise_at(rng, index, 14) * 0.4, -1.5, 1.5)
    if clothes.kind == "jacket":  # open down to a V
        outer = smoothstep(-0.004, 0.004, np.abs(x) - 0.34 * np.maximum(y + 0.30, 0) - 0.004) + (z < -0.03)
        outer = np.clip(outer, 0, 1)[:, None]
        color = color * (1 - outer) + outer * clothes.color.astype(np.float32)
    front = (z > -0.02) * 1.0
    if clothes.kind == "collar":
        placket = smoothstep(0.0016, 0.0006, np.abs(np.abs(x) - 0.016)) * front
        button = smoothstep(0.0055, 0.004, np.hypot(x, (y + 0.155) % 0.075 - 0.03)) * front
        color = color * (1 - 0.3 * placket)[:, None]
        color = color * (1 - button[:, None]) + button[:, None] * np.clip(clothes.second, 0.05, 0.7).astype(np.float32)
    elif clothes.kind == "hood" and rng.random() < 0.5:
        color = color * (1 - 0.6 * smoothstep(0.005, 0.003, np.abs(x)) * front)[:, None]
    return color * (1 + (0.03 + 16 * clothes.fold_m) * folds)[:, None].astype(np.float32)


def paint_eye(person: Person, artwork: Artwork | None, size: int = 256) -> Array:
    """(size, size, 4) uint8, azimuthal about the pupil (``Body.eye_uvs``)."""
    rng = np.random.default_rng([person.seed, 6])
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    radius = np.hypot(x, y)
    angle = radius * 2 * np.pi  # 0.5 is pi
    if artwork is not None and person.iris is not None:
        front = artwork.iris(person.iris, 128)
        scale = 0.98 * np.sin(np.minimum(angle, 1.15)) / np.maximum(2 * radius, 1e-6)
        u = np.clip((x * scale + 0.5) * 127, 0, 127).round().astype(int)
        v = np.clip((y * scale + 0.5) * 127, 0, 127).round().astype(int)
        color = front[v, u]
        if "brown" in person.iris:  # the artwork's browns are redder than people's
            light = color.mean(-1, keepdims=True)
            iris = smoothstep(0.45, 0.38, angle)[..., None]
            color = color * (1 - iris) + iris * 0.75 * (light + (color - light) * [0.6, 0.75, 0.65])
    else:
        around = np.arctan2(y, x)
        fibres = sum(rng.normal() * np.cos(k * around + rng.uniform(0, 6.3)) for k in (9, 17, 23, 31, 41)) * 0.18
        edge, pupil = 0.40, rng.uniform(0.12, 0.2)
        inner = person.iris_color * (1.2 + fibres)[..., None] * (0.7 + 0.9 * smoothstep(edge, pupil, angle))[..., None]
        inner = inner * (1 - 0.75 * smoothstep(edge * 0.86, edge, angle))[..., None]
        inner = inner * smoothstep(pupil * 0.9, pupil * 1.05, angle)[..., None]
        veins = smoothstep(0.9, 2.2, np.abs(_noise_field(3.0, 1)[:size, :size]))
        white = np.array([0.56, 0.52, 0.5]) * (1 - 0.25 * veins * smoothstep(0.6, 1.3, angle))[..., None] ** [
            0.3,
            1.2,
            1.2,
        ]
        outer = smoothstep(edge * 0.97, edge * 1.05, angle)[..., None]
        color = inner * (1 - outer) + white * outer
    out = np.full((size, size, 4), 255, np.uint8)
    out[..., :3] = np.clip(color, 0, 1) ** (1 / GAMMA) * 255 + 0.5
    return out


def paint_fur(body: Body, person: Person) -> Array:
    """(ATLAS_PX, ATLAS_PX, 4) uint8 for shells over the skin: brightness by strand, alpha its height."""
    texels = body.texels()
    rng = np.random.default_rng([person.seed, 11])
    grain = float(rng.choice([1.0, 1.5, 2.2]))
    height = 0.55 + 0.22 * noise_at(rng, texels.index, grain) + rng.uniform(0.05, 0.2) * noise_at(rng, texels.index, 9)
    cover = hair_amount(person, texels)
    out = np.zeros((ATLAS_PX * ATLAS_PX, 4), np.uint8)
    out[texels.index, :3] = (np.clip(0.8 + 0.13 * noise_at(rng, texels.index, 1.2), 0.3, 1) * 255)[:, None]
    out[texels.index, 3] = np.clip(height, 0.02, 1) * cover * 255
    return out.reshape(ATLAS_PX, ATLAS_PX, 4)


def paint_beard(body: Body, person: Person, beard: Beard) -> Array:
    """(ATLAS_PX, ATLAS_PX, 4) uint8 for shells over the lower face, as ``paint_fur``."""
    texels, rng = body.texels(), stream(person.seed, "beard paint")
    height = 0.6 + 0.24 * noise_at(rng, texels.index, 1.2) + 0.12 * noise_at(rng, texels.index, 8)
    lips = texels.interpolate(body.regions["lips"].astype(np.float32))
    fray = 0.22 * noise_at(rng, texels.index, 2.0) + 0.14 * noise_at(rng, texels.index, 12)
    grown = beard_amount(texels.points, beard.style)
    cover = np.clip(1.3 * grown - 0.15 + fray * (grown > 0.02), 0, 1) * (1 - lips) * beard.density
    out = np.zeros((ATLAS_PX * ATLAS_PX, 4), np.uint8)
    out[texels.index, :3] = (np.clip(0.85 + 0.09 * noise_at(rng, texels.index, 1.1), 0.3, 1) * 255)[:, None]
    out[texels.index, 3] = np.clip(height, 0.02, 1) * cover * 255
    return out.reshape(ATLAS_PX, ATLAS_PX, 4)


def tint_hair(texture: Array, color: Array, spread: float = 0.16) -> Array:
    """Recolour a hair texture (h, w, 4) uint8: its light and dark strands stay, its hue becomes ``color`` (linear)."""
    light = texture[..., :3].astype(np.float32).mean(-1) / 255
    strands = texture[..., 3] > 40
    mean, deviation = light[strands].mean(), max(float(light[strands].std()), 1e-3)
    light = np.clip(0.5 + (light - mean) / deviation * spread, 0.08, 1.2) ** GAMMA / 0.5**GAMMA
    out = np.empty_like(texture)
    out[..., :3] = np.clip(light[..., None] * color, 0, 1) ** (1 / GAMMA) * 255 + 0.5
    out[..., 3] = texture[..., 3]
    return out
