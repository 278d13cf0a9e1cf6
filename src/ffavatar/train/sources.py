"""Where a step's people come from: all in memory, or streamed from shards in an order that ranks do not change.

A step consists of ``batch`` examples; example number k is slot k. Whatever the number of ranks, slot k of a step sees
the same people: drawn by the seed, the step and k from memory, or read from part k of ``batch`` of the shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ffavatar.data.shards import Damage, ReaderState, ShardReader
from ffavatar.data.shards.format import MANIFEST
from ffavatar.errors import InputError
from ffavatar.train.samples import FEWEST_VIEWS, Person, person_of_sample


@dataclass(frozen=True)
class Example:
    """Which part of which step is worked on, and its random numbers."""

    step: int
    slot: int
    rng: np.random.Generator

    @staticmethod
    def of(seed: int, step: int, slot: int = 0) -> Example:
        key = [seed, step] if slot == 0 else [seed, step, slot]
        return Example(step, slot, np.random.default_rng(key))


class Source(Protocol):
    """People for examples."""

    def one(self, example: Example) -> Person: ...

    def several(self, example: Example, count: int) -> list[Person]: ...

    def state(self) -> dict[int, dict[str, Any]]:
        """Per slot, what ``restore`` needs to go on exactly there; plain values."""
        ...

    def restore(self, state: dict[int, dict[str, Any]]) -> None: ...


class InMemory:
    """People drawn at random; has no state."""

    def __init__(self, people: Sequence[Person]):
        self.people = people

    def one(self, example: Example) -> Person:
        return self.people[int(example.rng.integers(len(self.people)))]

    def several(self, example: Example, count: int) -> list[Person]:
        chosen = example.rng.choice(len(self.people), count, replace=len(self.people) < count)
        return [self.people[number] for number in chosen]

    def state(self) -> dict[int, dict[str, Any]]:
        return {}

    def restore(self, state: dict[int, dict[str, Any]]) -> None:
        if state:
            raise InputError("The run streamed its people; go on with it in the same way.")


class Streamed:
    """Every person of a folder of shards once per epoch; people with too few views are passed over.

    ``slots`` are those of this rank, of ``batch`` in all. Per slot the next person is read while a step is computed;
    one that was read but not given is read again after ``restore``.

    Raises:
        InputError: the folder holds no shards, or fewer samples than ``batch``.
    """

    def __init__(self, folder: str | Path, seed: int, slots: Sequence[int], batch: int):
        if not (Path(folder) / MANIFEST).exists():
            raise InputError(f"{folder} holds no shards to stream; pack it with `ffavatar prepare synthetic --pack`.")
        self.damaged: list[Damage] = []
        self._readers = {
            slot: ShardReader(folder, seed, part=slot, parts=batch, report=self.damaged.append) for slot in slots
        }
        if not all(len(reader) for reader in self._readers.values()):
            raise InputError(f"{folder} holds fewer people than the {batch} examples of a step; lower batch.")
        self._pool = ThreadPoolExecutor(max(1, len(slots)), "shards")
        self._given = {slot: reader.state for slot, reader in self._readers.items()}
        self._people = {slot: _endless(reader) for slot, reader in self._readers.items()}
        self._next: dict[int, Future[tuple[Person, ReaderState]]] = {}

    def one(self, example: Example) -> Person:
        slot = example.slot
        person, self._given[slot] = (self._next.pop(slot, None) or self._ask(slot)).result()
        self._next[slot] = self._ask(slot)
        return person

    def several(self, example: Example, count: int) -> list[Person]:
        return [self.one(example) for _ in range(count)]

    def _ask(self, slot: int) -> Future[tuple[Person, ReaderState]]:
        return self._pool.submit(next, self._people[slot])

    def state(self) -> dict[int, dict[str, Any]]:
        return {slot: asdict(state) for slot, state in self._given.items()}

    def restore(self, state: dict[int, dict[str, Any]]) -> None:
        """Go on where the source of ``state`` stood; its slots may have been on other ranks."""
        for waiting in self._next.values():
            waiting.exception()  # a reader must not move on once it is put back
        self._next.clear()
        for slot, reader in self._readers.items():
            if slot not in state:
                raise InputError("The run did not stream its people; go on with it in the same way.")
            reader.restore(ReaderState(**state[slot]))
            self._given[slot] = reader.state
            self._people[slot] = _endless(reader)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _endless(reader: ShardReader) -> Iterator[tuple[Person, ReaderState]]:
    """People of one epoch after the other, each with where the reader stands after it.

    Raises:
        InputError: an epoch held nobody.
    """
    found = True
    while found:
        found = reader.state.position > 0  # the rest of an epoch may be empty
        for sample in reader:
            person = person_of_sample(sample)
            if person is not None:
                found = True
                yield person, reader.state
    raise InputError(
        f"{reader.folder} holds nobody with at least {FEWEST_VIEWS} usable views in part {reader.state.part}; lower "
        "batch, or prepare more people (docs/data.md)."
    )
