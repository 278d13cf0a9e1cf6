"""The formats: one table from a file name's ending to the function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ffavatar.avatar import Avatar
from ffavatar.drive.retarget import carried_over
from ffavatar.drive.writer import check_film_output, is_folder_output
from ffavatar.errors import InputError
from ffavatar.export.glb import write_glb, write_mesh_glb
from ffavatar.export.html import write_page
from ffavatar.export.lam import write_lam
from ffavatar.export.mesh import write_obj
from ffavatar.export.options import ExportOptions, refuse_flame
from ffavatar.export.pictures import write_film, write_still, write_webp
from ffavatar.export.splats import write_ply, write_splat, write_spz
from ffavatar.export.usd import write_usda
from ffavatar.files import check_output_file

Writer = Callable[[Avatar, Path, ExportOptions], None]


@dataclass(frozen=True)
class Format:
    """How one kind of file is written, and whether it holds the head itself or pictures of it."""

    write: Writer
    what: str
    three_d: bool = True
    film: bool = False


# Longer endings first: `.mesh.glb` before `.glb`.
FORMATS: dict[str, Format] = {
    ".mesh.glb": Format(write_mesh_glb, "mesh with vertex colours, rig, ARKit morph targets and motion, glTF"),
    ".ply": Format(write_ply, "Gaussians as 3D Gaussian splatting writes them"),
    ".spz": Format(write_spz, "compressed Gaussians, SPZ version 3"),
    ".splat": Format(write_splat, "Gaussians for antimatter15's viewer"),
    ".glb": Format(write_glb, "Gaussians with rig, ARKit morph targets and motion, glTF"),
    ".obj": Format(write_obj, "posed mesh with vertex colours"),
    ".zip": Format(write_lam, "for LAM's web renderer"),
    ".usda": Format(write_usda, "Gaussians for OpenUSD 26"),
    ".html": Format(write_page, "page with viewer and avatar that runs from disk"),
    ".png": Format(write_still, "picture", three_d=False),
    ".jpg": Format(write_still, "picture", three_d=False),
    ".jpeg": Format(write_still, "picture", three_d=False),
    ".webp": Format(write_webp, "picture, or animation", three_d=False),
    ".mp4": Format(write_film, "film", three_d=False, film=True),
    ".m4v": Format(write_film, "film", three_d=False, film=True),
    ".mov": Format(write_film, "film", three_d=False, film=True),
    ".webm": Format(write_film, "film", three_d=False, film=True),
    ".gif": Format(write_film, "film", three_d=False, film=True),
    "": Format(write_film, "folder of PNG files", three_d=False, film=True),
}


def format_of(path: str | Path) -> Format:
    """The format that a file name asks for. Raises ``InputError`` with the known endings for any other."""
    return FORMATS[ending_of(path)]


def ending_of(path: str | Path) -> str:
    """The key of ``FORMATS`` that a file name asks for. Raises as ``format_of``."""
    path = Path(path)
    name = path.name.lower()
    for suffix in FORMATS:
        if suffix and name.endswith(suffix) and name != suffix:
            return suffix
    if is_folder_output(path) and path.name:
        return ""
    known = ", ".join(suffix for suffix in FORMATS if suffix)
    raise InputError(f"{path}: avatars are exported as {known}, or PNG files to a folder; change the name's ending.")


def check_export(path: str | Path, options: ExportOptions) -> Format:
    """Whether a file can be written there, asked before long work. Raises ``InputError`` with the remedy if not."""
    made = format_of(path)
    if made.film:
        check_film_output(path, options.style.alpha)
    else:
        check_output_file(path)
    return made


def export(avatar: Avatar, path: str | Path, options: ExportOptions | None = None) -> Path:
    """Write an avatar in the format that the name of ``path`` asks for; whole or not at all.

    Raises:
        InputError: an ending that no format has, a place that cannot be written, an avatar on a FLAME basis without
        ``allow_flame``, a motion or pose that does not fit the format.
    """
    options = options or ExportOptions()
    path = Path(path)
    made = check_export(path, options)
    if made.three_d:
        refuse_flame(avatar, path, options)
    if not 1e-4 <= options.scale <= 1e4:
        raise InputError(f"{path}: a scale of {options.scale:g} units per metre is of no use; give 0.0001 to 10000.")
    if options.motion is not None:  # of another program or head, it is the avatar's before any format sees it
        options = replace(options, motion=carried_over(options.motion, avatar.rig)[0])
    made.write(avatar, path, options)
    return path
