"""`emavos evaluate`: score models and folders of masks on a benchmark, side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import (
    Commands,
    add_device_arguments,
    add_memory_arguments,
    check_compilers,
    check_idle,
    dtype_of,
    policy,
    shortcuts_of,
    silent_hub,
    whole,
)
from emavos.cli.datasets import (
    add_data_arguments,
    check_apart,
    named_folders,
    protocol_of,
    say,
    say_what_is_not_scored,
)
from emavos.cli.words import counted, plain

if TYPE_CHECKING:
    from emavos.evaluation import Protocol
    from emavos.evaluation.comparison import Model
    from emavos.memory import MemoryPolicy
    from emavos.predictor import Predictor

COPY = "copy-first-mask"  # the baseline, which has no network


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score models and folders of masks on a benchmark",
        description="Track the objects of each sequence of a data set with each model, write the masks in "
        "the layout of the benchmark's server, score them and print one table. Finished sequences are "
        "skipped, so you can stop and repeat the command. Without --model and --results, the model in this "
        "package is measured; with only --table, the paper's figures are printed.",
    )
    parser.set_defaults(run=_evaluate, parser=parser)
    add_data_arguments(parser, required=False)
    methods = parser.add_argument_group("methods")
    methods.add_argument(
        "--model",
        action="append",
        metavar="NAME|DIR",
        help=f"user/name on the Hub, a folder, tiny or base (in this package) or {COPY}; may be repeated",
    )
    methods.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="existing masks to score, DIR/<sequence>/<frame>.png; may be repeated",
    )
    add_device_arguments(methods)
    options = parser.add_argument_group("test-time options")
    options.add_argument(
        "--size",
        type=whole(0),
        metavar="N",
        help="short side of the frames for the network; 0 keeps the source's size (the protocol's)",
    )
    options.add_argument("--flip", action="store_true", help="also track the mirrored video, and average")
    options.add_argument(
        "--scales", type=_scales, default=(1.0,), metavar="A,B", help="track at these scales, and average (1)"
    )
    add_memory_arguments(parser, by_protocol=True)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, default=Path("evaluation"), metavar="DIR", help="masks and reports (evaluation)"
    )
    output.add_argument(
        "--pictures",
        type=whole(0),
        default=8,
        metavar="N",
        help="sequences shown in the report, worst first (8)",
    )
    output.add_argument(
        "--zip",
        action="store_true",
        help="also write a submission for the benchmark's server (BURST: a JSON for its program)",
    )
    output.add_argument(
        "--table",
        type=int,
        choices=(2, 3, 4),
        help="also print this table of the paper, beside the measured results",
    )
    output.add_argument("--quiet", action="store_true", help="hide progress, print only tables")


def _evaluate(args: argparse.Namespace) -> None:
    from emavos.evaluation import find_videos
    from emavos.evaluation.burst import write_burst_results
    from emavos.evaluation.comparison import compare, file_name
    from emavos.evaluation.layouts import annotations_of
    from emavos.evaluation.published import compare_with_paper
    from emavos.evaluation.report import by_sequence, overview, unit_note
    from emavos.evaluation.submission import write_submission

    if args.data is None:
        if args.table is None or args.model or args.results:
            raise ValueError("there is no data to measure on; name a data set with --data")
        print(compare_with_paper(args.table))
        return
    protocol = protocol_of(args)
    check_apart(args.out, args.data, find_videos(args.data, protocol, args.sequence))
    names = args.model or ([] if args.results else ["tiny"])
    if {*names} <= {COPY}:
        check_idle(args, args.parser, "no model is run", but=("model",))
    done = compare(
        args.data,
        protocol,
        args.out,
        models={_method_name(name, args, protocol): _model(name, args, protocol) for name in names},
        results=named_folders(args.results),
        sequences=args.sequence,
        processes=args.processes,
        progress=_bar(args),
    )
    methods, scored = list(done.methods), done.scored
    if scored:
        say("all", "not scored, because there is no truth", [v.name for v in done.videos if not v.truths])
    about = f"{protocol.name}, {counted(len(done.videos), 'sequence')}"
    paper = compare_with_paper(args.table, done.measured(), about) if args.table else ""
    print(about)
    if scored:
        print(f"\nJ&F\n{by_sequence(scored).text()}")
    print(f"\n{overview(methods).text()}\n{unit_note(methods)}".rstrip())
    if not scored:
        print("\nnot scored: the data holds no truth but the masks that are given")
    if paper:
        print(f"\n{paper}")
    for method in scored:
        if method.score is not None:
            say_what_is_not_scored(method.name, method.score)
    done.write(args.out, args.pictures, paper)
    if args.zip:
        for method in methods:
            path = args.out / f"{file_name(method.name)}.zip"
            if protocol.annotations:
                names = [video.name for video in done.videos]
                annotations = annotations_of(args.data, protocol)
                write_burst_results(path.with_suffix(".json"), annotations, method.folder, names)
                continue
            say(method.name, f"left out of {path}", write_submission(done.videos, method.folder, path))
    if not args.quiet:
        masks = "masks/, " if (args.out / "masks").is_dir() else ""
        print(f"\n{args.out}: {masks}scores/, overview.csv, overview.json, report.html")


def _bar(args: argparse.Namespace) -> Callable[[str, int, int], Any]:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    def bar(name: str, done: int, total: int) -> Any:
        # disable=None: only on a terminal
        hidden = args.quiet or None
        return tqdm(
            total=total, initial=done, unit="frame", desc=plain(name, 60), leave=False, disable=hidden
        )

    return bar


def _model(name: str, args: argparse.Namespace, protocol: Protocol) -> Model:
    """The method with this name."""
    from emavos.evaluation.comparison import Model

    if name == COPY:
        return Model(None, COPY)
    memory, shortcuts = _policy(args, protocol), shortcuts_of(args)

    def load() -> Predictor:
        from emavos.machine import keep_freed_memory
        from emavos.predictor import Predictor

        keep_freed_memory()
        check_compilers(args)
        with silent_hub(bars=not args.quiet):
            predictor = Predictor.from_pretrained(
                name,
                device=args.device,
                dtype=dtype_of(args),
                policy=memory,
                size=protocol.size if args.size is None else args.size or None,
                shortcuts=shortcuts,
                compile=args.compile,
            )
        return predictor.with_settings(locality=args.locality)

    return Model(load, name, args.scales, args.flip)


def _policy(args: argparse.Namespace, protocol: Protocol) -> MemoryPolicy:
    """The protocol's memory policy, changed by the command line."""
    from emavos.memory import MemoryPolicy

    fields = policy(args)
    if args.every is None:
        fields["every"] = protocol.every
    if args.max_frames is None:
        fields["max_frames"] = protocol.max_frames
    made = MemoryPolicy(**fields)
    if not made.bounded and made.eviction != MemoryPolicy.eviction:
        raise ValueError(
            f"--eviction {made.eviction} changes nothing, because the memory has no limit; give --max-frames "
            "or --max-cells"
        )
    return made


