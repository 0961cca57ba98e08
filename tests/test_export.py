"""The network as programs of torch.export, under torch.compile, and as ONNX graphs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor, export
from emavos.cli import main
from emavos.demo import synthetic_clip
from emavos.export import check_onnx, export_onnx, export_programs
from emavos.models import PRESETS, STCN, Features
from emavos.session.memory import LastSeen
from emavos.weights import load_model

ROOT = Path(__file__).parents[1]
SIZES = [(32, 48, 1), (48, 32, 3), (112, 64, 2)]  # height, width, objects; the programs are traced at others


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def programs(model):
    return {name: program.module() for name, program in export_programs(model).items()}


def noise(model, height, width, objects):
    """A frame, its features, probabilities and values."""
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(1, 3, height, width, generator=generator)
    prob = torch.rand(1, objects, height, width, generator=generator) / objects
    with torch.no_grad():
        features = model.encode_key(frame)
        return frame, features, prob, model.encode_value(frame, features, prob)


def close(out, wanted):
    scale = wanted.abs().max()
    torch.testing.assert_close(out / scale, wanted / scale, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_exported_programs_compute_what_the_network_computes_at_any_size(model, programs, size):
    frame, features, prob, value = noise(model, *size)
    with torch.no_grad():
        for out, wanted in zip(programs["encode_key"](frame), features, strict=True):
            close(out, wanted)
        close(programs["encode_value"](frame, features.f16, prob), value)
        logits = programs["decode"](value, features.context, features.f8, features.f4)
        close(logits, model.decode(value, features))


@pytest.mark.slow
def test_compiled_functions_compute_what_the_network_computes_at_any_size(model):
    # aot_eager traces and guards as inductor does, and needs no compiler of C++
    key, value, decode = (
        torch.compile(function, backend="aot_eager", dynamic=True, fullgraph=True)
        for function in (model.encode_key, model.encode_value, model.decode)
    )
    for size in SIZES:
        frame, features, prob, wanted = noise(model, *size)
        with torch.no_grad():
            found = key(frame)
            assert isinstance(found, Features)
            close(found.key, features.key)
            close(value(frame, features, prob), wanted)
            close(decode(wanted, features), model.decode(wanted, features))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++, which is absent")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode_key", "encode_value", "decode"])
def test_functions_compile_to_machine_code_that_computes_the_same(model, name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    function = getattr(model, name)
    compiled = torch.compile(function, dynamic=True, fullgraph=True)
    for size in SIZES[1:]:  # one object is a program of its own, which is compiled anew
        frame, features, prob, value = noise(model, *size)
        inputs = {"encode_key": [frame], "encode_value": [frame, features, prob], "decode": [value, features]}
        with torch.no_grad():
            found, wanted = compiled(*inputs[name]), function(*inputs[name])
        for out, want in zip(found, wanted, strict=True) if name == "encode_key" else [(found, wanted)]:
            close(out, want)


def test_graphs_agree_with_torch_at_several_sizes_and_numbers_of_objects(model, onnx_graphs):
    differences = check_onnx(model, onnx_graphs, [(16, 16, 1), (64, 112, 4), (160, 96, 2)])
    assert {d.graph for d in differences} == {"encode_key", "encode_value", "decode"}
    assert len(differences) == 9
    assert max(d.error for d in differences) < 2e-5


def test_graphs_of_other_weights_or_changed_files_are_refused(model, onnx_graphs, tmp_path):
    with pytest.raises(ValueError, match="a graph is not the network"):
        check_onnx(STCN(PRESETS["stcn-tiny"]).eval(), onnx_graphs, [(32, 32, 1)])
    shutil.copytree(onnx_graphs, tmp_path / "graphs")
    file = tmp_path / "graphs" / "decode.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"decode.onnx is not the file of manifest.json"):
        check_onnx(model, tmp_path / "graphs", [(32, 32, 1)])


def test_graphs_name_their_axes_and_tell_nothing_of_the_machine_they_were_made_on(onnx_graphs):
    graphs = json.loads((onnx_graphs / "manifest.json").read_text())["graphs"]
    assert graphs["encode_key"]["inputs"] == {"frame": [1, 3, "16*h", "16*w"]}
    assert graphs["encode_value"]["outputs"] == {"value": [1, "objects", 128, "h", "w"]}
    assert graphs["decode"]["inputs"]["f8"] == [1, 40, "2*h", "2*w"]
    for graph in graphs.values():
        content = (onnx_graphs / graph["file"]).read_bytes()
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content


def test_the_stream_runs_where_there_is_no_torch_and_no_emavos(onnx_graphs):
    code = f"""
