"""The ``ffavatar`` command: a table of plain typed functions. Parsing and printing are here, the work is elsewhere."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ffavatar.errors import InputError

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.drive.choose import Choice, Embed
    from ffavatar.photo.front_end import FaceChoice

EXIT_FAILURE, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Points(StrEnum):
    """About how many Gaussians."""

    k5 = "5k"
    k20 = "20k"
    k80 = "80k"


LEVELS = {Points.k5: 0, Points.k20: 1, Points.k80: 2}
COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "gray": "#808080", "green": "#00b140"}

AvatarFile = Annotated[Path, typer.Argument(help="Avatar file (.safetensors) made by `ffavatar reconstruct`.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto takes CUDA where there is one.")]
FaceOption = Annotated[int | None, typer.Option(min=0, help="Which face, counted from 0, the largest.")]
WeightsOption = Annotated[Path | None, typer.Option(help="Model weights (.safetensors) instead of the shipped ones.")]
BackgroundOption = Annotated[str, typer.Option(help="white, black, grey, green, #rrggbb or transparent.")]


def reconstruct(
    photos: Annotated[list[Path], typer.Argument(help="Photos, folders of photos, or one video.", metavar="PHOTO...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Avatar file to write (.safetensors).")],
    face: FaceOption = None,
    views: Annotated[int, typer.Option(min=1, max=16, help="At most so many views are used.")] = 6,
    size: Annotated[int, typer.Option(min=128, max=1024, help="Side of the head crops in pixels.")] = 512,
    points: Annotated[Points, typer.Option(help="About how many Gaussians the avatar has.")] = Points.k80,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
    allow_flame: Annotated[bool, typer.Option(help="Write an avatar on a FLAME basis, for your own use only.")] = False,
) -> None:
    """Make an avatar from a few photos of one person, or from a video, in one forward pass."""
    from ffavatar.files import check_output_file

    _need_suffix(output, (".safetensors",), "an avatar")
    check_output_file(output)
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.choose import choose_views
    from ffavatar.photo import FrontEnd
    from ffavatar.pipeline import reconstruct as run

    place = choose_device(device.value)
    with _progress("looking at photos") as advance:
        choice = choose_views(
            photos, FrontEnd(place), size, _face(face), views, _identity_embedding(place), advance
        )  # fmt: skip
    model = model_for(str(weights) if weights else None, place)
    _print_choice(choice)
    avatar = run(model, choice.views.to(place), LEVELS[points])
    avatar.save(output, allow_flame=allow_flame)
    typer.echo(f"{output}: {len(avatar):,} Gaussians from {len(choice.views)} views, {_megabytes(output)}")


def animate(
    avatar: AvatarFile,
    driver: Annotated[Path, typer.Option(help="Video, folder of pictures, or motion file (.json, .npz).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Film: .mp4, .mov, .webm, .gif, or a folder of PNGs.")],
    size: Annotated[
        int | None, typer.Option(min=64, max=4096, help="Side of the film in pixels (512); height with --full-frame.")
    ] = None,
    background: BackgroundOption = "white",
    alpha: Annotated[bool, typer.Option("--alpha", help="Transparent background (webm, mov, gif, PNGs).")] = False,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="The driver on the left.")] = False,
    crop: Annotated[
        bool, typer.Option("--crop/--full-frame", help="A steady window around the head, or the driver's framing.")
    ] = True,
    face: FaceOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Drive an avatar with a film or a motion file; sound is kept."""
    from ffavatar.drive.film import FilmStyle, make_film
    from ffavatar.drive.motion import MOTION_SUFFIXES
    from ffavatar.drive.video import FrameReader, existing_input
    from ffavatar.drive.writer import check_film_output

    colour, clear = parse_background(background)
    alpha = alpha or clear
    check_film_output(output, alpha)
    moving = existing_input(driver).is_file() and driver.suffix.lower() in MOTION_SUFFIXES
    if not moving:
        FrameReader(driver)  # refuses what is no film before the networks are loaded
    from ffavatar.api import choose_device, model_for

    place = choose_device(device.value)
    person = _load_avatar(avatar, place)
    model = None if moving else model_for(str(weights) if weights else None, place)
    style = FilmStyle(size, colour, alpha, side_by_side, not crop)
    with _progress("filming") as advance:
        report = make_film(person, driver, output, style, model=model, face=_face(face), progress=advance)
    _print_notes(report.notes)
    typer.echo(f"{output}: {report.frames} frames")


