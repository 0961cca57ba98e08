"""Still images with object masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class StaticImages(Sequence[tuple[Tensor, Tensor]]):
    """`root/images/NAME.jpg` with `root/masks/NAME.png`.

    An item is (image (3, H, W) uint8, mask (H, W) uint8 of ids).
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.names = sorted(path.stem for path in (self.root / "masks").glob("*.png"))
        if not self.names:
            raise ValueError(
                f"{self.root / 'masks'} holds no PNG; expected images/NAME.jpg and masks/NAME.png"
            )

        for name in self.names:
            if not (image := self.root / "images" / f"{name}.jpg").is_file():
                raise ValueError(f"the mask {name}.png has no image: {image} does not exist")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        name = self.names[index]
        return load_pair(self.root / "images" / f"{name}.jpg", self.root / "masks" / f"{name}.png")


def load_pair(image: Path, mask: Path) -> tuple[Tensor, Tensor]:
    """A picture (3, H, W) uint8 and its mask (H, W) uint8. Raises ValueError where sizes differ."""
    with Image.open(image) as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
    with Image.open(mask) as file:
        ids = torch.from_numpy(np.array(file, dtype=np.uint8))
    if pixels.shape[1:] != ids.shape:
        raise ValueError(f"{image} is {tuple(pixels.shape[1:])} but {mask} is {tuple(ids.shape)}")
    return pixels, ids
