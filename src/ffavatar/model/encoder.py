"""Source image encoders: pixels -> tokens, and for the anchored decoder a feature map.

``DinoV2`` follows the published architecture (Oquab et al., arXiv 2304.07193; registers off) closely enough to load its
checkpoints; ``ConvEncoder`` is the small one of the ``lite`` preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.errors import InputError

NORM_GROUPS, STRIDE = 8, 16  # of which the convolutional encoder's widths and picture are multiples


@dataclass(frozen=True)
class Encoded:
    """Image features of S views."""

    tokens: Tensor  # (S, P, C)
    feature_map: Tensor | None  # (S, C', h, w), None where the encoder has none


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(NORM_GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.norm(self.conv1(x))))


class ConvEncoder(nn.Module):
    """Matted picture + matte -> stride-4 feature map and stride-16 tokens.

    The feature map is fed back from the coarse levels, so that a sampled feature knows its surroundings.
    """

    def __init__(self, width: int, feature_width: int):
        super().__init__()
        f = feature_width
        self.stem = nn.Sequential(nn.Conv2d(4, 24, 4, stride=2, padding=1), nn.GELU(), nn.Conv2d(24, f, 4, 2, 1))
        self.level4 = _Residual(f)
        self.down8 = nn.Conv2d(f, 96, 4, 2, 1)
        self.level8 = _Residual(96)
        self.down16 = nn.Conv2d(96, width, 4, 2, 1)
        self.level16 = nn.Sequential(_Residual(width), _Residual(width))
        self.position = nn.Parameter(torch.zeros(width, 16, 16))
        nn.init.normal_(self.position, std=0.02)
        self.up8 = nn.Conv2d(width, 96, 1)
        self.up4 = nn.Conv2d(96, f, 1)
        self.blend = _Residual(f)

    def forward(self, images: Tensor, mattes: Tensor) -> Encoded:
        """``images`` (S, H, W, 3) on white, ``mattes`` (S, H, W); H and W multiples of 16."""
        x = torch.cat([images.permute(0, 3, 1, 2) * 2 - 1, mattes[:, None]], 1)
        fine = self.level4(self.stem(x))
        middle = self.level8(self.down8(fine))
        coarse = self.down16(middle)
        coarse = coarse + F.interpolate(self.position[None], coarse.shape[-2:], mode="bilinear", align_corners=False)
        coarse = self.level16(coarse)
        middle = middle + F.interpolate(self.up8(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        fine = fine + F.interpolate(self.up4(middle), scale_factor=2.0, mode="bilinear", align_corners=False)
        return Encoded(coarse.flatten(2).transpose(1, 2), self.blend(fine))


_VIT_SIZES = {"small": (384, 12, 6), "large": (1024, 24, 16)}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class _VitBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.scale1 * self.proj(attended)
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class DinoV2(nn.Module):
    """DINOv2 ViT with patches of 14 pixels, trained at 518 px."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: str):
        super().__init__()
        width, depth, heads = _VIT_SIZES[size]
        self.width = width
        self.patch_embed = nn.Conv2d(3, width, 14, stride=14)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 37 * 37, width))
        self.blocks = nn.ModuleList(_VitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``images`` (S, H, W, 3) in [0, 1], H and W multiples of 14 -> tokens (S, 1 + H W / 196, width),
        class token first."""
        x = self.patch_embed(((images - self.mean) / self.std).permute(0, 3, 1, 2))
        grid = x.shape[-2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self._positions(grid)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _positions(self, grid: torch.Size) -> Tensor:
        if tuple(grid) == (37, 37):
            return self.pos_embed
        patches = self.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, tuple(grid), mode="bicubic", align_corners=False, antialias=True)
        return torch.cat([self.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], 1)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load a published checkpoint in the ``facebook/dinov2-*`` safetensors naming of the model hub.

        Raises:
            InputError: the file is not such a checkpoint; the message lists what does not fit.
        """
        from safetensors.torch import load_file

        try:
            source = load_file(str(path))
        except Exception as error:
            raise InputError(
                f"{path} is not a safetensors file ({error}); give a facebook/dinov2-* checkpoint."
            ) from error
        missing, unexpected = self.load_state_dict(_from_hub_names(source), strict=False)
        if missing or unexpected:
            raise InputError(
                f"{path} does not fit DINOv2 of this size: missing {missing[:3]}, unexpected {unexpected[:3]}."
            )


def _from_hub_names(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the hub's DINOv2 keys to ours; its separate query, key and value become one matrix."""
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed",
        "layernorm": "norm",
    }
    inner = {
        "norm1": "norm1", "norm2": "norm2", "attention.output.dense": "proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2",
        "layer_scale1.lambda1": "scale1", "layer_scale2.lambda1": "scale2",
    }  # fmt: skip
    out: dict[str, Tensor] = {}
    for key, value in source.items():
        for old, new in names.items():
            if key == old or key.startswith(old + "."):
                out[new + key[len(old) :]] = value
        if key.startswith("encoder.layer."):
            index, rest = key.removeprefix("encoder.layer.").split(".", 1)
            for old, new in inner.items():
                if rest == old or rest.startswith(old + "."):
                    out[f"blocks.{index}.{new}{rest[len(old) :]}"] = value
            if rest.startswith("attention.attention.query."):
                kind = rest.rsplit(".", 1)[1]
                parts = [source[key.replace("query", part)] for part in ("query", "key", "value")]
                out[f"blocks.{index}.qkv.{kind}"] = torch.cat(parts)
    return out


class DinoEncoder(nn.Module):
    """Frozen DINOv2 as source encoder: patch tokens without the class token."""

    def __init__(self, size: str):
        super().__init__()
        self.vit = DinoV2(size).requires_grad_(False)
        self.width = self.vit.width

    def forward(self, images: Tensor, mattes: Tensor) -> Encoded:
        with torch.no_grad():
            return Encoded(self.vit(images)[:, 1:], None)