def render(
    avatar: AvatarFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture (.png, .jpg, .webp), or a film with --turntable.")
    ],
    turntable: Annotated[bool, typer.Option("--turntable", help="A film that turns the head once around.")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, max=120, help="Length of the turntable.")] = 6.0,
    yaw: Annotated[float, typer.Option(min=-180, max=180, help="Turn in degrees; positive to the person's left.")] = 0,
    pitch: Annotated[float, typer.Option(min=-90, max=90, help="Nod in degrees; positive looks down.")] = 0,
    roll: Annotated[float, typer.Option(min=-90, max=90, help="Tilt in degrees.")] = 0,
    expression: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, such as mouthSmileLeft=0.6; can be given again.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side of the picture in pixels.")] = 512,
    background: BackgroundOption = "white",
    device: DeviceOption = Device.auto,
) -> None:
    """A picture of an avatar in a pose and expression, or a turntable film."""
    from ffavatar.drive.film import FilmStyle
    from ffavatar.drive.marks import save_still
    from ffavatar.drive.writer import check_film_output

    colour, alpha = parse_background(background)
    if turntable:
        check_film_output(output, alpha)
    else:
        _need_suffix(output, (".png", ".jpg", ".jpeg", ".webp"), "a picture")
    from ffavatar.api import choose_device
    from ffavatar.drive.film import render_uint8
    from ffavatar.drive.pose import posed, write_turntable

    person = _load_avatar(avatar, choose_device(device.value))
    params = posed(person, (yaw, pitch, roll), _expressions(expression or []))
    style = FilmStyle(size, colour, alpha)
    if not turntable:
        save_still(output, render_uint8(person, params, style, size)[0])
        typer.echo(f"{output}: {size} x {size} px")
        return
    with _progress("turning") as advance:
        report = write_turntable(person, params, output, style, seconds, advance)
    typer.echo(f"{output}: {report.frames} frames")


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
    from ffavatar.files import check_output_file

    _need_suffix(output, (".json", ".npz"), "a motion")
    check_output_file(output)
    FrameReader(video)  # refuses what is no film before the networks are loaded
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.film import estimate_motion

    place = choose_device(device.value)
    person = _load_avatar(avatar, place) if avatar else None
    model = model_for(str(weights) if weights else None, place)
    with _progress("estimating") as advance:
        motion, report = estimate_motion(model, video, person, face=_face(face), progress=advance)
    motion.save(output)
    _print_notes(report.notes)
    typer.echo(f"{output}: {len(motion)} frames, {motion.seconds:.1f} s at {motion.fps:.5g} per second")


def inspect(file: Annotated[Path, typer.Argument(help="Avatar (.safetensors) or motion file (.json, .npz).")]) -> None:
    """Say what an avatar or a motion file holds, its version and its licence."""
    from ffavatar.drive.video import existing_input

    existing_input(file)
    if file.suffix.lower() == ".safetensors":
        rows = _about_avatar(file)
    elif file.suffix.lower() in (".json", ".npz"):
        rows = _about_motion(file)
    else:
        raise InputError(f"{file} is neither an avatar (.safetensors) nor a motion (.json, .npz); give one of these.")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


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

    for line in run_demo(output, photo, seconds, size, device.value, _progress):
        typer.echo(line)


COMMANDS: tuple[Callable[..., None], ...] = (reconstruct, animate, render, estimate, inspect, demo)


def _version(wanted: bool) -> None:
    if wanted:
        from ffavatar import __version__

        typer.echo(f"ffavatar {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    """From a few photos to an animatable 3D head avatar. Use it only with the consent of the person shown."""


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its errors turned into one sentence on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            typer.echo(f"ffavatar: {_one_line(error)}", err=True)
            raise typer.Exit(EXIT_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("ffavatar: interrupted; nothing was left half-written.", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            hint = "run again with --debug to see where"
            if os.environ.get("FFAVATAR_DEBUG"):
                traceback.print_exc()
                hint = "see above where"
            what = _one_line(error)[:300] or "no message"
            typer.echo(f"ffavatar: unexpected {type(error).__name__} ({what}); {hint}.", err=True)
            raise typer.Exit(EXIT_FAILURE) from None

    return run


def build_app() -> typer.Typer:
    """The command line as typer sees it."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
    app.callback()(_options)
    for command in COMMANDS:
        app.command()(_guarded(command))
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 (unexpected), 2 (bad input or usage) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("FFAVATAR_DEBUG"))
    if debug:  # allowed anywhere, also after the command
        arguments = [a for a in arguments if a != "--debug"]
        os.environ["FFAVATAR_DEBUG"] = "1"
    # Before torch is loaded: its OpenMP threads would spin while they wait, and the stages of a film, each with its
    # own, starve each other. On two busy cores one photo took 28 s so, and takes 0.6 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # a polite kill tidies up as Ctrl-C does
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")  # a library's warning is no help to who types a command
        build_app()(args=arguments, prog_name="ffavatar")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
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


