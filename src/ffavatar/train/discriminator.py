"""Projected discriminator (Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021) on frozen features.

A frozen network's planes of several scales are mixed by fixed random projections, across channels and from coarse to
fine; a small discriminator per scale judges each. The features are those of LPIPS: AlexNet or VGG16 trained on
ImageNet (BSD-3-Clause; ``evaluate/lpips.py``), fetched when needed and never shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ffavatar.train.augment import augment

Features = Callable[[Tensor], list[Tensor]]
CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
WIDTH = 64
POWER_STEPS = 3


class _Scaled(nn.Module):
    """A convolution whose kernel, read as a matrix, has spectral norm one (Miyato et al., ICLR 2018).

    The power iteration starts anew from a fixed vector each time: the layer has no state beside its weights, so stopped
    runs and several ranks agree.
    """

    start: Tensor

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1):
        super().__init__()
        self.stride, self.padding = stride, kernel // 2
        self.weight = nn.Parameter(torch.empty(outside, inside, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outside))
        nn.init.kaiming_normal_(self.weight, 0.2)
        self.register_buffer("start", torch.randn(outside))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            u = F.normalize(self.start, dim=0)
            for _ in range(POWER_STEPS):
                v = F.normalize(matrix.T @ u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
        largest = u @ (matrix @ v)
        return F.conv2d(x, self.weight / largest, self.bias, self.stride, self.padding)


class ProjectedDiscriminator(nn.Module):
    """Pictures (B, H, W, 3) in [0, 1] -> one map of logits per scale, (B, h_k w_k) each.

    ``features``: the frozen network, pictures -> planes (B, C_k, h_k, w_k) from fine to coarse with ``channels`` C_k.
    It is no part of this module's state. The random projections are, for a run must be able to go on with them.
    """

    def __init__(self, features: Features, channels: Sequence[int]):
        super().__init__()
        self.features = features
        self.across = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.between = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in channels[1:])
        for layer in (*self.across, *self.between):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, 1.0)
            nn.init.zeros_(layer.bias)
            layer.requires_grad_(False)
        self.judges = nn.ModuleList(
            nn.Sequential(
                _Scaled(WIDTH, WIDTH, 3), nn.LeakyReLU(0.2), _Scaled(WIDTH, WIDTH, 3, 2), nn.LeakyReLU(0.2),
                _Scaled(WIDTH, 1, 1),
            )
            for _ in channels
        )  # fmt: skip

    def forward(self, images: Tensor) -> list[Tensor]:
        planes = [project(plane) for project, plane in zip(self.across, self.features(images))]
        mixed = [planes[-1]]
        for plane, mix in zip(planes[-2::-1], self.between):
            coarse = F.interpolate(mixed[-1], plane.shape[-2:], mode="bilinear", align_corners=False)
            mixed.append(mix((coarse + plane) * 2**-0.5))
        # unit variance per picture, whatever the features' own size: the projections are random, not trained
        normal = [F.layer_norm(plane, plane.shape[1:]) for plane in mixed]
        return [judge(plane).flatten(1) for judge, plane in zip(self.judges, normal)]


def adversarial_losses(critic: ProjectedDiscriminator, seen: Tensor, goal: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Hinge losses of the pictures ``seen`` that a model drew and of the critic that compares them with ``goal``.

    The first reaches the pictures and not the critic, the second the critic and not the pictures, so that one backward
    pass over their sum teaches both. Both (B, H, W, 3); ``seed`` of the augmentation.
    """
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    fooled = functional_call(critic, frozen, (augment(seen, seed),))
    generator = -torch.stack([logits.mean() for logits in fooled]).mean()
    real, fake = critic(augment(goal.detach(), seed + 1)), critic(augment(seen.detach(), seed + 2))
    hinge = [F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake)]
    return generator, torch.stack(hinge).mean()


def load_critic(net: Literal["alex", "vgg"], device: torch.device | str = "cpu") -> ProjectedDiscriminator:
    """A new discriminator on the published features of LPIPS. Raises ``InputError`` where they cannot be fetched."""
    from ffavatar.evaluate.lpips import load_lpips

    return ProjectedDiscriminator(load_lpips(net, device).features, CHANNELS[net]).to(device)
