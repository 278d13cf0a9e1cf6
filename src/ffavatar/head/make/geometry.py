"""The embedded head's mesh: which triangles, their texture coordinates, eyeballs, lowered arms.

Everything works on vertices or displacements of MakeHuman's base mesh (V, 3) in decimetres and is linear in them, so
that the same map carries the base mesh, every target and every random person onto the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ffavatar.head.make.source import ObjMesh, Source

PARTS = ("skin", "teeth_upper", "teeth_lower", "tongue", "eyeball_left", "eyeball_right")
GROUPS = {"skin": "body", "teeth_upper": "helper-upper-teeth", "teeth_lower": "helper-lower-teeth"} | {
    "tongue": "helper-tongue"
}
EYES = ("helper-l-eye", "helper-r-eye")
ARM_BONES = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
ARM_ANGLE = np.radians(28.0)
NIPPLES = (1799, 8471)  # base vertices onto which the rings around them are drawn together
NIPPLE_REACH = 0.6  # decimetres
SECTORS = 20
LIMBUS = 0.078 * 2 * np.pi  # radians from the optical axis; 28 degrees, the edge of cornea and iris
RING_ANGLES = np.concatenate([LIMBUS * np.array([0.0, 0.34, 0.7]), np.linspace(LIMBUS, np.pi, 11)])


@dataclass(frozen=True)
class Topology:
    """Triangles of the head; head vertices are the selected base vertices, then the two eyeballs."""

    mh_vertex: np.ndarray  # (V,) base vertex, -1 for eyeballs
    part: np.ndarray  # (V,) index into PARTS
    faces: np.ndarray  # (F, 3)
    uvs: np.ndarray  # (M, 2)
    faces_uv: np.ndarray  # (F, 3)

    @property
    def chosen(self) -> np.ndarray:
        return self.mh_vertex[self.mh_vertex >= 0]


def split_quads(corners: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Split quads (F, 4) into triangles (F, 2, 3) of positions in the quad, along the shorter diagonal.

    ``positions`` (V, 3) are the places that ``corners`` index. Equal diagonals are split from the first corner.
    """
    a, b, c, d = (positions[corners[:, k]] for k in range(4))
    first = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    return np.where(first[:, None, None], [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])


