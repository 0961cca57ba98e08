"""Many images in one: contact sheets, and grids of frames by methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emavos.io import Pixels

PAPER, INK = (250, 250, 248), (70, 72, 78)


def contact_sheet(
    images: Sequence[Pixels],
    labels: Sequence[str] | None = None,
    columns: int = 4,
    width: int = 1280,
) -> Pixels:
    """Thumbnails in rows, with a label below each: (H, width, 3) uint8.

    images: each (H, W, 3) uint8. A row is as high as its highest image.
    labels: one per image; None for no labels.
    columns: thumbnails per row, at most.
    width: of the sheet, in pixels.
    """
    if not images:
        raise ValueError("a contact sheet has at least one image")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"there are {len(labels)} labels for {len(images)} images")
    columns = min(columns, len(images))
    margin = max(4, width // 80)
    side = (width - margin * (columns + 1)) // max(columns, 1)
    if columns < 1 or side < 8:
        raise ValueError(f"{columns} columns do not fit on {width} pixels")
    small = [_fit(image, side) for image in images]
    size = max(10, min(16, side // 16))
    caption = 0 if labels is None else size + margin // 2
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(image.height for image in row) + caption for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + margin * (len(rows) + 1)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    left = (width - columns * side - (columns - 1) * margin) // 2  # centres the columns
    y = margin
    for r, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for c, image in enumerate(row):
            x = left + c * (side + margin)
            sheet.paste(image, (x, y))
            if labels is not None:
                text = _shorten(labels[r * columns + c], side, font)
                draw.text((x + 1, y + image.height + margin // 4), text, INK, font)
        y += height + margin
    return np.array(sheet)


def comparison_grid(
    images: Sequence[Sequence[Pixels]],
    rows: Sequence[str],
    columns: Sequence[str],
    width: int = 1280,
) -> Pixels:
    """A table of images with a name beside each row and above each column: (H, width, 3) uint8.

    images: rows of images (H, W, 3) uint8, for example one row per method and one column per frame. A row is
        as high as its highest image.
    rows, columns: the names.
    width: of the table, in pixels.
    """
    if not images or any(len(row) != len(columns) for row in images) or not columns:
        raise ValueError(f"a grid has rows of as many images as columns, {len(columns)}, and at least one")
    if len(rows) != len(images):
        raise ValueError(f"there are {len(rows)} names for {len(images)} rows")
    size = max(11, min(18, width // 72))
    font, gap = ImageFont.load_default(size), max(3, width // 256)
    margin = max(8, width // 80)
    names = min(int(max(font.getlength(name) for name in rows)) + 2 * gap, width // 4)
    side = (width - 2 * margin - names - gap * (len(columns) - 1)) // len(columns)
    if side < 16:
        raise ValueError(f"{len(columns)} columns do not fit on {width} pixels")
    small = [[_fit(image, side) for image in row] for row in images]
    heights = [max(image.height for image in row) for row in small]
    top = margin + size + 2 * gap
    sheet = Image.new("RGB", (width, top + sum(heights) + gap * (len(rows) - 1) + margin), PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [margin + names + c * (side + gap) for c in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left + side / 2, margin + size / 2), _shorten(name, side, font), INK, font, anchor="mm")
    y = top
    for row, height, name in zip(small, heights, rows, strict=True):
        draw.text((margin, y + height / 2), _shorten(name, names - gap, font), INK, font, anchor="lm")
        for left, image in zip(lefts, row, strict=True):
            sheet.paste(image, (left, y))
        y += height + gap
    return np.array(sheet)


def _fit(image: Pixels, width: int) -> Image.Image:
    height = max(1, round(width * image.shape[0] / image.shape[1]))
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3)


def _shorten(text: str, width: int, font: Any) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
