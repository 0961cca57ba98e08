"""Line plots on two axes, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emavos.io import Pixels
from emavos.visualize import INK, PAPER, colour

_GRID = (222, 222, 218)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (640, 400),
    logarithmic: bool = True,
) -> Pixels:
    """A plot (H, W, 3) uint8.

    series: {name: points (x, y) of the line}.
    size: (W, H), in pixels.
    logarithmic: whether both axes are logarithmic. All coordinates must then be positive.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("a plot has at least one point")
    scale = math.log if logarithmic else float
    if logarithmic and min(min(point) for point in points) <= 0:
        raise ValueError("logarithmic axes take only positive points")
    (x_low, x_high), (y_low, y_high) = (_range([point[i] for point in points], logarithmic) for i in (0, 1))
    width, height = size
    left, top, right, bottom = 62, 34, width - 170, height - 46
    image = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - scale(x_low)) / (scale(x_high) - scale(x_low))
        up = (scale(y) - scale(y_low)) / (scale(y_high) - scale(y_low))
        return left + across * (right - left), bottom - up * (bottom - top)

    ticks = _ticks if logarithmic else _even_ticks
    for x in ticks(x_low, x_high):
        at = place(x, y_low)[0]
        draw.line((at, top, at, bottom), _GRID)
        draw.text((at, bottom + 6), f"{x:g}", INK, font, anchor="mt")
    for y in ticks(y_low, y_high):
        at = place(x_low, y)[1]
        draw.line((left, at, right, at), _GRID)
        draw.text((left - 6, at), f"{y:g}", INK, font, anchor="rm")
    ends: list[float] = []
    order = sorted(series.items(), key=lambda item: -item[1][-1][1])
    for name, line in order:
        paint = colour(list(series).index(name) + 1)
        places = [place(*point) for point in line]
        draw.line(places, paint, 2, joint="curve")
        for x, y in places:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), paint)
        end = max([places[-1][1], *(y + 16 for y in ends[-1:])])  # so that labels do not overlap
        ends.append(end)
        draw.text((right + 10, end), name, paint, font, anchor="lm")
    draw.text((left, 10), title, INK, ImageFont.load_default(15))
    draw.text(((left + right) / 2, height - 8), x_label, INK, font, anchor="mb")
    draw.text((6, top - 2), y_label, INK, font, anchor="lb")
    return np.array(image)


def _range(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high > low:
        return low, high
    return (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)


def _even_ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [
        round(step * i, 9) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
