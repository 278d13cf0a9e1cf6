"""What a command says while it works and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr with rate and time left; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def advance(done: int, total: int | None) -> None:
            speed = bar.tasks[0].speed
            # A count from a container is an estimate: never show more than all.
            whole = None if total is None else max(total, done)
            bar.update(task, completed=done, total=whole, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


def one_line(text: object) -> str:
    """Text without line breaks, for messages of one sentence."""
    return " ".join(str(text).split())


def print_notes(notes: Sequence[str]) -> None:
    """Remarks on the work, on stderr."""
    for note in notes:
        typer.echo(f"ffavatar: {one_line(note)}", err=True)
