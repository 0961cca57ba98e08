"""Still images with object masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emavos.io import IdMask, read_frame, read_mask
from emavos.io.ids import ids_of_picture
from emavos.io.images import read_image

STILL_SUFFIXES = (".jpg", ".webp")


class StaticImages(Sequence[tuple[Tensor, Tensor]]):
    """`root/images/NAME.jpg` with `root/masks/NAME.png`; or NAME.png beside NAME.jpg at any depth.

    Instead of NAME.jpg, an image may be NAME.webp.

    An item is an image (3, H, W) uint8 and its mask (H, W) uint8 of ids, read by `read_still_mask`. Used as
    `Videos`, each image is a video of one frame.

    Raises ValueError if there is no mask, or if a mask has no image.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        if (root / "masks").is_dir():
            self.masks = sorted((root / "masks").glob("*.png"))
            self.images = [image_of(root / "images" / mask.name) for mask in self.masks]
        else:
            self.masks = sorted(root.rglob("*.png"))
            self.images = [image_of(mask) for mask in self.masks]
        if not self.masks:
            raise ValueError(
                f"{root} holds no masks (PNG); expected images/NAME.jpg and masks/NAME.png, or NAME.jpg "
                "beside NAME.png"
            )
        for image, mask in zip(self.images, self.masks, strict=True):
            if not image.is_file():
                raise ValueError(f"the mask {mask.name} has no image: {image} does not exist")

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return load_pair(self.images[index], self.masks[index], read_still_mask)

    def length(self, video: int) -> int:
        """One frame, for `Videos`."""
        return 1

    def step(self, video: int) -> int:
        """One, for `Videos`."""
        return 1

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """The item, for `Videos`."""
        return self[video]


def image_of(mask: Path) -> Path:
    """The image beside a mask: NAME.jpg, or NAME.webp if only this file exists."""
    paths = [mask.with_suffix(suffix) for suffix in STILL_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def load_pair(image: Path, mask: Path, read: Callable[[Path], IdMask] = read_mask) -> tuple[Tensor, Tensor]:
    """Returns a picture (3, H, W) uint8 and its mask (H, W) uint8, read like the inputs of a session.

    image, mask: paths of the files.
    read: function to read the mask.

    Raises ValueError if a file cannot be read, the sizes differ, or an id is above 255.
    """
    pixels, ids = read_frame(image), read(mask)
    if pixels.shape[:2] != ids.shape:
        raise ValueError(f"{image} is {pixels.shape[:2]} but {mask} is {ids.shape}")
    if ids.max() > 255:
        raise ValueError(f"{mask} has id {ids.max()}; a sample holds ids 0 to 255")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(ids.astype(np.uint8))


def read_still_mask(path: Path) -> IdMask:
    """The ids of a still image's mask, (H, W) int32.

    A gray mask with maximum 255 is a soft white-on-black mask, as in data sets of salient objects. Such a
    mask is thresholded at half, as in STCN.
    """
    image = read_image(path)
    if image.format == "PNG" and image.mode == "L" and image.getextrema()[1] == 255:
        return (np.asarray(image) >= 128).astype(np.int32)
    return ids_of_picture(image, str(path))
