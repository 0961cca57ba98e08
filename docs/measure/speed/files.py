"""Measure the benefit of reading and writing in threads: `python docs/measure/speed/files.py`.

Tracks a drawn clip from JPEGs to PNGs of masks in three ways, in turn: reading, stepping and writing in
sequence; reading and writing in threads; and resizing frames in a thread too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from emavos.demo import synthetic_clip
from emavos.io import IdMask, behind, list_images, read_frame, write_mask
from emavos.machine import describe
from emavos.predictor import Predictor


def measure(
    predictor: Predictor, frames: int, height: int, width: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Seconds and CPU seconds of each way, medians."""
    ways: dict[str, Callable[..., None]] = {
        "in turn": _in_turn,
        "read and written beside": partial(_in_threads, False),
        "resized beside too": partial(_in_threads, True),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with TemporaryDirectory() as place:
        folder, out = Path(place, "frames"), Path(place, "masks")
        folder.mkdir()
        out.mkdir()
        clip, masks = synthetic_clip(frames, (height, width))
        for i, frame in enumerate(clip):
            Image.fromarray(frame).save(folder / f"{i:05d}.jpg", quality=95)
        for turn in range(repeats + 1):
            for name, way in ways.items():
                start, cpu = time.perf_counter(), time.process_time()
                way(predictor, folder, masks[0], out)
                if turn:  # turn 0 is a warm-up
                    times[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return {
        name: dict(zip(("seconds", "cpu"), map(median, zip(*taken, strict=True)), strict=True))
        for name, taken in times.items()
    }


def _in_turn(predictor: Predictor, folder: Path, mask: IdMask, out: Path) -> None:
    session = predictor.session()
    for i, path in enumerate(list_images(folder)):
        result = session.step(read_frame(path), None if i else mask)
        write_mask(out / f"{i:05d}.png", result.mask)


def _in_threads(resize: bool, predictor: Predictor, folder: Path, mask: IdMask, out: Path) -> None:
    with behind() as later:
        for result in predictor.with_settings(resize_ahead=resize).propagate(folder, mask):
            later(write_mask, out / f"{result.index:05d}.png", result.mask)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/files.py", description=__doc__)
    parser.add_argument("--frames", type=int, default=24, help="of the clip (24)")
    parser.add_argument("--height", type=int, default=1080, help="of its frames, in pixels (1080)")
    parser.add_argument("--width", type=int, default=1920, help="(1920)")
    parser.add_argument("--size", type=int, default=480, help="short side of the working frames (480)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs after a warm-up (3)")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    predictor = Predictor.from_pretrained(device=args.device, size=args.size)
    rows = measure(predictor, args.frames, args.height, args.width, args.repeats)
    machine = describe(predictor.device)
    print(f"{machine}; {args.frames} frames of {args.height}x{args.width}, medians of {args.repeats}\n")
    print("| files | seconds | CPU seconds | frames a second |\n| --- | --- | --- | --- |")
    for name, row in rows.items():
        rate = args.frames / row["seconds"]
        print(f"| {name} | {row['seconds']:.2f} | {row['cpu']:.2f} | {rate:.2f} |")
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine, "ways": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
