"""``ffavatar submission``: rendered pictures to a submission of the NeRSemble benchmark, or a check of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.progress import progress
from ffavatar.errors import InputError


def submission(
    source: Annotated[
        Path, typer.Argument(help="Folder with ID/SEQUENCE/cam_SERIAL/ of pictures; or a .zip to check.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Submission to write (.zip).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Download of the benchmark: numbers of frames and background are its own.")
    ] = None,
) -> None:
    """Write or check a submission to the NeRSemble benchmark's monocular avatar task."""
    from ffavatar.drive.video import existing_input
    from ffavatar.evaluate.submission import check_submission, mono_avatar, write_submission

    existing_input(source)
    films = len(mono_avatar().films())
    if output is not None:
        with progress("films") as advance:
            write_submission(source, output, data, progress=advance)
        typer.echo(f"{output}: {films} films, ready to be submitted")
        return
    problems = check_submission(source, data)
    for problem in problems[:20]:
        typer.echo(problem)
    if problems:
        raise InputError(f"{source} would be refused for {len(problems)} reasons; correct them.")
    typer.echo(f"{source}: {films} films, nothing is wrong with their names, sizes and numbers of frames")
