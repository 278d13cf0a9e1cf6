"""Commands about the browser viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_html(
    avatar: Annotated[Path, typer.Argument(help="Avatar file (.safetensors) made by `ffavatar reconstruct`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write (.html).")],
    motion: Annotated[Path | None, typer.Option(help="Motion file (.json, .npz) that the page plays.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Head avatar",
    background: Annotated[str, typer.Option(help="#rrggbb or transparent.")] = "#ffffff",
    allow_flame: Annotated[bool, typer.Option(help="Write an avatar on a FLAME basis, for your own use only.")] = False,
) -> None:
    """Write one self-contained page with the viewer and the avatar; it opens from disk, without any network."""
    from ffavatar.avatar import Avatar
    from ffavatar.drive.motion import Motion
    from ffavatar.export.html import export_html as write
    from ffavatar.files import check_output_file

    check_output_file(output)
    person = Avatar.load(avatar)
    clip = Motion.load(motion) if motion else None
    write(person, output, clip, title, background, allow_flame)
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, open it in a browser")
