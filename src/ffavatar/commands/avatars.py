"""Commands that make avatars, show them, and say what files hold."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from ffavatar.commands.options import (
    LEVELS,
    POINTS_HELP,
    AllowFlameOption,
    AvatarFile,
    BackgroundOption,
    Device,
    DeviceOption,
    ExpressionOption,
    FaceOption,
    PitchOption,
    Points,
    RayOption,
    RollOption,
    WeightsOption,
    YawOption,
    face_choice,
)
from ffavatar.commands.parsing import (
    counted,
    file_size,
    film_length,
    load_avatar,
    need_even,
    need_suffix,
    parse_expressions,
    refuse_given,
)
from ffavatar.commands.people import IdentityOption, identity_check, print_choice
from ffavatar.commands.progress import one_line, print_notes, progress
from ffavatar.drive.background import parse_background
from ffavatar.errors import InputError


def reconstruct(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Avatar file to write (.safetensors); with --many a folder of them.")
    ],
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos, folders of photos, or one video.", metavar="PHOTO...")
    ] = None,
    many: Annotated[
        Path | None,
        typer.Option(help="Many people at once: a folder with a subfolder of photos each, or a .csv or .jsonl list."),
    ] = None,
    face: FaceOption = None,
    identity: IdentityOption = None,
    views: Annotated[int, typer.Option(min=1, max=16, help="At most so many views are used.")] = 6,
    size: Annotated[int, typer.Option(min=128, max=1024, help="Side of the head crops in pixels.")] = 512,
    look: Annotated[
        str | None,
        typer.Option(help="The photo (or `frame N` of a video) whose hair and clothes are taken where they differ."),
    ] = None,
    points: Annotated[Points, typer.Option(help=POINTS_HELP)] = Points.k80,
    personalize: Annotated[
        bool,
        typer.Option("--personalize", help="Then fit it further to the same views, as `ffavatar personalize` does."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, max=5000, help="With --personalize: at most so many steps (500).")
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
    workers: Annotated[int | None, typer.Option(min=1, help="With --many: processes (1).")] = None,
    ray: RayOption = None,
    allow_flame: AllowFlameOption = False,
) -> None:
    """Make an avatar from a few photos of one person, or from a video, in one forward pass; or one of each of many."""
    from ffavatar.files import check_output_file, refuse_overwriting

    if many is not None:
        if photos or face is not None or look is not None or identity is not None or allow_flame:
            raise InputError(
                "--many takes its photos from the list; leave out PHOTO, --face, --look, --identity and --allow-flame."
            )
        if personalize or steps is not None:
            raise InputError(
                "--many does not personalize; leave out --personalize and --steps, and run `ffavatar personalize` on "
                "each avatar afterwards."
            )
        if output.suffix.lower() == ".safetensors":
            raise InputError(f"{output}: with --many the output is a folder of avatars; give {output.with_suffix('')}.")
        refuse_overwriting(output, many)
        from ffavatar.bulk import Plan, read_people
        from ffavatar.commands.bulk import run_many
        from ffavatar.jobs import Crew

        people = read_people(many)
        run_many(people, output, Plan(views, size, LEVELS[points], weights), device.value, Crew(workers or 1, ray))
        return
    refuse_given("is for --many", workers=workers, ray=ray)
    if not personalize:
        refuse_given("is for --personalize", steps=steps)
    if not photos:
        raise InputError("No photo was given; give photos, a folder of photos or a video, or a list with --many.")
    need_suffix(output, (".safetensors",), "an avatar")
    check_output_file(output)
    refuse_overwriting(output, *photos, weights)
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.choose import check_look, choose_views, look_notes, view_named
    from ffavatar.photo import FrontEnd
    from ffavatar.pipeline import reconstruct as run

    if look is not None:
        check_look(look, photos)
    place = choose_device(device.value)
    embed = identity_check(identity, place)
    with progress("looking at photos") as advance:
        choice = choose_views(photos, FrontEnd(place), size, face_choice(face), views, embed, advance, look)
    model = model_for(str(weights) if weights else None, place)
    print_choice(choice, identity)
    like = None if look is None else view_named(look, [photo.name for photo, kept in choice.rows if kept])
    avatar = run(model, choice.views.to(place), LEVELS[points], like)
    print_notes(look_notes(choice, avatar, like))
    avatar.save(output, allow_flame=allow_flame)  # before any personalization: what Ctrl-C leaves is then an avatar too
    typer.echo(f"{output}: {len(avatar):,} Gaussians from {counted(len(choice.views), 'view')}, {file_size(output)}")
    if personalize:
        from ffavatar.commands.personal import fit_and_save, perceptual_net
        from ffavatar.personal import PersonalRecipe

        recipe = PersonalRecipe(steps=steps or 500, size=256)
        given = choice.views.to(place)
        fit_and_save(model, avatar, given, recipe, output, perceptual_net(None, place), allow_flame=allow_flame)


def render(
    avatar: AvatarFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture (.png, .jpg, .webp), or a film with --turntable.")
    ],
    turntable: Annotated[bool, typer.Option("--turntable", help="A film that turns the head once around.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.5, max=120, help="Length of the turntable (6).")] = None,
    yaw: YawOption = 0,
    pitch: PitchOption = 0,
    roll: RollOption = 0,
    expression: ExpressionOption = None,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of the picture in pixels.")] = 512,
    background: BackgroundOption = "white",
    device: DeviceOption = Device.auto,
) -> None:
    """A picture of an avatar in a pose and expression, or a turntable film."""
    from ffavatar.drive.film import FilmStyle
    from ffavatar.drive.marks import save_still
    from ffavatar.drive.writer import FILM_SUFFIXES, check_film_output
    from ffavatar.files import refuse_overwriting

    colour, alpha = parse_background(background)
    refuse_overwriting(output, avatar)
    if turntable:
        check_film_output(output, alpha)
        need_even(size, output, alpha)
    else:
        refuse_given("is for --turntable", seconds=seconds)
        if output.suffix.lower() in FILM_SUFFIXES:
            raise InputError(
                f"{output} is named like a film: add --turntable for one, or end a picture's name in .png."
            )
        need_suffix(output, (".png", ".jpg", ".jpeg", ".webp"), "a picture")
    from ffavatar.api import choose_device
    from ffavatar.drive.film import render_uint8
    from ffavatar.drive.pose import posed, write_turntable

    person = load_avatar(avatar, choose_device(device.value))
    params = posed(person, (yaw, pitch, roll), parse_expressions(expression or []))
    style = FilmStyle(size, colour, alpha)
    if not turntable:
        save_still(output, render_uint8(person, params, style, size)[0])
        typer.echo(f"{output}: {size} x {size} px, {file_size(output)}")
        return
    with progress("turning") as advance:
        report = write_turntable(person, params, output, style, seconds or 6.0, advance)
    typer.echo(f"{output}: {film_length(report.frames, report.fps)}, {file_size(output)}")


def estimate(
    video: Annotated[Path, typer.Argument(help="Video, or folder of pictures.", metavar="VIDEO")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Motion file to write (.json or .npz).")],
    avatar: Annotated[Path | None, typer.Option(help="Avatar of the same person; its identity is then used.")] = None,
    face: FaceOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Read the motion of a face from a video into a motion file, which any avatar can play."""
    from ffavatar.drive.video import FrameReader
    from ffavatar.files import check_output_file, refuse_overwriting

    need_suffix(output, (".json", ".npz"), "a motion")
    check_output_file(output)
    refuse_overwriting(output, video, avatar, weights)
    FrameReader(video)  # refuses what is no film before the networks are loaded
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.film import estimate_motion

    place = choose_device(device.value)
    person = load_avatar(avatar, place) if avatar else None
    model = model_for(str(weights) if weights else None, place)
    with progress("estimating") as advance:
        motion, report = estimate_motion(model, video, person, face=face_choice(face), progress=advance)
    motion.save(output)
    print_notes(report.notes)
    typer.echo(f"{output}: {len(motion)} frames, {motion.seconds:.1f} s at {motion.fps:.5g} per second")


