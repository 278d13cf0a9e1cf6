"""A small avatar with nothing regular about it, a motion for it, and a camera in head space."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from ffavatar.animate import Rig, render_gaussians
from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion, demo_motion
from ffavatar.geometry import normalised_camera
from ffavatar.head import load_head
from ffavatar.types import Camera, CanonicalGaussians, Gaussians, Rendering


@pytest.fixture(scope="session")
def avatar() -> Avatar:
    """About 6,000 Gaussians: random orientations, sizes from flat to round, all opacities, colours of the place."""
    head = load_head()
    generator = torch.Generator().manual_seed(3)
    identity = torch.randn(head.identity_size, generator=generator) * 0.5
    rig = Rig.of(head, identity, head.surface(0))
    points = rig.points()
    count = len(points)
    low, high = points.amin(0), points.amax(0)
    made = CanonicalGaussians(
        offsets=torch.randn(count, 3, generator=generator) * 0.002,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        scales=torch.exp(torch.rand(count, 3, generator=generator) * 3 - 8),
        opacities=torch.rand(count, generator=generator),
        colors=((points - low) / (high - low) + torch.rand(count, 3, generator=generator) * 0.2).clamp(0, 1),
    )
    return Avatar(rig, made, identity, {"made from": "a test"})


@pytest.fixture(scope="session")
def flat(avatar: Avatar) -> Avatar:
    """The same with Gaussians on the skin itself, all solid: on the undivided head each is a base vertex."""
    made = replace(avatar.canonical, offsets=torch.zeros(len(avatar), 3), opacities=torch.ones(len(avatar)))
    return replace(avatar, canonical=made)


@pytest.fixture(scope="session")
def restless(avatar: Avatar, flat: Avatar) -> Avatar:
    """The same on a head whose expressions move its joints, as FLAME's do, and that may not be passed on."""
    head = copy.deepcopy(avatar.rig.head)
    generator = torch.Generator().manual_seed(4)
    head.joint_expdirs.copy_(torch.randn(head.joint_expdirs.shape, generator=generator) * 2e-3)
    head.edition, head.licence = "flame2023", "for research, not to be passed on"
    rig = Rig(head, avatar.rig.neutral, avatar.rig.joints, avatar.rig.surface)
    return Avatar(rig, flat.canonical, avatar.identity)


@pytest.fixture(scope="session")
def motion(avatar: Avatar) -> Motion:
    """Twenty frames of talking and turning; every kind of parameter moves."""
    whole = demo_motion(avatar.rig.head, 4.0, 10.0)
    rows = whole.params[10:30]
    rows.expression[:, 60] = torch.linspace(0, 0.8, 20)
    return Motion(10.0, rows, whole.head_edition, whole.expression_names, "a test")


@pytest.fixture(scope="session")
def draw():
    """Draws Gaussians given in head space (y up), or y down, as the normalised camera sees them 1.15 m away."""

    def picture(made: Gaussians, y_down: bool = False, size: int = 192) -> torch.Tensor:
        camera = normalised_camera(size)
        world_to_cam = torch.eye(4)[None].clone() if y_down else camera.world_to_cam.clone()
        world_to_cam[:, 2, 3] = 1.15
        seen: Rendering = render_gaussians(made, Camera(world_to_cam, camera.K, size, size))
        return seen.images[0]

    return picture


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean().clamp_min(1e-20)))


@pytest.fixture(scope="session")
def likeness():
    """PSNR in dB of two pictures in [0, 1]."""
    return psnr
