"""Synthetic-media marks: every film and picture says in its metadata that it is made by a machine.

The machine-readable part is IPTC's *digital source type* (https://cv.iptc.org/newscodes/digitalsourcetype/), written as
an XMP packet; the readable part is a sentence in the comment or description field.
"""

from __future__ import annotations

import io
import struct
import uuid
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ffavatar import __version__
from ffavatar.errors import InputError
from ffavatar.files import atomic_path

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SENTENCE = f"AI-generated: an animated avatar, not a recording of a real event. Made with FFAvatar {__version__}."
FILM_TAGS = {"comment": SENTENCE, "description": SENTENCE, "digital_source_type": SOURCE_TYPE}
STILL_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")  # XMP specification part 3, "MPEG-4"


def xmp_packet() -> bytes:
    """An XMP packet with the digital source type and the sentence, UTF-8."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmp:CreatorTool="FFAvatar {__version__}" Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}">'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{SENTENCE}</rdf:li></rdf:Alt></dc:description>'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def append_xmp_box(path: Path) -> None:
    """Add the XMP packet to a finished mp4 or mov file, as the ``uuid`` box its specification names."""
    body = _XMP_BOX.bytes + xmp_packet()
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", len(body) + 8, b"uuid") + body)


def append_gif_comment(path: Path) -> None:
    """Put the sentence and source type into a finished GIF, as a comment extension before its trailer byte."""
    data = f"{SENTENCE} {SOURCE_TYPE}".encode("ascii")
    if len(data) > 255:
        raise ValueError("a GIF comment block holds at most 255 bytes")
    with path.open("r+b") as file:
        file.seek(-1, io.SEEK_END)
        if file.read(1) != b";":
            raise ValueError(f"{path} does not end as a GIF does")
        file.seek(-1, io.SEEK_END)
        file.write(b"\x21\xfe" + bytes([len(data)]) + data + b"\x00;")


def write_marked_image(target: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3 or 4) to ``target`` with the marks; the suffix is one of ``STILL_SUFFIXES``."""
    picture = Image.fromarray(image)
    match target.suffix.lower():
        case ".png":
            text = PngInfo()
            text.add_text("Comment", SENTENCE)
            text.add_text("Software", f"FFAvatar {__version__}")
            text.add_text("Source", SOURCE_TYPE)
            text.add_itxt("XML:com.adobe.xmp", xmp_packet().decode())
            picture.save(target, pnginfo=text, compress_level=4)
        case ".jpg" | ".jpeg":
            picture.save(target, quality=95, comment=SENTENCE, xmp=xmp_packet())
        case ".webp":
            picture.save(target, quality=95, xmp=xmp_packet())
        case suffix:
            raise ValueError(f"no still format {suffix!r}")


def save_still(path: str | Path, image: np.ndarray) -> Path:
    """Write one picture, atomically and marked. ``image`` is uint8 (H, W, 3) RGB or (H, W, 4) RGBA.

    Raises ``InputError`` for an unknown suffix, transparency in a JPEG, or a place that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in STILL_SUFFIXES:
        raise InputError(f"{path}: pictures are written as {', '.join(STILL_SUFFIXES)}; change the file name's ending.")
    if image.shape[-1] == 4 and suffix in (".jpg", ".jpeg"):
        raise InputError(f"{path}: JPEG cannot hold transparency; write .png or .webp, or choose a background colour.")
    with atomic_path(path) as temporary:
        write_marked_image(temporary, image)
    return path
