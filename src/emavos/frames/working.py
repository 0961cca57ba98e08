"""A frame between the file and the network, whatever the network will do with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from emavos.frames.masks import Crop, pad_to_stride
from emavos.frames.preprocess import normalize, resize, to_frame, working_size


@dataclass(frozen=True, eq=False)
class WorkingFrame:
    """A frame as the network takes it."""

    pixels: Tensor  # (1, 3, H', W') float32, at the working size, normalised and padded
    crop: Crop  # undoes the padding
    size: tuple[int, int]  # (H, W) of the source

    @property
    def working_size(self) -> tuple[int, int]:
        """(H, W) without the padding."""
        height, width = self.pixels[self.crop].shape[2:]
        return height, width

    def suits(self, short_side: int | None, device: torch.device) -> bool:
        """Whether `prepare` makes a frame of this size, with these, on that kind of device."""
        wanted = working_size(*self.size, short_side)
        return self.working_size == wanted and self.pixels.device.type == device.type


def prepare(frame: object, short_side: int | None, device: torch.device | None = None) -> WorkingFrame:
    """All that is done to a frame before the network sees it.

    short_side: in pixels, while working; None keeps that of the frame. device: where it is to be. Raises
    ValueError as `emavos.frames.to_frame` does.
    """
    pixels = to_frame(frame, device)
    size = (pixels.shape[1], pixels.shape[2])
    working = resize(pixels, working_size(*size, short_side))
    return WorkingFrame(*pad_to_stride(normalize(working)[None]), size)
