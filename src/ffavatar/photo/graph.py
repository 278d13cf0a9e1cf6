"""Runs a converted convolutional network: a list of steps over numbered values, in plain differentiable torch.

The steps come from the metadata that ``convert.py`` wrote beside the weights. Thirteen kinds of step are enough for the
landmark, detection and matting networks; everything else about them is data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.weights import WeightsRecord, load_metadata, load_weights

NARROW = 16  # output channels below which a matrix product over pixels is slow: pixels are then taken in pairs

Operation = Callable[..., Tensor]


@dataclass(frozen=True)
class _Step:
    """One step, ready to run: what it reads, where its result goes, and which values nobody needs afterwards."""

    run: Operation
    inputs: tuple[int, ...]
    out: int
    done: tuple[int, ...]


class Graph(nn.Module):
    """A converted network. Its constants are float32 buffers (frozen); gradients reach the input.

    ``size`` is the (height, width) of the pictures it takes.
    """

    size: tuple[int, int]

    def __init__(self, record: WeightsRecord):
        super().__init__()
        description = json.loads(load_metadata(record)["ffavatar"])["graph"]
        for name, value in load_weights(record).items():
            value = value.float()
            if value.dim() == 4:  # channels-last kernels: fastest for small images on CPUs
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, value, persistent=False)
        self.size = tuple(description["size"])
        self._input: int = description["input"]
        self._outputs: list[int] = description["outputs"]
        self._steps: list[dict[str, Any]] = description["steps"]
        self._plan: list[_Step] | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in the network's own value range -> its outputs, maps as (B, C, H, W), lists as (B, rows, C)."""
        if self._plan is None:
            self._plan = self._prepare()
        values = {self._input: image.contiguous(memory_format=torch.channels_last)}
        for step in self._plan:
            values[step.out] = step.run(*[values[number] for number in step.inputs])
            for number in step.done:  # free maps early: less memory traffic without gradients
                del values[number]
        return [values[number] for number in self._outputs]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Graph:
        self._plan = None  # it holds the constants where they were
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plan": None}  # functions cannot be pickled, and a copy has constants of its own

    @torch.inference_mode(False)
    @torch.no_grad()
    def _prepare(self) -> list[_Step]:
        """The steps with their constants looked up once; a network has hundreds, each of a few microseconds."""
        last_use = {value: index for index, step in enumerate(self._steps) for value in step["in"]}
        plan = []
        for index, step in enumerate(self._steps):
            done = {number for number in step["in"] if last_use[number] == index and number not in self._outputs}
            plan.append(_Step(self._operation(step), tuple(step["in"]), step["out"], tuple(done)))
        return plan

    def _operation(self, step: dict[str, Any]) -> Operation:
        kind = step["op"]
        if kind == "conv":
            run = self._convolution(step)
        elif kind == "conv_transpose":
            weight, bias = self._constant(step, "weight"), self._bias(step)
            run = lambda x: F.conv_transpose2d(x, weight, bias, stride=2)  # noqa: E731
        elif kind == "prelu":
            slope = self._constant(step, "slope")
            run = lambda x: F.prelu(x, slope)  # noqa: E731
        elif kind in _PLAIN:
            run = _PLAIN[kind](step)
        else:
            raise ValueError(f"unknown step {kind!r}: the weights file is newer than this program")
        return (lambda *inputs: F.relu(run(*inputs))) if step.get("act") == "relu" else run

    def _convolution(self, step: dict[str, Any]) -> Operation:
        weight, bias = self._constant(step, "weight"), self._bias(step)
        stride, groups = step["stride"], step["groups"]
        left, right, top, bottom = step["pad"]
        outputs, _, height, width = weight.shape
        if (height, width) == (1, 1) and groups == 1 and stride == [1, 1] and outputs < NARROW and bias is not None:
            return _paired(weight[:, :, 0, 0], bias)
        if left == right and top == bottom:
            return lambda x: F.conv2d(x, weight, bias, stride, (top, left), 1, groups)
        return lambda x: F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, 1, groups)

    def _constant(self, step: dict[str, Any], key: str) -> Tensor:
        return self.get_buffer(step[key])

    def _bias(self, step: dict[str, Any]) -> Tensor | None:
        return self.get_buffer(step["bias"]) if "bias" in step else None


def _paired(weight: Tensor, bias: Tensor) -> Operation:
    """A 1 x 1 convolution with few outputs, (O, I) and (O,), for two neighbouring pixels at a time: twice the
    arithmetic, but three times as fast as the narrow matrix product."""
    both, biases = torch.block_diag(weight, weight), torch.cat([bias, bias])

    def run(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if height * width % 2:
            return F.conv2d(x, weight[:, :, None, None], bias)
        pairs = x.permute(0, 2, 3, 1).reshape(-1, 2 * channels)
        return F.linear(pairs, both, biases).view(batch, height, width, -1).permute(0, 3, 1, 2)

    return run


_PLAIN: dict[str, Callable[[dict[str, Any]], Operation]] = {
    "add": lambda step: torch.add,
    "mul": lambda step: torch.mul,
    "relu": lambda step: F.relu,
    "logistic": lambda step: torch.sigmoid,
    "hard_swish": lambda step: F.hardswish,
    "max_pool": lambda step: lambda x: F.max_pool2d(x, step["size"]),
    "mean": lambda step: lambda x: x.mean((2, 3), keepdim=True),
    "pad": lambda step: lambda x: F.pad(x, step["pad"]),
    "resize": lambda step: lambda x: F.interpolate(x, size=step["size"], mode="bilinear", align_corners=False),
    "rows": lambda step: lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, step["width"]),
    "concat": lambda step: lambda *inputs: torch.cat(inputs, 1),
}
