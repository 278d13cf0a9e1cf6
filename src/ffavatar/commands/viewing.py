"""Commands about the browser viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.parsing import load_avatar, megabytes, parse_background


def export_html(
    avatar: Annotated[Path, typer.Argument(help="Avatar file (.safetensors) made by `ffavatar reconstruct`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write (.html).")],
    motion: Annotated[Path | None, typer.Option(help="Motion file (.json, .npz) that the page plays.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Head avatar",
    background: Annotated[str, typer.Option(help="white, black, grey, green, #rrggbb or transparent.")] = "white",
    allow_flame: Annotated[bool, typer.Option(help="Write an avatar on a FLAME basis, for your own use only.")] = False,
) -> None:
    """Write one self-contained page with the viewer and the avatar; it opens from disk, without any network."""
    from ffavatar.drive.motion import Motion
    from ffavatar.export.html import export_html as write
    from ffavatar.files import check_output_file

    colour, clear = parse_background(background)
    check_output_file(output)
    person = load_avatar(avatar)
    clip = Motion.load(motion) if motion else None
    code = "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)
    write(person, output, clip, title, "transparent" if clear else code, allow_flame)
    typer.echo(f"{output}: {megabytes(output)}, open it in a browser")
    unmatched = clip.unmatched(person.rig.head) if clip else []
    if unmatched:
        shown = ", ".join(unmatched[:3])
        typer.echo(
            f"ffavatar: {len(unmatched)} expressions of the motion are unknown to this head, such as {shown}.", err=True
        )
