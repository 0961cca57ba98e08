"""Check masks and pack them as a zip for a benchmark's server."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emavos.evaluation.layouts import Video, foreground, read_annotation, some
from emavos.io import davis_palette, palette, read_mask
from emavos.io.images import FORMATS
from emavos.io.png import encode_mask
from emavos.io.whole import replacing


def write_submission(
    videos: Sequence[Video], results: str | PathLike[str], path: str | PathLike[str]
) -> tuple[str, ...]:
    """Write a zip of the masks `results/<sequence>/<frame>.png` and return the names of files left out.

    Servers score whatever they receive, so all masks are checked first. Equal masks give equal bytes.

    Masks in the colours of emavos are packed in those of DAVIS. Raises ValueError if a mask is missing,
    differs in size from its frame, is not a palette PNG in one of these palettes, or has an id that no given
    mask shows. The error lists the files.
    """
    results, path = Path(results), Path(path)
    if path.suffix.lower() != ".zip":
        raise ValueError(f"{path} is not named .zip")
    path.unlink(missing_ok=True)  # an older zip must not be mistaken for these masks
    if wrong := [problem for video in videos for problem in _problems(video, results)]:
        raise ValueError(f"{some(wrong)}; nothing was packed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for video in videos:
            for name in video.wanted:
                inside = "/".join(filter(None, (video.protocol.zip_folder, video.name, f"{name}.png")))
                # fixed date (1980), stored without compression as PNGs are compressed
                entry = zipfile.ZipInfo(inside)
                archive.writestr(entry, _in_davis_colours(results / video.name / f"{name}.png"))
    sent = {f"{video.name}/{name}.png" for video in videos for name in video.wanted}
    files = (f"{video.name}/{file.name}" for video in videos for file in (results / video.name).iterdir())
    return tuple(sorted(name for name in files if name not in sent))


def _problems(video: Video, results: Path) -> Iterator[str]:
    images = {path.stem: path for path in video.images}
    ids = {0}
    for one in video.given().values():
        ids |= {*np.unique(foreground(read_annotation(one), video.protocol.binary)).tolist()}
    for name in video.wanted:
        path, shown = results / video.name / f"{name}.png", f"{video.name}/{name}.png"
        if not path.is_file():
            yield f"{shown} is missing"
            continue
        try:
            mask = read_mask(path)
        except ValueError as error:
            yield str(error)
            continue
        if not path.read_bytes().startswith(b"\x89PNG"):
            yield f"{shown} is not a PNG"
            continue
        with Image.open(path, formats=("PNG",)) as image, Image.open(images[name], formats=FORMATS) as frame:
            mode, size, frame_size = image.mode, image.size, ImageOps.exif_transpose(frame).size
            colours = image.getpalette() if mode == "P" else None
        if size != frame_size:
            have, want = (f"{height}x{width}" for width, height in (size, frame_size))
            yield f"{shown} is {have} but its frame is {want} (height x width)"
        elif foreign := sorted({*np.unique(mask).tolist()} - ids):
            yield f"{shown} has id {some([str(i) for i in foreign])}, which no given mask shows"
        elif colours is None:
            yield f"{shown} has no palette (its mode is {mode})"
        elif not any(
            _begins_with(colours, standard, max(ids) + 1) for standard in (davis_palette(), palette())
        ):
            yield f"{shown} has other colours than those of DAVIS"


def _begins_with(colours: Sequence[int], standard: NDArray[np.uint8], count: int) -> bool:
    return list(colours[: 3 * count]) == standard[:count].ravel().tolist()


def _in_davis_colours(path: Path) -> bytes:
    """The file, or the same ids in DAVIS colours if it has those of emavos."""
    with Image.open(path, formats=("PNG",)) as image:
        colours = image.getpalette() or []
    if _begins_with(colours, davis_palette(), len(colours) // 3):
        return path.read_bytes()
    return encode_mask(read_mask(path), davis_palette())
