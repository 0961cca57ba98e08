"""Checkpoints and saved sessions from strangers, as the table of docs/input.md lists them."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from emavos import Session
from emavos.bridges import read_stack
from emavos.weights import save_model
from emavos.weights.convert import read_checkpoint
from emavos.weights.load import load_model

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
BIAS = "decoder.pred.bias"


def weights(change):
    def make(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return make


def content(change):
    path = "model.safetensors"
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def config(**fields):
    def make(folder):
        known = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(known | fields))

    return make


def swap(state):
    other = "decoder.pred.weight"
    state[BIAS], state[other] = state[other], state[BIAS]


def header(length):
    return content(lambda whole: length.to_bytes(8, "little") + whole[8:])


WHOLE, FIELD = "is not a whole safetensors file", r"config\.json: "
MODELS = {  # the case as the page tells it: what makes it, and words of the message
    "weights cut in the middle": (content(lambda whole: whole[: len(whole) // 2]), WHOLE),
    "an empty file of weights": (content(lambda whole: b""), WHOLE),
    "weights under each other's names": (weights(swap), rf"{re.escape(BIAS)} is \(1, .*\), not \(1,\)"),
    "weights with NaN or infinity": (weights(lambda s: s[BIAS].fill_(np.nan)), "holds NaN or infinity"),
    "weights of whole numbers": (weights(lambda s: s.update({BIAS: s[BIAS].long()})), "torch.int64, not"),
    "a header of weights that declares 2^63 bytes": (header(2**63), WHOLE),
    "a header of weights that declares 50 MB": (header(50_000_000), WHOLE),
    "a header of weights that declares nothing": (header(0), WHOLE),
    "a pickle under the name of weights": (content(lambda whole: pickle.dumps({"a": 1})), WHOLE),
    "a config of 4096 channels everywhere": (
        config(key_channels=4096, value_channels=4096, context_channels=4096, decoder_channels=[4096] * 3),
        "does not fit its config",
    ),
    "a config with an unknown field": (config(slot=3), FIELD + "unknown config fields: slot"),
    "a config with a billion slots": (config(slots=10**9), FIELD + "slots is a whole number from 1 to 4096"),
    "a config with a negative size": (config(key_channels=-1), FIELD + "key_channels is a whole number"),
    "a config with a size of NaN": (config(key_channels=float("nan")), FIELD + "key_channels is a whole"),
    "a config with an unknown trunk": (config(trunk="../trunk"), FIELD + "trunk is one of"),
    "a config with lists in lists": (config(decoder_channels=[[1], 2, 3]), FIELD + "decoder_channels"),
    "a config with an object for a name": (config(trunk={"a": 1}), FIELD + "trunk is one of"),
    "a config of 200,000 brackets": (
        lambda folder: (folder / "config.json").write_text("[" * 200_000),
        FIELD,
    ),
}


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_is_refused(model, tmp_path, case):
    make, words = MODELS[case]
    save_model(model, tmp_path)
    make(tmp_path)
    with pytest.raises(ValueError, match=words) as error:
        load_model(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize("length", [2**63, 2**62, 99_000_000])
def test_a_header_that_declares_much_takes_little(model, tmp_path, length):
    save_model(model, tmp_path)
    header(length)(tmp_path)
    code = """
import resource, sys
from emavos.weights.load import load_model
from emavos.weights import save_model
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20),) * 2)
try:
    load_model(sys.argv[1])
