"""Compare the speed and labels of a frame with the method of STCN's published evaluation.

`python docs/measure/speed/reference.py` rebuilds the published method with the same weights: channels first,
separate batch norms, every convolution of the value encoder and decoder on all channels of each object, and a
dense readout (`readout.reference_method`). Both methods are timed in one run, in turn, on random weights, and
label the same frames. `--near` adds our method with `emavos.Shortcuts`.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from emavos.demo import synthetic_clip
from emavos.frames.preprocess import normalize, one_hot, pad_to_stride, to_frame
from emavos.machine import describe
from emavos.memory import MemoryBank, MemoryPolicy
from emavos.memory.readout import Backend
from emavos.models import PRESETS, STCN, Features, aggregate, compiled
from emavos.models.blocks import CBAM, FeatureFusion, ResBlock, UpBlock
from emavos.models.resnet import ResNetTrunk
from emavos.session.shortcuts import cells_near, coverage, encode_near
from emavos.settings import Shortcuts
from readout import reference_method

STAGES = ("key", "read", "decode", "value")
_ENCODED = 2  # encoded memory frames; the rest are copies with noise, with the same cost of reading
_SHORTCUTS = {
    "": Shortcuts(),
    ", decode_near": Shortcuts(decode_near=True),
    ", encode_near too": Shortcuts(decode_near=True, encode_near=True),
}
_GAINS = {  # gains that keep the masks of random weights from being trivial
    "key_encoder.key_proj.weight": 0.18,
    "key_encoder.context_proj.weight": 0.5,
    "decoder.up8.skip_conv.weight": 0.5,
    "decoder.up4.skip_conv.weight": 0.5,
    "decoder.pred.weight": 0.1,
}


class ReferenceMethod:
    """The published method, with the weights of a model with ResNet trunks."""

    def __init__(self, model: STCN) -> None:
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def key(self, frame: Tensor) -> Features:
        encoder = self.model.key_encoder
        f4, f8, f16 = _trunk(encoder.trunk, frame)
        return Features(_conv(encoder.key_proj, f16), _conv(encoder.context_proj, f16), f16, f8, f4)

    def value(self, frame: Tensor, features: Features, prob: Tensor) -> Tensor:
        objects = prob.shape[1]
        planes = torch.stack([prob[0], prob[0].sum(dim=0) - prob[0]], dim=1)  # (O, 2, H, W)
        maps = _trunk(self.model.value_encoder.trunk, torch.cat([_each(frame, objects), planes], dim=1))[2]
        fused = _fusion(self.model.value_encoder.fusion, torch.cat([maps, _each(features.f16, objects)], 1))
        return fused[None]

    def remember(self, key: Tensor, values: Tensor) -> None:
        """Add a memory frame.

        key: (Ck, h, w).
        values: (O, Cv, h, w).
        """
        self.keys.append(key.flatten(1))
        self.values.append(values.flatten(2))

    def ready(self) -> None:
        self.keys, self.values = [torch.cat(self.keys, dim=1)], [torch.cat(self.values, dim=2)]

    def read(self, key: Tensor) -> Tensor:
        out = reference_method(key.flatten(1), self.keys[0], self.values[0], 20)
        return out.unflatten(2, key.shape[1:])

    def decode(self, readout: Tensor, features: Features) -> Tensor:
        decoder, objects = self.model.decoder, readout.shape[1]
        x = _res_block(decoder.compress, torch.cat([readout[0], _each(features.context, objects)], dim=1))
        x = _up_block(decoder.up8, x, _each(features.f8, objects))
        x = _up_block(decoder.up4, x, _each(features.f4, objects))
        logits = _conv(decoder.pred, x.relu())
        logits = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return logits.transpose(0, 1)


class OurMethod:
    """The steps of a session for one frame, in the dtype of the model's weights."""

    def __init__(self, model: STCN, policy: MemoryPolicy, shortcuts: Shortcuts) -> None:
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.bank = MemoryBank(policy)
        self.shortcuts = shortcuts
        self.cells: Tensor | None = None  # cells decoded in the last frame

    def key(self, frame: Tensor) -> Features:
        return self.model.encode_key(frame.to(self.dtype))

    def value(self, frame: Tensor, features: Features, prob: Tensor) -> Tensor:
        encode = partial(encode_near, self.model) if self.shortcuts.encode_near else self.model.encode_value
        values = encode(frame.to(self.dtype), features, prob.to(self.dtype))
        if not self.shortcuts.decode_near:
            return values
        return torch.cat([values, coverage(prob[0])[None].to(self.dtype)], dim=2)

    def remember(self, key: Tensor, values: Tensor) -> None:
        self.bank.add(key.float(), values.to(self.dtype))

    def read(self, key: Tensor) -> Tensor:
        return self.bank.read(key.float(), len(self.bank))

    def decode(self, readout: Tensor, features: Features) -> Tensor:
        if self.shortcuts.decode_near:
            readout, covered = readout[:, :, :-1], readout[:, :, -1]
            self.cells = cells_near(covered[0])[None]
        return self.model.decode(readout, features, self.cells).float()


