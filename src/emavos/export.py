"""Exports the network for other runtimes: its three functions as `torch.export` programs and as ONNX graphs.

The memory and its readout are not part of the network. `examples/onnx_stream.py` has both in NumPy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from emavos.frames.preprocess import IMAGENET_MEAN, IMAGENET_STD
from emavos.io.images import PathLike, check_file
from emavos.io.text import read_json
from emavos.io.whole import replacing
from emavos.machine import how_to_install
from emavos.memory import MemoryPolicy
from emavos.models import STCN, Features, weights_sha256
from emavos.models.stcn import STRIDE

if TYPE_CHECKING:
    import onnx

MANIFEST = "manifest.json"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2}  # as a share of the largest number of an output
CASES = ((32, 48, 1), (96, 160, 2), (128, 80, 5))  # height, width, objects

_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "encode_key": Features._fields,
    "encode_value": ("value",),
    "decode": ("logits",),
}


@dataclass(frozen=True)
class Difference:
    """The difference between a graph and the network, on noise of one size."""

    graph: str
    height: int
    width: int
    objects: int
    error: float  # largest error, as a share of the largest number of the output


def export_programs(model: STCN) -> dict[str, ExportedProgram]:
    """The functions of the network as `torch.export` programs, in the model's dtype: {name: program}.

    * encode_key(frame) -> key, context, f16, f8, f4
    * encode_value(frame, f16, prob) -> value
    * decode(readout, context, f8, f4) -> logits

    Shapes are those of `STCN` for one frame (B = 1). Height and width are dynamic, multiples of 16 up to
    8192, and so is the number of objects, 1 to 255.

    >>> programs = export_programs(load_model())
    >>> key, context, f16, f8, f4 = programs["encode_key"].module()(frame)
    """
    h, w, objects = Dim("h", max=512), Dim("w", max=512), Dim("objects", min=1, max=255)
    whole = {2: STRIDE * h, 3: STRIDE * w}
    cells = {2: h, 3: w}
    shapes: dict[str, dict[str, dict[int, Any]]] = {
        "encode_key": {"frame": whole},
        "encode_value": {"frame": whole, "f16": cells, "prob": {1: objects, **whole}},
        "decode": {
            "readout": {1: objects, 3: h, 4: w},
            "context": cells,
            "f8": {2: 2 * h, 3: 2 * w},
            "f4": {2: 4 * h, 3: 4 * w},
        },
    }
    inputs = _inputs(model, 96, 160, 2)
    return {
        name: torch.export.export(module, tuple(inputs[name].values()), dynamic_shapes=shapes[name])
        for name, module in _functions(model).items()
    }


def export_onnx(model: STCN, folder: PathLike, policy: MemoryPolicy | None = None) -> dict[str, Any]:
    """Write the programs as ONNX graphs to a folder, with a `manifest.json`; returns the manifest.

    model: in float32 or float16. The graphs get the same dtype.
    folder: created if it does not exist. The manifest is written last.
    policy: included in the manifest, for the author of the memory; None: the defaults.

    The manifest has everything that a runtime must know: config, dtype, stride, mean and standard deviation
    of frames, names and shapes of inputs and outputs, and the sha256 of each file and of the weights.

    Raises ImportError if the extra `onnx` is not installed, and ValueError for another dtype.
    """
    from emavos import __version__

    onnx, _ = _packages()
    dtype = next(model.parameters()).dtype
    if dtype not in TOLERANCE:
        raise ValueError(f"graphs are of float32 or float16, not {dtype}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {}
    for name, program in export_programs(model).items():
        exported = torch.onnx.export(program, output_names=_OUTPUTS[name], verbose=False)
        assert exported is not None
        proto = _tidy(exported.model_proto)
        onnx.checker.check_model(proto, full_check=True)
        content = proto.SerializeToString(deterministic=True)
        with replacing(folder / f"{name}.onnx") as partial:
            partial.write_bytes(content)
        graphs[name] = {
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "inputs": {x.name: _shape(x) for x in proto.graph.input},
            "outputs": {x.name: _shape(x) for x in proto.graph.output},
        }
    policy = MemoryPolicy() if policy is None else policy
    policy = replace(policy, top_k=policy.top_k or model.config.top_k)
    manifest = {
        "emavos": __version__,
        "weights_sha256": weights_sha256(model),
        "config": model.config.to_dict(),
        "dtype": str(dtype).removeprefix("torch."),
        "opset": proto.opset_import[0].version,
        "stride": STRIDE,
        "mean": [round(x, 4) for x in IMAGENET_MEAN.tolist()],  # of RGB in [0, 1]
        "std": [round(x, 4) for x in IMAGENET_STD.tolist()],
        "memory": {name: value for name, value in asdict(policy).items() if name != "backend"},
        "graphs": graphs,
    }
    with replacing(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def check_onnx(
    model: STCN, folder: PathLike, cases: Iterable[tuple[int, int, int]] = CASES
) -> list[Difference]:
    """Run the graphs of a folder with onnxruntime on noise, and compare with the network in float32.

    model: the exported model.
    folder: written by `export_onnx`.
    cases: (height, width, number of objects) of each run; height and width are multiples of 16.

    Returns one difference per graph and case. Raises ValueError if a file does not match the manifest, or a
    difference exceeds the rounding error (`TOLERANCE`), and ImportError if the extra `onnx` is not installed.
    """
    _, onnxruntime = _packages()
    folder = Path(folder)
    dtype, graphs = _read_manifest(folder / MANIFEST)
    exact = STCN(model.config).eval()
    exact.load_state_dict(model.state_dict())
    functions, differences = _functions(exact), []
    for name, sha256 in graphs.items():
        path = folder / f"{name}.onnx"
        check_file(path, "a graph")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{path} is not the file of {MANIFEST}: its sha256 differs")
        session = _session(onnxruntime, content)
        for height, width, objects in cases:
            inputs = _inputs(exact, height, width, objects)[name]
            with torch.no_grad():
                expected = functions[name](*inputs.values())
            outputs = session.run(None, {key: x.to(dtype).numpy() for key, x in inputs.items()})
            pairs = zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True)
            error = max(_error(out, want) for out, want in pairs)
            differences.append(Difference(name, height, width, objects, error))
    worst = max(differences, key=lambda difference: difference.error)
    if not worst.error <= TOLERANCE[dtype]:  # NaN too
        raise ValueError(f"a graph is not the network: {worst}, more than {TOLERANCE[dtype]:g}")
    return differences


def _read_manifest(path: Path) -> tuple[torch.dtype, dict[str, str]]:
    """The dtype of the graphs in a folder, and {name: sha256}."""
    manifest = read_json(path, "the manifest of graphs")
    try:
        dtype = {str(one).removeprefix("torch."): one for one in TOLERANCE}[manifest["dtype"]]
        graphs = {name: graph["sha256"] for name, graph in manifest["graphs"].items()}
        if not graphs or not graphs.keys() <= _OUTPUTS.keys():
            raise ValueError(f"{path} names the graphs {', '.join(graphs):.60}, not {', '.join(_OUTPUTS)}")
        return dtype, graphs
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the manifest of graphs: {error} is missing or of another kind"
        ) from error


class _EncodeKey(nn.Module):
    def __init__(self, model: STCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode_key(frame))


class _EncodeValue(_EncodeKey):
    def forward(self, frame: Tensor, f16: Tensor, prob: Tensor) -> Tensor:  # type: ignore[override]
        return self.model.encode_value(frame, Features(f16, f16, f16, f16, f16), prob)  # reads only f16


class _Decode(_EncodeKey):
    def forward(self, readout: Tensor, context: Tensor, f8: Tensor, f4: Tensor) -> Tensor:  # type: ignore[override]
        return self.model.decode(readout, Features(context, context, context, f8, f4))  # reads only these


def _functions(model: STCN) -> dict[str, nn.Module]:
    modules = {"encode_key": _EncodeKey, "encode_value": _EncodeValue, "decode": _Decode}
    return {name: module(model).eval() for name, module in modules.items()}


def _inputs(model: STCN, height: int, width: int, objects: int) -> dict[str, dict[str, Tensor]]:
    """Noise as inputs of each function, in the model's dtype and on its device. The same on every call."""
    generator = torch.Generator().manual_seed(0)
    weight = next(model.parameters())
    frame = torch.randn(1, 3, height, width, generator=generator).to(weight)
    prob = torch.rand(1, objects, height, width, generator=generator).to(weight) / objects
    channels, cells = model.config.value_channels, (height // STRIDE, width // STRIDE)
    readout = torch.randn(1, objects, channels, *cells, generator=generator).to(weight)
    with torch.no_grad():
        features = model.encode_key(frame)
    return {
        "encode_key": {"frame": frame},
        "encode_value": {"frame": frame, "f16": features.f16, "prob": prob},
        "decode": {
            "readout": readout,
            "context": features.context,
            "f8": features.f8,
            "f4": features.f4,
        },
    }


def _tidy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without notes on the traced source, and with axes named h, w and objects."""
    graph = proto.graph
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for note in ("metadata_props", "doc_string", "value_info"):
        graph.ClearField(note)
    named = _axes(graph)
    for x in (*graph.input, *graph.output):
        x.ClearField("metadata_props")
        for dim in x.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"[a-z]\w*", lambda s: named.get(s[0], s[0]), dim.dim_param)
    return proto


def _axes(graph: onnx.GraphProto) -> dict[str, str]:
    """Names of axes, by torch's names: {"s39": "h", "s94": "w"}."""
    named: dict[str, str] = {}
    for x in graph.input:
        *first, height, width = x.type.tensor_type.shape.dim
        for axis, name in [(height, "h"), (width, "w"), *((d, "objects") for d in first)]:
            if axis.dim_param:
                named.setdefault(axis.dim_param.rpartition("*")[2], name)
    return named


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _session(onnxruntime: Any, content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides warnings about nodes that cannot be folded in half precision
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _error(out: np.ndarray, wanted: Tensor) -> float:
    want = wanted.numpy()
    if out.shape != want.shape:  # the graph of another architecture
        return float("inf")
    return float(np.abs(out.astype(np.float32) - want).max() / np.abs(want).max())


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx writes graphs with it
    except ImportError as error:
        raise ImportError(
            f"ONNX graphs need {error.name}, which is not installed: {how_to_install('onnx')}"
        ) from error
    return onnx, onnxruntime
