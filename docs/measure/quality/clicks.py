"""How well clicks give a mask: NoC@80/85/90, and the intersection over union after 1, 3 and 5 clicks.

Clicks are simulated as RITM does (Sofiiuk et al., 2021): each at the pixel farthest from the border of what
is most wrong, 20 at most. If an object never reaches an overlap, it counts as 20.

    python docs/measure/quality/clicks.py --stills DATA/train --videos DATA/val

--stills measures on the stills that training sets apart; --videos on the first frame of each sequence.
Beside the click head: a disk of fixed radius around each positive click, as a baseline.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emavos import Predictor
from emavos.clicks import Clicked, SeenFrame
from emavos.clicks.simulate import next_click
from emavos.data import Clips, StaticImages
from emavos.training.clicks import StillsApart
from emavos.weights import load_clicks, load_model

MOST = 20
Pair = tuple[str, Tensor, Tensor]  # name, picture (3, H, W) uint8, truth (H, W) of bool


def overlaps(
    click: Callable[[list[tuple[float, float]], list[int], Clicked | None], Clicked],
    truth: Tensor,
    most: int = MOST,
) -> tuple[list[float], list[float]]:
    """Intersection over union after each of `most` clicks, and the scores of the head."""
    mask, last = torch.zeros_like(truth), None
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    found: list[float] = []
    scores: list[float] = []
    for _ in range(most):
        where = next_click(mask, truth)
        if where is None:  # nothing is wrong any more
            found.append(1.0)
            scores.append(scores[-1])
            continue
        points.append((where[0] - 0.5, where[1] - 0.5))
        labels.append(where[2])
        last = click(points, labels, last)
        mask = torch.from_numpy(last.mask)
        found.append(((mask & truth).sum() / (mask | truth).sum()).item())
        scores.append(last.score)
    return found, scores


def clicks_needed(found: list[float], wanted: float) -> int:
    """Number of clicks to an overlap; the number of all clicks if the overlap was not reached."""
    return next((i for i, x in enumerate(found, 1) if x >= wanted), len(found))


def disks(radius: float, size: tuple[int, int]) -> Callable[..., Clicked]:
    """The baseline: a disk around each positive click, without those around negative ones."""
    y, x = torch.arange(size[0]).view(-1, 1), torch.arange(size[1])

    def click(points: list[tuple[float, float]], labels: list[int], last: Clicked | None) -> Clicked:
        prob = torch.zeros(size)
        for (px, py), label in zip(points, labels, strict=True):
            prob[(x - px).square() + (y - py).square() <= radius**2] = float(label)
        return Clicked(prob, 0.0)

    return click


def stills(root: Path, most: int) -> Iterator[Pair]:
    """Each object of the stills that are set apart, if it is not tiny."""
    sets = [StillsApart(root / name, measured=True) for name in ("static", "more/static")]
    pairs: list[tuple[StaticImages, int]] = [(part, i) for part in sets for i in range(len(part))]
    for part, i in pairs[:: max(len(pairs) // most, 1)][:most]:
        picture, ids = part[i]
        largest = ids.flatten().bincount()[1:].argmax() + 1
        yield part.masks[i].stem, picture, ids == largest


def first_frames(root: Path) -> Iterator[Pair]:
    clips = Clips(root)
    for video, name in enumerate(clips.names):
        picture, ids = clips.load(video, 0)
        yield name, picture, ids > 0


def clicks_on(seen: SeenFrame) -> Callable[..., Clicked]:
    """The head, which gets its last answer back with each click."""
    return lambda points, labels, last: seen.click(points, labels, mask=last)


def measure(
    predictor: Predictor, pairs: Iterator[Pair], radius: float | None, most: int = MOST
) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for name, picture, truth in pairs:
        if radius is not None:
            height, width = truth.shape
            rows[name] = overlaps(disks(radius, (height, width)), truth, most)[0]
            continue
        rows[name], scores = overlaps(clicks_on(predictor.look(picture)), truth, most)
        print(name, *(f"{x:.3f}" for x in rows[name][:5]), f"score {scores[2]:.3f}", flush=True)
    return rows


def table(rows: dict[str, list[float]]) -> dict[str, float]:
    every = list(rows.values())
    line = {
        f"NoC@{int(100 * w)}": float(np.mean([clicks_needed(x, w) for x in every])) for w in (0.8, 0.85, 0.9)
    }
    return line | {
        f"IoU@{k}": float(np.mean([x[k - 1] for x in every])) for k in (1, 3, 5) if k <= len(every[0])
    }


def speed(predictor: Predictor, picture: Tensor) -> tuple[float, float]:
    """Seconds to look at a frame, and of a click on it: medians of five."""
    looks, clicks = [], []
    for i in range(6):
        began = time.perf_counter()
        seen = predictor.look(picture)
        looked = time.perf_counter()
        seen.click([(400 + i, 200), (30, 30)], [1, 0])
        looks.append(looked - began)
        clicks.append(time.perf_counter() - looked)
    return float(np.median(looks[1:])), float(np.median(clicks[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None, help="tiny (default), base or a folder")
    parser.add_argument("--clicks", type=Path, help="a head in place of the model's, a safetensors file")
    parser.add_argument("--stills", type=Path, help="folder of training data, with static/ and more/static/")
    parser.add_argument("--videos", type=Path, help="folder of JPEGImages/ and Annotations/")
    parser.add_argument("--count", type=int, default=200, help="stills at most (200)")
    parser.add_argument("--most", type=int, default=MOST, help="clicks on each object at most (20)")
    parser.add_argument("--radius", type=float, help="measure disks of this radius, and no model")
    parser.add_argument("--out", type=Path, help="a JSON file for all numbers")
    args = parser.parse_args()
    model = load_model(args.model)
    predictor = Predictor(model, clicks=load_clicks(model, args.clicks or args.model))
    everything = {}
    sets = {}
    if args.stills is not None:
        sets["stills"] = stills(args.stills, args.count)
    if args.videos is not None:
        sets["first frames"] = first_frames(args.videos)
    for name, pairs in sets.items():
        everything[name] = rows = measure(predictor, pairs, args.radius, args.most)
        print(f"{name} ({len(rows)}):", *(f"{key} {x:.3f}" for key, x in table(rows).items()))
    if args.videos is not None and args.radius is None:
        looked, clicked = speed(predictor, next(first_frames(args.videos))[1])
        print(f"look {looked:.3f} s, click {clicked:.3f} s, {torch.get_num_threads()} threads")
    if args.out is not None:
        args.out.write_text(json.dumps(everything))


if __name__ == "__main__":
    main()
