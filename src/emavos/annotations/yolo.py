"""YOLO's segmentation labels: a text file for each image, `class x y x y ...` in fractions of its sides."""

from __future__ import annotations

import math

import numpy as np

from emavos.annotations.shapes import Picture, Shape, polygons

_MOST_LINES = 100_000


def read_yolo(text: str, name: str) -> Picture:
    """The annotated frame of a file. Labels are the numbers of classes, from 0.

    name: of the frame.
    """
    lines = text.splitlines()
    if len(lines) > _MOST_LINES:
        raise ValueError(f"it has {len(lines)} lines; {_MOST_LINES} are the most")
    shapes, left_out = [], []
    for place, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            label, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            raise ValueError(f"line {place} is not a class with fractions: {line!r:.60}") from error
        if len(values) in (4, 5):  # a box, and how sure its detector was
            left_out.append("box")
            continue
        if len(values) < 6 or label < 0:
            raise ValueError(f"line {place} is not a class with three points or more: {line!r:.60}")
        values = values[: len(values) // 2 * 2]  # without the score that some write last
        if not all(math.isfinite(v) and -0.5 <= v <= 1.5 for v in values):
            raise ValueError(
                f"line {place} has coordinates that are not fractions of the image: {line!r:.60}"
            )
        shapes.append(Shape(str(label), polygons([np.array(values).reshape(-1, 2)], relative=True)))
    return Picture(name, tuple(shapes), left_out=tuple(left_out))
