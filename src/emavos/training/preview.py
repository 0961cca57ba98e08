"""A picture of a batch: ground truth beside the model's predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emavos.data import Sample
from emavos.frames.preprocess import IMAGENET_MEAN, IMAGENET_STD
from emavos.io import Pixels, write_image
from emavos.models import STCN
from emavos.training.clip import clip_logits
from emavos.visualize import contact_sheet, overlay


@torch.no_grad()
def write_prediction(path: Path, model: STCN, sample: Sample, clips: int = 4) -> None:
    """Write a PNG with two rows per clip: frames with their true masks, and frames with predicted masks.

    path: file to write.
    model: network.
    sample: batch; frames (B, T, 3, S, S), normalised.
    clips: number of clips shown.
    """
    frames, masks, valid = (part[:clips] for part in sample)  # (B, T, 3, S, S), (B, T, O, S, S), (B, O)
    logits = clip_logits(model, frames, masks[:, 0], valid)
    true = [_ids(masks[:, t]) for t in range(frames.shape[1])]
    predicted = [true[0], *(frame.argmax(dim=1) for frame in logits)]
    images, labels = [], []
    for b in range(len(frames)):
        pixels = [_pixels(frame) for frame in frames[b]]
        for name, rows in (("true", true), ("found", predicted)):
            images += [
                overlay(picture, ids[b].cpu().numpy().astype(np.int32))
                for picture, ids in zip(pixels, rows, strict=True)
            ]
            labels += [f"{name}, frame {t}" if t else "given" for t in range(len(pixels))]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, contact_sheet(images, labels, columns=frames.shape[1], width=320 * frames.shape[1]))


def _ids(planes: Tensor) -> Tensor:
    """Object numbers (B, S, S) from planes (B, O, S, S) of 0 and 1."""
    numbers = torch.arange(1, 1 + planes.shape[1], device=planes.device).view(1, -1, 1, 1)
    return (planes * numbers).sum(dim=1).long()


def _pixels(frame: Tensor) -> Pixels:
    """A normalised frame (3, S, S) as bytes (S, S, 3)."""
    image = frame.cpu() * IMAGENET_STD.view(3, 1, 1) + IMAGENET_MEAN.view(3, 1, 1)
    pixels: Pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels
