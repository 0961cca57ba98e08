"""Still images with object masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class StaticImages(Sequence[tuple[Tensor, Tensor]]):
    """`root/images/NAME.jpg` with `root/masks/NAME.png`; or NAME.png beside NAME.jpg, at any depth.

    An item is (image (3, H, W) uint8, mask (H, W) uint8 of ids). As a set of `Videos`, each has one frame.
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
        return load_pair(self.images[index], self.masks[index])

    def length(self, video: int) -> int:
        """One frame, as `Videos` asks."""
        return 1

    def step(self, video: int) -> int:
        """One, as `Videos` asks."""
        return 1

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """The item, as `Videos` asks."""
        return self[video]


def load_pair(image: Path, mask: Path) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) uint8 and its mask (H, W) uint8. Raises ValueError where sizes differ."""
    with Image.open(image) as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
    with Image.open(mask) as file:
        ids = torch.from_numpy(np.array(file, dtype=np.uint8))
    if pixels.shape[1:] != ids.shape:
        raise ValueError(f"{image} is {tuple(pixels.shape[1:])} but {mask} is {tuple(ids.shape)}")
    return pixels, ids
