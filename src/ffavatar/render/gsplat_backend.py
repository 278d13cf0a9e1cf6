"""gsplat's CUDA rasteriser behind this package's interface. Imported lazily: gsplat compiles kernels on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ffavatar.render.rasterizer import RasterInputs


def rasterize(inputs: RasterInputs) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """See ``ffavatar.render.rasterize``. CUDA tensors; gsplat 1.5.

    gsplat shares means, quaternions, scales and opacities between views. Where one is given per view, views are
    rendered one by one.
    """
    from gsplat import rasterization  # type: ignore[import-not-found]

    options: dict[str, Any] = {
        "width": inputs.width,
        "height": inputs.height,
        "near_plane": inputs.near_plane,
        "far_plane": inputs.far_plane,
        "radius_clip": inputs.radius_clip,
        "eps2d": inputs.eps2d,
        "rasterize_mode": "antialiased" if inputs.antialiased else "classic",
        "packed": False,
    }
    geometry = (inputs.means, inputs.quats, inputs.scales, inputs.opacities[..., None])
    if all(attribute.ndim == 2 for attribute in geometry):
        colors, alphas, _ = rasterization(
            inputs.means, inputs.quats, inputs.scales, inputs.opacities, inputs.colors, inputs.viewmats, inputs.Ks,
            backgrounds=inputs.backgrounds, **options,
        )  # fmt: skip
        return colors, alphas, {"backend": "gsplat"}
    each = inputs.per_view()
    pictures = []
    for v in range(len(each.viewmats)):
        background = None if each.backgrounds is None else each.backgrounds[v : v + 1]
        pictures.append(
            rasterization(
                each.means[v], each.quats[v], each.scales[v], each.opacities[v], each.colors[v],
                each.viewmats[v : v + 1], each.Ks[v : v + 1], backgrounds=background, **options,
            )[:2]
        )  # fmt: skip
    return torch.cat([p[0] for p in pictures]), torch.cat([p[1] for p in pictures]), {"backend": "gsplat"}
