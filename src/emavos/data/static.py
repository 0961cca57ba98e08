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


class StaticImages(Sequence[tuple[Tensor, Tensor]]):
    """`root/images/NAME.jpg` with `root/masks/NAME.png`; or NAME.png beside NAME.jpg, at any depth.

    An item is (image (3, H, W) uint8, mask (H, W) uint8 of ids, as `read_still_mask` reads it). As a set of
    `Videos`, each has one frame.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        if (root / "masks").is_dir():
            self.masks = sorted((root / "masks").glob("*.png"))
            self.images = [root / "images" / f"{mask.stem}.jpg" for mask in self.masks]
        else:
            self.masks = sorted(root.rglob("*.png"))
            self.images = [mask.with_suffix(".jpg") for mask in self.masks]
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
        """One frame, as `Videos` asks."""
        return 1

    def step(self, video: int) -> int:
        """One, as `Videos` asks."""
        return 1

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """The item, as `Videos` asks."""
        return self[video]


def load_pair(image: Path, mask: Path, read: Callable[[Path], IdMask] = read_mask) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) uint8 and its mask (H, W) uint8, read as a session's are.

    Raises ValueError where one cannot be read, sizes differ, or an id is beyond 255.
    """
    pixels, ids = read_frame(image), read(mask)
    if pixels.shape[:2] != ids.shape:
        raise ValueError(f"{image} is {pixels.shape[:2]} but {mask} is {ids.shape}")
    if ids.max() > 255:
        raise ValueError(f"{mask} has id {ids.max()}; a sample holds ids 0 to 255")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(ids.astype(np.uint8))


def read_still_mask(path: Path) -> IdMask:
    """The ids of a still image's mask, (H, W) int32.

    A gray one that reaches 255 is white on black, as sets of salient objects have it, often with soft edges:
    it is cut at half, as STCN does.
    """
    image = read_image(path)
    if image.format == "PNG" and image.mode == "L" and image.getextrema()[1] == 255:
        return (np.asarray(image) >= 128).astype(np.int32)
    return ids_of_picture(image, str(path))
