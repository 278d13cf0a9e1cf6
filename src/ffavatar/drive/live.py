"""Driving frame by frame: a webcam, or anything that comes as single pictures. Nothing waits for later frames."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ffavatar.drive.adjust import Adjuster, Neutral
from ffavatar.drive.film import FaceFinder, Sighting
from ffavatar.drive.options import DriveOptions
from ffavatar.drive.retarget import share_turn
from ffavatar.drive.smooth import ParamsFilter
from ffavatar.drive.stages import in_background
from ffavatar.drive.steady import CALIBRATION_S, mix
from ffavatar.drive.video import FrameReader
from ffavatar.drive.window import Box, SteadyWindow, is_cut, to_window
from ffavatar.errors import InputError
from ffavatar.types import HeadParams

if TYPE_CHECKING:
    from ffavatar.avatar import Avatar
    from ffavatar.model import FFAvatar
    from ffavatar.photo import FrontEnd
    from ffavatar.photo.front_end import FaceChoice

HOLD_S = 0.5  # a lost face keeps its pose so long, then goes to rest
TO_REST_S = 0.7
LONGEST_STEP_S = 1.0


class LiveDriver:
    """Pictures in, ``HeadParams`` out, for the normalised camera of a calm window around the head.

    The pose that ``push`` returns belongs to the picture pushed, so the delay is its own computing time; the filter's
    lag is stated in docs/driving.md. With ``relative`` the calm face is measured during the first second.
    """

    def __init__(
        self,
        avatar: Avatar,
        model: FFAvatar | None = None,
        front_end: FrontEnd | None = None,
        options: DriveOptions | None = None,
        fps: float = 30.0,
        face: FaceChoice = "largest",
    ) -> None:
        from ffavatar.model import load_model
        from ffavatar.photo import FrontEnd

        device = avatar.identity.device
        self.avatar, self.options, self.fps = avatar, options or DriveOptions(), fps
        self._model = model if model is not None else load_model(device=str(device))
        self._look = FaceFinder(front_end or FrontEnd(device), face)
        self._filter, self._window = ParamsFilter(), SteadyWindow(fps)
        self._reference: Box | None = None
        self._before: Box | None = None
        self._shown: HeadParams | None = None
        self._seen_s = self._time_s = 0.0
        self._started = False
        self._calm: list[HeadParams] | None = [] if self.options.relative else None
        self._calm_s = 0.0
        self._adjust = Adjuster(self.options, avatar.rig.head.expression_names)

    def push(self, image: np.ndarray, time_s: float | None = None) -> HeadParams | None:
        """One picture (H, W, 3) uint8 -> one row of parameters on the CPU, or None until a face has been seen.

        ``time_s`` is when the picture was taken, in seconds from any moment; by default pictures come at ``fps``.
        Without a face the pose is held for half a second and then goes to rest. Raises ``InputError`` for anything
        that is no picture.
        """
        return self.respond(self.look(image), time_s)

    def look(self, image: np.ndarray) -> Sighting | None:
        """The first half of ``push``: find the face. It may run in a thread of its own, a picture ahead."""
        return self._look(image)

    @torch.no_grad()
    def respond(self, sighting: Sighting | None, time_s: float | None = None) -> HeadParams | None:
        """The second half of ``push``: read the pose of the face that ``look`` found."""
        now = self._time_s + 1 / self.fps if time_s is None else time_s
        step = min(max(now - self._time_s, 1e-3), LONGEST_STEP_S) if self._started else 1 / self.fps
        self._time_s, self._started = now, True
        if sighting is None:
            return self._without_face(now)
        from ffavatar.drive.film import for_head
        from ffavatar.pipeline import drive

        views = sighting.views.to(self.avatar.identity.device)
        read = drive(self._model, self.avatar, views, own=self.options.same_person)
        row = for_head(read, self._model.head, self.avatar.rig.head).to("cpu")
        row = share_turn(row, self.avatar.rig, self.options.torso)
        crop = sighting.crop
        if self._reference is None or self._before is None or is_cut(self._before, crop):
            self._filter.reset()
            self._reference = crop
        self._before, self._seen_s = crop, now
        row = to_window(row, [crop], [self._reference])
        if self.options.smooth:
            row = self._filter(row, step)
        self._calibrate(row, step)
        shown = to_window(row, [self._reference], [self._window.follow(crop)])
        self._shown = self._adjust(shown)
        return self._shown

    def _calibrate(self, row: HeadParams, step: float) -> None:
        if self._calm is None:
            return
        self._calm.append(row)
        self._calm_s += step
        names = self.avatar.rig.head.expression_names
        self._adjust = Adjuster(self.options, names, Neutral.of(HeadParams.cat(self._calm)))
        if self._calm_s >= CALIBRATION_S:
            self._calm = None

    def _without_face(self, now: float) -> HeadParams | None:
        if self._shown is None:
            return None
        lost = now - self._seen_s - HOLD_S
        if lost <= 0:
            return self._shown
        part = min(lost / TO_REST_S, 1.0)
        if part >= 1:
            self._filter.reset()
        return mix(self._shown, self.avatar.neutral_params().to("cpu"), part * part * (3 - 2 * part))


@dataclass
class LiveReport:
    """``frames`` shown, ``dropped`` for newer ones, ``faceless``; ``latency_s`` from taking a picture off the camera
    to having the avatar's, one entry a frame; CPU and wall seconds of all."""

    frames: int = 0
    dropped: int = 0
    faceless: int = 0
    latency_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def summary(self) -> str:
        """One sentence for the user."""
        if not self.frames:
            return "no frame was shown"
        latency = 1e3 * float(np.median(self.latency_s))
        rate = self.frames / max(self.wall_s, 1e-9)
        cpu = 1e3 * self.cpu_s / self.frames
        return (
            f"{self.frames} frames at {rate:.1f}/s, {latency:.0f} ms from camera to picture (median), "
            f"{cpu:.0f} CPU ms a frame, {self.dropped} dropped"
        )


