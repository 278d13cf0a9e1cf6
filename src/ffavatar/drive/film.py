"""Driver in, film out: reading, estimating, rendering and writing run side by side, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ffavatar.drive.adjust import adjust_params
from ffavatar.drive.formats import is_motion, read_motion
from ffavatar.drive.motion import Motion
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.retarget import retarget, share_turn
from ffavatar.drive.speech import is_speech, speech_motion
from ffavatar.drive.stages import in_background
from ffavatar.drive.steady import Moment, steadied
from ffavatar.drive.video import FrameReader, at_constant_rate, existing_input
from ffavatar.drive.window import Box, SteadyWindow, to_window, window_camera
from ffavatar.drive.writer import FilmWriter, check_film_output
from ffavatar.errors import InputError
from ffavatar.types import Camera, HeadParams, Views

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.head import HeadModel
    from ffavatar.model import FFAvatar
    from ffavatar.photo import FrontEnd
    from ffavatar.photo.front_end import FaceChoice

T = TypeVar("T")
Colour = tuple[float, float, float]
Progress = Callable[[int, int | None], None]  # frames done, frames in all where that is known

WHITE: Colour = (1.0, 1.0, 1.0)
CROP_SIZE = 256  # px, side of the crops that the estimator reads: it needs landmarks and outline, not skin
BATCH = 4  # frames that the estimator and the rasteriser take at once


@dataclass(frozen=True)
class FilmStyle:
    """How a film looks."""

    size: int | None = None  # px: side of a crop (512), height of a full frame (the driver's)
    background: Colour = WHITE
    alpha: bool = False  # transparent instead of the background
    side_by_side: bool = False  # the driver on the left
    full_frame: bool = False  # the driver's framing instead of a window around the head


@dataclass
class FilmReport:
    """What happened: ``held`` frames had no face and repeat the pose before, ``bridged`` ones had none and move
    between the poses around them; ``notes`` are sentences for the user."""

    frames: int = 0
    fps: float = 0.0  # of the film; 0 before it is written
    held: int = 0
    bridged: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, moment: Moment) -> None:
        if moment.bridged:
            self.bridged += moment.times
        elif not moment.seen:
            self.held += moment.times

    def finish(self, reader: FrameReader) -> None:
        self.notes += reader.notes
        if self.bridged:
            which = f"{self.bridged} of {self.frames} frames"
            self.notes.append(f"{reader.path}: {which} show no usable face and move between the poses around them.")
        if self.held:
            which = f"{self.held} of {self.frames} frames"
            self.notes.append(f"{reader.path}: {which} show no usable face and hold the pose before.")


@dataclass(frozen=True)
class Sighting:
    """A face in a frame: its head crop as ``Views`` of length 1, and where that crop was taken."""

    views: Views
    crop: Box


@dataclass(frozen=True)
class Shot:
    """A frame of the driver with the face found in it."""

    image: np.ndarray  # (H, W, 3) uint8
    times: int  # how often it is shown at the film's rate
    sighting: Sighting | None


Look = Callable[[np.ndarray], Sighting | None]
ReadPose = Callable[[Views], HeadParams]


class FaceFinder:
    """Looks for one face, frame after frame of one film; None where there is none that can be used.

    The face is followed from frame to frame, and searched anew where it was lost.
    """

    def __init__(self, front_end: FrontEnd, face: FaceChoice = "largest") -> None:
        self._front_end, self._face = front_end, face
        self._last: Tensor | None = None
        self._most = 0  # faces in one of the frames

    def __call__(self, image: np.ndarray) -> Sighting | None:
        if self._last is None:
            result = self._front_end.analyse(image, "the frame", self._face, CROP_SIZE)
        else:
            result = self._front_end.analyse_frame(image, self._last, size=CROP_SIZE, face=self._face)
        lost = result.landmarks is None and self._face != "largest"  # a chosen one is searched where it was
        self._last = self._last if lost else result.landmarks
        self._most = max(self._most, result.report.faces)
        if result.views is None or result.report.crop_box is None:
            return None
        left, top, side = result.report.crop_box
        return Sighting(result.views, Box(left, top, side, side))

    def too_few(self) -> str:
        """Where no frame has had the face: says how many there were instead, if there were any."""
        if self._face == "largest" or not 0 < self._most <= self._face:
            return ""
        shown = "one face" if self._most == 1 else f"{self._most} faces at most"
        return f"there is no face {self._face}; its frames show {shown}, counted from 0, the largest"


def perform(reader: FrameReader, find: Callable[[], Look], read_pose: ReadPose) -> Generator[Moment]:
    """The driver's frames with their poses; finding faces and estimating poses run in their own threads.

    Frames before the first face take its pose. Raises ``InputError`` where no frame shows a face.
    """
    shots = in_background(_shots(reader, find()), ahead=2 * BATCH, threads=_share())
    return _with_poses(shots, read_pose, reader, find)


def _share() -> int:
    """Threads for one of the two steps that compute: looking for faces; estimating and drawing."""
    return max(torch.get_num_threads() // 2, 1)


def _shots(reader: FrameReader, look: Look) -> Generator[Shot]:
    with closing(in_background(at_constant_rate(reader, reader.fps))) as frames:
        for frame, times in frames:
            if times > 0:
                yield Shot(frame.image, times, look(frame.image))


def _with_poses(
    shots: Generator[Shot], read_pose: ReadPose, reader: FrameReader, find: Callable[[], Look]
) -> Generator[Moment]:
    last: tuple[HeadParams, Box] | None = None
    with closing(_groups(shots, BATCH)) as groups:
        for group in groups:
            seen = [shot.sighting for shot in group if shot.sighting is not None]
            if last is None:
                first = seen[0] if seen else _first_sighting(reader, find())
                last = (read_pose(first.views), first.crop)
            rows = _rows(read_pose(Views.cat([s.views for s in seen]))) if seen else iter(())
            for shot in group:
                if shot.sighting is not None:
                    last = (next(rows), shot.sighting.crop)
                yield Moment(*last, shot.image, shot.times, shot.sighting is not None)


def _first_sighting(reader: FrameReader, look: Look) -> Sighting:
    """Read ahead, with a reader of its own, to the first frame with a face: nothing needs to be kept meanwhile."""
    count = 0
    for frame in FrameReader(reader.path, reader.fps):
        count += 1
        sighting = look(frame.image)
        if sighting is not None:
            return sighting
    if isinstance(look, FaceFinder) and (why := look.too_few()):
        raise InputError(f"{reader.path}: {why}.")
    raise InputError(f"{reader.path} shows no usable face in any of its {count} frames; give one that shows a face.")


def _groups(items: Generator[T], most: int) -> Generator[list[T]]:
    """Lists of up to ``most`` items; closing it closes ``items``."""
    group: list[T] = []
    with closing(items):
        for item in items:
            group.append(item)
            if len(group) == most:
                yield group
                group = []
    if group:
        yield group


def _rows(params: HeadParams) -> Iterator[HeadParams]:
    params = params.detach()
    return (params[i : i + 1] for i in range(len(params)))


def make_film(
    avatar: Avatar,
    driver: str | Path,
    out: str | Path,
    style: FilmStyle | None = None,
    *,
    model: FFAvatar | None = None,
    front_end: FrontEnd | None = None,
    face: FaceChoice = "largest",
    progress: Progress | None = None,
    options: DriveOptions | None = None,
) -> FilmReport:
    """Animate ``avatar`` by a video, a folder of pictures, a motion file of any program or speech; write the film.

    ``model`` estimates the poses (the shipped ``lite`` by default). Sound of the driver is kept. Frames without a
    face hold the pose before and are counted. Raises ``InputError`` for a driver that cannot be read or shows no
    face, and for a place that cannot be written; nothing half-written is left.
    """
    style = style or FilmStyle()
    check_film_output(out, style.alpha)
    driver = existing_input(driver)
    if is_motion(driver):
        options = options or DriveOptions()
        motion = read_motion(driver, options.edition, options.fps)
        return film_motion(avatar, motion, out, style, progress, options)
    if is_speech(driver):
        return film_motion(avatar, speech_motion(driver), out, style, progress, options, driver)

    from ffavatar.model import load_model
    from ffavatar.photo import FrontEnd
    from ffavatar.pipeline import drive

    reader = FrameReader(driver)
    device = avatar.identity.device
    estimator = model if model is not None else load_model(device=str(device))
    eyes = front_end or FrontEnd(device)
    chosen = options or DriveOptions()

    def find() -> Look:
        return FaceFinder(eyes, face)

    def read_pose(views: Views) -> HeadParams:
        read = drive(estimator, avatar, views.to(device), own=chosen.same_person)
        params = for_head(read, estimator.head, avatar.rig.head)
        return share_turn(params.to("cpu"), avatar.rig, chosen.torso)

    names = tuple(avatar.rig.head.expression_names)
    moments = steadied(perform(reader, find, read_pose), float(reader.fps), chosen, names)
    report = FilmReport()
    pictures = _pictures(avatar, moments, style, reader, report)
    sound = driver if reader.has_audio else None
    write_film(pictures, out, reader.fps, style.alpha, sound, reader.count, report, progress, _share())
    report.finish(reader)
    return report


def for_head(params: HeadParams, made_with: HeadModel, head: HeadModel) -> HeadParams:
    """Parameters that ``made_with`` understands, for another head; expressions are matched by name."""
    names = tuple(made_with.expression_names)
    if names == tuple(head.expression_names) and made_with.edition == head.edition:
        return params
    return Motion(1.0, params.to("cpu"), made_with.edition, names).for_head(head).to(params.root.device)


def film_motion(
    avatar: Avatar,
    motion: Motion,
    out: str | Path,
    style: FilmStyle,
    progress: Progress | None = None,
    options: DriveOptions | None = None,
    sound: Path | None = None,
) -> FilmReport:
    """Animate ``avatar`` by a motion and write the film, with the ``sound`` of a file.

    A motion has no pictures: no full frame, nothing beside.
    """
    if style.side_by_side or style.full_frame:
        what = "A motion file" if sound is None else f"{sound} is sound, which"
        raise InputError(f"{what} holds no pictures: leave --side-by-side and --full-frame away.")
    check_film_output(out, style.alpha)
    head = avatar.rig.head
    made = retarget(motion, avatar.rig, options)
    report = FilmReport(notes=[*motion.notes, *made.notes])
    size = style.size or 512
    params = adjust_params(made.params, options or DriveOptions(), head.expression_names)

    def pictures() -> Iterator[tuple[np.ndarray, int]]:
        for start in range(0, len(params), BATCH):
            for image in render_uint8(avatar, params[start : start + BATCH], style, size=size):
                yield image, 1

    fps = Fraction(motion.fps).limit_denominator(1001)
    write_film(pictures(), out, fps, style.alpha, sound, len(params), report, progress)
    return report


def render_uint8(
    avatar: Avatar, params: HeadParams, style: FilmStyle, size: int = 512, camera: Camera | None = None
) -> np.ndarray:
    """Pictures (B, H, W, 3) uint8 on the style's background, or with ``alpha`` (B, H, W, 4) with straight colour."""
    from ffavatar.pipeline import animate

    device = avatar.identity.device
    camera = camera.to(device) if camera is not None else None
    background = (0.0, 0.0, 0.0) if style.alpha else style.background
    rendering = animate(avatar, params.to(device), size, background, camera)
    images: Tensor = rendering.images
    if style.alpha:
        alphas = rendering.alphas[..., None]
        images = torch.cat([images / alphas.clamp_min(1 / 512), alphas], -1)
    return images.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8).cpu().numpy()


