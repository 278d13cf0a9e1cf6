"""Recipes: values that cannot be are named, stages and ablations differ in what they say and nothing else."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from ffavatar.commands.training import TRAIN
from ffavatar.errors import InputError
from ffavatar.model import create_model
from ffavatar.train.options import parse_fields
from ffavatar.train.recipe import (
    AVATAR,
    ESTIMATOR,
    FINETUNE,
    PAPER_FINETUNE,
    PAPER_PRETRAIN,
    PRETRAIN,
    SELF_SUPERVISED,
    SMOKE,
    STAGES,
    Recipe,
    ablations,
    recipe_for,
    recipe_of,
)


def differences(first: Recipe, second: Recipe) -> set[str]:
    return {f.name for f in fields(Recipe) if getattr(first, f.name) != getattr(second, f.name)}


def test_the_first_version_of_the_weights_can_be_made_again():
    """The recipes that the shipped weights were trained with."""
    assert (ESTIMATOR.steps, ESTIMATOR.rate, ESTIMATOR.people, ESTIMATOR.views_per_person) == (5000, 8e-4, 16, 3)
    assert (AVATAR.rate, AVATAR.targets, AVATAR.label_share, AVATAR.learn) == (5e-4, 4, 0.4, "avatar")
    weights = {name: value for name, value in asdict(AVATAR).items() if name.startswith("weight_") and value}
    assert weights == {
        "weight_l1": 1.0, "weight_l2": 1.0, "weight_ssim": 0.2, "weight_lpips": 0.25, "weight_matte": 0.5,
        "weight_offset": 2.0,
    }  # fmt: skip


def test_stages_are_those_of_the_paper():
    assert (PRETRAIN.targets, FINETUNE.targets) == (8, 16)
    assert (PAPER_PRETRAIN.steps, PAPER_FINETUNE.steps) == (200_000, 20_000)
    assert FINETUNE.weight_adversarial > 0 == SELF_SUPERVISED.label_share == SELF_SUPERVISED.weight_landmark
    assert PAPER_PRETRAIN.fsdp and PAPER_PRETRAIN.precision == "bfloat16" and PAPER_PRETRAIN.checkpointing
    assert [command.__name__ for command in TRAIN] == list(STAGES)
    assert recipe_for("pretrain", "paper") == PAPER_PRETRAIN
    assert differences(recipe_for("finetune", "tiny"), FINETUNE) == {"preset"}
    for stage, preset in (("distil", "lite"), ("avatar", "paper"), ("avatar", "huge")):
        with pytest.raises(InputError, match="choose one of"):
            recipe_for(stage, preset)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0}, {"weight_l1": -1.0}, {"label_share": 1.5}, {"learn": "all"}, {"precision": "float16"},
        {"batch": 0}, {"rate": float("nan")}, {"preset": "huge"}, {"stage": "third"}, {"critic": "resnet"},
        {"clip": float("nan")}, {"clip": 0.0}, {"clip": -1.0}, {"clip": float("inf")}, {"seed": -1}, {"seed": 2**64},
        {"level": -1}, {"level": 4}, {"queries": "foo"}, {"encoder": "foo"}, {"adversarial_from": -3}, {"size": 30},
        {"ema": float("nan")},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(change):
    with pytest.raises(InputError, match=next(iter(change))):
        replace(AVATAR, **change)


def test_pictures_are_large_enough_for_their_losses():
    """SSIM's window has 11 pixels, LPIPS on AlexNet needs 31, on VGG16 16; the estimator's stage draws none."""
    bare = replace(AVATAR, weight_lpips=0.0)
    assert replace(AVATAR, size=31).size == 31 and replace(AVATAR, size=16, perceptual="vgg").size == 16
    assert replace(bare, size=11).size == 11 and replace(ESTIMATOR, size=4).size == 4
    for recipe, size in ((AVATAR, 30), (bare, 10), (replace(bare, weight_adversarial=0.1), 30)):
        with pytest.raises(InputError, match="--no-perceptual"):
            replace(recipe, size=size)


def test_conflicts_fail_early():
    with pytest.raises(InputError, match="label_share 0"):
        replace(PAPER_PRETRAIN, label_share=0.4)
    with pytest.raises(InputError, match="draws none"):
        replace(ESTIMATOR, weight_adversarial=0.1)


def test_older_recipes_are_read_and_unknown_ones_are_not():
    saved = asdict(AVATAR)
    del saved["batch"], saved["queries"]
    assert recipe_of(saved) == AVATAR
    assert recipe_of(saved | {"weight_magic": 1.0}) is None
    assert recipe_of(saved | {"steps": -1}) is None


def test_ablations_differ_in_what_they_say():
    rows = ablations(PRETRAIN, FINETUNE)
    assert rows["whole"] == (PRETRAIN, FINETUNE)
    found = {
        name: [differences(r, FINETUNE if r.targets == 16 else PRETRAIN) for r in chain] for name, chain in rows.items()
    }
    assert found["splats not turned"] == [{"rotate_covariance"}] * 2
    assert found["without pretraining"] == [set()] and rows["without pretraining"][0].targets == 16
    assert found["without multi-view fine-tuning"] == [set()] and rows["without multi-view fine-tuning"][0].targets == 8
    assert found["without adversarial loss"] == [set(), {"weight_adversarial"}]
    assert found["full queries at base vertices"][1] - found["anchored queries at base vertices"][1] == {"queries"}
    assert found["ViT features, full queries at base vertices"][1] == {"queries", "encoder", "level"}


def test_ablations_build_the_models_they_name():
    tiny = replace(SMOKE, queries="full", level=0)
    model = create_model(tiny.model_config())
    assert model.config.queries == "full" and len(model.former.queries) == len(model.head.v_template)
    assert replace(tiny, encoder="dinov2").model_config().vit == "small"
    assert replace(tiny, encoder="dinov2").model_config().image_size % 14 == 0
    assert SMOKE.model_config() == create_model("tiny").config


def test_any_field_can_be_set_from_the_command_line():
    words = ["weight_lpips=0.5", "targets=6", "checkpointing=TRUE", "queries=full", "learn=both", "encoder=none"]
    changed = replace(AVATAR, **parse_fields(AVATAR, words))
    assert (changed.weight_lpips, changed.targets, changed.checkpointing) == (0.5, 6, True)
    assert (changed.queries, changed.learn, changed.encoder) == ("full", "both", None)
    for word in ("weight_lpips", "nothing=1", "stage=avatar", "targets=many", "fsdp=2"):
        with pytest.raises(InputError, match="--set"):
            parse_fields(AVATAR, [word])
    with pytest.raises(InputError, match="use --preset tiny"):
        parse_fields(AVATAR, ["preset=tiny"])
