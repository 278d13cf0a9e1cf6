"""Canonical Gaussians + head parameters -> posed Gaussians.

Blendshapes, pose correctives and linear blend skinning move the base vertices; a Gaussian follows the three it hangs on
by its barycentric weights, and its offset and orientation turn with their blended rotation. The viewer and the exports
do the same, in the same order. Shades (``shades.py``), where an avatar has them, change its colours with the frame.

A caller's autocast does not reach here: in half precision the points of a head lie millimetres off.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix, normalised_camera, quat_multiply, quat_rotate
from ffavatar.head import HeadModel, Surface
from ffavatar.render import Backend, attach, can_attach, rasterize
from ffavatar.shades import closeness, shaded
from ffavatar.types import Camera, CanonicalGaussians, Gaussians, HeadParams, Rendering, Shades

EPS2D = 0.3  # square pixels by which splats are widened on the picture: gsplat's default, and that of all viewers


def exactly(tensor: Tensor) -> AbstractContextManager:
    """No autocast on the device of ``tensor``."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


@dataclass(frozen=True)
class Rig:
    """One person's skeleton: a head model with the identity already in it, and the surface the Gaussians hang on; and
    how their colours follow expression and view."""

    head: HeadModel
    neutral: Float[Tensor, "V 3"]  # metres
    joints: Float[Tensor, "5 3"]  # metres
    surface: Surface
    shades: Shades | None = None  # None: colours last

    @staticmethod
    def of(head: HeadModel, identity: Float[Tensor, " I"], surface: Surface) -> Rig:
        """The rig of a person with these identity coefficients."""
        with exactly(identity):
            neutral, joints = head.neutral(identity[None])
        return Rig(head, neutral[0], joints[0], surface)

    def points(self) -> Float[Tensor, "N 3"]:
        """Surface points of the neutral head."""
        return self.surface.interpolate(self.neutral)

    def moved(self, expression: Float[Tensor, "B E"], jaw: Float[Tensor, "B 3"]) -> Float[Tensor, "B V 3"]:
        """How far expression and jaw take each base vertex from rest, metres."""
        rest = HeadParams.neutral(len(jaw), expression.shape[1], jaw.device, distance_m=0.0)
        with exactly(jaw):
            posed = self.head.pose(self.neutral[None], self.joints[None], replace(rest, expression=expression, jaw=jaw))
        return posed.vertices - self.neutral

    @staticmethod
    def turned(params: HeadParams) -> Float[Tensor, "B 3 3"]:
        """The head's rotation, by root and neck together."""
        with exactly(params.root):
            return axis_angle_to_matrix(params.root) @ axis_angle_to_matrix(params.neck)

    @cached_property
    def _shaded_at(self) -> tuple[Tensor, Tensor]:
        """Of the shades' views: how far the vertices were moved (K, V, 3), and the head turned (K, 3, 3)."""
        assert self.shades is not None
        return self.moved(self.shades.expression, self.shades.jaw), axis_angle_to_matrix(self.shades.turn)

    def shade(self, colors: Float[Tensor, "N 3"], params: HeadParams, camera: Camera | None) -> Tensor:
        """``colors`` as they are in the frames of ``params``: (B, N, 3) with shades, else unchanged.

        The head is seen by ``camera``, or else by the normalised one; of frames and cameras one may serve all of the
        others. Nothing is differentiated but ``colors``."""
        if self.shades is None:
            return colors
        with exactly(params.root):
            with torch.no_grad():
                turned = self.turned(params)
                if camera is not None:
                    usual, seen_from = normalised_camera(1, 1, turned.device).world_to_cam, camera.world_to_cam
                    turned = (usual.mT.to(turned.dtype) @ seen_from.to(turned.dtype))[..., :3, :3] @ turned
                alike = closeness(self.moved(params.expression, params.jaw), turned, *self._shaded_at)
            return shaded(colors, self.shades, alike, self.surface)


def pose_surface(rig: Rig, params: HeadParams) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 4"]]:
    """Posed surface points (B, N, 3) and their rotations (B, N, 4) wxyz, normalised."""
    with exactly(params.root):
        posed = rig.head.pose(rig.neutral[None], rig.joints[None], params)
    mixed = rig.surface.interpolate(torch.cat([posed.vertices, posed.quats], -1))
    return mixed[..., :3], normalize(mixed[..., 3:], dim=-1)