def _pictures(
    avatar: Avatar, moments: Generator[Moment], style: FilmStyle, reader: FrameReader, report: FilmReport
) -> Generator[tuple[np.ndarray, int]]:
    """Film pictures and how often each is shown."""
    steady = SteadyWindow(float(reader.fps))
    shape: tuple[int, int] | None = None
    with closing(_groups(moments, BATCH)) as groups:
        for group in groups:
            windows = []
            for moment in group:
                height, width = moment.image.shape[:2]
                windows.append(Box(0, 0, width, height) if style.full_frame else steady.follow(moment.crop))
            shape = shape or _film_size(style, windows[0])
            camera = window_camera([m.crop for m in group], windows, *shape)
            rendered = render_uint8(avatar, HeadParams.cat([m.params for m in group]), style, camera=camera)
            for moment, window, image in zip(group, windows, rendered, strict=True):
                report.count(moment)
                if style.side_by_side:
                    beside = cut_window(moment.image, window, *shape, style.background)
                    if style.alpha:
                        beside = np.concatenate([beside, np.full((*beside.shape[:2], 1), 255, np.uint8)], -1)
                    image = np.concatenate([beside, image], 1)
                yield image, moment.times


def _film_size(style: FilmStyle, window: Box) -> tuple[int, int]:
    """Width and height of the film in pixels: even, unless another size is asked for."""
    if not style.full_frame:
        return style.size or 512, style.size or 512
    height = style.size or 2 * math.ceil(round(window.height) / 2)
    width = round(height * window.width / window.height)
    return width + width % 2, height


