"""Frames and masks as tensors: converts user input to the size and range that the network expects."""

from emavos.frames.cleaning import clean_mask
from emavos.frames.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    WorkingFrame,
    ids_of,
    normalize,
    one_hot,
    pad_to_stride,
    resize,
    to_frame,
    to_mask,
    working_size,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "WorkingFrame",
    "clean_mask",
    "ids_of",
    "normalize",
    "one_hot",
    "pad_to_stride",
    "resize",
    "to_frame",
    "to_mask",
    "working_size",
]
