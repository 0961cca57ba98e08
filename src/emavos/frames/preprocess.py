"""Frames and masks that a user passes, as tensors: the input of the network, ids, and planes of 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from emavos.io.ids import ids_of_picture
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
        same_size = self.working_size == working_size(*self.size, short_side)
        return same_size and self.pixels.device.type == device.type


def to_working(
    frame: object, short_side: int | None, device: torch.device | None = None, number: int | None = None
) -> WorkingFrame:
    """A frame resized, normalised and padded for the network.

    frame: as for `to_frame`.
    short_side: of the working frame, in pixels; None keeps the size of the frame.
    device: of the result; None: the device of the frame.
    number: of the frame in errors; None: errors name no frame.

    Raises ValueError as `to_frame` does.
    """
    try:
        pixels = to_frame(frame, device)
    except ValueError as error:
        if number is None:
            raise
        raise ValueError(f"frame {number}: {error}") from error
    size = (pixels.shape[1], pixels.shape[2])
    working = resize(pixels, working_size(*size, short_side))
    return WorkingFrame(*pad_to_stride(normalize(working)[None]), size)


def working_frame(
    frame: object,
    short_side: int | None,
    device: torch.device,
    video_size: tuple[int, int] | None,
    number: int,
) -> WorkingFrame:
    """A frame of a video for the network; the frame itself if it is a `WorkingFrame` already.

    frame, short_side, device, number: as for `to_working`.
    video_size: (H, W) of the first frame; None if `frame` is the first.

    Raises ValueError as `to_working` does, if the frame was preprocessed for another size or device, and if
    the first frame had another size.
    """
    working = frame if isinstance(frame, WorkingFrame) else to_working(frame, short_side, device, number)
    if not working.suits(short_side, device):
        height, width = working.working_size
        raise ValueError(
            f"frame {number} was preprocessed at {height}x{width} (height x width) on "
            f"{working.pixels.device.type}, for a session of another size or device than this one, "
            f"whose size is {short_side} on {device.type}"
        )
    if video_size is not None and working.size != video_size:
        (height, width), size = video_size, working.size
        raise ValueError(
            f"frame {number} is {size[0]}x{size[1]} but the video began with {height}x{width} "
            "(height x width); resize it, or begin a new session"
        )
    return working


def to_frame(frame: object, device: torch.device | None = None) -> Tensor:
    """An image as (3, H, W) float32 in [0, 1].

    frame: a PIL image; an array (H, W, 3) of uint8; or a tensor (3, H, W), uint8 or float in [0, 1]. Masked
        values of a numpy masked array are 0.
    device: of the result. Bytes are converted to floats there. None: the device of the frame.

    Raises ValueError for anything else.
    """
    if isinstance(frame, Image.Image):
        frame = pixels_of(frame)
    if isinstance(frame, np.ma.MaskedArray):
        frame = frame.filled(0)
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


def to_mask(mask: object, size: tuple[int, ...]) -> Tensor:
    """A mask as (H, W) int32 of ids, 0 for the background.

    mask: an array or a tensor (H, W) of integers or bool, or a PIL image of palette, gray or 1-bit kind.
        Images are checked by `emavos.io.ids.ids_of_picture`; arrays are used unchecked. Masked pixels of a
        numpy masked array are background.
    size: (H, W) of the frame.

    Raises ValueError if the mask has another kind or size.
    """
    if isinstance(mask, Image.Image):
        mask = ids_of_picture(mask)
    if isinstance(mask, np.ma.MaskedArray):
        mask = mask.filled(0)
    if isinstance(mask, Tensor) and mask.dtype in (torch.uint16, torch.uint32, torch.uint64):
        mask = mask.cpu().numpy()  # torch lacks most operations for these
    if isinstance(mask, np.ndarray):
        if mask.dtype.kind not in "buif":
            raise ValueError(f"a mask holds whole ids, not {mask.dtype}")
        if mask.dtype.kind == "u" and mask.size and mask.max() >= 2**31:
            raise ValueError("ids are 32-bit integers")
        mask = torch.from_numpy(mask.astype(np.int64) if mask.dtype.kind in "bui" else np.array(mask))
    if not isinstance(mask, Tensor):
        raise ValueError(f"a mask is a PIL image, an array or a tensor, not {type(mask).__name__}")
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(f"a mask holds whole ids, not {mask.dtype}; threshold probabilities first")
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W) of ids, not {tuple(mask.shape)}")
    if tuple(mask.shape) != size:
        raise ValueError(_misfit(tuple(mask.shape), size))
    if mask.numel() and not (int(mask.min()) >= -(2**31) and int(mask.max()) < 2**31):
        raise ValueError("ids are 32-bit integers")
    return mask.to(torch.int32)


def to_annotation(mask: object, size: tuple[int, int], number: int) -> tuple[tuple[int, ...], Tensor]:
    """The ids of the objects that a mask shows, and the mask as (H, W) int32 of ids.

    mask, size: as for `to_mask`.
    number: of the frame in errors.

    Raises ValueError as `to_mask` does, and if the mask has no object.
    """
    labels = to_mask(mask, size)
    if not (ids := ids_of(labels)):
        raise ValueError(f"the mask of frame {number} is empty: every pixel is 0, the background")
    return ids, labels


def check_given(mask: object, size: tuple[int, int] | None, name: str) -> tuple[int, int] | None:
    """(H, W) of a mask, or None if `mask` is no image, array or tensor of two dimensions (see `to_mask`).

    mask: as for `to_mask`.
    size: (H, W) of the frame, if known.
    name: of the mask, for errors.

    Raises ValueError if the mask has another size, or an array or a tensor has no object.
    """
    if isinstance(mask, Image.Image):
        shape: tuple[int, ...] = ImageOps.exif_transpose(mask).size[::-1]
        empty = False
    elif isinstance(mask, (np.ndarray, Tensor)):
        shape, empty = tuple(mask.shape), not bool((mask != 0).any())
    else:
        return None
    if len(shape) != 2:
        return None
    if size is not None and shape != size:
        raise ValueError(f"{name} does not fit: {_misfit(shape, size)}")
    if empty:
        raise ValueError(f"{name} is empty: every pixel is 0, the background")
    return shape[0], shape[1]


def _misfit(shape: tuple[int, ...], size: tuple[int, ...]) -> str:
    """The sizes of a mask and its frame, and the remedy, for an error."""
    have, want = "x".join(map(str, shape)), "x".join(map(str, size))
    turned = shape == size[::-1]
    remedy = "rotate the mask; frames of files are read upright" if turned else "resize one of them"
    return f"mask is {have} but frame is {want} (height x width); {remedy}"


def planes_of(masks: Mapping[int, object], size: tuple[int, ...]) -> Tensor:
    """One plane per object, in the order of the dict: (O, H, W) float32 of 0 and 1.

    masks: {id: mask}; each mask is valid for `to_mask` and nonzero on the pixels of the object.
    size: (H, W) of the frame.

    Raises ValueError as `to_mask` does, and if an id is invalid, there is no mask, or two masks overlap.
    """
    if not isinstance(masks, Mapping) or not masks:
        raise ValueError(f"masks are a dict {{id: mask}} of one object or more, not {masks!r:.60}")
    for id in masks:
        if (
            not isinstance(id, (int, np.integer))
            or isinstance(id, bool)
            or id == 0
            or not -(2**31) <= id < 2**31
        ):
            raise ValueError(f"an id is a whole number of 32 bits other than 0, not {id!r}")
    planes = torch.stack([(to_mask(mask, size) != 0).cpu().float() for mask in masks.values()])
    if (planes.sum(dim=0) > 1).any():
        raise ValueError("masks of two objects overlap; give each pixel to one of them")
    return planes


def one_hot(mask: Tensor, ids: Sequence[int]) -> Tensor:
    """One plane per object, in the order of `ids`: (H, W) of ids -> (O, H, W) float32 of 0 and 1."""
    return (mask == torch.tensor(ids, device=mask.device).view(-1, 1, 1)).float()


def ids_of(mask: Tensor) -> tuple[int, ...]:
    """The objects of a mask (H, W): its values other than 0, sorted."""
    return tuple(i for i in mask.unique().tolist() if i != 0)


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