def cut_window(image: np.ndarray, window: Box, width: int, height: int, beyond: Colour = WHITE) -> np.ndarray:
    """The window's part of a picture, scaled to ``width`` x ``height``; a colour ``beyond`` the picture's edges."""
    from PIL import Image

    corner = np.floor([window.left, window.top]).astype(int)
    end = np.ceil([window.left + window.width, window.top + window.height]).astype(int)
    part = np.empty((end[1] - corner[1], end[0] - corner[0], 3), np.uint8)
    part[:] = [round(255 * value) for value in beyond]
    low = np.maximum(corner, 0)
    high = np.minimum(end, [image.shape[1], image.shape[0]])
    if (high > low).all():
        inside = image[low[1] : high[1], low[0] : high[0]]
        part[low[1] - corner[1] : high[1] - corner[1], low[0] - corner[0] : high[0] - corner[0]] = inside
    offset = (window.left - corner[0], window.top - corner[1])
    box = (*offset, offset[0] + window.width, offset[1] + window.height)
    return np.asarray(
        Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    )


def write_film(
    pictures: Iterable[tuple[np.ndarray, int]],
    out: str | Path,
    fps: Fraction,
    alpha: bool,
    sound: Path | None,
    count: int | None,
    report: FilmReport,
    progress: Progress | None,
    threads: int | None = None,
) -> None:
    """Encode in this thread what another one draws, with ``threads`` of torch's threads (all by default)."""
    stream = in_background(pictures, threads=threads)
    try:
        first = next(stream, None)
        if first is None:
            raise InputError(f"{out} was not written: there was no frame to put into it.")
        size = (first[0].shape[1], first[0].shape[0])
        with FilmWriter(out, fps, size, audio_from=sound, alpha=alpha) as film:
            item: tuple[np.ndarray, int] | None = first
            while item is not None:
                for _ in range(item[1]):
                    film.write(item[0])
                report.frames, report.fps = film.frames, float(fps)
                if progress is not None:
                    progress(film.frames, count)
                item = next(stream, None)
        report.notes += film.notes
    finally:
        stream.close()


