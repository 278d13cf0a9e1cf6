"""Reads a folder of MakeHuman artwork (CC0): skins, hair, brows, lashes, irises, teeth, tongue, and HDRI surroundings.

Layout: ``makehuman/{skins,hair,eyebrows,eyelashes,eyes,teeth,tongue}`` as MakeHuman names them and ``hdri/*.exr``. The
folder is an argument; nothing of it is in this repository, and everything here also works without it.

A ``.mhclo`` file hangs each vertex of a garment (here: hair, teeth) on three vertices of the MakeHuman base mesh:
position = sum of weights x vertices + offset x scale of the body along each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ffavatar.errors import InputError
from ffavatar.render.mesh import Array

DECIMETRE = 0.1  # MakeHuman's unit in metres
HAIR_STYLES = ("bob02", "braid01", "long01", "ponytail01", "short01", "short02", "short03", "short04")
LONG_STYLES = ("long01", "braid01", "ponytail01", "bob02")


@dataclass(frozen=True)
class Proxy:
    """A small mesh hung on the MakeHuman base mesh (``.mhclo`` + ``.obj``)."""

    name: str
    references: Array  # (P, 3) int64 base vertices
    weights: Array  # (P, 3) float64
    offsets: Array  # (P, 3) float64, in units of `scales`
    scales: tuple[tuple[int, int, float] | None, ...]  # per axis: two base vertices and their distance at scale 1
    faces: Array  # (F, 3) int32
    uvs: Array  # (F, 3, 2) float32
    texture: Path | None

    def rest(self, base: Array) -> Array:
        """(P, 3) positions on a base mesh (count, 3) decimetres."""
        return np.einsum("pk,pkc->pc", self.weights, base[self.references]) + self.offset(base)

    def offset(self, base: Array) -> Array:
        """(P, 3) the offsets in the units of ``base``."""
        size = [1.0 if s is None else abs(base[s[0], a] - base[s[1], a]) / s[2] for a, s in enumerate(self.scales)]
        return self.offsets * size


class Artwork:
    """What an assets folder holds, by name. Raises InputError where the folder is not of this layout."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.makehuman = self.folder / "makehuman"
        if not (self.makehuman / "skins").is_dir():
            raise InputError(
                f"{folder} holds no makehuman/skins; give --assets a folder of MakeHuman artwork or leave it out."
            )

    def __reduce__(self) -> tuple:
        return Artwork, (str(self.folder),)

    def skins(self) -> list[str]:
        return sorted(p.stem for p in (self.makehuman / "skins").glob("*.jpg"))

    def irises(self) -> list[str]:
        return sorted(p.stem.removesuffix("_eye") for p in (self.makehuman / "eyes" / "materials").glob("*_eye.*"))

    def surroundings(self) -> list[str]:
        return sorted(p.stem for p in (self.folder / "hdri").glob("*.exr"))

    def proxies(self, kind: str) -> list[str]:
        """Names of the proxies of a kind: hair, eyebrows, eyelashes or teeth."""
        names = sorted(p.stem for p in (self.makehuman / kind).glob("*/*.mhclo"))
        return [n for n in names if n in HAIR_STYLES] if kind == "hair" else names

    def proxy(self, kind: str, name: str) -> Proxy:
        return _read_proxy(self.makehuman / kind / name / f"{name}.mhclo")

    def skin(self, name: str, size: int) -> Array:
        """(size, size, 3) linear float32."""
        return _linear(_find(self.makehuman / "skins", name), size)[..., :3]

    def texture(self, path: Path | None, size: int) -> Array:
        """(size, size, 4) uint8 with the colour of holes filled in, so that edges do not darken when sampled."""
        if path is None:
            raise InputError(f"a texture is missing in {self.makehuman}; restore the assets folder.")
        return _filled(path, size)

    def iris(self, name: str, size: int) -> Array:
        """(size, size, 3) linear float32: one eyeball seen from the front, the pupil in the middle."""
        picture = _picture(_find(self.makehuman / "eyes" / "materials", f"{name}_eye")).convert("RGB")
        side = picture.width
        # The texture holds two eyeballs; this one's pupil lies at (0.703, 0.297) and its sclera has a radius of 0.29.
        box = [(0.703 - 0.285) * side, (0.297 - 0.285) * side, (0.703 + 0.285) * side, (0.297 + 0.285) * side]
        crop = picture.resize((size, size), Image.Resampling.LANCZOS, box=tuple(box))  # type: ignore[arg-type]
        return (np.asarray(crop, np.float32) / 255) ** 2.2

    def teeth_texture(self) -> Path:
        return _find(self.makehuman / "teeth" / "materials", "teeth")

    def surrounding(self, name: str) -> Array:
        """(h, 2h, 3) linear float32 radiance, equirectangular, row 0 is up."""
        return _read_exr(self.folder / "hdri" / f"{name}.exr")

    def light_map(self, name: str) -> Array:
        """(32, 64, 3) block means of a surrounding, enough for soft light."""
        return _light_map(self.folder / "hdri" / f"{name}.exr")