def pose_gaussians(
    rig: Rig,
    canonical: CanonicalGaussians,
    params: HeadParams,
    rotate_covariance: bool = True,
    camera: Camera | None = None,
) -> Gaussians:
    """Animate: means and quats get a leading frame axis, and with shades in the rig colours, too; the other attributes
    stay shared. ``camera`` is where the shades are seen from, the normalised one by default: one per frame, one for all
    frames, or many for one frame, of which the colours then have the axis.

    ``rotate_covariance=False`` keeps each splat's orientation as in canonical space (the paper's form); turned heads
    then show broken splats.
    """
    if camera is not None:
        camera = _batched(camera)
        _views(len(params), camera)
    colors = rig.shade(canonical.colors, params, camera)
    inputs = (rig.neutral, canonical.offsets, canonical.quats, *vars(params).values())
    if rotate_covariance and can_attach(*inputs):
        with exactly(params.root):
            posed = rig.head.pose(rig.neutral[None], rig.joints[None], params)
        parents, barycentric = rig.surface.parents, rig.surface.barycentric
        means, quats = attach(posed.vertices, posed.quats, parents, barycentric, canonical.offsets, canonical.quats)
        return Gaussians(means, quats, canonical.scales, canonical.opacities, colors)
    points, turn = pose_surface(rig, params)
    means = points + quat_rotate(turn, canonical.offsets)
    quats = quat_multiply(turn, canonical.quats) if rotate_covariance else canonical.quats.expand(len(params), -1, -1)
    return Gaussians(means, quats, canonical.scales, canonical.opacities, colors)


def _batched(camera: Camera) -> Camera:
    """``camera`` with the axis of views that a single one may lack; what pose or lens lack of it they share."""
    views = torch.broadcast_shapes(camera.world_to_cam.shape[:-2], camera.K.shape[:-2], (1,))
    return replace(camera, world_to_cam=camera.world_to_cam.expand(*views, 4, 4), K=camera.K.expand(*views, 3, 3))


def _views(frames: int, camera: Camera) -> int:
    """Number of pictures of so many frames by a batched ``camera``. Raises InputError where they do not fit."""
    cameras = len(camera.world_to_cam)
    if frames != cameras and 1 not in (frames, cameras):
        raise InputError(f"{frames} poses do not fit {cameras} cameras; give as many of both, or one of either.")
    return max(frames, cameras)


def render_gaussians(
    gaussians: Gaussians,
    camera: Camera,
    background: tuple[float, float, float] | Float[Tensor, "*B C"] = (1.0, 1.0, 1.0),
    backend: Backend = "auto",
    eps2d: float = EPS2D,
) -> Rendering:
    """Rasterise posed Gaussians, one picture per frame and its camera; one frame serves many cameras, and one camera,
    with the axis of views or without, many frames. ``eps2d`` in square pixels, as in ``rasterize``.

    Raises:
        InputError: several frames, and another number of several cameras.
    """
    if not isinstance(background, Tensor):
        background = torch.tensor(background, dtype=torch.float32, device=gaussians.means.device)
    camera = _batched(camera)
    with_axis = {"means": 3, "quats": 3, "scales": 3, "opacities": 2, "colors": 3}
    given = {name: getattr(gaussians, name) for name in with_axis}
    views = _views(max(len(v) if v.ndim == with_axis[name] else 1 for name, v in given.items()), camera)
    if views > 1:  # what is given once, the rasteriser wants without the axis
        given |= {name: v[0] for name, v in given.items() if v.ndim == with_axis[name] and len(v) == 1}
    with exactly(gaussians.means):
        pictures, alphas, _ = rasterize(
            **given, viewmats=camera.world_to_cam.expand(views, 4, 4), Ks=camera.K.expand(views, 3, 3),
            width=camera.width, height=camera.height, backgrounds=background.expand(views, -1), backend=backend,
            eps2d=eps2d,
        )  # fmt: skip
    return Rendering(pictures, alphas[..., 0])


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
    """Pose and rasterise in one call; without ``camera``, the normalised camera with ``size`` pixels a side. With one,
    its own width and height count, and not ``size``.

    ``rotate_covariance`` as in ``pose_gaussians``, ``eps2d`` and how many cameras as in ``render_gaussians``.
    """
    posed = pose_gaussians(rig, canonical, params, rotate_covariance, camera)
    if camera is None:
        camera = normalised_camera(size, len(params), params.root.device)
    return render_gaussians(posed, camera, background, backend, eps2d)
