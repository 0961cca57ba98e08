"""Helpers shared by measurements: reduced clips of a DAVIS-like folder with their ground truth."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from emavos.evaluation import boundary_accuracy, region_similarity
from emavos.io import IdMask, Pixels, list_images, read_frame, read_mask
from emavos.models import STCN, Features


@dataclass(frozen=True)
class Clip:
    """A clip with its ground truth.

    frames: (H, W, 3) uint8 each.
    truths: (H, W) int32 of ids each; for a single object, 1 inside the object.
    """

    name: str
    frames: list[Pixels]
    truths: list[IdMask]

    def __len__(self) -> int:
        return len(self.frames)


def load_clips(
    data: Path,
    size: int,
    frames: int | None = None,
    names: Sequence[str] | None = None,
    merge: bool = True,
) -> list[Clip]:
    """The sequences of JPEGImages and Annotations (with or without 480p), at a short side of `size`.

    data: folder of the data set.
    size: short side in pixels.
    frames: number of frames per sequence; None loads all.
    names: sequences to load; None loads all.
    merge: whether all nonzero ids become object 1; otherwise masks keep their ids.
    """
    images, masks = (_with_resolution(data / name) for name in ("JPEGImages", "Annotations"))
    if not images.is_dir():
        raise ValueError(f"{images} is no folder; name one that has JPEGImages and Annotations")
    known = sorted(path.name for path in images.iterdir() if path.is_dir())
    if unknown := sorted({*(names or ())} - {*known}):
        raise ValueError(f"{data} has no sequence {', '.join(unknown)}; it has {', '.join(known)}")
    clips = []
    for name in names or known:
        pictures, truths = [], []
        for path in list_images(images / name)[:frames]:
            picture = Image.fromarray(read_frame(path))
            short = min(picture.size)
            shape = (round(picture.width * size / short), round(picture.height * size / short))
            truth = read_mask(masks / name / f"{path.stem}.png")
            pictures.append(np.array(picture.resize(shape, Image.Resampling.BOX)))
            truths.append(scaled(np.where(truth != 0, 1, 0) if merge else truth, shape))
        clips.append(Clip(name, pictures, truths))
    return clips


def scaled(mask: IdMask, shape: tuple[int, int]) -> IdMask:
    """A mask resized to (width, height) by nearest neighbour."""
    return np.array(Image.fromarray(mask.astype(np.int32)).resize(shape, Image.Resampling.NEAREST))


def _with_resolution(folder: Path) -> Path:
    return folder / "480p" if (folder / "480p").is_dir() else folder


def leaving(clip: Clip, width: float = 0.4, height: float = 0.6) -> Clip:
    """The clip seen through a window that follows the object, moves off it, and returns at the end.

    The object thus leaves the view with known ground truth. The window follows the object for a third of the
    clip, moves away for a third, waits for a sixth and comes back.

    clip: clip of one object.
    width, height: size of the window as fractions of the frame.
    """
    count = len(clip)
    full_height, full_width = clip.truths[0].shape
    w, h = round(width * full_width), round(height * full_height)
    corners = [(x, y) for x in (0, full_width - w) for y in (0, full_height - h)]
    gone = range(2 * count // 3, 5 * count // 6)
    away = min(
        corners,
        key=lambda at: sum(int(clip.truths[t][at[1] : at[1] + h, at[0] : at[0] + w].sum()) for t in gone),
    )
    frames, truths = [], []
    for t, (frame, truth) in enumerate(zip(clip.frames, clip.truths, strict=True)):
        rows, columns = np.nonzero(truth)
        centre = (columns.mean(), rows.mean()) if rows.size else (full_width / 2, full_height / 2)
        near = (
            min(max(centre[0] - w / 2, 0), full_width - w),
            min(max(centre[1] - h / 2, 0), full_height - h),
        )
        if t < 5 * count // 6:
            share = min(max((t - count / 3) / (count / 3), 0.0), 1.0)
        else:
            share = 1 - (t - 5 * count // 6 + 1) / (count - 5 * count // 6)
        x, y = (round((1 - share) * near[i] + share * away[i]) for i in (0, 1))
        frames.append(np.ascontiguousarray(frame[y : y + h, x : x + w]))
        truths.append(np.ascontiguousarray(truth[y : y + h, x : x + w]))
    return Clip(f"{clip.name}, leaving", frames, truths)


def overlap(mask: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    """J of object 1."""
    return region_similarity(mask == 1, truth == 1)


def add_clip_arguments(parser: argparse.ArgumentParser, size: int = 240) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="JPEGImages[/480p] and Annotations[/480p]"
    )
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="these alone (all)")
    parser.add_argument("--model", metavar="NAME|DIR", help="(the one in this package)")
    parser.add_argument(
        "--size", type=int, default=size, metavar="N", help=f"short side of clips and work ({size})"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="of each sequence the first so many (all)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")


def known_keys(model: STCN) -> STCN:
    """A copy of the model that encodes each frame only once, for tracking a clip many times.

    All features are kept in memory, so make a new copy for each clip.
    """
    twin, known = copy.copy(model), dict[bytes, Features]()

    def encode_key(frame: Tensor) -> Features:
        name = blake2b(frame.numpy().tobytes()).digest()
        if name not in known:
            known[name] = model.encode_key(frame)
        return known[name]

    twin.encode_key = encode_key  # type: ignore[assignment, method-assign]
    return twin


def quality(mask: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    """J&F of object 1."""
    return (overlap(mask, truth) + boundary_accuracy(mask == 1, truth == 1)) / 2
