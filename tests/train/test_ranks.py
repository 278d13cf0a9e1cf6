"""Several ranks: the same training as one, sharded or copied; a bad step on one is skipped by all; stop and resume."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from made_people import made_person, write_shards

from ffavatar.errors import InputError
from ffavatar.model import create_model
from ffavatar.model.weights import state_from
from ffavatar.train.discriminator import CHANNELS, ProjectedDiscriminator
from ffavatar.train.loop import Pace, Trainer, Work
from ffavatar.train.networks import prepare_model
from ffavatar.train.ranks import Ranks, joined
from ffavatar.train.recipe import SMOKE, Recipe
from ffavatar.train.sources import InMemory, Streamed
from ffavatar.train.stages import Outcome, avatar_step

RECIPE = replace(
    SMOKE, steps=4, level=0, targets=2, batch=2, learn="both", rate_estimator=0.01, weight_adversarial=0.05, rate=1e-4
)
# Relative, of losses and norms over four steps: sums over two examples are rounded in another order, and Adam's first
# steps are about as large for a gradient of rounding errors as for any other. Measured: DDP 0, FSDP2 1e-5.
TOLERANCE = 1e-4


def random_features(images: torch.Tensor) -> list[torch.Tensor]:
    """Frozen features without a file: three scales of a fixed random convolution."""
    kernel = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(3)).to(images)
    x = images.permute(0, 3, 1, 2)
    planes = []
    for _ in range(3):
        x = torch.nn.functional.avg_pool2d(x, 2)
        planes.append(torch.nn.functional.conv2d(x, kernel, padding=1).relu())
    return planes


def build(
    recipe: Recipe, folder: Path, ranks: Ranks, shards: Path | None = None, bad_slot: int | None = None
) -> Trainer:
    torch.manual_seed(recipe.seed)
    model = prepare_model(create_model(recipe.model_config()), recipe)
    critic = ProjectedDiscriminator(random_features, (8, 8, 8))
    if shards is None:
        source: InMemory | Streamed = InMemory([made_person(seed) for seed in (1, 2)])
    else:
        source = Streamed(shards, recipe.seed, ranks.slots(recipe.batch), recipe.batch)
    step = avatar_step(source, recipe, None, critic)

    def sometimes_bad(model, example):
        outcome = step(model, example)
        if bad_slot is not None and (example.step, example.slot) == (1, bad_slot):
            return Outcome(outcome.loss * math.nan, outcome.terms)
        return outcome

    return Trainer(Work(model, sometimes_bad, critic), recipe, folder, source, ranks)


def _rank(rank: int, world: int, port: int, recipe: Recipe, folder: Path, options: dict) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        run = build(recipe, folder, ranks, **options)
        run.resume()
        run.run(Pace(save_every=2))
        run.export(folder / "weights.safetensors")


def on_two_ranks(recipe: Recipe, folder: Path, **options) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (2, port, recipe, folder, options), nprocs=2)


def on_one_rank(recipe: Recipe, folder: Path, **options) -> Trainer:
    run = build(recipe, folder, Ranks(), **options)
    run.resume()
    run.run()
    return run


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same(first: Path, second: Path) -> None:
    for one, two in zip(rows(first), rows(second), strict=True):
        for name in ("loss", "l1", "critic", "adversarial"):
            assert one[name] == pytest.approx(two[name], rel=TOLERANCE), (one["step"], name)


def test_slots_are_dealt_evenly():
    assert [Ranks(rank, 2).slots(6) for rank in (0, 1)] == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(InputError, match="cannot be divided"):
        Ranks(0, 2).slots(3)


def test_no_cuda_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA"), joined("cuda"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_ranks_are_one_with_twice_the_batch(tmp_path, fsdp):
    """DDP and FSDP2, with the discriminator; the checkpoint of two ranks goes on with one."""
    one = on_one_rank(RECIPE, tmp_path / "one")
    recipe = replace(RECIPE, fsdp=fsdp)
    on_two_ranks(recipe, tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "two")
    saved = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert saved["step"] == RECIPE.steps and saved["skipped"] == 0
    for name, value in one.mean.items():
        assert type(saved["mean"][name]) is torch.Tensor
        assert torch.allclose(saved["mean"][name], value, atol=5 * RECIPE.rate), name

    saved["recipe"] |= {"steps": RECIPE.steps + 1, "fsdp": False}
    torch.save(saved, tmp_path / "two" / "checkpoint.pt")
    longer = replace(RECIPE, steps=RECIPE.steps + 1)
    on_one_rank(longer, tmp_path / "two")
    last = rows(tmp_path / "two")[-1]
    assert last["step"] == longer.steps and last["norm"] > 0


@pytest.mark.slow
def test_two_ranks_stream_what_one_streams(tmp_path):
    shards = write_shards(tmp_path / "shards", [1, 2, 3])
    recipe = replace(RECIPE, stream=True, steps=4)
    on_one_rank(recipe, tmp_path / "one", shards=shards)
    on_two_ranks(recipe, tmp_path / "two", shards=shards)
    assert_same(tmp_path / "one", tmp_path / "two")
    states = [torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["source"] for n in ("one", "two")]
    assert states[0] == states[1] and set(states[0]) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_a_bad_step_on_one_rank_is_skipped_by_all(tmp_path, fsdp):
    recipe = replace(RECIPE, fsdp=fsdp, steps=3)
    on_two_ranks(recipe, tmp_path / "two", bad_slot=1)
    on_one_rank(recipe, tmp_path / "one", bad_slot=1)
    found = rows(tmp_path / "two")
    assert [row["skipped"] for row in found] == [0, 1, 1]
    assert found[1]["loss"] is None and math.isfinite(found[2]["loss"])
    assert found[2]["loss"] == pytest.approx(rows(tmp_path / "one")[2]["loss"], rel=TOLERANCE)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from dataclasses import replace
from ffavatar.train.loop import Pace
from ffavatar.train.recipe import SMOKE
from ffavatar.train.run import train
recipe = replace(SMOKE, steps=8, level=0, stream=True, batch=2)
train(recipe, Path(sys.argv[1]), Path(sys.argv[2]), device="cpu", pace=Pace(save_every=2))
"""


