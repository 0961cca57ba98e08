"""Prototypes: the most used cells of evicted memory frames.

As in XMem (Cheng and Schwing, "XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory
Model", ECCV 2022), prototypes are chosen by usage and their values summarise their surroundings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emavos.memory.readout import Backend, topk_readout


class Prototypes(NamedTuple):
    """Memory cells that represent evicted frames."""

    keys: Tensor  # (n, Ck)
    values: Tensor  # (n, O, Cv)
    received: Tensor  # (n,), readout weight since their frames were stored
    frames: Tensor  # (n,) int64, index of each prototype's frame


def consolidate(
    keys: Tensor,
    values: Tensor,
    received: Tensor,
    frame: int,
    count: int,
    top_k: int,
    backend: Backend = "auto",
) -> Prototypes:
    """The `count` most used cells of a frame, as prototypes of the whole frame.

    The value of a prototype is the frame's readout at the key of the prototype. Information of the other
    cells therefore survives if they agree with a prototype.

    keys: (h * w, Ck).
    values: (h * w, O, Cv).
    received: (h * w,), readout weight of each cell.
    frame: index of the frame.
    top_k: cells per readout.
    """
    most = received.topk(min(count, len(keys))).indices
    pooled = topk_readout(keys[most].T, keys, values, top_k, backend).permute(2, 0, 1)  # (n, O, Cv)
    return Prototypes(keys[most], pooled, received[most], torch.full_like(most, frame))


def merge(old: Prototypes | None, new: Prototypes, bound: int, now: int) -> Prototypes:
    """Old and new prototypes, at most `bound`. Old ones with the least use per frame are dropped.

    bound: largest number of prototypes.
    now: index of the current frame; usage is counted up to this frame.
    """
    if old is None:
        return new
    room = max(bound - len(new.keys), 0)
    if len(old.keys) > room:
        usage = old.received / (now - old.frames).clamp(min=1)
        stay = usage.topk(room).indices.sort().values  # in order of arrival
        old = Prototypes(*(x[stay] for x in old))
    return Prototypes(*(torch.cat(pair) for pair in zip(old, new, strict=True)))
