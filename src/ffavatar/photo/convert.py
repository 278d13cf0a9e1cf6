"""Converts the TFLite networks of the photo front end to safetensors: ``python -m ffavatar.photo.convert``.

Run by developers only (needs network and ``pip install tflite``); the results in ``photo/data`` are committed. Every
weight in the originals is stored as float16, so float16 in the safetensors loses nothing. Convolutional networks become
a list of a dozen kinds of operation in the file's metadata (run by ``graph.Graph``); the blendshape network, an
MLP-Mixer, becomes named tensors (run by ``blendshapes.BlendshapeMixer``).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ffavatar.photo import records
from ffavatar.weights import RegistryFile, fetch

ACTIVATIONS = {0: "", 1: "relu"}
TENSOR_TYPES = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}


@dataclass(frozen=True)
class Operator:
    """One TFLite operator: numbers of the tensors it reads and writes, its options as the flatbuffer object."""

    name: str
    inputs: list[int]
    outputs: list[int]
    options: Any


class TFLiteFile:
    """The parts of a TFLite flatbuffer that conversion needs. Dequantised float16 constants are followed through."""

    def __init__(self, data: bytes):
        import tflite

        names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if not k.startswith("_")}
        model = tflite.Model.GetRootAs(data, 0)
        graph = model.Subgraphs(0)
        self.shapes: list[list[int]] = []
        self.constants: dict[int, np.ndarray] = {}
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            shape = [tensor.Shape(axis) for axis in range(tensor.ShapeLength())]
            self.shapes.append(shape)
            buffer = model.Buffers(tensor.Buffer())
            if buffer.DataLength():
                flat = np.frombuffer(buffer.DataAsNumpy().tobytes(), TENSOR_TYPES[tensor.Type()])
                self.constants[index] = flat.reshape(shape)
        self.inputs = [graph.Inputs(index) for index in range(graph.InputsLength())]
        self.outputs = [graph.Outputs(index) for index in range(graph.OutputsLength())]
        self.operators: list[Operator] = []
        for index in range(graph.OperatorsLength()):
            raw = graph.Operators(index)
            code = model.OperatorCodes(raw.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if name == "CUSTOM":
                name = code.CustomCode().decode()
            inputs = [int(raw.Inputs(slot)) for slot in range(raw.InputsLength())]
            outputs = [int(raw.Outputs(slot)) for slot in range(raw.OutputsLength())]
            if name == "DEQUANTIZE" and inputs[0] in self.constants:
                self.constants[outputs[0]] = self.constants[inputs[0]]
                continue
            self.operators.append(Operator(name, inputs, outputs, _options(tflite, name, raw)))


def _options(tflite: Any, name: str, raw: Any) -> Any:
    kinds = {
        "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "ADD": "AddOptions",
        "MUL": "MulOptions", "MAX_POOL_2D": "Pool2DOptions", "AVERAGE_POOL_2D": "Pool2DOptions",
        "RESIZE_BILINEAR": "ResizeBilinearOptions",
    }  # fmt: skip
    if name not in kinds:
        return None
    options = getattr(tflite, kinds[name])()
    table = raw.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _same_padding(size: list[int], kernel: tuple[int, int], stride: tuple[int, int], same: bool) -> list[int]:
    """TensorFlow's padding as (left, right, top, bottom): the odd pixel goes right and below."""
    sides: list[int] = []
    for axis in (1, 0):
        total = max((-(-size[axis] // stride[axis]) - 1) * stride[axis] + kernel[axis] - size[axis], 0) if same else 0
        sides += [total // 2, total - total // 2]
    return sides


class GraphWriter:
    """Rewrites one convolutional TFLite graph, NHWC, as NCHW steps plus float16 tensors."""

    def __init__(self, source: TFLiteFile):
        self.source = source
        self.steps: list[dict[str, Any]] = []
        self.tensors: dict[str, np.ndarray] = {}
        for operator in source.operators:
            self._add(operator)
        self._fold_activations()

    def _store(self, kind: str, value: np.ndarray) -> str:
        stored = np.ascontiguousarray(value.astype(np.float16))
        if not np.array_equal(stored.astype(value.dtype), value):
            raise ValueError("a constant does not fit float16 exactly")
        name = f"{kind}{len(self.tensors):03d}"
        self.tensors[name] = stored
        return name

    def _step(self, operator: Operator, kind: str, inputs: int = 1, **arguments: Any) -> None:
        step = {"op": kind, "in": operator.inputs[:inputs], "out": operator.outputs[0]}
        self.steps.append(step | {key: value for key, value in arguments.items() if value not in ("", None)})

    def _bias(self, operator: Operator) -> str | None:
        bias = self.source.constants[operator.inputs[2]]
        return self._store("bias", bias) if bias.any() else None

    def _add(self, operator: Operator) -> None:
        name, options, constants = operator.name, operator.options, self.source.constants
        size = self.source.shapes[operator.inputs[0]][1:3]
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            depthwise = name == "DEPTHWISE_CONV_2D"
            weight = constants[operator.inputs[1]].transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
            stride = (options.StrideH(), options.StrideW())
            if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
                raise ValueError("dilated convolutions are not converted")
            pad = _same_padding(size, weight.shape[2:], stride, options.Padding() == 0)
            self._step(
                operator, "conv", weight=self._store("weight", weight), bias=self._bias(operator), stride=list(stride),
                pad=pad, groups=weight.shape[0] if depthwise else 1, act=ACTIVATIONS[options.FusedActivationFunction()],
            )  # fmt: skip
        elif name == "Convolution2DTransposeBias":  # a custom operator: 2x2 kernel, stride 2, weights (out, h, w, in)
            weight = constants[operator.inputs[1]].transpose(3, 0, 1, 2)
            self._step(operator, "conv_transpose", weight=self._store("weight", weight), bias=self._bias(operator))
        elif name == "PRELU":
            self._step(operator, "prelu", slope=self._store("slope", constants[operator.inputs[1]].reshape(-1)))
        elif name in ("ADD", "MUL"):
            self._step(operator, name.lower(), inputs=2, act=ACTIVATIONS[options.FusedActivationFunction()])
        elif name in ("RELU", "LOGISTIC", "HARD_SWISH"):
            self._step(operator, name.lower())
        elif name == "MAX_POOL_2D":
            kernel = (options.FilterHeight(), options.FilterWidth())
            stride = (options.StrideH(), options.StrideW())
            if kernel != stride or any(_same_padding(size, kernel, stride, True)):
                raise ValueError("only plain max pooling is converted")
            self._step(operator, "max_pool", size=list(kernel))
        elif name == "AVERAGE_POOL_2D":
            if [options.FilterHeight(), options.FilterWidth()] != size:
                raise ValueError("only global average pooling is converted")
            self._step(operator, "mean")
        elif name == "PAD":
            amounts = constants[operator.inputs[1]].tolist()
            if amounts[0] != [0, 0]:
                raise ValueError("padding of the batch axis is not converted")
            self._step(operator, "pad", pad=[*amounts[2], *amounts[1], *amounts[3]])
        elif name == "RESIZE_BILINEAR":
            if options.AlignCorners() or not options.HalfPixelCenters():
                raise ValueError("only half-pixel bilinear resizing is converted")
            self._step(operator, "resize", size=self.source.shapes[operator.outputs[0]][1:3])
        elif name == "RESHAPE":  # to (boxes, values) or to a vector: leaves NCHW, so only at the end of a network
            self._step(operator, "rows", width=self.source.shapes[operator.outputs[0]][-1])
        elif name == "CONCATENATION":
            self._step(operator, "concat", inputs=len(operator.inputs))
        else:
            raise ValueError(f"the operator {name} is not converted")

    def _fold_activations(self) -> None:
        """Join a ReLU to the step before it where nothing else reads the value between them."""
        readers: dict[int, int] = {}
        for step in self.steps:
            for value in step["in"]:
                readers[value] = readers.get(value, 0) + 1
        folded: list[dict[str, Any]] = []
        for step in self.steps:
            if step["op"] == "relu" and readers[step["in"][0]] == 1:
                maker = next(s for s in folded if s["out"] == step["in"][0])
                if maker["op"] in ("conv", "add"):
                    maker["act"], maker["out"] = "relu", step["out"]
                    continue
            folded.append(step)
        self.steps = folded

    def description(self) -> dict[str, Any]:
        """What ``graph.Graph`` runs: the number of the input, its (H, W), the outputs' numbers and the steps."""
        shape = self.source.shapes[self.source.inputs[0]]
        source = self.source
        return {"input": source.inputs[0], "outputs": source.outputs, "size": shape[1:3], "steps": self.steps}


def mixer_tensors(source: TFLiteFile) -> dict[str, np.ndarray]:
    """Names the blendshape network's weights by their order of use (see ``blendshapes.BlendshapeMixer``)."""
    layers = [op for op in source.operators if op.name == "CONV_2D"]
    names = ["points_to_tokens", "coordinates_to_channels"]
    for block in range(4):
        names += [f"blocks.{block}.{part}" for part in ("token_up", "token_down", "channel_up", "channel_down")]
    names.append("head")
    tensors: dict[str, np.ndarray] = {}
    for name, layer in zip(names, layers, strict=True):
        weight = source.constants[layer.inputs[1]]
        tensors[f"{name}.weight"] = weight.reshape(weight.shape[0], -1)
        tensors[f"{name}.bias"] = source.constants[layer.inputs[2]]
    token = next(op for op in source.operators if op.name == "CONCATENATION").inputs[0]
    tensors["extra_token"] = source.constants[token].reshape(1, -1)
    made_by = {op.outputs[0]: op for op in source.operators}
    scales = [op for op in source.operators if op.name == "MUL" and made_by.get(op.inputs[0], op).name == "RSQRT"]
    for index, scale in enumerate(scales):
        part = ("token_norm", "channel_norm")[index % 2]
        tensors[f"blocks.{index // 2}.{part}"] = source.constants[scale.inputs[1]]
    return {name: np.ascontiguousarray(value.astype(np.float16)) for name, value in tensors.items()}


def _write(
    folder: Path, name: str, tensors: dict[str, np.ndarray], graph: dict[str, Any], origin: RegistryFile
) -> None:
    about = {"source": f"{origin.registry} {origin.package} {origin.version} {origin.member}"}
    about |= {
        "licence": origin.licence,
        "copyright": "Google LLC (MediaPipe); converted to safetensors, weights unchanged",
    }
    # one key: safetensors writes several in random order, and the sha256 must not depend on the run
    metadata = {"ffavatar": json.dumps(about | ({"graph": graph} if graph else {}), separators=(",", ":"))}
    data = safetensors.numpy.save(tensors, metadata)
    (folder / f"{name}.safetensors").write_bytes(data)
    print(f"{name}.safetensors  {len(data):>8} bytes  sha256 {hashlib.sha256(data).hexdigest()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    task = zipfile.ZipFile(io.BytesIO(fetch(records.FACE_LANDMARKER_TASK).read_bytes()))
    sources = {
        "face_landmarks": (task.read("face_landmarks_detector.tflite"), records.FACE_LANDMARKER_TASK),
        "face_detector": (fetch(records.FULL_RANGE_DETECTOR).read_bytes(), records.FULL_RANGE_DETECTOR),
        "selfie_matte": (fetch(records.SELFIE_SEGMENTATION).read_bytes(), records.SELFIE_SEGMENTATION),
    }
    for name, (data, origin) in sources.items():
        writer = GraphWriter(TFLiteFile(data))
        _write(folder, name, writer.tensors, writer.description(), origin)
    mixer = mixer_tensors(TFLiteFile(task.read("face_blendshapes.tflite")))
    _write(folder, "face_blendshapes", mixer, {}, records.FACE_LANDMARKER_TASK)


if __name__ == "__main__":
    main()
