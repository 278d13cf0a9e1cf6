"""Pictures and films by the writers of ``ffavatar.drive``, and animated WebP, which those do not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ffavatar.avatar import Avatar
from ffavatar.drive.film import BATCH, FilmStyle, film_motion, render_uint8
from ffavatar.drive.marks import save_still, xmp_packet
from ffavatar.drive.motion import Motion
from ffavatar.errors import InputError
from ffavatar.export.options import ExportOptions
from ffavatar.files import atomic_path
from ffavatar.types import HeadParams

SIZE_PX = 512


def write_still(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """One picture (.png, .jpg, .webp), with transparency if the style asks for it and the format has it."""
    params = options.moment(avatar, path)
    params = avatar.neutral_params() if params is None else params
    save_still(path, render_uint8(avatar, params, options.style, options.style.size or SIZE_PX)[0])


def write_film(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """The whole motion as .mp4, .m4v, .mov, .webm, .gif, or a folder of PNG files."""
    film_motion(avatar, _motion(path, options), path, options.style)


def write_webp(avatar: Avatar, path: Path, options: ExportOptions) -> None:
    """A still; or, with a motion and no frame chosen, an animation that loops."""
    if options.motion is None or options.frame is not None or options.pose is not None:
        write_still(avatar, path, options)
        return
    motion, style = options.motion, options.style
    frames = _frames(avatar, motion.for_head(avatar.rig.head), style, style.size or SIZE_PX)
    # WebP keeps whole milliseconds per frame: spread the rounding, so that the length is right to half of one
    ends = [round((i + 1) * 1000 / motion.fps) for i in range(len(motion))]
    durations = [end - start for start, end in zip([0, *ends], ends)]
    with atomic_path(path) as temporary:
        next(frames).save(
            temporary, save_all=True, append_images=frames, duration=durations, loop=0, quality=90, method=2,
            xmp=xmp_packet(),
        )  # fmt: skip


def _motion(path: Path, options: ExportOptions) -> Motion:
    if options.motion is None:
        raise InputError(f"{path} is a film, which needs a motion: give one with --motion.")
    if options.frame is not None or options.pose is not None:
        raise InputError(f"{path} is a film of the whole motion: leave the frame or pose away, or write a picture.")
    return options.motion


def _frames(avatar: Avatar, params: HeadParams, style: FilmStyle, size: int) -> Iterator[Image.Image]:
    for start in range(0, len(params), BATCH):
        for image in render_uint8(avatar, params[start : start + BATCH], style, size):
            yield Image.fromarray(image)
