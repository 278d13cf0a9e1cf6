"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ffavatar.errors import InputError
from ffavatar.files import atomic_folder, atomic_path, check_output_file, check_output_folder


def test_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".txt" and temporary.parent == tmp_path
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(failure), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_block_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.txt"):
        pass


def test_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with atomic_path(tmp_path / "out.txt") as temporary:
        temporary.write_text("x")
        temporary.chmod(0o600)  # as safetensors does
    assert (tmp_path / "out.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "real.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "real.txt").read_text() == "x"


def test_longest_file_name(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".txt")
    with atomic_path(target) as temporary:
        temporary.write_text("x")
    assert target.is_file()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "no" / "x.txt", tmp_path, tmp_path / "pipe", tmp_path / "loop", Path("/")):
        with pytest.raises(InputError), atomic_path(path):
            pytest.fail("the block must not run")


def test_folders_that_are_called_writable_and_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(os, "access", lambda *_: True)
    for ask in (check_output_file, check_output_folder):
        with pytest.raises(
            InputError, match=r"Nothing can be written in .* \(Permission denied\); choose another fold"
        ):
            ask(tmp_path / "x.png")
    for make in (atomic_path, atomic_folder):
        with pytest.raises(InputError, match="Nothing can be written"), make(tmp_path / "x.png"):
            pytest.fail("the block must not run")


def test_folder_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "frames"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [target]


def test_folder_failure_and_full_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_folder(tmp_path / "frames") as temporary:
        (temporary / "a").write_text("x")
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(InputError, match="not an empty folder"):
        check_output_folder(tmp_path / "full")
