"""Distil the transformer's part of one model's key into the scene's part of a smaller model's key."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from emavos.data import Sample
from emavos.models import STCN
from emavos.models.encoders import SCENE_SHARE
from emavos.models.scene_key import SceneKey
from emavos.training.start import grow

PICTURES = 1400  # samples of which two frames are learned from: 0.8 GB of maps for clips of 384 pixels
STEPS = 2200

_BATCH = 16
_RATE = 2e-3
_WARMUP = 30
_WEIGHT_DECAY = 0.05


def add_scene_key(
    model: STCN,
    preset: str,
    teacher: STCN,
    samples: Dataset[Sample],
    seed: int = 0,
    pictures: int = PICTURES,
    steps: int = STEPS,
) -> STCN:
    """A model of a preset with a scene's part of the key, otherwise started from `model`, which has none.

    model: model to copy weights from.
    preset: name of a preset with `scene_key_channels`.
    teacher: model with a transformer's part of the key, such as "base".
    samples: samples to learn from, see `scene_maps`.
    seed: seed of the new weights and of the order of the pictures.
    pictures, steps: samples to use, and steps of learning.

    The parts of the old key keep their projections. Raises ValueError if the configs differ in something
    else, or if the teacher has no such part.
    """
    if teacher.key_encoder.log_vit_scale is None:
        raise ValueError("the teacher's key has no transformer's part to learn from; base has one")
    grown = grow(model, preset, seed)
    old_config, new_config = model.config, grown.config
    if old_config.scene_key_channels or not new_config.scene_key_channels:
        raise ValueError(f"a scene's part is added to a model without, for a preset with it, not {preset}")
    added = {
        name: getattr(new_config, name)
        for name in ("key_channels", "scene_key_channels", "top_k", "locality")
    }
    more = new_config.key_channels - old_config.key_channels
    if replace(old_config, **added) != new_config or more != new_config.scene_key_channels:
        raise ValueError(f"the model differs from {preset} in more than the scene's part of the key")
    maps, keys = scene_maps(model, teacher, (samples[i].frames[:2] for i in range(pictures)))
    learn_scene_key(grown.key_encoder.scene_key, maps, keys, steps, seed)
    _share_length(model, grown)
    return grown


@torch.no_grad()
def scene_maps(model: STCN, teacher: STCN, clips: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Training data of a scene's part: maps of the model's trunk, and the transformer's part of the teacher.

    clips: frames (T, 3, H, W), normalised, all of one size.

    Returns maps (n, C, h, w), see `SceneKey.maps`, and keys (n, K, h, w), both in float16.
    """
    maps, keys = [], []
    for frames in clips:
        maps.append(SceneKey.maps(*model.key_encoder.trunk(frames)).half())
        keys.append(teacher.key_encoder.vit_part(frames).half())
    return torch.cat(maps), torch.cat(keys)


def learn_scene_key(scene: SceneKey, maps: Tensor, keys: Tensor, steps: int = STEPS, seed: int = 0) -> float:
    """Train a scene's part, in place, to point in the direction of the teacher's keys; returns the last loss.

    maps, keys: from `scene_maps`. The keys are projected to the channels of the part by their first
        principal components. Only directions count, as each part of a key has a length of its own.

    The loss is 1 minus the mean cosine.
    """
    matrix = _directions(keys, scene.proj.out_channels)  # (K, Ck)
    with torch.no_grad():
        assert scene.norm.running_mean is not None
        assert scene.norm.running_var is not None
        seen = _some_cells(maps)
        scene.norm.running_mean.copy_(seen.mean(dim=0))
        scene.norm.running_var.copy_(seen.var(dim=0))
    optimiser = torch.optim.AdamW(scene.parameters(), _RATE, weight_decay=_WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / _WARMUP) * (1 - step / steps)
        chosen = torch.randint(len(maps), (_BATCH,), generator=generator)
        x, target = maps[chosen].float(), torch.einsum("bkhw,kc->bchw", keys[chosen].float(), matrix)
        if torch.rand((), generator=generator) < 0.5:
            x, target = x.flip(3), target.flip(3)
        loss = 1 - functional.cosine_similarity(scene.proj(scene.seen(x)), target, dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


def _directions(keys: Tensor, channels: int) -> Tensor:
    """The first principal components (K, channels) of the directions of keys (n, K, h, w)."""
    unit = functional.normalize(_some_cells(keys), dim=1)
    directions: Tensor = torch.linalg.eigh(unit.T @ unit).eigenvectors.flip(1)
    return directions[:, :channels]


def _some_cells(maps: Tensor) -> Tensor:
    """Every n-th cell of maps (N, C, h, w), about 200,000 in all: (cells, C) in float32."""
    cells = maps.transpose(0, 1).flatten(1)  # (C, N * h * w)
    return cells[:, :: max(cells.shape[1] // 200_000, 1)].T.float()


@torch.no_grad()
def _share_length(model: STCN, grown: STCN) -> None:
    """Give the scene's part its share of a key's squared length, and keep the similarities' scale.

    Similarities are divided by the square root of the channels, so all parts grow with it.
    """
    longer = math.log(grown.config.key_channels / model.config.key_channels) / 4
    old, new = model.key_encoder, grown.key_encoder
    pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
    for name in ("log_scale", "log_fine_scale", "log_vit_scale"):
        if (before := getattr(old, name)) is not None:
            pairs.append((before, getattr(new, name)))
    whole = torch.stack([2 * before for before, _ in pairs]).logsumexp(dim=0) / 2  # log of the length
    for before, after in pairs:
        after.copy_(before + longer + math.log(1 - SCENE_SHARE) / 2)
    assert new.log_scene_scale is not None
    new.log_scene_scale.copy_(whole + longer + math.log(SCENE_SHARE) / 2)
    if new.log_position is not None and old.log_position is not None:
        new.log_position.copy_(old.log_position + longer)
