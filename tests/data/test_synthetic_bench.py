"""synthetic-bench: pinned, nested, all around, and never trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ffavatar.data.people import pack_synthetic, prepare_synthetic
from ffavatar.data.shards import PersonSample, Provenance, ShardWriter
from ffavatar.data.synthetic import PeoplePlan, write_people
from ffavatar.data.synthetic.bench import (
    DIGEST,
    PEOPLE,
    SOURCES,
    TARGETS,
    bench_person,
    bench_shots,
    labels_of,
    plan_digest,
    read_sheet,
    target_yaws_deg,
    write_bench,
)
from ffavatar.data.synthetic.body import load_body
from ffavatar.data.synthetic.store import RESERVED, SyntheticPeople, refuse_reserved, write_npz
from ffavatar.errors import InputError
from ffavatar.geometry import axis_angle_to_matrix
from ffavatar.train.samples import load_people


def test_the_people_and_shots_are_those_that_were_pinned():
    assert plan_digest() == DIGEST, "a change of who or what the bench shows needs a new VERSION and DIGEST"
    assert PEOPLE == 64 and len(SOURCES) == 8 and TARGETS == 24 and len(RESERVED) >= PEOPLE


def test_targets_go_all_around_and_sources_are_the_same_however_many():
    body = load_body()
    person = bench_person(RESERVED[3], body.identities, None)
    shots, yaws = bench_shots(person, body.expressions, None)
    assert len(shots) == 32 and person.light_fixed
    turns = torch.tensor(np.stack([[s.root, s.neck] for s in shots]))
    head = (axis_angle_to_matrix(turns[:, 0]) @ axis_angle_to_matrix(turns[:, 1])).numpy()
    seen = np.degrees(np.arctan2(head[:, 0, 2], head[:, 2, 2]))
    assert np.abs((seen - yaws + 180) % 360 - 180).max() < 8  # nods and tilts move the axis a little
    targets = np.sort(seen[8:])
    assert np.diff(targets).max() < 30 and targets[0] < -160 and targets[-1] > 160
    assert (np.abs(target_yaws_deg()) <= 60).sum() == 8
    assert abs(seen[0]) < 6 and np.sign(seen[1]) != np.sign(seen[2])  # one view is frontal, two and three both sides
    assert len({s.mood for s in shots[8:]}) >= 10
    for shot in shots:
        assert (shot.noise, shot.blur_px, shot.jpeg_quality, shot.exposure) == (0, 0, 100, shots[0].exposure)


def test_the_labels_split_the_people_into_groups():
    body = load_body()
    labels = [labels_of(bench_person(seed, body.identities, None)) for seed in RESERVED[:PEOPLE]]
    for name in ("skin", "age", "sex", "hair", "glasses", "beard"):
        assert len({getattr(row, name) for row in labels}) >= 2, name
    assert {row.skin for row in labels} == {"light", "intermediate", "brown", "dark"}


def test_the_bench_can_be_no_training_data(tmp_path: Path):
    """Neither door to a training folder makes it, and training reads none that was made elsewhere."""
    seed = RESERVED.start
    for first, people in ((seed, 1), (seed - 1, 2), (RESERVED.stop - 1, 3)):
        with pytest.raises(InputError, match="reserved for synthetic-bench"):
            write_people(PeoplePlan(people, 1, 32, first, None), tmp_path / "p")
        with pytest.raises(InputError, match="reserved for synthetic-bench"):
            prepare_synthetic(tmp_path / "s", people, 1, 32, first)
    assert not (tmp_path / "p").exists() and not (tmp_path / "s").exists()
    refuse_reserved([0, seed - 1, RESERVED.stop], "nothing")

    bench = tmp_path / "bench"
    write_bench_of_noise(bench, seed)
    with pytest.raises(InputError, match="reserved for synthetic-bench"):
        load_people(bench)
    with pytest.raises(InputError, match="reserved for synthetic-bench"):
        pack_synthetic(bench, tmp_path / "packed")
    person = SyntheticPeople(bench)[0]
    arrays = {name: value for name, value in person.arrays().items() if name not in ("images", "mattes", "seed")}
    arrays["landmarks"] = arrays.pop("detected_landmarks")
    sample = PersonSample(
        f"synthetic-{seed:08d}", person.images, person.mattes, np.ones(person.mattes.shape, bool), arrays,
        ("identity",), {"seed": seed},
    )  # fmt: skip
    with ShardWriter(tmp_path / "shards", Provenance("synthetic", "test", "CC0-1.0", {}), "png") as writer:
        writer.add(sample)
    with pytest.raises(InputError, match="reserved for synthetic-bench"):
        load_people(tmp_path / "shards")


def write_bench_of_noise(folder: Path, seed: int) -> None:
    """A person's file without anybody drawn."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), 4
    body = load_body()
    arrays = {name: np.zeros((rows, 3), np.float32)
              for name in ("root", "translation", "neck", "jaw", "eye_left", "eye_right")}  # fmt: skip
    arrays |= {
        "expression": np.zeros((rows, len(body.expressions)), np.float32),
        "identity": np.zeros(body.identities, np.float32),
        "images": rng.integers(0, 255, (rows, 32, 32, 3), dtype=np.uint8),
        "mattes": np.full((rows, 32, 32), 255, np.uint8), "detected_matte": np.full((rows, 32, 32), 255, np.uint8),
        "landmarks": np.full((rows, 478, 3), 0.5, np.float32), "blendshapes": np.zeros((rows, 52), np.float32),
        "detected_landmarks": np.full((rows, 478, 3), 0.5, np.float32), "detected": np.ones(rows, bool),
        "seed": np.array(seed, np.int64),
    }  # fmt: skip
    write_npz(folder / f"person_{seed:08d}.npz", arrays)


@pytest.mark.slow
def test_a_bench_folder_is_made_continued_and_refused(tmp_path: Path):
    with pytest.raises(InputError, match="64 people"):
        write_bench(tmp_path / "b", 65)
    with pytest.raises(InputError, match="prepare synthetic-bench"):
        read_sheet(tmp_path)
    assert write_bench(tmp_path / "b", 1, 48) == 1
    assert write_bench(tmp_path / "b", 1, 48) == 0
    labels, size = read_sheet(tmp_path / "b")
    assert size == 48 and list(labels) == list(RESERVED[:PEOPLE])
    person = SyntheticPeople(tmp_path / "b")[0]
    assert len(person) == 32 and person.seed == RESERVED.start and person.detected is not None
    with pytest.raises(InputError, match="another version, size or artwork"):
        write_bench(tmp_path / "b", 1, 64)
