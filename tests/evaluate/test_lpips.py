"""LPIPS against an independent float64 computation, as a loss, and its unpickler; the real weights under `slow`,
against what the authors' code gave."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
import torch
from made_views import painted
from numpy.lib.stride_tricks import sliding_window_view

from ffavatar.errors import InputError
from ffavatar.evaluate.lpips import LPIPS, load_lpips, read_array_pickle


def reference_alex(model: LPIPS, first: np.ndarray, second: np.ndarray) -> float:
    """Zhang et al.'s formula on AlexNet in float64 numpy. Pictures (H, W, 3) in [0, 1]."""
    weights = [p.detach().double().numpy() for p in model.stages.parameters()]
    strides, paddings = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)

    def features(picture: np.ndarray) -> list[np.ndarray]:
        x = (2 * picture - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x = x.transpose(2, 0, 1)
        planes = []
        for layer in range(5):
            if layer in (1, 2):
                x = sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4))
            kernel, bias, pad = weights[2 * layer], weights[2 * layer + 1], paddings[layer]
            x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
            windows = sliding_window_view(x, kernel.shape[2:], (1, 2))[:, :: strides[layer], :: strides[layer]]
            x = np.maximum(np.einsum("chwij,ocij->ohw", windows, kernel) + bias[:, None, None], 0)
            planes.append(x / (np.sqrt((x**2).sum(0)) + 1e-10))
        return planes

    total = 0.0
    for a, b, linear in zip(features(first), features(second), model.linear):
        total += np.einsum("chw,c->hw", (a - b) ** 2, linear.double().numpy()).mean()
    return float(total)


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    torch.manual_seed(0)
    return LPIPS("alex")


def test_agrees_with_a_float64_computation(alex: LPIPS) -> None:
    first, second = painted(1, 67), painted(2, 67)
    expected = reference_alex(alex, first.double().numpy(), second.double().numpy())
    assert float(alex(first[None], second[None])) == pytest.approx(expected, rel=1e-4)


