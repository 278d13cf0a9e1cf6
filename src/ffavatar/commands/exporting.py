"""``ffavatar export``: an avatar in other people's formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.commands.options import (
    AllowFlameOption,
    ExpressionOption,
    FlameOption,
    PitchOption,
    RollOption,
    YawOption,
)
from ffavatar.commands.parsing import file_size, film_length, load_avatar, need_even, parse_expressions, refuse_given
from ffavatar.commands.progress import print_notes
from ffavatar.drive.background import parse_background
from ffavatar.errors import InputError

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.motion import Motion


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
        Path | None, typer.Option(help="Motion of any program: for films, animated .glb, and with --frame.")
    ] = None,
    frame: Annotated[
        int | None, typer.Option(help="The moment of the motion, counted from 0; negative from its end.")
    ] = None,
    flame: FlameOption = None,
    yaw: YawOption = 0,
    pitch: PitchOption = 0,
    roll: RollOption = 0,
    expression: ExpressionOption = None,
    scale: Annotated[float, typer.Option(help="Units per metre in 3D files.")] = 1.0,
    size: Annotated[
        int | None, typer.Option(min=64, max=4096, help="Side of pictures and films in pixels (512).")
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help="Of pictures and films: white (the default), black, grey, green, #rrggbb or transparent."),
    ] = None,
    allow_flame: AllowFlameOption = False,
) -> None:
    """Write an avatar for other programs: Gaussians, rigged GLB, mesh, film. Without a pose or motion it is at rest."""
    from ffavatar.drive.film import FilmStyle
    from ffavatar.drive.pose import posed
    from ffavatar.export.formats import check_export, format_of
    from ffavatar.export.formats import export as write
    from ffavatar.export.options import ExportOptions
    from ffavatar.files import refuse_overwriting

    _check_options(output, scale=None if scale == 1 else scale, size=size, background=background)
    refuse_overwriting(output, avatar, motion, flame)
    if motion is None:
        refuse_given("is for a --motion that is a FLAME track", flame=flame)
    moves = format_of(output).film
    colour, alpha = parse_background(background or "white")
    if moves:
        need_even(size, output, alpha)
    style = FilmStyle(size, colour, alpha)
    values = parse_expressions(expression or [])
    check_export(output, ExportOptions(style=style))
    person = load_avatar(avatar)
    pose = posed(person, (yaw, pitch, roll), values) if (yaw or pitch or roll or values) else None
    track, notes = _motion_for(person, motion, flame) if motion is not None else (None, ())
    write(person, output, ExportOptions(pose, track, frame, scale, allow_flame, style))
    length = f"{film_length(len(track), track.fps)}, " if moves and track is not None else ""
    typer.echo(f"{output}: {len(person):,} Gaussians, {length}{file_size(output)}")
    print_notes(notes)


def _check_options(output: Path, **given: object) -> None:
    """Raises ``InputError`` for the options that the format would not heed, as the server does."""
    from ffavatar.export.formats import ending_of
    from ffavatar.export.rules import FOLDER, why_not

    kind = ending_of(output).removeprefix(".") or FOLDER
    for option in ("scale", "size", "background"):
        if given[option] is not None and (why := why_not(kind, option)):
            raise InputError(f"{output}: --{option}: {why}")


def _motion_for(person: Avatar, path: Path, flame: Path | None) -> tuple[Motion, tuple[str, ...]]:
    """Any program's motion for the avatar's head, and what could not be carried over."""
    from ffavatar.drive.formats import read_motion
    from ffavatar.drive.options import DriveOptions
    from ffavatar.drive.retarget import carried_over

    found = read_motion(path)
    if not found.head_edition.startswith("flame"):
        refuse_given(f"is for FLAME tracks, and {path} is none", flame=flame)
    return carried_over(found, person.rig, DriveOptions(flame=flame))
