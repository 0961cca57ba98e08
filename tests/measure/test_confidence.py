from __future__ import annotations

import json

import numpy as np
import pytest

import confidence
from emavos.io import read_mask, write_mask


def test_confidence_is_scored_and_its_weights_are_fitted(drifting, tmp_path, capsys):
    file = tmp_path / "x.json"
    options = ["--data", str(drifting), "--size", "48", "--sequences", "one", "--frames", "12"]
    confidence.main([*options, "--json", str(file)])
    assert {row["kind"] for row in json.loads(file.read_text())} == {"whole", "leaving", "dark"}
    assert "a confidence is" in capsys.readouterr().out
    signs = np.array([[1.0, x] for x in np.linspace(-2, 2, 200)])
    target = 1 / (1 + np.exp(-(0.5 + 1.5 * signs[:, 1])))
    np.testing.assert_allclose(confidence.fit(signs, target, ridge=0), [0.5, 1.5], atol=1e-3)
    assert confidence.auc([0.1, 0.2, 0.8, 0.8], [True, True, True, False]) == pytest.approx(2.5 / 3)
    assert np.isnan(confidence.auc([0.1], [True]))


def test_confidence_of_several_objects_is_scored_one_by_one_or_of_their_union(drifting, tmp_path, capsys):
    options = ["--data", str(drifting), "--size", "48", "--frames", "4", "--json", str(tmp_path / "x.json")]
    confidence.main([*options, "--objects"])
    rows = json.loads((tmp_path / "x.json").read_text())
    first = read_mask(drifting / "Annotations/480p/one/00000.png")
    assert [row["object"] for row in rows] == 3 * sorted({*np.unique(first).tolist()} - {0})
    write_mask(tmp_path / "one.png", first)
    confidence.main([*options, "--first-masks", str(tmp_path)])
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [(row["kind"], row["object"]) for row in rows] == 3 * [("union", 0)]
    assert all(row["left"] > 0 and 0 < row["confidence"] < 1 and 0 < row["J"] <= 1 for row in rows)
    assert "union: 3 frames" in capsys.readouterr().out
