"""What a file is that was given for something else, so that a refusal can say where it belongs."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["avatar", "weights file", "motion file", "JSON file", "archive", "3D model", "picture", "film"]
START = 2**16
"""So many of a file's first bytes are enough to tell."""
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_SAFETENSORS = re.compile(rb'[\0-\xff]{4}\0{4}\{ *"')  # the length of a header, and the header
_MOTION_KEYS = ((b'"ffavatar-motion"',), (b'"names"', b'"frames"'), (b'"names"', b'"weights"'), (b'"expr"',))
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_FILMS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"FLV\1")  # Matroska and WebM, MPEG, Flash


def kind_of(start: bytes) -> Kind | None:
    """What begins with these bytes; None where that is unknown. Nothing is said of whether it is whole."""
    if _SAFETENSORS.match(start):
        return "avatar" if b'"format":"ffavatar"' in start else "weights file"
    if start.startswith((b"glTF", b"ply\n", b"ply\r")):
        return "3D model"
    if start.startswith(b"PK"):
        return "motion file" if b"header.npy" in start[:64] else "archive"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
        return "motion file" if any(all(key in start for key in keys) for keys in _MOTION_KEYS) else "JSON file"
    if start[4:8] == b"ftyp":
        return "picture" if start[8:12] in (*HEIF_BRANDS, b"avif", b"avis") else "film"
    if start.startswith(_FILMS) or (start[:4] == b"RIFF" and start[8:11] == b"AVI"):
        return "film"
    return "picture" if start.startswith(_PICTURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP") else None


def a(kind: Kind) -> str:
    """The kind with its article."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
