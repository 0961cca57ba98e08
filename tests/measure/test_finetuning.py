from __future__ import annotations

import json

import finetuning
from trees import davis_tree


def test_fine_tuning_is_measured_on_the_half_that_it_did_not_see(tmp_path, capsys):
    data = davis_tree(tmp_path / "clips", {"one": 10})
    options = ["--clips", "one", "--masks", "2", "--iterations", "1", "--json", str(tmp_path / "x.json")]
    finetuning.main(["--data", str(data), *options])
    row = json.loads((tmp_path / "x.json").read_text())["one"]
    assert 0 < row["before"] <= 1
    assert 0 < row["after"] <= 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("mean")
