"""``ffavatar serve``: the page and the HTTP interface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.options import WeightsOption


def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this computer; 0 takes a free one.")] = 8460,
    host: Annotated[str, typer.Option(help="Address to listen on; other than this computer's own need a --token.")] = (
        "127.0.0.1"
    ),
    token: Annotated[
        str | None,
        typer.Option(envvar="FFAVATAR_TOKEN", help="What programs and browsers must show; at least 16 characters."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where avatars are kept; by default where this system keeps programs' data.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    keep_uploads: Annotated[
        float, typer.Option(min=0.1, help="Minutes after which uploaded photos and films are deleted.")
    ] = 60.0,
    keep_results: Annotated[
        float, typer.Option(min=0.1, help="Hours after which exported files and films are deleted.")
    ] = 168.0,
    queue: Annotated[int, typer.Option(min=1, max=1000, help="Jobs that may wait; others are told to return.")] = 16,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which browsers reach this server; can be given again.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="auto, cpu, mps, cuda, cuda:0, ...; given again, each one works on jobs of its own."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=5000, help="At most so many steps of personalization.")] = 200,
    grace: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds that a running job may go on after the server is stopped.")
    ] = 10.0,
    webcam: Annotated[Path | None, typer.Option(help="Folder with the webcam tracker's files (docs/serve.md).")] = None,
    weights: WeightsOption = None,
) -> None:
    """Open a page in the browser that makes avatars from photos; the same over HTTP for programs."""
    import re
    from dataclasses import replace

    from ffavatar.errors import InputError
    from ffavatar.serve.server import run
    from ffavatar.serve.settings import Settings, default_folder

    devices = tuple(device or ("auto",))
    for name in devices:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
            raise InputError(f"{name!r} is no device; give auto, cpu, mps, cuda or cuda:NUMBER.")
    if webcam is not None and not (webcam / "vision_bundle.mjs").is_file():
        raise InputError(f"{webcam} holds no vision_bundle.mjs; give the folder with the webcam tracker's files.")
    settings = Settings(
        folder=(folder or default_folder()).expanduser().resolve(),
        host=host,
        port=port,
        token=token,
        allowed_hosts=tuple(allowed_host or ()),
        devices=devices,
        weights=weights.resolve() if weights is not None else None,
        webcam=webcam,
        keep_uploads_s=60 * keep_uploads,
        keep_results_s=3600 * keep_results,
        personal_steps=steps,
        grace_s=grace,
    )
    run(replace(settings, limits=replace(settings.limits, queue=queue)), typer.echo, browser)
