"""Measure what int8 would gain and lose: `python docs/measure/speed/int8.py [--data DATA/clips]`.

The gain: CPU time of single convolutions of onnxruntime in float32 and int8, in turn on one thread, in the
shapes of the embedded model at 480x864. The loss, with --data: J and F of the embedded model on clips with
every convolution's input and weights rounded to 8 bits, as static quantisation does: inputs by one scale,
from the range on other clips, and weights by one scale per output channel. Sums stay float32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode

from emavos.evaluation import score_sequence
from emavos.io import IdMask, Pixels, list_images, read_frame, read_mask
from emavos.machine import describe
from emavos.predictor import Predictor

# name, channels in and out, side of the kernel, groups, height and width
Shape = tuple[str, int, int, int, int, int, int]
SHAPES: Sequence[Shape] = (
    ("3x3, 64 to 64, stride 4", 64, 64, 3, 1, 120, 216),
    ("1x1, 96 to 24, stride 4", 96, 24, 1, 1, 120, 216),
    ("depthwise 3x3, 144, stride 4", 144, 144, 3, 144, 120, 216),
    ("3x3, 128 to 128, stride 16", 128, 128, 3, 1, 30, 54),
    ("1x1, 480 to 80, stride 16", 480, 80, 1, 1, 30, 54),
)
Ranges = dict[tuple[Any, ...], tuple[float, float]]  # of the inputs of each convolution


def gain(shape: Shape, repeats: int) -> tuple[float, float]:
    """Milliseconds of CPU time of a convolution in float32 and in int8."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime import quantization

    _, given, made, side, groups, height, width = shape
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((made, given // groups, side, side)).astype(np.float32)
    x = rng.standard_normal((1, given, height, width)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[side // 2] * 4, group=groups),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, height, width])]
        for name, channels in (("x", given), ("y", made))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    class Inputs(quantization.CalibrationDataReader):  # type: ignore[misc]
        rows = iter([{"x": x}])

        def get_next(self) -> Any:
            return next(self.rows, None)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("float.onnx", "int8.onnx")]
        onnx.save(model, str(paths[0]))
        quantization.quantize_static(
            *paths,
            Inputs(),
            per_channel=True,
            reduce_range=True,  # without it, sums of products overflow where the processor has no VNNI
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        sessions = [_session(path) for path in paths]
    times: list[list[float]] = [[], []]
    for _ in range(2 + repeats):
        for session, own in zip(sessions, times, strict=True):
            begin = time.process_time()
            session.run(None, {"x": x})
            own.append(1000 * (time.process_time() - begin))
    first, second = (median(own[2:]) for own in times)
    return first, second


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Int8(TorchFunctionMode):
    """Rounds the inputs and the weights of all convolutions to 8 bits.

    ranges: of the inputs; extended in place if `calibrate`, and then nothing is rounded.
    """

    def __init__(self, ranges: Ranges, calibrate: bool = False) -> None:
        super().__init__()
        self.ranges, self.calibrate = ranges, calibrate

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "conv2d":
            x, weight, *rest = args
            key = (*weight.shape, round(float(weight.abs().sum()), 3))
            low, high = self.ranges.get(key, (0.0, 0.0))
            if self.calibrate:
                self.ranges[key] = (min(low, float(x.min())), max(high, float(x.max())))
            else:
                args = (rounded_inputs(x, low, high), rounded_weights(weight), *rest)
        return func(*args, **(kwargs or {}))


def rounded_inputs(x: Tensor, low: float, high: float) -> Tensor:
    """The nearest of 256 numbers from low to high, one of them 0."""
    step = max(high - low, 1e-8) / 255
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def rounded_weights(weight: Tensor) -> Tensor:
    """The nearest of 255 numbers around 0, for each output channel."""
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    return (weight / step).round() * step


def losses(
    predictor: Predictor, data: Path, clips: Sequence[str], others: Sequence[str], frames: int
) -> Iterator[tuple[str, str, float, float]]:
    """Clip, type, J and F of each clip in float32 and in int8. Objects count as one.

    others: clips that the ranges are taken from, six frames of each.
    """
    ranges: Ranges = {}
    for name in others:
        _track(predictor, _read(data, name, 6), Int8(ranges, calibrate=True))
    for name in clips:
        clip = _read(data, name, frames)
        for kind in ("float32", "int8"):
            masks = _track(predictor, clip, None if kind == "float32" else Int8(ranges))
            score = score_sequence([mask for _, mask in clip], masks)[1]
            yield name, kind, score.J.mean, score.F.mean


def _track(predictor: Predictor, clip: Sequence[tuple[Pixels, IdMask]], mode: Int8 | None) -> list[IdMask]:
    session, masks = predictor.session(), []
    for index, (frame, mask) in enumerate(clip):
        with torch.inference_mode(), mode or torch.no_grad():
            masks.append(session.step(frame, mask if index == 0 else None).mask)
    return masks


def _read(data: Path, name: str, frames: int, height: int = 240) -> list[tuple[Pixels, IdMask]]:
    """The first frames of a clip with their masks, at a height of 240 pixels."""
    clip = []
    for path in list_images(data / "JPEGImages" / "480p" / name)[:frames]:
        frame = Image.fromarray(read_frame(path))
        mask = read_mask(data / "Annotations" / "480p" / name / f"{path.stem}.png") > 0
        size = round(frame.width * height / frame.height), height
        small = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        clip.append((np.asarray(frame.resize(size, Image.Resampling.BILINEAR)), np.asarray(small)))
    return clip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/int8.py", description=__doc__)
    parser.add_argument("--repeats", type=int, default=13, help="of each convolution (13)")
    parser.add_argument("--data", type=Path, help="a folder of clips as DAVIS, for the loss")
    parser.add_argument("--clips", nargs="+", default=["breakdance-flare", "horsejump-low", "mallard-water"])
    parser.add_argument("--others", nargs="+", default=["bear", "bus"], help="for the ranges (bear bus)")
    parser.add_argument("--frames", type=int, default=20, help="of each clip (20)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(describe(torch.device("cpu")))
    print("| convolution | float32, ms | int8, ms | times as fast |\n| --- | --- | --- | --- |")
    for shape in SHAPES:
        before, after = gain(shape, args.repeats)
        print(f"| {shape[0]} | {before:.1f} | {after:.1f} | {before / after:.2f} |", flush=True)
    if args.data is not None:
        print("\n| clip | type | J | F |\n| --- | --- | --- | --- |")
        predictor = Predictor.from_pretrained(device="cpu", size=240)
        for name, kind, j, f in losses(predictor, args.data, args.clips, args.others, args.frames):
            print(f"| {name} | {kind} | {j:.4f} | {f:.4f} |", flush=True)


if __name__ == "__main__":
    main()
