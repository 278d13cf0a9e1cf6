"""Stage 1 without labels: from a perturbed start, pictures and mattes alone bring the estimator's poses back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_people import made_person

from ffavatar.model import create_model
from ffavatar.train.loop import Trainer, Work
from ffavatar.train.losses import rotation_error
from ffavatar.train.networks import prepare_model
from ffavatar.train.recipe import SELF_SUPERVISED
from ffavatar.train.sources import InMemory
from ffavatar.train.stages import avatar_step

SEEDS = (1, 2, 3)
STEPS = 30


@torch.no_grad()
def rotation_errors(model) -> tuple[float, float]:
    """Mean error of torso and of neck, radians, over all views; the labels are looked at here alone."""
    root, neck = [], []
    for seed in SEEDS:
        true = made_person(seed).params
        found = model.estimator(made_person(seed, labelled=False).views(np.arange(len(true)))).params
        root.append(rotation_error(found.root, true.root))
        neck.append(rotation_error(found.neck, true.neck))
    return float(torch.cat(root).mean()), float(torch.cat(neck).mean())


def perturb(model) -> None:
    """Torso and neck off by about 20 degrees, in part common to all views and in part each view's own."""
    last = model.estimator.net[-1]
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        last.weight[:9].normal_(0, 0.05, generator=random)
        last.bias[:3] = torch.tensor([0.2, -0.2, 0.2])
        last.bias[6:9] = torch.tensor([-0.2, 0.2, -0.2])


@pytest.mark.slow
def test_poses_come_back_from_pictures_and_mattes_alone(tmp_path):
    """Landmarks hardly tell torso from neck: the perturbed split persists in the fit. No label takes part: the people
    have none, and the weights of all losses on labels and of the offsets are zero.

    Measured: from 0.46 and 0.45 rad to 0.35 in 30 steps (unperturbed and untrained: 0.23).
    """
    recipe = replace(
        SELF_SUPERVISED, preset="tiny", steps=2 * STEPS, size=64, level=0, max_sources=2, targets=3, rate=3e-5, warmup=5
    )
    assert recipe.weight_landmark == recipe.weight_params == recipe.label_share == recipe.weight_lpips == 0
    torch.manual_seed(0)
    model = create_model("tiny")
    perturb(model)
    prepare_model(model, recipe)
    people = [made_person(seed, labelled=False) for seed in SEEDS]
    assert not any(person.labelled or person.exact_landmarks is not None for person in people)
    run = Trainer(Work(model, avatar_step(InMemory(people), recipe, None)), recipe, tmp_path)
    before = rotation_errors(model)
    avatar = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    for _ in range(STEPS):
        run.advance()
    after = rotation_errors(model)
    assert run.skipped == 0
    assert min(before) > 0.4
    assert after[0] < 0.88 * before[0] and after[1] < 0.88 * before[1]
    assert all(torch.equal(avatar[name], value) for name, value in model.decoder.state_dict().items())
