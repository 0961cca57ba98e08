"""Bad input through the command line: one line on stderr, an exit code, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from emavos.cli import main
from emavos.models import PRESETS, STCN
from emavos.weights import save_model
from trees import davis_tree, training_tree


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    davis_tree(root / "davis", {"one": 2}, size=(32, 48))
    training_tree(root / "training")
    torch.manual_seed(0)
    save_model(STCN(PRESETS["stcn-tiny"]), root / "bad")
    state = load_file(root / "bad" / "model.safetensors")
    state["decoder.pred.bias"].fill_(float("nan"))
    save_file(state, root / "bad" / "model.safetensors")
    (root / "bad.mp4").write_text("text")
    (root / "circle").symlink_to("circle")
    Image.fromarray(np.eye(7, dtype=np.uint8)).save(root / "small.png")
    return root


CLIP = "{data}/davis/JPEGImages/480p/one"
MASKS = "{data}/davis/Annotations/480p/one"
END = "--out {out} --quiet"
COMMANDS = {  # {data} and {out} are filled in
    "segment": f"segment {CLIP} --mask {MASKS}/00000.png {END}",
    "evaluate": f"evaluate --data {{data}}/davis --processes 1 {END}",
    "train": f"train --stage tiny-1 --init tiny --data {{data}}/training --workers 0 {END}",
    "batch": f"batch {{data}}/davis {END}",
    "review": f"review {CLIP} --mask {MASKS}/00000.png {END}",
    "compare": f"compare --data {{data}}/davis --processes 1 {END} {{data}}/davis/Annotations/480p",
    "demo": f"demo --frames 2 {END}",
    "ui": "ui --port 0 --quiet --project {out}",
    "convert": "convert {data}/bad.pth {out}",
    "export": f"export onnx {END}",
    "bench": "bench --model stcn-tiny --frame 32x32 --memory-frames 1 --repeats 1 --json {out}",
    "data": "data check {data}/training",
    "doctor": "doctor",
}
ARGUMENTS = [  # the command, what is added, the exit code and words of the line
    ("segment", "--size 15", 2, "'15' is not a whole number of at least 16"),
    ("segment", "--size 99999", 1, "size is a whole number of pixels from 16 to 8192"),
    ("segment", "--every 0", 2, "'0' is not a whole number of at least 1"),
    ("segment", "--top-k -1", 2, "top-k"),
    ("segment", "--max-frames 1.5", 2, "'1.5' is not a whole number"),
    ("segment", "--still nan", 2, "'nan' is not a number of at least 0"),
    ("segment", "--device tpu", 2, "invalid choice: 'tpu'"),
    ("segment", "--dtype int8", 2, "invalid choice: 'int8'"),
    ("segment", "--overlay a.avi", 1, "is written as .mp4"),
    ("evaluate", "--size 3", 1, "size is a whole number of pixels from 16 to 8192"),
    ("evaluate", "--every 0", 2, "'0' is not a whole number of at least 1"),
    ("evaluate", "--scales 0", 1, "scale"),
    ("evaluate", "--scales nan", 1, "scale"),
    ("evaluate", "--scales 1e9", 1, "scale"),
    ("evaluate", "--scales one", 2, "'one' is not numbers between commas"),
    ("evaluate", "--processes -1", 2, "processes"),
    ("evaluate", "--protocol none", 1, "there is no protocol none"),
    ("evaluate", "--sequence ../one", 1, "../one"),
    ("train", "--stage 9", 1, "there is no stage 9"),
    ("train", "--iterations 0", 2, "'0' is not a whole number of at least 1"),
    ("train", "--set size=40", 1, "size is a multiple of 16, not 40"),
    ("train", "--set batch=1.5", 1, "batch is a whole number, not 1.5"),
    ("train", "--set batch=0", 1, "batch is at least 1, not 0"),
    ("train", "--set lr=NaN", 1, "lr is a number, not nan"),
    ("train", "--set lr=Infinity", 1, "lr is a number, not inf"),
    ("train", '--set seed="x"', 1, "seed is a whole number, not 'x'"),
    ("train", "--set zoom=1", 1, "zoom is a list of two numbers, not 1"),
    ("train", "--set gaps=[[0]]", 1, "gaps are pairs (fraction of the run, gap)"),
    ("train", "--set sources=[3]", 1, "sources is a list of names, not [3]"),
    ("train", "--set nothing=1", 1, "unknown training fields: nothing"),
    ("batch", "--shard 3/2", 2, "a number from 0 to N - 1 and N, not '3/2'"),
    ("batch", "--threads 0", 2, "'0' is not a whole number from 1 to 1024"),
    ("train", "--workers 1000000", 2, "'1000000' is not a whole number from 0 to 1024"),
    ("batch", "--threads 999999999999", 2, "'999999999999' is not a whole number from 1 to 1024"),
    ("batch", "--ray 2 --shard 0/2", 1, "--shard is for processes that know nothing of each other"),
    ("review", "--count 0", 2, "'0' is not a whole number of at least 1"),
    ("review", "--direction up", 2, "invalid choice: 'up'"),
    ("review", "--confidence a.csv", 1, "--masks and --confidence go together"),
    ("compare", "--frames 0", 1, "frames"),
    ("compare", "--frames 00099", 1, "00099"),
    ("compare", "--processes x", 2, "'x' is not a whole number of at least 0"),
    ("compare", "{data}/nothing", 1, "nothing is not a folder of results"),
    ("compare", "{data}/circle", 1, "circle is not a folder of results"),
    ("demo", "--frames 1", 2, "'1' is not a whole number of at least 2"),
    ("demo", "--size 15", 2, "'15' is not a whole number of at least 16"),
    ("demo", "--size 8193", 1, "size is a whole number of pixels from 16 to 8192"),
    ("ui", "--port 70000", 1, "127.0.0.1:70000 cannot be listened on"),
    ("ui", "--port -1", 2, "port"),
    ("ui", "--project {data}/circle", 1, "circle is a link that leads nowhere"),
    ("ui", "--max-upload 0", 2, "'0' is not a whole number of at least 1"),
    ("ui", "--host nowhere.invalid", 1, "cannot be listened on"),
    ("ui", "{data}/circle", 1, "circle does not exist"),
    ("convert", "--preset stcn-tiny", 1, "--preset stcn-tiny is none of stcn,"),
    ("convert", "--preset ../stcn", 1, "--preset ../stcn is none of stcn,"),
    ("export", "--model ../..", 1, "has no config.json"),
    ("bench", "--objects 0", 2, "'0' is not a whole number of at least 1"),
    ("bench", "--memory-frames -1", 2, "memory-frames"),
    ("bench", "--frame 8x8", 2, "'8x8' is not a height and a width of 16 or more"),
    ("bench", "--repeats 0", 2, "'0' is not a whole number of at least 1"),
    ("bench", "--threads 999999999999", 2, "'999999999999' is not a whole number from 1 to 1024"),
    ("bench", "--model nobody", 1, "--model is one of stcn,"),
    ("data", "{data}/davis", 2, "unrecognized arguments"),
    ("doctor", "--json 1", 2, "unrecognized arguments"),
    ("evaluate", "--out {data}/circle", 1, "circle is a link that leads nowhere"),
]
KINDS = {
    "a mask": (f"segment {CLIP} --mask {{data}}/small.png {END}", "mask is 7x7 but frame is 32x48"),
    "a checkpoint": (
        f"{COMMANDS['segment']} --model {{data}}/bad",
        "decoder.pred.bias holds NaN or infinity",
    ),
    "a video": (f"segment {{data}}/bad.mp4 --mask {{data}}/small.png {END}", "is not a video"),
    "a checkpoint of evaluate": (f"{COMMANDS['evaluate']} --model {{data}}/bad", "holds NaN or infinity"),
    "a checkpoint of batch": (f"{COMMANDS['batch']} --model {{data}}/bad", "holds NaN or infinity"),
    "a checkpoint of train": (
        f"train --stage tiny-1 --init {{data}}/bad --data {{data}}/training {END}",
        "holds NaN or infinity",
    ),
}


def check_refused(line, data, out, code, words, capsys):
    """The line fails with this code and one line that has these words; nothing is written."""
    assert main(line.format(data=data, out=out).split()) == code
    output, error = capsys.readouterr()
    assert words in error
    assert error.startswith("emavos: error: ")
    assert error.count("\n") == 1
    assert output == ""
    assert [path for path in [*Path(out).parent.rglob("*")] if path.is_file()] == []


@pytest.mark.parametrize(("command", "more", "code", "words"), ARGUMENTS)
def test_an_argument_out_of_range_is_one_line(data, tmp_path, capsys, command, more, code, words):
    check_refused(f"{COMMANDS[command]} {more}", data, tmp_path / "out", code, words, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_of_each_kind_is_one_line(data, tmp_path, capsys, kind):
    pytest.importorskip("av")
    line, words = KINDS[kind]
    check_refused(line, data, tmp_path / "out", 1, words, capsys)