def _start(shards: Path, out: Path, ranks: int = 1) -> subprocess.Popen:
    script = out.parent / "run.py"
    script.write_text(SCRIPT)
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.Popen([*launch, str(script), str(shards), str(out)], start_new_session=True)


def _wait_for_steps(out: Path, steps: int, process: subprocess.Popen) -> None:
    """Until the checkpoint, which is there with the log's rows, is past so many steps."""
    end = time.monotonic() + 600
    while time.monotonic() < end and process.poll() is None:
        if (out / "log.jsonl").exists() and len((out / "log.jsonl").read_text().splitlines()) >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"not at step {steps} in time")


@pytest.mark.slow
def test_killed_at_any_step_the_curve_is_the_uninterrupted_one(tmp_path):
    """SIGKILL, three times in one run, of a stream in the middle of its epochs: bit for bit on the CPU."""
    shards = write_shards(tmp_path / "shards", [1, 2, 3])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, killed = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert _start(shards, whole).wait(600) == 0
    for steps in (1, 3, 6):
        process = _start(shards, killed)
        _wait_for_steps(killed, steps, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "weights.safetensors").exists()
    assert _start(shards, killed).wait(600) == 0
    assert rows(killed) == rows(whole)
    made, expected = (state_from(folder / "weights.safetensors") for folder in (killed, whole))
    assert made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in made)
    # a kill in the middle of writing leaves the temporary file, which begins with a dot
    kept = [sorted(p.name for p in folder.iterdir() if p.name[0] != ".") for folder in (killed, whole)]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_torchrun_is_stopped_cleanly_and_goes_on(tmp_path):
    """SIGTERM to torchrun, as a cluster sends it: both ranks end after the same step, with a checkpoint."""
    shards = write_shards(tmp_path / "shards", [1, 2, 3])
    out = tmp_path / "run"
    process = _start(shards, out, ranks=2)
    _wait_for_steps(out, 2, process)
    process.terminate()
    assert process.wait(120) != 0
    stopped = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert 2 <= stopped == len(rows(out)) < 8
    assert _start(shards, out, ranks=2).wait(600) == 0
    assert [row["step"] for row in rows(out)] == list(range(1, 9))


def test_published_features_have_these_channels():
    from ffavatar.evaluate.lpips import LPIPS

    for net, channels in CHANNELS.items():
        planes = LPIPS(net).features(torch.rand(1, 64, 64, 3))
        assert tuple(plane.shape[1] for plane in planes) == channels
