"""``ffavatar export``: an avatar in other people's formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.options import AllowFlameOption, ExpressionOption, PitchOption, RollOption, YawOption
from ffavatar.commands.parsing import load_avatar, megabytes, parse_expressions
from ffavatar.commands.progress import print_unmatched
from ffavatar.drive.background import parse_background


def export(
    avatar: Annotated[Path, typer.Argument(help="Avatar file (.safetensors) made by `ffavatar reconstruct`.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write; its ending chooses the format: .ply, .spz, .splat, .glb, .mesh.glb, .obj, .zip (LAM), "
            ".usda, .html (page with viewer), "
            "a picture (.png, .jpg, .webp), a film (.mp4, .mov, .webm, .gif, .webp), or a folder of PNGs.",
        ),
    ],
    motion: Annotated[
        Path | None, typer.Option(help="Motion file (.json, .npz): for films, animated .glb, and with --frame.")
    ] = None,
    frame: Annotated[
        int | None, typer.Option(help="The moment of the motion, counted from 0; negative from its end.")
    ] = None,
    yaw: YawOption = 0,
    pitch: PitchOption = 0,
    roll: RollOption = 0,
    expression: ExpressionOption = None,
    scale: Annotated[float, typer.Option(help="Units per metre in 3D files.")] = 1.0,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of pictures and films in pixels.")] = 512,
    background: Annotated[
        str, typer.Option(help="Of pictures and films: white, black, grey, green, #rrggbb or transparent.")
    ] = "white",
    allow_flame: AllowFlameOption = False,
) -> None:
    """Write an avatar for other programs: Gaussians, rigged GLB, mesh, film. Without a pose or motion it is at rest."""
    from ffavatar.drive.film import FilmStyle
    from ffavatar.drive.motion import Motion
    from ffavatar.drive.pose import posed
    from ffavatar.export.formats import check_export
    from ffavatar.export.formats import export as write
    from ffavatar.export.options import ExportOptions

    colour, alpha = parse_background(background)
    style = FilmStyle(size, colour, alpha)
    values = parse_expressions(expression or [])
    check_export(output, ExportOptions(style=style))
    person = load_avatar(avatar)
    pose = posed(person, (yaw, pitch, roll), values) if (yaw or pitch or roll or values) else None
    track = Motion.load(motion) if motion is not None else None
    write(person, output, ExportOptions(pose, track, frame, scale, allow_flame, style))
    typer.echo(f"{output}: {len(person):,} Gaussians, {megabytes(output)}")
    if track is not None:
        print_unmatched(track.unmatched(person.rig.head))
