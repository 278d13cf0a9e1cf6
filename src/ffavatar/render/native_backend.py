"""The C++ rasteriser (``native/rasterize.cpp``) as a differentiable torch function. CPU, float32."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ffavatar.render.library import load_library, why_missing

if TYPE_CHECKING:
    from ffavatar.render.rasterizer import RasterInputs

ATTRIBUTES = ("means", "quats", "scales", "opacities", "colors")
_SHARED_RANK = {"means": 2, "quats": 2, "scales": 2, "opacities": 1, "colors": 2}
_MAX_THREADS = 256


class _Arguments(ctypes.Structure):
    """``FfaArguments`` of native/rasterize.cpp."""

    _fields_ = (
        [(n, ctypes.c_int32) for n in ("views", "count", "width", "height", "channels")]
        + [(n, ctypes.c_int32) for n in ("antialiased", "threads", "keep")]
        + [(n, ctypes.c_float) for n in ("near_plane", "far_plane", "radius_clip", "eps2d")]
        + [(n, ctypes.c_void_p) for n in ATTRIBUTES]
        + [(f"{n}_stride", ctypes.c_int64) for n in ATTRIBUTES]
        + [(n, ctypes.c_void_p) for n in ("viewmats", "Ks", "backgrounds")]
    )


@functools.cache
def _library() -> ctypes.CDLL:
    library = load_library()
    if library is None:
        raise RuntimeError(why_missing())
    pointer = ctypes.c_void_p
    library.ffa_rasterize_forward.argtypes = [ctypes.POINTER(_Arguments), pointer, pointer, ctypes.POINTER(pointer)]
    library.ffa_rasterize_backward.argtypes = [ctypes.POINTER(_Arguments)] + [pointer] * 10
    library.ffa_rasterize_free.argtypes = [pointer]
    library.ffa_rasterize_free.restype = None
    library.ffa_rasterize_pairs.argtypes = [pointer]
    library.ffa_rasterize_pairs.restype = ctypes.c_int64
    library.ffa_instruction_set.restype = ctypes.c_char_p
    library.ffa_choose_instruction_set.argtypes = [ctypes.c_char_p]
    return library


def instruction_set() -> str:
    """Which kernels run: "avx512", "avx2", "sse", "neon" or "generic"."""
    return _library().ffa_instruction_set().decode()


def choose_instruction_set(name: str) -> bool:
    """Use narrower kernels than the CPU has, for tests and benchmarks; "best" undoes it. False if there are none."""
    return bool(_library().ffa_choose_instruction_set(name.encode()))


class _State:
    """Owns what a forward pass leaves for its backward pass."""

    def __init__(self, address: int | None) -> None:
        self.address = address
        self._free = _library().ffa_rasterize_free  # kept, because at exit the module may be gone before this object

    def __del__(self) -> None:
        if self.address:
            self._free(self.address)


def _check_status(status: int) -> None:
    if status == 1:
        raise MemoryError("the native rasteriser ran out of memory")
    if status:
        raise ValueError("scales: the Gaussians cover more than 2^31 tiles of the picture; they are far too large")


def _arguments(inputs: RasterInputs, tensors: tuple[Tensor, ...], threads: int, keep: bool) -> _Arguments:
    """Pointers into ``tensors``, which the caller must keep alive.

    They are the attributes, viewmats, Ks and perhaps backgrounds: contiguous float32.
    """
    args = _Arguments()
    args.views, args.count, args.channels = len(inputs.viewmats), inputs.means.shape[-2], inputs.colors.shape[-1]
    args.width, args.height = inputs.width, inputs.height
    args.antialiased, args.threads, args.keep = inputs.antialiased, min(threads, _MAX_THREADS), keep
    args.near_plane, args.far_plane = inputs.near_plane, inputs.far_plane
    args.radius_clip, args.eps2d = inputs.radius_clip, inputs.eps2d
    for name, tensor in zip((*ATTRIBUTES, "viewmats", "Ks", "backgrounds"), tensors):
        setattr(args, name, tensor.data_ptr())
    for name, tensor in zip(ATTRIBUTES, tensors):
        setattr(args, f"{name}_stride", 0 if tensor.ndim == _SHARED_RANK[name] else tensor[0].numel())
    return args


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: RasterInputs, threads: int, keep: bool, info: dict, *tensors: Tensor) -> Any:
        views, channels = len(inputs.viewmats), inputs.colors.shape[-1]
        colors = inputs.means.new_empty(views, inputs.height, inputs.width, channels, dtype=torch.float32)
        alphas = colors.new_empty(views, inputs.height, inputs.width, 1)
        args = _arguments(inputs, tensors, threads, keep)
        address = ctypes.c_void_p()
        library = _library()
        _check_status(library.ffa_rasterize_forward(args, colors.data_ptr(), alphas.data_ptr(), ctypes.byref(address)))
        ctx.set_materialize_grads(False)
        if keep:
            ctx.state, ctx.inputs, ctx.threads = _State(address.value), inputs, threads
            ctx.save_for_backward(colors, alphas, *tensors)
            info["pairs"] = library.ffa_rasterize_pairs(address)
        return colors, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor | None, v_alphas: Tensor | None) -> Any:
        colors, alphas, *tensors = ctx.saved_tensors
        v_colors = torch.zeros_like(colors) if v_colors is None else v_colors.float().contiguous()
        v_alphas = None if v_alphas is None else v_alphas.float().contiguous()
        gradients = [torch.zeros_like(tensor) for tensor in tensors[: len(ATTRIBUTES)]]
        args = _arguments(ctx.inputs, tuple(tensors), ctx.threads, True)
        status = _library().ffa_rasterize_backward(
            args,
            ctx.state.address,
            colors.data_ptr(),
            alphas.data_ptr(),
            v_colors.data_ptr(),
            None if v_alphas is None else v_alphas.data_ptr(),
            *[gradient.data_ptr() for gradient in gradients],
        )
        _check_status(status)
        v_backgrounds = [None] * len(tensors[len(ATTRIBUTES) :])
        if len(v_backgrounds) == 3 and ctx.needs_input_grad[-1]:
            v_backgrounds[2] = (v_colors * (1 - alphas)).sum((1, 2))
        return None, None, None, None, *gradients, *v_backgrounds


def rasterize(inputs: RasterInputs, threads: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """See ``ffavatar.render.rasterize``. Raises RuntimeError where the library was not built."""
    tensors = [tensor.float().contiguous() for tensor in inputs.tensors.values()]
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    info: dict[str, Any] = {"backend": "native", "instruction_set": instruction_set(), "threads": threads}
    colors, alphas = _Rasterize.apply(inputs, threads, keep, info, *tensors)
    return colors, alphas, info
