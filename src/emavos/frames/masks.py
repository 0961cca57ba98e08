"""Masks as tensors: (H, W) of ids, or one plane of 0 and 1 per object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from emavos.io.ids import ids_of_picture


def to_mask(mask: object, size: tuple[int, ...]) -> Tensor:
    """A mask as (H, W) int32 of ids, 0 for the background.

    mask: an array or a tensor (H, W) of integers or bool, or a PIL image of palette, gray or 1-bit kind.
        Images are checked by `emavos.io.ids.ids_of_picture`; arrays are used unchecked.
    size: (H, W) of the frame.

    Raises ValueError if the mask has another kind or size.
    """
    if isinstance(mask, Image.Image):
        mask = ids_of_picture(mask)
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
        have, want = "x".join(map(str, mask.shape)), "x".join(map(str, size))
        raise ValueError(f"mask is {have} but frame is {want} (height x width); resize one of them")
    if mask.numel() and not (int(mask.min()) >= -(2**31) and int(mask.max()) < 2**31):
        raise ValueError("ids are 32-bit integers")
    return mask.to(torch.int32)


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
        have, want = "x".join(map(str, shape)), "x".join(map(str, size))
        raise ValueError(
            f"{name} does not fit: mask is {have} but frame is {want} (height x width); resize one of them"
        )
    if empty:
        raise ValueError(f"{name} is empty: every pixel is 0, the background")
    return shape[0], shape[1]


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
