"""`emavos evaluate`: models and folders of masks on a benchmark, scored side by side."""

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
    file_name,
    named_folders,
    protocol_of,
    say,
    say_what_is_not_scored,
)
from emavos.cli.words import counted

if TYPE_CHECKING:
    from emavos.evaluation import Protocol, Video
    from emavos.evaluation.prediction import Follower, Run
    from emavos.evaluation.report import Method
    from emavos.memory import MemoryPolicy
    from emavos.models import STCN

COPY = "copy-first-mask"  # a method without a network


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="models and folders of masks on a benchmark, scored side by side",
        description="Follow the objects of each sequence of a data set with each model, write the masks as "
        "the benchmark's server wants them, score them and print one table. What is there already is not "
        "made again: a run can be stopped and goes on. Without --model and --results the model in this "
        "package is measured; with --table alone, the paper's figures are printed.",
    )
    parser.set_defaults(run=_evaluate, parser=parser)
    add_data_arguments(parser, required=False)
    methods = parser.add_argument_group("methods")
    methods.add_argument(
        "--model",
        action="append",
        metavar="NAME|DIR",
        help=f"user/name of the Hub, a folder, tiny (in this package) or {COPY}; may be repeated",
    )
    methods.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="masks of others, DIR/<sequence>/<frame>.png; may be repeated",
    )
    add_device_arguments(methods)
    options = parser.add_argument_group("test-time options")
    options.add_argument(
        "--size",
        type=whole(0),
        metavar="N",
        help="short side while working; 0: the source's (the protocol's)",
    )
    options.add_argument("--flip", action="store_true", help="follow the mirrored video too; average")
    options.add_argument(
        "--scales", type=_scales, default=(1.0,), metavar="A,B", help="follow at these scales; average (1)"
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
    output.add_argument("--zip", action="store_true", help="also a submission for the benchmark's server")
    output.add_argument(
        "--table", type=int, choices=(2, 3, 4), help="that table of the paper beside what is measured"
    )
    output.add_argument("--quiet", action="store_true", help="no progress, only tables")


def _evaluate(args: argparse.Namespace) -> None:
    from emavos.evaluation import find_videos
    from emavos.evaluation.published import compare_with_paper
    from emavos.evaluation.report import by_sequence, overview, write_overview, write_scores
    from emavos.evaluation.submission import write_submission
    from emavos.io.whole import sweep

    if args.data is None:
        if args.table is None or args.model or args.results:
            raise ValueError("there is nothing to measure on: name a data set with --data")
        print(compare_with_paper(args.table))
        return
    protocol = protocol_of(args)
    videos = find_videos(args.data, protocol, args.sequence)
    check_apart(args.out, args.data, videos)
    sweep(args.out)
    methods = _methods(args, protocol, videos)
    scored = [method for method in methods if method.score is not None]
    about = f"{protocol.name}, {counted(len(videos), 'sequence')}"
    comparison = compare_with_paper(args.table, _measured(scored), about) if args.table else ""
    print(about)
    if scored:
        print(f"\nJ&F\n{by_sequence(scored).text()}")
    print(f"\n{overview(methods).text()}")
    if not scored:
        print("\nnot scored: the data holds no truth but the masks that are given")
    if comparison:
        print(f"\n{comparison}")
    for method in scored:
        if method.score is not None:
            write_scores(method.score, args.out / "scores" / file_name(method.name))
            say_what_is_not_scored(method.name, method.score)
    write_overview(methods, {"protocol": protocol.name, "sequences": len(videos)}, args.out)
    if args.zip:
        for method in methods:
            path = args.out / f"{file_name(method.name)}.zip"
            say(method.name, f"left out of {path}", write_submission(videos, method.folder, path))
    _write_report(args, protocol, videos, methods, comparison)
    if not args.quiet:
        masks = "masks/, " if (args.out / "masks").is_dir() else ""
        print(f"\n{args.out}: {masks}scores/, overview.csv, overview.json, report.html")


def _methods(args: argparse.Namespace, protocol: Protocol, videos: list[Video]) -> list[Method]:
    """All that is compared, with its masks made and scored."""
    from emavos.evaluation import score_videos
    from emavos.evaluation.layouts import seen_categories
    from emavos.evaluation.prediction import Run
    from emavos.evaluation.report import Method

    models = args.model or ([] if args.results else ["tiny"])
    if {*models} <= {COPY}:
        check_idle(args, args.parser, "no model is run", but=("model",))
    folders, runs = named_folders(args.results), dict[str, Run]()
    for model in dict.fromkeys(models):
        name = _method_name(model, args, protocol)
        if name in folders:
            raise ValueError(f"two methods are called {name}; give the results as NAME=DIR")
        folders[name] = args.out / "masks" / file_name(name)
        runs[name] = _predict(model, name, folders[name], args, protocol, videos)
    if len({file_name(name).casefold() for name in folders}) < len(folders):
        raise ValueError(f"two of {', '.join(folders)} would be written to one folder; give them as NAME=DIR")
    known = [video for video in videos if video.truths]
    if known:
        say("all", "not scored, as there is no truth", [v.name for v in videos if not v.truths])
    seen = seen_categories(args.data, protocol)
    return [
        Method(
            name,
            folder,
            score_videos(known, folder, seen, processes=args.processes) if known else None,
            runs.get(name) or Run.read(folder),
        )
        for name, folder in folders.items()
    ]


def _policy(args: argparse.Namespace, protocol: Protocol) -> MemoryPolicy:
    """The protocol's, with what was told otherwise."""
    from emavos.memory import MemoryPolicy

    told = policy(args)
    if args.every is None:
        told["every"] = protocol.every
    if args.max_frames is None:
        told["max_frames"] = protocol.max_frames
    made = MemoryPolicy(**told)
    if not made.bounded and made.eviction != MemoryPolicy.eviction:
        raise ValueError(
            f"--eviction {made.eviction} changes nothing, for the memory has no bound; give --max-frames or "
            "--max-cells"
        )
    return made


def _method_name(model: str, args: argparse.Namespace, protocol: Protocol) -> str:
    """The model, and the options that are not the protocol's."""
    if model == COPY:
        return model
    memory = _policy(args, protocol)
    options = {
        "size": None if args.size in (None, protocol.size or 0) else args.size,
        "every": None if memory.every == protocol.every else memory.every,
        "max-frames": None if memory.max_frames == protocol.max_frames else memory.max_frames or 0,
        "max-cells": memory.max_cells,
        "eviction": None if args.eviction == "least-used" else args.eviction,
        "top-k": None if args.top_k == 20 else args.top_k,
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
    }
    words = [f"{key}={value}" for key, value in options.items() if value is not None]
    return "+".join([model, *words, *(flag for flag, on in flags.items() if on)])


def _predict(
    model: str, name: str, folder: Path, args: argparse.Namespace, protocol: Protocol, videos: list[Video]
) -> Run:
    """Write the masks of a model, those that are not there yet."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    from emavos.evaluation.baseline import CopyFirstMask
    from emavos.evaluation.prediction import Run, predict
    from emavos.machine import PeakMemory, describe

    common = {"protocol": protocol.name, "binary": protocol.binary}
    before = Run.read(folder)
    if model == COPY:
        begin: Callable[[], Follower] = CopyFirstMask
        settings, network = common | {"model": COPY}, None
    else:
        begin, settings, network = _follower(model, args, protocol)
        settings |= common
        peak = PeakMemory(next(network.parameters()).device)
    total = sum(len(video.images) for video in videos)
    done = 0 if before is None else sum(len(v.images) for v in videos if v.name in before.timings)
    # disable=None: on a terminal alone
    with tqdm(
        total=total, initial=done, unit="frame", desc=name, leave=False, disable=args.quiet or None
    ) as bar:
        try:
            run = predict(videos, begin, folder, settings, each_frame=lambda video, index: bar.update())
        except (RuntimeError, MemoryError) as error:
            from emavos.machine import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            raise ValueError(f"out of memory; try a smaller --size or --max-frames ({name})") from error
    followed = before is None or before.timings != run.timings
    if network is not None and (followed or run.parameters is None):  # None: killed after the last video
        measured = peak.mb() if followed else None
        run.peak_mb = run.peak_mb if measured is None else max(measured, run.peak_mb or 0)
        run.parameters = sum(parameter.numel() for parameter in network.parameters())
        run.machine = describe(next(network.parameters()).device)
        run.write(folder)
    return run


def _follower(
    model: str, args: argparse.Namespace, protocol: Protocol
) -> tuple[Callable[[], Follower], dict[str, Any], STCN]:
    """What makes a follower for a video, the settings that decide its masks, and the network."""
    from emavos.evaluation.views import Views
    from emavos.machine import keep_freed_memory
    from emavos.predictor import Predictor

    keep_freed_memory()
    check_compilers(args)
    memory = _policy(args, protocol)
    shortcuts = shortcuts_of(args)
    size = protocol.size if args.size is None else args.size or None
    with silent_hub(bars=not args.quiet):
        predictor = Predictor.from_pretrained(
            model,
            device=args.device,
            dtype=dtype_of(args),
            policy=memory,
            size=size,
            shortcuts=shortcuts,
            compile=args.compile,
        )
    network = predictor.model
    settings = {
        "model": model,
        **predictor.facts(),
        "trunk": network.config.trunk,
        "attention": [network.config.key_attention, network.config.value_attention],
        "scales": list(args.scales),
        "flip": args.flip,
    }
    if args.flip or args.scales != (1.0,):
        return (
            lambda: Views(
                lambda side: predictor.with_settings(size=side).session(),
                size,
                scales=args.scales,
                flip=args.flip,
            ),
            settings,
            network,
        )
    return predictor.session, settings, network


def _measured(methods: list[Method]) -> list[Any]:
    """The methods that a table of the paper may have a line for."""
    from emavos.evaluation.published import Measured

    return [
        Measured(
            name=method.name,
            trunk=method.run.settings["trunk"],
            attention=tuple(method.run.settings["attention"]),
            JF=method.score.JF,
            J=method.score.J.mean,
            F=method.score.F.mean,
            fps=method.run.fps,
        )
        for method in methods
        if method.score is not None and method.run is not None and "attention" in method.run.settings
    ]


def _write_report(
    args: argparse.Namespace, protocol: Protocol, videos: list[Video], methods: list[Method], comparison: str
) -> None:
    from emavos import __version__
    from emavos.evaluation.html import Section, html_report
    from emavos.evaluation.pictures import sections
    from emavos.evaluation.report import by_sequence, objects_table, overview
    from emavos.io.whole import replacing

    scored = [method for method in methods if method.score is not None]
    facts = {
        "protocol": f"{protocol.name}: {protocol.about}",
        "data": f"{args.data.resolve().name}, {counted(len(videos), 'sequence')}",
        "machine": "; ".join(dict.fromkeys(m.run.machine for m in methods if m.run and m.run.machine)),
        "made by": f"emavos {__version__}",
    }
    parts = [Section("Overview", [("", overview(methods))])]
    if comparison:
        parts.append(Section("The paper", text=comparison))
    if scored:
        parts.append(Section("J&F of each sequence", [("", by_sequence(methods))]))
    parts += sections(videos, methods, args.pictures)
    parts += [Section(f"Objects: {m.name}", [("", objects_table(m.score))]) for m in scored if m.score]
    page = html_report(f"Evaluation on {protocol.name}", {k: v for k, v in facts.items() if v}, parts)
    with replacing(args.out / "report.html") as partial:
        partial.write_text(page, encoding="utf-8")


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers between commas, such as 0.75,1") from error
