"""Wider value encoders and decoders that compute, at first, what the narrow ones compute."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from emavos.models import PRESETS, STCN, STCNConfig
from emavos.training.start import grow

# New channels of these layers are zero at first, because what follows takes statistics over channels or hands
# them to the memory. The layers that read them have random weights for them.
_ZERO_AT_FIRST = ("fusion.block1.conv2", "fusion.block1.skip", "fusion.block2.conv2")
_READ_ZEROS = ("fusion.cbam.mlp.0", "fusion.block2.conv1")
# These read the channels of the readout, then those of the context.
_OF_READOUT = ("decoder.compress.conv1", "decoder.compress.skip")
_WIDTHS = ("value_channels", "context_channels", "decoder_channels")


def is_narrower(config: STCNConfig, preset: str) -> bool:
    """Whether a preset differs from a config only in having more channels in values, context and decoder."""
    wide = PRESETS[preset]
    return _with_widths(config, wide) == wide and config.value_channels < wide.value_channels


def _with_widths(config: STCNConfig, wide: STCNConfig) -> STCNConfig:
    return replace(config, **{name: getattr(wide, name) for name in _WIDTHS})


def widened(model: STCN, preset: str, seed: int = 0) -> STCN:
    """A model of a preset with more channels in values, context and decoder; it gives the masks of `model`.

    model: model to copy weights from.
    preset: name of a preset that differs from `model` only in these channels, all more than in `model`.
    seed: seed of the new weights.

    New channels have random weights and what reads them zeros, or the other way round, so both get a gradient
    (Net2Net: Chen et al., ICLR 2016). One case is not equal: where all channels of the fusion's first
    block are negative, their maximum becomes 0.

    Raises ValueError if the configs differ in something else, or if the preset is not wider.
    """
    narrow, wide = model.config, PRESETS[preset]
    if _with_widths(narrow, wide) != wide:
        raise ValueError(f"the model differs from {preset} in more than {', '.join(_WIDTHS)}")
    pairs = zip(
        (narrow.value_channels, narrow.context_channels, *narrow.decoder_channels),
        (wide.value_channels, wide.context_channels, *wide.decoder_channels),
        strict=True,
    )
    if not all(old < new for old, new in pairs):
        raise ValueError(f"{preset} is not wider than the model in all of {', '.join(_WIDTHS)}")
    grown = grow(model, preset, seed)
    with torch.no_grad():
        for name, weight in grown.state_dict().items():
            old = model.state_dict()[name]
            if old.shape != weight.shape:
                _widen(name, old.float(), weight, narrow.value_channels, wide.value_channels)
        # of the maximum and the mean over channels, half of which are zero at first
        spatial = grown.value_encoder.fusion.cbam.spatial.weight
        spatial[:, 1] *= wide.value_channels / narrow.value_channels
    return grown


def _widen(name: str, old: Tensor, new: Tensor, narrow: int, wide: int) -> None:
    """Put `old` into `new`, which has random weights, and set to zero what would change the result.

    narrow, wide: channels of the values before and after.
    """
    rows = len(old)
    if name.startswith("value_encoder.") and any(part in name for part in _ZERO_AT_FIRST):
        new[rows:] = 0
    if old.dim() == 1:
        new[:rows] = old
        return
    columns = torch.arange(old.shape[1])
    if name.startswith(_OF_READOUT):
        columns = torch.where(columns < narrow, columns, columns + wide - narrow)
        new[:rows, wide + old.shape[1] - narrow :] = 0  # the context's new channels; the readout's are zero
    elif not any(part in name for part in _READ_ZEROS):
        fresh = torch.ones(new.shape[1], dtype=torch.bool)
        fresh[columns] = False
        new[:rows, fresh] = 0
    new[:rows, columns] = old
