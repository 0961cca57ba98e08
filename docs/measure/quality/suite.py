"""The held-out suite of 30 clips, used to choose checkpoints and designs within minutes.

    python docs/measure/quality/suite.py --data TRAIN --model A [--model B ...] --out FOLDER

TRAIN has `clips` and `more/clips`. The suite's clips are made once in FOLDER/clips (or --cache) and reused.
FOLDER/suite.txt is the printed report: J&F by clip, by group and over all clips with a bootstrap interval,
the softness of each model's affinity and the quality of its matching. Further models are compared with the
first, clip by clip. FOLDER/suite.json has the same numbers. `--against` compares with the first model in the
suite.json of an earlier run. `--dtype float32 bfloat16` scores each model in both. `--locality both` scores
each model without and with `Settings.locality`. `--every 4` uses every fourth frame, as in a video of few
frames per second.

Models judged by the suite must be trained without the clips of `HELD_OUT`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from math import pi, sin
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

import drawn
from composites import compose, frames_of, paste
from emavos import Predictor
from emavos.data import Clips
from emavos.evaluation import score_sequence
from emavos.io import IdMask, Pixels, list_images, read_frame, read_mask, write_mask
from emavos.io.whole import partial_folder
from matching import Matching, matching

VERSION = 1  # version of the clips; scores of different versions cannot be compared
STEPS = 24  # frames after a clip's first, but in `long`; J and F count from the second to the last but one
SIZE = 384  # short side in pixels of the clips and of the working frames
SPEEDUP = 3  # long clips use at most every third frame

Frames = Iterator[tuple[Pixels, IdMask]]

DAVIS = ("breakdance-flare", "drift-turn", "horsejump-low", "mallard-water")
REAL: Mapping[str, tuple[str, ...]] = {
    "single": (*DAVIS, "segtrack_girl", "ucsd_birds_0048", "ucsd_surfers_0000", "sbi_IBMtest2_0050"),
    "multi": ("davis17_schoolgirls", "spbstu_table", "ytvos_003234408d", "ucsd_birds_0000"),
}
DRAWN: Mapping[
    str, Mapping[str, tuple[Callable[[Pixels, int], Frames], str]]
] = {  # the clip behind the object
    "lookalikes": {
        "drawn-fish": (drawn.fish_crossing, "mallard-water"),
        "drawn-balls": (drawn.balls_circling, "drift-turn"),
    },
    "thin": {
        "drawn-bicycle": (drawn.bicycle, "breakdance-flare"),
        "drawn-walkers": (drawn.walkers, "horsejump-low"),
    },
    "return": {"drawn-return": (drawn.fish_returning, "mallard-water")},
}
GROUPS = ("single", "multi", "pairs", "twins", "lookalikes", "thin", "return", "long")

SUITE_CLIPS = (*REAL["single"], *REAL["multi"])  # clips of the training data used by the suite
HELD_OUT = (*SUITE_CLIPS, "sbi_IBMtest2_0002")  # plus other parts of the same videos


@dataclass(frozen=True)
class ClipScore:
    """Means over the objects of a clip, tracked from their first masks."""

    group: str
    objects: int
    J: float
    F: float
    JF: float


@dataclass(frozen=True)
class ModelScore:
    """All results of one model."""

    model: str
    clips: dict[str, ClipScore]
    matching: dict[str, Matching]
    seconds: float  # CPU seconds

    @property
    def JF(self) -> float:
        """The mean over all clips."""
        return fmean(clip.JF for clip in self.clips.values())

    def groups(self) -> dict[str, float]:
        """Mean J&F of each group."""
        names = dict.fromkeys(clip.group for clip in self.clips.values())
        return {name: fmean(clip.JF for clip in self.clips.values() if clip.group == name) for name in names}


def make_clips(data: Path, cache: Path, groups: Sequence[str] = GROUPS) -> dict[str, str]:
    """Make the missing clips of the groups in `cache`, as JPEGImages/CLIP and Annotations/CLIP.

    data: training data with `clips` and `more/clips`.
    cache: folder for the clips.
    groups: groups of clips to make.

    Returns the group of each clip. Raises ValueError if `cache` has clips of another version,
    FileNotFoundError if a source clip is missing in `data`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    stamp = cache / "version.txt"
    if stamp.exists() and stamp.read_text().strip() != str(VERSION):
        raise ValueError(
            f"{cache} holds clips of version {stamp.read_text().strip()}, not {VERSION}; delete it"
        )
    stamp.write_text(f"{VERSION}\n")
    clips = {name: (group, make) for group in groups for name, make in _makers(data, cache, group).items()}
    for name, (_, make) in clips.items():
        write_clip(cache, name, make)
    return {name: group for name, (group, _) in clips.items()}


