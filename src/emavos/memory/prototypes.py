"""What stays of memory frames that were evicted: their most used cells, as prototypes.

As in XMem (Cheng and Schwing, "XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory
Model", ECCV 2022), which chooses prototypes by usage and gives them values that stand for their surroundings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emavos.memory.readout import Backend, topk_readout


class Prototypes(NamedTuple):
    """Memory cells that stand for others."""

    keys: Tensor  # (n, Ck)
    values: Tensor  # (n, O, Cv)
    received: Tensor  # (n,), readout weight since their frames came
    frames: Tensor  # (n,) int64, the frames that they are of


def consolidate(
    keys: Tensor,
    values: Tensor,
    received: Tensor,
    frame: int,
    count: int,
    top_k: int,
    backend: Backend = "auto",
) -> Prototypes:
    """The `count` most used cells of a frame, which stand for all of it.

    keys: (h * w, Ck). values: (h * w, O, Cv). received: (h * w,), the weight that each cell got in readouts.
    The value of a prototype is what the frame says where its key is asked for: of the `top_k` cells most like
    it, by affinity. So what goes is not lost where it agrees with what stays.
    """
    most = received.topk(min(count, len(keys))).indices
    pooled = topk_readout(keys[most].T, keys, values, top_k, backend).permute(2, 0, 1)  # (n, O, Cv)
    return Prototypes(keys[most], pooled, received[most], torch.full_like(most, frame))


def merge(old: Prototypes | None, new: Prototypes, bound: int, now: int) -> Prototypes:
    """Both, less those of the old that were used least per frame of time, until `bound` are left.

    now: index of the frame up to which they were used.
    """
    if old is None:
        return new
    room = max(bound - len(new.keys), 0)
    if len(old.keys) > room:
        usage = old.received / (now - old.frames).clamp(min=1)
        stay = usage.topk(room).indices.sort().values  # in the order in which they came
        old = Prototypes(*(x[stay] for x in old))
    return Prototypes(*(torch.cat(pair) for pair in zip(old, new, strict=True)))
