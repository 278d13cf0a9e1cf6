"""A triangle mesh of an avatar in one pose, coloured at its vertices, for programs that know no Gaussians.

Its vertices are the centres of the Gaussians, so hair and clothes that the avatar lifts off the head are lifted here
too. Gaussians hang on a subdivided surface, whose triangles join them; triangles with a corner that is all but
transparent are left out. An avatar whose points are no whole subdivision of its head gives the base mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ffavatar.animate import Rig
from ffavatar.avatar import Avatar
from ffavatar.export.options import ExportOptions, head_space, numpy32, posed_splats, provenance, refuse_flame
from ffavatar.files import atomic_path
from ffavatar.head.surface import subdivide
from ffavatar.types import HeadParams

LEAST_OPACITY = 0.2  # a corner fainter than this is a hole in the mesh
_MOST_LEVELS = 4


@dataclass(frozen=True)
class ColouredMesh:
    """Triangles counter-clockwise from outside; head space, y up."""

    vertices: np.ndarray  # (M, 3) float32
    faces: np.ndarray  # (F, 3) int64
    colours: np.ndarray  # (M, 3) float32 sRGB in [0, 1]
    points: np.ndarray | None = None  # (M,) the Gaussian at each vertex; None: the vertices are the base vertices


def dense_faces(rig: Rig) -> np.ndarray | None:
    """Triangles (F, 3) of the finest whole subdivision of the head with which the rig's points begin; None if there is
    none."""
    faces, count = rig.head.faces.cpu().numpy(), len(rig.neutral)
    parents, found = rig.surface.parents.cpu(), None
    for level in range(_MOST_LEVELS):
        made = subdivide(faces, count, np.zeros((0, 2), np.float32), np.zeros((0, 3), np.int64), level)
        if len(made) > len(parents) or not torch.equal(made.parents, parents[: len(made)]):
            break
        found = made.faces.numpy()
    return found


def posed_mesh(avatar: Avatar, params: HeadParams | None, scale: float = 1.0) -> ColouredMesh:
    """The mesh in head space. ``params`` as ``export.options.posed_splats`` takes them."""
    avatar = avatar.to("cpu")
    faces = dense_faces(avatar.rig)
    if faces is None:
        return _base_mesh(avatar, params, scale)
    made = posed_splats(avatar, params, scale)
    solid = made.opacities.numpy() >= LEAST_OPACITY
    faces = faces[solid[faces].all(1)]
    used, numbers = np.unique(faces, return_inverse=True)
    colours = _unit(numpy32(made.colors))[used]
    return ColouredMesh(numpy32(made.means)[used], numbers.reshape(-1, 3), colours, used)


def _base_mesh(avatar: Avatar, params: HeadParams | None, scale: float) -> ColouredMesh:
    rig = avatar.rig
    vertices = rig.neutral
    if params is not None:
        with torch.no_grad():
            vertices = rig.head.pose(rig.neutral[None], rig.joints[None], head_space(params, avatar)).vertices[0]
    return ColouredMesh(numpy32(vertices * scale), rig.head.faces.numpy(), vertex_colours(avatar))


def _unit(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1)


def vertex_colours(avatar: Avatar) -> np.ndarray:
    """(V, 3) sRGB at the base vertices: the mean of the Gaussians that hang on each, by share and opacity.

    Vertices on which nothing visible hangs take the mean of all.
    """
    rig, made = avatar.rig, avatar.canonical
    weights = (rig.surface.barycentric * made.opacities[:, None]).reshape(-1)
    parents = rig.surface.parents.reshape(-1)
    sums = torch.zeros(len(rig.neutral), 4)
    coloured = torch.cat([made.colors, torch.ones(len(made), 1)], 1).repeat_interleave(3, dim=0)
    sums.index_add_(0, parents, coloured * weights[:, None])
    mean = sums[:, :3].sum(0) / sums[:, 3].sum().clamp_min(1e-9)
    return _unit(numpy32(torch.where(sums[:, 3:] > 1e-3, sums[:, :3] / sums[:, 3:].clamp_min(1e-9), mean)))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(M, 3) float32 unit normals, triangles weighted by area; upwards where a vertex has none."""
    corners = vertices.astype(np.float64)[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.zeros((len(vertices), 3))
    for corner in range(3):
        np.add.at(sums, faces[:, corner], cross)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(length > 1e-20, sums / np.maximum(length, 1e-20), [0.0, 1.0, 0.0]).astype("<f4")


def write_obj(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """Wavefront OBJ with colours after the coordinates (``v x y z r g b``, sRGB), as MeshLab and Blender read them."""
    refuse_flame(avatar, path, options)
    made = posed_mesh(avatar, options.moment(avatar, path), options.scale)
    lines = [f"# {line}" for line in provenance(avatar).values()]
    rows = np.concatenate([made.vertices, made.colours], 1)
    lines += ["v {:.6f} {:.6f} {:.6f} {:.4f} {:.4f} {:.4f}".format(*row) for row in rows.tolist()]
    lines += ["f {} {} {}".format(*row) for row in (made.faces + 1).tolist()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