def _find(folder: Path, stem: str) -> Path:
    for suffix in (".webp", ".png", ".jpg"):
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise InputError(f"the artwork {stem} is missing in {folder}; restore the assets folder.")


def _picture(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError as error:
        raise InputError(f"the artwork {path} cannot be read ({error}); restore the assets folder.") from error


@lru_cache(maxsize=32)
def _linear(path: Path, size: int) -> Array:
    picture = _picture(path).convert("RGB").resize((size, size), Image.Resampling.BOX)
    return (np.asarray(picture, np.float32) / 255) ** 2.2


@lru_cache(maxsize=64)
def _filled(path: Path, size: int) -> Array:
    picture = np.asarray(_picture(path).convert("RGBA"), np.float32) / 255
    block = max(1, picture.shape[0] // size)
    weighted = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], -1)
    levels = [weighted.reshape(picture.shape[0] // block, block, picture.shape[1] // block, block, 4).mean((1, 3))]
    while levels[-1].shape[0] > 1 and levels[-1].shape[0] % 2 == 0:  # pull: ever coarser means of what is opaque
        last = levels[-1]
        levels.append(last.reshape(last.shape[0] // 2, 2, last.shape[1] // 2, 2, 4).mean((1, 3)))
    color = levels[-1][..., :3] / np.maximum(levels[-1][..., 3:], 1e-4)
    for level in reversed(levels[:-1]):  # push: holes take the colour of the coarser level
        color = color.repeat(2, 0).repeat(2, 1)
        alpha = level[..., 3:]
        color = np.where(alpha > 1e-3, level[..., :3] / np.maximum(alpha, 1e-3), color)
    return (np.clip(np.concatenate([color, levels[0][..., 3:]], -1), 0, 1) * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=16)
def _read_exr(path: Path) -> Array:
    import av  # its decoder reads OpenEXR's DWAB compression, which Pillow does not

    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, OSError, StopIteration) as error:
        raise InputError(f"the surroundings {path} cannot be read ({error}); restore the assets folder.") from error
    return np.maximum(frame.to_ndarray().astype(np.float32), 0)


@lru_cache(maxsize=16)
def _light_map(path: Path) -> Array:
    radiance = _read_exr(path)
    step = len(radiance) // 32
    return radiance[: 32 * step, : 64 * step].reshape(32, step, 64, step, 3).mean((1, 3))


@lru_cache(maxsize=64)
def _read_proxy(path: Path) -> Proxy:
    if not path.is_file():
        raise InputError(f"the artwork {path} is missing; restore the assets folder.")
    references, weights, offsets = [], [], []
    scales: dict[str, tuple[int, int, float]] = {}
    obj, listing = path.with_suffix(".obj"), False
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if parts[0] == "obj_file":
            obj = path.with_name(parts[1])
        elif parts[0] in ("x_scale", "y_scale", "z_scale"):
            scales[parts[0][0]] = (int(parts[1]), int(parts[2]), float(parts[3]))
        elif parts[0] == "verts":
            listing = True
        elif parts[0] == "delete_verts":
            listing = False
        elif not parts[0].isdigit():  # other settings, some of them between the head and the list
            continue
        elif listing and len(parts) == 1:
            references.append([int(parts[0])] * 3)
            weights.append([1.0, 0.0, 0.0])
            offsets.append([0.0, 0.0, 0.0])
        elif listing:
            references.append([int(p) for p in parts[:3]])
            weights.append([float(p) for p in parts[3:6]])
            offsets.append([float(p) for p in parts[6:9]])
    faces, uvs = _read_obj(obj)
    named = [path.with_name(stem + kind) for stem in (f"{path.stem}_diffuse", path.stem) for kind in (".webp", ".png")]
    textures = [p for p in named if p.is_file()]
    return Proxy(
        path.stem, np.array(references), np.array(weights), np.array(offsets), tuple(scales.get(a) for a in "xyz"),
        faces, uvs, textures[0] if textures else None,
    )  # fmt: skip


def _read_obj(path: Path) -> tuple[Array, Array]:
    """Triangles (F, 3) and their texture coordinates (F, 3, 2) of a Wavefront file with polygons."""
    uv: list[list[float]] = []
    faces, corners = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        parts = line.split()
        if not parts:
            continue
        if parts[0] == "vt":
            uv.append([float(p) for p in parts[1:3]])
        elif parts[0] == "f":
            polygon = [p.split("/") for p in parts[1:]]
            for k in range(1, len(polygon) - 1):
                triangle = (polygon[0], polygon[k], polygon[k + 1])
                faces.append([int(c[0]) - 1 for c in triangle])
                corners.append([int(c[1]) - 1 for c in triangle])
    return np.array(faces, np.int32), np.array(uv, np.float32)[np.array(corners)]
