"""``ffavatar reconstruct --many``: avatars of everybody in a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ffavatar.commands.progress import one_line, progress
from ffavatar.errors import InputError

if TYPE_CHECKING:
    from ffavatar.bulk import Person, Plan
    from ffavatar.jobs import Crew

SHOWN = 10


def run_many(people: Sequence[Person], output: Path, plan: Plan, device: str, crew: Crew) -> None:
    """Make them, and say how many there are, who has none, and how long it took."""
    import torch

    from ffavatar.api import choose_device
    from ffavatar.bulk import FAILURES, MANIFEST, reconstruct_many

    torch.set_num_threads(1)  # a small model: processes, not threads, use the cores
    with progress("people") as advance:
        summary = reconstruct_many(people, output, replace(plan, device=choose_device(device)), crew, advance)
    without = [record for record in summary.records if record.state != "done"]
    for record in without[:SHOWN]:
        typer.echo(f"{record.state}  {record.person}: {one_line(record.reason)}")
    if len(without) > SHOWN:
        typer.echo(f"... and {len(without) - SHOWN} others")
    each = f", {summary.seconds / summary.made:.1f} s of a core each" if summary.made else ""
    count = summary.count("done")
    typer.echo(f"{output}: {count:,} avatars of {len(people):,} people, {summary.made:,} made now{each}")
    typer.echo(f"{output / MANIFEST}: everybody; {output / FAILURES}: {len(without):,} without an avatar, and why")
    if not count:
        raise InputError(f"Nobody of {len(people):,} people has an avatar; see {output / FAILURES} for the reasons.")