def parse_background(text: str) -> tuple[tuple[float, float, float], bool]:
    """A colour in [0, 1] and whether the background is transparent. Raises ``InputError`` for anything unknown."""
    if text.lower() == "transparent":
        return (1.0, 1.0, 1.0), True
    code = COLOURS.get(text.lower(), text).removeprefix("#")
    try:
        if len(code) != 6:
            raise ValueError
        red, green, blue = (byte / 255 for byte in bytes.fromhex(code))
    except ValueError:
        known = ", ".join(name for name in COLOURS if name != "gray")
        raise InputError(f"{text!r} is no background; give {known}, #rrggbb or transparent.") from None
    return (red, green, blue), False


def _expressions(pairs: list[str]) -> dict[str, float]:
    values = {}
    for pair in pairs:
        name, _equals, number = pair.partition("=")
        try:
            values[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"{pair!r} is no expression; give NAME=VALUE, such as mouthSmileLeft=0.6.") from None
        if not abs(values[name.strip()]) <= 3:
            raise InputError(f"{pair!r} is beyond what a face can do; give a value between -3 and 3.")
    return values


def _face(number: int | None) -> FaceChoice:
    return "largest" if number is None else number


def _need_suffix(path: Path, suffixes: tuple[str, ...], what: str) -> None:
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: {what} is written as {' or '.join(suffixes)}; change the file name's ending.")


def _load_avatar(path: Path, device: str) -> Avatar:
    from ffavatar.drive.video import existing_input

    if existing_input(path).is_dir():
        raise InputError(f"{path} is a folder; give an avatar file (.safetensors).")
    from ffavatar.avatar import Avatar

    return Avatar.load(path).to(device)


def _identity_embedding(device: str) -> Embed | None:
    """The identity network if it is in the cache; it is not fetched for this."""
    from ffavatar.evaluate.identity import MOBILE_FACE_NET, load_identity

    if not MOBILE_FACE_NET.path.is_file():
        return None
    net = load_identity(device)
    return lambda views: net.embed(views.images.to(device), views.landmarks.to(device))


def _print_choice(choice: Choice) -> None:
    width = max(len(photo.name) for photo, _ in choice.rows)
    for photo, kept in choice.rows:
        seen = f"yaw {photo.report.yaw_deg:+4.0f}\u00b0  " if photo.report and photo.report.faces else ""
        typer.echo(f"{'kept   ' if kept else 'refused'}  {photo.name:<{width}}  {seen}{_one_line(photo.reason)}")
    _print_notes(choice.notes)
    if len(choice.views) > 1 and not choice.identity_checked:
        typer.echo("Whether all photos show the same person was not checked: the identity network is not in the cache.")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        typer.echo(f"ffavatar: {_one_line(note)}", err=True)


def _about_avatar(file: Path) -> list[tuple[str, str]]:
    person = _load_avatar(file, "cpu")
    head = person.rig.head
    names = ", ".join(head.expression_names[:4])
    rows = [
        ("kind", f"avatar, {_megabytes(file)}"),
        ("version", str(_container_version(file))),
        ("head", head.edition),
        ("licence of the head", head.licence),
        ("Gaussians", f"{len(person):,}"),
        ("identity", f"{len(person.identity)} coefficients"),
        ("expressions", f"{len(head.expression_names)} ({names}, ...)"),
    ]
    return rows + [(_one_line(key), _one_line(value)) for key, value in person.about.items()]


def _container_version(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(file), framework="numpy") as container:
        return str((container.metadata() or {}).get("version", "?"))


def _about_motion(file: Path) -> list[tuple[str, str]]:
    from ffavatar.drive.motion import VERSION, Motion

    motion = Motion.load(file)
    return [
        ("kind", f"motion, {_megabytes(file)}"),
        ("version", str(VERSION)),
        ("head", motion.head_edition),
        ("frames", f"{len(motion)} at {motion.fps:.5g} per second, {motion.seconds:.1f} s"),
        ("expressions", f"{len(motion.expression_names)} ({', '.join(motion.expression_names[:4])}, ...)"),
        ("source", _one_line(motion.source) or "not stated"),
    ]


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"
