"""Native form of ``Residuals.apply`` and ``Residuals.prior`` in one pass over the Gaussians, with their gradients.

On two cores the readable form in ``residuals.py`` takes longer than posing and drawing together.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ffavatar.render.library import load_library
from ffavatar.types import CanonicalGaussians

OWN = ("offset", "scale", "turn", "opacity", "color")
"""A Gaussian's own residuals, in the order of ``Attribute`` in render/native/residuals.cpp."""


class _Residuals(ctypes.Structure):
    """``FfaResiduals`` of render/native/residuals.cpp."""

    _fields_ = (
        [(n, ctypes.c_int32) for n in ("threads", "points", "nodes", "reach")]
        + [(n, ctypes.c_float) for n in ("limit", "unseen_pull")]
        + [("sigmas", ctypes.c_float * len(OWN))]
        + [(n, ctypes.c_void_p) for n in ("index", "weight", "seen")]
        + [(n, ctypes.c_void_p) for n in ("offsets", "quats", "scales", "opacities", "colors", "logits", "smooth")]
        + [("values", ctypes.c_void_p * len(OWN))]
        + [(n, ctypes.c_void_p) for n in ("starts", "places")]
    )


@dataclass(frozen=True)
class Fixed:
    """What does not change during a fit. N Gaussians that follow R of K nodes each."""

    base: CanonicalGaussians
    logits: Tensor  # (N,) of the base's opacities
    seen: Tensor  # (N,)
    index: Tensor  # (N, R) int32
    weight: Tensor  # (N, R)
    starts: Tensor  # (K + 1,) int32: where each node's part of ``places`` begins
    places: Tensor  # (N R,) int32 places in ``index``, sorted by node
    sigmas: tuple[float, ...]  # in the order of OWN
    limit: float
    unseen_pull: float

    @staticmethod
    def of(
        base: CanonicalGaussians, logits: Tensor, seen: Tensor, index: Tensor, weight: Tensor, nodes: int,
        sigmas: tuple[float, ...], limit: float, unseen_pull: float,
    ) -> Fixed:  # fmt: skip
        plain = CanonicalGaussians(**{name: value.contiguous() for name, value in vars(base).items()})
        flat = index.flatten()
        starts = torch.zeros(nodes + 1, dtype=torch.int64)
        starts[1:] = torch.bincount(flat, minlength=nodes).cumsum(0)
        places = flat.argsort(stable=True)
        return Fixed(
            plain, logits.contiguous(), seen.contiguous(), index.int().contiguous(), weight.contiguous(), starts.int(),
            places.int(), sigmas, limit, unseen_pull,
        )  # fmt: skip


def can_fuse(base: CanonicalGaussians) -> bool:
    """Whether the native form serves this avatar: float32 on the CPU, library built."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in vars(base).values())
    return plain and load_library() is not None


def apply(fixed: Fixed, smooth: Tensor, own: dict[str, Tensor]) -> tuple[CanonicalGaussians, Tensor]:
    """The Gaussians with the residuals, and the prior of the Gaussians' own ones.

    ``smooth`` (K, 6) offsets and colours at the nodes; ``own`` by the names of OWN, (N, channels). Differentiable once,
    in both; nothing depends on the number of threads.
    """
    *made, prior = _Apply.apply(fixed, smooth, *[own[name] for name in OWN])
    return CanonicalGaussians(*made), prior


def _record(fixed: Fixed, smooth: Tensor, own: tuple[Tensor, ...]) -> _Residuals:
    """Pointers into the tensors, which the caller must keep alive."""
    record = _Residuals()
    record.threads, record.points, record.reach = torch.get_num_threads(), *fixed.index.shape
    record.nodes = len(smooth)
    record.limit, record.unseen_pull = fixed.limit, fixed.unseen_pull
    record.sigmas = (ctypes.c_float * len(OWN))(*fixed.sigmas)
    for name in ("index", "weight", "seen", "logits", "starts", "places"):
        setattr(record, name, getattr(fixed, name).data_ptr())
    for name, value in vars(fixed.base).items():
        setattr(record, name, value.data_ptr())
    record.smooth = smooth.data_ptr()
    record.values = _array(own)
    return record


def _array(tensors: tuple[Tensor, ...]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fixed: Fixed, *tensors: Tensor) -> Any:
        smooth, *own = [t.detach().contiguous() for t in tensors]
        made = tuple(torch.empty_like(value) for value in vars(fixed.base).values())
        prior = torch.empty(1, dtype=torch.float64)
        library = load_library()
        assert library is not None
        record = _record(fixed, smooth, tuple(own))
        if library.ffa_residuals(ctypes.byref(record), _array(made), ctypes.c_void_p(prior.data_ptr())):
            raise MemoryError("applying the residuals ran out of memory")
        ctx.fixed = fixed
        ctx.save_for_backward(smooth, *own)
        return (*made, prior.float()[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        library = load_library()
        assert library is not None
        smooth, *own = ctx.saved_tensors
        out = tuple(g.contiguous() for g in gradients[:-1])
        of_smooth, of_own = torch.empty_like(smooth), tuple(torch.empty_like(t) for t in own)
        record = _record(ctx.fixed, smooth, tuple(own))
        if library.ffa_residuals_backward(
            ctypes.byref(record),
            _array(out),
            ctypes.c_float(float(gradients[-1])),
            ctypes.c_void_p(of_smooth.data_ptr()),
            _array(of_own),
        ):
            raise MemoryError("the residuals' gradients ran out of memory")
        return None, of_smooth, *of_own
