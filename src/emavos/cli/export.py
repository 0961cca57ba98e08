"""`emavos export onnx`: export the network as ONNX graphs."""

from __future__ import annotations

import argparse
from pathlib import Path

from emavos.cli.arguments import Commands, add_output_arguments, silent_hub
from emavos.cli.staging import staged


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="export the network as ONNX graphs",
        description="Export the network for other runtimes.",
    )
    formats = parser.add_subparsers(title="formats", metavar="FORMAT", required=True)
    onnx = formats.add_parser(
        "onnx",
        help="ONNX graphs for any frame size and number of objects",
        description="Write encode_key, encode_value and decode as ONNX graphs with manifest.json, and check "
        "them against torch with onnxruntime. The memory is not exported: see examples/onnx_stream.py.",
    )
    onnx.set_defaults(run=_export_onnx)
    onnx.add_argument(
        "--model", metavar="NAME|DIR", help="tiny (default), base, user/name on the Hub, or a folder"
    )
    onnx.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the graphs")
    onnx.add_argument("--half", action="store_true", help="export in float16, including inputs and outputs")
    add_output_arguments(onnx)


def _export_onnx(args: argparse.Namespace) -> None:
    import torch

    from emavos.export import check_onnx, export_onnx
    from emavos.weights import load_model

    with silent_hub(bars=not args.quiet):
        model = load_model(args.model, dtype=torch.float16 if args.half else torch.float32)
    with staged(args.out, args.force) as folder:
        manifest = export_onnx(model, folder)
        differences = check_onnx(model, folder)
    if args.quiet:
        return
    for name, graph in manifest["graphs"].items():
        megabytes = (args.out / graph["file"]).stat().st_size / 1e6
        error = max(difference.error for difference in differences if difference.graph == name)
        print(f"{args.out / graph['file']}: {megabytes:.1f} MB, within {error:.0e} of torch")
    print(f"{args.out / 'manifest.json'}: {manifest['dtype']}, opset {manifest['opset']}")
