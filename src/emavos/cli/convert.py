"""`emavos convert`: published STCN weights, as a model of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands
from emavos.cli.staging import staged


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "convert",
        help="published STCN weights, as a model of ours",
        description="Read a published STCN checkpoint (.pth), tensors and nothing else, and write "
        "config.json and model.safetensors. Attention can be added; it starts as the identity.",
    )
    parser.set_defaults(run=_convert)
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="such as stcn.pth")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder of the model")
    parser.add_argument(
        "--preset", default="stcn", metavar="NAME", help="stcn, or one with attention: stcn-external-both"
    )
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that is not empty, over old files"
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
