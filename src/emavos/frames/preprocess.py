"""One frame: from the user's image to the tensor for the network."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from emavos.io.images import Pixels, pixels_of

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float32, device="cpu")
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float32, device="cpu")


Crop = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True, eq=False)
class WorkingFrame:
    """A frame in the form that the network takes."""

    pixels: Tensor  # (1, 3, H', W') float32, at the working size, normalised and padded
    crop: Crop  # undoes the padding
    size: tuple[int, int]  # (H, W) of the source

    @property
    def working_size(self) -> tuple[int, int]:
        """(H, W) without the padding."""
        height, width = self.pixels[self.crop].shape[2:]
        return height, width

    def suits(self, short_side: int | None, device: torch.device) -> bool:
        """Whether `to_working` with these arguments returns this size, on this kind of device."""
        wanted = working_size(*self.size, short_side)
        return self.working_size == wanted and self.pixels.device.type == device.type


def to_working(frame: object, short_side: int | None, device: torch.device | None = None) -> WorkingFrame:
    """A frame resized, normalised and padded for the network.

    frame: as for `to_frame`.
    short_side: of the working frame, in pixels; None keeps the size of the frame.
    device: of the result; None: the device of the frame.

    Raises ValueError as `to_frame` does.
    """
    pixels = to_frame(frame, device)
    size = (pixels.shape[1], pixels.shape[2])
    working = resize(pixels, working_size(*size, short_side))
    return WorkingFrame(*pad_to_stride(normalize(working)[None]), size)


def to_frame(frame: object, device: torch.device | None = None) -> Tensor:
    """An image as (3, H, W) float32 in [0, 1].

    frame: a PIL image; an array (H, W, 3) of uint8; or a tensor (3, H, W), uint8 or float in [0, 1].
    device: of the result. Bytes are converted to floats there. None: the device of the frame.

    Raises ValueError for anything else.
    """
    if isinstance(frame, Image.Image):
        frame = pixels_of(frame)
    if isinstance(frame, np.ndarray):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(
                f"an array frame is (H, W, 3) of uint8, not {frame.shape} of {frame.dtype}; "
                "convert it to 8-bit RGB"
            )
        frame = torch.from_numpy(np.array(frame)).permute(2, 0, 1)
    if not isinstance(frame, Tensor):
        raise ValueError(
            "a frame is a PIL image, an array (H, W, 3) of uint8 or a tensor (3, H, W), "
            f"not {type(frame).__name__}"
        )
    if frame.ndim != 3 or frame.shape[0] != 3:
        raise ValueError(f"a tensor frame is (3, H, W), not {tuple(frame.shape)}")
    if min(frame.shape) == 0:
        raise ValueError(f"a frame has at least one pixel, not {tuple(frame.shape[1:])}")
    if frame.dtype == torch.uint8:
        return moved(frame, device).float().div_(255)
    if not frame.is_floating_point():
        raise ValueError(f"a tensor frame is uint8, or float in [0, 1], not {frame.dtype}")
    frame = frame.float()
    if not bool(((frame >= -1e-3) & (frame <= 1 + 1e-3)).all()):  # and NaN; resizing overshoots a little
        low, high = frame.min().item(), frame.max().item()
        raise ValueError(
            f"a float frame is in [0, 1], not {low:g} to {high:g}; divide by 255, do not normalise"
        )
    return moved(frame.clamp(0, 1), device)


def to_pixels(frame: object) -> Pixels:
    """A frame as (H, W, 3) uint8. Takes what `to_frame` takes."""
    pixels: Pixels = to_frame(frame).mul(255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels


def moved(x: Tensor, device: torch.device | None) -> Tensor:
    """x on the device. Does not wait for a GPU: the copy from pinned memory runs while the CPU continues."""
    if device is not None and device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def normalize(frame: Tensor) -> Tensor:
    """(..., 3, H, W) in [0, 1], minus ImageNet's mean, over ImageNet's standard deviation."""
    mean, std = (x.to(frame.device, non_blocking=True) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (frame - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def denormalize(frame: Tensor) -> Tensor:
    """The inverse of `normalize`."""
    mean, std = (x.to(frame.device, non_blocking=True) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return frame * std.view(3, 1, 1) + mean.view(3, 1, 1)


def check_short_side(size: int | None) -> None:
    """Raise ValueError unless `size` can be the short side of a working frame, or None."""
    if size is not None and (type(size) is not int or not 16 <= size <= 8192):
        raise ValueError(f"size is a whole number of pixels from 16 to 8192, or None, not {size!r}")


def working_size(height: int, width: int, size: int | None) -> tuple[int, int]:
    """Height and width with `size` as the short side, in the same proportion. None keeps the size.

    The long side is capped at 16 × `size`, so a frame one pixel high cannot exhaust memory.
    """
    if size is None:
        return height, width
    scale = min(size / min(height, width), 16 * size / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) -> (C, *size): bilinear, antialiased if smaller. Returns x if the size is right."""
    if x.shape[1:] == size:
        return x
    shrinks = size[0] < x.shape[1]
    return functional.interpolate(x[None], size, mode="bilinear", align_corners=False, antialias=shrinks)[0]


def pad_to_stride(x: Tensor, stride: int = 16) -> tuple[Tensor, Crop]:
    """Zeros around (..., H, W) until both are multiples of `stride`. An odd pixel is added right or below.

    Returns the padded tensor, and the index that removes the padding: `padded[crop]` is x.
    """
    height, width = x.shape[-2:]
    top, left = (-height % stride) // 2, (-width % stride) // 2
    bottom, right = -height % stride - top, -width % stride - left
    crop = (..., slice(top, top + height), slice(left, left + width))
    return functional.pad(x, (left, right, top, bottom)), crop
