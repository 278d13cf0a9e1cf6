"""Mean structural similarity for fitting: native, with its gradient, where the library was built; else ``ssim_map``."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ffavatar.render.library import load_library
from ffavatar.ssim import WINDOW, ssim_map


def mean_ssim(seen: Tensor, goal: Tensor) -> Tensor:
    """(B,) mean structural similarity of pictures (B, H, W, C), sides of at least 11 pixels: the mean of
    ``ffavatar.ssim.ssim_map``.

    Differentiable in both; natively, for float32 on the CPU, once and where ``goal`` is fixed. Neither value nor
    gradient depends on the number of threads.
    """
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (seen, goal)) and seen.shape == goal.shape
    fixed = not (torch.is_grad_enabled() and goal.requires_grad)
    if plain and fixed and min(seen.shape[1:3]) >= WINDOW and load_library() is not None:
        return _MeanSsim.apply(seen, goal)
    return ssim_map(seen, goal).mean((1, 2, 3))


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


class _MeanSsim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, seen: Tensor, goal: Tensor) -> Tensor:
        library = load_library()
        assert library is not None
        seen, goal = seen.detach().contiguous(), goal.detach().contiguous()
        pictures, height, width, channels = goal.shape
        means = torch.empty(pictures, dtype=torch.float64)
        slopes = None
        if ctx.needs_input_grad[0]:
            slopes = goal.new_empty(pictures, 3, height - WINDOW + 1, (width - WINDOW + 1) * channels)
            ctx.save_for_backward(seen, goal, slopes)
        place = ctypes.c_void_p(None if slopes is None else slopes.data_ptr())
        sizes = (torch.get_num_threads(), *goal.shape)
        if library.ffa_ssim(*sizes, *_pointers(seen, goal, means), place):
            raise MemoryError("comparing the pictures ran out of memory")
        return means.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_means: Tensor) -> tuple[Tensor, None]:
        library = load_library()
        assert library is not None
        seen, goal, slopes = ctx.saved_tensors
        gradient, v_means = torch.empty_like(seen), v_means.float().contiguous()
        sizes = (torch.get_num_threads(), *goal.shape)
        pointers = _pointers(seen, goal, slopes, v_means, gradient)
        if library.ffa_ssim_backward(*sizes, *pointers):
            raise MemoryError("comparing the pictures ran out of memory")
        return gradient, None
