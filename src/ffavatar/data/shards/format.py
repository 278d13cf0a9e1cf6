"""What a shard holds: the record of a person, its files in a tar, the manifest of a folder of shards.

A sample is a run of tar members with one key (WebDataset's rule: the name up to the first dot):

    KEY.json                 name, source and other notes, numbers of views, names of arrays
    KEY.npz                  numeric arrays: one row per view, or shared by all views
    KEY.000.png or .jpg      the head crop with its background, one per view
    KEY.000.matte.png        the person, 8 bits
    KEY.000.valid.png        inside the photo; left out where the whole crop is
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ffavatar.errors import InputError
from ffavatar.types import Views

SCHEMA = 1
FORMAT = "ffavatar shards"
MANIFEST = "manifest.json"
Codec = Literal["png", "jpeg"]
JPEG_QUALITY = 95
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}\Z")
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class PersonSample:
    """P views of one person. ``arrays`` have P rows, but for those named in ``shared``."""

    key: str  # letters, digits, - and _
    images: np.ndarray  # (P, H, W, 3) uint8 head crops with background, white outside the photo
    mattes: np.ndarray  # (P, H, W) uint8, the person
    valid: np.ndarray  # (P, H, W) bool, inside the photo
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)  # JSON values

    def __len__(self) -> int:
        return len(self.images)

    def views(self, rows: list[int] | None = None) -> Views:
        """Some of the views (all by default); what was not stored (landmarks, blendshapes) is zero."""
        index = list(range(len(self))) if rows is None else rows
        landmarks = self.arrays.get("landmarks", np.zeros((len(self), 478, 3), np.float32))
        scores = self.arrays.get("blendshapes", np.zeros((len(self), 52), np.float32))
        return Views(
            torch.from_numpy(self.images[index]).float() / 255,
            torch.from_numpy(self.mattes[index]).float() / 255,
            torch.from_numpy(self.valid[index].astype(np.float32)),
            torch.from_numpy(landmarks[index]).float(),
            torch.from_numpy(scores[index]).float(),
        )


def check_sample(sample: PersonSample) -> None:
    """Raise ``InputError`` for a sample that a reader would refuse."""
    shape, count = sample.images.shape, len(sample.images)
    good = (
        _KEY.match(sample.key)
        and count > 0
        and sample.images.dtype == np.uint8
        and len(shape) == 4
        and shape[3] == 3
        and sample.mattes.shape == sample.valid.shape == shape[:3]
        and sample.mattes.dtype == np.uint8
        and sample.valid.dtype == bool
    )
    rows = all(name in sample.shared or len(array) == count for name, array in sample.arrays.items())
    kinds = all(array.dtype.kind in "biufU" for array in sample.arrays.values())
    if not (good and rows and kinds):
        raise InputError(
            f"The sample {sample.key!r} cannot be stored: keys are letters, digits, - and _, and each view needs one "
            "picture, matte and row of every array."
        )


def encode(sample: PersonSample, codec: Codec = "png") -> bytes:
    """The sample's tar members, headers included; the same sample gives the same bytes.

    Raises ``InputError`` as ``check_sample``.
    """
    check_sample(sample)
    head = {
        "views": len(sample), "shared": list(sample.shared), "arrays": sorted(sample.arrays),
        "notes": dict(sample.notes),
    }  # fmt: skip
    files = {"json": json.dumps(head, sort_keys=True).encode(), "npz": _npz(sample.arrays)}
    for row in range(len(sample)):
        if codec == "png":
            files[f"{row:03d}.png"] = _picture(sample.images[row], "PNG", compress_level=4)
        else:
            files[f"{row:03d}.jpg"] = _picture(sample.images[row], "JPEG", quality=JPEG_QUALITY, subsampling=0)
        files[f"{row:03d}.matte.png"] = _picture(sample.mattes[row], "PNG")
        if not sample.valid[row].all():
            files[f"{row:03d}.valid.png"] = _picture(sample.valid[row].astype(np.uint8) * 255, "PNG")
    out = io.BytesIO()
    for name, data in files.items():
        member = tarfile.TarInfo(f"{sample.key}.{name}")
        member.size, member.mode = len(data), 0o644
        out.write(member.tobuf(tarfile.USTAR_FORMAT))
        out.write(data)
        out.write(bytes(-len(data) % tarfile.BLOCKSIZE))
    return out.getvalue()


def decode(data: bytes) -> PersonSample:
    """The sample of tar members as ``encode`` makes them.

    Raises ``ValueError`` with the reason for anything else; nothing is unpacked to disk or unpickled.
    """
    try:
        files = _members(data)
        names = {name.split(".", 1)[0] for name in files}
        if len(names) != 1:
            raise ValueError(f"{len(names)} keys in one sample")
        (key,) = names
        parts = {name.split(".", 1)[1]: content for name, content in files.items()}
        head = json.loads(parts["json"])
        with np.load(io.BytesIO(parts["npz"]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in head["arrays"]}
        images, mattes, valid = [], [], []
        for row in range(int(head["views"])):
            stem = f"{row:03d}"
            images.append(_pixels(parts[f"{stem}.png"] if f"{stem}.png" in parts else parts[f"{stem}.jpg"], "RGB"))
            mattes.append(_pixels(parts[f"{stem}.matte.png"], "L"))
            inside = parts.get(f"{stem}.valid.png")
            valid.append(np.ones(mattes[-1].shape, bool) if inside is None else _pixels(inside, "L") > 127)
        sample = PersonSample(
            key, np.stack(images), np.stack(mattes), np.stack(valid), arrays, tuple(head["shared"]), head["notes"]
        )
        check_sample(sample)
        return sample
    except Exception as error:  # the libraries may raise nearly anything for damaged bytes
        raise ValueError(f"not a whole sample ({type(error).__name__}: {error})") from error


def _members(data: bytes) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE)), mode="r:") as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.isfile() else None
            if handle is None or "." not in member.name:
                raise ValueError(f"{member.name!r} is no member of a sample")
            content = handle.read()
            if len(content) != member.size:
                raise ValueError(f"{member.name} is cut off")
            files[member.name] = content
    return files


def _picture(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, form, **options)
    return buffer.getvalue()


def _pixels(data: bytes, mode: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
        if picture.mode != mode or max(picture.size) > _LARGEST_SIDE:
            raise ValueError(f"a picture of mode {picture.mode} and {picture.size} px")
        return np.array(picture)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()


@dataclass(frozen=True)
class Provenance:
    """Where data comes from. It must agree where a folder of shards is continued."""

    kind: str  # synthetic, photos, video, ava256, nersemble
    source: str  # what the data was made of, in words
    licence: str  # SPDX identifier, or the name of the terms; "unknown" where nobody said
    settings: Mapping[str, Any] = field(default_factory=dict)  # JSON values that decide the content


@dataclass(frozen=True)
class ShardEntry:
    """One tar of the manifest; its index (``ShardName.json``) lists the samples."""

    name: str
    samples: int
    views: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexRow:
    """Where a sample lies in its tar."""

    key: str
    offset: int
    size: int
    views: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds."""

    provenance: Provenance
    shards: tuple[ShardEntry, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)  # how often each reason left something out
    attempted: tuple[str, ...] = ()  # keys that gave no sample, and are not tried again

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def views(self) -> int:
        return sum(shard.views for shard in self.shards)

    def to_json(self) -> str:
        content = {"format": FORMAT, "schema": SCHEMA, "samples": self.samples, "views": self.views}
        return json.dumps(content | asdict(self), indent=1)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder of shards.

    Raises ``InputError`` where there is none, or one of another format or a newer schema.
    """
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError("another format")
        if content["schema"] != SCHEMA:
            raise InputError(f"{path} has schema {content['schema']}, this ffavatar reads {SCHEMA}; update ffavatar.")
        return Manifest(
            Provenance(**content["provenance"]),
            tuple(ShardEntry(**row) for row in content["shards"]),
            dict(content["refused"]),
            tuple(content["attempted"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder} holds no readable {MANIFEST} of shards; make some with `ffavatar prepare`."
        ) from error


def index_path(shard: Path) -> Path:
    return shard.with_suffix(".json")


def read_index(shard: Path) -> list[IndexRow]:
    """The samples of a tar. Raises ``ValueError`` or ``OSError`` where the index is missing or damaged."""
    try:
        rows = json.loads(index_path(shard).read_text(encoding="utf-8"))
        kinds = {"str": str, "int": int}
        for row in rows:
            if not all(isinstance(v, kinds[str(f.type)]) for v, f in zip(row, fields(IndexRow), strict=True)):
                raise ValueError("a row of other values")
        if not isinstance(rows, list):
            raise ValueError("no list of rows")
        return [IndexRow(*row) for row in rows]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{index_path(shard).name} is damaged") from error


def index_text(rows: list[IndexRow]) -> str:
    return json.dumps([list(asdict(row).values()) for row in rows])
