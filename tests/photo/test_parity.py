"""The converted networks against the original runtime's answers (``make_golden.py``), and the conversion's records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ffavatar.photo import records
from ffavatar.photo.blendshapes import BLENDSHAPE_NAMES, BlendshapeMixer
from ffavatar.photo.graph import Graph
from ffavatar.weights import load_metadata, load_weights

from .golden_inputs import golden_inputs


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden.npz") as file:
        return dict(file)


def run(record, value: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [output.numpy() for output in Graph(record)(torch.from_numpy(value).movedim(-1, 1))]


def test_landmarks_and_presence(golden):
    points, presence, _ = run(records.LANDMARKS, golden_inputs()["face_landmarks"])
    difference = np.linalg.norm(points.reshape(478, 3) - golden["points"], axis=-1)  # network pixels, of 256
    assert difference.mean() < 0.002 and difference.max() < 0.02
    assert abs(presence.item() - golden["presence"]) < 1e-3
    assert golden["presence"] > 5  # the input shows a face: presence above 0.99


def test_blendshapes(golden):
    with torch.inference_mode():
        scores = BlendshapeMixer()(torch.from_numpy(golden["points"])[None])[0].numpy()
    assert np.abs(scores - golden["blendshapes"]).max() < 1e-4
    smiles = [BLENDSHAPE_NAMES.index(f"mouthSmile{side}") for side in ("Left", "Right")]
    assert scores[smiles].min() > 0.5  # she smiles


def test_detector(golden):
    boxes, logits = run(records.DETECTOR, golden_inputs()["face_detector"])
    assert np.abs(boxes[0, ::8] - golden["detector_boxes"]).max() < 2e-3  # network pixels, of 192
    assert np.abs(logits[0, :, 0] - golden["detector_logits"]).max() < 1e-3
    assert golden["detector_logits"].max() > 0  # the input shows a face


def test_matte(golden):
    (matte,) = run(records.MATTE, golden_inputs()["selfie_matte"])
    assert np.abs(matte[0, 0, ::4, ::4] - golden["matte"]).max() < 1e-3
    assert golden["matte"].min() < 0.05 and golden["matte"].max() > 0.95


@pytest.mark.parametrize("record", [records.LANDMARKS, records.DETECTOR, records.MATTE])
def test_batch_equals_single(record):
    network = Graph(record)
    pictures = torch.rand(3, 3, *network.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = network(pictures)
        for row in range(3):
            for output, single in zip(together, network(pictures[row : row + 1]), strict=True):
                torch.testing.assert_close(output[row], single[0], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("record", records.ALL, ids=lambda record: Path(record.file).stem)
def test_shipped_files_are_the_recorded_ones(record):
    tensors = load_weights(record)  # checks the sha256
    assert tensors and all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert record.licence == "Apache-2.0"
    assert "Apache-2.0" in load_metadata(record)["ffavatar"]


def test_shipped_files_stay_small():
    assert sum(record.path.stat().st_size for record in records.ALL) < 5_000_000