def reference_vgg(model: LPIPS, first: np.ndarray, second: np.ndarray) -> float:
    """The same formula on VGG16: thirteen 3 x 3 convolutions, features after the 2nd, 4th, 7th, 10th and 13th."""
    weights = [p.detach().double().numpy() for p in model.stages.parameters()]

    def features(picture: np.ndarray) -> list[np.ndarray]:
        x = (2 * picture - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x = x.transpose(2, 0, 1)
        planes = []
        for layer in range(13):
            if layer in (2, 4, 7, 10):
                x = sliding_window_view(x, (2, 2), (1, 2))[:, ::2, ::2].max((3, 4))
            kernel, bias = weights[2 * layer], weights[2 * layer + 1]
            windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
            rows = windows.transpose(1, 2, 0, 3, 4).reshape(x.shape[1] * x.shape[2], -1)
            moved = rows @ kernel.reshape(len(kernel), -1).T + bias
            x = np.maximum(moved.T.reshape(-1, *x.shape[1:]), 0)
            if layer in (1, 3, 6, 9, 12):
                planes.append(x / (np.sqrt((x**2).sum(0)) + 1e-10))
        return planes

    total = 0.0
    for a, b, linear in zip(features(first), features(second), model.linear, strict=True):
        total += np.einsum("chw,c->hw", (a - b) ** 2, linear.double().numpy()).mean()
    return float(total)


def test_vgg_agrees_with_a_float64_computation() -> None:
    torch.manual_seed(2)
    model = LPIPS("vgg")
    first, second = painted(3, 34), painted(4, 34)
    expected = reference_vgg(model, first.double().numpy(), second.double().numpy())
    assert float(model(first[None], second[None])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_zero_on_equal_symmetric_and_batched(net) -> None:
    torch.manual_seed(1)
    model = LPIPS(net)
    first, second = (torch.stack([painted(seed), painted(seed + 1)]) for seed in (3, 7))
    assert model(first, first).tolist() == [0, 0]
    torch.testing.assert_close(model(first, second), model(second, first))
    single = torch.cat([model(first[i : i + 1], second[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(model(first, second), single, rtol=1e-4, atol=1e-6)


def test_pixels_outside_the_mask_do_not_matter(alex: LPIPS) -> None:
    first, second = painted(1)[None], painted(2)[None]
    valid = torch.ones(1, 64, 64)
    valid[:, 40:] = 0
    changed = second.clone()
    changed[:, 40:] = 0.2
    assert torch.equal(alex(first, second, valid), alex(first, changed, valid))
    torch.testing.assert_close(alex(first, second, torch.ones(1, 64, 64)), alex(first, second))


def test_as_a_loss_it_pulls_the_picture_to_the_target(alex: LPIPS) -> None:
    target = alex.prepare(painted(5)[None])
    assert not any(feature.requires_grad for feature in target)
    picture = painted(6)[None].requires_grad_(True)
    optimiser = torch.optim.Adam([picture], lr=0.01)
    losses = []
    for _ in range(12):
        loss = alex.distance(alex.features(picture), target).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert not any(parameter.requires_grad for parameter in alex.parameters())


def test_gradient_stays_finite_on_flat_pictures(alex: LPIPS) -> None:
    white = torch.ones(1, 64, 64, 3, requires_grad=True)
    alex(white, torch.ones(1, 64, 64, 3)).sum().backward()
    assert white.grad is not None and torch.isfinite(white.grad).all()


def test_refuses_wrong_pictures(alex: LPIPS) -> None:
    good = painted(1)[None]
    with pytest.raises(ValueError, match="must lie in"):
        alex(good * 2 - 1, good)
    with pytest.raises(ValueError, match="at least 31 px"):
        alex(good[:, :20], good[:, :20])


class Malicious:
    def __reduce__(self):
        return os.system, ("echo unpickled",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Malicious()), pickle.dumps([1]), b"", b"\x80\x04broken", pickle.dumps({"a": print})]
)
def test_unpickler_makes_arrays_and_nothing_else(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        read_array_pickle(io.BytesIO(content))
    assert "unpickled" not in capfd.readouterr().out


def test_unpickler_reads_nested_arrays() -> None:
    tree = {"layer": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    read = read_array_pickle(io.BytesIO(pickle.dumps(tree)))
    np.testing.assert_array_equal(read["layer"]["kernel"], tree["layer"]["kernel"])


def test_a_file_with_missing_or_misshaped_layers_is_refused(tmp_path) -> None:
    for index, tree in enumerate(({}, {"AlexNet_0": {"Conv_0": {"kernel": np.zeros((2, 2, 3, 64)), "bias": 0}}})):
        file = tmp_path / f"{index}.ckpt"
        file.write_bytes(pickle.dumps(tree))
        with pytest.raises(InputError, match="lacks or misshapes"):
            load_lpips("alex", path=file)
    with pytest.raises(InputError, match="no LPIPS net"):
        load_lpips("squeeze")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_published_weights_order_distortions(net) -> None:
    """More noise and more blur are further away; the linear layers are the authors' non-negative ones."""
    model = load_lpips(net)
    assert all(float(weight.min()) >= 0 for weight in model.linear)
    picture = painted(9, 128)[None]
    random = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    distances = [float(model(picture, (picture + s * random).clamp(0, 1))) for s in (0, 0.02, 0.1, 0.3)]
    assert distances[0] == 0
    assert distances == sorted(distances) and distances[-1] > 0.3
    noisy = (picture + 0.3 * random).clamp(0, 1)
    torch.testing.assert_close(model(picture, noisy), model(noisy, picture))


# What the authors' own code (lpips 0.1.4, v0.1 linear layers) gives for three pairs of ``painted`` pictures of 64 px.
AUTHORS = {
    "alex": {(1, 2): 0.384751, (3, 4): 0.351064, (9, 5): 0.259265},
    "vgg": {(1, 2): 0.714098, (3, 4): 0.606334, (9, 5): 0.525157},
}


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_published_weights_give_the_authors_distances(net) -> None:
    model = load_lpips(net)
    found = {pair: float(model(*(painted(seed)[None] for seed in pair))) for pair in AUTHORS[net]}
    assert found == pytest.approx(AUTHORS[net], abs=5e-6)
