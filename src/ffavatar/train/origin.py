"""What a run was begun with beside its recipe; its checkpoints tell, and it goes on with the same alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ffavatar.data.shards.format import MANIFEST, read_manifest
from ffavatar.train.samples import person_files
from ffavatar.weights import sha256_of


@dataclass(frozen=True)
class Origin:
    """A run's data and files by their content, wherever they lie; its fields have the names of the options for them."""

    data: str  # sha256 of the names and sha256 of shards or person_SEED.npz
    people: int | None = None  # limit
    weights: str | None = None  # sha256
    vit: str | None = None  # sha256

    @staticmethod
    def of(data: Path, people: int | None = None, weights: Path | None = None, vit: Path | None = None) -> Origin:
        """The files must be there. Of shards the manifest's own sums are taken, of other files the bytes are read."""
        if (data / MANIFEST).exists():
            parts = [(shard.name, shard.sha256) for shard in read_manifest(data).shards]
        else:
            parts = [(path.name, sha256_of(path)) for path in person_files(data, people)]
        content = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        sums = [None if path is None else sha256_of(path) for path in (weights, vit)]
        return Origin(content, people, *sums)

    def differences(self, other: Origin) -> list[str]:
        """The options that differ."""
        mine, theirs = asdict(self), asdict(other)
        return [f"--{name}" for name in mine if mine[name] != theirs[name]]