def eyeball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A unit sphere about the optical axis +z with a cornea: vertices (242, 3), uvs (242, 2), triangles (480, 3)."""
    turn = 2 * np.pi * np.arange(SECTORS) / SECTORS
    inner = RING_ANGLES[1:-1, None]
    rings = np.stack(
        np.broadcast_arrays(np.sin(inner) * np.cos(turn), np.sin(inner) * np.sin(turn), np.cos(inner)), -1
    ).reshape(-1, 3)
    unit = np.concatenate([[[0.0, 0.0, 1.0]], rings, [[0.0, 0.0, -1.0]]])
    angle = np.concatenate([[0.0], np.repeat(RING_ANGLES[1:-1], SECTORS), [np.pi]])
    around = np.concatenate([[0.0], np.tile(turn, len(inner)), [0.0]])
    bulge = 1 + 0.07 * np.exp(-((angle / (0.86 * LIMBUS)) ** 4))
    reach = angle / (2 * np.pi)
    uvs = 0.5 + reach[:, None] * np.stack([np.cos(around), np.sin(around)], 1)
    uvs[-1] = 0.5, 1.0
    last = len(unit) - 1
    faces = []
    for c in range(SECTORS):
        here, there = 1 + c, 1 + (c + 1) % SECTORS
        low = (len(inner) - 1) * SECTORS
        faces += [(0, here, there), (last, low + there, low + here)]
        for ring in range(len(inner) - 1):
            p, q = ring * SECTORS + here, ring * SECTORS + there
            faces += [(p, p + SECTORS, q + SECTORS), (p, q + SECTORS, q)]
    return unit * bulge[:, None], uvs, np.array(faces)


class Eye:
    """A sphere fitted to one of MakeHuman's eye helpers; it follows the helper's displacements linearly."""

    def __init__(self, base: np.ndarray, helper: np.ndarray) -> None:
        self.helper = helper
        points = base[helper]
        # |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in centre and constant
        fit = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
        self.centre = fit[:3]
        self.radius = float(np.sqrt(fit[3] + self.centre @ self.centre))
        self.normals = (points - self.centre) / np.linalg.norm(points - self.centre, axis=1, keepdims=True)
        self.solve = np.linalg.pinv(np.c_[self.normals, np.ones(len(points))])
        self.shape = eyeball()[0]

    def rest(self) -> np.ndarray:
        """(242, 3)"""
        return self.centre + self.radius * self.shape

    def follow(self, moved: np.ndarray) -> np.ndarray:
        """Displacements of the base mesh (..., V, 3) -> of the eyeball (..., 242, 3): its shift and growth."""
        along = (moved[..., self.helper, :] * self.normals).sum(-1) @ self.solve.T
        return along[..., None, :3] + along[..., None, 3:] * self.shape


def select_topology(mesh: ObjMesh, chosen: np.ndarray, parts: np.ndarray, positions: np.ndarray) -> Topology:
    """The triangles between ``chosen`` base vertices (N,), whose part is ``parts`` (N,), plus two eyeballs.

    Quads are split along the shorter diagonal of ``positions`` (V, 3). Around the nipples the vertices that are not
    chosen are drawn onto the nipple, and what collapses is dropped.
    """
    place = np.full(len(mesh.vertices), -1)
    place[chosen] = np.arange(len(chosen))
    target = np.arange(len(mesh.vertices))
    for centre in NIPPLES:
        near = np.linalg.norm(mesh.vertices - mesh.vertices[centre], axis=1) < NIPPLE_REACH
        target[near & (place < 0)] = centre
    groups = [GROUPS[p] for p in PARTS[:4]]
    quads = target[mesh.quads]
    kept = (place[quads] >= 0).all(1) & np.isin(mesh.groups, groups)
    corners, corners_uv = quads[kept], mesh.quads_uv[kept]
    split = split_quads(corners, positions)
    rows = np.arange(len(corners))[:, None, None]
    triangles, triangles_uv = corners[rows, split].reshape(-1, 3), corners_uv[rows, split].reshape(-1, 3)
    whole = (triangles != np.roll(triangles, 1, 1)).all(1)
    faces, faces_uv = place[triangles[whole]], triangles_uv[whole]
    order = np.argsort(parts[faces[:, 0]], kind="stable")
    faces, faces_uv = faces[order], faces_uv[order]
    used, compact = np.unique(faces_uv, return_inverse=True)
    uvs, faces_uv = mesh.uvs[used], compact.reshape(-1, 3)
    ball, ball_uvs, ball_faces = eyeball()
    vertex_part = [parts]
    for eye in range(2):
        faces = np.concatenate([faces, ball_faces + len(chosen) + eye * len(ball)])
        faces_uv = np.concatenate([faces_uv, ball_faces + len(uvs)])
        vertex_part.append(np.full(len(ball), 4 + eye))
    mh_vertex = np.concatenate([chosen, np.full(2 * len(ball), -1)])
    return Topology(mh_vertex, np.concatenate(vertex_part), faces, np.concatenate([uvs, ball_uvs]), faces_uv)


class Carrier:
    """Carries base vertices and their displacements onto the head: arms lowered, chosen vertices, eyeballs."""

    def __init__(self, source: Source, chosen: np.ndarray) -> None:
        self.chosen = chosen
        self.base = source.mesh.vertices
        self.arms = []
        for side, sign in (("L", -1.0), ("R", 1.0)):
            share = sum(
                w for bone, w in source.bone_weights.items() if bone.endswith("." + side) and bone.startswith(ARM_BONES)
            )
            cos, sin = np.cos(ARM_ANGLE), sign * np.sin(ARM_ANGLE)
            turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) - np.eye(3)
            self.arms.append((np.asarray(share), turn, source.group(f"joint-{side.lower()}-shoulder")))
        self.eyes = [Eye(self.base, source.group(name)) for name in EYES]

    def lower(self, points: np.ndarray) -> np.ndarray:
        """Arms turned about the shoulder joints that ``points`` (..., V, 3) hold themselves; linear in them."""
        out = points.copy()
        for share, turn, joint in self.arms:
            moving = np.flatnonzero(share)
            centre = points[..., joint, :].mean(-2, keepdims=True)
            out[..., moving, :] += share[moving, None] * ((points[..., moving, :] - centre) @ turn.T)
        return out

    def rest(self) -> np.ndarray:
        """The base mesh itself as a head (V, 3)."""
        return np.concatenate([self.lower(self.base)[self.chosen], *(eye.rest() for eye in self.eyes)])

    def moved(self, displacement: np.ndarray) -> np.ndarray:
        """Displacements (..., base V, 3) -> of the head (..., V, 3)."""
        skin = self.lower(displacement)[..., self.chosen, :]
        return np.concatenate([skin, *(eye.follow(displacement) for eye in self.eyes)], -2)
