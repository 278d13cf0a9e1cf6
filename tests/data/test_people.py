"""Synthetic people and photo folders into shards, training from them, and the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ffavatar.commands import data as commands
from ffavatar.data.people import pack_synthetic, plain_reason, prepare_photos, prepare_synthetic, safe_key
from ffavatar.data.shards import ShardReader
from ffavatar.data.synthetic import SyntheticPeople, synthetic_person
from ffavatar.data.synthetic.store import PeoplePlan, write_people
from ffavatar.errors import InputError
from ffavatar.train.samples import load_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("people")
    write_people(PeoplePlan(2, 4, 96, 5, None), place, detect=True)
    return place


def test_shards_hold_what_the_folder_holds_and_training_reads_both_alike(folder: Path, tmp_path: Path) -> None:
    drawn = prepare_synthetic(tmp_path / "drawn", people=2, shots=4, size=96, seed=5)
    pack_synthetic(folder, tmp_path / "packed")
    assert drawn.manifest.samples == 2 and drawn.manifest.provenance.licence == "CC0-1.0"
    for place in ("drawn", "packed"):
        for sample, person in zip(ShardReader(tmp_path / place, shuffle=False), SyntheticPeople(folder), strict=True):
            assert np.array_equal(sample.images, person.images)
            assert np.array_equal(sample.mattes, person.mattes)
            assert np.array_equal(sample.arrays["expression"], person.params.expression.numpy())
            assert np.array_equal(sample.arrays["detected_matte"], person.detected_matte)
        for a, b in zip(load_people(tmp_path / place), load_people(folder), strict=True):
            for name in ("images", "mattes", "seen_mattes", "landmarks", "blendshapes", "outlines"):
                assert np.array_equal(getattr(a, name), getattr(b, name)), name
            assert torch.equal(a.params.root, b.params.root) and torch.equal(a.identity, b.identity)


def test_more_people_are_added_to_shards_that_are_there(tmp_path: Path) -> None:
    prepare_synthetic(tmp_path / "s", people=1, shots=1, size=32, detected=False)
    writer = prepare_synthetic(tmp_path / "s", people=2, shots=1, size=32, detected=False)
    assert ShardReader(tmp_path / "s").keys() == ["synthetic-00000000", "synthetic-00000001"]
    assert [shard.samples for shard in writer.manifest.shards] == [1, 1]
    with pytest.raises(InputError, match="other data or settings"):
        prepare_synthetic(tmp_path / "s", people=1, shots=2, size=32, detected=False)
    with pytest.raises(InputError, match="no landmarker readings"):
        load_people(tmp_path / "s")  # nothing was detected


def test_pictures_from_all_around_are_in_the_shards_and_no_other_number_of_them_is_added(tmp_path: Path) -> None:
    def prepare(place: str, **changes):
        settings = {"people": 1, "shots": 1, "size": 32, "detected": False, "around": 2} | changes
        return prepare_synthetic(tmp_path / place, **settings)

    prepare("wide")
    prepare("wide", people=2)
    samples = list(ShardReader(tmp_path / "wide", shuffle=False))
    assert [len(sample.images) for sample in samples] == [3, 3]
    assert np.array_equal(samples[1].images, synthetic_person(1, 1, 32, around=2).images)
    before = prepare("plain", around=0).manifest
    assert set(before.provenance.settings) == {"schema", "shots", "size", "detected", "artwork"}  # as ever
    assert prepare("plain", around=0, people=2).manifest.samples == 2
    for place, around in (("wide", 1), ("wide", 0), ("plain", 2)):
        with pytest.raises(InputError, match="other data or settings"):
            prepare(place, around=around, people=3)
    with pytest.raises(InputError, match="all around"):
        prepare("none", around=-1)
    assert not (tmp_path / "none").exists()


def test_photo_folders_become_people_and_reasons_are_counted(tmp_path: Path, capsys) -> None:
    photos = tmp_path / "photos"
    for name, seed in (("Anna B.", 3), ("carl", 4)):
        (photos / name).mkdir(parents=True)
        person = synthetic_person(seed, shots=1, size=320, degrade=False)
        for number in range(2):
            Image.fromarray(np.roll(person.images[0], 4 * number, 1)).save(photos / name / f"{number}.png")
    Image.new("RGB", (300, 300), "grey").save(photos / "carl" / "2.png")
    (photos / "carl" / "3.jpg").write_bytes(b"no picture")
    (photos / "empty").mkdir()
    (photos / "nobody").mkdir()
    Image.new("RGB", (300, 300), "grey").save(photos / "nobody" / "a.png")
    writer = prepare_photos(photos, tmp_path / "out", "CC0-1.0", size=128, fewest=2)
    assert writer.manifest.refused == {
        "no face was found": 2, "the file cannot be read": 1, "fewer than 2 usable photos of the person": 1
    }  # fmt: skip
    samples = {sample.key: sample for sample in ShardReader(tmp_path / "out")}
    assert set(samples) == {"Anna_B_", "carl"}
    sample = samples["carl"]
    assert sample.images.shape == (2, 128, 128, 3) and sample.notes == {"photos": ["0.png", "1.png"]}
    views = sample.views()
    assert 0.2 < float(views.mattes.mean()) < 0.9
    assert abs(float(views.landmarks[..., :2].mean()) - 0.5) < 0.1
    again = prepare_photos(photos, tmp_path / "out", "CC0-1.0", size=128, fewest=2)
    assert again.manifest == writer.manifest  # nothing is done twice

    commands.inspect(tmp_path / "out", tmp_path / "sheet.png", check=True)
    told = capsys.readouterr().out
    assert "people    2" in told and "left out  2: no face was found" in told
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 224
    (tmp_path / "out" / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="damaged in"):
        commands.inspect(tmp_path / "out", check=True)


def test_names_and_reasons_are_made_plain() -> None:
    assert safe_key("Zoë/..x") == "Zo____x" and safe_key("_a") == "p_a" and safe_key("") == "p"
    sentence = "me.png: the face is too small (20 px wide, at least 64 are needed); use a closer or larger photo."
    assert plain_reason(sentence) == "the face is too small"
    with pytest.raises(InputError, match="not a folder"):
        prepare_photos(Path("none"), Path("out"))
