"""Reading frames from video files and folders of pictures, in bounded memory."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ffavatar.errors import InputError

DEFAULT_FPS = Fraction(25)
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".ogv", ".flv")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")

# Only containers that hold their own data: a playlist (HLS, ffconcat) could make FFmpeg open other files or addresses.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,ivf,flv,gif,apng,ogg,asf,yuv4mpegpipe,mxf,"
    "wav,mp3,flac,aac,aiff,w64,caf"  # sound alone
)
_MOST_PIXELS = 8192 * 8192
_DAMAGED_PACKETS = 50  # in a row; then the rest of the file is given up


@dataclass(frozen=True)
class Frame:
    """One picture of a film: ``image`` (H, W, 3) uint8 RGB, upright; ``time_s`` seconds from the first frame."""

    image: np.ndarray
    time_s: float


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sorting key that puts frame2.png before frame10.png."""
    return [(0, int(p)) if p.isdecimal() else (1, p.lower()) for p in re.split(r"(\d+)", path.name) if p]


def list_pictures(folder: Path) -> list[Path]:
    """Picture files of a folder in natural order, by their suffix; hidden files are left out."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check the folder's permissions.") from None
    return sorted((p for p in found if p.is_file()), key=natural_key)


def existing_input(path: str | Path) -> Path:
    """The path, if it is a readable ordinary file or a folder; otherwise ``InputError``.

    Pipes, sockets and devices are refused before anything opens them: opening a pipe would wait for ever.
    """
    path = Path(path).expanduser()
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if address := re.match(r"(?i)([a-z][a-z0-9+.-]+):/+(?=.)", str(path)):  # paths lose one of the two slashes
            where = f"{address[1]}://{str(path)[address.end() :]}"
            raise InputError(
                f"{where} is an address, which is not read; download it first, and give the file."
            ) from None
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:  # no permission, link loops, names too long; null bytes
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be opened ({reason}); give another file.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is neither a file nor a folder; give an ordinary file.")
    if stat.S_ISREG(mode) and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); give another file.")
    return path


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a film for reading, with FFmpeg kept from following it to other files or addresses; FFmpeg's errors."""
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


