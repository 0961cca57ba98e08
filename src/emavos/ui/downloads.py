"""What is taken home: masks, an overlay, run-length encoding."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from emavos.bridges import CocoWriter
from emavos.io import VideoWriter
from emavos.io.images import encode_mask
from emavos.io.whole import replacing
from emavos.ui.project import Project
from emavos.visualize import overlay

_FPS = 25.0  # of overlays, where the frames have no rate of their own


def _ready(project: Project) -> list[int]:
    """The frames whose masks are up to date. Raises ValueError where there are none."""
    ready = [i for i in range(project.count) if project.is_current(i)]
    if not ready:
        raise ValueError("there are no masks yet: paint the objects of a frame, and track them")
    return ready


def write_masks(project: Project, path: Path) -> Iterator[int]:
    """A zip of palette PNGs, each named as its frame; gives how many are in it after each."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:  # PNGs are compressed already
        for done, index in enumerate(_ready(project), start=1):
            entry = zipfile.ZipInfo(f"{project.frame_name(index)}.png")  # of 1980: equal masks, equal bytes
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, encode_mask(project.mask(index)))
            yield done


def write_overlay(project: Project, path: Path) -> Iterator[int]:
    """An mp4 of the frames with their objects in colour, up to the last that has a mask."""
    ready = _ready(project)
    with VideoWriter(path, project.fps or _FPS) as video:
        for index in range(ready[-1] + 1):
            frame = project.frame(index)
            video.write(overlay(frame, project.mask(index)) if project.is_current(index) else frame)
            yield index + 1


def write_coco(project: Project, path: Path) -> Iterator[int]:
    """The masks as run-length encoding in one JSON of COCO's form, written as it is made."""
    with CocoWriter(path) as coco:
        for done, index in enumerate(_ready(project), start=1):
            coco.write(project.frame_name(index), project.mask(index))
            yield done


# The name of each file, and what writes it.
DOWNLOADS: dict[str, Callable[[Project, Path], Iterator[int]]] = {
    "masks.zip": write_masks,
    "overlay.mp4": write_overlay,
    "masks.json": write_coco,
}
