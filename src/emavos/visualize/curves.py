"""Plots of scores over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emavos.io import Pixels
from emavos.io.ids import colour
from emavos.visualize.sheets import INK, PAPER

_GRID = (224, 224, 220)
_FINER = 3  # draw this many times larger, then shrink: Pillow has no antialiased lines
_ORDER = (2, 8, 3, 5, 6, 1, 7, 4)  # colours that stay distinguishable as thin lines


def curves(
    series: Mapping[str, Sequence[float]],
    title: str = "",
    width: int = 960,
    height: int = 320,
    start: int = 0,
) -> Pixels:
    """A plot of values in [0, 1] over frames, with the name and the mean of each line: (H, W, 3) uint8.

    series: {name: one value per frame}. A NaN leaves a gap in the line.
    title: text above the plot.
    width, height: in pixels, at least 240x120.
    start: number of the first frame.
    """
    if not series or not all(len(values) for values in series.values()):
        raise ValueError("a curve has at least one value")
    if width < 240 or height < 120:
        raise ValueError(f"curves need 240x120 pixels or more, not {width}x{height}")
    sheet = Image.new("RGB", (width * _FINER, height * _FINER), PAPER)
    draw = ImageDraw.Draw(sheet)
    size = 13
    font = ImageFont.load_default(size * _FINER)
    names = [f"{name}  {_mean(values):.3f}" for name, values in series.items()]
    rows = _rows(names, font, (width - 60) * _FINER)
    left, right = 44, width - 16
    top = 14 + (size + 10 if title else 0) + (size + 7) * len(rows)
    bottom = height - 16 - size
    if bottom - top < 40:
        raise ValueError(f"{len(series)} names leave no room on {width}x{height} pixels; make it higher")
    last = max(max(len(values) for values in series.values()) - 1, 1)

    def text(x: float, y: float, words: str, anchor: str, ink: tuple[int, int, int] = INK) -> None:
        draw.text((x * _FINER, y * _FINER), words, ink, font, anchor=anchor)

    def place(index: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * index / last
        return x * _FINER, (bottom - (bottom - top) * min(max(value, 0), 1)) * _FINER

    for level in (0, 0.25, 0.5, 0.75, 1):
        draw.line([place(0, level), place(last, level)], _GRID, _FINER)
        text(left - 7, bottom - (bottom - top) * level, f"{level:g}", "rm")
    for frame in _ticks(start, start + last):
        x = left + (right - left) * (frame - start) / last
        text(x, bottom + 6 + size / 2, str(frame), "mm")
    if title:
        text(left, 12 + size / 2, title, "lm")
    inks = [_ink(i) for i in range(len(series))]
    for values, ink in zip(series.values(), inks, strict=True):
        for piece in _pieces(values):
            points = [place(index, values[index]) for index in piece]
            if len(points) == 1:
                (x, y), r = points[0], 2 * _FINER
                draw.ellipse((x - r, y - r, x + r, y + r), ink)
            else:
                draw.line(points, ink, round(1.8 * _FINER), joint="curve")
    y = 14 + (size + 10 if title else 0) + size / 2 - 4
    for row in rows:
        x = float(left)
        for i in row:
            draw.line([(x * _FINER, y * _FINER), ((x + 16) * _FINER, y * _FINER)], inks[i], 3 * _FINER)
            text(x + 21, y, names[i], "lm")
            x += 21 + font.getlength(names[i]) / _FINER + 18
        y += size + 7
    return np.array(sheet.resize((width, height), Image.Resampling.BOX))


def _ink(index: int) -> tuple[int, int, int]:
    """The colour of a line: an object's colour, darker, because lines are thin and the paper is bright."""
    red, green, blue = colour(_ORDER[index % len(_ORDER)] + 8 * (index // len(_ORDER) % 3))
    return red * 85 // 100, green * 85 // 100, blue * 85 // 100


def _rows(names: Sequence[str], font: Any, width: float) -> list[list[int]]:
    """The names, by index, in rows that fit."""
    rows: list[list[int]] = [[]]
    used = 0.0
    for i, name in enumerate(names):
        need = font.getlength(name) + 39 * _FINER
        if rows[-1] and used + need > width:
            rows.append([])
            used = 0.0
        rows[-1].append(i)
        used += need
    return rows


def _ticks(first: int, last: int) -> list[int]:
    """About eight round numbers from the first frame to the last."""
    rough = max((last - first) / 8, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return list(range(-(-first // step) * step, last + 1, step))


def _pieces(values: Sequence[float]) -> list[list[int]]:
    """The indices of the values that are not NaN, in runs without a gap."""
    pieces: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if math.isnan(value):
            pieces.append([])
        else:
            pieces[-1].append(index)
    return [piece for piece in pieces if piece]


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
