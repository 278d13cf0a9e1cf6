"""Contact sheets: labelled rows of pictures in one PNG, to look at what the figures say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ffavatar.errors import InputError
from ffavatar.evaluate.metrics import check_images
from ffavatar.files import atomic_path

TILE_PX = 224
GAP_PX = 4
LABEL_PX = 96
MARGIN_PX = 6
FONT_PX = 15


def strip(images: Tensor, tile: int = TILE_PX) -> Image.Image:
    """Pictures (K, H, W, 3) in [0, 1] side by side, each ``tile`` px a side, ``GAP_PX`` of grey between them."""
    check_images(images, "the strip's pictures")
    small = F.interpolate(
        images.detach().permute(0, 3, 1, 2).float(), (tile, tile), mode="bilinear", antialias=True, align_corners=False
    )
    tiles = (small.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    row = Image.new("RGB", (len(tiles) * (tile + GAP_PX) - GAP_PX, tile), "grey")
    for index, picture in enumerate(tiles):
        row.paste(Image.fromarray(picture), (index * (tile + GAP_PX), 0))
    return row


def contact_sheet(path: str | Path, rows: Sequence[tuple[str, Image.Image | Tensor | Path]], title: str = "") -> None:
    """Write rows of (label, strip or pictures or strip file) as one PNG, whole or not at all.

    Raises ``InputError`` where there is no row or the folder is missing.
    """
    if not rows:
        raise InputError(f"{path}: a contact sheet needs at least one row.")
    strips = [(label, _as_strip(content)) for label, content in rows]
    top = FONT_PX * 2 if title else 0
    width = LABEL_PX + max(row.width for _, row in strips)
    height = top + sum(row.height + GAP_PX for _, row in strips) - GAP_PX
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_PX)
    draw.text((MARGIN_PX, FONT_PX // 2), title, fill="black", font=font)
    y = top
    for label, row in strips:
        lines = wrapped(label, font, LABEL_PX - 2 * MARGIN_PX)
        middle = y + row.height // 2 - FONT_PX * lines.count("\n")
        draw.multiline_text((MARGIN_PX, max(y, middle)), lines, fill="black", font=font)
        sheet.paste(row, (LABEL_PX, y))
        y += row.height + GAP_PX
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> str:
    """The text with lines broken where they would be wider: names of captures have no spaces to break at."""
    lines = []
    for line in text.split("\n"):
        start = 0
        for end in range(1, len(line) + 1):
            if end - start > 1 and font.getlength(line[start:end]) > width_px:
                lines.append(line[start : end - 1])
                start = end - 1
        lines.append(line[start:])
    return "\n".join(lines)


def _as_strip(content: Image.Image | Tensor | Path) -> Image.Image:
    if isinstance(content, Tensor):
        return strip(content)
    if isinstance(content, Path):
        with Image.open(content) as image:
            return image.convert("RGB")
    return content