class FrameReader:
    """Frames of a video file, or of a folder of pictures in natural order; iterate it as often as wanted.

    Frames are uint8 RGB (H, W, 3), upright (rotation metadata applied), one in memory at a time. ``fps`` is a
    ``Fraction``; ``count`` is the number of frames as declared or estimated from the duration, None where neither is
    known; ``size`` is (width, height) as shown. After an iteration ``read`` is the number of frames given and
    ``notes`` holds one sentence for each thing that went wrong on the way.

    Raises ``InputError``, here or while iterating, where there is no video, nothing can be decoded, or the file is
    damaged before the first frame. Damage later ends the iteration, with a note that says how many frames were
    readable.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None) -> None:
        self.path = existing_input(path)
        self.notes: list[str] = []
        self.read = 0
        self.count: int | None = None
        self.has_audio = False
        self.size: tuple[int, int] | None = None
        self._pictures: list[Path] | None = None
        if self.path.is_dir():
            self._pictures = list_pictures(self.path)
            if not self._pictures:
                raise InputError(f"{self.path} holds no pictures ({', '.join(PICTURE_SUFFIXES)}); give another folder.")
            self.fps = Fraction(fps or DEFAULT_FPS).limit_denominator(1001)
            self.count = len(self._pictures)
            return
        with self._open() as container:
            stream = self._video_stream(container)
            self.fps = Fraction(fps).limit_denominator(1001) if fps else _frame_rate(stream)
            self.count = _frame_count(container, stream, self.fps)
            self.has_audio = len(container.streams.audio) > 0
            first = next(self._decode(container, stream), None)
            if first is None:
                raise InputError(f"{self.path} holds no readable frame; give a complete video file.")
            self.size = (first.image.shape[1], first.image.shape[0])
        self.notes.clear()

    def __iter__(self) -> Iterator[Frame]:
        self.read, self.notes = 0, []
        if self._pictures is not None:
            yield from self._pictures_in_turn(self._pictures)
            return
        with self._open() as container:
            for frame in self._decode(container, self._video_stream(container)):
                self.read += 1
                yield frame
        # Container counts are off by a few in healthy files (edit lists, priming frames), so small gaps are not
        # reported.
        if not self.notes and self.count is not None and self.read < 0.9 * self.count - 3:
            self.notes.append(f"{self.path} ends early: {self.read} of {self.count} frames were readable.")

    def _open(self) -> av.container.InputContainer:
        try:
            return open_media(self.path)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if self.path.suffix.lower() in PICTURE_SUFFIXES:
                reason = "it is named like a picture: put pictures into a folder and give that"
            else:
                reason = "it is not a video file, or is cut off; give a complete mp4, mov, webm, mkv, avi or gif"
            code = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"{self.path} cannot be read as video ({code}): {reason}.") from None

    def _video_stream(self, container: av.container.InputContainer) -> av.VideoStream:
        for stream in container.streams.video:
            cover = "attached_pic" in str(getattr(stream.disposition, "name", "")).lower()  # an album's cover picture
            if cover or stream.codec_context is None:
                continue
            if stream.width * stream.height > _MOST_PIXELS:
                raise InputError(f"{self.path} is {stream.width} x {stream.height} pixels; scale it to 8192 or less.")
            stream.thread_type = "AUTO"
            return stream
        raise InputError(f"{self.path} holds no video stream that can be decoded; give a file with pictures in it.")

    def _decode(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Frame]:
        given, damaged, start = 0, 0, None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
                damaged = 0
            except (av.error.FFmpegError, OSError) as error:
                damaged += 1
                self._note_damage(given, error)
                if damaged > _DAMAGED_PACKETS or isinstance(error, av.error.EOFError):
                    return
                continue
            for frame in frames:
                time_s = float(frame.time) if frame.time is not None else given / float(self.fps)
                start = time_s if start is None else start
                given += 1
                yield Frame(_upright(frame), max(time_s - start, 0.0))

    def _note_damage(self, given: int, error: Exception) -> None:
        if given == 0 and isinstance(error, av.error.FFmpegError | OSError) and not self.notes:
            self.notes.append(f"{self.path} is damaged at its beginning.")
        elif given:
            of = f" of about {self.count}" if self.count else ""
            self.notes = [f"{self.path} is damaged after frame {given}{of}; going on with the frames that can be read."]

    def _pictures_in_turn(self, pictures: list[Path]) -> Iterator[Frame]:
        from ffavatar.photo import read_photo

        refused: list[str] = []
        for index, path in enumerate(pictures):
            try:
                image = read_photo(path)
            except InputError as error:
                refused.append(str(error))
                continue
            self.read += 1
            self.size = self.size or (image.shape[1], image.shape[0])
            yield Frame(image, index / float(self.fps))
        if not self.read:
            raise InputError(f"{self.path} holds no readable picture (first reason: {refused[0]})")
        if refused:
            self.notes.append(f"{self.path}: {len(refused)} of {len(pictures)} pictures left out; {refused[0]}")


def at_constant_rate(frames: Iterable[Frame], fps: Fraction | float) -> Iterator[tuple[Frame, int]]:
    """Frames with the number of times each is shown at a constant rate (0: dropped, 2 and more: held).

    Time stamps of phones and screen recordings wander; output at a constant rate keeps picture and sound together.
    Moments are at i / ``fps``; each shows the last frame that began up to half a step after it, so a steady input
    passes as it is. The last frame is shown once; a gap counts as at most 10 s.
    """
    step = 1 / float(fps)
    shown = 0  # moments filled so far
    held: Frame | None = None
    shift = 0.0
    for frame in frames:
        if held is not None:
            gap = frame.time_s - held.time_s
            if not 0 <= gap <= 10:  # a broken time stamp would ask for hours of film
                shift += step - gap
            begins = frame.time_s + shift
            times = max(int(np.ceil(begins / step - 0.5 - 1e-6)) - shown, 0)
            yield held, times
            shown += times
        held = frame
    if held is not None:
        yield held, 1


def _frame_rate(stream: av.VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 1 <= rate <= 240:
            return Fraction(rate).limit_denominator(1001)
    return DEFAULT_FPS


def _frame_count(container: av.container.InputContainer, stream: av.VideoStream, fps: Fraction) -> int | None:
    if stream.frames > 0:
        return stream.frames
    if stream.duration and stream.time_base:
        return max(round(float(stream.duration * stream.time_base) * float(fps)), 1)
    if container.duration and container.duration > 0:
        return max(round(container.duration / av.time_base * float(fps)), 1)
    return None


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB with the display matrix' quarter turns applied (``rotation`` is counter-clockwise, as ``rot90`` is)."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