def _method_name(model: str, args: argparse.Namespace, protocol: Protocol) -> str:
    """The model's name, followed by all options that differ from the protocol's."""
    if model == COPY:
        return model
    memory = _policy(args, protocol)
    options = {
        "size": None if args.size in (None, protocol.size or 0) else args.size,
        "every": None if memory.every == protocol.every else memory.every,
        "max-frames": None if memory.max_frames == protocol.max_frames else memory.max_frames or 0,
        "max-cells": memory.max_cells,
        "eviction": None if args.eviction == "least-used" else args.eviction,
        "top-k": args.top_k,
        "dtype": None if args.dtype == "float32" else args.dtype,
        "still": f"{args.still:g}" if args.still else None,
        "backend": None if args.backend == "auto" else args.backend,
        "scales": None if args.scales == (1.0,) else ",".join(f"{scale:g}" for scale in args.scales),
    }
    flags = {
        "include-last": args.include_last,
        "flip": args.flip,
        "decode-near": args.decode_near,
        "encode-near": args.encode_near,
        "compile": args.compile,
        "locality": args.locality is True,
        "no-locality": args.locality is False,
    }
    words = [f"{key}={value}" for key, value in options.items() if value is not None]
    return "+".join([model, *words, *(flag for flag, on in flags.items() if on)])


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers between commas, such as 0.75,1") from error
