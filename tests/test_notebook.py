from __future__ import annotations

import builtins
import importlib.util
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import Result
from emavos.io import palette
from emavos.notebook import show

CELLS = (
    """
from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.notebook import show

frames, truth = synthetic_clip(frames=6, size=(48, 64))
predictor = Predictor.from_pretrained(device="cpu", size=48)
""",
    "show(predictor.propagate(frames, truth[0]), frames, every=2)",
    "seen = [r.index for r in show(predictor.propagate(frames, truth[0]))]\nassert seen == [*range(6)]",
    "next(iter(predictor.propagate(frames, truth[0])))",
)
# jupyter_client warns of what is deprecated in itself, so a process runs it whose warnings are no errors
RUN = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in json.loads(sys.argv[1])])
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def result(mask, ids=(1, 700)):
    planes = torch.stack([torch.from_numpy(mask == id) for id in (0, *ids)]).float()
    return Result(0, ids, planes, (0.9,) * len(ids))


@pytest.fixture
def mask():
    mask = np.zeros((40, 1300), np.int32)
    mask[4:20, 8:600], mask[24:, 700:] = 1, 700
    return mask


def test_a_result_is_shown_as_its_mask_in_colours(mask):
    with Image.open(io.BytesIO(result(mask)._repr_png_())) as image:
        shown = np.array(image.convert("RGB"))
        assert image.size == (434, 14)
    np.testing.assert_array_equal(shown[3, 10], palette()[1])
    np.testing.assert_array_equal(shown[12, 300], palette()[(700 - 1) % 255 + 1])
    assert "objects 1, 700<" in result(mask)._repr_html_()
    assert "objects none" in result(0 * mask)._repr_html_()


def test_a_notebook_shows_progress_and_previews(tmp_path):
    if absent := [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(CELLS)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, played, looped, alone = json.loads(done.stdout)
    for outputs in (played, looped):
        assert len(outputs) == 1  # one picture, which changes
        page = outputs[0]["data"]["text/html"]
        assert "data:image/png;base64," in page
        assert "<p>6 frames</p>" in page
    assert '<progress value="6" max="6">' in played[0]["data"]["text/html"]
    assert {"image/png", "text/html"} <= alone[0]["data"].keys()


def test_results_pass_through_unchanged(mask):
    pytest.importorskip("IPython")
    results = [result(mask), result(mask)]
    assert [*show(results)] == results
    assert [*show([])] == []


def test_frames_that_end_before_their_results_are_told_as_such(mask, monkeypatch):
    ipython = pytest.importorskip("IPython")
    handle = SimpleNamespace(update=lambda page: None)
    monkeypatch.setattr(ipython, "get_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *page, **options: handle)
    frame = np.zeros((*mask.shape, 3), np.uint8)
    assert len([*show([result(mask)] * 2, [frame] * 2)]) == 2
    with pytest.raises(ValueError, match="frames end before result 1"):
        [*show([result(mask)] * 2, [frame])]


def test_what_cannot_be_shown_is_refused(monkeypatch):
    pytest.importorskip("IPython")
    with pytest.raises(ValueError, match="every is a whole number"):
        show([], every=0)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("IPython"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"\[notebook\]"):
        show([])
