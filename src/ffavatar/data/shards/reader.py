"""Reads shards in an order of the seed alone, split exactly among ranks and workers, resumable anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ffavatar.data.shards.format import IndexRow, Manifest, PersonSample, decode, read_index, read_manifest
from ffavatar.errors import InputError
from ffavatar.weights import sha256_of

MIX_SHARDS = 8  # samples are shuffled among so many neighbouring shards: disks like to read near places


@dataclass(frozen=True)
class Damage:
    """A sample, or a whole shard (``key`` empty), that could not be read, and why."""

    shard: str
    key: str
    reason: str


@dataclass(frozen=True)
class ReaderState:
    """Where a reader stands: ``position`` samples of its part of ``epoch`` have been passed, damaged ones included."""

    epoch: int
    position: int
    seed: int
    part: int
    parts: int


class ShardReader:
    """Samples of a folder of shards.

    ``part`` of ``parts``: for rank r of R with worker w of W, part r * W + w of R * W; parts are disjoint, equally long
    but for one sample, and together the whole epoch. Iterating goes on from ``state`` to the end of the epoch; the
    next iteration gives the next epoch in another order. Damaged samples are skipped, and reported once each.

    Raises ``InputError`` for a folder without manifest, or a part that cannot be.
    """

    def __init__(
        self,
        folder: str | Path,
        seed: int = 0,
        shuffle: bool = True,
        part: int = 0,
        parts: int = 1,
        report: Callable[[Damage], None] | None = None,
    ):
        if not 0 <= part < parts:
            raise InputError(f"There is no part {part} of {parts}; parts are counted from 0.")
        self.folder, self.shuffle = Path(folder), shuffle
        self.manifest: Manifest = read_manifest(folder)
        self.state = ReaderState(0, 0, seed, part, parts)
        self.damaged: list[Damage] = []
        self._report = report
        self._rows: list[list[IndexRow]] = []
        for shard in self.manifest.shards:
            try:
                rows = read_index(self.folder / shard.name)
                if len(rows) != shard.samples:
                    raise ValueError(f"{len(rows)} samples instead of {shard.samples}")
            except (OSError, ValueError) as error:
                rows = []
                self._damage(Damage(shard.name, "", f"its index cannot be read ({error})"))
            self._rows.append(rows)

    def __len__(self) -> int:
        """Samples of this part in one epoch, damaged ones included."""
        return len(self.order(self.state.epoch))

    def order(self, epoch: int) -> list[tuple[int, int]]:
        """(shard, row) of this part's samples in the order of an epoch."""
        shards = list(range(len(self._rows)))
        rng = np.random.default_rng([self.state.seed, epoch])
        if self.shuffle:
            shards = rng.permutation(shards).tolist()
        order: list[tuple[int, int]] = []
        for start in range(0, len(shards), MIX_SHARDS):
            block = [(s, r) for s in shards[start : start + MIX_SHARDS] for r in range(len(self._rows[s]))]
            order += [block[k] for k in rng.permutation(len(block))] if self.shuffle else block
        return order[self.state.part :: self.state.parts]

    def restore(self, state: ReaderState) -> None:
        """Go on where another reader of the same folder stood.

        Raises ``InputError`` for the state of another seed or part.
        """
        mine = (self.state.seed, self.state.part, self.state.parts)
        if (state.seed, state.part, state.parts) != mine:
            raise InputError(
                f"The state is that of part {state.part} of {state.parts} with seed {state.seed}, the reader has part "
                f"{self.state.part} of {self.state.parts} with seed {self.state.seed}; give it the same."
            )
        self.state = state

    def __iter__(self) -> Iterator[PersonSample]:
        order = self.order(self.state.epoch)
        while self.state.position < len(order):
            shard, row = order[self.state.position]
            self.state = replace(self.state, position=self.state.position + 1)
            sample = self._read(shard, row)
            if sample is not None:
                yield sample
        self.state = replace(self.state, epoch=self.state.epoch + 1, position=0)

    def keys(self) -> list[str]:
        """All keys of the folder, in the order of writing."""
        return [row.key for rows in self._rows for row in rows]

    def by_key(self) -> Iterator[PersonSample]:
        """All samples of the folder in the order of their keys, each read when it is asked for; ``state`` stays."""
        places = [(row.key, shard, number) for shard, rows in enumerate(self._rows) for number, row in enumerate(rows)]
        for _, shard, number in sorted(places):
            sample = self._read(shard, number)
            if sample is not None:
                yield sample

    def verify(self) -> list[Damage]:
        """Compare every shard with its sha256 in the manifest."""
        found = []
        for shard in self.manifest.shards:
            path = self.folder / shard.name
            if not path.is_file():
                found.append(Damage(shard.name, "", "it is missing"))
            elif sha256_of(path) != shard.sha256:
                found.append(Damage(shard.name, "", "its sha256 differs from the manifest's"))
        return found

    def _read(self, shard: int, number: int) -> PersonSample | None:
        row, name = self._rows[shard][number], self.manifest.shards[shard].name
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(row.offset)
                data = file.read(row.size)
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise ValueError("its bytes are not those that were written")
            sample = decode(data)
            if sample.key != row.key:
                raise ValueError(f"its key is {sample.key}")
            return sample
        except (OSError, ValueError, TypeError) as error:
            self._damage(Damage(name, row.key, str(error)))
            return None

    def _damage(self, damage: Damage) -> None:
        if any((d.shard, d.key) == (damage.shard, damage.key) for d in self.damaged):
            return
        self.damaged.append(damage)
        if self._report is not None:
            self._report(damage)
