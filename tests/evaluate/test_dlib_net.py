"""The network's laws, alignment by an exact transform, broken files; the published weights under `slow`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_views import fingerprint, painted

from ffavatar.errors import InputError
from ffavatar.evaluate.dlib_net import (
    CHIP_PX,
    FIVE_POINTS,
    PADDING,
    TEMPLATE,
    DlibIdentityNet,
    _integers,
    align_dlib,
    load_dlib_identity,
)


def test_embeddings_are_unit_and_batched() -> None:
    torch.manual_seed(0)
    net = DlibIdentityNet()
    chips = torch.rand(2, CHIP_PX, CHIP_PX, 3)
    both = net(chips)
    assert both.shape == (2, 128)
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(net(chips[1:]), both[1:], atol=1e-5, rtol=1e-4)


def test_alignment_at_the_template_cuts_the_chip_out() -> None:
    """Landmarks where dlib's chip has them, shifted by whole pixels: the chip is that piece of the picture."""
    size = 200
    picture = painted(1, size)[None]
    landmarks = torch.zeros(1, 478, 3)
    inside = (np.array(TEMPLATE) + PADDING) / (1 + 2 * PADDING) * CHIP_PX
    landmarks[0, list(FIVE_POINTS), :2] = torch.tensor((inside + np.array([20, 30])) / size, dtype=torch.float32)
    chip = align_dlib(picture, landmarks)
    torch.testing.assert_close(chip, picture[:, 30 : 30 + CHIP_PX, 20 : 20 + CHIP_PX], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("data", "values"),
    [(b"\x01\x05", [5]), (b"\x02\x80\x12\x81\x07", [0x1280, -7]), (b"\x04\x00\x00\x01\x00", [65536])],
)
def test_packed_integers(data: bytes, values: list[int]) -> None:
    assert _integers(data, 0, len(values)) == (values, len(data))


@pytest.mark.parametrize("content", [b"", b"\x01\x05con_4" * 29 + b"\x01\x04fc_2", b"\x01\x04fc_2" + bytes(60)])
def test_broken_files_are_refused(tmp_path, content: bytes) -> None:
    file = tmp_path / "net.dat"
    file.write_bytes(content)
    with pytest.raises(InputError, match="fetch it again"):
        load_dlib_identity(path=file)


@pytest.mark.slow
def test_published_weights_agree_with_dlib() -> None:
    """Against dlib where it is installed; what is RECORDED was taken from dlib 20.0.1 once, of all 128 numbers."""
    from ffavatar.evaluate.dlib_net import DLIB_FACE_NET

    net = load_dlib_identity()
    y, x, c = np.mgrid[:CHIP_PX, :CHIP_PX, :3]
    chip = (127.5 + 127 * np.sin(0.05 * x + 0.09 * y + c)).astype(np.uint8)
    found = net.descriptor(torch.tensor(chip / 255).float()[None])[0].numpy()
    np.testing.assert_allclose(found[: len(RECORDED)], RECORDED, atol=1e-5)
    np.testing.assert_allclose(fingerprint(found), RECORDED_PRINT, atol=1e-5)
    try:
        import dlib
    except ImportError:
        return
    model = dlib.face_recognition_model_v1(str(DLIB_FACE_NET.path))
    np.testing.assert_allclose(found, np.array(model.compute_face_descriptor(chip)), atol=1e-5)


RECORDED = (-0.06068924, 0.12198412, 0.0717786, -0.02008959, -0.0905845, -0.02457222)
RECORDED_PRINT = (-0.030427, 0.025233, -0.057084, -0.076577, -0.084829, -0.063025, 0.050494, 0.05905)