def write_clip(cache: Path, name: str, make: Callable[[], Frames]) -> None:
    """Write a clip, unless `cache` already has the clip. An interrupted clip is written again."""
    if (cache / "Annotations" / name).is_dir():
        return
    for kind in ("JPEGImages", "Annotations"):
        (cache / kind).mkdir(parents=True, exist_ok=True)
    with (
        partial_folder(cache / "JPEGImages", name) as images,
        partial_folder(cache / "Annotations", name) as masks,
    ):
        for i, (pixels, ids) in enumerate(make()):
            Image.fromarray(pixels).save(images / f"{i:05d}.jpg", quality=95, subsampling=0)
            write_mask(masks / f"{i:05d}.png", ids)
        if not (cache / "JPEGImages" / name).is_dir():
            images.rename(cache / "JPEGImages" / name)
        masks.rename(cache / "Annotations" / name)  # last, since masks mark a complete clip


def score_clip(predictor: Predictor, cache: Path, name: str, group: str, every: int = 1) -> ClipScore:
    """Track the objects of a clip from its first mask, and score each object.

    every: frames of the clip for each frame that is tracked.
    """
    frames, truth = (x[::every] for x in read_clip(cache, name))
    pred = (result.mask for result in predictor.propagate(frames, truth[0]))
    scores = score_sequence(truth, pred).values()
    J, F = fmean(score.J.mean for score in scores), fmean(score.F.mean for score in scores)
    return ClipScore(group, len(scores), J, F, (J + F) / 2)


def score_model(
    name: str,
    cache: Path,
    clips: Mapping[str, str],
    device: str = "cpu",
    dtype: str = "float32",
    locality: bool | None = None,
    every: int = 1,
) -> ModelScore:
    """Score a model on clips.

    name: name or folder of the model, see `Predictor.from_pretrained`.
    cache: folder of the clips.
    clips: group of each clip.
    device, dtype: as for `Predictor.from_pretrained`. The name of the score ends in a dtype but float32.
    locality: as for `Settings`.
    every: as for `score_clip`. Clips with fewer than three of these frames are left out.
    """
    predictor = Predictor.from_pretrained(name, device=device, dtype=dtype, size=SIZE)
    predictor = predictor.with_settings(locality=locality)
    start = time.process_time()
    called = name if predictor.dtype == torch.float32 else f"{name} {dtype}"
    called += {None: "", False: " anywhere", True: " near"}[locality]
    scores = {}
    for clip, group in clips.items():
        if len(list_images(cache / "JPEGImages" / clip)[::every]) < 3:
            continue
        scores[clip] = score_clip(predictor, cache, clip, group, every)
        print(f"{called}: {clip} {scores[clip].JF:.3f}", file=sys.stderr, flush=True)
    network, matches = predictor.network, [clip for clip in DAVIS if clip in clips]
    keys = {clip: matching(network, *read_clip(cache, clip), size=SIZE) for clip in matches}
    return ModelScore(called, scores, keys, time.process_time() - start)


def read_score(path: Path, clips: Mapping[str, str]) -> ModelScore:
    """The results of the first model in an earlier run's suite.json, for these clips.

    Raises ValueError if the file is of another version, or lacks a clip.
    """
    found = json.loads(path.read_text())[0]
    if found["version"] != VERSION:
        raise ValueError(f"{path} is of version {found['version']} of the clips, not {VERSION}; run it again")
    if missing := sorted(set(clips) - set(found["clips"])):
        raise ValueError(f"{path} lacks {missing[0]}; run it on the same groups")
    return ModelScore(
        found["model"],
        {name: ClipScore(**found["clips"][name]) for name in clips},
        {name: Matching(**one) for name, one in found["matching"].items() if name in clips},
        found["seconds"],
    )


