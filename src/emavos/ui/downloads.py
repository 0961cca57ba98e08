"""The files offered for download: masks, an overlay video, run-length encoding."""

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

_FPS = 25.0  # of overlays, if the frames have no frame rate


def _ready(project: Project, outdated: bool) -> list[int]:
    """The frames with up-to-date masks, or with any. Raises ValueError if there are none."""
    ready = [
        i for i in range(project.count) if project.is_current(i) or (outdated and project.kind(i) != "none")
    ]
    if not ready:
        raise ValueError("there are no masks yet: paint the objects of a frame, and track them")
    return ready


def write_masks(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a zip of palette PNGs named like their frames; yields the number of masks written so far.

    outdated: whether to add masks that an edit made outdated, in a folder of the zip named outdated.
    """
    # stored, as PNGs are compressed already
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for done, index in enumerate(_ready(project, outdated), start=1):
            # dated 1980, so equal masks give equal bytes
            folder = "" if project.is_current(index) else "outdated/"
            entry = zipfile.ZipInfo(f"{folder}{project.frame_name(index)}.png")
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, encode_mask(project.mask(index)))
            yield done


def write_overlay(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write an mp4 of the frames with their objects in colour, up to the last frame with a mask.

    outdated: whether to draw masks that an edit made outdated.

    Yields the number of frames written so far.
    """
    ready = _ready(project, outdated)
    with VideoWriter(path, project.fps or _FPS) as video:
        shown = {*ready}
        for index in range(ready[-1] + 1):
            frame = project.frame(index)
            video.write(overlay(frame, project.mask(index)) if index in shown else frame)
            yield index + 1


def write_coco(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write the masks as run-length encoding to a COCO JSON file; yields the number written so far.

    outdated: whether to write masks that an edit made outdated.
    """
    with CocoWriter(path) as coco:
        for done, index in enumerate(_ready(project, outdated), start=1):
            coco.write(project.frame_name(index), project.mask(index))
            yield done


# The writer of each file, by file name.
DOWNLOADS: dict[str, Callable[[Project, Path, bool], Iterator[int]]] = {
    "masks.zip": write_masks,
    "overlay.mp4": write_overlay,
    "masks.json": write_coco,
}
