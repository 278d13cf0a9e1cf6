"""Whether photos show one person, and what a command says of the photos it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.commands.progress import one_line, print_notes

if TYPE_CHECKING:
    from ffavatar.drive.choose import Choice, Embed

IdentityOption = Annotated[
    bool | None,
    typer.Option(
        help="Check by the identity network that all photos show one person (fetched if need be); by default where it "
        "is in the cache."
    ),
]


def identity_check(wanted: bool | None, device: str) -> Embed | None:
    """The identity network: fetched where it is asked for, and by default used where it is in the cache already."""
    from ffavatar.evaluate.identity import cached_embedding, load_identity

    if wanted:
        load_identity(device)  # fetches it; says what is wrong where that fails
    return None if wanted is False else cached_embedding(device)


def print_choice(choice: Choice, wanted: bool | None = None, fewest: int = 2) -> None:
    """A line for each photo that is used or cannot be, one for all that were not needed, and whether they were
    compared; that matters from ``fewest`` views on."""
    from ffavatar.photo.report import CHOOSES

    shown = [(photo, kept) for photo, kept in choice.rows if kept or not photo.usable]
    width = max(len(photo.name) for photo, _ in shown)
    for photo, kept in shown:
        seen = f"yaw {photo.report.yaw_deg:+4.0f}\u00b0  " if photo.report and photo.report.faces else ""
        reason = photo.reason
        if photo.report is not None and CHOOSES in reason:
            reason = reason.replace(
                CHOOSES, f"--face N chooses who is meant ({photo.report.faces} faces, counted from 0)"
            )
        typer.echo(f"{'kept   ' if kept else 'refused'}  {photo.name:<{width}}  {seen}{one_line(reason)}")
    if choice.spare:
        typer.echo(choice.spare)
    print_notes(choice.notes)
    if len(choice.views) >= fewest and not choice.identity_checked and wanted is None:
        typer.echo(
            "Whether all photos show the same person was not checked: the identity network is not in the cache; "
            "--identity fetches it."
        )