import sys
sys.modules["torch"] = sys.modules["emavos"] = None  # an import of them fails
sys.path.insert(0, {str(ROOT / "examples")!r})
from pathlib import Path
import numpy as np
from onnx_stream import Stream
frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
mask = np.zeros((40, 50), int)
mask[8:30, 10:30] = 7
frame[mask == 7] = 250, 20, 20
stream = Stream(Path({str(onnx_graphs)!r}), threads=1)
print((stream.step(frame, mask) == mask).all(), *np.unique(stream.step(frame)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True 0 7\n"


def example():
    """The module of the example."""
    spec = importlib.util.spec_from_file_location("onnx_stream", ROOT / "examples" / "onnx_stream.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stream_of(graphs, folder, **memory):
    """The example's stream, with another policy than that of the manifest."""
    shutil.copytree(graphs, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["memory"] |= memory
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return example().Stream(folder, threads=1)


@pytest.mark.parametrize(
    ("bound", "eviction"), [(1, "least-used"), (5, "least-used"), (5, "oldest"), (None, "oldest")]
)
def test_the_memory_of_the_stream_is_that_of_a_session(onnx_graphs, tmp_path, bound, eviction):
    memory = {"every": 1, "max_frames": bound, "eviction": eviction}
    stream = stream_of(onnx_graphs, tmp_path / "graphs", **memory)
    session = Predictor.from_pretrained(device="cpu", size=None, policy=MemoryPolicy(**memory)).session()
    frames, truth = synthetic_clip(frames=17, size=(64, 96))
    given = np.where(truth[0] == 2, -2, truth[0])  # ids need not be positive
    for index, frame in enumerate(frames):
        mask = given if index == 0 else None
        found, wanted = stream.step(frame, mask), session.step(frame, mask).mask
        assert (found == wanted).mean() > 0.999
        _, slots = session.groups[0].bank.state()
        assert sorted(slot[0] for slot in stream.slots) == sorted(frame for _, frame in slots)


def test_the_stream_sees_objects_where_a_session_does():
    """They stand, move, fill the frame, are absent for some frames, and jump."""
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    places = [(0, 2), (0, 2), (1, 3), None, None, (2, 9), "all", "all", (2, 9), (3, 9), None, (0, 1)]
    session, stream = LastSeen.unseen(2, (4, 10), torch.device("cpu")), example().LastSeen()
    largest = 0.0
    for at, other in zip(places, [places[6], *places[:-1]], strict=True):
        prob = torch.zeros(2, 64, 160)
        for own, place in zip(prob, (at, other), strict=True):
            if place == "all":
                own.fill_(0.9)
            elif place is not None:
                own[16 * place[0] : 16 * place[0] + 20, 16 * place[1] + 3 : 16 * place[1] + 16] = 0.9
        session = session.after(prob, torch.zeros(2, 4), (False, False))
        stream.update(prob.numpy())
        penalty = session.penalty((64, 160))
        np.testing.assert_allclose(stream.penalty(), penalty, atol=1e-5)
        largest = max(largest, float(penalty.max()))
    assert largest > 3


@pytest.mark.parametrize(
    "memory", [{"include_last": True}, {"max_cells": 9}, {"eviction": "consolidate"}], ids=str
)
def test_the_stream_refuses_a_policy_that_it_does_not_know(onnx_graphs, tmp_path, memory):
    with pytest.raises(ValueError, match="this stream"):
        stream_of(onnx_graphs, tmp_path / "graphs", **memory)


def test_a_type_that_graphs_do_not_have_is_refused_and_so_is_a_machine_without_onnx(
    model, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    with pytest.raises(ValueError, match=r"float32 or float16, not torch\.bfloat16"):
        export_onnx(load_model(dtype=torch.bfloat16), tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "onnx", "--out", str(tmp_path / "out")]) == 1
    assert 'pip install ".[onnx]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_checked_graphs_and_says_how_far_they_are_from_torch(
    onnx_graphs, tmp_path, monkeypatch, capsys
):
    def given(model, folder):  # the graphs of this model, which are there already
        shutil.copytree(onnx_graphs, folder, dirs_exist_ok=True)
        return json.loads((onnx_graphs / "manifest.json").read_text())

    monkeypatch.setattr("emavos.export.export_onnx", given)
    assert main(["export", "onnx", "--model", "tiny", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "decode.onnx: " in out
    assert "of torch" in out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "decode.onnx",
        "encode_key.onnx",
        "encode_value.onnx",
        "manifest.json",
    ]
    assert main(["export", "onnx", "--out", str(tmp_path / "out")]) == 1
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_half_graphs_are_half_and_close(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    programs = export.export_programs
    monkeypatch.setattr(export, "export_programs", lambda model: {"decode": programs(model)["decode"]})
    model = load_model(dtype=torch.float16)
    folder = str(tmp_path / "new" / "half")
    assert export_onnx(model, folder)["dtype"] == "float16"
    (difference,) = check_onnx(model, folder, [(32, 48, 2)])
    assert 0 < difference.error < 0.01