except ValueError as error:
    print("not a whole safetensors file" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def settings(**changes):
    return lambda tensors, session: session["settings"].update(changes)


def facts(**changes):
    return lambda tensors, session: session.update(changes)


def group(**changes):
    return lambda tensors, session: session["groups"][0].update(changes)


def tensor(name, change):
    return lambda tensors, session: tensors.update({f"0.{name}": change(tensors[f"0.{name}"])})


def seen(name, change):
    return lambda tensors, session: tensors.update({f"seen.{name}": change(tensors[f"seen.{name}"])})


SESSIONS = {
    "a saved session with NaN or infinity": (tensor("keys", lambda x: x * np.nan), "keys holds NaN"),
    "a saved session with tensors of another shape": (tensor("values", lambda x: x[..., 1:]), "values is"),
    "a saved session with tensors of another type": (tensor("keys", lambda x: x.long()), "keys is torch.int"),
    "a saved session with an unknown tensor": (
        lambda tensors, session: tensors.update(more=torch.zeros(1)),
        "it holds more",
    ),
    "a saved session with a missing tensor": (
        lambda tensors, session: tensors.pop("0.keys"),
        "a memory of it",
    ),
    "a saved session with a negative index": (facts(index=-1), "ends at frame -1"),
    "a saved session with an index of text": (facts(index="1"), "ends at frame '1'"),
    "a saved session with frames of no size": (facts(frame_size=[0, 48]), r"its frames are \[0, 48\]"),
    "a saved session with frames of a huge size": (facts(frame_size=[10**9, 10**9]), "keys is"),
    "a saved session with an id of 0": (group(ids=[0]), "its ids are"),
    "a saved session with an id of text": (group(ids=["a"]), "its ids are"),
    "a saved session with a memory of a later frame": (group(slots=[["kept", 99]]), "frame 99"),
    "a saved session without a mask of its objects": (group(slots=[["temporary", 0]]), "never given"),
    "a saved session with a frame twice": (group(slots=[["given", 0]] * 2), "holds a frame twice"),
    "a saved session with a border of NaN": (facts(edges={"7": float("nan")}), "lie at the border"),
    "a saved session with places of another shape": (seen("cells", lambda x: x[:, 1:]), "seen.cells is"),
    "a saved session with places of another type": (seen("cells", lambda x: x.float()), "seen.cells is"),
    "a saved session with an object in no cell": (seen("cells", lambda x: x & False), "seen in no cell"),
    "a saved session with a negative absence": (seen("absent", lambda x: x - 1), "the absence or the speed"),
    "a saved session with a speed of NaN": (seen("speed", lambda x: x * 0), "the absence or the speed"),
    "a saved session with an unknown kind of memory": (group(slots=[["x", 0]]), "as 'x'"),
    "a saved session with an invalid policy": (settings(every=0), "every is a whole"),
    "a saved session with groups of text": (facts(groups="text"), "indices must be integers"),
    "a saved session with a working size of a billion": (settings(size=10**9), "size is a whole number"),
    "a saved session without its index": (lambda tensors, session: session.pop("index"), "it lacks 'index'"),
    "a saved session of an unknown format": (facts(format=[]), r"its format is \[\]"),
}


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    session = Session(model, size=None)
    session.step(np.full((32, 48, 3), 90, np.uint8), np.eye(32, 48, dtype=np.uint8) * 7)
    path = tmp_path_factory.mktemp("sessions") / "whole"
    session.save(path)
    return path


def test_a_pipe_is_no_session_and_no_checkpoint_and_is_not_waited_for(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for read, what in (
        (lambda path: Session.load(path, model), "a saved session"),
        (read_checkpoint, "a checkpoint"),
        (read_stack, "a stack of masks"),
    ):
        with pytest.raises(ValueError, match=f"pipe is a pipe or a device, not {what}"):
            read(tmp_path / "pipe")
        with pytest.raises(ValueError, match=f"folder is a folder, not {what}"):
            read(tmp_path / "folder")


PIPE = "a pipe or a folder as a saved session"
LARGE = "a saved session of numbers that are too large"


def test_a_saved_session_of_numbers_that_are_too_large_names_frame_and_object(model, saved, tmp_path):
    from safetensors import safe_open

    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(saved)
    tensors["0.values"].fill_(3e38)
    save_file(tensors, tmp_path / "large", metadata=metadata)
    session = Session.load(tmp_path / "large", model)
    with pytest.raises(FloatingPointError, match="frame 1: the network gives NaN or infinity for object 7"):
        session.step(np.full((32, 48, 3), 90, np.uint8))
    assert session.index == 1


@pytest.mark.parametrize("case", SESSIONS)
def test_a_saved_session_that_cannot_be_is_refused(model, saved, tmp_path, case):
    from safetensors import safe_open

    change, words = SESSIONS[case]
    with safe_open(saved, "pt") as file:
        session = json.loads(file.metadata()["session"])
    tensors = load_file(saved)
    Session.load(saved, model)
    change(tensors, session)
    tensors = {name: x.contiguous() for name, x in tensors.items()}
    save_file(tensors, tmp_path / "bad", metadata={"session": json.dumps(session)})
    with pytest.raises(ValueError, match=rf"bad is not a saved session, or is damaged: .*{words}"):
        Session.load(tmp_path / "bad", model)


@pytest.mark.parametrize("case", [*MODELS, *SESSIONS, PIPE, LARGE])
def test_the_page_tells_of_each_model_and_session(case):
    assert f"| {case} |" in PAGE.read_text()
