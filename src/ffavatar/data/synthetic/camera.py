"""Framing by the head crop convention, backgrounds, and what a camera does to a picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ffavatar.data.synthetic.people import SCENERY, Shot
from ffavatar.data.synthetic.scenery import paint_scenery
from ffavatar.data.synthetic.variety import Lens
from ffavatar.geometry import NORMALISED_FOCAL
from ffavatar.render.mesh import GAMMA, Array

CROP_SIDES = 2.1  # side of the head crop over the longer side of the landmarks' box
FEWEST_PX = 80  # of a sensor's head crop: fewer hold no face to learn from
CROP_RAISE = 0.04  # of the side, by which the crop's centre lies above the box's


def project_unit(points: Array) -> Array:
    """World points (..., 3) in front of the normalised camera -> crop units (..., 3): x, y in [0, 1] from the top left
    corner, and z, the depth relative to the points' mean in the same unit, smaller nearer."""
    depth = -points[..., 2]
    x = 0.5 + NORMALISED_FOCAL * points[..., 0] / depth
    y = 0.5 - NORMALISED_FOCAL * points[..., 1] / depth
    mean = depth.mean(-1, keepdims=True)
    return np.stack([x, y, NORMALISED_FOCAL * (depth - mean) / mean], -1)


def frame_head(landmarks: Array, zoom: float, shift: Array) -> Array:
    """(3,) translation that puts landmarks (478, 3), given at the origin, where the head crop convention wants them.

    ``zoom`` 1 and ``shift`` 0 give exactly the crop of the photo front end; others move it as detectors do.
    """
    size = float((landmarks.max(0) - landmarks.min(0))[:2].max())
    translation = np.array([0.0, 0.0, -landmarks[:, 2].mean() - NORMALISED_FOCAL * CROP_SIDES * size])
    for _ in range(8):
        seen = project_unit(landmarks + translation)[:, :2]
        low, high = seen.min(0), seen.max(0)
        distance = -(landmarks[:, 2].mean() + translation[2])
        ratio = float((high - low).max()) * CROP_SIDES / zoom
        move = np.array([0.5, 0.5 + CROP_RAISE]) + shift - (low + high) / 2
        step = np.array([move[0] / NORMALISED_FOCAL, -move[1] / NORMALISED_FOCAL, 1 - ratio])
        translation = translation + distance * step
    return translation


def _bilinear_resize(picture: Array, size: int) -> Array:
    """(h, w, 3) float -> (size, size, 3) float."""
    planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in planes], -1)


def make_background(rng: np.random.Generator, kind: str, surrounding: Array | None, size: int) -> Array:
    """(size, size, 3) linear; ``kind`` as ``Shot.background``."""
    if kind in SCENERY:
        return paint_scenery(rng, kind, size)
    first = np.clip(rng.uniform(0.1, 1.0) * (1 + rng.choice([0.03, 0.12, 0.3]) * rng.normal(0, 1, 3)), 0.01, 1) ** 1.6
    if kind == "gradient":
        second = np.clip(first * rng.uniform(0.2, 1.2) + rng.normal(0, 0.04, 3), 0, 1)
        y, x = np.mgrid[:size, :size] / size
        angle = rng.uniform(0, 2 * np.pi)
        t = np.clip(0.5 + np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5), 0, 1)
        if rng.random() < 0.5:  # a lamp on a backdrop
            t = np.clip(np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8)), 0, 1)
        return first * (1 - t[..., None]) + second * t[..., None]
    if kind == "noise":
        out = np.broadcast_to(first, (size, size, 3)).copy()
        for cells in (3, 6, 14, 40):
            amount = rng.uniform(0, 0.6) * first.mean() / (1 + cells / 12)
            own = rng.normal(0, 1, (cells, cells, 3)) * 0.12 + rng.normal(0, 1, (cells, cells, 1)) * 0.7
            out = out + amount * _bilinear_resize(own, size)
        return np.clip(out, 0, 1.2)
    if kind == "surrounding" and surrounding is not None:
        # The normalised camera sees 19 degrees of the map; wider crops look like rooms behind people.
        height, width = surrounding.shape[:2]
        span = max(4, int(height * rng.uniform(0.12, 0.35)))
        row = int(np.clip(height * rng.uniform(0.4, 0.55) - span / 2, 0, height - span))
        columns = (int(rng.integers(width)) + np.arange(span)) % width
        crop = surrounding[row : row + span][:, columns]
        crop = crop / max(float(np.percentile(crop, 80)), 1e-4) * rng.uniform(0.25, 0.9)
        return np.clip(_bilinear_resize(np.minimum(crop, 3.0), size), 0, 3)
    return np.broadcast_to(first, (size, size, 3)).copy()


