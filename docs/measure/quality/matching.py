"""Measure the quality and softness of a model's matching, without its value encoder and decoder.

*Matching J* of keys: the softmax over the best cells carries the true object coverage of memory cells to
later frames, and the result is compared with the ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emavos.frames import normalize, pad_to_stride, resize, to_frame, working_size
from emavos.io import IdMask, Pixels
from emavos.memory import topk_readout
from emavos.models import STCN
from emavos.models.stcn import STRIDE


@dataclass(frozen=True)
class Matching:
    """Means over the frames of a clip; medians over the cells of a frame."""

    cells: float  # J at stride 16, on cells covered at least half by the object
    pixels: float  # J of the map of cells, interpolated to pixels
    best: float  # weight of the best memory cell of a query; 1 if the softmax is an argmax
    effective: float  # number of cells read by a query: exp(entropy) of its weights
    gap: float  # logit difference between the best and second-best cell
    norm: float  # |k|


def matching(
    model: STCN,
    frames: Sequence[Pixels],
    masks: Sequence[IdMask],
    *,
    size: int | None = None,
    every: int = 5,
    top_k: int = 20,
) -> Matching:
    """Carry the ground truth of every `every`-th frame to all later frames, using only keys.

    model: network.
    frames: (H, W, 3) uint8 each.
    masks: (H, W) of ids each; all objects count as one.
    size: short side of the encoded frames; None keeps their size.
    every: distance between memory frames.
    top_k: number of memory cells read by each query cell.
    """
    encoded = [_encode(model, frame, mask, size) for frame, mask in zip(frames, masks, strict=True)]
    if len(encoded) < 2:
        raise ValueError(f"a clip of {len(encoded)} frames has nothing to match; pass two frames or more")
    scores: list[tuple[float, ...]] = []
    for t in range(1, len(encoded)):
        memory = [encoded[i] for i in range(0, t, every)]
        keys = torch.cat([frame.key.flatten(1).T for frame in memory])  # (N, Ck)
        covers = torch.cat([frame.cover.flatten() for frame in memory])  # (N,)
        now = encoded[t]
        found = topk_readout(now.key.flatten(1), keys, covers[:, None, None], top_k)
        cover = found.view_as(now.cover)
        fine = functional.interpolate(cover[None, None], now.mask.shape, mode="bilinear", align_corners=False)
        scores.append(
            (
                _iou(cover >= 0.5, now.cover >= 0.5),
                _iou(fine[0, 0] >= 0.5, now.mask > 0),
                *softness(now.key.flatten(1), keys),
                keys.norm(dim=1).mean().item(),
            )
        )
    return Matching(*(fmean(column) for column in zip(*scores, strict=True)))


def softness(query: Tensor, keys: Tensor) -> tuple[float, float, float]:
    """Best weight, effective number of cells, and logit gap from first to second: medians over queries.

    query: (Ck, P).
    keys: (N, Ck). The softmax runs over all cells, as in training.
    """
    similarity = (2 * keys @ query - keys.square().sum(dim=1, keepdim=True)) / keys.shape[1] ** 0.5
    weights = similarity.softmax(dim=0)
    effective = torch.special.entr(weights).sum(dim=0).exp()
    top = similarity.topk(2, dim=0).values
    medians = [x.median().item() for x in (weights.amax(dim=0), effective, top[0] - top[1])]
    return medians[0], medians[1], medians[2]


@dataclass(frozen=True, eq=False)
class _Encoded:
    key: Tensor  # (Ck, h, w)
    cover: Tensor  # (h, w), fraction of each cell covered by the object
    mask: Tensor  # (H', W') of 0 and 1, padded


@torch.no_grad()
def _encode(model: STCN, frame: Pixels, mask: IdMask, size: int | None) -> _Encoded:
    parameter = next(model.parameters())
    height, width = mask.shape
    shape = working_size(height, width, size)
    pixels = resize(normalize(to_frame(frame, parameter.device)), shape)
    padded, _ = pad_to_stride(pixels[None].to(parameter.dtype))
    object_ = torch.from_numpy((mask > 0).astype(np.float32)).to(parameter.device)
    whole, _ = pad_to_stride(functional.interpolate(object_[None, None], shape, mode="nearest-exact"))
    key = model.encode_key(padded).key[0].float()
    return _Encoded(key, functional.avg_pool2d(whole, STRIDE)[0, 0], whole[0, 0])


def _iou(pred: Tensor, truth: Tensor) -> float:
    union = int((pred | truth).sum())
    return int((pred & truth).sum()) / union if union else 1.0
