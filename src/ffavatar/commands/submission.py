"""``ffavatar submission``: a submission to the NeRSemble benchmark, of our avatars or of any rendered pictures; or a
check of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.options import Device, DeviceOption, FlameOption, WeightsOption
from ffavatar.commands.progress import print_notes, progress
from ffavatar.errors import InputError


def submission(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder with ID/SEQUENCE/cam_SERIAL/ of pictures (--render writes them); or a .zip to check."
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Submission to write (.zip).")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Download of the benchmark: numbers of frames and background are its own.")
    ] = None,
    render: Annotated[
        bool, typer.Option("--render", help="First draw FFAvatar's own avatars, made of and driven by --data. Resumes.")
    ] = False,
    views: Annotated[int, typer.Option(min=1, max=16, help="With --render: training frames of an avatar.")] = 4,
    size: Annotated[int, typer.Option(min=64, max=1024, help="With --render: side of their crops in pixels.")] = 512,
    flame: FlameOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Write or check a submission to the NeRSemble benchmark's monocular avatar task."""
    from ffavatar.drive.video import existing_input
    from ffavatar.evaluate.submission import check_submission, mono_avatar, write_submission

    if render:
        if data is None:
            raise InputError(
                "--render draws avatars of the benchmark's people; give the benchmark's download as --data."
            )
        _render(data, source, views, size, flame, weights, device)
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


def _render(
    data: Path, out: Path, views: int, size: int, flame: Path | None, weights: Path | None, device: Device
) -> None:
    from ffavatar.api import choose_device, model_for
    from ffavatar.evaluate.flame_benchmark import RenderPlan, render_benchmark
    from ffavatar.weights import sha256_of

    model = model_for(str(weights) if weights else None, choose_device(device.value))
    plan = RenderPlan(views, size, None, flame, sha256_of(weights)[:16] if weights else "shipped")
    with progress("drawing") as advance:
        drawn = render_benchmark(data, out, model, plan, progress=advance)
    for row in drawn:
        frames = f"{row.frames} training frame{'s' if row.frames > 1 else ''}"
        typer.echo(
            f"{row.person}: avatar of {frames}, within {row.alignment.error:.1%} of the face's width of its track"
        )
    print_notes(list(dict.fromkeys(note for row in drawn for note in row.notes)))