def newest(frames: Iterator[tuple[np.ndarray, float]], report: LiveReport) -> Iterator[tuple[np.ndarray, float]]:
    """Only the newest picture whenever one is asked for; older ones that nobody came for are dropped and counted."""
    slot: queue.Queue[tuple[np.ndarray, float] | BaseException | None] = queue.Queue(1)
    stopped = threading.Event()

    def put(item: tuple[np.ndarray, float] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                slot.put_nowait(item)
                return
            except queue.Full:
                try:
                    slot.get_nowait()
                    report.dropped += 1
                except queue.Empty:
                    continue

    def work() -> None:
        try:
            for frame in frames:
                if stopped.is_set():
                    return
                put(frame)
            # the end waits until the last picture is taken
            while not stopped.is_set() and not slot.empty():
                time.sleep(0.005)
            put(None)
        except BaseException as error:  # raised again where the pictures are used
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="ffavatar-camera")
    thread.start()
    try:
        while True:
            try:
                item = slot.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join(timeout=2)


def camera_frames(name: str) -> Iterator[tuple[np.ndarray, float]]:
    """Pictures of a webcam by PyAV: ``name`` is its number or its system's name (``/dev/video0``, ``FaceTime``).

    The camera is opened at once: raises ``InputError`` where there is no such camera.
    """
    import sys

    import av

    formats = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
    layout = formats.get(sys.platform, "v4l2")
    device = name
    if name.isdecimal() and layout == "v4l2":
        device = f"/dev/video{name}"
    elif layout == "dshow" and not name.startswith("video="):
        device = f"video={name}"
    try:
        container = av.open(device, format=layout, options={"framerate": "30"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"The camera {name!r} cannot be opened ({words}); give another number or a file.") from None

    def pictures() -> Iterator[tuple[np.ndarray, float]]:
        with container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24"), time.monotonic()

    return pictures()


class Recorder:
    """Keeps a film of live pictures in time: each is written as often as its turn lasted, at ``fps``."""

    def __init__(self, write: Callable[[np.ndarray], None], fps: float) -> None:
        self._write, self._fps = write, fps
        self._start: float | None = None
        self._written = 0
        self._last: np.ndarray | None = None

    def show(self, picture: np.ndarray, now_s: float | None = None) -> None:
        """The next picture, shown at ``now_s`` (by default: now)."""
        now = time.monotonic() if now_s is None else now_s
        self._start = now if self._start is None else self._start
        due = int((now - self._start) * self._fps + 1e-6)
        while self._last is not None and self._written < due:
            self._write(self._last)
            self._written += 1
        self._last = picture

    def finish(self) -> None:
        """Write the last picture."""
        if self._last is not None:
            self._write(self._last)
            self._last = None


def file_frames(path: Path, realtime: bool) -> Iterator[tuple[np.ndarray, float]]:
    """A film or a folder of pictures as a source; with ``realtime`` at the speed at which it was taken."""
    start = time.monotonic()
    for frame in FrameReader(path):
        if realtime:
            time.sleep(max(start + frame.time_s - time.monotonic(), 0))
        yield frame.image, frame.time_s


def run_live(
    driver: LiveDriver,
    frames: Iterator[tuple[np.ndarray, float]],
    size: int,
    show: Callable[[np.ndarray], None],
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    report: LiveReport | None = None,
    most: int | None = None,
) -> LiveReport:
    """Every picture of ``frames`` drives the avatar; ``show`` takes (size, size, 3) uint8. Ends with the frames, or
    after ``most``; ``KeyboardInterrupt`` ends it in order too."""
    from ffavatar.drive.film import FilmStyle, render_uint8

    report = report or LiveReport()
    style = FilmStyle(size, background)
    resting = driver.avatar.neutral_params().to("cpu")

    def looked() -> Generator[tuple[Sighting | None, float, float]]:
        for image, time_s in frames:
            taken = time.perf_counter()
            yield driver.look(image), time_s, taken

    wall, cpu = time.perf_counter(), time.process_time()
    # two threads, two cores: one finds the face of the next picture while the other reads and draws this one
    stream = in_background(looked(), ahead=1, threads=max(1, torch.get_num_threads() // 2))
    try:
        for sighting, time_s, taken in stream:
            params = driver.respond(sighting, time_s)
            if params is None:
                report.faceless += 1
            with torch.no_grad():
                picture = render_uint8(driver.avatar, resting if params is None else params, style, size)[0]
            report.latency_s.append(time.perf_counter() - taken)
            report.frames += 1
            show(picture)
            if most is not None and report.frames >= most:
                break
    except KeyboardInterrupt:
        pass
    finally:
        stream.close()
    report.wall_s += time.perf_counter() - wall
    report.cpu_s += time.process_time() - cpu
    return report
