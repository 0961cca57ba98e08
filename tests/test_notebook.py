from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
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


def test_a_player_is_used_with_a_screen_reader_and_the_keys_alone(mask, shown):
    frame = np.zeros((*mask.shape, 3), np.uint8)
    [*show([result(mask)] * 3, [frame] * 3, every=1)]
    [*show([result(mask)] * 3, every=1)]
    [*show([result(mask)] * 3, pictures=0)]
    [*show([result(mask)] * 3, [frame] * 3)]
    for page in (*shown, result(mask)._repr_html_()):
        tags = re.findall(r"<(?:img|progress|input)[^>]*>", page)
        assert all(re.search(r'(alt|aria-label)="[^"]+"', tag) for tag in tags), page[:300]
    for tag in re.findall(r"<(?:input|button)[^>]*>", shown[-1]):
        assert "data-lm-suppress-shortcuts" in tag  # JupyterLab leaves the arrow keys to them
    assert 'alt="mask of frame 0: objects 1, 700"' in result(mask)._repr_html_()


def output_of(*arguments, folder):
    """What Python prints in a folder, where warnings are no errors: Jupyter has some of its own."""
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_notebook_shows_progress_and_previews(tmp_path):
    if absent := [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{absent[0]} is not installed")
    output = output_of(RUN, json.dumps(CELLS), folder=tmp_path)
    _, played, looped, alone = json.loads(output)
    for outputs in (played, looped):
        assert len(outputs) == 1  # one picture, which changes
        page = outputs[0]["data"]["text/html"]
        assert "<p>6 frames</p>" in page
        assert 'type="range" min="0" max="5"' in page
    assert "data:image/jpeg;base64," in played[0]["data"]["text/html"]
    assert "data:image/png;base64," in looped[0]["data"]["text/html"]  # masks, as there are no frames
    assert {"image/png", "text/html"} <= alone[0]["data"].keys()


NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print("".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ())))
"""


def test_the_quickstart_notebook_runs_and_is_saved_without_outputs(tmp_path):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    if importlib.util.find_spec("nbclient") is None or importlib.util.find_spec("ipykernel") is None:
        pytest.importorskip("IPython")
        exec("\n".join(cell["source"] for cell in cells), {})
        return
    output = output_of(EXECUTE, str(NOTEBOOK), folder=tmp_path)
    assert "emavos-player" in output
    assert "<p>8 frames</p>" in output
    assert "image/png" in output


def test_results_pass_through_unchanged(mask):
    pytest.importorskip("IPython")
    results = [result(mask), result(mask)]
    assert [*show(results)] == results
    assert [*show([])] == []


@pytest.fixture
def shown(monkeypatch):
    """The pages that a notebook is given, in order."""
    ipython = pytest.importorskip("IPython")
    pages = []
    handle = SimpleNamespace(update=lambda page: pages.append(page.data))
    monkeypatch.setattr(ipython, "get_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *page, **options: handle)
    return pages


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(2, 2, [0, 1]), (5, 4, [0, 2, 4]), (9, 4, [0, 4, 8]), (100, 7, [*range(0, 100, 16)])],
)
def test_a_player_has_evenly_spaced_pictures_and_never_too_many(mask, shown, count, most, kept):
    results = [replace(result(mask), index=index) for index in range(count)]
    assert [*show(results, pictures=most)] == results
    names = json.loads(re.search(r"names = (\[.*?\]);", shown[-1])[1])
    assert names == [f"frame {index}" for index in kept]
    assert shown[-1].count("data:image") == len(kept) + 1
    assert f"}}, {round(1000 * (kept[1] - kept[0]) / 10)});" in shown[-1]  # ten frames a second


def test_a_player_fetches_nothing_and_is_the_same_for_the_same_results(mask, shown):
    frame = np.zeros((*mask.shape, 3), np.uint8)
    for _ in range(2):
        assert len([*show([result(mask)] * 3, [frame] * 3)]) == 3
    assert shown[-1] == shown[len(shown) // 2 - 1]
    assert not re.search(r"https?:|src=\"(?!data:)", shown[-1])


def test_without_a_player_the_last_picture_stays(mask, shown):
    for results, options in (([result(mask)] * 3, {"pictures": 0}), ([result(mask)], {})):
        assert [*show(results, **options)] == results
        assert "script" not in shown[-1]
        assert f"<p>{len(results)} frame" in shown[-1]


def test_a_player_plays_and_scrubs_in_a_file_without_a_server(tmp_path, mask, shown):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("there is no chromium with chromedriver")
    from selenium.webdriver.support.wait import WebDriverWait

    masks = [np.roll(mask, 40 * index, 1) for index in range(6)]
    assert len([*show([replace(result(m), index=i) for i, m in enumerate(masks)])]) == 6
    (tmp_path / "saved.html").write_text(f"<!doctype html><title>t</title>{shown[-1]}{shown[-1]}")  # twice
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get((tmp_path / "saved.html").as_uri())
        for player in browser.find_elements("class name", "emavos-player"):
            image, button, slider, name = (
                player.find_element("tag name", tag) for tag in ("img", "button", "input", "output")
            )
            assert name.text == "frame 5"
            last = image.get_attribute("src")
            slider.send_keys("\ue012\ue012")  # left
            assert name.text == "frame 3"
            assert image.get_attribute("alt") == slider.get_attribute("aria-valuetext") == "frame 3"
            assert image.get_attribute("src") != last
            wide = slider.size["width"]
            button.click()
            assert button.text == "Pause"
            assert slider.size["width"] == wide
            assert slider.size["width"] < image.size["width"]
            WebDriverWait(browser, 20, poll_frequency=0.02).until(lambda _, name=name: name.text == "frame 1")
            button.click()
            stopped = name.text
            assert button.text == "Play"
            assert name.text == stopped
    finally:
        browser.quit()


def test_frames_that_end_before_their_results_are_told_as_such(mask, shown):
    frame = np.zeros((*mask.shape, 3), np.uint8)
    assert len([*show([result(mask)] * 2, [frame] * 2)]) == 2
    with pytest.raises(ValueError, match="frames end before result 1"):
        [*show([result(mask)] * 2, [frame])]


def test_what_cannot_be_shown_is_refused(without_package):
    pytest.importorskip("IPython")
    with pytest.raises(ValueError, match="every is a whole number"):
        show([], every=0)
    with pytest.raises(ValueError, match="pictures is 0, or a whole number of at least 2"):
        show([], pictures=1)
    without_package("IPython")
    with pytest.raises(ImportError, match=r"\[notebook\]"):
        show([])
