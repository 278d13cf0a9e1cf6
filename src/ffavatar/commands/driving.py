"""Commands that drive an avatar: a film by any driver, a live picture, motions from one layout to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ffavatar.commands.options import (
    AvatarFile,
    BackgroundOption,
    Device,
    DeviceOption,
    FaceOption,
    FlameOption,
    WeightsOption,
    face_choice,
)
from ffavatar.commands.parsing import file_size, film_length, load_avatar, need_even, refuse_given
from ffavatar.commands.progress import print_notes, progress
from ffavatar.drive.background import parse_background
from ffavatar.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ffavatar.drive.motion import Motion
    from ffavatar.drive.options import DriveOptions
    from ffavatar.head import HeadModel


class TorsoWay(StrEnum):
    """How torso and neck share the head's turn."""

    OWN = "own"
    FOLLOW = "follow"
    STILL = "still"
    SPLIT = "split"


class HeadMotionWay(StrEnum):
    """What becomes of the head's turns and shifts."""

    on = "on"
    off = "off"
    scaled = "scaled"


class Layout(StrEnum):
    """Layouts of motion files."""

    ffavatar = "ffavatar"
    arkit_json = "arkit-json"
    live_link_csv = "live-link-csv"
    vhap = "vhap"
    flame_npz = "flame-npz"
    flame_json = "flame-json"
    pixel3dmm = "pixel3dmm"


ENDINGS = {  # of the layouts that are one file; ``Motion.save`` knows its own
    Layout.arkit_json: (".json",),
    Layout.live_link_csv: (".csv",),
    Layout.flame_npz: (".npz",),
    Layout.flame_json: (".json",),
}
FLAME_LAYOUTS = (Layout.vhap, Layout.flame_npz, Layout.flame_json)
TorsoOption = Annotated[TorsoWay, typer.Option(help="Torso under the turning head: as driven, along, still, a third.")]
HeadMotionOption = Annotated[HeadMotionWay, typer.Option("--head-motion", help="Keep, drop or scale head motion.")]
HeadGainOption = Annotated[float | None, typer.Option(min=0, max=3, help="Factor of --head-motion scaled (0.5).")]
RelativeOption = Annotated[
    bool, typer.Option("--relative", help="Count expressions from the driver's calm face: for another person's face.")
]
GainOption = Annotated[
    list[str] | None,
    typer.Option(help="GROUP=FACTOR, 0 to 3: brows, eyes, mouth, cheeks, nose, jaw, gaze; can be given again."),
]
OwnOption = Annotated[
    bool,
    typer.Option(
        "--same-person",
        help="The film shows the avatar's own person: the outline places head and torso, too (slower, closer).",
    ),
]
SmoothOption = Annotated[bool, typer.Option("--smooth/--no-smooth", help="Filter the tremble of estimates.")]
EditionOption = Annotated[str | None, typer.Option(help="FLAME edition of a track, such as flame2020.")]
FpsOption = Annotated[float | None, typer.Option(min=0.1, max=1000, help="Frames per second of a motion file.")]


def _options(
    torso: TorsoWay, head_motion: HeadMotionWay, head_gain: float | None, relative: bool, gain: list[str] | None,
    smooth: bool = True, flame: Path | None = None, edition: str | None = None, fps: float | None = None,
) -> DriveOptions:  # fmt: skip
    from ffavatar.drive.options import DriveOptions

    if head_motion is not HeadMotionWay.scaled:
        refuse_given("is the factor of --head-motion scaled, which is not asked for", head_gain=head_gain)
    gains = {}
    for pair in gain or []:
        name, _equals, number = pair.partition("=")
        try:
            gains[name.strip()] = float(number)
        except ValueError:
            raise InputError(f"{pair!r} is no gain; give GROUP=FACTOR, such as mouth=1.3.") from None
    return DriveOptions(
        torso.value,
        head_motion.value,
        0.5 if head_gain is None else head_gain,
        relative,
        gains,
        smooth,
        flame=flame,
        edition=edition,
        fps=fps,
    )