def inspect(
    file: Annotated[Path, typer.Argument(help="Avatar (.safetensors), or a motion of any program.")],
    names: Annotated[bool, typer.Option("--names", help="List the names of all its expressions and turns.")] = False,
) -> None:
    """Say what an avatar or a motion file holds, its version and its licence."""
    from ffavatar.drive.formats import is_motion
    from ffavatar.drive.video import existing_input

    existing_input(file)
    if file.suffix.lower() == ".safetensors":
        rows, lists = _about_avatar(file)
    elif file.suffix.lower() in (".json", ".npz") or is_motion(file):
        rows, lists = _about_motion(file)
    else:
        raise InputError(f"{file} is neither an avatar (.safetensors) nor a motion file; give one of these.")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")
    for title, words in lists.items() if names else ():
        typer.echo(f"\n{title}:\n" + textwrap.fill(", ".join(words), 100, break_on_hyphens=False))


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("out/demo"),
    photo: Annotated[
        Path | None, typer.Option(help="A portrait; without it NASA's public-domain photo of Eileen Collins.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Length of the films.")] = 8.0,
    size: Annotated[int, typer.Option(min=128, max=1024, help="Side of the films in pixels.")] = 512,
    device: DeviceOption = Device.auto,
) -> None:
    """Make an avatar of a photo and one of a synthetic person, and films in which they look around, blink and talk."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder for the demo's results.")
    if photo is not None:
        from ffavatar.drive.video import existing_input

        existing_input(photo)
    from ffavatar.demo import run_demo

    for line in run_demo(output, photo, seconds, size, device.value, progress):
        typer.echo(line)


def _about_avatar(file: Path) -> tuple[list[tuple[str, str]], dict[str, tuple[str, ...]]]:
    """What to say of an avatar, and its names: what ``--expression`` takes."""
    person = load_avatar(file, "cpu")
    head = person.rig.head
    names = ", ".join(head.expression_names[:4])
    rows = [
        ("kind", f"avatar, {file_size(file)}"),
        ("version", str(_container_version(file))),
        ("head", head.edition),
        ("licence of the head", head.licence),
        ("Gaussians", f"{len(person):,}"),
        ("shades", f"of {len(person.rig.shades)} views" if person.rig.shades else "none: its colours last"),
        ("identity", f"{len(person.identity)} coefficients"),
        (
            "expressions",
            f"{len(head.expression_names)} ({names}, ...), and {len(head.arkit_pose)} turns of jaw and eyes; "
            "--names lists them",
        ),
    ]
    lists = {"expressions": head.expression_names, "turns of jaw and eyes": tuple(head.arkit_pose)}
    return rows + [_about_row(key, value) for key, value in person.about.items()], lists


def _about_row(key: str, value: str) -> tuple[str, str]:
    """A line of what an avatar says of itself."""
    from ffavatar.pipeline import LOOK

    if key == LOOK and value.replace(" ", "").isdecimal():
        numbers = ", ".join(str(int(number) + 1) for number in value.split())
        return "hair and clothes", f"of view {numbers}, counted from 1 in the order of the photos that were kept"
    return one_line(key), one_line(value)


def _container_version(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(file), framework="numpy") as container:
        return str((container.metadata() or {}).get("version", "?"))


def _about_motion(file: Path) -> tuple[list[tuple[str, str]], dict[str, tuple[str, ...]]]:
    """What to say of a motion, and the names of its expressions."""
    from ffavatar.drive.formats import read_motion, sniff

    motion, kind = read_motion(file), sniff(file)
    rows = [
        ("kind", f"motion, {file_size(file)}"),
        ("layout", str(kind)),
        ("head", motion.head_edition),
        ("frames", f"{len(motion)} at {motion.fps:.5g} per second, {motion.seconds:.1f} s"),
        ("expressions", f"{len(motion.expression_names)} ({', '.join(motion.expression_names[:4])}, ...)"),
        ("source", one_line(motion.source) or "not stated"),
        *(("note", one_line(note)) for note in motion.notes),
    ]
    return rows, {"expressions": motion.expression_names}
