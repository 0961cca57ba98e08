"""The masks that are given with a video, in files that are named as its frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emavos.frames.masks import check_given
from emavos.io import FrameSource, IdMask, list_images, read_mask


def read_masks(mask: Path | Mapping[str, Path], frames: FrameSource) -> IdMask | dict[int, IdMask]:
    """The mask of the first frame, or those of several by index.

    mask: a file; a folder of files that are named as frames; or {name of a frame: file}.
    """
    if not isinstance(mask, Mapping):
        if not mask.is_dir():
            return read_mask(mask)
        mask = {file.stem: file for file in list_images(mask)}
    masks: dict[int, IdMask] = {}
    size = frames.size()
    for name, file in mask.items():
        index = frames.find(name)
        if index is None:
            index = frames.find(name.zfill(5))  # a number is enough where frames have no names of their own
        if index is None or (frames.exact and frames.count is not None and index >= frames.count):
            raise ValueError(
                f"{file} is for frame {name}, which there is not; name masks as their frames, of which "
                f"the first is {frames.name(0)}"
            )
        if index in masks:
            raise ValueError(f"{file} is for frame {name}, which has a mask already")
        masks[index] = read_mask(file)
        size = check_given(masks[index], size, f"{file}, the mask of frame {name},")
    return masks
