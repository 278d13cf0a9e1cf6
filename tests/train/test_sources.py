"""People for examples: split among slots, resumed in the middle of an epoch, labelled or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_people import SHOTS, SIZE, made_sample, write_shards

from ffavatar.data.shards import Provenance, ShardWriter, reader
from ffavatar.data.shards.format import decode
from ffavatar.errors import InputError
from ffavatar.train import samples
from ffavatar.train.samples import load_people, outlines, person_of_sample
from ffavatar.train.sources import Example, InMemory, Streamed

SEEDS = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), SEEDS, shard_bytes=1, shots=3)


def test_only_the_first_people_are_read_and_one_after_the_other(shards, monkeypatch):
    events = []
    monkeypatch.setattr(reader, "decode", lambda data: events.append("read") or decode(data))
    monkeypatch.setattr(samples, "person_of_sample", lambda sample: events.append("taken") or person_of_sample(sample))
    people = load_people(shards, 2)
    assert events == ["read", "taken"] * 2
    everybody = [int(p.images.sum()) for p in load_people(shards)]
    assert [int(p.images.sum()) for p in people] == everybody[:2] and len(everybody) == len(SEEDS)
    assert len(events) == 2 * (2 + len(SEEDS))


def seen_by(source, slot, steps, start=0):
    """Which people a slot sees: told apart by their pictures' sums."""
    return [int(source.one(Example.of(0, step, slot)).images.sum()) for step in range(start, start + steps)]


def test_every_person_once_per_epoch_in_an_order_of_the_seed(shards):
    everybody = sorted(int(p.images.sum()) for p in load_people(shards))
    with_seeds = []
    for seed in (0, 1):
        source = Streamed(shards, seed, [0], 1)
        epochs = [seen_by(source, 0, 5) for _ in range(3)]
        assert all(sorted(epoch) == everybody for epoch in epochs)
        with_seeds.append(epochs)
        source.close()
    assert with_seeds[0] != with_seeds[1]


def test_slots_see_disjoint_people_whoever_holds_them(shards):
    together = Streamed(shards, 0, [0, 1], 2)
    apart = [Streamed(shards, 0, [slot], 2) for slot in (0, 1)]
    lengths = (3, 2)  # of five
    found = [seen_by(together, slot, length) for slot, length in enumerate(lengths)]
    assert found == [seen_by(source, slot, lengths[slot]) for slot, source in enumerate(apart)]
    assert len({*found[0], *found[1]}) == 5
    for source in (together, *apart):
        source.close()


@pytest.mark.parametrize("steps", [0, 1, 4, 5, 7])
def test_goes_on_exactly_where_it_stood(shards, steps):
    """Also where the reader has already read the next person, and over the end of an epoch."""
    whole, first, second = (Streamed(shards, 3, [0], 1) for _ in range(3))
    expected = seen_by(whole, 0, 12)
    seen_by(first, 0, steps)
    seen_by(second, 0, 2)  # it stands elsewhere
    second.restore(first.state())
    assert seen_by(second, 0, 12 - steps, steps) == expected[steps:]
    for source in (whole, first, second):
        source.close()


def test_a_state_of_other_slots_is_refused(shards):
    source = Streamed(shards, 0, [0], 1)
    with pytest.raises(InputError, match="did not stream"):
        source.restore({})
    with pytest.raises(InputError, match="streamed its people"):
        InMemory(load_people(shards)).restore(source.state())
    source.close()


def test_more_examples_than_people_and_no_shards_are_said(shards, tmp_path):
    with pytest.raises(InputError, match="fewer people than the 6"):
        Streamed(shards, 0, list(range(6)), 6)
    with pytest.raises(InputError, match="no shards to stream"):
        Streamed(tmp_path, 0, [0], 1)


def test_people_with_too_few_views_are_passed_over(tmp_path):
    with ShardWriter(tmp_path / "some", Provenance("video", "test", "CC0-1.0")) as writer:
        writer.add(made_sample(1, labelled=False))
        writer.add(made_sample(2, labelled=False, shots=2))
    source = Streamed(tmp_path / "some", 0, [0], 1)
    assert len(set(seen_by(source, 0, 4))) == 1
    source.close()
    with ShardWriter(tmp_path / "none", Provenance("video", "test", "CC0-1.0")) as writer:
        writer.add(made_sample(2, labelled=False, shots=2))
    source = Streamed(tmp_path / "none", 0, [0], 1)
    with pytest.raises(InputError, match="nobody with at least 3"):
        source.one(Example.of(0, 0))
    source.close()


def test_labels_are_taken_where_there_are_any():
    labelled, bare = person_of_sample(made_sample(1)), person_of_sample(made_sample(1, labelled=False))
    assert labelled.labelled and not bare.labelled
    assert labelled.exact_landmarks.shape == (SHOTS, 478, 3) and bare.exact_landmarks is None
    assert np.array_equal(labelled.images, bare.images) and np.array_equal(bare.seen_mattes, bare.mattes)


def test_what_lies_outside_the_photo_reaches_the_views_and_the_outline():
    sample = made_sample(1, labelled=False)
    sample.valid[:, : SIZE // 2] = False
    person = person_of_sample(sample)
    views = person.views(np.array([2, 0]))
    assert torch.equal(views.valid[:, : SIZE // 2], torch.zeros(2, SIZE // 2, SIZE))
    assert views.valid[:, SIZE // 2 :].min() == 1
    assert person.outlines[:, 3, :40].max() == 0  # no person above
    assert outlines(person.images, person.mattes)[:, 3, :40].max() > 0


def test_examples_draw_their_own_numbers():
    first = [Example.of(1, 2, slot).rng.random() for slot in range(3)]
    assert len(set(first)) == 3
    assert first[0] == np.random.default_rng([1, 2]).random()
    assert first == [Example.of(1, 2, slot).rng.random() for slot in range(3)]
