"""Writes shards so that a stop at any moment loses at most the samples of the shard that was being filled."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ffavatar.data.shards.format import (
    MANIFEST,
    Codec,
    IndexRow,
    Manifest,
    PersonSample,
    Provenance,
    ShardEntry,
    encode,
    index_path,
    index_text,
    read_index,
    read_manifest,
)
from ffavatar.errors import InputError
from ffavatar.files import atomic_path

SHARD_BYTES = 256 * 2**20


class ShardWriter:
    """Use as a context: ``with ShardWriter(folder, provenance) as writer: writer.add(sample)``.

    A shard is written whole, then its index, then the manifest that names it; what the manifest does not name is not
    there. Opening the folder again goes on: ``done`` says which keys need not be made. Leaving the context on an
    exception keeps the finished shards and drops the open one. One process writes; many may make samples.

    Raises ``InputError`` where the folder holds shards of another provenance, or other files.
    """

    def __init__(
        self, folder: str | Path, provenance: Provenance, codec: Codec = "png", shard_bytes: int = SHARD_BYTES
    ):
        self.folder, self.codec, self.shard_bytes = Path(folder), codec, shard_bytes
        if shard_bytes < 1:
            raise InputError(f"A shard of {shard_bytes} bytes holds nothing; give at least some megabytes.")
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / MANIFEST).exists():
            self.manifest = read_manifest(self.folder)
            if self.manifest.provenance != provenance:
                raise InputError(f"{folder} holds shards made from other data or settings; choose another folder.")
        else:
            foreign = [p.name for p in self.folder.iterdir() if not p.name.startswith((".", "shard-"))]
            if foreign:
                raise InputError(f"{folder} holds {foreign[0]}, which is no shard; choose a new or empty folder.")
            self.manifest = Manifest(provenance)
            self._write_manifest()
        self.done: set[str] = set(self.manifest.attempted)
        for shard in self.manifest.shards:
            try:
                self.done |= {row.key for row in read_index(self.folder / shard.name)}
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{index_path(self.folder / shard.name)} cannot be read ({error}); the shards cannot be continued: "
                    "choose another folder."
                ) from error
        self._blocks: list[bytes] = []
        self._rows: list[IndexRow] = []
        self._size = 0
        self._refused: Counter[str] = Counter()
        self._attempted: list[str] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.flush()

    def add(self, sample: PersonSample) -> bool:
        """Add a sample; False where its key is there already. Raises ``InputError`` for one that cannot be stored."""
        if sample.key in self.done:
            return False
        data = encode(sample, self.codec)
        self._rows.append(IndexRow(sample.key, self._size, len(data), len(sample), hashlib.sha256(data).hexdigest()))
        self._blocks.append(data)
        self._size += len(data)
        self.done.add(sample.key)
        if self._size >= self.shard_bytes:
            self.flush()
        return True

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count a reason for which a picture or a person was left out; kept with the next shard."""
        self._refused[reason] += count

    def give_up(self, key: str) -> None:
        """A person of whom nothing could be used: not tried again when the folder is continued."""
        self.done.add(key)
        self._attempted.append(key)

    def flush(self) -> None:
        """Write the open shard, if it holds anything, and the manifest."""
        shards = self.manifest.shards
        if self._rows:
            place = self.folder / f"shard-{len(shards):06d}.tar"
            digest = hashlib.sha256()
            end = bytes(-(self._size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE)
            with atomic_path(place) as temporary, temporary.open("wb") as file:
                for block in [*self._blocks, end]:
                    file.write(block)
                    digest.update(block)
                file.flush()
            with atomic_path(index_path(place)) as temporary:
                temporary.write_text(index_text(self._rows), encoding="utf-8")
            views = sum(row.views for row in self._rows)
            entry = ShardEntry(place.name, len(self._rows), views, self._size + len(end), digest.hexdigest())
            shards = (*shards, entry)
        refused = Counter(self.manifest.refused) + self._refused
        attempted = (*self.manifest.attempted, *self._attempted)
        self.manifest = replace(self.manifest, shards=shards, refused=dict(refused), attempted=attempted)
        self._write_manifest()
        self._blocks, self._rows, self._size = [], [], 0
        self._refused, self._attempted = Counter(), []

    def _write_manifest(self) -> None:
        with atomic_path(self.folder / MANIFEST) as temporary:
            temporary.write_text(self.manifest.to_json(), encoding="utf-8")
