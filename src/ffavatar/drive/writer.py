"""Writing films: mp4, mov, webm, gif or a folder of PNG files; whole or not at all, marked as synthetic media."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from ffavatar.drive.marks import FILM_TAGS, append_gif_comment, append_xmp_box, write_marked_image
from ffavatar.drive.video import open_media
from ffavatar.errors import InputError
from ffavatar.files import atomic_folder, atomic_path, check_output_file, check_output_folder

FILM_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".gif")


@dataclass(frozen=True)
class _Encoding:
    """How one kind of file is encoded."""

    codec: str
    pixels: str
    options: dict[str, str]
    audio: str | None  # the encoder for sound
    audio_kept: tuple[str, ...] = ()  # sound codecs that are copied as they are


_MP4_SOUND = ("aac", "mp3", "mp3float", "alac", "ac3")
_H264 = _Encoding("libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, "aac", _MP4_SOUND)
_PRORES = _Encoding("prores_ks", "yuva444p10le", {"profile": "4444", "vendor": "apl0"}, "aac", _MP4_SOUND)
_VP9_OPTIONS = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
_VP9 = _Encoding("libvpx-vp9", "yuv420p", _VP9_OPTIONS, "libopus", ("opus", "vorbis"))
# VP9's alpha is a second stream of pictures that refers to the first: alternate reference frames would upset their
# pairs.
_VP9_ALPHA = _Encoding("libvpx-vp9", "yuva420p", _VP9_OPTIONS | {"auto-alt-ref": "0"}, "libopus", _VP9.audio_kept)
_GIF = _Encoding("gif", "pal8", {}, None)
# FFmpeg's encoder cuts transparent margins off without looking at the last row, and so cuts shoulders that are widest
# there: whole frames instead, with what stays the same left out as before.
_GIF_ALPHA = _Encoding("gif", "pal8", {"gifflags": "transdiff"}, None)


def is_folder_output(path: str | Path) -> bool:
    """Whether this output means a folder of PNG files: it has no suffix, or is a folder not named like a film."""
    suffix = Path(path).suffix.lower()
    return not suffix or (suffix not in FILM_SUFFIXES and Path(path).is_dir())


def check_film_output(path: str | Path, alpha: bool = False) -> None:
    """Whether a film can be written there, asked before long work; raises ``InputError`` with the remedy if not."""
    path = Path(path)
    if is_folder_output(path):
        check_output_folder(path)
        return
    if path.suffix.lower() not in FILM_SUFFIXES:
        known = ", ".join(FILM_SUFFIXES)
        raise InputError(f"{path}: films are written as {known}, or PNG files to a folder (a name without ending).")
    if alpha and path.suffix.lower() in (".mp4", ".m4v"):
        raise InputError(f"{path}: mp4 cannot hold transparency; write .webm, .mov, .gif or a folder of PNG files.")
    check_output_file(path)


class FilmWriter:
    """Write frames one by one: ``with FilmWriter(path, fps, (width, height)) as film: film.write(image)``.

    mp4 and m4v are H.264 (yuv420p, crf 18); mov too, or ProRes 4444 with ``alpha``; webm is VP9, with ``alpha`` if
    asked; gif has its own palette per frame; a name without suffix becomes a folder of PNG files. Frames are uint8
    (H, W, 3) RGB or, with ``alpha``, (H, W, 4) RGBA with straight (not premultiplied) colour. Odd sides are extended
    by one pixel where the codec needs even ones. ``audio_from`` is a video whose sound is copied, or encoded anew
    where it does not fit the container, up to the film's length. Files appear only when the block ends without an
    exception. ``notes`` holds a sentence where sound was left out.

    Raises ``InputError`` for a wrong suffix, transparency that the format cannot hold, or a place that cannot be
    written.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | Fraction,
        size: tuple[int, int],
        audio_from: str | Path | None = None,
        alpha: bool = False,
    ) -> None:
        check_film_output(path, alpha)
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.size = size
        self.alpha = alpha
        self.frames = 0
        self.notes: list[str] = []
        self._audio_from = audio_from
        self._suffix = "" if is_folder_output(path) else self.path.suffix.lower()
        self._place: AbstractContextManager[Path] | None = None
        self._container: av.container.OutputContainer | None = None
        self._audio: _Sound | None = None

    def __enter__(self) -> FilmWriter:
        self._place = atomic_path(self.path) if self._suffix else atomic_folder(self.path)
        self._target = self._place.__enter__()
        if self._suffix:
            try:
                self._begin()
            except BaseException as error:
                self._close_container()
                self._place.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def _begin(self) -> None:
        encoding = self._encoding()
        mp4 = self._suffix in (".mp4", ".m4v", ".mov")
        # With this flag the muxer keeps tags it has no box for, but then drops the classic ones that players show; the
        # source type goes into the XMP box instead (see ``marks``).
        container_options = {"movflags": "+faststart"} if mp4 else {}
        name = {".m4v": "mp4"}.get(self._suffix, self._suffix[1:])
        self._container = av.open(str(self._target), "w", format=name, options=container_options)
        self._container.metadata.update(FILM_TAGS)
        stream: Any = self._container.add_stream(encoding.codec, rate=self.fps, options=encoding.options)
        width, height = self.size
        if encoding.pixels in ("yuv420p", "yuva420p"):
            width, height = width + width % 2, height + height % 2
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixels
        stream.codec_context.time_base = 1 / self.fps
        if encoding.pixels != "pal8":
            # BT.709 limited range, said in the stream: untagged files are guessed by players from the picture's size.
            stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
            stream.codec_context.color_range = 1
        self._stream, self._pixels, self._padded = stream, encoding.pixels, (width, height)
        self._palette = _Palette(width, height, self.fps, self.alpha) if encoding.codec == "gif" else None
        if self._audio_from is not None and encoding.audio is not None:
            self._audio = _Sound.open(self._audio_from, self._container, encoding, self.notes)

    def _encoding(self) -> _Encoding:
        match self._suffix:
            case ".webm":
                return _VP9_ALPHA if self.alpha else _VP9
            case ".gif":
                return _GIF_ALPHA if self.alpha else _GIF
            case ".mov" if self.alpha:
                return _PRORES
            case _:
                return _H264

    def write(self, image: np.ndarray) -> None:
        """Add one frame: uint8 (H, W, 3), or (H, W, 4) with ``alpha``, of the writer's size."""
        expected = (self.size[1], self.size[0], 4 if self.alpha else 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"frame is {image.dtype} {image.shape}, the film takes uint8 {expected}")
        if not self._suffix:
            write_marked_image(self._target / f"frame_{self.frames + 1:06d}.png", image)
            self.frames += 1
            return
        assert self._container is not None
        width, height = self._padded
        if (width, height) != self.size:
            image = np.pad(image, ((0, height - self.size[1]), (0, width - self.size[0]), (0, 0)), mode="edge")
        image = np.ascontiguousarray(image)
        frame = av.VideoFrame.from_ndarray(image, format="rgba" if self.alpha else "rgb24")
        if self._palette is not None:
            frame = self._palette.map(frame)
        else:
            frame = frame.reformat(format=self._pixels, dst_colorspace="ITU709")
            frame.colorspace = 1
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
        if self._audio is not None:
            self._audio.copy_until(self.frames / float(self.fps))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._place is not None
        try:
            if kind is None and self.frames == 0:
                raise InputError(f"{self.path} was not written: there was no frame to put into it.")
            if kind is None and self._container is not None:
                self._container.mux(self._stream.encode(None))
                if self._audio is not None:
                    self._audio.finish(self.frames / float(self.fps))
                self._close_container()
                if self._suffix in (".mp4", ".m4v", ".mov"):
                    append_xmp_box(self._target)
                elif self._suffix == ".gif":
                    append_gif_comment(self._target)
        except BaseException as failure:
            self._close_container()
            self._place.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._close_container()
        self._place.__exit__(kind, error, trace)

    def _close_container(self) -> None:
        audio, self._audio = self._audio, None
        container, self._container = self._container, None
        if audio is not None:
            audio.source.close()
        if container is not None:
            container.close()


