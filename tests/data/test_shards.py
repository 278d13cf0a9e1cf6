"""Shards: bytes that WebDataset's rule reads, stops at any moment, damage, exact order, split and resumption."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_samples import made_sample, same
from PIL import Image

from ffavatar.data.shards import PersonSample, Provenance, ShardReader, ShardWriter, read_manifest
from ffavatar.data.shards.format import decode, encode
from ffavatar.errors import InputError

MADE = Provenance("test", "made up", "CC0-1.0", {"size": 16})


def write(folder: Path, numbers, shard_bytes: int = 50_000) -> ShardWriter:
    with ShardWriter(folder, MADE, shard_bytes=shard_bytes) as writer:
        for number in numbers:
            writer.add(made_sample(number))
    return writer


def test_a_sample_comes_back_to_the_bit_and_the_same_sample_is_the_same_bytes() -> None:
    for number in range(3):
        sample = made_sample(number)
        assert same(decode(encode(sample)), sample)
        assert encode(sample) == encode(made_sample(number))
    jpeg = decode(encode(made_sample(1), "jpeg"))
    assert jpeg.images.shape == (3, 16, 16, 3) and np.array_equal(jpeg.mattes, made_sample(1).mattes)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the package leaves its file open
def test_webdatasets_rule_reads_the_tar(tmp_path: Path) -> None:
    """By the published rule (members with one name up to the first dot, side by side, are one sample), with tarfile
    alone; with the package itself where it is installed."""
    write(tmp_path, range(2), 10**9)
    shard = tmp_path / "shard-000000.tar"
    groups: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _dot, suffix = member.name.partition(".")
            if key not in groups:
                groups[key] = {}
            assert key == list(groups)[-1], "a sample's members must lie side by side"
            groups[key][suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert list(groups) == ["p0000", "p0001"]
    picture = np.array(Image.open(io.BytesIO(groups["p0001"]["002.png"])))
    assert np.array_equal(picture, made_sample(1).images[2])
    assert json.loads(groups["p0000"]["json"])["views"] == 3
    assert np.array_equal(np.load(io.BytesIO(groups["p0000"]["npz"]))["identity"], made_sample(0).arrays["identity"])
    assert "000.valid.png" in groups["p0001"] and "000.valid.png" not in groups["p0000"]
    try:
        import webdataset
    except ImportError:
        return
    rows = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [row["__key__"] for row in rows] == ["p0000", "p0001"] and rows[1]["002.png"] == groups["p0001"]["002.png"]


def test_manifest_counts_and_hashes(tmp_path: Path) -> None:
    write(tmp_path, range(7))
    manifest = read_manifest(tmp_path)
    assert manifest.samples == 7 and manifest.views == 21 and len(manifest.shards) > 1
    assert manifest.provenance == MADE
    for shard in manifest.shards:
        data = (tmp_path / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
        assert len(data) % tarfile.RECORDSIZE == 0
    assert ShardReader(tmp_path).verify() == []
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_stopped_writer_keeps_whole_shards_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "stopped", MADE, shard_bytes=50_000) as writer:
        for number in range(9):
            if number == 7:
                raise KeyboardInterrupt
            writer.add(made_sample(number))
    kept = read_manifest(tmp_path / "stopped").samples
    assert 0 < kept < 7
    (tmp_path / "stopped" / "shard-000099.tar").write_bytes(b"left by a kill before the manifest")
    again = ShardWriter(tmp_path / "stopped", MADE, shard_bytes=50_000)
    assert len(again.done) == kept
    with again:
        assert [again.add(made_sample(number)) for number in range(9)] == [False] * kept + [True] * (9 - kept)
    write(tmp_path / "whole", range(9))
    stopped, whole = ShardReader(tmp_path / "stopped"), ShardReader(tmp_path / "whole")
    assert stopped.keys() == whole.keys()
    assert stopped.manifest.shards == whole.manifest.shards
    with pytest.raises(InputError, match="other data or settings"):
        ShardWriter(tmp_path / "whole", replace(MADE, licence="other"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no shard"):
        ShardWriter(tmp_path / "foreign", MADE)


def test_refusals_are_counted_and_hopeless_people_not_tried_again(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, MADE) as writer:
        writer.refuse("blurred", 2)
        writer.give_up("p9")
    with ShardWriter(tmp_path, MADE) as writer:
        assert "p9" in writer.done
        writer.refuse("blurred")
    assert read_manifest(tmp_path).refused == {"blurred": 3}


def test_damaged_samples_are_skipped_and_reported_once(tmp_path: Path) -> None:
    write(tmp_path, range(8))
    reader = ShardReader(tmp_path)
    assert len(reader.manifest.shards) >= 3
    first, second, third = (tmp_path / shard.name for shard in reader.manifest.shards[:3])
    data = bytearray(first.read_bytes())
    data[700] ^= 1  # one bit of the first sample
    first.write_bytes(bytes(data))
    second.unlink()
    third.with_suffix(".json").write_text("{}")
    told = []
    reader = ShardReader(tmp_path, report=told.append)
    for _ in range(2):
        for sample in reader:
            assert same(sample, made_sample(int(sample.key[1:])))
    lost = 1 + reader.manifest.shards[1].samples
    assert len(told) == len(reader.damaged) == lost + 1
    assert {(d.shard, d.key) for d in told} >= {(first.name, "p0000"), (third.name, "")}
    good = [s.key for s in ShardReader(tmp_path, shuffle=False)]
    assert len(good) == 8 - lost - reader.manifest.shards[2].samples and "p0000" not in good
    assert {d.shard for d in reader.verify()} == {first.name, second.name}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_any_change_of_bytes_is_refused_or_harmless(seed: int, data) -> None:
    """``decode`` never raises anything but ``ValueError``, whatever the bytes."""
    whole = encode(made_sample(seed % 5, 1, 8))
    kind = data.draw(st.sampled_from(["flip", "cut", "random"]))
    if kind == "flip":
        broken = bytearray(whole)
        broken[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        broken = bytearray(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        broken = bytearray(data.draw(st.binary(max_size=2000)))
    try:
        assert isinstance(decode(bytes(broken)), PersonSample)
    except ValueError:
        pass


def order_of(folder: Path, **options) -> list[str]:
    return [sample.key for sample in ShardReader(folder, **options)]


def test_order_is_of_the_seed_and_changes_with_the_epoch(tmp_path: Path) -> None:
    write(tmp_path, range(12))
    assert order_of(tmp_path, seed=1) == order_of(tmp_path, seed=1)
    assert order_of(tmp_path, seed=1) != order_of(tmp_path, seed=2)
    assert sorted(order_of(tmp_path, seed=1)) == order_of(tmp_path, shuffle=False) == [f"p{k:04d}" for k in range(12)]
    reader = ShardReader(tmp_path, seed=1)
    first, second = [s.key for s in reader], [s.key for s in reader]
    assert first != second and sorted(first) == sorted(second) and reader.state.epoch == 2


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 20])
def test_parts_are_disjoint_even_and_whole(tmp_path: Path, parts: int) -> None:
    write(tmp_path, range(12))
    split = [order_of(tmp_path, seed=4, part=part, parts=parts) for part in range(parts)]
    assert sorted(key for part in split for key in part) == [f"p{k:04d}" for k in range(12)]
    assert max(map(len, split)) - min(map(len, split)) <= 1
    with pytest.raises(InputError, match="no part"):
        ShardReader(tmp_path, part=parts, parts=parts)


@pytest.mark.parametrize("stop", [0, 1, 5, 6])
def test_a_reader_goes_on_exactly_where_another_stood(tmp_path: Path, stop: int) -> None:
    write(tmp_path, range(12))
    (tmp_path / read_manifest(tmp_path).shards[1].name).unlink()  # damage does not move the count

    def stream(reader: ShardReader):
        while True:
            yield from reader

    straight = ShardReader(tmp_path, seed=3, part=1, parts=2)
    source = stream(straight)
    expected = [next(source).key for _ in range(14)]
    stopped = ShardReader(tmp_path, seed=3, part=1, parts=2)
    source = stream(stopped)
    seen = [next(source).key for _ in range(stop)]
    resumed = ShardReader(tmp_path, seed=3, part=1, parts=2)
    resumed.restore(stopped.state)
    source = stream(resumed)
    assert seen + [next(source).key for _ in range(14 - stop)] == expected
    with pytest.raises(InputError, match="give it the same"):
        ShardReader(tmp_path, seed=3).restore(stopped.state)


def test_what_is_no_sample_or_manifest_is_refused(tmp_path: Path) -> None:
    good = made_sample(0)
    for bad in (
        replace(good, key="a.b"), replace(good, key="../up"), replace(good, mattes=good.mattes[:1]),
        replace(good, images=good.images.astype(np.float32)), replace(good, arrays={"x": np.zeros(2)}),
        replace(good, arrays={"x": np.array([{}] * 3, dtype=object)}),
    ):  # fmt: skip
        with pytest.raises(InputError, match="cannot be stored"):
            encode(bad)
    with pytest.raises(InputError, match="no readable manifest"):
        ShardReader(tmp_path)
    for text in ("[]", "{", '{"format": "other"}', '{"format": "ffavatar shards", "schema": 99}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json"):
            ShardReader(tmp_path)
