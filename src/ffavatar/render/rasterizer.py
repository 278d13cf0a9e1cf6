"""``rasterize``: 3D Gaussians to pictures, with the argument names, defaults and conventions of gsplat 1.5.3."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ffavatar.render import gsplat_backend, native_backend, torch_backend
from ffavatar.render.library import load_library, why_missing

Backend = Literal["auto", "native", "torch", "gsplat"]
MAX_SIDE_PX = 32768


@dataclass(frozen=True)
class RasterInputs:
    """Checked arguments, as every backend takes them. ``C`` views, ``N`` Gaussians, ``D`` channels."""

    means: Tensor  # (N, 3) or (C, N, 3)
    quats: Tensor  # (N, 4) or (C, N, 4)
    scales: Tensor  # (N, 3) or (C, N, 3)
    opacities: Tensor  # (N,) or (C, N)
    colors: Tensor  # (N, D) or (C, N, D)
    viewmats: Tensor  # (C, 4, 4)
    Ks: Tensor  # (C, 3, 3)
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    backgrounds: Tensor | None  # (C, D)
    antialiased: bool

    @property
    def tensors(self) -> dict[str, Tensor]:
        names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def to(self, dtype: torch.dtype) -> RasterInputs:
        return replace(self, **{name: value.to(dtype) for name, value in self.tensors.items()})  # type: ignore[arg-type]

    def per_view(self) -> RasterInputs:
        """The same with every attribute expanded to (C, N, ...)."""
        views = self.viewmats.shape[0]
        ranks = {"means": 3, "quats": 3, "scales": 3, "opacities": 2, "colors": 3}
        values = {name: getattr(self, name) for name in ranks}
        return replace(self, **{n: v if v.ndim == ranks[n] else v.expand(views, *v.shape) for n, v in values.items()})


def rasterize(
    means: Float[Tensor, "*_ N 3"],
    quats: Float[Tensor, "*_ N 4"],
    scales: Float[Tensor, "*_ N 3"],
    opacities: Float[Tensor, "*_ N"],
    colors: Float[Tensor, "*_ N D"],
    viewmats: Float[Tensor, "V 4 4"],
    Ks: Float[Tensor, "V 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    backgrounds: Float[Tensor, "*_ D"] | None = None,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    backend: Backend = "auto",
    threads: int | None = None,
) -> tuple[Float[Tensor, "V H W D"], Float[Tensor, "V H W 1"], dict[str, Any]]:
    """Render N Gaussians into C views.

    Each of the five attributes is either shared by the views, (N, ...), or given per view, (C, N, ...).

    Args:
        means: (N, 3) or (C, N, 3), world units.
        quats: (N, 4) or (C, N, 4), wxyz, of any positive length.
        scales: (N, 3) or (C, N, 3), standard deviations in world units.
        opacities: (N,) or (C, N), in [0, 1].
        colors: (N, D) or (C, N, D), any number of channels, not clamped.
        viewmats: (C, 4, 4) world to camera, OpenCV axes.
        Ks: (C, 3, 3) intrinsics in pixels; pixel centres lie at +0.5. Skew is ignored.
        width, height: picture size in pixels, at most 32,768.
        near_plane, far_plane: Gaussians whose centre is nearer or farther are left out; 0 < near_plane < far_plane.
        radius_clip: Gaussians whose extent is at most so many pixels are left out.
        eps2d: added to the diagonal of the covariance on the picture, square pixels.
        backgrounds: (D,) or (C, D); without it the background is 0.
        rasterize_mode: "antialiased" scales opacity down by what ``eps2d`` adds to a Gaussian's area (Mip-Splatting).
        backend: "native" (C++, CPU), "torch" (any device and precision, slow), "gsplat" (CUDA), or "auto": gsplat for
            CUDA tensors where it is installed, native for CPU tensors where it was built, else torch.
        threads: of the native backend; default ``torch.get_num_threads()``. Results do not depend on it.

    Returns:
        ``(colors (C, H, W, D), alphas (C, H, W, 1), meta)``. Colours are premultiplied sums plus what is left of the
        background; ``meta`` is a dict with the "backend" and what that backend reports.

    Gradients reach means, quats, scales, opacities, colors and backgrounds; with "torch" also viewmats and Ks ("auto"
    then chooses it on the CPU). A Gaussian with a mean, quaternion, scale or opacity that is not finite is not drawn
    and gets zero gradient (gsplat does not promise this); colours that are not finite spread to the pixels they touch.
    The native backend computes in float32 and returns float32; "torch" computes in the precision of ``means``.

    As gsplat: alpha is clamped to 0.999, contributions below 1/255 are skipped, a pixel stops before its transmittance
    would fall to 1e-4.

    Raises:
        ValueError: an argument has a wrong shape, type, device or value (named in the message), or ``backend="native"``
            is asked for the gradient of viewmats or Ks.
        RuntimeError: the backend that was asked for is not there.
    """
    inputs = _check(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane, far_plane, radius_clip, eps2d,
        backgrounds, rasterize_mode, threads,
    )  # fmt: skip
    chosen = _choose_backend(backend, inputs)
    if chosen == "native":
        return native_backend.rasterize(inputs, threads or torch.get_num_threads())
    if chosen == "gsplat":
        return gsplat_backend.rasterize(inputs)
    return torch_backend.rasterize(inputs)


def _choose_backend(backend: str, inputs: RasterInputs) -> str:
    on_cpu = inputs.means.device.type == "cpu"
    camera_gradient = torch.is_grad_enabled() and (inputs.viewmats.requires_grad or inputs.Ks.requires_grad)
    if backend == "auto":
        if inputs.means.is_cuda and importlib.util.find_spec("gsplat"):
            return "gsplat"
        if inputs.means.is_cuda:
            warnings.warn(
                "Rendering with the torch backend, many times slower: gsplat is not installed (pip install gsplat).",
                RuntimeWarning, stacklevel=3,
            )  # fmt: skip
        if not on_cpu or camera_gradient:
            return "torch"
        if load_library() is None:
            warnings.warn(
                f"Rendering with the torch backend, many times slower: {why_missing()}.", RuntimeWarning, stacklevel=3
            )  # Python shows one warning per place
            return "torch"
        return "native"
    if backend not in ("native", "torch", "gsplat"):
        raise ValueError(f'backend must be "auto", "native", "torch" or "gsplat", not {backend!r}')
    if backend == "native":
        if not on_cpu:
            raise ValueError(f'backend "native" takes CPU tensors, but means is on {inputs.means.device}')
        if camera_gradient:
            raise ValueError('viewmats or Ks requires a gradient, which only backend "torch" computes')
        if load_library() is None:
            raise RuntimeError(why_missing())
    if backend == "gsplat":
        if not inputs.means.is_cuda:
            raise ValueError(f'backend "gsplat" takes CUDA tensors, but means is on {inputs.means.device}')
        if not importlib.util.find_spec("gsplat"):
            raise RuntimeError('backend "gsplat" needs the package gsplat: `pip install gsplat`')
    return backend


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    eps2d: float,
    backgrounds: Tensor | None,
    rasterize_mode: str,
    threads: int | None,
) -> RasterInputs:
    given = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    given |= {"viewmats": viewmats, "Ks": Ks}
    if backgrounds is not None:
        given["backgrounds"] = backgrounds
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a torch tensor, not {type(value).__name__}")
        if not value.is_floating_point():
            raise ValueError(f"{name} must be of a floating-point type, not {value.dtype}")
        if means.device != value.device:
            raise ValueError(f"{name} is on {value.device}, but means is on {means.device}")

    if viewmats.ndim != 3 or viewmats.shape[1:] != (4, 4) or not len(viewmats):
        raise ValueError(f"viewmats must have shape (C, 4, 4) with C >= 1, not {tuple(viewmats.shape)}")
    views = viewmats.shape[0]
    if Ks.shape != (views, 3, 3):
        raise ValueError(f"Ks must have shape {(views, 3, 3)} as viewmats has {views} views, not {tuple(Ks.shape)}")
    if means.ndim not in (2, 3):
        raise ValueError(f"means must have shape (N, 3) or (C, N, 3), not {tuple(means.shape)}")
    count = means.shape[-2]
    channels = colors.shape[-1] if colors.ndim >= 2 else 0
    tails = {"means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,)}
    for name, tail in (tails | {"colors": (count, channels)}).items():
        if given[name].shape not in (tail, (views, *tail)):
            found = tuple(given[name].shape)
            raise ValueError(f"{name} must have shape {tail} or {(views, *tail)} (N from means), not {found}")
    if channels < 1:
        raise ValueError("colors must have at least one channel")
    if backgrounds is not None:
        if backgrounds.shape not in ((channels,), (views, channels)):
            raise ValueError(
                f"backgrounds must have shape {(channels,)} or {(views, channels)}, not {tuple(backgrounds.shape)}"
            )
        backgrounds = backgrounds.expand(views, channels)

    for name, side in (("width", width), ("height", height)):
        if not isinstance(side, int) or not 1 <= side <= MAX_SIDE_PX:
            raise ValueError(f"{name} must be an integer from 1 to {MAX_SIDE_PX}, not {side!r}")
    if not 0 < near_plane < far_plane:
        raise ValueError(f"near_plane must be positive and below far_plane, not {near_plane} and {far_plane}")
    if not eps2d >= 0:
        raise ValueError(f"eps2d must not be negative, but is {eps2d}")
    if not radius_clip >= 0:
        raise ValueError(f"radius_clip must not be negative, but is {radius_clip}")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f'rasterize_mode must be "classic" or "antialiased", not {rasterize_mode!r}')
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads must be a positive integer or None, not {threads!r}")
    return RasterInputs(
        means, quats, scales, opacities, colors, viewmats, Ks, width, height, float(near_plane), float(far_plane),
        float(radius_clip), float(eps2d), backgrounds, rasterize_mode == "antialiased",
    )  # fmt: skip