class _Palette:
    """FFmpeg's palettegen and paletteuse as a graph that gives each frame its own 256 colours."""

    def __init__(self, width: int, height: int, fps: Fraction, alpha: bool) -> None:
        graph = av.filter.Graph()
        pixels = av.VideoFormat("rgba" if alpha else "rgb24", width, height)
        source = graph.add_buffer(width=width, height=height, format=pixels, time_base=1 / fps)
        split = graph.add("split")
        colours = graph.add("palettegen", f"stats_mode=single:reserve_transparent={int(alpha)}")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a:alpha_threshold=128")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(colours, 0, 0)
        split.link_to(use, 1, 0)
        colours.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self._graph, self._source, self._sink, self._count = graph, source, sink, 0
        self._step = 1 / fps

    def map(self, frame: av.VideoFrame) -> av.VideoFrame:
        frame.pts, frame.time_base = self._count, self._step
        self._count += 1
        self._source.push(frame)
        mapped = self._sink.pull()
        assert isinstance(mapped, av.VideoFrame)
        return mapped


class _Sound:
    """The sound of one file on its way into another: packets copied, or decoded and encoded anew."""

    def __init__(self, source: Any, stream: Any, out: Any, container: Any, copies: bool, start_s: float) -> None:
        self.source = source
        self._stream, self._out, self._container, self._copies, self._start_s = stream, out, container, copies, start_s
        self._packets = source.demux(stream)
        self._pending: Any = None
        self._resampler = None if copies else av.AudioResampler(out.format, out.layout, out.rate)
        self._ended = False

    @staticmethod
    def open(path: str | Path, container: Any, encoding: _Encoding, notes: list[str]) -> _Sound | None:
        """None, with a note where there is sound that cannot be used, if nothing is to be copied."""
        if Path(path).is_dir():
            return None
        source = open_media(path)
        streams = source.streams.audio
        if not streams:
            source.close()
            return None
        stream = streams[0]
        try:
            copies = stream.codec_context.name in encoding.audio_kept
            if copies:
                out = container.add_stream_from_template(stream)
            else:
                rate = 48000 if encoding.audio == "libopus" else stream.rate
                out = container.add_stream(encoding.audio, rate=rate)
                out.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        except (av.error.FFmpegError, ValueError, AttributeError) as error:
            notes.append(f"The sound of {path} was left out: it cannot be decoded ({error}).")
            source.close()
            return None
        video = source.streams.video
        first = video[0] if video else stream
        start_s = float(first.start_time * first.time_base) if first.start_time and first.time_base else 0.0
        return _Sound(source, stream, out, container, copies, start_s)

    def copy_until(self, time_s: float) -> None:
        """Move the sound that begins before ``time_s`` seconds of film."""
        while not self._ended:
            try:
                if self._pending is None:
                    self._pending = next(self._packets, None)
                packet = self._pending
                if packet is None or (packet.dts is None and packet.size == 0):
                    self._ended = True
                    return
                begins = float((packet.pts if packet.pts is not None else packet.dts or 0) * packet.time_base)
                if begins - self._start_s >= time_s:
                    return
                self._pending = None
                self._pass_on(packet, begins)
            except av.error.FFmpegError:  # damaged sound ends there; the pictures go on
                self._ended = True

    def _pass_on(self, packet: Any, begins: float) -> None:
        if self._copies:
            shift = round(self._start_s / packet.time_base)
            if begins - self._start_s < -0.2:
                return  # from before the first picture
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = self._out
            self._container.mux(packet)
            return
        assert self._resampler is not None
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts -= round(self._start_s / frame.time_base)
            for piece in self._resampler.resample(frame):
                self._container.mux(self._out.encode(piece))

    def finish(self, time_s: float) -> None:
        """Copy what is left up to the film's end and empty the encoder."""
        self.copy_until(time_s)
        if not self._copies and self._resampler is not None:
            for piece in self._resampler.resample(None):
                self._container.mux(self._out.encode(piece))
            self._container.mux(self._out.encode(None))
