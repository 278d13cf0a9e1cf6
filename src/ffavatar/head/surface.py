"""Midpoint subdivision of the base mesh: dense points as fixed blends of base vertices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """Points on the base triangles. The first V points are the base vertices themselves."""

    parents: Tensor  # (N, 3) int64 base vertices; all three lie on one base triangle
    barycentric: Tensor  # (N, 3) non-negative weights that sum to one
    faces: Tensor  # (F, 3) int64 triangles between the points
    uvs: Tensor  # (M, 2); empty where the head has none
    faces_uv: Tensor  # (F, 3) int64 into uvs

    def __len__(self) -> int:
        return self.parents.shape[0]

    def interpolate(self, values: Tensor) -> Tensor:
        """Blend values given at the base vertices: (..., V, C) -> (..., N, C). Quaternions must be normalised after."""
        lead, channels = values.shape[:-2], values.shape[-1]
        rows = values.reshape(-1, *values.shape[-2:]).transpose(0, 1).flatten(1)  # (V, batch * C)
        # embedding_bag is torch's fused "gather and weighted sum": twice as fast as three index_selects
        blended = torch.nn.functional.embedding_bag(
            self.parents, rows, mode="sum", per_sample_weights=self.barycentric.to(values.dtype)
        )
        return blended.unflatten(-1, (-1, channels)).transpose(0, 1).reshape(*lead, len(self), channels)

    def to(self, device: torch.device | str) -> Surface:
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()})


def _split_faces(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One point in the middle of every edge, shared by its triangles: unique edges (E, 2), faces (4 F, 3)."""
    sides = np.stack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]], 1)
    edges, index = np.unique(np.sort(sides.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    ab, bc, ca = (index.reshape(-1, 3) + count).T
    a, b, c = faces.T
    new = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], 1)
    return edges, new.reshape(-1, 3)


def subdivide(faces: np.ndarray, vertices: int, uvs: np.ndarray, faces_uv: np.ndarray, level: int) -> Surface:
    """``level`` rounds of midpoint subdivision of ``faces`` (F, 3) over ``vertices`` base vertices."""
    # The blend of every point as sorted (base vertex, weight) triples; a midpoint's is the mean of its ends' blends.
    parents = np.repeat(np.arange(vertices)[:, None], 3, 1)
    weights = np.tile(np.array([1.0, 0.0, 0.0]), (vertices, 1))
    faces, faces_uv = faces.astype(np.int64), faces_uv.astype(np.int64)
    for _ in range(level):
        edges, faces = _split_faces(faces, len(parents))
        both = np.concatenate([parents[edges[:, 0]], parents[edges[:, 1]]], 1)
        share = np.concatenate([weights[edges[:, 0]], weights[edges[:, 1]]], 1) / 2
        middle, middle_share = _merge(both, share)
        parents = np.concatenate([parents, middle])
        weights = np.concatenate([weights, middle_share])
        if len(uvs):
            edges_uv, faces_uv = _split_faces(faces_uv, len(uvs))
            uvs = np.concatenate([uvs, uvs[edges_uv].mean(1)])
    return Surface(
        torch.from_numpy(parents),
        torch.from_numpy(weights.astype(np.float32)),
        torch.from_numpy(faces),
        torch.from_numpy(np.asarray(uvs, np.float32)),
        torch.from_numpy(faces_uv),
    )


def _merge(parents: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Six (vertex, weight) pairs a row, at most three different vertices with weight -> three pairs a row."""
    rows = np.arange(len(parents))
    out_parents = np.empty((len(parents), 3), np.int64)
    out_weights = np.empty((len(parents), 3))
    left = weights.copy()
    for k in range(3):
        pick = parents[rows, left.argmax(1)]
        same = parents == pick[:, None]
        out_weights[:, k] = (left * same).sum(1)
        out_parents[:, k] = np.where(out_weights[:, k] > 0, pick, out_parents[:, 0] if k else pick)
        left[same] = 0
    assert not left.any()  # a triangle has three corners
    return out_parents, out_weights
