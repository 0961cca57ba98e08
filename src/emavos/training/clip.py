"""The forward pass over a batch of short clips: a session's loop, but with gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.memory import full_affinity, weighted_values
from emavos.models import STCN, Features, aggregate_logits
from emavos.models.stcn import STRIDE


class ClipOutput(NamedTuple):
    """The network's output for one frame, for B clips with O objects."""

    logits: Tensor  # (B, 1 + O, H, W), log-odds whose softmax is the aggregated probability
    matched: Tensor  # (B, O, h, w) in [0, 1], true masks of the memory frames, read with the affinity
    best: Tensor  # scalar without gradient, mean weight of the best memory cell
    cells: Tensor  # scalar without gradient, mean exp(entropy) of the weights: number of cells read


class ClipNetwork(nn.Module):
    """`track_clip` as a module, for DistributedDataParallel."""

    def __init__(self, model: STCN, top_k: int = 0) -> None:
        super().__init__()
        self.model = model
        self.top_k = top_k

    def forward(self, frames: Tensor, masks: Tensor, valid: Tensor) -> list[ClipOutput]:
        return track_clip(self.model, frames, masks, valid, self.top_k)


def clip_logits(model: STCN, frames: Tensor, first: Tensor, valid: Tensor | None = None) -> list[Tensor]:
    """Log-odds (B, 1 + O, H, W) of every frame after the first; T - 1 tensors.

    model: network.
    frames: (B, T, 3, H, W), normalised.
    first: (B, O, H, W), the masks of frame 0.
    valid: (B, O), see `track_clip`.
    """
    masks = first.unsqueeze(1).expand(-1, frames.shape[1], -1, -1, -1)  # only the first mask is used
    return [tracked.logits for tracked in track_clip(model, frames, masks, valid)]


def track_clip(
    model: STCN, frames: Tensor, masks: Tensor, valid: Tensor | None = None, top_k: int = 0
) -> list[ClipOutput]:
    """Track the objects of a batch of clips from their first masks; returns T - 1 results.

    Each frame reads from all earlier frames.

    model: network.
    frames: (B, T, 3, H, W), normalised.
    masks: (B, T, O, H, W), ground truth. The network sees only frame 0; the masks of later memory frames are
        used only for `ClipOutput.matched`.
    valid: (B, O), 1 for objects, 0 for empty planes, whose probability is kept at zero; None if all are
        objects.
    top_k: memory cells that each query cell reads; 0: all.
    """
    clips, length = frames.shape[:2]
    features = _per_frame(model.encode_key(frames.flatten(0, 1)), clips)
    covered = cell_coverage(masks)  # (B, T, O, h, w)
    prob = masks[:, 0]
    keys: list[Tensor] = []
    values: list[Tensor] = []
    results = []
    for t in range(1, length):
        last = features[t - 1]
        keys.append(last.key.flatten(2).transpose(1, 2))  # (B, h * w, Ck)
        value = model.encode_value(frames[:, t - 1], last, prob)
        values.append(value.flatten(3).permute(0, 3, 1, 2))  # (B, h * w, O, Cv)
        now = features[t]
        # in half precision, different cells would look the same
        with torch.autocast(frames.device.type, enabled=False):
            query, memory = now.key.flatten(2).float(), torch.cat(keys, 1).float()
            affinity = full_affinity(query, memory, top_k)  # (B, N, P)
            readout = weighted_values(affinity, torch.cat(values, 1).float())
            truth = covered[:, :t].transpose(1, 2).flatten(2)  # (B, O, N)
            matched = (truth @ affinity).unflatten(2, now.key.shape[2:])
        readout = readout.unflatten(3, now.key.shape[2:])
        each = model.decode(readout, now).float().sigmoid()
        logits = aggregate_logits(each if valid is None else each * valid[:, :, None, None])
        prob = logits.softmax(dim=1)[:, 1:]
        results.append(ClipOutput(logits, matched, *_softness(affinity)))
    return results


def cell_coverage(masks: Tensor) -> Tensor:
    """The fraction of each stride-16 cell covered by masks (..., H, W) of 0 and 1: (..., h, w) in [0, 1].

    Cell i is centred on pixel 16 i, like the features of the small trunk.
    """
    height, width = masks.shape[-2:]
    cells = functional.avg_pool2d(masks.flatten(0, -3), STRIDE, padding=STRIDE // 2, count_include_pad=False)[
        ..., : height // STRIDE, : width // STRIDE
    ]
    return cells.unflatten(0, masks.shape[:-2])


@torch.no_grad()
def _softness(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """Means over query cells of the best weight and of exp(entropy), for an affinity (B, N, P)."""
    entropy = -(affinity * affinity.clamp(min=1e-12).log()).sum(dim=1)
    return affinity.amax(dim=1).mean(), entropy.exp().mean()


def _per_frame(features: Features, clips: int) -> list[Features]:
    """Split the features of (B * T) frames into T features of B frames."""
    parts = [x.unflatten(0, (clips, -1)).unbind(1) for x in features]
    return [Features(*frame) for frame in zip(*parts, strict=True)]
