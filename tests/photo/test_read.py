"""Every kind of photo file, upright and in sRGB; every broken one as one sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from ffavatar.errors import InputError
from ffavatar.photo import open_photo, read, read_photo

COLOURS = {"red": (200, 30, 40), "green": (30, 180, 60), "blue": (40, 50, 210), "grey": (128, 128, 128)}


def quarters() -> Image.Image:
    """48 x 32 px with a colour in each quarter, so that every orientation looks different."""
    picture = Image.new("RGB", (48, 32))
    for colour, corner in zip(COLOURS.values(), ((0, 0), (24, 0), (0, 16), (24, 16)), strict=True):
        picture.paste(colour, (*corner, corner[0] + 24, corner[1] + 16))
    return picture


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def corner_colours(image: np.ndarray) -> list[str]:
    """Names of the colours in the four corners, row by row."""
    height, width = image.shape[:2]
    names = []
    for y in (4, height - 5):
        for x in (4, width - 5):
            distances = {name: np.abs(image[y, x].astype(int) - colour).max() for name, colour in COLOURS.items()}
            name = min(distances, key=lambda key: distances[key])
            assert distances[name] < 25, (image[y, x], name)
            names.append(name)
    return names


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_formats(kind, tmp_path):
    path = tmp_path / "photo.any"  # the content decides, not the name
    path.write_bytes(encoded(quarters(), kind))
    image = read_photo(path)
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8
    assert corner_colours(image) == ["red", "green", "blue", "grey"]


def test_heic_or_the_way_to_it():
    heif = pytest.importorskip("pillow_heif", reason="the HEIC decoder is optional")
    heif.register_heif_opener()
    image = read_photo(encoded(quarters().resize((96, 64)), "HEIF", quality=95))
    assert image.shape == (64, 96, 3)


def test_heic_without_decoder_names_the_package(monkeypatch):
    monkeypatch.setattr(read, "_enable_heif", lambda: None)
    monkeypatch.setattr(read, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(InputError, match=r"HEIC.*ffavatar\[heic\]"):
        read_photo(b"\0\0\0\x18ftypheic" + bytes(64), "IMG_1.HEIC")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """The stored picture is made by undoing each orientation; reading must give the upright one back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = quarters().transpose(undo[orientation]) if orientation in undo else quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_photo(encoded(stored, "JPEG", exif=exif.tobytes(), quality=95))
    assert image.shape == (32, 48, 3)
    assert corner_colours(image) == ["red", "green", "blue", "grey"]


def test_broken_exif_is_ignored():
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(30))
    assert corner_colours(read_photo(data)) == ["red", "green", "blue", "grey"]


def test_cmyk_jpeg():
    assert corner_colours(read_photo(encoded(quarters().convert("CMYK"), "JPEG", quality=95)))[0] == "red"


