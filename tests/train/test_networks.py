"""A model made ready for a recipe: what learns; precision and checkpointing change no more than they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_people import made_person

from ffavatar.model import create_model
from ffavatar.model.config import PAPER, TINY
from ffavatar.train.networks import parameter_groups, prepare_model, trainable_state
from ffavatar.train.recipe import SMOKE
from ffavatar.train.sources import Example, InMemory
from ffavatar.train.stages import avatar_step, estimator_step

RECIPE = replace(SMOKE, level=0, learn="both", label_share=0.0)


def made(recipe, config=None):
    torch.manual_seed(0)
    return prepare_model(create_model(config or recipe.model_config()), recipe)


@pytest.mark.parametrize(
    ("learn", "names", "rates"),
    [("avatar", ["avatar"], [1.0]), ("estimator", ["estimator"], [1.0]), ("both", ["avatar", "estimator"], [1.0, 0.1])],
)
def test_what_learns(learn, names, rates):
    recipe = replace(RECIPE, learn=learn)
    model = made(recipe)
    groups = parameter_groups(model, recipe)
    assert [group["name"] for group in groups] == names
    assert [group["rate"] / recipe.rate for group in groups] == pytest.approx(rates)
    learned = {id(p) for group in groups for p in group["params"]}
    assert learned == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.requires_grad == ("estimator" in names) for p in model.estimator.parameters())


def test_the_frozen_encoder_stays_frozen():
    config = replace(TINY, encoder="dinov2", queries="full", vit="small", full_queries=16, image_size=56)
    model = made(RECIPE, config)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.former.parameters())


def gradients(recipe):
    model = made(recipe)
    keys = trainable_state(model).keys()
    assert keys == trainable_state(create_model("tiny")).keys()
    outcome = avatar_step(InMemory([made_person(1)]), recipe, None)(model, Example.of(0, 0))
    outcome.loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return outcome, found


@pytest.fixture(scope="module")
def plain():
    return gradients(RECIPE)


def test_checkpointing_changes_nothing(plain):
    outcome, found = gradients(replace(RECIPE, checkpointing=True))
    assert torch.equal(outcome.loss, plain[0].loss)
    assert found.keys() == plain[1].keys() and all(torch.allclose(found[n], plain[1][n], atol=1e-7) for n in found)


def test_half_precision_stays_out_of_the_geometry(plain):
    """bfloat16 has eight bits: a translation of a metre read in it would be off by millimetres."""
    outcome, found = gradients(replace(RECIPE, precision="bfloat16"))
    assert outcome.loss.dtype == torch.float32
    assert float(outcome.loss.detach()) == pytest.approx(float(plain[0].loss.detach()), rel=2e-3)
    assert (outcome.pictures.drawn - plain[0].pictures.drawn).abs().mean() < 1e-3
    name = "decoder.coarse.2.weight"  # what lies before it has no gradient yet: it starts at zero
    cosine = torch.cosine_similarity(found[name].flatten(), plain[1][name].flatten(), dim=0)
    assert 0.9 < float(cosine) < 1 - 1e-7  # it was at work


def test_the_estimators_convolutions_are_half_in_its_own_stage():
    recipe = replace(RECIPE, stage="estimator", people=1, views_per_person=2)
    losses = {}
    for precision, seen in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model, kinds = made(replace(recipe, precision=precision)), []
        model.estimator.outline.body[3].register_forward_hook(lambda m, i, o, kinds=kinds: kinds.append(o.dtype))
        model.estimator.outline.out.register_forward_hook(lambda m, i, o, kinds=kinds: kinds.append(o.dtype))
        outcome = estimator_step(InMemory([made_person(1)]), recipe)(model, Example.of(0, 0))
        outcome.loss.backward()
        assert kinds == [seen, torch.float32]
        assert model.estimator.outline.body[0].weight.grad.dtype == torch.float32
        losses[precision] = float(outcome.loss.detach())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-3)


def test_blocks_of_the_papers_estimator_are_checkpointed_and_half():
    recipe = replace(RECIPE, checkpointing=True, precision="bfloat16")
    config = replace(PAPER, vit="small", width=32, heads=2, depth=1, full_queries=16, image_size=28, surface_level=0)
    model = made(recipe, config)
    seen = []
    model.estimator.vit.blocks[3].fc1.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    tokens = model.estimator.vit(torch.rand(1, 28, 28, 3))
    assert tokens.dtype == torch.float32 and seen == [torch.bfloat16]
    tokens.sum().backward()
    assert len(seen) == 2  # once more, in the backward pass
    assert model.estimator.vit.blocks[0].fc1.weight.grad.dtype == torch.float32
