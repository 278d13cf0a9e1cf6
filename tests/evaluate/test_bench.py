"""synthetic-bench as cases, and its scores by group."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ffavatar.data.synthetic.bench import Labels, write_bench
from ffavatar.data.synthetic.store import RESERVED
from ffavatar.errors import InputError
from ffavatar.evaluate.bench import bench_clips, bench_views, split_scores, split_table
from ffavatar.evaluate.methods import Task, avatar_methods
from ffavatar.evaluate.metrics import psnr
from ffavatar.evaluate.protocol import ClipResult, Run
from ffavatar.evaluate.rules import Case, cases, check_rules, read_rules
from ffavatar.geometry import normalised_camera, project
from ffavatar.head import load_head
from ffavatar.model import create_model

sys.path.insert(0, str(Path(__file__).parent.parent))

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("bench")
    write_bench(place, 1, SIZE)
    return place


def run_of(folder: Path, name: str) -> Run:
    from dataclasses import replace

    return Run(folder / "out", folder / "cache", replace(read_rules(name), size=SIZE))


def case_of(folder: Path, run: Run) -> Case:
    (case,) = cases(bench_clips(folder, run.rules), run.rules)
    return case


def test_all_targets_with_true_labels_and_those_near_the_front_as_photos(folder: Path) -> None:
    run = run_of(folder, "synthetic-bench")
    case = case_of(folder, run)
    assert case.source.source_frames == tuple(range(8)) and case.target.target_frames == tuple(range(8, 32))
    views = bench_views(case, None, run)
    assert len(views.target.views) == 24 and views.truth is not None and len(views.truth.target) == 24
    assert len(views.truth.source) == len(views.source.views)
    # The truth is what the pictures show: the head model with it projects to the targets' landmarks.
    head, truth = load_head(), views.truth
    vertices, joints = head.neutral(truth.identity[None])
    posed = head.pose(vertices.expand(24, -1, -1), joints.expand(24, -1, -1), truth.target).vertices
    pixels, _ = project(head.landmarks(posed), normalised_camera(1, 24))
    np.testing.assert_allclose(pixels.numpy(), views.target.views.landmarks[..., :2].numpy(), atol=2e-5)

    driven = run_of(folder, "synthetic-bench-driven")
    near = bench_views(case_of(folder, driven), None, driven)
    assert 1 <= len(near.target.views) <= 10
    with np.load(next(folder.glob("person_*.npz"))) as file:
        rows = list(near.target.frames)
        assert file["detected"][rows].all() and np.abs(file["yaw_deg"][rows]).max() <= 60
        seen = torch.from_numpy(file["detected_matte"][rows]).float() / 255
        assert torch.equal(near.target.views.mattes, seen)
    assert near.key != views.key


def test_the_method_true_shows_the_person_where_it_is(folder: Path) -> None:
    """An untrained net with the true parameters already stands where the target does; without them it is refused."""
    run = run_of(folder, "synthetic-bench")
    views = bench_views(case_of(folder, run), None, run)
    true = next(m for m in avatar_methods(create_model("lite").eval(), "none", 0) if m.name == "true")
    source = views.source.first(4)
    task = Task("person", 4, source.views, views.target, views.frame_size, None, views.truth)
    shown = true.run(task)
    wanted = views.target.views.on_white()
    assert shown.images.shape == wanted.shape and shown.landmarks is not None
    error = (shown.landmarks - views.target.views.landmarks[..., :2]).norm(dim=-1)
    assert float(error.max()) < 1e-3
    white = psnr(torch.ones_like(wanted), wanted).mean()
    assert psnr(shown.images, wanted).mean() > white + 3
    with pytest.raises(InputError, match="exact labels"):
        true.run(Task("person", 4, source.views, views.target, views.frame_size))


def test_what_is_no_bench_is_refused(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    rules = read_rules("synthetic-bench")
    with pytest.raises(InputError, match="no synthetic-bench"):
        bench_clips(tmp_path, rules)
    (tmp_path / "bench.json").write_text((folder / "bench.json").read_text())
    with pytest.raises(InputError, match="holds no people"):
        bench_clips(tmp_path, rules)
    (tmp_path / "person_09000000.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read"):
        bench_clips(tmp_path, rules)
    run = Run(tmp_path, tmp_path, rules)  # 512 px
    with pytest.raises(InputError, match=f"give --size {SIZE}"):
        bench_views(case_of(folder, run_of(folder, "synthetic-bench")), None, run)
    with pytest.raises(InputError, match="knows the methods"):
        check_rules(replace(rules, methods=("placed",)))
    with pytest.raises(InputError, match="needs exact labels"):
        check_rules(replace(read_rules("self"), methods=("true",)))


def result(seed: int, method: str, values: list[float]) -> ClipResult:
    scores = {"psnr": list(values)}
    return ClipResult(f"person-{seed}", f"person-{seed}", method, 4, 64, "synthetic-bench 1", scores, {}, (), "k")


def test_scores_are_split_by_who_people_are() -> None:
    a, b, c = RESERVED[:3]
    labels = {
        a: Labels("light", "young", "male", "short", "none", "beard"),
        b: Labels("dark", "young", "female", "long", "none", "none"),
        c: Labels("light", "old", "female", "long", "clear", "none"),
    }
    results = [result(a, "true", [20.0, 22.0]), result(b, "true", [24.0]), result(c, "true", [25.0])]
    rows = split_scores(results, labels, ("psnr",))
    mean = {(row["label"], row["group"]): (row["people"], row["psnr"]) for row in rows}
    assert mean["skin", "light"] == (2, 23.0) and mean["skin", "dark"] == (1, 24.0)
    assert mean["age", "young"] == (2, 22.5) and mean["sex", "female"] == (2, 24.5)
    table = split_table(rows, ("psnr",))
    assert "| skin | light | 2 | 4 | true | 23.00 [21.00, 25.00] |" in table
    assert "| skin | dark | 1 | 4 | true | 24.00 |" in table  # one person: no interval
    with pytest.raises(InputError, match="not of synthetic-bench"):
        split_scores([result(1, "true", [1.0])], labels)
