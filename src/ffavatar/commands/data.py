"""``ffavatar prepare``: anybody's pictures of people to shards, and a look at what shards hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.commands.options import RayOption, WorkersOption
from ffavatar.commands.progress import progress
from ffavatar.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ffavatar.data.shards import ShardWriter
    from ffavatar.types import Views

OutOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of shards to write, or to go on with.")]
AssetsOption = Annotated[Path | None, typer.Option(help="Folder of MakeHuman artwork; procedural without it.")]
SizeOption = Annotated[int, typer.Option(min=64, max=1024, help="Side of the head crops in pixels.")]
LicenceOption = Annotated[str, typer.Option(help="Licence or terms of the data, kept in the manifest.")]
LensOption = Annotated[
    bool, typer.Option("--undistort/--as-taken", help="Take the calibration's lens distortion out of the pictures.")
]
ShardOption = Annotated[int, typer.Option(min=1, help="Megabytes after which a new shard begins.")]


def synthetic(
    output: OutOption,
    people: Annotated[int, typer.Option(min=1, help="How many people.")] = 8,
    shots: Annotated[int, typer.Option(min=1, help="Pictures per person.")] = 14,
    around: Annotated[int, typer.Option(min=0, help="Further pictures per person, turned anywhere about.")] = 0,
    size: SizeOption = 256,
    seed: Annotated[int, typer.Option(min=0, help="The first person's seed; the others follow.")] = 0,
    assets: AssetsOption = None,
    pack: Annotated[Path | None, typer.Option(help="Pack this folder of person_SEED.npz instead of drawing.")] = None,
    workers: WorkersOption = 1,
    shard_mb: ShardOption = 256,
) -> None:
    """Synthetic people with exact labels and what the photo front end sees in them."""
    from ffavatar.data.people import pack_synthetic, prepare_synthetic

    _one_torch_thread()
    with progress("people") as advance:
        if pack is not None:
            writer = pack_synthetic(pack, output, shard_mb << 20, advance)
        else:
            folder = None if assets is None else str(assets)
            writer = prepare_synthetic(
                output, people, shots, size, seed, folder, True, workers, shard_mb << 20, advance, around
            )  # fmt: skip
    _told(output, writer)


def synthetic_bench(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, or to go on with.")],
    people: Annotated[int, typer.Option(min=1, max=64, help="How many of the 64, the first so many.")] = 64,
    size: SizeOption = 512,
    assets: AssetsOption = None,
    workers: WorkersOption = 1,
) -> None:
    """The held-out people of synthetic-bench, pinned by seed, for `ffavatar evaluate --protocol synthetic-bench`."""
    from ffavatar.data.synthetic.bench import write_bench

    _one_torch_thread()
    with progress("people") as advance:
        folder = None if assets is None else str(assets)
        made = write_bench(output, people, size, folder, workers, lambda done, total, _: advance(done, total))
    typer.echo(f"{output}: {made} people drawn; 8 source views and 24 targets of each")


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
    with progress("people") as advance:
        writer = prepare_photos(folder, output, licence, size, fewest, workers, shard_mb << 20, advance)
    _told(output, writer)


def video(
    source: Annotated[Path, typer.Argument(help="Folder of films, or a text file with one film per line.")],
    output: OutOption,
    work: Annotated[Path | None, typer.Option(help="Folder for the faces of finished films; OUTPUT-work.")] = None,
    licence: LicenceOption = "unknown",
    size: SizeOption = 512,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames of each person at most.")] = 8,
    fewest: Annotated[int, typer.Option(min=1, help="Leave out people with fewer different frames.")] = 3,
    workers: WorkersOption = 1,
    ray: RayOption = None,
    shard_mb: ShardOption = 256,
) -> None:
    """Films of people: shots, face tracks, quality gates, identities over all films, frames that differ most."""
    from ffavatar.data.video.curate import Plan, curate, list_films

    _one_torch_thread()
    films = list_films(source)
    place = output.with_name(f"{output.name}-work") if work is None else work
    plan = Plan(size, frames, fewest, licence, workers, shard_mb << 20, ray)
    with progress("films") as advance:
        total = curate(films, output, place, plan, identity_embedding, advance)
    for reason, count in sorted(total.refused.items(), key=lambda pair: -pair[1]):
        typer.echo(f"left out {count}: {reason}")
    rate = f", {total.frames / total.seconds:.1f} frames per second and core" if total.seconds else ""
    typer.echo(f"{output}: {total.people} people of {total.tracks} tracks in {total.films} films{rate}")
    typer.echo(f"{output / 'people.html'}: every person's frames")


def identity_embedding() -> Callable[[Views], Tensor]:
    """The identity network, as the curation of films asks for it; fetched on first use."""
    from ffavatar.evaluate.identity import load_identity

    net = load_identity()
    return lambda views: net.embed(views.images, views.landmarks)


def ava256(
    root: Annotated[Path, typer.Argument(help="Folder with CAPTURE/decoder/...", metavar="FOLDER")],
    output: OutOption,
    split: Annotated[Path | None, typer.Option(help="Split file; with it only the people of --part.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split file.")] = "train",
    frames: Annotated[int, typer.Option(min=1, help="Frames, spread over each capture.")] = 8,
    cameras: Annotated[int, typer.Option(min=2, help="Cameras, spread over each capture's list.")] = 16,
    undistort: LensOption = True,
    size: SizeOption = 512,
    workers: WorkersOption = 1,
    shard_mb: ShardOption = 256,
) -> None:
    """Ava-256 as downloaded: calibrated head crops in head space, the chair masked out."""
    from ffavatar.data.captures.prepare import prepare_ava, read_split

    _one_torch_thread()
    people = None if split is None else read_split(split, part)
    with progress("captures") as advance:
        writer = prepare_ava(
            root, output, people, frames, None, cameras, size, workers, shard_mb << 20, advance, undistort
        )  # fmt: skip
    _told(output, writer)


def nersemble(
    root: Annotated[Path, typer.Argument(help="Folder with ID/calibration and ID/sequences.", metavar="FOLDER")],
    output: OutOption,
    split: Annotated[str | None, typer.Option(help="Split file, or nersemble_benchmark.")] = None,
    part: Annotated[str, typer.Option(help="Part of the split file.")] = "people",
    sequences: Annotated[str | None, typer.Option(help="Only these: NAME,NAME.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames, spread over each sequence.")] = 2,
    cameras: Annotated[str | None, typer.Option(help="Only these serials: SERIAL,SERIAL.")] = None,
    undistort: LensOption = True,
    size: SizeOption = 512,
    workers: WorkersOption = 1,
    shard_mb: ShardOption = 256,
) -> None:
    """NeRSemble v2 as downloaded: calibrated head crops in head space, colours corrected."""
    from ffavatar.data.captures.nersemble import SERIALS
    from ffavatar.data.captures.prepare import prepare_nersemble, read_split

    _one_torch_thread()
    people = None if split is None else read_split(split, part)
    chosen = SERIALS if cameras is None else tuple(cameras.split(","))
    names = None if sequences is None else sequences.split(",")
    with progress("people") as advance:
        writer = prepare_nersemble(
            root, output, people, names, frames, chosen, size, workers, shard_mb << 20, advance, undistort
        )  # fmt: skip
    _told(output, writer)


def split(
    shards: Annotated[Path, typer.Argument(help="Download of Ava-256 or NeRSemble.", metavar="FOLDER")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Split file to write (.json).")],
    held_out: Annotated[int, typer.Option(min=1, help="How many people are held out.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Draws who.")] = 0,
) -> None:
    """Draw a seeded split of a download's people into train and held_out."""
    from ffavatar.data.captures.ava256 import list_captures
    from ffavatar.data.captures.nersemble import list_people
    from ffavatar.data.captures.prepare import make_split, write_split

    names = list_people(shards) if any(shards.glob("*/calibration/camera_params.json")) else list_captures(shards)
    parts = make_split(names, held_out, seed)
    write_split(output, parts, seed)
    typer.echo(f"{output}: {len(parts['train'])} people to train on, {len(parts['held_out'])} held out")


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
            shown.append((f"{sample.key}\n{len(sample)} views", some.on_white()))
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


PREPARE: tuple[Callable[..., None], ...] = (
    synthetic,
    synthetic_bench,
    photos,
    video,
    ava256,
    nersemble,
    split,
    inspect,
)
"""The commands below ``ffavatar prepare``."""


def _told(output: Path, writer: ShardWriter) -> None:
    manifest = writer.manifest
    for reason, count in sorted(manifest.refused.items()):
        typer.echo(f"left out {count}: {reason}")
    typer.echo(f"{output}: {manifest.samples} people, {manifest.views} views in {len(manifest.shards)} shards")


def _one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)  # pictures are small: processes, not threads, use the cores
