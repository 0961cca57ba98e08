"""The walk of a frame: the files that a newcomer reads, as docs/how-it-works.md names them."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emavos
from emavos import Predictor

SOURCE = Path(emavos.__file__).parent
PAGE = Path(__file__).parents[1] / "docs/how-it-works.md"
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)
MASK = np.zeros((64, 96), np.int32)
MASK[10:40, 20:60] = 1


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(device="cpu", size=None)


def entered(run):
    """The files of the library whose functions a call enters, in whatever thread, in the order it does."""
    files = {}

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCE)):
            files.setdefault(Path(frame.f_code.co_filename).relative_to(SOURCE).as_posix())

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(files)


def walk(files):
    """Without the layers, which the config of a network chooses: STCN stands for them."""
    return [file for file in files if not file.startswith("models/") or file == "models/stcn.py"]


def listed(title):
    """The files that a list of the page names, in order."""
    part = PAGE.read_text(encoding="utf-8").split(f"{title}\n", 1)[1].split("\n\n", 2)[1]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", part, re.MULTILINE)


def test_a_step_enters_the_files_that_the_page_names(predictor):
    session = predictor.session()
    session.step(FRAMES[0], MASK)
    files = walk(entered(lambda: [session.step(frame) for frame in FRAMES[1:]]))
    assert {*files} == {*listed("### The files of a step")}
    assert len(files) <= 7


def test_following_a_folder_enters_few_more(predictor, tmp_path):
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / f"{number:05d}.png")
    files = walk(entered(lambda: [result.mask for result in predictor.propagate(tmp_path, MASK)]))
    assert {*files} == {*listed("### The files of a step"), *listed("### The files around it")}
    assert len(files) <= 12
