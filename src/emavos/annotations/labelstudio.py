"""Label Studio's JSON export: polygons and ellipses in percent, and brushes in runs of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from emavos.annotations.shapes import (
    Drawn,
    Picture,
    Plane,
    Shape,
    Size,
    ellipse,
    frame_name,
    number,
    points_of,
    polygons,
    size_of,
    whole,
)
from emavos.io.images import MAX_PIXELS

_LENGTHS = (4, 8, 12, 16)  # bits of a run that is written
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # prefix that Label Studio adds to the name of an upload


def read_label_studio(tasks: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """The annotated frames of a file: of each task, the last annotation that was not cancelled."""
    pictures = []
    for task in tasks:
        kept = [a for a in task["annotations"] if not a.get("was_cancelled")]
        shapes, left_out, size = list[Shape](), list[str](), None
        for result in kept[-1]["result"] if kept else ():
            value, kind = result.get("value") or {}, str(result.get("type", ""))
            labels = value.get(kind) if isinstance(value, Mapping) else None
            if "original_height" not in result or not isinstance(labels, list):
                continue  # choices and texts, which are of no region
            size = size_of(result["original_height"], result["original_width"])
            draw = _drawing(kind, value, size)
            if draw is None:
                left_out.append("box" if kind == "rectanglelabels" else kind)
            else:
                shapes.append(Shape(str(labels[0]) if labels else "", draw))
        pictures.append(Picture(_name_of(task), tuple(shapes), size, left_out=tuple(left_out)))
    return pictures


def _name_of(task: Mapping[str, Any]) -> str:
    """The name of the frame: that of the uploaded file, or of the first path among the data."""
    if upload := task.get("file_upload"):
        return _UPLOADED.sub("", frame_name(upload), count=1)
    data = task.get("data") or {}
    path = next((v for v in data.values() if isinstance(v, str) and "." in v), "")
    return _UPLOADED.sub("", frame_name(_path_of(path)), count=1)


def _path_of(address: str) -> str:
    """The path of an address such as /data/local-files/?d=videos/00001.jpg or s3://a/00001.jpg?key=b."""
    before, _, query = address.partition("?")
    return unquote(query.removeprefix("d=") if query.startswith("d=") else before)


def _drawing(kind: str, value: Mapping[str, Any], size: Size) -> Callable[[Size], Drawn] | None:
    """Draws a region; None if it encloses nothing."""
    if kind == "polygonlabels":
        return polygons([points_of(value["points"]) / 100], relative=True)
    if kind == "ellipselabels":
        scale = np.array([size[1], size[0]]) / 100
        x, y = np.array([number(value["x"]), number(value["y"])]) * scale
        radii = np.array([number(value["radiusX"]), number(value["radiusY"])]) * scale
        angle = np.deg2rad(number(value.get("rotation", 0)))
        return ellipse(float(x), float(y), (float(radii[0]), float(radii[1])), float(angle))
    if kind == "brushlabels":
        rle = value["rle"]
        return whole(lambda: decode_brush(rle, size))
    return None


def decode_brush(rle: Sequence[int], size: Size) -> Plane:
    """The plane of a brush. Its bytes are a bit stream of runs of the four channels of a picture.

    The stream begins with the number of values (32 bits), the bits per value minus 1 (5 bits), and four
    lengths in bits, minus 1 (4 bits each). Blocks follow: one bit tells whether one value is repeated, and
    two bits which of the four lengths the run's length has.

    Raises ValueError if the runs do not fill `size`.
    """
    if not isinstance(rle, list) or not all(type(v) is int and 0 <= v < 256 for v in rle):
        raise ValueError("the runs of a brush are a list of bytes")
    count = 4 * size[0] * size[1]
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"a brush covers at most {MAX_PIXELS} pixels")
    bits = _Bits(bytes(rle))
    if (declared := bits.take(32)) != count:
        raise ValueError(
            f"a brush has {declared} values in a picture of {size[0]}x{size[1]} (height x width)"
        )
    width = bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    values, at = np.zeros(count, np.uint8), 0
    while at < count:
        repeated = bits.take(1)
        end = at + 1 + bits.take(lengths[bits.take(2)])
        if end > count:
            raise ValueError("the runs of a brush end beyond its picture")
        if repeated:
            values[at:end] = min(bits.take(width), 255)
        else:
            values[at:end] = [min(bits.take(width), 255) for _ in range(at, end)]
        at = end
    return values[3::4].reshape(size) > 0  # the alpha channel


def encode_brush(plane: Plane) -> list[int]:
    """The bytes of a brush that covers a plane (H, W), as `decode_brush` reads them."""
    flat = plane.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    bits = [f"{4 * flat.size:032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in _LENGTHS)]
    for begin, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
        value, rest = "1" * 8 if flat[begin] else "0" * 8, 4 * (end - begin)  # four channels
        while rest:
            run = min(rest, 2 ** _LENGTHS[-1])
            which = next(n for n, length in enumerate(_LENGTHS) if run <= 2**length)
            bits.append(f"1{which:02b}{run - 1:0{_LENGTHS[which]}b}{value}")
            rest -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


class _Bits:
    """Numbers of a bit stream, the highest bit first."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, count: int) -> int:
        begin, end = self._at, self._at + count
        if end > 8 * len(self._content):
            raise ValueError("the runs of a brush are cut off")
        self._at = end
        held = int.from_bytes(self._content[begin // 8 : -(-end // 8)], "big")
        return (held >> (-end % 8)) & ((1 << count) - 1)
