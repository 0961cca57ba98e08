"""Track a video with only onnxruntime and NumPy: `python examples/onnx_stream.py [GRAPHS] [--size H]`.

`Stream` needs neither torch nor emavos, so you can copy the class into your own code. GRAPHS is a folder
written by `emavos export onnx`; if you leave GRAPHS out, the example exports the graphs first. You see the
frames per second of the stream and of `Predictor`, and how many pixels of their masks agree.
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
    """Tracks the objects of the first frame; `step` returns the mask (H, W) of ids for each frame.

    Frames are uint8 (H, W, 3), all of one size, and are not resized. Resize large frames before `step`.
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
            raise ValueError(f"this stream does not support {lacking[0]}; export with a policy without it")
        if self.memory["eviction"] not in ("oldest", "least-used"):
            raise ValueError(f"this stream cannot {self.memory['eviction']}; export with another eviction")
        self.mean, self.std = np.float32(manifest["mean"]), np.float32(manifest["std"])
        self.ids = np.zeros(1, np.int32)
        self.slots: list[tuple[int, Array, Array]] = []  # index, keys (h * w, Ck), values (h * w, O, Cv)
        self.used = np.zeros(0)  # readout weight of each memory frame since it was stored
        self.seen = LastSeen() if manifest["config"]["locality"] else None
        self.index = 0

    def step(self, frame: Array, mask: Array | None = None) -> Array:
        """The mask (H, W) of the next frame. mask: (H, W) of ids, only for the first frame."""
        pixels = self.pad(((frame / np.float32(255) - self.mean) / self.std).transpose(2, 0, 1))[None]
        key, context, f16, f8, f4 = self.run("encode_key", frame=pixels)
        if mask is not None:
            self.ids = np.append(0, np.unique(mask[mask != 0])).astype(np.int32)
            prob = aggregate(self.pad(mask == self.ids[1:, None, None]).astype(np.float32))
        else:
            readout = self.read(key[0])[None]
            (logits,) = self.run("decode", readout=readout, context=context, f8=f8, f4=f4)
            logits = logits[0].astype(np.float32)
            if self.seen is not None:
                logits -= self.seen.penalty()
            prob = aggregate(1 / (1 + np.exp(-logits)))
        if self.seen is not None:
            self.seen.update(prob[1:])
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
            goes = 1 if oldest else 1 + int(np.argmin((self.used / ages)[1:]))  # frame 0 has the user's mask
            del self.slots[goes]
            self.used = np.delete(self.used, goes)
        rows = value.reshape(*value.shape[:2], -1).transpose(2, 0, 1)
        cells = key.reshape(len(key), -1).T
        self.slots.append((self.index, cells.astype(np.float32), rows.astype(np.float32)))
        self.used = np.append(self.used, 0)

    def read(self, key: Array) -> Array:
        """For each cell of the frame, the softmax-weighted values of the most similar memory cells."""
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
        """Pad (C, H, W) with zeros up to multiples of the stride."""
        sides = [divmod(-n % self.stride, 2) for n in x.shape[1:]]
        return np.pad(x, [(0, 0), *((half, half + odd) for half, odd in sides)])

    def crop(self, x: Array, shape: tuple[int, ...]) -> Array:
        """Undo `pad`: (C, H', W') becomes (C, H, W)."""
        top, left = (-n % self.stride // 2 for n in shape[:2])
        return x[:, top : top + shape[0], left : left + shape[1]]


class LastSeen:
    """Where each object was last seen, and how much less likely it is far from there.

    The same as `emavos.session.memory`, for objects that all start in the first frame.
    """

    def update(self, prob: Array, stride: int = 16) -> None:
        """After a frame. prob: (O, H', W') of the objects."""
        objects, height, width = prob.shape
        blocks = prob.reshape(objects, height // stride, stride, width // stride, stride)
        shown = blocks.max((2, 4)) > 0.5  # (O, h, w)
        seen = shown.any((1, 2))
        if not hasattr(self, "cells"):  # the first frame
            self.cells, self.absent = shown, np.zeros(objects)
            self.speed = np.full(objects, np.inf)  # not known before the second mask
            return
        cells = np.where(seen[:, None, None], shown, self.cells)
        step = np.linalg.norm(centroids(cells) - centroids(self.cells), axis=1) / max(cells.shape[1:])
        speed = np.where(np.isinf(self.speed), step, np.maximum(0.8 * self.speed, step))
        placed = ~self.cells.all((1, 2))  # an object that filled the frame has moved an unknown way
        self.speed = np.where(seen & placed, speed, self.speed)
        self.cells, self.absent = cells, np.where(seen, 0, self.absent + 1)

    def penalty(self, stride: int = 16) -> Array:
        """What to subtract from the logits: (O, H', W'), from 0 to 4."""
        _, height, width = self.cells.shape
        rows = lowest(np.where(self.cells, 0, np.inf))  # squared distances, first along the rows
        distance = np.sqrt(lowest(rows.swapaxes(1, 2)).swapaxes(1, 2))
        free = 0.05 + 2 * self.speed + 0.1 * self.absent
        penalty = (20 * (distance / max(height, width) - free[:, None, None])).clip(0, 4)
        return (hats(height, stride) @ penalty @ hats(width, stride).T).astype(np.float32)


def centroids(cells: Array) -> Array:
    """The mean row and column of the true cells: (O, h, w) -> (O, 2)."""
    return np.array([np.argwhere(own).mean(0) if own.any() else (0, 0) for own in cells])


def lowest(squares: Array) -> Array:
    """The least of (x - y)^2 + squares[..., y] over all y: (..., n) -> (..., n)."""
    x = np.arange(squares.shape[-1])
    return ((x[:, None] - x) ** 2 + squares[..., None, :]).min(-1)


def hats(cells: int, stride: int) -> Array:
    """A matrix (cells * stride, cells) that interpolates linearly between the centers of cells."""
    at = ((np.arange(cells * stride) + 0.5) / stride - 0.5).clip(0, cells - 1)
    return (1 - np.abs(at[:, None] - np.arange(cells))).clip(0)


def aggregate(prob: Array) -> Array:
    """Combine separate probabilities (O, H, W) into a distribution (1 + O, H, W), background first."""
    every = np.concatenate([(1 - prob).prod(0, keepdims=True), prob]).clip(1e-7, 1 - 1e-7)
    odds = every / (1 - every)
    return odds / odds.sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", type=Path, nargs="?", help="folder written by `emavos export onnx`")
    parser.add_argument("--frames", type=int, default=12, help="frames in the clip (12)")
    parser.add_argument("--size", type=int, default=120, help="height of the frames (120)")
    parser.add_argument("--threads", type=int, default=1, help="threads for both (1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args.graphs or export(Path(folder)), args.frames, args.size, args.threads)


def export(folder: Path) -> Path:
    from emavos.export import export_onnx
    from emavos.weights import load_model

    export_onnx(load_model(), folder)
    return folder


def compare(graphs: Path, frames: int, height: int, threads: int) -> None:
    """Track the drawn clip with both; print the speed of each, and how many pixels agree."""
    import torch

    from emavos import Predictor
    from emavos.demo import synthetic_clip

    torch.set_num_threads(threads)
    video, truth = synthetic_clip(frames=frames, size=(height, height * 16 // 9))
    session, stream = Predictor.from_pretrained(device="cpu", size=None).session(), Stream(graphs, threads)
    masks: dict[str, list[Array]] = {}
    for name, step in {"torch": lambda *x: session.step(*x).mask, "onnxruntime": stream.step}.items():
        step(video[0], truth[0])  # the first frame warms up
        start = time.perf_counter()
        masks[name] = [step(frame) for frame in video[1:]]
        seconds = time.perf_counter() - start
        print(f"{name}: {(frames - 1) / seconds:.2f} frames per second of {height}x{height * 16 // 9}")
    same = np.mean([(a == b).mean() for a, b in zip(*masks.values(), strict=True)])
    print(f"{100 * same:.3f} % of all pixels have the same id")
    assert same > 0.999


if __name__ == "__main__":
    main()
