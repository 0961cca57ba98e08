"""The files offered for download: masks, mattes, cut-outs, previews, and annotations for other tools."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emavos.annotations import VideoMasks, write_annotations
from emavos.bridges import CocoWriter
from emavos.io import AnimationWriter, Pixels, VideoWriter
from emavos.io.png import encode_mask
from emavos.io.whole import replacing
from emavos.ui.folder import Folder
from emavos.ui.project import Project
from emavos.ui.sound import stored_sound
from emavos.visualize import cut_out, overlay

_FPS = 25.0  # of videos, if the frames have no frame rate
_PREVIEW = 480  # longest side of a preview, in pixels

Write = Callable[[Project, Path, bool], Iterator[int]]


def _ready(project: Project, outdated: bool) -> list[int]:
    """The frames with up-to-date masks, or with any. Raises ValueError if there are none."""
    ready = [
        i for i in range(project.count) if project.is_current(i) or (outdated and project.kind(i) != "none")
    ]
    if not ready:
        raise ValueError("there are no masks yet: paint the objects of a frame, and track them")
    return ready


def steps_of(project: Project, name: str, outdated: bool) -> int:
    """The number of steps of one of `DOWNLOADS`, for its progress. Raises ValueError without masks."""
    ready = _ready(project, outdated)
    return ready[-1] + 1 if Path(name).suffix in (".mp4", ".mov", ".gif", ".webp") else len(ready)


def _film(project: Project, outdated: bool) -> Iterator[tuple[int, Pixels, bool]]:
    """Yield the frames up to the last one with a mask: index, frame, and whether its mask is shown."""
    ready = _ready(project, outdated)
    shown = {*ready}
    for index in range(ready[-1] + 1):
        yield index, project.frame(index), index in shown


def write_masks(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a zip of palette PNGs named like their frames; yields the number of masks written so far.

    outdated: whether to add masks that an edit made outdated, in a folder of the zip named outdated.
    """
    return _write_pictures(project, path, outdated, lambda index: encode_mask(project.mask(index)))


def write_mattes(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a zip of gray PNGs, the opacity of the objects; arguments as for `write_masks`."""
    return _write_pictures(project, path, outdated, lambda index: _png(_gray(project.matte(index))))


def write_cutouts(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a zip of PNGs of the objects, with transparency; arguments as for `write_masks`."""

    def picture(index: int) -> bytes:
        return _png(cut_out(project.frame(index), project.matte(index)))

    return _write_pictures(project, path, outdated, picture)


def _write_pictures(
    project: Project, path: Path, outdated: bool, picture: Callable[[int], bytes]
) -> Iterator[int]:
    # stored, as PNGs are compressed already
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for done, index in enumerate(_ready(project, outdated), start=1):
            folder = "" if project.is_current(index) else "outdated/"
            _add(archive, f"{folder}{project.frame_name(index)}.png", picture(index))
            yield done


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980, so equal masks give equal bytes
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def write_overlay(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write an mp4 of the frames with their objects in colour, up to the last frame with a mask.

    The mp4 has the sound of the video if the project has it. If that is damaged, a note tells so.

    outdated: whether to draw masks that an edit made outdated.

    Yields the number of frames written so far.
    """
    fps, frames = project.fps or _FPS, _ready(project, outdated)[-1] + 1
    with (
        stored_sound(Folder(project.folder), path, frames / fps) as sound,
        VideoWriter(path, fps, sound) as video,
    ):
        for index, frame, shown in _film(project, outdated):
            video.write(overlay(frame, project.mask(index)) if shown else frame)
            yield index + 1


def write_matte_video(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write an mp4 of the opacity of the objects, white on black; arguments as for `write_overlay`."""
    with VideoWriter(path, project.fps or _FPS) as video:
        for index, _, shown in _film(project, outdated):
            video.write(_gray(_opacity(project, index, shown))[..., None].repeat(3, axis=2))
            yield index + 1


def write_cutout_video(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a ProRes 4444 mov of the objects, with transparency; arguments as for `write_overlay`."""
    with VideoWriter(path, project.fps or _FPS) as video:
        for index, frame, shown in _film(project, outdated):
            video.write(cut_out(frame, _opacity(project, index, shown)))
            yield index + 1


def write_preview(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write a small GIF or WebP of the frames with their objects in colour; as `write_overlay`."""
    with AnimationWriter(path, project.fps or _FPS) as preview:
        for index, frame, shown in _film(project, outdated):
            drawn = Image.fromarray(overlay(frame, project.mask(index)) if shown else frame)
            drawn.thumbnail((_PREVIEW, _PREVIEW))
            preview.write(np.asarray(drawn))
            yield index + 1


def write_coco(project: Project, path: Path, outdated: bool = False) -> Iterator[int]:
    """Write the masks as run-length encoding to a COCO JSON file; yields the number written so far.

    outdated: whether to write masks that an edit made outdated.
    """
    with CocoWriter(path, project.labels) as coco:
        for done, index in enumerate(_ready(project, outdated), start=1):
            coco.write(project.frame_name(index), project.mask(index))
            yield done


def write_for_tool(project: Project, path: Path, outdated: bool, kind: str) -> Iterator[int]:
    """Write the masks for another tool, as a file or as a zip of files; as `write_coco`.

    kind: as for `emavos.annotations.write_annotations`.
    """
    masks = VideoMasks(project.labels)
    for done, index in enumerate(_ready(project, outdated), start=1):
        masks.add(project.frame_name(index), project.mask(index))
        yield done
    if path.suffix != ".zip":
        write_annotations(path, masks, kind)
        return
    folder = path.with_name(f"{path.name}.files")  # removed with the folder that this file is staged in
    write_annotations(folder, masks, kind)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            _add(archive, file.relative_to(folder).as_posix(), file.read_bytes())


def _opacity(project: Project, index: int, shown: bool) -> NDArray[np.float32]:
    return project.matte(index) if shown else np.zeros(project.size, np.float32)


def _gray(matte: NDArray[np.float32]) -> Pixels:
    return np.rint(matte * 255).astype(np.uint8)


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# The writer of each file, by file name.
DOWNLOADS: dict[str, Write] = {
    "masks.zip": write_masks,
    "overlay.mp4": write_overlay,
    "masks.json": write_coco,
    "matte.zip": write_mattes,
    "matte.mp4": write_matte_video,
    "cutout.zip": write_cutouts,
    "cutout.mov": write_cutout_video,
    "preview.gif": write_preview,
    "preview.webp": write_preview,
    "youtube-vis.json": partial(write_for_tool, kind="youtube-vis"),
    "yolo.zip": partial(write_for_tool, kind="yolo"),
}