def test_palette_and_grey():
    assert corner_colours(read_photo(encoded(quarters().quantize(8), "PNG"))) == ["red", "green", "blue", "grey"]
    grey = read_photo(encoded(Image.new("L", (8, 8), 77), "PNG"))
    assert (grey == 77).all() and grey.shape == (8, 8, 3)
    assert (read_photo(encoded(Image.new("1", (8, 8), 1), "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey(kind):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(4, 0)
    image = read_photo(encoded(Image.fromarray(ramp), kind))
    assert np.abs(image[0, :, 0].astype(float) - np.linspace(0, 255, 64)).max() <= 1


def test_sixteen_bit_colour_png():
    """Written by hand: Pillow cannot save it."""
    rows = b"".join(b"\0" + struct.pack(">3H", 51200, 7680, 10240) * 4 for _ in range(4))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.abs(read_photo(data)[2, 2].astype(int) - (200, 30, 40)).max() <= 1


def test_floating_point_tiff():
    image = read_photo(encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"))
    assert (image == 128).all()


def test_transparency_lies_on_white():
    picture = Image.new("RGBA", (10, 10), (200, 30, 40, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 5, 10))
    image = read_photo(encoded(picture, "PNG"))
    assert (image[:, :5] == 255).all() and (image[:, 5:] == (200, 30, 40)).all()
    palette = picture.quantize(4)
    image = read_photo(encoded(palette, "GIF", transparency=palette.getpixel((0, 0))))
    assert (image[:, :5] == 255).all()


def test_colour_profile_is_converted():
    """A profile whose red and blue primaries are swapped must swap the colours; a damaged profile changes nothing."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"#XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"#XYZ", b"bXYZ", 1)
    same = read_photo(encoded(quarters(), "PNG", icc_profile=srgb))
    assert corner_colours(same) == ["red", "green", "blue", "grey"]
    changed = read_photo(encoded(quarters(), "PNG", icc_profile=swapped))
    assert np.abs(changed[4, 4, ::-1].astype(int) - COLOURS["red"]).max() < 5
    with_alpha = read_photo(encoded(quarters().convert("RGBA"), "PNG", icc_profile=swapped))
    assert np.abs(with_alpha.astype(int) - changed).max() <= 1
    damaged = read_photo(encoded(quarters(), "PNG", icc_profile=srgb[:100]))
    assert corner_colours(damaged) == ["red", "green", "blue", "grey"]


def test_lab_tiff():
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    picture = ImageCms.profileToProfile(quarters(), srgb, lab, outputMode="LAB")
    assert picture is not None
    assert corner_colours(read_photo(encoded(picture, "TIFF"))) == ["red", "green", "blue", "grey"]


def test_first_frame_with_a_note():
    frames = [quarters(), Image.new("RGB", (48, 32), "white")]
    photo = open_photo(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert corner_colours(photo.image) == ["red", "green", "blue", "grey"]
    assert any("first was taken" in note for note in photo.notes)


def test_large_photos_are_scaled_down(monkeypatch):
    monkeypatch.setattr(read, "KEPT_PIXELS", 300)
    photo = open_photo(encoded(quarters(), "PNG"))
    assert photo.image.shape[0] * photo.image.shape[1] <= 300
    assert photo.image.shape[1] / photo.image.shape[0] == pytest.approx(1.5, abs=0.1)
    assert any("scaled down from 48x32" in note for note in photo.notes)


def png_header(width: int, height: int) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
        + struct.pack(">I", 9) + b"IDAT" + bytes(13)
    )  # fmt: skip


def hostile_files() -> dict[str, tuple[bytes, str]]:
    whole = encoded(quarters().resize((480, 320)), "JPEG")
    png = encoded(quarters().resize((480, 320), Image.Resampling.BICUBIC), "PNG")
    return {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"This is not a photo.\n" * 50, "not a photo"),
        "truncated.jpg": (whole[: len(whole) // 2], "damaged or incomplete"),
        "truncated.png": (png[: len(png) // 2], "damaged or incomplete"),
        "header only.png": (png[:20], "not a photo|damaged"),
        "noise.png": (png[:60] + bytes(255 - b for b in png[60:]), "not a photo|damaged"),
        "bomb.png": (png_header(20000, 20000), "megapixels"),
        "larger bomb.png": (png_header(2**31 - 1, 2**31 - 1), "megapixels|not a photo"),
        "film.jpg": (b"\0\0\0\x20ftypisom" + bytes(200), "perhaps a video"),
        "sheet.jpg": (b"%PDF-1.7\n" + bytes(200), "not a photo"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photo"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo"),  # never run PostScript
        "gif.gif": (b"GIF89a" + bytes(5), "not a photo|damaged"),
        "webp.webp": (b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8 " + bytes(20), "not a photo|damaged"),
        "tiff.tif": (b"II*\0\x08\0\0\0\xff\xff" + bytes(40), "not a photo|damaged"),
    }


@pytest.mark.parametrize("name", hostile_files())
def test_broken_files_are_one_sentence_with_name_and_remedy(name, tmp_path):
    data, expected = hostile_files()[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=expected) as caught:
        read_photo(path)
    message = str(caught.value)
    assert name in message and "\n" not in message and message.endswith(".")
    assert any(word in message for word in ("save it", "give", "copy it"))


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_photo(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_photo(tmp_path)


def test_huge_files_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "huge.jpg"
    path.write_bytes(encoded(quarters(), "JPEG"))
    monkeypatch.setattr(read, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="larger than"):
        read_photo(path)
