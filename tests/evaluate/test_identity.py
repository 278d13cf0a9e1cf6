"""Alignment by exact transforms, the network's shape laws, and the fetched weights (under `slow`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_views import fingerprint, landmark_cloud, painted

from ffavatar.errors import InputError
from ffavatar.evaluate.identity import (
    CHIP_PX,
    FIVE_POINTS,
    MOBILE_FACE_NET,
    TEMPLATE,
    IdentityNet,
    align,
    identity_cosine,
    load_identity,
    similarity,
)


def placed_template(size: int, scale: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    """(1, 478, 3) landmarks whose five points are the template under a known similarity, in crop units."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = scale * np.array(TEMPLATE) @ turn.T + shift  # pixel centres at whole numbers, as in the template
    landmarks = torch.zeros(1, 478, 3)
    landmarks[0, list(FIVE_POINTS), :2] = torch.tensor((pixels + 0.5) / size, dtype=torch.float32)
    return landmarks


@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (2.5, 0.4), (0.7, -1.2), (1.3, 3.0)])
def test_similarity_recovers_a_known_transform(scale: float, angle: float) -> None:
    points = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity(points, scale * points @ turn.T + torch.tensor([0.3, -2.0]))
    torch.testing.assert_close(found[..., :2], (scale * turn).expand(2, -1, -1))
    torch.testing.assert_close(found[..., 2], torch.tensor([[0.3, -2.0]]).double().expand(2, -1))


def test_alignment_at_the_template_cuts_the_chip_out() -> None:
    """Scale 1 and a whole-pixel shift: the chip is a piece of the picture, blurred by nothing but the 3 x 3 samples."""
    size = 160
    picture = painted(1, size)[None]
    chip = align(picture, placed_template(size, 1.0, 0.0, (20, 30)))
    assert chip.shape == (1, CHIP_PX, CHIP_PX, 3)
    torch.testing.assert_close(chip, picture[:, 30 : 30 + CHIP_PX, 20 : 20 + CHIP_PX], atol=2e-3, rtol=0)


def test_alignment_undoes_a_quarter_turn() -> None:
    size = 200
    upright = placed_template(size, 1.2, 0.0, (20, 30))
    turned = upright.clone()  # rot90 takes (x, y) to (y, 1 - x)
    turned[..., 0], turned[..., 1] = upright[..., 1], 1 - upright[..., 0]
    picture = painted(2, size)[None]
    torch.testing.assert_close(
        align(picture.rot90(1, (1, 2)), turned), align(picture, upright), atol=1e-4, rtol=0
    )  # fmt: skip


def test_embeddings_are_unit_mirror_invariant_and_batched() -> None:
    torch.manual_seed(0)
    net = IdentityNet()
    chips = torch.rand(3, CHIP_PX, CHIP_PX, 3)
    both = net(chips)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(net(chips.flip(2)), both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(chips[1:2]), both[1:2], atol=1e-5, rtol=1e-4)


def test_both_pictures_are_aligned_by_the_target_and_gradients_reach_the_rendering() -> None:
    torch.manual_seed(0)
    net = IdentityNet()
    landmarks = landmark_cloud()[None]
    target = painted(3, 128)[None]
    assert float(identity_cosine(net, target, target, landmarks)) == pytest.approx(1, abs=1e-5)
    rendered = painted(4, 128)[None].requires_grad_(True)
    identity_cosine(net, rendered, target, landmarks).sum().backward()
    assert rendered.grad is not None and float(rendered.grad.abs().sum()) > 0
    with pytest.raises(ValueError, match="must lie in"):
        identity_cosine(net, rendered * 2, target, landmarks)


@pytest.mark.parametrize("content", [b"", b"no flatbuffer at all", b"\x10\0\0\0TFL3" + bytes(40)])
def test_broken_files_are_refused(tmp_path, content: bytes) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(content)
    with pytest.raises(InputError, match="fetch it again"):
        load_identity(path=file)


@pytest.mark.slow
def test_published_weights_agree_with_the_original_runtime() -> None:
    """Against LiteRT where it is installed; what is RECORDED was taken from it once, of all 192 outputs."""
    from ffavatar.weights import fetch

    net = load_identity()
    y, x, c = np.mgrid[:CHIP_PX, :CHIP_PX, :3]
    chip = np.sin(0.05 * x + 0.09 * y + c).astype(np.float32)
    found = net.layers(torch.tensor(chip)[None].permute(0, 3, 1, 2)).flatten().numpy()
    np.testing.assert_allclose(found[:4], RECORDED, atol=2e-3)
    np.testing.assert_allclose(fingerprint(found), RECORDED_PRINT, atol=2e-3)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return
    runtime = Interpreter(model_path=str(fetch(MOBILE_FACE_NET)))
    runtime.allocate_tensors()
    given = runtime.get_input_details()[0]
    runtime.set_tensor(given["index"], np.repeat(chip[None], given["shape"][0], 0))
    runtime.invoke()
    expected = runtime.get_tensor(runtime.get_output_details()[0]["index"])[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


RECORDED = (0.0268, 0.4374, 0.4296, -0.2354)  # first outputs of LiteRT 2.3 for the chip of the test above
RECORDED_PRINT = (-2.0133, -2.1245, 1.7842, -0.5520, 2.1359, -2.2075, -0.8487, -1.4566)
