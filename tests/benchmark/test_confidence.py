from __future__ import annotations

import json

import numpy as np
import pytest

from emavos.benchmark import confidence


def test_confidence_is_scored_and_its_weights_are_fitted(drifting, tmp_path, capsys):
    file = tmp_path / "x.json"
    options = ["--data", str(drifting), "--size", "48", "--sequences", "one", "--frames", "12"]
    confidence.main([*options, "--json", str(file)])
    assert {row["kind"] for row in json.loads(file.read_text())} == {"whole", "leaving"}
    assert "a confidence is" in capsys.readouterr().out
    signs = np.array([[1.0, x] for x in np.linspace(-2, 2, 200)])
    target = 1 / (1 + np.exp(-(0.5 + 1.5 * signs[:, 1])))
    np.testing.assert_allclose(confidence.fit(signs, target, ridge=0), [0.5, 1.5], atol=1e-3)
    assert confidence.auc([0.1, 0.2, 0.8, 0.8], [True, True, True, False]) == pytest.approx(2.5 / 3)
    assert np.isnan(confidence.auc([0.1], [True]))
