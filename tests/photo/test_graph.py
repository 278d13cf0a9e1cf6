"""Running a converted network: its plan against plain calls, and what must survive moving and copying it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from ffavatar.photo import records
from ffavatar.photo.graph import Graph, _paired


@pytest.mark.parametrize("size", [(2, 6, 8), (1, 5, 7)], ids=["pairs", "an odd number of pixels"])
def test_paired_pixels_are_a_convolution(size):
    generator = torch.Generator().manual_seed(0)
    batch, height, width = size
    x = torch.rand(batch, 16, height, width, generator=generator).double().contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.rand(*shape, generator=generator).double() for shape in ((8, 16), (8,)))
    expected = F.conv2d(x.contiguous(), weight[:, :, None, None], bias)
    torch.testing.assert_close(_paired(weight, bias)(x), expected, atol=1e-13, rtol=0)


def test_gradients_pass_after_a_run_without():
    network = Graph(records.LANDMARKS)
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = network(picture)[0]
    picture.requires_grad_()
    after = network(picture)[0]
    after.square().mean().backward()
    torch.testing.assert_close(after.detach(), before.clone(), atol=1e-3, rtol=1e-5)
    assert picture.grad is not None and picture.grad.abs().sum() > 0


def test_a_network_that_was_used_can_be_moved_copied_and_pickled():
    network = Graph(records.MATTE)
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(picture)[0]
        pickled = pickle.loads(pickle.dumps(network))(picture)[0]
        precise = copy.deepcopy(network).double()(picture.double())[0]
        again = network(picture)[0]
    assert torch.equal(pickled, expected) and torch.equal(again, expected)
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), expected, atol=1e-4, rtol=0)
