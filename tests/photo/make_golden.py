"""Writes ``golden.npz``: what the original TFLite files answer under their own runtime (pip install ai-edge-litert).

Run by developers only, as ``python tests/photo/make_golden.py``; needs network. The parity test reads the result.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from golden_inputs import golden_inputs

from ffavatar.photo import records
from ffavatar.photo.blendshapes import BLENDSHAPE_LANDMARKS
from ffavatar.weights import fetch


def run(model: bytes, value: np.ndarray) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def main() -> None:
    task = zipfile.ZipFile(io.BytesIO(fetch(records.FACE_LANDMARKER_TASK).read_bytes()))
    inputs = golden_inputs()
    points, presence, _ = run(task.read("face_landmarks_detector.tflite"), inputs["face_landmarks"])
    points = points.reshape(478, 3)
    subset = np.ascontiguousarray(points[list(BLENDSHAPE_LANDMARKS), :2])[None]
    (scores,) = run(task.read("face_blendshapes.tflite"), subset)
    boxes, logits = run(fetch(records.FULL_RANGE_DETECTOR).read_bytes(), inputs["face_detector"])
    (matte,) = run(fetch(records.SELFIE_SEGMENTATION).read_bytes(), inputs["selfie_matte"])
    np.savez_compressed(
        Path(__file__).parent / "golden.npz",
        points=points,
        presence=presence.reshape(()),
        blendshapes=scores.reshape(52),
        detector_boxes=boxes[0, ::8],
        detector_logits=logits[0, :, 0],
        matte=matte[0, ::4, ::4, 0],
    )


if __name__ == "__main__":
    main()