def measure(
    objects: int,
    memory_frames: int,
    dtypes: Sequence[torch.dtype],
    height: int,
    width: int,
    repeats: int,
    *,
    near: bool = False,
    backend: Backend = "auto",
    compile: bool = False,
) -> dict[str, Any]:
    """Milliseconds of each stage and of a frame by each method, ratios, and the share of different labels.

    A frame counts as one key, one readout, one decoding, and a fifth of a value. Times are medians.

    near: whether to add our method with shortcuts. Its share of decoded cells is shown instead of labels,
        since random weights see objects everywhere.
    backend: backend of our readout.
    compile: whether to compile our key encoder.
    """
    model = random_model()
    frames, probs = _clip(objects, height, width)
    methods: dict[str, Any] = {"reference": ReferenceMethod(model)}
    for dtype in dtypes:
        ours, policy = copy.deepcopy(model).to(dtype), MemoryPolicy(max_frames=memory_frames, backend=backend)
        ours = compiled(ours) if compile else ours
        for suffix, shortcuts in _SHORTCUTS.items() if near else [("", Shortcuts())]:
            methods[str(dtype).removeprefix("torch.") + suffix] = OurMethod(ours, policy, shortcuts)
    row: dict[str, Any] = {"objects": objects, "memory_frames": memory_frames}
    with torch.inference_mode():
        for method in methods.values():
            _fill_memory(method, frames, probs, memory_frames)
        methods["reference"].ready()
        labels: dict[str, Tensor] = {}
        features: dict[str, Features] = {}
        readouts: dict[str, Tensor] = {}
        times: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in methods}
        for turn in range(repeats + 1):  # turn 0 is a warm-up
            for stage in STAGES:
                for name, method in methods.items():
                    run = _stage(method, stage, frames[-1], probs[-1], features.get(name), readouts.get(name))
                    start = time.perf_counter()
                    out = run()
                    if turn:
                        times[name][stage].append(1000 * (time.perf_counter() - start))
                    if stage == "key":
                        features[name] = out
                    elif stage == "read":
                        readouts[name] = out
                    elif stage == "decode":
                        labels[name] = aggregate(out[0].sigmoid()).argmax(dim=0)
    for name in methods:
        stages = {stage: median(taken) for stage, taken in times[name].items()}
        row[name] = stages | {"frame": sum(stages.values()) - 0.8 * stages["value"]}
        if name != "reference":
            row[name]["ratio"] = row["reference"]["frame"] / row[name]["frame"]
            if (cells := methods[name].cells) is None:
                row[name]["differ"] = (labels[name] != labels["reference"]).double().mean().item()
            else:
                row[name]["decoded"] = cells.double().mean().item()
    row["covered"] = probs[-1].sum(dim=1).mean().item()  # fraction of the frame covered by objects
    row["foreground"] = (labels["reference"] > 0).double().mean().item()
    return row


def random_model(seed: int = 0) -> STCN:
    """`stcn` with random weights scaled to pass signals on, so that masks are neither empty nor full."""
    model, generator = STCN(PRESETS["stcn"]).eval(), torch.Generator().manual_seed(seed)
    for name, x in model.state_dict().items():
        if not x.is_floating_point():
            continue
        drawn = torch.randn(x.shape, generator=generator)
        if x.ndim >= 2:
            drawn *= (2 / x[0].numel()) ** 0.5 * _GAINS.get(name, 1.0)
        elif name.endswith(("running_mean", "bias")):
            drawn *= 0.05
        else:  # scales and variances
            drawn = 0.5 + 0.5 * torch.rand(x.shape, generator=generator)
        x.copy_(drawn)
    with torch.no_grad():
        model.state_dict()["value_encoder.trunk.conv1.weight"][:, 3:] *= 20  # masks matter
    return model


