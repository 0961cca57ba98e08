from __future__ import annotations

import dataclasses
import json

import pytest

import training
from emavos.training import STAGES
from trees import training_tree


@pytest.mark.parametrize("options", [[], ["--samples-on-device"]])
def test_the_rates_of_training_are_printed_and_written(tmp_path, capsys, monkeypatch, options):
    small = dataclasses.replace(STAGES["tiny-1"], size=48, batch=2, leave_out=(), sampling="mixed")
    monkeypatch.setitem(STAGES, "tiny-1", small)
    data = training_tree(tmp_path / "data")
    file = tmp_path / "rates.json"
    training.main(["--data", str(data), "--batches", "2", "--workers", "0", "--json", str(file), *options])
    (row,) = json.loads(file.read_text())
    assert all(row[name] > 0 for name in ("data", "compute", "together", "data_cpu", "compute_cpu"))
    assert 0 < row["waiting"] < 1
    assert len(capsys.readouterr().out.splitlines()) == 3
