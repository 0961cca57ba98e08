"""`emavos convert`: convert published STCN weights to a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands
from emavos.cli.staging import staged


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert published STCN weights to a model",
        description="Read the tensors of a published STCN checkpoint (.pth), without running code in it, and "
        "write config.json and model.safetensors. Added attention starts as the identity.",
    )
    parser.set_defaults(run=_convert)
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="checkpoint, such as stcn.pth")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder for the model")
    parser.add_argument(
        "--preset",
        default="stcn",
        metavar="NAME",
        help="stcn, or a preset with attention such as stcn-external-both",
    )
    parser.add_argument(
        "--force", action="store_true", help="write to a folder that is not empty, and overwrite files"
    )


def _convert(args: argparse.Namespace) -> None:
    from emavos.models import PRESETS
    from emavos.weights.convert import from_stcn, read_checkpoint
    from emavos.weights.load import save_model

    fitting = [name for name, config in PRESETS.items() if config.trunk == "resnet"]
    if args.preset not in fitting:
        raise ValueError(f"--preset {args.preset} is none of {', '.join(fitting)}")
    with staged(args.out, args.force) as folder:
        save_model(from_stcn(read_checkpoint(args.checkpoint), PRESETS[args.preset]), folder)
    print(f"{args.out}: config.json, model.safetensors")