def _clip(objects: int, height: int, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Frames (1, 3, H, W) as expected by the network, and probabilities (1, O, H, W)."""
    clip, masks = synthetic_clip(_ENCODED + 1, (height, width))
    frames = [pad_to_stride(normalize(to_frame(frame))[None])[0] for frame in clip]
    ids = (3, 2, 1)[:objects]
    planes = [pad_to_stride(one_hot(torch.from_numpy(mask), ids))[0] for mask in masks]
    return frames, [aggregate(plane)[None, 1:] for plane in planes]


def _fill_memory(method: Any, frames: list[Tensor], probs: list[Tensor], memory_frames: int) -> None:
    encoded = []
    for frame, prob in zip(frames[:_ENCODED], probs, strict=False):
        features = method.key(frame)
        encoded.append((features.key[0], method.value(frame, features, prob)[0]))
    noise = torch.Generator().manual_seed(0)
    for i in range(memory_frames):
        key, values = (x.float() for x in encoded[i % _ENCODED])
        if i >= _ENCODED:
            key = key + 0.3 * key.std() * torch.randn(key.shape, generator=noise)
        method.remember(key, values)


def _stage(
    method: Any, stage: str, frame: Tensor, prob: Tensor, features: Any, readout: Any
) -> Callable[[], Any]:
    return {
        "key": lambda: method.key(frame),
        "read": lambda: method.read(features.key[0]),
        "decode": lambda: method.decode(readout[None], features),
        "value": lambda: method.value(frame, features, prob),
    }[stage]


def _each(x: Tensor, objects: int) -> Tensor:
    """x (1, C, h, w) repeated for each object: (O, C, h, w)."""
    return x.repeat(objects, 1, 1, 1)


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)


def _trunk(trunk: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert isinstance(trunk, ResNetTrunk)
    f4 = trunk.layer1(trunk.maxpool(trunk.bn1(_conv(trunk.conv1, x)).relu()))
    f8 = trunk.layer2(f4)
    return f4, f8, trunk.layer3(f8)


def _res_block(block: ResBlock, x: Tensor) -> Tensor:
    skip = _conv(block.skip, x) if isinstance(block.skip, nn.Conv2d) else x
    return skip + _conv(block.conv2, _conv(block.conv1, x.relu()).relu())


def _up_block(block: UpBlock, x: Tensor, skip: Tensor) -> Tensor:
    x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return _res_block(block.block, x + _conv(block.skip_conv, skip))


def _fusion(fusion: FeatureFusion, x: Tensor) -> Tensor:
    x = _res_block(fusion.block1, x)
    return _res_block(fusion.block2, x + _cbam(fusion.cbam, x))


def _cbam(cbam: CBAM, x: Tensor) -> Tensor:
    gate = cbam.mlp(x.mean(dim=(2, 3))) + cbam.mlp(x.amax(dim=(2, 3)))
    x = x * gate.sigmoid()[:, :, None, None]
    pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
    return x * _conv(cbam.spatial, pooled).sigmoid()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/reference.py", description=__doc__)
    parser.add_argument(
        "--loads", nargs="+", default=["1x10", "3x20"], metavar="OxT",
        help="numbers of objects, at most 3, and of memory frames (1x10 3x20)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"], help="(both)"
    )
    parser.add_argument("--near", action="store_true", help="ours with shortcuts too")
    parser.add_argument("--backend", choices=get_args(Backend), default="auto", help="of our readout (auto)")
    parser.add_argument("--compile", action="store_true", help="our key encoder")
    parser.add_argument("--height", type=int, default=480, help="of frames, in pixels (480)")
    parser.add_argument("--width", type=int, default=864, help="(864)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs after a warm-up (5)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    loads = []
    for load in args.loads:
        if not (found := re.fullmatch(r"([1-3])x([1-9]\d*)", load)):
            parser.error(f"--loads takes objects (1 to 3) and memory frames like 3x20, not {load!r}")
        loads.append((int(found[1]), int(found[2])))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    machine = describe(torch.device("cpu"))
    print(f"{machine}; {args.height}x{args.width}, medians of {args.repeats}\n")
    columns = ["objects", "memory frames", "method", *(f"{stage}, ms" for stage in STAGES), "frame, ms"]
    columns += ["ratio", "labels that differ", "cells decoded"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    rows = []
    for objects, frames in loads:
        dtypes = [getattr(torch, name) for name in args.dtype]
        row = measure(
            objects,
            frames,
            dtypes,
            args.height,
            args.width,
            args.repeats,
            near=args.near,
            backend=args.backend,
            compile=args.compile,
        )
        rows.append(row)
        for name in (name for name, part in row.items() if isinstance(part, dict)):
            figures = [f"{row[name][stage]:.0f}" for stage in (*STAGES, "frame")]
            shares = ["", "", ""]
            if name != "reference":
                shares[0] = f"{row[name]['ratio']:.2f}"
            if "differ" in row[name]:
                shares[1] = f"{row[name]['differ']:.1e}"
            if "decoded" in row[name]:
                shares[2] = f"{row[name]['decoded']:.0%}"
            print("| " + " | ".join([str(objects), str(frames), name, *figures, *shares]) + " |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
