"""A whole stream with onnxruntime and NumPy alone: `python examples/onnx_stream.py [GRAPHS] [--size H]`.

`Stream` needs neither torch nor emavos: copy it. GRAPHS is a folder that `emavos export onnx` wrote; without
it one is made. The masks are compared with those of `Predictor`, and the frames per second of both are shown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Array = np.ndarray[Any, Any]


class Stream:
    """Follows the objects of the first frame; `step` gives the mask (H, W) of ids of each frame.

    Frames are (H, W, 3) of uint8, all of one size. The network gets them as they are: resize them first.
    """

    def __init__(self, graphs: Path, threads: int = 0) -> None:
        manifest = json.loads((graphs / "manifest.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: all cores
        options.log_severity_level = 3
        self.networks = {
            name: onnxruntime.InferenceSession(graphs / graph["file"], options)
            for name, graph in manifest["graphs"].items()
        }
        self.dtype = np.dtype(manifest["dtype"])
        self.stride, self.memory = manifest["stride"], manifest["memory"]
        if lacking := [k for k in ("include_last", "max_cells") if self.memory[k]]:
            raise ValueError(f"this stream knows no {lacking[0]}; export graphs with a policy without it")
        if self.memory["eviction"] not in ("oldest", "least-used"):
            raise ValueError(f"this stream does not {self.memory['eviction']}; export with another eviction")
        self.mean, self.std = np.float32(manifest["mean"]), np.float32(manifest["std"])
        self.ids = np.zeros(1, np.int32)
        self.slots: list[tuple[int, Array, Array]] = []  # index, keys (h * w, Ck), values (h * w, O, Cv)
        self.used = np.zeros(0)  # what each frame of the memory gave to all readouts since it came
        self.index = 0

    def step(self, frame: Array, mask: Array | None = None) -> Array:
        """The mask of the next frame. mask: (H, W) of ids, of the first frame."""
        pixels = self.pad(((frame / np.float32(255) - self.mean) / self.std).transpose(2, 0, 1))[None]
        key, context, f16, f8, f4 = self.run("encode_key", frame=pixels)
        if mask is not None:
            self.ids = np.append(0, np.unique(mask[mask != 0])).astype(np.int32)
            prob = aggregate(self.pad(mask == self.ids[1:, None, None]).astype(np.float32))
        else:
            readout = self.read(key[0])[None]
            (logits,) = self.run("decode", readout=readout, context=context, f8=f8, f4=f4)
            prob = aggregate(1 / (1 + np.exp(-logits[0].astype(np.float32))))
        if self.index % self.memory["every"] == 0:
            (value,) = self.run("encode_value", frame=pixels, f16=f16, prob=prob[None, 1:])
            self.remember(key[0], value[0])
        self.index += 1
        return self.ids[self.crop(prob, frame.shape).argmax(0)]

    def run(self, name: str, **inputs: Array) -> list[Array]:
        return self.networks[name].run(None, {key: x.astype(self.dtype) for key, x in inputs.items()})

    def remember(self, key: Array, value: Array) -> None:
        bound = self.memory["max_frames"]
        if bound is not None and len(self.slots) >= max(bound, 2):
            ages = [max(self.index - frame, 1) for frame, _, _ in self.slots]
            oldest = self.memory["eviction"] == "oldest"
            goes = 1 if oldest else 1 + int(np.argmin((self.used / ages)[1:]))  # 0 was given
            del self.slots[goes]
            self.used = np.delete(self.used, goes)
        rows = value.reshape(*value.shape[:2], -1).transpose(2, 0, 1)
        cells = key.reshape(len(key), -1).T
        self.slots.append((self.index, cells.astype(np.float32), rows.astype(np.float32)))
        self.used = np.append(self.used, 0)

    def read(self, key: Array) -> Array:
        """The values of the cells most alike each cell of the frame, by the softmax of their similarities."""
        query = key.reshape(len(key), -1).astype(np.float32)  # (Ck, P)
        keys = np.concatenate([slot[1] for slot in self.slots])  # (N, Ck)
        values = np.concatenate([slot[2] for slot in self.slots])  # (N, O, Cv)
        similarity = (2 * keys @ query - np.square(keys).sum(1, keepdims=True)).T / len(key) ** 0.5  # (P, N)
        k = min(self.memory["top_k"], len(keys))
        index = np.argpartition(similarity, -k)[:, -k:]  # (P, k)
        top = np.take_along_axis(similarity, index, 1)
        weights = np.exp(top - top.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        self.used += np.bincount(index.ravel() // query.shape[1], weights.ravel(), len(self.slots))
        rows = values.reshape(len(values), -1)
        readout = np.stack([w @ rows[i] for w, i in zip(weights, index, strict=True)], 1)  # (O * Cv, P)
        return readout.reshape(*values.shape[1:], *key.shape[1:])

    def pad(self, x: Array) -> Array:
        """Zeros around (C, H, W) up to multiples of the stride."""
        sides = [divmod(-n % self.stride, 2) for n in x.shape[1:]]
        return np.pad(x, [(0, 0), *((half, half + odd) for half, odd in sides)])

    def crop(self, x: Array, shape: tuple[int, ...]) -> Array:
        """(C, H', W') without what `pad` put around (H, W)."""
        top, left = (-n % self.stride // 2 for n in shape[:2])
        return x[:, top : top + shape[0], left : left + shape[1]]


def aggregate(prob: Array) -> Array:
    """Each object's own probability (O, H, W) as one distribution (1 + O, H, W), background first."""
    every = np.concatenate([(1 - prob).prod(0, keepdims=True), prob]).clip(1e-7, 1 - 1e-7)
    odds = every / (1 - every)
    return odds / odds.sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", type=Path, nargs="?", help="folder of `emavos export onnx`")
    parser.add_argument("--frames", type=int, default=12, help="of the clip (12)")
    parser.add_argument("--size", type=int, default=120, help="height of its frames (120)")
    parser.add_argument("--threads", type=int, default=1, help="of both (1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args.graphs or export(Path(folder)), args.frames, args.size, args.threads)


def export(folder: Path) -> Path:
    from emavos.export import export_onnx
    from emavos.weights import load_model

    export_onnx(load_model(), folder)
    return folder


def compare(graphs: Path, frames: int, height: int, threads: int) -> None:
    """Follow the synthetic clip with both, and show how fast they are and how often they agree."""
    import torch

    from emavos import Predictor
    from emavos.demo import synthetic_clip

    torch.set_num_threads(threads)
    video, truth = synthetic_clip(frames=frames, size=(height, height * 16 // 9))
    session, stream = Predictor.from_pretrained(device="cpu", size=None).session(), Stream(graphs, threads)
    masks: dict[str, list[Array]] = {}
    for name, step in {"torch": lambda *x: session.step(*x).mask, "onnxruntime": stream.step}.items():
        step(video[0], truth[0])  # the first frame, which warms up
        start = time.perf_counter()
        masks[name] = [step(frame) for frame in video[1:]]
        seconds = time.perf_counter() - start
        print(f"{name}: {(frames - 1) / seconds:.2f} frames per second of {height}x{height * 16 // 9}")
    same = np.mean([(a == b).mean() for a, b in zip(*masks.values(), strict=True)])
    print(f"{100 * same:.3f} % of all pixels have the same id")
    assert same > 0.999


if __name__ == "__main__":
    main()
