"""The projected discriminator and its augmentation, against what their formulas say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ffavatar.train.augment import BRIGHTNESS, augment
from ffavatar.train.discriminator import ProjectedDiscriminator, _Scaled, adversarial_losses


def planes(images):
    x = images.permute(0, 3, 1, 2)
    return [nn.functional.avg_pool2d(x, 2), nn.functional.avg_pool2d(x, 4).square()]


@pytest.fixture
def critic():
    torch.manual_seed(0)
    return ProjectedDiscriminator(planes, (3, 3))


def some_pictures(count=2, size=32, seed=0):
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


def test_one_map_of_logits_per_scale(critic):
    logits = critic(some_pictures(3))
    assert sorted(tuple(x.shape) for x in logits) == [(3, 4 * 4), (3, 8 * 8)]
    assert not any("features" in name for name in critic.state_dict())


def test_a_picture_is_judged_by_itself(critic):
    both = some_pictures(2)
    for together, alone in zip(critic(both), critic(both[1:])):
        assert torch.allclose(together[1:], alone, atol=1e-5)


def test_spectral_norm_is_near_one():
    """Three steps of power iteration never overstate the largest singular value, and find most of it."""
    torch.manual_seed(1)
    layer = _Scaled(16, 16, 3)
    layer.bias.data.zero_()
    matrix = layer.weight.detach().flatten(1).double()
    largest = torch.linalg.matrix_norm(matrix, 2)
    x = torch.zeros(1, 16, 3, 3)
    scaled = []
    for channel in range(16):  # the response to a unit impulse is a column of the kernel
        x.zero_()
        x[0, channel, 1, 1] = 1
        scaled.append(layer(x).detach().double())
    response = torch.cat(scaled)  # (in, out, 3, 3), kernel mirrored
    ratio = response.square().sum().sqrt() / matrix.square().sum().sqrt() * largest
    assert 1 - 1e-5 <= float(ratio) < 1.15


def test_each_loss_reaches_its_own_network_alone(critic):
    seen, goal = some_pictures(seed=1).requires_grad_(), some_pictures(seed=2)
    fooled, judged = adversarial_losses(critic, seen, goal, 5)
    weights = [p for p in critic.parameters() if p.requires_grad]
    assert weights and len(weights) < len(list(critic.parameters()))  # the projections are fixed
    assert all(g is None for g in torch.autograd.grad(fooled, weights, retain_graph=True, allow_unused=True))
    assert torch.autograd.grad(judged, seen, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(fooled, seen, retain_graph=True)[0].abs().max() > 0
    kernels = [p for p in weights if p.dim() > 1]  # an offset common to real and drawn ones cancels at first
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(judged, kernels))


def test_losses_are_hinges_of_the_logits(critic):
    critic.requires_grad_(False)
    seen, goal = some_pictures(seed=1), some_pictures(seed=2)
    fooled, judged = adversarial_losses(critic, seen, goal, 5)
    fake, real = critic(augment(seen, 5)), critic(augment(goal, 6))
    again = critic(augment(seen, 7))
    assert float(fooled) == pytest.approx(-sum(float(x.mean()) for x in fake) / 2, rel=1e-5)
    expected = [(1 - r).clamp_min(0).mean() + (1 + f).clamp_min(0).mean() for r, f in zip(real, again)]
    assert float(judged) == pytest.approx(float(sum(expected)) / 2, rel=1e-5)


def test_it_learns_to_tell_and_the_gradient_fools_it(critic):
    """Upright stripes against lying ones: the critic's loss falls, and a step along the pictures' gradient raises its
    verdict of them."""
    stripes = (torch.arange(32) // 4 % 2).float()
    real = stripes[None, :, None, None].expand(4, 32, 32, 3)
    drawn = real.transpose(1, 2).clone()
    optimiser = torch.optim.Adam([p for p in critic.parameters() if p.requires_grad], 2e-3, betas=(0.0, 0.99))
    judged = []
    for step in range(30):
        _, loss = adversarial_losses(critic, drawn, real, 3 * step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        judged.append(float(loss.detach()))
    assert sum(judged[-5:]) < 0.8 * sum(judged[:5])
    drawn.requires_grad_()
    fooled, _ = adversarial_losses(critic, drawn, real, 1000)
    (gradient,) = torch.autograd.grad(fooled, drawn)
    nearer = drawn.detach() - 0.01 * gradient / gradient.abs().max()
    better, _ = adversarial_losses(critic, nearer, real, 1000)
    assert better < fooled


def test_augmentation_is_drawn_by_its_seed():
    pictures = some_pictures(3)
    assert torch.equal(augment(pictures, 4), augment(pictures, 4))
    assert not torch.equal(augment(pictures, 4), augment(pictures, 5))
    same = pictures[:1].expand(2, -1, -1, -1)
    assert not torch.equal(*augment(same, 4))  # each picture in its own way


def test_augmentation_leaves_a_hole_and_moves_what_it_keeps():
    """A grey picture with one dark pixel: outside the hole and the rim that was shifted in, one shade; white there."""
    picture = torch.full((1, 32, 32, 3), 0.5)
    for seed in range(20):
        made = augment(picture, seed)[0]
        white = (made == 1).all(-1)
        assert 0.06 <= white.float().mean() <= 0.55
        rest = made[~white]
        assert rest.std() < 1e-6
        assert abs(float(rest.mean()) - 0.5) <= BRIGHTNESS + 1e-6


def test_augmentation_is_differentiable():
    pictures = some_pictures(1, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, 2), pictures)
