"""Native forms of hanging Gaussians on posed triangles and of mixing their shades; ``ffavatar.animate`` and
``ffavatar.shades`` hold the readable ones."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ffavatar.render.library import load_library


def can_attach(*tensors: Tensor) -> bool:
    """Whether the native form serves these tensors: float32 on the CPU, library built."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors) and load_library() is not None


def attach(
    vertices: Tensor, turns: Tensor, parents: Tensor, barycentric: Tensor, offsets: Tensor, quats: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres (B, N, 3) and quaternions (B, N, 4) of Gaussians that hang on a posed mesh.

    ``vertices`` (B, V, 3) and ``turns`` (B, V, 4) wxyz at the mesh's vertices; ``parents`` (N, 3) int64 in [0, V),
    ``barycentric`` (N, 3), ``offsets`` (N, 3), ``quats`` (N, 4). The caller answers for the range of ``parents``.
    Differentiable once, in all but ``parents`` and ``barycentric``; neither results nor gradients depend on the number
    of threads.
    """
    given = (vertices, turns, parents, barycentric, offsets, quats)
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return _Attach.apply(*given)
    return _forward([t.detach().contiguous() for t in given])


def mix_shades(
    alike: Tensor, certainty: Tensor, parents: Tensor, barycentric: Tensor, shades: Tensor, lasting: float
) -> Tensor:
    """Means of the shades of K views, (B, N, 3), for Gaussians that hang on a mesh; not differentiable.

    ``alike`` (B, V, K) at the mesh's vertices, times ``certainty`` (N, K), weighs ``shades`` (N, K, 3); ``lasting`` is
    the weight of none. ``parents`` and ``barycentric`` as in ``attach``. Serves what ``can_attach``.
    """
    library = load_library()
    assert library is not None
    given = [t.detach().contiguous() for t in (alike, certainty, parents, barycentric, shades)]
    frames, vertices, views = alike.shape
    mixed = alike.new_empty(frames, len(parents), 3)
    sizes = (frames, vertices, len(parents), views)
    library.ffa_shade(torch.get_num_threads(), *sizes, ctypes.c_float(lasting), *_pointers(*given, mixed))
    return mixed


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


def _forward(given: list[Tensor]) -> tuple[Tensor, Tensor]:
    library = load_library()
    assert library is not None
    vertices, points = given[0], len(given[2])
    frames, count = vertices.shape[:2]
    means, out = vertices.new_empty(frames, points, 3), vertices.new_empty(frames, points, 4)
    library.ffa_attach(torch.get_num_threads(), frames, count, points, *_pointers(*given, means, out))
    return means, out


class _Attach(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        given = [t.contiguous() for t in tensors]
        ctx.save_for_backward(*given)
        return _forward(given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means: Tensor, v_out: Tensor) -> Any:
        library = load_library()
        assert library is not None
        vertices, turns, parents, barycentric, offsets, quats = ctx.saved_tensors
        made = [torch.empty_like(t) for t in (vertices, turns, offsets, quats)]
        given = (turns, parents, barycentric, offsets, quats, v_means.contiguous(), v_out.contiguous())
        frames, count = vertices.shape[:2]
        pointers = _pointers(*given, *made)
        if library.ffa_attach_backward(torch.get_num_threads(), frames, count, len(parents), *pointers):
            raise MemoryError("posing the Gaussians ran out of memory")
        return made[0], made[1], None, None, made[2], made[3]
