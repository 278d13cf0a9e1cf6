"""People in tar shards that WebDataset reads too: a sample per person, a manifest, an index (docs/data.md)."""

from ffavatar.data.shards.format import Manifest, PersonSample, Provenance, read_manifest
from ffavatar.data.shards.reader import Damage, ReaderState, ShardReader
from ffavatar.data.shards.writer import ShardWriter

__all__ = [
    "Damage",
    "Manifest",
    "PersonSample",
    "Provenance",
    "ReaderState",
    "ShardReader",
    "ShardWriter",
    "read_manifest",
]
