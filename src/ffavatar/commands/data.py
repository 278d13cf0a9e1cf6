"""``ffavatar prepare``: anybody's pictures of people to shards, and a look at what shards hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.errors import InputError

if TYPE_CHECKING:
    from ffavatar.data.shards import ShardWriter

OutOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of shards to write, or to go on with.")]
SizeOption = Annotated[int, typer.Option(min=64, max=1024, help="Side of the head crops in pixels.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes.")]
LicenceOption = Annotated[str, typer.Option(help="Licence or terms of the data, kept in the manifest.")]
ShardOption = Annotated[int, typer.Option(min=1, help="Megabytes after which a new shard begins.")]


def synthetic(
    output: OutOption,
    people: Annotated[int, typer.Option(min=1, help="How many people.")] = 8,
    shots: Annotated[int, typer.Option(min=1, help="Pictures per person.")] = 14,
    size: SizeOption = 256,
    seed: Annotated[int, typer.Option(min=0, help="The first person's seed; the others follow.")] = 0,
    assets: Annotated[Path | None, typer.Option(help="Folder of MakeHuman artwork; procedural without it.")] = None,
    pack: Annotated[Path | None, typer.Option(help="Pack this folder of person_SEED.npz instead of drawing.")] = None,
    workers: WorkersOption = 1,
    shard_mb: ShardOption = 256,
) -> None:
    """Synthetic people with exact labels and what the photo front end sees in them."""
    from ffavatar.data.people import pack_synthetic, prepare_synthetic

    _one_torch_thread()
    with _progress("people") as advance:
        if pack is not None:
            writer = pack_synthetic(pack, output, shard_mb << 20, advance)
        else:
            folder = None if assets is None else str(assets)
            writer = prepare_synthetic(
                output, people, shots, size, seed, folder, True, workers, shard_mb << 20, advance
            )  # fmt: skip
    _told(output, writer)


def photos(
    folder: Annotated[Path, typer.Argument(help="One subfolder of photos per person.", metavar="FOLDER")],
    output: OutOption,
    licence: LicenceOption = "unknown",
    size: SizeOption = 512,
    fewest: Annotated[int, typer.Option(min=1, help="Leave out people with fewer usable photos.")] = 1,
    workers: WorkersOption = 1,
    shard_mb: ShardOption = 256,
) -> None:
    """Folders of photos, one per person: cropped, matted, with landmarks; reasons of refusal are counted."""
    from ffavatar.data.people import prepare_photos

    _one_torch_thread()
    with _progress("people") as advance:
        writer = prepare_photos(folder, output, licence, size, fewest, workers, shard_mb << 20, advance)
    _told(output, writer)


def inspect(
    shards: Annotated[Path, typer.Argument(help="Folder of shards.", metavar="SHARDS")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Contact sheet to write (.png).")] = None,
    people: Annotated[int, typer.Option(min=1, max=100, help="People on the sheet.")] = 12,
    views: Annotated[int, typer.Option(min=1, max=32, help="Views of each at most.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Which people: another seed shows others.")] = 0,
    check: Annotated[bool, typer.Option("--check", help="Compare every shard with its sha256.")] = False,
) -> None:
    """What a folder of shards holds, in numbers and as a contact sheet of people on white."""
    from ffavatar.data.shards import ShardReader

    reader = ShardReader(shards, seed)
    manifest = reader.manifest
    rows = [
        ("kind", manifest.provenance.kind), ("source", manifest.provenance.source),
        ("licence", manifest.provenance.licence), ("people", f"{manifest.samples:,}"), ("views", f"{manifest.views:,}"),
        ("shards", f"{len(manifest.shards)}, {sum(s.bytes for s in manifest.shards) / 1e6:.1f} MB"),
    ]  # fmt: skip
    rows += [("left out", f"{count}: {reason}") for reason, count in sorted(manifest.refused.items())]
    if output is not None:
        if output.suffix.lower() != ".png":
            raise InputError(f"{output}: a contact sheet is written as .png; change the file name's ending.")
        from ffavatar.evaluate.sheet import contact_sheet

        shown = []
        for sample in reader:
            some = sample.views(list(range(min(views, len(sample)))))
            shown.append((f"{sample.key[-14:]}\n{len(sample)} views", some.on_white()))
            if len(shown) == people:
                break
        contact_sheet(output, shown, f"{shards.name}: {manifest.samples:,} people, {manifest.provenance.licence}")
    damaged = [*reader.damaged, *(reader.verify() if check else [])]
    rows += [("damaged", f"{d.shard} {d.key}: {d.reason}") for d in damaged]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")
    if damaged:
        raise InputError(f"{shards} is damaged in {len(damaged)} places; make the shards again or leave them out.")


PREPARE: tuple[Callable[..., None], ...] = (synthetic, photos, inspect)
"""The commands below ``ffavatar prepare``."""


def _told(output: Path, writer: ShardWriter) -> None:
    manifest = writer.manifest
    for reason, count in sorted(manifest.refused.items()):
        typer.echo(f"left out {count}: {reason}")
    typer.echo(f"{output}: {manifest.samples} people, {manifest.views} views in {len(manifest.shards)} shards")


def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)  # pictures are small: processes, not threads, use the cores


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
