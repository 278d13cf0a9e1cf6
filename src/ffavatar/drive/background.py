"""What lies behind an avatar in pictures and films, as people say it."""

from __future__ import annotations

from ffavatar.errors import InputError

COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "gray": "#808080", "green": "#00b140"}


def parse_background(text: str) -> tuple[tuple[float, float, float], bool]:
    """A colour in [0, 1] and whether the background is transparent. Raises ``InputError`` for anything unknown."""
    if text.lower() == "transparent":
        return (1.0, 1.0, 1.0), True
    code = COLOURS.get(text.lower(), text).removeprefix("#")
    try:
        if len(code) != 6:
            raise ValueError
        red, green, blue = (byte / 255 for byte in bytes.fromhex(code))
    except ValueError:
        known = ", ".join(name for name in COLOURS if name != "gray")
        raise InputError(f"{text[:40]!r} is no background; give {known}, #rrggbb or transparent.") from None
    return (red, green, blue), False
