"""Reads any photo file as upright 8-bit sRGB, or says in one sentence why it cannot be read."""

from __future__ import annotations

import io
import textwrap
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ffavatar.errors import InputError
from ffavatar.kinds import HEIF_BRANDS, START, a, kind_of

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 120_000_000  # by the header, before anything is decoded
KEPT_PIXELS = 24_000_000  # larger photos are scaled down to this: a head crop never needs more
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF", "JPEG2000", "PPM")
ADVICE = "save it again as JPEG or PNG"

_decoding = threading.Lock()  # warning filters are process-wide; see _decode


@dataclass(frozen=True)
class Photo:
    """A decoded photo and what was noticed on the way."""

    image: np.ndarray  # (H, W, 3) uint8 sRGB, upright, transparency on white
    name: str
    notes: tuple[str, ...] = ()


def read_photo(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """The picture of ``open_photo`` alone: (H, W, 3) uint8. Same errors."""
    return open_photo(source, name).image


def open_photo(source: str | Path | bytes, name: str | None = None) -> Photo:
    """Read a photo from a path or from the bytes of a file.

    The EXIF orientation is applied, embedded colour profiles are converted to sRGB, transparency is laid on white, 16
    bits become 8, of several frames the first is taken. Raises InputError for whatever is missing, empty, too large, no
    picture, damaged or of a kind without decoder.
    """
    if isinstance(source, bytes):
        data, name = source, name or "the photo"
    else:
        name = name or str(source)
        data = _read_file(Path(source), name)
    if not data:
        raise InputError(f"{name} is empty: give another photo.")
    _enable_heif()
    with _decoding, warnings.catch_warnings():
        # Pillow warns about odd metadata and from 89 megapixels on; the limits here replace the latter.
        warnings.simplefilter("ignore")
        return _decode(data, name)


def _read_file(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{name} is a folder: give the photos in it one by one.")
        if not path.exists():
            raise InputError(f"{name} does not exist: check the path.")
        if not path.is_file():
            raise InputError(f"{name} is not a regular file: give a photo file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MB: {ADVICE} at a smaller size.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): check its permissions.") from error


def _enable_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _decode(data: bytes, name: str) -> Photo:
    Image.init()
    try:
        picture: Image.Image = Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name) from error
    except Exception as error:  # decoders raise nearly anything on crafted files
        raise _unreadable(data, name) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)
    notes = []
    if getattr(picture, "n_frames", 1) > 1 and picture.format in ("GIF", "WEBP", "PNG", "TIFF"):
        notes.append("it has several frames; the first was taken")
    shrink = (width * height / KEPT_PIXELS) ** 0.5
    try:
        if shrink > 1:
            picture.draft(None, (round(width / shrink), round(height / shrink)))  # JPEG decodes at 1/2, 1/4 for less
        picture.load()
        picture = _to_srgb(_upright(picture))
        shrink = (picture.width * picture.height / KEPT_PIXELS) ** 0.5
        if shrink > 1:
            size = (max(1, int(picture.width / shrink)), max(1, int(picture.height / shrink)))
            picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
            notes.append(f"it was scaled down from {width}x{height} pixels")
    except Exception as error:
        raise InputError(
            f"{name} is damaged or incomplete ({_first_line(error)}): copy it again, or {ADVICE}."
        ) from error
    return Photo(np.array(picture), name, tuple(notes))


def _unreadable(data: bytes, name: str) -> InputError:
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        remedy = f"{ADVICE}, or install its decoder (pip install 'ffavatar[heic]')"
        return InputError(f"{name} is a HEIC photo, which nothing installed here can open: {remedy}.")
    kind = kind_of(data[:START])
    if kind not in ("picture", "film", None):
        return InputError(f"{name} is {a(kind)}, not a photo: give photos of the person.")
    if data[4:8] == b"ftyp" or data[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return InputError(f"{name} is not a photo this program can read, perhaps a video: give a photo, or {ADVICE}.")
    return InputError(f"{name} is not a photo this program can read: {ADVICE}.")


def _too_many_pixels(name: str) -> InputError:
    return InputError(f"{name} has more than {MAX_PIXELS // 10**6} megapixels: {ADVICE} at a smaller size.")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return textwrap.shorten(text[0], 80, placeholder=" ...") if text else type(error).__name__


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return picture


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB on white, in sRGB where a profile says how."""
    profile = picture.info.get("icc_profile")
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _from_wide(picture)
    if picture.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _apply_profile(picture, lab.tobytes()).convert("RGB")
    if picture.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if profile and picture.mode in ("RGB", "RGBA", "CMYK", "L"):
        colour = picture.convert("RGB") if alpha is not None else picture
        picture = _apply_profile(colour, profile)
    picture = picture.convert("RGB")
    if alpha is None:
        return picture
    white = Image.new("RGB", picture.size, (255, 255, 255))
    white.paste(picture, mask=alpha)
    return white


def _apply_profile(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # damaged or unsuitable profiles are common; the plain conversion is close
        return picture
    return picture if converted is None else converted


def _from_wide(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits: whole numbers are taken as 16 bits, fractions up to 1 as such."""
    values = np.asarray(picture, np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = values.max(initial=0.0)
    full = 1.0 if picture.mode == "F" and top <= 1 else 255.0 if top <= 255 else 65535.0
    grey = np.clip(values / full * 255, 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
