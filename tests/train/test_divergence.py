"""A run that diverges ends with a sentence: torch's own sampling at positions that are not numbers ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from ffavatar.model.reading import sample

ONE_STEP = """
import sys, torch
torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
from test_loop import RECIPES, trainer
run = trainer(replace(RECIPES["avatar"], steps=1, label_share=1.0), Path(sys.argv[1]))
with torch.no_grad():
    run.model.decoder.coarse[-1].bias[0] = torch.nan  # every point's offset
before = [p.clone() for p in run.parameters]
run.run()
assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, run.parameters))
print("skipped", run.skipped)
"""


def test_what_is_read_at_no_position_is_no_number_and_has_no_gradient():
    maps, uv = torch.rand(2, 3, 8, 8), torch.rand(2, 40, 2) * 1.4 - 0.2
    uv[0, ::7] = torch.nan
    uv[1, 3, 1] = torch.nan
    uv[1, 4] = torch.inf  # is at the edge, as ever
    lost = uv.isnan().any(-1)
    maps.requires_grad_(True)
    uv.requires_grad_(True)
    found = sample(maps, uv)
    assert torch.equal(found.isnan().all(-1), lost) and torch.equal(found.isnan().any(-1), lost)
    found.nansum().backward()  # without the guard: a segmentation fault
    assert uv.grad[~lost].isfinite().all() and not uv.grad[lost].any() and maps.grad.isfinite().all()


def test_numbers_are_read_as_torch_reads_them_to_the_bit():
    maps, uv = torch.rand(2, 3, 8, 8), torch.rand(2, 40, 2) * 1.4 - 0.2
    results = []
    for read in (sample, lambda m, at: F.grid_sample(
        m, (at * 2 - 1)[:, :, None], align_corners=False, padding_mode="border"
    )[..., 0].transpose(1, 2)):  # fmt: skip
        m, at = maps.clone().requires_grad_(True), uv.clone().requires_grad_(True)
        found = read(m, at)
        found.square().sum().backward()
        results.append((found, m.grad, at.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_a_step_with_offsets_that_are_not_numbers_is_skipped(tmp_path):
    """In a process of its own, which without the guard would die."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", ONE_STEP, str(tmp_path)], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "skipped 1" in done.stdout
