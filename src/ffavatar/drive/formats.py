"""Any motion file: what it is, told by its content, then its reader; and the writers."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from ffavatar.drive.arkit import read_arkit_json, read_live_link_csv, write_arkit_json, write_live_link_csv
from ffavatar.drive.flame_tracks import (
    program_of,
    read_flame_file,
    read_npz_sequence,
    read_pixel3dmm,
    read_vhap_folder,
)
from ffavatar.drive.flame_writers import write_flame_json, write_flame_npz, write_pixel3dmm, write_vhap_folder
from ffavatar.drive.motion import Motion
from ffavatar.drive.video import existing_input, list_pictures, natural_key
from ffavatar.errors import InputError

Kind = Literal["ffavatar", "arkit-json", "live-link-csv", "flame-file", "vhap-folder", "npz-folder", "pixel3dmm"]
WriteKind = Literal["ffavatar", "arkit-json", "live-link-csv", "vhap", "flame-npz", "flame-json", "pixel3dmm"]
MOTION_SUFFIXES = (".json", ".npz", ".csv", ".frame")
_KEY = re.compile(rb'"([A-Za-z_]{1,40})"\s*:')
_HEAD_BYTES = 4096


def sniff(path: str | Path) -> Kind | None:
    """What a file or folder is, by its content; None where it is no motion that is known (it may be a film).

    Raises ``InputError`` where the path is not readable, or an avatar. A file that only looks like one is refused by
    its reader.
    """
    place = existing_input(path)
    if place.is_dir():
        return _sniff_folder(place)
    try:
        with place.open("rb") as file:
            start = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    if re.match(rb'[\0-\xff]{4}\0{4}\{ *"', start):  # the length of a header, and the header
        raise InputError(
            f"{path} is an avatar or weights (.safetensors), and moves nothing; give a film, a motion or speech."
        )
    if start.startswith(b"PK"):
        return _sniff_zip(place)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return _sniff_json(place, text)
    first = text.split(b"\n", 1)[0].lower()
    if b"," in first and (b"blendshapecount" in first or b"jawopen" in first.replace(b"_", b"")):
        return "live-link-csv"
    return None


def _sniff_folder(folder: Path) -> Kind | None:
    if (folder / "flame_params.json").is_file() or any((folder / "flame_param").glob("*.npz")):
        return "vhap-folder"
    if any(folder.glob("*.frame")):
        return "pixel3dmm"
    return "npz-folder" if any(folder.glob("*.npz")) and not list_pictures(folder) else None


def _sniff_zip(place: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(place) as archive:
            names = archive.namelist()
    except Exception:  # zipfile has many ways to fail on damage; a reader says what is wrong
        return None
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "pixel3dmm"
    arrays = {name.removesuffix(".npy"): None for name in names if name.endswith(".npy")}
    if "header" in arrays and "root" in arrays:
        return "ffavatar"
    return "flame-file" if program_of(arrays) else None


def _sniff_json(place: Path, start: bytes) -> Kind | None:
    """Keys near the beginning decide; where they do not, the file is read."""
    keys = {key.decode() for key in _KEY.findall(start)}
    if "format" in keys or b'"ffavatar-motion"' in start:
        return "ffavatar"
    if "names" not in keys and not program_of(dict.fromkeys(keys)):
        try:
            data = json.loads(place.read_bytes()) if place.stat().st_size < 64 * 2**20 else {}
        except (ValueError, RecursionError, OSError):
            return None
        keys = set(data) if isinstance(data, dict) else set()
    if {"names", "frames"} <= keys or ("names" in keys and "weights" in keys):
        return "arkit-json"
    if program_of(dict.fromkeys(keys)) or {"rotation", "translation"} <= keys:
        return "flame-file"
    return "ffavatar" if "format" in keys else None


def is_motion(path: str | Path) -> bool:
    """Whether a driver is to be read as a motion: by its content, or, where that says nothing, by its name."""
    place = existing_input(path)
    return sniff(place) is not None or (place.is_file() and place.suffix.lower() in MOTION_SUFFIXES)


def read_motion(path: str | Path, edition: str | None = None, fps: float | None = None) -> Motion:
    """Read any motion file or folder.

    ``edition`` says which FLAME a track was made with, where its program's own is not right; ``fps`` overrides the
    rate. Raises ``InputError`` for anything that is not known or damaged.
    """
    if fps is not None and not 0.1 <= fps <= 1000:
        raise InputError(f"{fps} frames per second cannot be used; choose 0.1 to 1000.")
    place = existing_input(path)
    kind = sniff(place)
    if edition is not None and kind in ("ffavatar", "arkit-json", "live-link-csv"):
        raise InputError(f"{path} is no FLAME track, so it has no FLAME edition; leave the edition away.")
    match kind:
        case "arkit-json":
            return read_arkit_json(place, fps)
        case "live-link-csv":
            return read_live_link_csv(place, fps)
        case "flame-file":
            return read_flame_file(place, edition, fps)
        case "vhap-folder":
            return read_vhap_folder(place, edition, fps)
        case "npz-folder":
            return read_npz_sequence(sorted(place.glob("*.npz"), key=natural_key), place, edition, fps)
        case "pixel3dmm":
            return read_pixel3dmm(place, edition, fps)
        case "ffavatar":
            motion = Motion.load(place)
        case _ if place.suffix.lower() in (".json", ".npz") and place.is_file():
            motion = Motion.load(place)  # says what is wrong with it
        case _:
            known = "FFAvatar, VHAP, GaussianAvatars, LAM, Pixel3DMM, SMIRK, flame-head-tracker, ARKit, Live Link Face"
            raise InputError(f"{path} is no motion that is known; give one by {known}.")
    return replace(motion, fps=fps) if fps is not None else motion


_WRITERS: dict[str, Callable[[Motion, Path], None]] = {
    "arkit-json": write_arkit_json,
    "live-link-csv": write_live_link_csv,
    "vhap": write_vhap_folder,
    "flame-npz": write_flame_npz,
    "flame-json": write_flame_json,
    "pixel3dmm": write_pixel3dmm,
}


def write_motion(motion: Motion, path: str | Path, kind: WriteKind = "ffavatar") -> None:
    """Write a motion for another program, atomically. FLAME's layouts take motions of a FLAME edition, ARKit's those
    of ARKit; ``InputError`` otherwise (``retarget`` and ``to_arkit`` convert)."""
    if kind not in get_args(WriteKind):
        raise InputError(f"{kind} is no layout of motions; choose one of {', '.join(get_args(WriteKind))}.")
    if kind == "ffavatar":
        motion.save(path)
    else:
        _WRITERS[kind](motion, Path(path))
