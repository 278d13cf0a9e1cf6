"""What several commands read from their arguments in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ffavatar.errors import InputError

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar


def parse_expressions(pairs: list[str]) -> dict[str, float]:
    """``NAME=VALUE`` words as a dictionary. Raises ``InputError`` for another form or a value beyond -3 to 3."""
    values = {}
    for pair in pairs:
        name, _equals, number = pair.partition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"{pair!r} is no expression; give NAME=VALUE, such as mouthSmileLeft=0.6.") from None
        if not abs(values[name.strip()]) <= 3:
            raise InputError(f"{pair!r} is beyond what a face can do; give a value between -3 and 3.")
    return values


def load_avatar(path: Path, device: str = "cpu") -> Avatar:
    """The avatar in a file. Raises ``InputError`` for a missing file, a folder, or what is no avatar."""
    from ffavatar.drive.video import existing_input

    if existing_input(path).is_dir():
        raise InputError(f"{path} is a folder; give an avatar file (.safetensors).")
    from ffavatar.avatar import Avatar

    return Avatar.load(path).to(device)


def megabytes(path: Path) -> str:
    """The size of a file, or of the files in a folder, in words."""
    files = path.iterdir() if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def need_suffix(path: Path, suffixes: tuple[str, ...], what: str) -> None:
    """Raises ``InputError`` unless a file name has one of the endings."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: {what} is written as {' or '.join(suffixes)}; change the file name's ending.")
