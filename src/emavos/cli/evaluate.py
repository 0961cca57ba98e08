"""`emavos evaluate`: a DAVIS-like data set, segmented and scored."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from emavos.cli.arguments import Commands, add_memory_arguments, add_model_arguments, load_predictor, policy
from emavos.cli.follow import follow
from emavos.cli.staging import staged


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="segment a DAVIS-like data set and score it",
        description="Follow the objects of the first ground truth of each sequence of a DAVIS-like tree, "
        "write the masks, and print J and F. Sequences that are there already are only scored.",
    )
    parser.set_defaults(run=_evaluate)
    parser.add_argument("data", type=Path, metavar="DIR", help="has JPEGImages/480p and Annotations/480p")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the masks")
    parser.add_argument("--split", metavar="NAME", help="a list of DIR/ImageSets, such as 2017/val (all)")
    parser.add_argument(
        "--binary", action="store_true", help="all that is not 0, 255 too, is one object (DAVIS 2016)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _evaluate(args: argparse.Namespace) -> None:
    import numpy as np

    from emavos.evaluation import VOID, evaluate_davis, list_sequences
    from emavos.io import list_images, open_frames, read_mask, write_mask

    images, truths = (args.data / name / "480p" for name in ("JPEGImages", "Annotations"))
    for path in (images, truths):
        if path.resolve() in (args.out.resolve(), *args.out.resolve().parents):
            raise ValueError(f"--out {args.out} is inside the data; choose another folder")
    predictor = None
    for sequence in list_sequences(args.data, args.split):
        frames = open_frames(images / sequence)
        if all((args.out / sequence / f"{frames.name(i)}.png").exists() for i in range(frames.count or 0)):
            continue
        path = list_images(truths / sequence)[0]
        begin = frames.find(path.stem)
        if begin is None:
            raise ValueError(f"{path} is named as no frame of {images / sequence}")
        first = read_mask(path)
        first = (first != 0).astype(np.int32) if args.binary else np.where(first == VOID, 0, first)
        if not first.any():
            raise ValueError(f"{path} has no object; where 255 is not void but the object, use --binary")
        predictor = predictor or load_predictor(args, **policy(args))
        with staged(args.out / sequence, force=True) as folder:
            for _, result in follow(predictor, frames, {begin: first}, args.quiet):
                write_mask(folder / f"{frames.name(result.index)}.png", result.mask)
    score = evaluate_davis(args.data, args.out, args.split, binary=args.binary)
    print(f"{'sequence':24} {'object':>6} {'J':>6} {'F':>6} {'J&F':>6}")
    for sequence, objects in score.sequences.items():
        for id, one in objects.items():
            j, f = one.J.mean, one.F.mean
            print(f"{sequence:24} {id:6} {j:6.3f} {f:6.3f} {(j + f) / 2:6.3f}")
    print(f"{'mean over objects':24} {'':6} {score.J.mean:6.3f} {score.F.mean:6.3f} {score.JF:6.3f}")
    for name in score.extra:
        print(f"emavos: not scored, as no ground truth asks for it: {name}", file=sys.stderr)
