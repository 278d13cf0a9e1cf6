"""Native form of hanging Gaussians on posed triangles; ``ffavatar.animate`` holds the readable one, with gradients."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ffavatar.render.library import load_library


def can_attach(*tensors: Tensor) -> bool:
    """Whether the native form serves these tensors: float32 on the CPU, no gradient wanted, library built."""
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return plain and not wanted and load_library() is not None


def attach(
    vertices: Tensor, turns: Tensor, parents: Tensor, barycentric: Tensor, offsets: Tensor, quats: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres (B, N, 3) and quaternions (B, N, 4) of Gaussians that hang on a posed mesh.

    ``vertices`` (B, V, 3) and ``turns`` (B, V, 4) wxyz at the mesh's vertices; ``parents`` (N, 3) int64 in [0, V),
    ``barycentric`` (N, 3), ``offsets`` (N, 3), ``quats`` (N, 4). The caller answers for the range of ``parents``.
    """
    library = load_library()
    assert library is not None
    frames, count = vertices.shape[:2]
    points = len(parents)
    given = [t.detach().contiguous() for t in (vertices, turns, parents, barycentric, offsets, quats)]
    means, out = vertices.new_empty(frames, points, 3), vertices.new_empty(frames, points, 4)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*given, means, out)]
    library.ffa_attach(torch.get_num_threads(), frames, count, points, *pointers)
    return means, out