def _blur(picture: Array, sigma: float) -> Array:
    return _blur_axes(picture, (sigma, sigma))


def _blur_axes(picture: Array, sigmas: tuple[float, float]) -> Array:
    """Gaussian blur of a picture (H, W, ...) along rows and along columns."""
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.25:
            continue
        reach = int(np.ceil(3 * sigma))
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).astype(np.float32)
        pad = [(0, 0)] * picture.ndim
        pad[axis] = (reach, reach)
        padded = np.pad(picture, pad, mode="edge")
        n = picture.shape[axis]
        picture = sum(w * (padded[k : k + n] if axis == 0 else padded[:, k : k + n]) for k, w in enumerate(kernel))
    return picture


def _through_lens(scene: Array, lens: Lens) -> Array:
    """Motion blur and a sensor of fewer pixels: of the picture and, alike, of its matte (H, W, C)."""
    scene = _blur_axes(scene, (lens.motion_px[1], lens.motion_px[0]))
    if lens.resolution < 1:
        size = len(scene)
        small = max(min(size, FEWEST_PX), round(size * lens.resolution))
        planes = []
        for channel in np.moveaxis(scene, -1, 0):
            coarse = Image.fromarray(channel.astype(np.float32)).resize((small, small), Image.Resampling.BOX)
            planes.append(np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)))
        scene = np.stack(planes, -1)
    return scene


def _developed(encoded: Array, lens: Lens) -> Array:
    """Saturation, corners and sharpening of an encoded picture (H, W, 3)."""
    if lens.saturation != 1:
        grey = (encoded @ np.array([0.2126, 0.7152, 0.0722], np.float32))[..., None]
        encoded = grey + (encoded - grey) * lens.saturation
    if lens.vignette:
        t = np.linspace(-1, 1, len(encoded), dtype=np.float32)
        encoded = encoded * (1 - 0.5 * lens.vignette * (t[:, None] ** 2 + t[None] ** 2))[..., None]
    if lens.sharpen:
        encoded = encoded + 0.8 * lens.sharpen * (encoded - _blur(encoded, 1.0))
    return np.clip(encoded, 0, 1)


def take_picture(rng: np.random.Generator, figure: Array, background: Array, shot: Shot) -> tuple[Array, Array]:
    """Linear premultiplied figure (H, W, 4) over a background -> picture (H, W, 3) uint8 and matte (H, W) uint8."""
    matte = figure[..., 3:]
    scene = figure[..., :3] + (1 - matte) * background.astype(np.float32)
    seen = _through_lens(_blur(np.concatenate([scene, matte], -1), shot.blur_px), shot.lens)
    scene, matte = seen[..., :3], seen[..., 3]
    scene = scene * shot.white_balance.astype(np.float32)
    if shot.noise:
        grain = rng.standard_normal(scene.shape, np.float32) * shot.noise
        scene = scene + grain * np.sqrt(np.maximum(scene, 0) * 0.5 + 0.004)
    # A soft shoulder keeps highlights from burning out all at once, as cameras do.
    scene = np.maximum(scene, 0)
    scene = np.where(scene < 0.6, scene, 0.6 + 0.4 * (1 - np.exp(-(scene - 0.6) / 0.4)))
    encoded = np.clip(scene, 0, 1) ** (1 / GAMMA)
    encoded = _developed(np.clip(0.45 + (encoded - 0.45) * shot.contrast, 0, 1).astype(np.float32), shot.lens)
    picture = (encoded * 255 + 0.5).astype(np.uint8)
    if shot.jpeg_quality < 100:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=shot.jpeg_quality)
        picture = np.asarray(Image.open(buffer).convert("RGB"))
    return picture, (np.clip(matte, 0, 1) * 255 + 0.5).astype(np.uint8)