def estimate_motion(
    model: FFAvatar,
    driver: str | Path,
    avatar: Avatar | None = None,
    front_end: FrontEnd | None = None,
    face: FaceChoice = "largest",
    progress: Progress | None = None,
    smooth: bool = True,
    own: bool = False,
) -> tuple[Motion, FilmReport]:
    """The motion of a video or a folder of pictures, seen from a steady window around the head.

    The person's identity is the ``avatar``'s if it is given, otherwise it is pooled over eight frames spread over the
    film. ``smooth`` filters tremble (One Euro). ``own``: the film shows the avatar's own person, whose outline then
    tells where torso and head stand. Raises ``InputError`` as ``make_film`` does.
    """
    from ffavatar.photo import FrontEnd
    from ffavatar.pipeline import drive

    reader = FrameReader(driver)
    device = next(model.parameters()).device
    eyes = front_end or FrontEnd(device)

    def find() -> Look:
        return FaceFinder(eyes, face)

    if avatar is None:
        identity = _pooled_identity(model, reader, find)

        def read_pose(views: Views) -> HeadParams:
            with torch.no_grad():
                return model.estimator(views.to(device), identity).params
    else:
        holder = avatar

        def read_pose(views: Views) -> HeadParams:
            return drive(model, holder, views.to(device), own=own)

    steady = SteadyWindow(float(reader.fps))
    rows: list[HeadParams] = []
    report = FilmReport()
    names, options = tuple(model.head.expression_names), DriveOptions(smooth=smooth)
    steadier = steadied(perform(reader, find, read_pose), float(reader.fps), options, names)
    moments = in_background(steadier, threads=_share())
    try:
        for moment in moments:
            row = to_window(moment.params.to("cpu"), [moment.crop], [steady.follow(moment.crop)])
            rows += [row] * moment.times
            report.frames += moment.times
            report.count(moment)
            if progress is not None:
                progress(report.frames, reader.count)
    finally:
        moments.close()
    report.finish(reader)
    head = model.head
    motion = Motion(
        float(reader.fps), HeadParams.cat(rows), head.edition, tuple(head.expression_names), f"film {reader.path.name}"
    )
    return motion, report


def _pooled_identity(model: FFAvatar, reader: FrameReader, find: Callable[[], Look], views: int = 8) -> Tensor:
    step = max((reader.count or 8 * views) // views, 1)
    found: list[Views] = []
    for index, frame in enumerate(reader):
        # A finder for each: the frames are far apart, there is nothing to follow.
        if index % step == 0 and (sighting := find()(frame.image)) is not None:
            found.append(sighting.views)
            if len(found) == views:
                break
    if not found:
        found = [_first_sighting(reader, find()).views]
    with torch.no_grad():
        return model.estimator(Views.cat(found).to(next(model.parameters()).device)).identity
