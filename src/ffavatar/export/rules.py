"""Which options an exported format takes: for the command line and the server alike, without loading any writer."""

from __future__ import annotations

from typing import Literal

FILMS = ("mp4", "m4v", "mov", "webm", "gif")
PICTURES = ("png", "jpg", "jpeg", "webp", *FILMS)  # drawn, and so without a scale
WHOLE = ("html", "zip")  # made for a program of their own, which has its own units
FOLDER = "a folder of pictures"  # the kind without an ending


def why_not(kind: str, option: Literal["scale", "size", "background"]) -> str | None:
    """Why a format, named by its ending without dot, has no such option; None where it has."""
    drawn = kind in (*PICTURES, FOLDER)
    if option == "scale" and (drawn or kind in WHOLE):
        return f"{kind} has none; leave it away."
    if option == "size" and not drawn:
        return f"{kind} is no picture; leave it away."
    if option == "background" and not drawn and kind != "html":
        return f"{kind} has none; leave it away."
    return None
