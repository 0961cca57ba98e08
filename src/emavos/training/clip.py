"""The forward pass over a batch of short clips: the session's loop, with gradients and without top-k."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emavos.masks import aggregate_logits
from emavos.memory import full_readout
from emavos.models import STCN, Features


class ClipNetwork(nn.Module):
    """`clip_logits` as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: STCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, first: Tensor, valid: Tensor) -> list[Tensor]:
        return clip_logits(self.model, frames, first, valid)


def clip_logits(model: STCN, frames: Tensor, first: Tensor, valid: Tensor | None = None) -> list[Tensor]:
    """Log-odds of every frame after the first, whose softmax is the aggregated probability.

    frames: (B, T, 3, H, W), normalised. first: (B, O, H, W), the masks of frame 0. Each frame is read from
    all frames before it. valid: (B, O), 1 for objects, 0 for planes without one, whose probability is held at
    zero; None: all are objects. Returns T - 1 tensors (B, 1 + O, H, W).
    """
    clips, length = frames.shape[:2]
    features = _per_frame(model.encode_key(frames.flatten(0, 1)), clips)
    prob = first
    keys: list[Tensor] = []
    values: list[Tensor] = []
    logits = []
    for t in range(1, length):
        last = features[t - 1]
        keys.append(last.key.flatten(2).transpose(1, 2))  # (B, h * w, Ck)
        value = model.encode_value(frames[:, t - 1], last, prob)
        values.append(value.flatten(3).permute(0, 3, 1, 2))  # (B, h * w, O, Cv)
        now = features[t]
        with torch.autocast(frames.device.type, enabled=False):  # cells that differ would look the same
            query, memory = now.key.flatten(2).float(), torch.cat(keys, 1).float()
            readout = full_readout(query, memory, torch.cat(values, 1).float())
        readout = readout.unflatten(3, now.key.shape[2:])
        each = model.decode(readout, now).float().sigmoid()
        logits.append(aggregate_logits(each if valid is None else each * valid[:, :, None, None]))
        prob = logits[-1].softmax(dim=1)[:, 1:]
    return logits


def _per_frame(features: Features, clips: int) -> list[Features]:
    """Features of (B * T) frames -> T features of B frames."""
    parts = [x.unflatten(0, (clips, -1)).unbind(1) for x in features]
    return [Features(*frame) for frame in zip(*parts, strict=True)]
