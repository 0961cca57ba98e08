"""Draw the figures of the docs: `python docs/figures/draw.py [--out docs/images] [NAME ...]`.

All figures are computed from drawn clips and the embedded model; equal versions of torch give equal pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emavos import MemoryPolicy, Predictor
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.io import IdMask, Pixels, write_image
from emavos.memory import Kind, MemoryBank
from emavos.visualize import INK, PAPER, comparison_grid, overlay
from emavos.weights import load_model

SEA, SAND, CORAL, WATER = (38, 96, 138), (214, 188, 120), (230, 92, 92), (226, 236, 242)
Clip = tuple[list[Pixels], list[IdMask]]


def hero() -> Pixels:
    """A video, its one given mask, and the result."""
    frames, truth = synthetic_clip(frames=48)
    results = Predictor.from_pretrained(device="cpu", size=360).propagate(frames, truth[0])
    masks = [result.mask for result in results]
    given = overlay(frames[0] // 3 + 140, truth[0], alpha=0.8)
    found = [given, *(overlay(frames[i], masks[i], alpha=0.6) for i in (16, 32, 47))]
    columns = ["frame 0: its mask is given", "frame 16", "frame 32", "frame 47"]
    return comparison_grid([[frames[i] for i in (0, 16, 32, 47)], found], ["video", "masks"], columns)


def walk() -> Pixels:
    """The path of a frame: query, memory, readout, decoder and, every few frames, a new memory frame."""
    image, draw, write = _paper(1200, 430)
    boxes = {
        "frame": (20, 60, "frame\n(3, H, W)", WATER),
        "key": (200, 60, "encode_key\nkey (Ck, h, w)", SAND),
        "read": (440, 60, "topk_readout\n(O, Cv, h, w)", CORAL),
        "decode": (690, 60, "decode\nlogits (O, H, W)", SAND),
        "aggregate": (940, 60, "aggregate\nprob (1 + O, H, W)", WATER),
        "bank": (440, 270, "MemoryBank\nkeys (N, Ck)\nvalues (N, O, Cv)", SEA),
        "value": (815, 270, "encode_value\n(O, Cv, h, w)", SAND),
    }
    for x, y, text, colour in boxes.values():
        height = 110 if text.count("\n") == 2 else 90
        draw.rounded_rectangle((x, y, x + (140 if x == 20 else 200), y + height), 12, colour, INK, 2)
        ink = (255, 255, 255) if colour in (SEA, CORAL) else INK
        write((x + (70 if x == 20 else 100), y + height / 2), text, ink)
    for start, end in [
        ((160, 105), (200, 105)),
        ((400, 105), (440, 105)),
        ((640, 105), (690, 105)),
        ((890, 105), (940, 105)),
    ]:
        _arrow(draw, [start, end])
    _arrow(draw, [(540, 270), (540, 150)])
    _arrow(draw, [(1040, 150), (1040, 315), (1015, 315)])
    _arrow(draw, [(815, 325), (640, 325)])
    _arrow(draw, [(300, 150), (300, 345), (440, 345)])
    _arrow(draw, [(300, 60), (300, 25), (790, 25), (790, 60)])
    write((545, 12), "context and skips", INK)
    write((728, 350), "every few frames", INK)
    write((345, 365), "key", INK)
    return np.array(image)


def affinity() -> Pixels:
    """The cells of the first frame matched by a cell of a later frame: one cell per object."""
    import torch

    from emavos.frames import normalize, to_frame

    frames, truth = synthetic_clip(frames=7, size=(288, 512))
    model = load_model()
    with torch.no_grad():
        keys = [model.encode_key(normalize(to_frame(frames[i]))[None]).key[0] for i in (0, 6)]
    memory_key, query = (key.flatten(1) for key in keys)
    similarity = (2 * memory_key.T @ query - memory_key.square().sum(0)[:, None]) / len(query) ** 0.5
    rows = []
    for id in (1, 2, 3):
        ys, xs = np.nonzero(truth[6] == id)
        y, x = int(np.median(ys)) // 16, int(np.median(xs)) // 16
        column = similarity[:, y * keys[1].shape[2] + x]
        top, index = column.topk(model.config.top_k)
        weights = torch.zeros_like(column).scatter(0, index, top.softmax(0))
        heat = weights.view(keys[0].shape[1:]).numpy()
        rows.append([_marked(frames[6], y, x), _heated(frames[0], heat / heat.max())])
    columns = list(zip(*rows, strict=True))
    return comparison_grid(columns, ["asks", "reads from"], ["starfish", "ball", "fish"])


def bank() -> Pixels:
    """The frames in a memory bank as a video plays, with a limit of six for clarity."""
    import torch

    image, draw, write = _paper(1200, 330)
    policy = MemoryPolicy(every=5, max_frames=6, eviction="oldest")
    held, memorized = MemoryBank(policy), 0
    for now in range(64):
        given = now in (0, 37)
        if given or now - memorized >= policy.every:  # like Session
            kind: Kind = "given" if given else "kept"
            held.add(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1, 1), kind, now)
            memorized = now
        if now % 9:
            continue
        kinds = {frame: kind for kind, frame in held.state()[1]}
        colours = {"given": CORAL, "kept": SEA}
        y = 40 + now // 9 * 35
        write((60, y), f"frame {now}", INK)
        for frame in range(now + 1):
            x = 130 + frame * 16
            draw.rectangle((x, y - 10, x + 12, y + 10), colours.get(kinds.get(frame, ""), WATER))
    legend = "red: given, never evicted     blue: kept, the oldest goes     pale: seen, not held"
    write((258, 315), legend, INK, "lm")
    return np.array(image)


def failures() -> Pixels:
    """Three drawn clips on which the embedded model fails at their own size, each beside the ground truth.

    Prints the mean J, also for larger working sizes.
    """
    rows = []
    clips = {"thin lines": _thin(), "twins that cross": _twins(), "very small": _small()}
    for name, (frames, truth) in clips.items():
        found = {}
        for size in (240, 480, 720):
            predictor = Predictor.from_pretrained(device="cpu", size=size)
            found[size] = [result.mask for result in predictor.propagate(frames, truth[0])]
            pairs = zip(found[size][1:], truth[1:], strict=True)
            score = np.mean([region_similarity(m == 1, t == 1) for m, t in pairs])
            print(f"{name}, size {size}: mean J {score:.2f}")
        masks = found[240]
        last = len(frames) - 1
        pictures = [overlay(frames[i], masks[i], alpha=0.6) for i in (0, last // 2, last)]
        rows.append([*pictures, overlay(frames[last], truth[last], alpha=0.6)])
    return comparison_grid(rows, list(clips), ["given", "midway", "last", "last, as it should be"])


def _thin() -> Clip:
    """A turning frame of thin lines, like a kite or a bicycle."""

    def draw(canvas: ImageDraw.ImageDraw, fill: object, t: int) -> None:
        x, y, angle = 80 + 14 * t, 120, 0.12 * t
        ends = [(x + 60 * np.cos(angle + k * 2.1), y + 60 * np.sin(angle + k * 2.1)) for k in range(3)]
        for a, b in zip(ends, ends[1:] + ends[:1], strict=True):
            canvas.line((a, b), fill, 2)
        canvas.ellipse((x - 14, y - 14, x + 14, y + 14), fill)

    return _clip(10, [(draw, (40, 60, 190))])


def _twins() -> Clip:
    """Two discs of one colour that cross; only the first is tracked."""

    def first(canvas: ImageDraw.ImageDraw, fill: object, t: int) -> None:
        _disc(canvas, fill, 60 + 14 * t, 110)

    def second(canvas: ImageDraw.ImageDraw, fill: object, t: int) -> None:
        _disc(canvas, fill, 390 - 14 * t, 118)

    frames, truth = _clip(24, [(first, (210, 120, 40)), (second, (210, 120, 40))])
    return frames, [np.where(mask == 1, 1, 0).astype(np.int32) for mask in truth]


def _small() -> Clip:
    """A ball of a few pixels."""

    def ball(canvas: ImageDraw.ImageDraw, fill: object, t: int) -> None:
        x, y = 60 + 20 * t, 60 + 8 * abs(8 - t)
        canvas.ellipse((x - 3, y - 3, x + 3, y + 3), fill)

    return _clip(16, [(ball, (240, 230, 60))])


Draw = Callable[[ImageDraw.ImageDraw, object, int], None]


def _disc(canvas: ImageDraw.ImageDraw, fill: object, x: float, y: float, radius: int = 34) -> None:
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill)  # type: ignore[arg-type]


def _clip(frames: int, things: list[tuple[Draw, tuple[int, int, int]]]) -> Clip:
    """Objects over a textured ground of 240x448, with ids from 1."""
    random = np.random.default_rng(0)
    gray = random.integers(0, 60, (8, 15, 1), dtype=np.uint8)
    coarse = Image.fromarray(gray + np.uint8([90, 110, 100]))
    ground = coarse.resize((448, 240), Image.Resampling.BICUBIC)
    video, truth = [], []
    for t in range(frames):
        picture, mask = ground.copy(), Image.new("L", ground.size)
        for id, (draw, colour) in enumerate(things, 1):
            draw(ImageDraw.Draw(picture), colour, t)
            draw(ImageDraw.Draw(mask), id, t)
        noise = random.normal(0, 3, (*mask.size[::-1], 3))
        video.append((np.array(picture) + noise).clip(0, 255).astype(np.uint8))
        truth.append(np.array(mask, np.int32))
    return video, truth


def _marked(frame: Pixels, y: int, x: int) -> Pixels:
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).rectangle(
        (16 * x - 2, 16 * y - 2, 16 * x + 17, 16 * y + 17), outline=CORAL, width=4
    )
    return np.array(image)


def _heated(frame: Pixels, heat: NDArray[np.float32]) -> Pixels:
    height, width = frame.shape[:2]
    wide = Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR)
    share = np.clip(np.array(wide), 0, 1)[..., None] ** 0.5
    return np.rint((1 - share) * (frame // 2 + 40) + share * np.array(CORAL)).astype(np.uint8)


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, Callable[..., None]]:
    image = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(17)

    def write(at: tuple[float, float], text: str, ink: tuple[int, int, int], anchor: str = "mm") -> None:
        if "\n" in text:
            draw.multiline_text(at, text, ink, font, anchor=anchor, align="center")
        else:
            draw.text(at, text, ink, font, anchor=anchor)

    return image, draw, write


def _arrow(draw: ImageDraw.ImageDraw, points: list[tuple[int, int]]) -> None:
    draw.line(points, INK, 3, joint="curve")
    (x0, y0), (x, y) = points[-2:]
    dx, dy = int(np.sign(x - x0)), int(np.sign(y - y0))
    draw.polygon(
        [(x, y), (x - 11 * dx - 6 * dy, y - 11 * dy - 6 * dx), (x - 11 * dx + 6 * dy, y - 11 * dy + 6 * dx)],
        INK,
    )


FIGURES: dict[str, Callable[[], Pixels]] = {
    "hero": hero,
    "walk": walk,
    "affinity": affinity,
    "bank": bank,
    "failures": failures,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FIGURES)} (all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "images")
    args = parser.parse_args()
    for name in args.names or FIGURES:
        write_image(args.out / f"{name}.png", FIGURES[name]())
        print(args.out / f"{name}.png")


if __name__ == "__main__":
    main()