def animate(
    avatar: AvatarFile,
    driver: Annotated[
        Path, typer.Option(help="Video, folder of pictures, speech (.wav, .mp3, ...), or a motion of any program.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Film: .mp4, .mov, .webm, .gif, or a folder of PNGs.")],
    size: Annotated[
        int | None, typer.Option(min=64, max=4096, help="Side of the film in pixels (512); height with --full-frame.")
    ] = None,
    background: Annotated[
        str | None, typer.Option(help="white (the default), black, grey, green, #rrggbb or transparent.")
    ] = None,
    alpha: Annotated[bool, typer.Option("--alpha", help="As --background transparent (webm, mov, gif, PNGs).")] = False,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="The driver on the left.")] = False,
    crop: Annotated[
        bool, typer.Option("--crop/--full-frame", help="A steady window around the head, or the driver's framing.")
    ] = True,
    face: FaceOption = None,
    torso: TorsoOption = TorsoWay.OWN,
    head_motion: HeadMotionOption = HeadMotionWay.on,
    head_gain: HeadGainOption = None,
    relative: RelativeOption = False,
    gain: GainOption = None,
    smooth: SmoothOption = True,
    same_person: OwnOption = False,
    flame: FlameOption = None,
    edition: EditionOption = None,
    fps: FpsOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Drive an avatar with a film, a motion file of any program, or speech; sound is kept."""
    from ffavatar.drive.film import FilmStyle, make_film
    from ffavatar.drive.formats import is_motion
    from ffavatar.drive.speech import is_speech
    from ffavatar.drive.video import FrameReader
    from ffavatar.drive.writer import check_film_output
    from ffavatar.files import refuse_overwriting

    options = replace(
        _options(torso, head_motion, head_gain, relative, gain, smooth, flame, edition, fps), same_person=same_person
    )
    if alpha and background is not None and background.lower() != "transparent":
        raise InputError(f"--alpha and --background {background} exclude each other; give one of the two.")
    colour, clear = parse_background(background or "white")
    alpha = alpha or clear
    check_film_output(output, alpha)
    need_even(size, output, alpha)
    refuse_overwriting(output, avatar, driver, weights, flame)
    moving = is_motion(driver) or is_speech(driver)
    if moving:
        why = f"is for drivers that are films, and {driver} is {'sound' if is_speech(driver) else 'a motion'}"
        refuse_given(why, face=face, same_person=same_person, weights=weights)
    if not is_motion(driver):
        why = f"is for motion files, and {driver} is {'sound' if moving else 'a film'}"
        refuse_given(why, flame=flame, edition=edition, fps=fps)
    if not moving:
        FrameReader(driver)  # refuses what is no film before the networks are loaded
    from ffavatar.api import choose_device, model_for

    place = choose_device(device.value)
    person = load_avatar(avatar, place)
    model = None if moving else model_for(str(weights) if weights else None, place)
    style = FilmStyle(size, colour, alpha, side_by_side, not crop)
    with progress("filming") as advance:
        report = make_film(
            person, driver, output, style, model=model, face=face_choice(face), progress=advance,
            options=options,
        )  # fmt: skip
    print_notes(report.notes)
    typer.echo(f"{output}: {film_length(report.frames, report.fps)}, {file_size(output)}")


def live(
    avatar: AvatarFile,
    source: Annotated[str, typer.Option(help="Camera number or name; a film or a folder of pictures to try.")] = "0",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Film to record (.mp4, .mov, .webm).")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page on this computer; 0 for none.")] = 8765,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Side of the picture in pixels.")] = 256,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    background: BackgroundOption = "white",
    torso: TorsoOption = TorsoWay.OWN,
    head_motion: HeadMotionOption = HeadMotionWay.on,
    head_gain: HeadGainOption = None,
    relative: RelativeOption = False,
    gain: GainOption = None,
    smooth: SmoothOption = True,
    same_person: OwnOption = False,
    weights: WeightsOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Drive an avatar with a webcam and show it in a browser on this computer; Ctrl-C ends it.

    The picture is served to this computer alone. A file as --source is played at its own speed.
    """
    from contextlib import ExitStack
    from fractions import Fraction

    options = replace(_options(torso, head_motion, head_gain, relative, gain, smooth), same_person=same_person)
    colour, clear = parse_background(background)
    if clear:
        raise InputError("A live picture has no transparency; choose a colour, such as --background green.")
    if output is not None:
        from ffavatar.drive.writer import check_film_output
        from ffavatar.files import refuse_overwriting

        check_film_output(output, False)
        need_even(size, output, False)
        refuse_overwriting(output, avatar, source, weights)
    from ffavatar.api import choose_device, model_for
    from ffavatar.drive.live import LiveDriver, LiveReport, Recorder, camera_frames, file_frames, newest, run_live
    from ffavatar.drive.stream import PictureStream
    from ffavatar.drive.video import FrameReader
    from ffavatar.drive.writer import FilmWriter

    from_file = Path(source).exists() and not source.isdecimal() and not source.startswith("/dev/")
    rate = float(FrameReader(source).fps) if from_file else 30.0
    incoming = file_frames(Path(source), realtime=True) if from_file else camera_frames(source)
    place = choose_device(device.value)
    person = load_avatar(avatar, place)
    driver = LiveDriver(person, model_for(str(weights) if weights else None, place), None, options, rate)
    report = LiveReport()
    with ExitStack() as stack:
        shows: list[Callable[[np.ndarray], None]] = []
        recorder: Recorder | None = None

        def show(picture: np.ndarray) -> None:
            for one in shows:
                one(picture)

        if port:
            stream = stack.enter_context(PictureStream(port))
            shows.append(stream.show)
            typer.echo(f"{stream.address} shows the avatar; Ctrl-C ends it.")
        if output is not None:
            film = FilmWriter(output, Fraction(rate).limit_denominator(1001), (size, size))
            recorder = Recorder(stack.enter_context(film).write, rate)
            shows.append(recorder.show)
        if not shows:
            raise InputError("Nothing would be shown: give --port or --output.")
        run_live(driver, newest(incoming, report), size, show, colour, report, frames)
        if recorder is not None:
            recorder.finish()
    typer.echo(report.summary())


