"""Output files that appear whole or not at all, written beside their place and renamed into it; and containers whose
bytes depend on their content alone."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ffavatar.errors import InputError


def _destination(path: str | Path) -> Path:
    """The place to write to, symbolic links followed. Raises ``InputError`` where its folder cannot take it."""
    path = Path(path).expanduser()
    if not path.name:
        raise InputError(f"{str(path)!r} names no output file; give a file name, such as out.mp4.")
    try:
        path = path.resolve()
        if path.is_symlink():  # a loop of links, which Python 3.13 resolves to itself
            raise OSError
        mode = path.stat().st_mode if path.exists() else None
    except (OSError, RuntimeError):  # a loop of links: RuntimeError before Python 3.13
        raise InputError(f"{path} cannot be written: its links lead nowhere; choose another output path.") from None
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: its folder does not exist; create {path.parent} first.")
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is neither a file nor a folder; choose another output path.")
    return path


def check_output_file(path: str | Path) -> Path:
    """Whether a file can be written there, asked before long work. Returns the path with its links followed.

    Raises ``InputError`` where the folder is missing or closed to us, or the path is a folder.
    """
    place = _destination(path)
    if place.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file for the output.")
    _ordinary_mode(_beside(place))
    return place


def check_output_folder(path: str | Path) -> Path:
    """As ``check_output_file``, for a folder of files, which must not exist or be empty: files of an earlier run would
    otherwise mix with the new ones."""
    place = _destination(path)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{path} exists and is not an empty folder; remove it or choose another output folder.")
    _ordinary_mode(_beside(place))
    return place


def refuse_overwriting(output: str | Path, *inputs: str | Path | None) -> None:
    """Raises ``InputError`` where an output would take the place of what is read, by whatever name or link."""
    for given in inputs:
        if given is None:
            continue
        try:
            same = os.path.samefile(output, given)
            inside = os.path.isdir(given) and os.path.samefile(Path(output).resolve().parent, given)
        except (OSError, ValueError):  # one of them does not exist: others say so
            continue
        if same or (inside and Path(output).is_file()):
            raise InputError(f"{output} is what is read, and would be overwritten; give another name for the output.")


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk; systems that cannot sync folders are let off."""
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _beside(place: Path, suffix: str = "") -> Path:
    """A name that nothing has, in the same folder."""
    # The stem is cut so that a name at the file system's limit still leaves room for the token.
    return place.with_name(f".{place.stem[:100]}.{secrets.token_hex(4)}.part{suffix}")


def _ordinary_mode(unused: Path) -> int:
    """The permissions that a new file gets here, found by making one: to ask for them is not enough, since some folders
    are called writable, to root above all, and take nothing. Raises ``InputError`` where none can be made, but
    ``OSError`` for a full disk, which is no mistake of the caller's."""
    try:
        unused.touch(exist_ok=False)
        mode = unused.stat().st_mode & 0o777
        unused.unlink()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(
            f"Nothing can be written in {unused.parent} ({error.strerror}); choose another folder for the output."
        ) from None
    return mode


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name in the folder of ``path``, with its suffix; renames it to ``path`` when the block
    succeeds.

    The block must create the file. On any exception, an interrupt too, the temporary file is removed and what stood at
    ``path`` is untouched. Raises ``InputError`` where the folder is missing or ``path`` is a folder.
    """
    place = check_output_file(path)
    temporary = _beside(place, place.suffix)
    mode = _ordinary_mode(temporary)
    try:
        yield temporary
        temporary.chmod(mode)  # some libraries write files that only their owner may read
        _sync(temporary)
        os.replace(temporary, place)
        _sync(place.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As ``atomic_path``, for a folder of files: gives a new empty folder that takes the name ``path`` at the end.

    Raises ``InputError`` where the folder above is missing or ``path`` exists and is not an empty folder.
    """
    place = check_output_folder(path)
    temporary = _beside(place)
    temporary.mkdir()
    try:
        yield temporary
        if place.exists():
            place.rmdir()
        os.replace(temporary, place)
        _sync(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def in_order(container: bytes) -> bytes:
    """The same safetensors container with its notes sorted: the library writes them in another order each time, and the
    same content should give the same bytes."""
    size = int.from_bytes(container[:8], "little")
    content = json.loads(container[8 : 8 + size])
    content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # buffers begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + container[8 + size :]
