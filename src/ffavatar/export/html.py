"""One self-contained page: viewer, avatar and, if wished, a clip in a single file that runs from file://."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import tempfile
from pathlib import Path

from ffavatar.avatar import Avatar
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError
from ffavatar.export.options import ExportOptions, provenance
from ffavatar.files import atomic_path, check_output_file
from ffavatar.viewer import BUNDLE, PAGE_STYLE

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}|transparent")


def export_html(
    avatar: Avatar,
    path: str | Path,
    motion: Motion | None = None,
    title: str = "Head avatar",
    background: str = "#ffffff",
    allow_flame: bool = False,
) -> None:
    """Write the page, atomically. It needs no server and no network: its content security policy forbids every request.

    Args:
        avatar: goes in as its container, without loss.
        path: the page, ``.html`` or ``.htm``.
        motion: a clip with its own play button; it starts by itself.
        title: of the page, and what a screen reader calls the picture.
        background: ``#rrggbb`` or ``transparent``.
        allow_flame: as in :meth:`Avatar.save`.

    Raises:
        InputError: the path or the background cannot be used, or the avatar may not be passed on.
    """
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: the page is a .html file; change the name's ending.")
    if not _COLOUR.fullmatch(background):
        raise InputError(f"{background!r} is no background for a page; give #rrggbb or transparent.")
    check_output_file(place)
    with tempfile.TemporaryDirectory(prefix="ffavatar-") as folder:
        container = Path(folder) / "avatar.safetensors"
        avatar.save(container, allow_flame=allow_flame)
        blocks = [_block("avatar", container.read_bytes())]
        if motion is not None:
            clip = Path(folder) / "motion.json"
            motion.save(clip)
            blocks.append(_block("motion", clip.read_bytes()))
    page = _page(blocks, title, background, motion is not None, provenance(avatar))
    with atomic_path(place) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def write_page(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """``export_html`` as one of the export formats: the whole avatar, with the motion as its clip.

    Raises:
        InputError: a pose or a single frame is asked for, which a page does not hold.
    """
    if options.pose is not None or options.frame is not None:
        raise InputError(f"{path}: a page holds the whole avatar, not a pose; leave pose and frame away.")
    colour = "#" + "".join(f"{round(255 * channel):02x}" for channel in options.style.background)
    background = "transparent" if options.style.alpha else colour
    export_html(avatar, path, options.motion, background=background, allow_flame=options.allow_flame)


def _block(name: str, data: bytes) -> str:
    """A block of data: browsers do not run scripts of a type they do not know."""
    return f'<script type="application/octet-stream" id="{name}">{base64.b64encode(data).decode("ascii")}</script>'


def _hash(text: str) -> str:
    """How a content security policy names an inline script or style that may be used."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _page(blocks: list[str], title: str, background: str, has_motion: bool, about: dict[str, str]) -> str:
    script, style = BUNDLE.read_text(encoding="utf-8"), PAGE_STYLE.read_text(encoding="utf-8")
    if re.search(r"</script|<!--", script, re.IGNORECASE):
        raise RuntimeError("the viewer's bundle cannot be put into a page: it contains the end of a script")
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "worker-src": "blob:",  # the bundle holds its worker as text
        "img-src": "data: blob:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    content = "; ".join(f"{name} {value}" for name, value in policy.items())
    name = html.escape(title)
    clip = ' motion="#motion" autoplay' if has_motion else ""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{content}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">',
        '<meta name="generator" content="FFAvatar">',
        '<meta name="description" content="A synthetic head avatar, made and animated by a computer">',
        *(f'<meta name="{key}" content="{html.escape(value)}">' for key, value in about.items()),
        f"<title>{name}</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        f'<ff-avatar controls idle look="cursor" background="{background}" label="{name}" src="#avatar"{clip}>',
        "</ff-avatar>",
        "<noscript>The avatar is drawn by a script of this page; allow scripts to see it.</noscript>",
        *blocks,
        f'<script type="module">{script}</script>',
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)