def bootstrap(values: Sequence[float], rounds: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of the values."""
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(np.asarray(values)[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def difference(one: ModelScore, other: ModelScore) -> tuple[float, float, float]:
    """The gain in J&F from `one` to `other`: mean over clips and 95 % interval."""
    gains = [other.clips[name].JF - clip.JF for name, clip in one.clips.items()]
    return fmean(gains), *bootstrap(gains)


def table(scores: Sequence[ModelScore]) -> str:
    """The printed report."""
    first = scores[0]
    heads = "".join(f"{_short(score.model):>16}" for score in scores)
    lines = [f"{'J&F':34}{heads}"]
    for name, clip in first.clips.items():
        row = "".join(f"{score.clips[name].JF:16.3f}" for score in scores)
        lines.append(f"{name:34}{row}   {clip.group}, {clip.objects} obj")
    lines.append("")
    for group in first.groups():
        lines.append(f"{group:34}" + "".join(f"{score.groups()[group]:16.3f}" for score in scores))
    lines.append(f"{f'all {len(first.clips)} clips':34}" + "".join(f"{score.JF:16.4f}" for score in scores))
    for score in scores:
        low, high = bootstrap([clip.JF for clip in score.clips.values()])
        lines.append(f"{score.model}: {score.JF:.4f}, 95 % interval over clips {low:.3f} to {high:.3f}")
        lines += [f"  {_soft(score.matching)}"] if score.matching else []
        lines.append(f"  {score.seconds:.0f} s of CPU")
    for score in scores[1:]:
        mean, low, high = difference(first, score)
        verdict = "decided" if low > 0 or high < 0 else "not decided"
        lines.append(
            f"{score.model} minus {first.model}: {mean:+.4f}, "
            f"95 % interval {low:+.4f} to {high:+.4f}: {verdict}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="TRAIN", help="clips/ and more/clips/")
    parser.add_argument("--model", action="append", required=True, help="a name or a folder; may be repeated")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="of suite.txt and suite.json"
    )
    parser.add_argument("--cache", type=Path, metavar="CLIPS", help="where the clips are made (OUT/clips)")
    parser.add_argument("--against", type=Path, metavar="FILE", help="suite.json of a model to compare with")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16", "auto"],
        help="each model is scored in each of these (float32)",
    )  # fmt: skip
    parser.add_argument(
        "--locality", default="model", choices=["model", "both"],
        help="as each model has it, or each model without (anywhere) and with it (near) (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every Nth frame (1)")
    parser.add_argument("--groups", metavar="A,B", default=",".join(GROUPS), help="(%(default)s)")
    args = parser.parse_args(argv)
    groups = args.groups.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        parser.error(f"unknown groups: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if args.threads:
        torch.set_num_threads(args.threads)
    cache = args.cache or args.out / "clips"
    try:
        clips = make_clips(args.data, cache, groups)
        before = [] if args.against is None else [read_score(args.against, clips)]
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    scores = before + [
        score_model(name, cache, clips, args.device, dtype, locality, args.every)
        for name in args.model
        for dtype in args.dtype
        for locality in ((None,) if args.locality == "model" else (False, True))
    ]
    text = table(scores)
    print(text)
    (args.out / "suite.txt").write_text(text + "\n")
    (args.out / "suite.json").write_text(json.dumps(_json(scores), indent=1) + "\n")


def read_clip(root: Path, name: str) -> tuple[list[Pixels], list[IdMask]]:
    """The frames and masks of a clip made by `make_clips`."""
    frames = [read_frame(path) for path in list_images(root / "JPEGImages" / name)]
    return frames, [read_mask(path) for path in list_images(root / "Annotations" / name)]


def _makers(data: Path, cache: Path, group: str) -> Mapping[str, Callable[[], Frames]]:
    """A function for each clip of a group, to make the clip."""
    if group in REAL:
        return {name: partial(_real, data, name) for name in REAL[group]}
    if group == "long":  # errors that grow with the memory show only after many frames
        return {f"{name}-whole": partial(_whole, data, name) for name in DAVIS}
    if group in ("pairs", "twins"):
        others = (*DAVIS[1:], DAVIS[0])
        pairs = {
            f"{a}-with-{b}": partial(_pair, data, cache, a, b) for a, b in zip(DAVIS, others, strict=True)
        }
        twins = {f"{name}-twin": partial(_twin, data, cache, name) for name in DAVIS}
        return pairs if group == "pairs" else twins
    makers: dict[str, Callable[[], Frames]] = {}
    if group == "return":
        makers["mallard-leaves"] = partial(_leaving, data, cache, "breakdance-flare", "mallard-water")
    for name, (draw, ground) in DRAWN[group].items():
        makers[name] = partial(_drawn, data, cache, draw, ground)
    return makers


def _real(data: Path, name: str) -> Frames:
    """Up to STEPS + 1 frames of a clip."""
    root = data / "clips" if name in DAVIS else data / "more" / "clips"
    clips = Clips(root, only=[name])
    step = min(SPEEDUP, -(-clips.length(0) // (STEPS + 1)))
    return _of_first_mask(clips, clips.frames(0)[::step][: STEPS + 1])


def _whole(data: Path, name: str) -> Frames:
    """Every frame of a clip."""
    clips = Clips(data / "clips", only=[name])
    return _of_first_mask(clips, clips.frames(0))


def _of_first_mask(clips: Clips, images: Sequence[Path]) -> Frames:
    """These frames, with the objects of the first one's mask renumbered from 1.

    Objects below a thousandth of the first frame become background, as a sliver is no fair start.
    """
    numbers: dict[int, int] = {}
    for index, image in enumerate(images):
        pixels, ids = read_frame(image), read_mask(clips.mask_of(image))
        if index == 0:
            there = zip(*np.unique(ids, return_counts=True), strict=True)
            big = [int(id) for id, area in there if id and area >= ids.size / 1000]
            numbers = {id: number for number, id in enumerate(big, start=1)}
        yield _shrunk(pixels, _renumbered(ids, numbers))


def _pair(data: Path, cache: Path, lower: str, upper: str) -> Frames:
    frames = _source(data, cache, lower)
    return compose(_to_and_fro(frames), _to_and_fro(_source(data, cache, upper)), frames.length(0))


def _twin(data: Path, cache: Path, name: str) -> Frames:
    frames = _source(data, cache, name)
    mirrored = ((np.ascontiguousarray(p[:, ::-1]), m[:, ::-1]) for p, m in _to_and_fro(frames))
    return compose(_to_and_fro(frames), mirrored, frames.length(0))


def _leaving(data: Path, cache: Path, lower: str, upper: str) -> Frames:
    """The upper clip's object leaves the frame to the right in the first half, and returns in the second."""
    frames = _source(data, cache, lower)
    both = zip(_to_and_fro(frames), _to_and_fro(_source(data, cache, upper)), strict=False)
    length = frames.length(0)
    for i, (below, above) in enumerate(islice(both, length)):
        yield paste(below, above, round(0.9 * below[1].shape[1] * sin(pi * i / (length - 1))))


def _drawn(data: Path, cache: Path, draw: Callable[[Pixels, int], Frames], ground: str) -> Frames:
    clips = _source(data, cache, ground)
    return draw(read_frame(clips.frames(0)[0]), STEPS + 1)


def _source(data: Path, cache: Path, name: str) -> Clips:
    """A real clip from the cache, as material for composed clips."""
    write_clip(cache, name, partial(_real, data, name))
    return Clips(cache, only=[name])


def _to_and_fro(clips: Clips) -> Frames:
    return frames_of(clips, 0)


def _renumbered(ids: IdMask, numbers: Mapping[int, int]) -> IdMask:
    out = np.zeros_like(ids)
    for id, number in numbers.items():
        out[ids == id] = number
    return out


def _shrunk(pixels: Pixels, ids: IdMask) -> tuple[Pixels, IdMask]:
    """A frame and its mask, reduced to a short side of SIZE if larger."""
    height, width = ids.shape
    scale = SIZE / min(height, width)
    if scale >= 1:
        return pixels, ids
    size = (round(width * scale), round(height * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    mask = Image.fromarray(ids.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.array(small), np.array(mask).astype(np.int32)


def _short(model: str) -> str:
    return Path(model).name[-15:]


def _means(clips: Mapping[str, Matching]) -> dict[str, float]:
    rows = [asdict(one) for one in clips.values()]
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


def _soft(clips: Mapping[str, Matching]) -> str:
    mean = _means(clips)
    return (
        f"matching J of keys {mean['cells']:.3f} by cells, {mean['pixels']:.3f} by pixels; best weight "
        f"{mean['best']:.4f}, effective cells {mean['effective']:.2f}, 1st - 2nd {mean['gap']:.2f} logits, "
        f"|k| {mean['norm']:.1f}"
    )


def _json(scores: Sequence[ModelScore]) -> list[dict[str, object]]:
    return [
        {
            **asdict(score),
            "JF": score.JF,
            "interval": bootstrap([clip.JF for clip in score.clips.values()]),
            "groups": score.groups(),
            "matching_mean": _means(score.matching),
            "minus_first": difference(scores[0], score),
            "version": VERSION,
        }
        for score in scores
    ]


if __name__ == "__main__":
    main()