def motion(
    file: Annotated[Path, typer.Argument(help="Motion file or folder of any program.", metavar="MOTION")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File or folder to write.")],
    layout: Annotated[
        Layout | None, typer.Option("--to", help="Layout to write: ffavatar, or live-link-csv where OUTPUT is a .csv.")
    ] = None,
    flame: FlameOption = None,
    edition: EditionOption = None,
    fps: FpsOption = None,
) -> None:
    """Convert a motion: FLAME tracks and ARKit to FFAvatar's head or each other, or to another program's layout.

    FLAME's layouts take FLAME tracks as they are, and other motions with --flame; everything else goes by way of
    FFAvatar's embedded head.
    """

    from ffavatar.drive.formats import read_motion, write_motion
    from ffavatar.files import refuse_overwriting

    if layout is None:
        layout = Layout.live_link_csv if output.suffix.lower() == ".csv" else Layout.ffavatar
    elif layout in ENDINGS and output.suffix.lower() not in ENDINGS[layout]:
        endings = " or ".join(ENDINGS[layout])
        raise InputError(f"{output}: the layout {layout.value} is written as {endings}; change the name's ending.")
    refuse_overwriting(output, file, flame)
    # for other motions the edition is that of the FLAME file they go to
    of_track = edition if flame is None or layout not in FLAME_LAYOUTS else None
    found = read_motion(file, of_track, fps)
    made, notes = found, list(found.notes)
    if layout in FLAME_LAYOUTS and not found.head_edition.startswith("flame"):
        made, more = _on_flame_head(found, flame, edition)
        notes += more
    to_face = layout in (Layout.arkit_json, Layout.live_link_csv)
    if layout is Layout.ffavatar or (to_face and found.head_edition != "arkit"):
        made, more = _on_embedded_head(found, flame)
        notes += more
        if to_face:
            from ffavatar.drive.arkit import to_arkit
            from ffavatar.head import load_head

            made = to_arkit(replace(made, notes=()), load_head())
            notes += made.notes
    write_motion(made, output, layout.value)
    print_notes(notes)
    typer.echo(f"{output}: {len(made)} frames at {made.fps:.5g} per second, {layout.value} layout")


def _on_embedded_head(found: Motion, flame: Path | None) -> tuple[Motion, list[str]]:
    from ffavatar.drive.options import DriveOptions
    from ffavatar.head import load_head

    head = load_head()
    return (found, []) if found.head_edition == head.edition else _on_head(found, head, DriveOptions(flame=flame))


def _on_flame_head(found: Motion, flame: Path | None, edition: str | None) -> tuple[Motion, list[str]]:
    from ffavatar.drive.options import DriveOptions
    from ffavatar.head import load_head

    if flame is None:
        raise InputError("A motion becomes a FLAME track with your FLAME model file only; give it by --flame FILE.")
    head = load_head(flame, edition)
    if not head.edition.startswith("flame"):
        raise InputError(f"{flame} is no FLAME model file; give one for --flame.")
    return _on_head(found, head, DriveOptions())


def _on_head(found: Motion, head: HeadModel, options: DriveOptions) -> tuple[Motion, list[str]]:
    import torch

    from ffavatar.animate import Rig
    from ffavatar.drive.motion import Motion
    from ffavatar.drive.retarget import retarget

    rig = Rig.of(head, torch.zeros(head.identity_size), head.surface(0))
    made = retarget(found, rig, options)
    return Motion(found.fps, made.params, head.edition, tuple(head.expression_names), found.source), list(made.notes)
