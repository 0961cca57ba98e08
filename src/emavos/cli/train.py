"""`emavos train`: a stage of training."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from emavos.cli.arguments import Commands, whole


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model on still images and clips",
        description="Run a stage of training; the same command goes on with a run that was stopped.",
    )
    parser.set_defaults(run=_train)
    parser.add_argument("--stage", required=True, metavar="NAME", help="tiny-1 or tiny-2")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="has static/ and clips/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--init", metavar="NAME|DIR", help="model to start from (ImageNet trunks; extra: train)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)"
    )
    parser.add_argument("--iterations", type=whole(1), metavar="N", help="stop early (the stage's)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _train(args: argparse.Namespace) -> None:
    import torch

    from emavos.predictor import choose_device
    from emavos.pretrained import load_model, save_model
    from emavos.training import STAGES, Progress, start_from_imagenet, train

    if args.stage not in STAGES:
        raise ValueError(f"there is no stage {args.stage}; the stages are {', '.join(STAGES)}")
    config = STAGES[args.stage]
    model = start_from_imagenet(config.preset, config.seed) if args.init is None else load_model(args.init)

    def report(progress: Progress) -> None:
        if not args.quiet and (progress.iteration + 1) % 20 == 0:
            print(
                f"{progress.iteration + 1}/{config.iterations}  loss {progress.loss:.3f}  "
                f"overlap {progress.overlap:.3f}  {progress.seconds:.2f} s",
                file=sys.stderr,
                flush=True,
            )

    model = train(
        model.to(choose_device(args.device)), args.data, args.out, config, stop=args.iterations, report=report
    )
    save_model(model, args.out / "model", dtype=torch.float16)
    if not args.quiet:
        print(f"the model is in {args.out / 'model'}")
