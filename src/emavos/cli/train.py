"""`emavos train`: a stage of training."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emavos.cli.arguments import MOST_WORKERS, Commands, whole

if TYPE_CHECKING:
    from emavos.models import STCN
    from emavos.training import Progress, TrainConfig
    from emavos.training.clicks import ClickConfig, ClickProgress

_Config = TypeVar("_Config", "TrainConfig", "ClickConfig")
TERMINATED = 143  # the exit code of a process that ended on SIGTERM


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model, or fine-tune one on your clips",
        description="Run a stage of training. Repeat the command to continue a stopped run. SIGTERM saves "
        "the run and ends it. For several processes: torchrun --nproc-per-node N -m emavos train ...",
    )
    parser.set_defaults(run=_train)
    parser.add_argument(
        "--stage",
        default="finetune",
        metavar="NAME",
        help="finetune: on your clips (default); tiny-1 to tiny-11 and base-1 to base-7: the embedded "
        "models; 0, 1, 2, 3: STCN; paper-pretrained, paper-alone: the paper; clicks: a click head for --init",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="a folder with JPEGImages/ and Annotations/ of your clips, or with the data sets of the stage",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("run"), metavar="DIR", help="folder of the run (run/)"
    )
    _add_start(parser)
    _add_recipe(parser)
    _add_habits(parser)


def _add_start(parser: argparse.ArgumentParser) -> None:
    start = parser.add_argument_group("start", "first weights; ImageNet trunks by default (extra: train)")
    start.add_argument(
        "--init",
        metavar="NAME|DIR",
        help="a model to start from: tiny, a folder or user/name. Sets the preset",
    )
    start.add_argument(
        "--trunks",
        nargs=2,
        type=Path,
        metavar=("RESNET50", "RESNET18"),
        help="torchvision's ImageNet state dicts, .safetensors or .pth, for a preset of ResNets",
    )
    start.add_argument(
        "--vit",
        type=Path,
        metavar="ONNX",
        help="DINOv2 ViT-S/14, to add to --init. The preset is the stage's (stage base-1; extra: onnx)",
    )
    start.add_argument(
        "--teacher",
        metavar="NAME|DIR",
        help="a model with a transformer's part of the key, to distil into --init (stage tiny-9): base",
    )
    start.add_argument(
        "--head",
        type=Path,
        metavar="FILE",
        help="clicks.safetensors to start from, also of another model (stage clicks)",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value for a field of the stage's TrainConfig, as JSON; may be repeated",
    )
    recipe.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="end the run after N seconds, with a learning rate that falls with the time; short for --set "
        "seconds=N",
    )
    recipe.add_argument(
        "--hold-out", nargs="+", metavar="CLIP", help="clips to keep out of training, for --validate-every"
    )


def _add_habits(parser: argparse.ArgumentParser) -> None:
    habits = parser.add_argument_group("habits")
    habits.add_argument(
        "--iterations", type=whole(1), metavar="N", help="end the run after N iterations (the stage's number)"
    )
    habits.add_argument(
        "--workers",
        type=whole(0, MOST_WORKERS),
        default=1,
        metavar="N",
        help="processes that make samples (1)",
    )
    habits.add_argument(
        "--samples-on-device",
        action="store_true",
        help="load all pictures into the device's memory and draw mixed samples there (tiny-4 to tiny-11, "
        "base-1 to base-7)",
    )
    habits.add_argument(
        "--save-every", type=whole(1), default=100, metavar="N", help="iterations between checkpoints (100)"
    )
    habits.add_argument(
        "--validate-every",
        type=whole(0),
        default=0,
        metavar="N",
        help="iterations between scores on the clips of --hold-out; keeps the best model (0: never)",
    )
    habits.add_argument(
        "--pictures-every",
        type=whole(0),
        default=0,
        metavar="N",
        help="iterations between pictures of a batch (0: never)",
    )
    habits.add_argument(
        "--tensorboard", action="store_true", help="also write events for TensorBoard (extra: tensorboard)"
    )
    habits.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device to train on (auto)"
    )
    habits.add_argument("--quiet", action="store_true", help="print only errors")


def _train(args: argparse.Namespace) -> None:
    import torch

    from emavos.training import distributed, train
    from emavos.weights.load import choose_device, save_model

    if args.stage == "clicks":
        _train_clicks(args)
        return
    if args.head is not None:
        raise ValueError("--head is only for --stage clicks; leave out --head, or add --stage clicks")
    config, model = _start(args)
    with distributed.joined(choose_device(args.device)) as device, _on_sigterm() as stopping:
        first = distributed.rank() == 0
        with _bar(config, args, quiet=args.quiet or not first) as report:
            model = train(
                model.to(device),
                args.data,
                args.out,
                config,
                workers=args.workers,
                save_every=args.save_every,
                validate_every=args.validate_every,
                pictures_every=args.pictures_every,
                tensorboard=args.tensorboard,
                samples_on_device=args.samples_on_device,
                stop=args.iterations,
                stopping=stopping,
                report=report,
            )
        if distributed.anywhere(stopping(), device):  # if one of them was stopped, all were, and none is done
            raise SystemExit(TERMINATED)
        if first:
            save_model(model, args.out / "model", dtype=torch.float16)
            if not args.quiet:
                print(f"the model is in {args.out / 'model'}")


def _train_clicks(args: argparse.Namespace) -> None:
    """Stage clicks: train a click head; the model does not change."""
    import torch

    from emavos.clicks import ClickHead
    from emavos.training.clicks import ClickConfig, train_clicks
    from emavos.weights.click_head import CLICKS_NAME, load_clicks, save_clicks
    from emavos.weights.load import choose_device, load_model

    if args.init is None:
        raise ValueError("stage clicks trains a head for a model; add --init tiny, or another model")
    if (
        args.hold_out
        or args.validate_every
        or args.pictures_every
        or args.tensorboard
        or args.vit
        or args.teacher
        or args.samples_on_device
        or args.seconds
    ):
        raise ValueError(
            "stage clicks has no --hold-out, --validate-every, --pictures-every, --tensorboard, --vit, "
            "--teacher, --samples-on-device and --seconds; measure the head with "
            "docs/measure/quality/clicks.py"
        )
    config = _with(ClickConfig(), args.set)
    network = load_model(args.init, device=choose_device(args.device))
    torch.manual_seed(config.seed)
    head = ClickHead.of(network) if args.head is None else load_clicks(network, args.head)
    with _on_sigterm() as terminated, _bar(config, args, quiet=args.quiet) as report:
        train_clicks(
            head.to(choose_device(args.device)),
            network,
            args.data,
            args.out,
            config,
            save_every=args.save_every,
            stop=args.iterations,
            stopping=terminated,
            report=report,
        )
        if terminated():
            raise SystemExit(TERMINATED)
    save_clicks(head, args.out / CLICKS_NAME)
    if not args.quiet:
        print(f"the click head is {args.out / CLICKS_NAME}; put it beside the model's files")


def _start(args: argparse.Namespace) -> tuple[TrainConfig, STCN]:
    """The config of the run, and the model before it."""
    from dataclasses import replace

    from emavos.models import PRESETS
    from emavos.training import start_from_imagenet
    from emavos.training.sources import open_samples
    from emavos.training.stages import BASE, TINY
    from emavos.training.start import add_transformer, extended, grow
    from emavos.training.widen import is_narrower, widened
    from emavos.weights.load import load_model

    config = _config(args)
    if args.init is None:
        return config, start_from_imagenet(config.preset, config.seed, args.trunks)
    model = load_model(args.init)
    samples = partial(open_samples, args.data, config)
    if args.vit is not None:
        return config, add_transformer(model, config.preset, args.vit, samples(), config.seed)
    if args.teacher is not None:
        return config, _distilled(args, config, model)
    if any(setting.startswith("preset=") for setting in args.set):
        return config, grow(model, config.preset, config.seed)
    if args.stage in {**TINY, **BASE}:  # they add to the model before them
        if PRESETS[config.preset].vit != "none" and model.config.vit == "none":
            raise ValueError(f"{config.preset} has a vision transformer and {args.init} has none; add --vit")
        if PRESETS[config.preset].scene_key_channels and not model.config.scene_key_channels:
            raise ValueError(f"{args.init} has no scene's part of the key; add --teacher base")
        if is_narrower(model.config, config.preset):
            return config, widened(model, config.preset, config.seed)
        if (grown := extended(model, config.preset, samples, config.seed)) is not None:
            return config, grown
    names = [name for name, preset in PRESETS.items() if preset == model.config]
    if not names:
        raise ValueError(
            f"the config of {args.init} is not a preset ({', '.join(PRESETS)}), so it cannot be trained here"
        )
    return replace(config, preset=names[0]), model


def _config(args: argparse.Namespace) -> TrainConfig:
    """The config of the stage, with --set and --hold-out. Raises ValueError if options do not go together."""
    from dataclasses import replace

    from emavos.training import STAGES
    from emavos.training.sources import open_held_out

    if args.stage not in STAGES:
        raise ValueError(f"there is no stage {args.stage}; the stages are {', '.join(STAGES)}")
    if args.stage == "finetune" and args.init is None:
        raise ValueError("finetune starts from a model; add --init tiny, or choose another --stage")
    if args.init is not None and args.trunks is not None:
        raise ValueError("--init is a whole model and --trunks begin a new one; give one of them")
    if args.teacher is not None and args.init is None:
        raise ValueError("--teacher extends a model; add --init tiny, or another model")
    if args.vit is not None and args.init is None:
        raise ValueError("--vit extends a model; add --init tiny, or another model")
    by_clock = [] if args.seconds is None else [f"seconds={args.seconds}"]
    config = _with(STAGES[args.stage], [*args.set, *by_clock])
    if not args.hold_out:
        return config
    config = replace(config, leave_out=tuple(args.hold_out))
    there = [name for clips in open_held_out(args.data, config) for name in clips.names]
    if missing := [name for name in args.hold_out if name not in there]:  # it would be trained on
        raise ValueError(f"--hold-out {missing[0]} is not a sequence of {args.data}")
    return config


def _distilled(args: argparse.Namespace, config: TrainConfig, model: STCN) -> STCN:
    """The model with a part of its key from --teacher. It is kept in OUT/start, for resuming."""
    from emavos.training.distil import add_scene_key
    from emavos.training.sources import open_samples
    from emavos.weights.load import load_model, save_model

    start = args.out / "start"
    if (start / "model.safetensors").is_file():
        return load_model(start)
    samples = open_samples(args.data, config)
    model = add_scene_key(model, config.preset, load_model(args.teacher), samples, config.seed)
    save_model(model, start)
    return model


def _with(config: _Config, settings: list[str]) -> _Config:
    """The config with FIELD=VALUE set; a VALUE that is not JSON is text."""
    fields = json.loads(config.to_json())
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting} is not FIELD=VALUE")
        try:
            fields[name] = json.loads(text)
        except json.JSONDecodeError:
            fields[name] = text
    return config.from_json(json.dumps(fields))


@contextmanager
def _on_sigterm() -> Iterator[Callable[[], bool]]:
    """Catch SIGTERM; yield a function that returns whether the signal arrived."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar(
    config: TrainConfig | ClickConfig, args: argparse.Namespace, quiet: bool
) -> Iterator[Callable[[Progress | ClickProgress], None]]:
    """Yield a function that reports an iteration, in a progress bar on a terminal."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    end = min(args.iterations or config.iterations, config.iterations)
    if getattr(config, "seconds", 0):
        end = args.iterations  # None: the clock decides
    # disable=None: only on a terminal
    bar: Any = tqdm(total=end, unit="it", leave=False, disable=quiet or None)

    def report(progress: Progress | ClickProgress) -> None:
        bar.update(progress.iteration + 1 - bar.n)
        bar.set_postfix(loss=f"{progress.loss:.3f}", overlap=f"{progress.overlap:.3f}", refresh=False)

    try:
        yield report
    finally:
        bar.close()
