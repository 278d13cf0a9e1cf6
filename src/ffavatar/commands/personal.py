"""``ffavatar personalize``: an avatar fitted further to photos of its person."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.commands.options import (
    AllowFlameOption,
    AvatarFile,
    Device,
    DeviceOption,
    FaceOption,
    WeightsOption,
    face_choice,
)
from ffavatar.commands.parsing import counted, file_size, load_avatar, need_suffix
from ffavatar.commands.people import IdentityOption, identity_check, print_choice
from ffavatar.commands.progress import print_notes, progress
from ffavatar.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ffavatar.avatar import Avatar
    from ffavatar.evaluate.lpips import LPIPS
    from ffavatar.model import FFAvatar
    from ffavatar.personal import Personalized, PersonalRecipe
    from ffavatar.types import Views


EXIT_INTERRUPTED = 130  # as of every command (``cli.py``), here after the best so far was written


def personalize(
    avatar: AvatarFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Avatar file to write (.safetensors).")],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos of the avatar's person, or folders of them.", metavar="[PHOTO]..."),
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A video of the person, instead of photos.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=5000, help="At most so many steps.")] = 500,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of the compared pictures in pixels.")] = 256,
    views: Annotated[int, typer.Option(min=1, max=64, help="At most so many views are used.")] = 16,
    seed: Annotated[
        int, typer.Option(min=0, help="Order in which views are taken; the same seed, the same avatar.")
    ] = 0,
    guard: Annotated[
        bool, typer.Option(help="With three views or more, hold one out to choose the number of steps.")
    ] = True,
    perceptual: Annotated[
        bool | None,
        typer.Option(help="Use the perceptual net (fetched if need be); by default where it is in the cache."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Picture (.png) of the photos, before and after.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from after an interruption; removed at the end.")
    ] = None,
    face: FaceOption = None,
    identity: IdentityOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
    allow_flame: AllowFlameOption = False,
) -> None:
    """Fit an avatar further to photos of its person, or to a video. Ctrl-C keeps what was reached (exit code 130)."""
    from ffavatar.files import check_output_file, refuse_overwriting

    need_suffix(output, (".safetensors",), "an avatar")
    check_output_file(output)
    if report is not None:
        need_suffix(report, (".png",), "a report picture")
        check_output_file(report)
    if checkpoint is not None:
        check_output_file(checkpoint)
    if bool(photos) == (video is not None):
        raise InputError("Give either photos of the person, or a --video.")
    for written in (output, report, checkpoint):
        if written is not None:
            refuse_overwriting(written, avatar, video, weights, *(photos or []))
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.choose import StrangersError, choose_views
    from ffavatar.drive.likeness import avatar_embedding
    from ffavatar.personal import PersonalRecipe
    from ffavatar.photo import FrontEnd

    place = choose_device(device.value)
    person = load_avatar(avatar, place)
    model = model_for(str(weights) if weights else None, place)
    if person.rig.head.edition != model.head.edition:
        raise InputError(
            f"{avatar} stands on the head {person.rig.head.edition}, the model reads {model.head.edition}; "
            "reconstruct the avatar with this model first."
        )
    eyes, embed = FrontEnd(place), identity_check(identity, place)
    whose = avatar_embedding(person, eyes, embed) if embed is not None else None
    try:
        with progress("looking at photos") as advance:
            choice = choose_views(
                [video] if video else photos or [], eyes, 512, face_choice(face), views, embed, advance, avatar=whose
            )  # fmt: skip
    except StrangersError as error:
        raise InputError(f"{error} Where you are sure that they are, --no-identity leaves this check out.") from None
    print_choice(choice, identity, fewest=1)
    if embed is not None and whose is None:
        print_notes([f"{avatar}: its picture shows no face that could be compared with the photos."])
    given = choice.views.to(place)
    recipe = PersonalRecipe(steps=steps, size=size, seed=seed, guard=guard)
    net = perceptual_net(perceptual, place)
    fit_and_save(model, person, given, recipe, output, net, checkpoint, report, allow_flame)


def fit_and_save(
    model: FFAvatar,
    person: Avatar,
    given: Views,
    recipe: PersonalRecipe,
    output: Path,
    perceptual: LPIPS | None,
    checkpoint: Path | None = None,
    report: Path | None = None,
    allow_flame: bool = False,
) -> None:
    """Personalize, write the avatar and say what was gained; after Ctrl-C the same with the best so far, then exit."""
    from ffavatar.personal import personalize as run

    start, preview = time.monotonic(), _Preview()
    with progress("personalizing") as advance:
        made = run(model, person, given, recipe, advance, checkpoint, perceptual, preview)
    seconds = time.monotonic() - start
    made.avatar.save(output, allow_flame=allow_flame)
    if not made.finished:
        equal = "no step that helps was finished, so it equals the input"
        reached = equal if _same(made.avatar, person) else "this is the best so far"
        kept = ", and the checkpoint is kept" if checkpoint is not None and checkpoint.is_file() else ""
        print_notes([f"interrupted; {reached}{kept}."])
    else:
        for line in _outcome(model, person, made, given, recipe.size, report, perceptual):
            typer.echo(line)
    work = f"{counted(made.steps, 'step')} over {counted(len(given), 'view')}"
    typer.echo(f"{output}: {work} in {seconds:.0f} s{preview}, {file_size(output)}")
    if not made.finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def _same(one: Avatar, other: Avatar) -> bool:
    """But for rounding: no step changes so little."""
    pairs = zip(vars(one.canonical).values(), vars(other.canonical).values(), strict=True)
    return all(a.shape == b.shape and bool(((a - b).abs() < 1e-5).all()) for a, b in pairs)


class _Preview:
    """Remembers when the first preview was there."""

    def __init__(self) -> None:
        self.begun, self.seconds = time.monotonic(), 0.0

    def __call__(self, avatar: Avatar, step: int) -> None:
        self.seconds = self.seconds or time.monotonic() - self.begun

    def __str__(self) -> str:
        return f" (the first preview after {self.seconds:.1f} s)" if self.seconds else ""


def perceptual_net(wanted: bool | None, device: str) -> LPIPS | None:
    """The perceptual net: fetched where it is asked for, and by default used where it is in the cache already."""
    from ffavatar.evaluate.lpips import ALEX, load_lpips

    return load_lpips("alex", device) if wanted or (wanted is None and ALEX.path.is_file()) else None


def _outcome(
    model: FFAvatar,
    before: Avatar,
    made: Personalized,
    views: Views,
    size: int,
    report: Path | None,
    perceptual: LPIPS | None,
) -> list[str]:
    """What was gained on the views themselves and on the one held out; writes the picture if one is asked for."""
    from ffavatar.evaluate.metrics import psnr, ssim
    from ffavatar.evaluate.sheet import contact_sheet
    from ffavatar.pipeline import animate, drive, targets_on_white

    goal, _, valid = targets_on_white(views, size)
    mask = valid[..., 0]
    read = drive(model, before, views)
    lines, rows = [], [("photos", goal.cpu())]
    shown = (
        ("before, driven", before, read),
        ("after, driven", made.avatar, read),
        ("after, refined", made.avatar, made.params),
    )
    for name, avatar, params in shown:
        images = animate(avatar, params, size).images.clamp(0, 1) * valid + (1 - valid)
        decibels, similar = float(psnr(images, goal, mask).mean()), float(ssim(images, goal, mask).mean())
        unlike = "" if perceptual is None else f"  LPIPS {_unlikeness(perceptual, images, goal):.3f}"
        lines.append(f"{name:<15} PSNR {decibels:5.2f} dB  SSIM {similar:.3f}{unlike}  (the given photos)")
        rows.append((sheet_label(name, decibels), images.cpu()))
    if made.checks:
        first, last = made.checks[0], [check for check in made.checks if check.step <= made.steps][-1]
        lines.append(
            f"held-out view   loss {first.loss:.4f} before, {last.loss:.4f} after {last.step} steps of the trial"
        )
    if report is not None:
        contact_sheet(report, rows, "Personalization")
        lines.append(f"{report}: photos, before and after")
    return lines


def sheet_label(name: str, decibels: float) -> str:
    """A row's label in lines of its own: the sheet would break long ones inside a word."""
    broken = name.replace(", ", ",\n")
    return f"{broken}\n{decibels:.2f} dB"


def _unlikeness(net: LPIPS, images: Tensor, goal: Tensor) -> float:
    """Mean LPIPS, one picture at a time to spare memory."""
    distances = [net.distance(net.prepare(a[None]), net.prepare(b[None])) for a, b in zip(images, goal)]
    return sum(float(distance) for distance in distances) / len(distances)
