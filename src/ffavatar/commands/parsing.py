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


def counted(number: int, what: str) -> str:
    """So many of something, in words."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def file_size(path: Path) -> str:
    """The size of a file, or of the files in a folder, in words."""
    count = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(count / 1e3, 1):.0f} KB"


def film_length(frames: int, fps: float) -> str:
    """How long a film is, in words."""
    return f"{frames} frames, {frames / fps:.1f} s"


def refuse_given(why: str, **options: object) -> None:
    """Raises ``InputError`` for the first option that was given (is not None or False) though nothing would heed it."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise InputError(f"--{name.replace('_', '-')} {why}; leave it away.")


def need_even(size: int | None, output: Path, alpha: bool) -> None:
    """Raises ``InputError`` for an odd side of a film whose codec halves colours, and would make it a pixel larger."""
    ending = output.suffix.lower()
    halved = ending in (".mp4", ".m4v", ".webm") or (ending == ".mov" and not alpha)
    if size is not None and size % 2 and halved:
        raise InputError(
            f"{output}: a film of this kind has even sides; give --size {size - 1} or {size + 1} instead of {size}."
        )


def need_suffix(path: Path, suffixes: tuple[str, ...], what: str) -> None:
    """Raises ``InputError`` unless a file name has one of the endings."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: {what} is written as {' or '.join(suffixes)}; change the file name's ending.")
