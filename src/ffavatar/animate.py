"""Canonical Gaussians + head parameters -> posed Gaussians.

Blendshapes, pose correctives and linear blend skinning move the base vertices; a Gaussian follows the three it hangs on
by its barycentric weights, and its offset and orientation turn with their blended rotation. The viewer and the exports
do the same, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ffavatar.geometry import normalised_camera, quat_multiply, quat_rotate
from ffavatar.head import HeadModel, Surface
from ffavatar.render import Backend, attach, can_attach, rasterize
from ffavatar.types import Camera, CanonicalGaussians, Gaussians, HeadParams, Rendering

EPS2D = 0.3  # square pixels by which splats are widened on the picture: gsplat's default, and that of all viewers


@dataclass(frozen=True)
class Rig:
    """One person's skeleton: a head model with the identity already in it, and the surface the Gaussians hang on."""

    head: HeadModel
    neutral: Float[Tensor, "V 3"]  # metres
    joints: Float[Tensor, "5 3"]  # metres
    surface: Surface

    @staticmethod
    def of(head: HeadModel, identity: Float[Tensor, " I"], surface: Surface) -> Rig:
        """The rig of a person with these identity coefficients."""
        neutral, joints = head.neutral(identity[None])
        return Rig(head, neutral[0], joints[0], surface)

    def points(self) -> Float[Tensor, "N 3"]:
        """Surface points of the neutral head."""
        return self.surface.interpolate(self.neutral)


def pose_surface(rig: Rig, params: HeadParams) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 4"]]:
    """Posed surface points (B, N, 3) and their rotations (B, N, 4) wxyz, normalised."""
    posed = rig.head.pose(rig.neutral[None], rig.joints[None], params)
    mixed = rig.surface.interpolate(torch.cat([posed.vertices, posed.quats], -1))
    return mixed[..., :3], normalize(mixed[..., 3:], dim=-1)


def pose_gaussians(
    rig: Rig, canonical: CanonicalGaussians, params: HeadParams, rotate_covariance: bool = True
) -> Gaussians:
    """Animate: means and quats get a leading frame axis, the other attributes stay shared.

    ``rotate_covariance=False`` keeps each splat's orientation as in canonical space (the paper's form); turned heads
    then show broken splats.
    """
    inputs = (rig.neutral, canonical.offsets, canonical.quats, *vars(params).values())
    if rotate_covariance and can_attach(*inputs):
        posed = rig.head.pose(rig.neutral[None], rig.joints[None], params)
        parents, barycentric = rig.surface.parents, rig.surface.barycentric
        means, quats = attach(posed.vertices, posed.quats, parents, barycentric, canonical.offsets, canonical.quats)
        return Gaussians(means, quats, canonical.scales, canonical.opacities, canonical.colors)
    points, turn = pose_surface(rig, params)
    means = points + quat_rotate(turn, canonical.offsets)
    quats = quat_multiply(turn, canonical.quats) if rotate_covariance else canonical.quats.expand(len(params), -1, -1)
    return Gaussians(means, quats, canonical.scales, canonical.opacities, canonical.colors)


def render_gaussians(
    gaussians: Gaussians,
    camera: Camera,
    background: tuple[float, float, float] | Float[Tensor, "*B C"] = (1.0, 1.0, 1.0),
    backend: Backend = "auto",
    eps2d: float = EPS2D,
) -> Rendering:
    """Rasterise posed Gaussians, one picture per row of ``camera``; ``eps2d`` in square pixels, as in ``rasterize``."""
    if not isinstance(background, Tensor):
        background = torch.tensor(background, dtype=torch.float32, device=gaussians.means.device)
    views = camera.world_to_cam.shape[0]
    colors, alphas, _ = rasterize(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.colors,
        camera.world_to_cam, camera.K, camera.width, camera.height,
        backgrounds=background.expand(views, -1), backend=backend, eps2d=eps2d,
    )  # fmt: skip
    return Rendering(colors, alphas[..., 0])


def render_avatar(
    rig: Rig,
    canonical: CanonicalGaussians,
    params: HeadParams,
    size: int,
    background: tuple[float, float, float] | Float[Tensor, "*B C"] = (1.0, 1.0, 1.0),
    camera: Camera | None = None,
    backend: Backend = "auto",
    rotate_covariance: bool = True,
    eps2d: float = EPS2D,
) -> Rendering:
    """Pose and rasterise in one call; without ``camera``, the normalised camera with ``size`` pixels a side.

    ``rotate_covariance`` as in ``pose_gaussians``, ``eps2d`` as in ``render_gaussians``.
    """
    if camera is None:
        camera = normalised_camera(size, len(params), params.root.device)
    posed = pose_gaussians(rig, canonical, params, rotate_covariance)
    return render_gaussians(posed, camera, background, backend, eps2d)
