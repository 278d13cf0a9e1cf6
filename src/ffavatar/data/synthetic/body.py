"""The head model as the synthetic people need it: numpy arrays, the MakeHuman base mesh that artwork hangs on, posing.

Identity, expression and pose all come from ``ffavatar.head``: what is drawn is what the labels say. The helper vertices
of MakeHuman (lashes, hair) are not part of the head model; their displacements are shipped beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from ffavatar.data.synthetic.artwork import Proxy
from ffavatar.errors import InputError
from ffavatar.head import HeadModel, load_base_mesh, load_head
from ffavatar.render.mesh import Array, rasterize_mesh
from ffavatar.types import HeadParams

ATLAS_PX = 1024
EYES = ("eyeball_left", "eyeball_right")


@dataclass(frozen=True)
class Texels:
    """The texels of the skin atlas that lie on the head, and where on the template each lies."""

    index: Array  # (n,) flat index into the atlas, row 0 is v = 1
    corners: Array  # (n, 3) head vertices
    weights: Array  # (n, 3) barycentric
    points: Array  # (n, 3) on the template

    def interpolate(self, values: Array) -> Array:
        """(V,) or (V, C) per vertex -> (n,) or (n, C)."""
        return np.einsum("nk,nk...->n...", self.weights, values[self.corners])


@dataclass(frozen=True)
class Neutral:
    """One identity at rest."""

    vertices: Array  # (V, 3)
    joints: Array  # (5, 3)
    helpers: Array  # (A, 3)

    @property
    def all(self) -> Array:
        """(V + A, 3): head vertices, then helpers."""
        return np.concatenate([self.vertices, self.helpers])


class Body:
    """The embedded head and its base mesh. One per process: ``load_body()``."""

    def __init__(self, head: HeadModel) -> None:
        base = load_base_mesh()
        if not head.edition.startswith("embedded"):
            raise InputError(f"synthetic people need the embedded head, not {head.edition}; leave the head file out.")
        self.head = head
        self.template = head.v_template.numpy().astype(np.float64)
        self.faces = head.faces.numpy().astype(np.int32)
        self.uvs = head.uvs.numpy().astype(np.float32)[head.faces_uv.numpy()]
        self.regions = {k: np.asarray(v).astype(bool) for k, v in head.regions.items()}
        self.base, self.helper_vertex = base.vertices.astype(np.float64), base.helper_vertex.astype(np.int64)
        self._helper_shapes, self._helper_expressions = base.helper_shapedirs, base.helper_expdirs
        own = np.asarray(head.mh_vertex)
        self.where = np.full(len(self.base), -1, np.int64)  # base vertex -> row of `Neutral.all`
        owned = np.flatnonzero(own >= 0)
        self.where[own[owned]] = owned
        self.where[self.helper_vertex] = len(self.template) + np.arange(len(self.helper_vertex))
        known = np.flatnonzero(self.where >= 0)
        for lost in np.flatnonzero(self.where < 0):  # a few garments hang on the back below the head model's end
            if np.abs(self.base[lost]).max() < 0.45:
                self.where[lost] = self.where[known[((self.base[known] - self.base[lost]) ** 2).sum(1).argmin()]]
        self.joints = (head.J_regressor @ head.v_template).numpy().astype(np.float64)
        # The head model's plain teeth sit high in the mouth: where no artwork replaces them they are drawn lower.
        self.teeth_drop = np.zeros_like(self.template)
        self.teeth_drop[self.regions["teeth_upper"]] = [0.0, -0.004, 0.001]
        self.teeth_drop[self.regions["teeth_lower"]] = [0.0, 0.002, 0.001]
        skin = np.flatnonzero(self.regions["skin"])
        eyes = self.base[self.helper_vertex]
        near_eye = np.minimum(*(np.linalg.norm(eyes - self.joints[j], axis=1) for j in (3, 4))) < 0.04
        self.lash_helpers = np.flatnonzero(near_eye)
        distance = ((eyes[self.lash_helpers, None] - self.template[skin]) ** 2).sum(-1)
        self.lash_skin = skin[distance.argmin(1)]  # lashes follow the lids that follow the gaze

    @property
    def identities(self) -> int:
        return self.head.shapedirs.shape[-1]

    @property
    def expressions(self) -> list[str]:
        return list(self.head.expression_names)

    def faces_of(self, *regions: str) -> Array:
        """Indices of the faces whose corners all lie in one of the regions."""
        inside = np.logical_or.reduce([self.regions[r] for r in regions])
        return np.flatnonzero(inside[self.faces].all(1))

    def neutral(self, identity: Array) -> Neutral:
        """The resting head of an identity (I,)."""
        vertices, joints = self.head.neutral(torch.from_numpy(np.asarray(identity, np.float32))[None])
        helpers = self.base[self.helper_vertex] + self._helper_shapes @ np.asarray(identity, np.float32)
        return Neutral(vertices[0].numpy().astype(np.float64), joints[0].numpy().astype(np.float64), helpers)

    def pose(self, neutral: Neutral, params: HeadParams) -> tuple[Array, Array, Array]:
        """Pose one identity in P ways.

        Returns (P, V + A, 3) vertices and helpers, and the rigid transforms (P, 3, 4) of torso and of head.
        """
        rows = len(params)
        vertices = torch.from_numpy(neutral.vertices).float()[None]
        joints = torch.from_numpy(neutral.joints).float()[None]
        posed = self.head.pose(vertices, joints, params).vertices.numpy().astype(np.float64)
        moves = self.head.joint_transforms(joints, params)
        rigid = torch.cat([moves.rotations, moves.translations[..., None]], -1).numpy().astype(np.float64)
        torso, head = rigid[:, 0], rigid[:, 1]
        moved = neutral.helpers + np.einsum("ake,pe->pak", self._helper_expressions, params.expression.numpy())
        # Lashes follow what the pose corrections (gaze, jaw) do to the lid beneath them.
        still = replace(params, **{n: torch.zeros(rows, 3) for n in ("jaw", "eye_left", "eye_right")})
        corrected = self.head.deform(vertices, params) - self.head.deform(vertices, still)
        moved[:, self.lash_helpers] += corrected[:, self.lash_skin].numpy()
        helpers = np.einsum("pab,pnb->pna", head[..., :3], moved) + head[:, None, :, 3]
        return np.concatenate([posed, helpers], 1), torso, head

    @lru_cache(maxsize=2)  # noqa: B019 one body lives as long as its process
    def texels(self, size: int = ATLAS_PX) -> Texels:
        """Which texel of the skin atlas lies where, widened by two texels so that seams sample painted ones."""
        chosen = np.flatnonzero(self.regions["skin"][self.faces].all(1))
        corners = np.concatenate([self.uvs[chosen] * size, np.ones((len(chosen), 3, 1), np.float32)], -1)
        corners[..., 1] = size - corners[..., 1]
        seen = rasterize_mesh(corners, size, size, orthographic=True)
        face, weights = seen.face.copy(), seen.barycentric.copy()
        for _ in range(2):
            for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
                other = np.roll(face, step, axis)
                take = (face < 0) & (other >= 0)
                face[take] = other[take]
                weights[take] = np.roll(weights, step, axis)[take]
        index = np.flatnonzero(face.ravel() >= 0)
        triangle = self.faces[chosen[face.ravel()[index]]]
        weights = weights.reshape(-1, 3)[index].astype(np.float32)
        points = np.einsum("nk,nkc->nc", weights, self.template[triangle]).astype(np.float32)
        return Texels(index, triangle, weights, points)

    def eye_uvs(self) -> Array:
        """(faces of both eyeballs, 3, 2): azimuthal, the pupil at the middle, angle pi at distance 0.5."""
        out = []
        for name, joint in zip(EYES, (3, 4)):
            direction = self.template - self.joints[joint]
            direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
            angle = np.arccos(np.clip(direction[:, 2], -1, 1))
            around = np.arctan2(direction[:, 1], direction[:, 0])
            radius = 0.5 * angle / np.pi
            uv = np.stack([0.5 + radius * np.cos(around), 0.5 + radius * np.sin(around)], -1)
            out.append(uv[self.faces[self.faces_of(name)]])
        return np.concatenate(out).astype(np.float32)

    def hang(self, proxy: Proxy, points: Array, neutral: Array, turn: Array | None = None) -> Array:
        """Vertices (P, 3) of a garment on posed ``points`` (V + A, 3).

        Its offsets are scaled by the size of the ``neutral`` head and turned by a rotation (3, 3).
        """
        rows = self.where[proxy.references]
        if (rows < 0).any():
            raise InputError(f"the artwork {proxy.name} hangs on parts that the head model lacks; leave it out.")
        size = []
        for axis, scale in enumerate(proxy.scales):
            if scale is None:
                size.append(0.1)
                continue
            a, b = self.where[scale[0]], self.where[scale[1]]
            size.append(abs(neutral[a, axis] - neutral[b, axis]) / scale[2])
        offset = proxy.offsets * size
        if turn is not None:
            offset = offset @ turn.T
        return np.einsum("pk,pkc->pc", proxy.weights, points[rows]) + offset


@lru_cache(maxsize=1)
def load_body() -> Body:
    return Body(load_head())
