"""Textured triangle meshes to pictures: a z-buffer and a deferred shader for the synthetic people.

Two steps, each one call: ``rasterize_mesh`` finds the nearest triangle of every sample (exact depth and barycentrics,
so labels can be read off), ``shade_fragments`` lights what was found. Both run in the native library, or in numpy where
it is missing (same result to rounding, some ten times slower). ``render_mesh`` does both, with shadow maps and
supersampling.

Conventions: vertices are world coordinates of the normalised camera (+x right in the picture, +y up, the camera at the
origin looking along -z), metres. Textures are (H, W, 4) uint8, v = 1 at row 0, repeating. Colours are linear light;
texture bytes are decoded and pictures encoded with the power 2.2.

The shading is the usual real-time mixture: ambient light from nine spherical-harmonic coefficients (Ramamoorthi and
Hanrahan 2001), wrapped diffuse light whose width differs per channel in place of subsurface scattering (Green, GPU Gems
2004), Blinn highlights, Schlick's Fresnel term, 3 x 3 filtered shadow maps and per-vertex ambient occlusion.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffavatar.errors import InputError
from ffavatar.geometry import NORMALISED_FOCAL
from ffavatar.render.library import load_library

Array = NDArray[Any]
GAMMA = 2.2
NEAR_M = 0.01
SHADOW_BIAS_M = 0.001
_MATERIAL_COLUMNS = 9  # tint r, g, b, specular, gloss, wrap, environment, cutout, softness: as in native/mesh.cpp
_CUTOUT_THRESHOLDS = np.array([-0.3, 0.1, 0.3, -0.1], np.float32)
_WRAP = np.array([1.2, 0.5, 0.3], np.float32)


@dataclass(frozen=True)
class Material:
    """How the faces of one kind answer light."""

    texture: Array | None = None  # (H, W, 4) uint8, multiplied by `tint`
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # linear
    specular: float = 0.2
    gloss: float = 12.0  # Blinn exponent
    wrap: float = 0.0  # 0: hard terminator, 0.4: skin
    environment: float = 0.0  # weight of the Fresnel reflection of the ambient light
    cutout: float = 0.0  # > 0: texture alpha below this is a hole
    softness: float = 0.0  # spreads the threshold over the four samples of a pixel, by -0.3 to 0.3 times this


@dataclass(frozen=True)
class Mesh:
    """Triangles of several materials, ready to be drawn."""

    vertices: Array  # (V, 3) float32
    faces: Array  # (F, 3) int32
    uvs: Array  # (F, 3, 2) float32, one per corner
    face_material: Array  # (F,) int32
    materials: tuple[Material, ...]
    occlusion: Array  # (V,) float32, 1 open, 0 buried
    normals: Array  # (V, 3) float32


@dataclass(frozen=True)
class Lighting:
    """Ambient spherical harmonics (order of ``sh_basis``) and up to a few directional lights."""

    ambient: Array  # (9, 3) irradiance / pi
    directions: Array = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # (L, 3) towards the light, unit
    colors: Array = field(default_factory=lambda: np.zeros((0, 3), np.float32))  # (L, 3) linear
    shadows: bool = True


@dataclass(frozen=True)
class Fragments:
    """What each sample sees: face index (-1: nothing), barycentrics and depth (infinity: nothing)."""

    face: Array  # (H, W) int32
    barycentric: Array  # (H, W, 3) float32
    depth: Array  # (H, W) float32


def sh_basis(directions: Array) -> Array:
    """(..., 3) unit vectors -> (..., 9): 1, y, z, x, xy, yz, 3zz - 1, xz, xx - yy (factors in the coefficients)."""
    x, y, z = np.moveaxis(np.asarray(directions), -1, 0)
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], -1)


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Area-weighted unit normals. (V, 3), (F, 3) -> (V, 3) float32."""
    vertices = np.ascontiguousarray(vertices, np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    library = load_library()
    if library is not None:
        out = np.empty_like(vertices)
        library.ffa_mesh_normals(
            _pointer(vertices),
            ctypes.c_int64(len(vertices)),
            _pointer(faces),
            ctypes.c_int64(len(faces)),
            _pointer(out),
        )
        return out
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    out = np.stack([np.bincount(faces.ravel(), np.repeat(normal[:, i], 3), len(vertices)) for i in range(3)], -1)
    return (out / np.sqrt(np.maximum((out**2).sum(-1, keepdims=True), 1e-20))).astype(np.float32)


def project_corners(vertices: Array, faces: Array, size_px: int) -> Array:
    """Vertices (V, 3) in front of the normalised camera -> face corners (F, 3, 3): x px, y px, depth in metres."""
    depth = -np.asarray(vertices, np.float32)[:, 2]
    scale = NORMALISED_FOCAL * size_px / np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    pixels = np.stack([size_px / 2 + scale * vertices[:, 0], size_px / 2 - scale * vertices[:, 1], depth], -1)
    return np.ascontiguousarray(pixels.astype(np.float32)[faces])


def rasterize_mesh(
    corners: Array,
    width: int,
    height: int,
    *,
    uvs: Array | None = None,
    face_material: Array | None = None,
    materials: tuple[Material, ...] = (),
    orthographic: bool = False,
    near: float = NEAR_M,
    threads: int = 1,
    backend: str = "auto",
) -> Fragments:
    """Nearest triangle of every sample (centres at +0.5).

    Args:
        corners: (F, 3, 3) x px, y px, depth. A face with a corner nearer than ``near`` is left out, not clipped.
        uvs, face_material, materials: (F, 3, 2), (F,) and the table; needed for cut-out materials only.
        orthographic: depth is linear in the picture (shadow maps).
        backend: "auto", "native" or "numpy".

    Raises InputError for wrong shapes or a missing native library when it was asked for by name.
    """
    corners = np.ascontiguousarray(corners, np.float32)
    if corners.ndim != 3 or corners.shape[1:] != (3, 3):
        raise InputError(f"corners must have the shape (faces, 3, 3), not {corners.shape}; give x px, y px and depth")
    if (uvs is None) != (face_material is None) or (face_material is not None and not materials):
        raise InputError("uvs, face_material and materials belong together; give all three or none")
    library = _library(backend)
    if face_material is None:
        uvs, face_material, materials = np.zeros((len(corners), 3, 2)), np.zeros(len(corners)), (Material(),)
    assert uvs is not None
    uvs, face_material = np.ascontiguousarray(uvs, np.float32), np.ascontiguousarray(face_material, np.int32)
    if len(face_material) and not 0 <= face_material.min() <= face_material.max() < len(materials):
        raise InputError(f"face_material must lie between 0 and {len(materials) - 1}, the last material given")
    if library is None:
        return _rasterize_numpy(corners, width, height, uvs, face_material, materials, orthographic, near)
    table, pointers, sizes, _keep = _tables(materials)
    face = np.empty((height, width), np.int32)
    barycentric = np.empty((height, width, 3), np.float32)
    depth = np.empty((height, width), np.float32)
    library.ffa_mesh_rasterize(
        _pointer(corners), ctypes.c_int64(len(corners)), width, height, ctypes.c_float(near), int(orthographic),
        _pointer(uvs), _pointer(face_material), _pointer(table), _pointer(pointers), _pointer(sizes), threads,
        _pointer(face), _pointer(barycentric), _pointer(depth),
    )  # fmt: skip
    return Fragments(face, barycentric, depth)


def shade_fragments(
    mesh: Mesh,
    fragments: Fragments,
    lighting: Lighting,
    *,
    shadow_size: int = 256,
    threads: int = 1,
    backend: str = "auto",
) -> Array:
    """Light what ``rasterize_mesh`` found, the eye at the origin: (H, W, 4) float32, linear and premultiplied."""
    library = _library(backend)
    lights = len(lighting.directions)
    maps = matrices = None
    if lighting.shadows and lights:
        maps, matrices = _shadow_maps(mesh, lighting, shadow_size, threads, backend)
    if library is None:
        return _shade_numpy(mesh, fragments, lighting, maps, matrices)
    height, width = fragments.face.shape
    out = np.empty((height, width, 4), np.float32)
    table, pointers, sizes, _keep = _tables(mesh.materials)
    arrays = {
        name: np.ascontiguousarray(getattr(mesh, name), np.float32) for name in ("vertices", "normals", "occlusion")
    }
    ambient, directions, colors = (
        np.ascontiguousarray(a, np.float32) for a in (lighting.ambient, lighting.directions, lighting.colors)
    )
    eye = np.zeros(3, np.float32)
    faces, uvs = np.ascontiguousarray(mesh.faces, np.int32), np.ascontiguousarray(mesh.uvs, np.float32)
    kinds = np.ascontiguousarray(mesh.face_material, np.int32)
    library.ffa_mesh_shade(
        width, height, _pointer(fragments.face), _pointer(fragments.barycentric), _pointer(arrays["vertices"]),
        _pointer(arrays["normals"]), _pointer(arrays["occlusion"]), _pointer(faces), _pointer(uvs), _pointer(kinds),
        _pointer(table), _pointer(pointers), _pointer(sizes), _pointer(ambient), lights, _pointer(directions),
        _pointer(colors), _pointer(maps), _pointer(matrices), shadow_size, _pointer(eye), threads, _pointer(out),
    )  # fmt: skip
    return out


def render_mesh(
    mesh: Mesh, lighting: Lighting, size_px: int, *, supersample: int = 2, threads: int = 1, backend: str = "auto"
) -> Array:
    """The mesh seen by the normalised camera: (size, size, 4) float32, linear light premultiplied by coverage."""
    samples = size_px * supersample
    fragments = rasterize_mesh(
        project_corners(mesh.vertices, mesh.faces, samples), samples, samples, uvs=mesh.uvs,
        face_material=mesh.face_material, materials=mesh.materials, threads=threads, backend=backend,
    )  # fmt: skip
    fine = shade_fragments(mesh, fragments, lighting, threads=threads, backend=backend)
    # Highlights are clipped before averaging, as a sensor clips: one sparkling sample must not fill its whole pixel.
    np.minimum(fine, 4.0, out=fine)
    return fine.reshape(size_px, supersample, size_px, supersample, 4).mean((1, 3))


def light_matrix(direction: Array, centre: Array, radius_m: float, size_px: int) -> Array:
    """(3, 4) world -> x px, y px, distance from a plane behind which nothing lies, for an orthographic shadow map."""
    forward = -np.asarray(direction, np.float64) / np.linalg.norm(direction)
    side = np.cross(forward, [0.0, 1.0, 0.0] if abs(forward[1]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(side, forward)
    scale = size_px / (2 * radius_m)
    rows = np.stack([side * scale, up * scale, forward])
    shift = -rows @ np.asarray(centre, np.float64) + [size_px / 2, size_px / 2, 2 * radius_m]
    return np.concatenate([rows, shift[:, None]], 1).astype(np.float32)


def _shadow_maps(mesh: Mesh, lighting: Lighting, size: int, threads: int, backend: str) -> tuple[Array, Array]:
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2 + 0.01
    matrices = np.stack([light_matrix(d, centre, radius, size) for d in lighting.directions])
    maps = []
    for matrix in matrices:
        seen = mesh.vertices @ matrix[:, :3].T + matrix[:, 3]
        maps.append(
            rasterize_mesh(
                seen[mesh.faces], size, size, uvs=mesh.uvs, face_material=mesh.face_material,
                materials=mesh.materials, orthographic=True, threads=threads, backend=backend,
            ).depth
        )  # fmt: skip
    return np.ascontiguousarray(np.stack(maps)), np.ascontiguousarray(matrices)


def _library(backend: str) -> ctypes.CDLL | None:
    if backend not in ("auto", "native", "numpy"):
        raise InputError(f"unknown mesh backend {backend!r}; choose auto, native or numpy")
    library = None if backend == "numpy" else load_library()
    if library is None and backend == "native":
        raise InputError("the native library is missing; run `python -m ffavatar.render.build` or use backend='numpy'")
    return library


def _pointer(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _tables(materials: tuple[Material, ...]) -> tuple[Array, Array, Array, list[Array]]:
    """Material table, texture addresses and sizes; the list keeps the textures alive during the call."""
    table = np.array(
        [[*m.tint, m.specular, m.gloss, m.wrap, m.environment, m.cutout, m.softness] for m in materials], np.float32
    ).reshape(len(materials), _MATERIAL_COLUMNS)
    keep = []
    pointers, sizes = np.zeros(len(materials), np.uint64), np.zeros((len(materials), 2), np.int32)
    for row, material in enumerate(materials):
        if material.texture is None:
            continue
        texture = np.ascontiguousarray(material.texture, np.uint8)
        if texture.ndim != 3 or texture.shape[2] != 4:
            raise InputError(f"a texture must have the shape (height, width, 4), not {texture.shape}")
        keep.append(texture)
        pointers[row], sizes[row] = texture.ctypes.data, (texture.shape[1], texture.shape[0])
    return table, pointers, sizes, keep


# --- the same in numpy: reference for the tests, and what runs without a compiler ------------------------------------


def _sample(texture: Array, uv: Array) -> Array:
    """Bilinear, repeating. (H, W, 4) uint8, (N, 2) -> (N, 4) in [0, 255]."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    ax, ay = (x - x0)[:, None], (y - y0)[:, None]
    x0, x1, y0, y1 = x0 % width, (x0 + 1) % width, y0 % height, (y0 + 1) % height
    top = texture[y0, x0] * (1 - ax) + texture[y0, x1] * ax
    return top * (1 - ay) + (texture[y1, x0] * (1 - ax) + texture[y1, x1] * ax) * ay


def _rasterize_numpy(
    corners: Array, width: int, height: int, uvs: Array, kinds: Array, materials: tuple[Material, ...],
    orthographic: bool, near: float,
) -> Fragments:  # fmt: skip
    x, y, z = (corners[..., k].astype(np.float64) for k in range(3))
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    x0 = np.clip(np.ceil(x.min(1) - 0.5), 0, width).astype(int)
    x1 = np.clip(np.floor(x.max(1) - 0.5), -1, width - 1).astype(int)
    y0 = np.clip(np.ceil(y.min(1) - 0.5), 0, height).astype(int)
    y1 = np.clip(np.floor(y.max(1) - 0.5), -1, height - 1).astype(int)
    kept = np.flatnonzero((np.abs(area) > 1e-12) & (z.min(1) > near) & (x1 >= x0) & (y1 >= y0))
    columns = (x1 - x0 + 1)[kept]
    counts = columns * (y1 - y0 + 1)[kept]
    t = np.repeat(kept, counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.repeat(columns, counts)
    px, py = x0[t] + place % columns, y0[t] + place // columns
    dx, dy = px + 0.5 - x[t, 0], py + 0.5 - y[t, 0]
    b1 = ((y[t, 2] - y[t, 0]) * dx - (x[t, 2] - x[t, 0]) * dy) / area[t]
    b2 = ((x[t, 1] - x[t, 0]) * dy - (y[t, 1] - y[t, 0]) * dx) / area[t]
    b = np.stack([1 - b1 - b2, b1, b2], 1)
    inside = (b >= -1e-6).all(1)
    t, px, py, b = t[inside], px[inside], py[inside], b[inside]
    if orthographic:
        depth = (b * z[t]).sum(1)
    else:
        b = b / z[t]
        depth = 1 / b.sum(1)
        b = b * depth[:, None]
    keep = np.ones(len(t), bool)
    for m, material in enumerate(materials):
        if material.cutout > 0 and material.texture is not None:
            mine = np.flatnonzero(kinds[t] == m)
            alpha = _sample(material.texture, np.einsum("nk,nkc->nc", b[mine], uvs[t[mine]]))[:, 3] / 255
            threshold = _CUTOUT_THRESHOLDS[((py[mine] & 1) * 2 + (px[mine] & 1)) ^ (m & 3)]
            limit = material.cutout + threshold * material.softness
            keep[mine] = alpha >= limit
    t, px, py, b, depth = t[keep], px[keep], py[keep], b[keep], depth[keep]
    at = py * width + px
    order = np.lexsort((t, depth, at))
    at, t, b, depth = at[order], t[order], b[order], depth[order]
    first = np.concatenate([[True], at[1:] != at[:-1]]) if len(at) else np.zeros(0, bool)
    face = np.full(height * width, -1, np.int32)
    barycentric = np.zeros((height * width, 3), np.float32)
    nearest = np.full(height * width, np.inf, np.float32)
    face[at[first]], barycentric[at[first]], nearest[at[first]] = t[first], b[first], depth[first]
    return Fragments(face.reshape(height, width), barycentric.reshape(height, width, 3), nearest.reshape(height, width))


def _shadowed(shadow_map: Array, matrix: Array, points: Array) -> Array:
    """Fraction of the 3 x 3 neighbourhood in the map that is nearer to the light. (N, 3) -> (N,)."""
    seen = points @ matrix[:, :3].T + matrix[:, 3]
    corner = np.floor(seen[:, :2] - 0.5)
    a = seen[:, :2] - 0.5 - corner
    x0, y0 = corner.astype(int).T
    size = len(shadow_map)
    ok = (x0 >= 1) & (y0 >= 1) & (x0 + 2 < size) & (y0 + 2 < size)
    x0, y0 = np.where(ok, x0, 1), np.where(ok, y0, 1)
    one = np.ones(len(points))
    wx, wy = (np.stack([1 - a[:, k], one, one, a[:, k]], 1) for k in (0, 1))
    total = np.zeros(len(points))
    for j in range(4):
        for i in range(4):
            total += (shadow_map[y0 - 1 + j, x0 - 1 + i] < seen[:, 2]) * wx[:, i] * wy[:, j]
    return np.where(ok, total / 9, 0)


def _shade_numpy(
    mesh: Mesh, fragments: Fragments, lighting: Lighting, maps: Array | None, matrices: Array | None
) -> Array:
    seen = fragments.face >= 0
    face, b = fragments.face[seen], fragments.barycentric[seen].astype(np.float64)

    def unit(v: Array) -> Array:
        return v / np.sqrt(np.maximum((v * v).sum(-1, keepdims=True), 1e-20))

    corner = mesh.faces[face]
    point = np.einsum("nk,nkc->nc", b, mesh.vertices[corner])
    normal = unit(np.einsum("nk,nkc->nc", b, mesh.normals[corner]))
    occlusion = np.einsum("nk,nk->n", b, mesh.occlusion[corner])[:, None]
    view = unit(-point)
    normal = np.where((normal * view).sum(1, keepdims=True) < 0, -normal, normal)
    uv = np.einsum("nk,nkc->nc", b, mesh.uvs[face])
    kind = mesh.face_material[face]
    table = _tables(mesh.materials)[0][kind]
    albedo = table[:, :3].astype(np.float64)
    for m, material in enumerate(mesh.materials):
        mine = kind == m
        if material.texture is not None and mine.any():
            albedo[mine] *= (np.floor(_sample(material.texture, uv[mine])[:, :3] + 0.5) / 255) ** GAMMA
    specular, gloss, wrap, environment = (table[:, k, None] for k in (3, 4, 5, 6))
    ambient = np.asarray(lighting.ambient, np.float64)
    facing = np.maximum((normal * view).sum(1, keepdims=True), 0)
    fresnel = 0.04 + 0.96 * (1 - facing) ** 5
    mirror = np.maximum(sh_basis(2 * facing * normal - view) @ ambient, 0)
    color = occlusion * (
        albedo * np.maximum(sh_basis(normal) @ ambient, 0) + occlusion * environment * fresnel * mirror
    )
    for light, (toward, tint) in enumerate(zip(lighting.directions, lighting.colors)):
        incident = (normal * toward).sum(1, keepdims=True)
        lit: Array | float = 1.0
        if maps is not None and matrices is not None:
            texel = 1 / np.linalg.norm(matrices[light][0, :3])
            bias = SHADOW_BIAS_M + 2 * texel * np.sqrt(np.maximum(1 - incident**2, 0))
            lit = 1 - _shadowed(maps[light], matrices[light], point + normal * bias)[:, None]
        half = unit(toward + view)
        rim = 0.04 + 0.96 * np.maximum(1 - (half * view).sum(1, keepdims=True), 0) ** 5
        highlight = np.maximum((normal * half).sum(1, keepdims=True), 1e-4) ** gloss
        highlight = lit * specular * highlight * np.maximum(incident, 0) * (gloss + 8) / 25 * (0.3 + rim)
        width = wrap * _WRAP
        diffuse = np.clip((incident + width) / (1 + width), 0, 1)
        passed = lit + (1 - lit) * 0.25 * np.minimum(width, 1)
        color += tint * (albedo * diffuse * passed * (0.35 + 0.65 * occlusion) + highlight * occlusion)
    out = np.zeros((*fragments.face.shape, 4), np.float32)
    out[seen] = np.concatenate([color, np.ones((len(color), 1))], 1)
    return out
