"""The images in a project's folder: frames, masks in all their versions, opacities, and strokes."""

from __future__ import annotations

import io
import os
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emavos.io import IdMask, Pixels
from emavos.io.ids import ids_of_picture
from emavos.io.images import decode_image, pixels_of
from emavos.io.png import encode_mask
from emavos.ui.facts import LARGEST_ID, MOST_VERSIONS
from emavos.ui.folder import Folder


class ImageFiles:
    """Reads and writes the images of a folder that a stranger may have made, so every image is checked.

    A frame may have several masks, told apart by their versions.

    files: folder of the project.
    size: (H, W) of all images.
    count: number of frames.
    """

    def __init__(self, files: Folder, size: tuple[int, int], count: int) -> None:
        self._files, self._size, self._count = files, size, count

    def frame_bytes(self, index: int) -> bytes:
        """A frame as JPEG bytes."""
        return (self._files / "frames").read(f"{index:05d}.jpg")

    def frame(self, index: int) -> Pixels:
        """A frame, (H, W, 3) uint8."""
        name = os.fspath(self._files.path / "frames" / f"{index:05d}.jpg")
        pixels = pixels_of(decode_image(io.BytesIO(self.frame_bytes(index)), name), name)
        self._check_size(pixels.shape[:2], name)
        return pixels

    def mask(self, folder: str, index: int, version: int) -> IdMask:
        """A mask of `folder`, "given" or "masks", as (H, W) of ids."""
        picture, path = self._open(folder, mask_name(index, version))
        mask = ids_of_picture(picture, path)
        self._check_size(mask.shape, path)
        if mask.min() < 0 or mask.max() > LARGEST_ID:
            raise ValueError(f"{path} is damaged: it has id {mask.max()}, beyond {LARGEST_ID}")
        return mask

    def write_mask(self, folder: str, index: int, version: int, mask: IdMask) -> None:
        (self._files / folder).write(mask_name(index, version), encode_mask(mask))

    def has(self, folder: str, index: int, version: int) -> bool:
        return (self._files / folder).has(mask_name(index, version))

    def versions(self, folder: str) -> dict[int, set[int]]:
        """{frame: versions of its masks in a folder}."""
        versions: dict[int, set[int]] = {}
        for name in (self._files / folder).names():
            match = re.fullmatch(r"(\d{5,7})(?:-(\d{1,15}))?\.png", name, re.ASCII)
            if match and int(match[1]) < self._count and int(match[2] or 0) <= MOST_VERSIONS:
                versions.setdefault(int(match[1]), set()).add(int(match[2] or 0))
        return versions

    def keep(self, folder: str, masks: set[tuple[int, int]]) -> None:
        """Remove all masks of a folder but those of `masks`, {(frame, version)}."""
        kept = {mask_name(index, version) for index, version in masks}
        for name in (self._files / folder).names():
            if re.fullmatch(r"\d+(-\d+)?\.png", name, re.ASCII) and name not in kept:
                (self._files / folder).remove(name)

    def matte(self, index: int, version: int) -> NDArray[np.float32] | None:
        """The opacity of all objects of a tracked frame, (H, W) in [0, 1]; None if it was not stored."""
        if not self.has("soft", index, version):
            return None
        picture, path = self._open("soft", mask_name(index, version))
        self._check_size((picture.height, picture.width), path)
        if picture.mode != "L":
            raise ValueError(f"{path} is damaged: it is not a gray picture")
        return np.asarray(picture, np.float32) / np.float32(255)

    def write_matte(self, index: int, version: int, matte: NDArray[np.float32]) -> None:
        picture = Image.fromarray(np.rint(matte * 255).astype(np.uint8))
        (self._files / "soft").write(mask_name(index, version), _png(picture))

    def strokes(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Strokes that were not kept yet: ids (H, W), and where they were painted (H, W)."""
        picture, path = self._open("drafts", f"{index:05d}.png")
        self._check_size((picture.height, picture.width), path)
        if picture.mode != "LA":
            raise ValueError(f"{path} is damaged: it is not a picture of strokes")
        ids, painted = np.moveaxis(np.asarray(picture), 2, 0)
        return ids, painted > 0

    def write_strokes(self, index: int, mask: IdMask, painted: NDArray[np.bool_]) -> None:
        planes = np.stack([np.where(painted, mask, 0), painted * 255], axis=2).astype(np.uint8)
        (self._files / "drafts").write(f"{index:05d}.png", _png(Image.fromarray(planes, "LA")))

    def remove_strokes(self, index: int) -> None:
        (self._files / "drafts").remove(f"{index:05d}.png")

    def _open(self, folder: str, name: str) -> tuple[Image.Image, str]:
        path = os.fspath(self._files.path / folder / name)
        return decode_image(io.BytesIO((self._files / folder).read(name)), path), path

    def _check_size(self, size: tuple[int, ...], path: str) -> None:
        if size != self._size:
            have, want = ("x".join(map(str, s)) for s in (size, self._size))
            raise ValueError(f"{path} is damaged: it is {have}, and the video {want} (height x width)")


def mask_name(index: int, version: int) -> str:
    """The file name of a mask: the version tells the masks of one frame apart."""
    return f"{index:05d}-{version}.png" if version else f"{index:05d}.png"


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
