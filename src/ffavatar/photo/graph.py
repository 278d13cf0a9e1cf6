"""Runs a converted convolutional network: a list of steps over numbered values, in plain differentiable torch.

The steps come from the metadata that ``convert.py`` wrote beside the weights. Thirteen kinds of step are enough for the
landmark, detection and matting networks; everything else about them is data.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffavatar.weights import WeightsRecord, load_metadata, load_weights


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
        self._last_use = {value: index for index, step in enumerate(self._steps) for value in step["in"]}

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in the network's own value range -> its outputs, maps as (B, C, H, W), lists as (B, rows, C)."""
        values = {self._input: image.contiguous(memory_format=torch.channels_last)}
        for index, step in enumerate(self._steps):
            inputs = [values[number] for number in step["in"]]
            values[step["out"]] = self._run(step, inputs)
            for number in step["in"]:  # free maps early: less memory traffic without gradients
                if self._last_use[number] == index and number not in self._outputs:
                    values.pop(number, None)
        return [values[number] for number in self._outputs]

    def _run(self, step: dict[str, Any], inputs: list[Tensor]) -> Tensor:
        kind, x = step["op"], inputs[0]
        if kind == "conv":
            left, right, top, bottom = step["pad"]
            if left == right and top == bottom:
                padding = (top, left)
            else:
                x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
            weight, bias = self._constant(step, "weight"), self._bias(step)
            x = F.conv2d(x, weight, bias, step["stride"], padding, 1, step["groups"])
        elif kind == "prelu":
            x = F.prelu(x, self._constant(step, "slope"))
        elif kind == "add":
            x = x + inputs[1]
        elif kind == "mul":
            x = x * inputs[1]
        elif kind == "relu":
            x = F.relu(x)
        elif kind == "logistic":
            x = torch.sigmoid(x)
        elif kind == "hard_swish":
            x = F.hardswish(x)
        elif kind == "max_pool":
            x = F.max_pool2d(x, step["size"])
        elif kind == "mean":
            x = x.mean((2, 3), keepdim=True)
        elif kind == "pad":
            x = F.pad(x, step["pad"])
        elif kind == "resize":
            x = F.interpolate(x, size=step["size"], mode="bilinear", align_corners=False)
        elif kind == "conv_transpose":
            x = F.conv_transpose2d(x, self._constant(step, "weight"), self._bias(step), stride=2)
        elif kind == "rows":
            x = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, step["width"])
        elif kind == "concat":
            x = torch.cat(inputs, 1)
        else:
            raise ValueError(f"unknown step {kind!r}: the weights file is newer than this program")
        return F.relu(x) if step.get("act") == "relu" else x

    def _constant(self, step: dict[str, Any], key: str) -> Tensor:
        return self.get_buffer(step[key])

    def _bias(self, step: dict[str, Any]) -> Tensor | None:
        return self.get_buffer(step["bias"]) if "bias" in step else None
