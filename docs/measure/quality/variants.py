"""A small version of the paper's comparison of attention.

    python docs/measure/quality/variants.py --data DIR --score CLIPS --out DIR

Trains the seven variants of attention on the small trunk with the stage `mini`, once per seed, and scores
them on clips excluded from training. Repeat the command to continue a stopped run; finished runs are not
scored again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from emavos.benchmark.cost import gflop, parameters
from emavos.benchmark.stages import measure
from emavos.data import Clips
from emavos.models import PRESETS, STCN
from emavos.training import STAGES, TrainConfig, start_from_imagenet, train
from emavos.training.validation import validate

VARIANTS = (
    "stcn-tiny-none",
    "stcn-tiny-self-key",
    "stcn-tiny-self-value",
    "stcn-tiny-self-both",
    "stcn-tiny-external-key",
    "stcn-tiny-external-value",
    "stcn-tiny",
)


def train_and_score(data: Path, clips: Clips, out: Path, config: TrainConfig) -> dict[str, float]:
    """J&F by clip of a run; the run is trained or continued if `out` has no scores yet."""
    done = out / "scores.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text())
        if TrainConfig.from_json(json.dumps(found["config"])) == config:
            return found["scores"]
        raise ValueError(f"{out} holds the scores of another recipe; choose another --out, or delete it")
    model = train(start_from_imagenet(config.preset, config.seed), data, out, config)
    scores = validate(model, [clips])
    done.write_text(json.dumps({"config": json.loads(config.to_json()), "scores": scores}, indent=2) + "\n")
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/quality/variants.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="has static/ and clips/")
    parser.add_argument(
        "--score",
        type=Path,
        required=True,
        metavar="DIR",
        help="clips to score: JPEGImages/ and Annotations/",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="(all seven)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--iterations", type=int, help="in place of the stage's, its schedule in proportion")
    parser.add_argument("--size", type=int, help="side of the clips, in place of the stage's")
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="measured runs of the times, after one more (5)"
    )
    parser.add_argument("--height", type=int, default=480, help="of frames whose cost is measured (480)")
    parser.add_argument("--width", type=int, default=854, help="(854)")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    config = STAGES["mini"]
    if args.iterations is not None:
        config = _shortened(config, args.iterations)
    if args.size is not None:
        config = replace(config, size=args.size)
    clips = Clips(args.score)
    rows: dict[str, dict[str, Any]] = {name: {"J&F": []} for name in args.variants}
    for seed in range(args.seeds):  # all variants of one seed before the next seed, for an early table
        for name in args.variants:
            begun = time.perf_counter()
            scores = train_and_score(
                args.data, clips, args.out / f"{name}-{seed}", replace(config, preset=name, seed=seed)
            )
            rows[name]["J&F"].append(mean(scores.values()))
            score = f"{rows[name]['J&F'][-1]:.3f}, {(time.perf_counter() - begun) / 60:.1f} min"
            print(f"{name}, seed {seed}: {score}", flush=True)
    for name, row in rows.items():
        row["parameters"] = parameters(STCN(PRESETS[name]))
        row["GFLOP"] = gflop(PRESETS[name], args.height, args.width)["frame"]
        timing = measure(name, height=args.height, width=args.width, repeats=args.repeats)
        row["ms"] = 1000 / timing.stages_fps
    print()
    print(table(rows))
    (args.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The comparison in Markdown; the spread is the standard deviation over seeds."""
    lines = [
        "| model | J&F | ± | seeds | parameters, M | GFLOP a frame | ms a frame |",
        "| --- |" + " --- |" * 6,
    ]
    for name, row in rows.items():
        scores = row["J&F"]
        spread = f"{stdev(scores):.3f}" if len(scores) > 1 else "-"
        lines.append(
            f"| {name} | {mean(scores):.3f} | {spread} | {len(scores)} | {row['parameters'] / 1e6:.2f} "
            f"| {row['GFLOP']:.2f} | {row['ms']:.0f} |"
        )
    return "\n".join(lines)


def _shortened(config: TrainConfig, iterations: int) -> TrainConfig:
    share = iterations / config.iterations
    return replace(
        config,
        iterations=iterations,
        decay_from=int(share * config.decay_from),
        warmup=int(share * config.warmup),
        all_pixels_until=int(share * config.all_pixels_until),
        hardest_from=int(share * config.hardest_from),
    )


if __name__ == "__main__":
    main()
