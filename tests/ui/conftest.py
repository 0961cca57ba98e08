"""A small predictor and clip, and projects of it."""

from __future__ import annotations

import pytest
from PIL import Image

from emavos import Predictor
from emavos.demo import synthetic_clip
from emavos.io import open_frames
from emavos.ui import Project
from emavos.ui.importing import import_video

SIZE = (96, 160)


@pytest.fixture(autouse=True)
def data_home(tmp_path_factory, monkeypatch):
    """A data directory of the test's own, so that no test adds clips to the user's list."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def predictor():
    return Predictor.from_pretrained(device="cpu", size=96)


@pytest.fixture(scope="session")
def clip():
    """Eight frames, and the truth about two objects."""
    frames, truth = synthetic_clip(frames=8, size=SIZE)
    return frames, [mask * (mask < 3) for mask in truth]


@pytest.fixture
def video(tmp_path, clip):
    """The clip as a folder of images, whose names are not their numbers."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for index, frame in enumerate(clip[0]):
        Image.fromarray(frame).save(folder / f"shot{index + 3}.png")
    return folder


@pytest.fixture
def project(tmp_path, video):
    assert list(import_video(tmp_path / "project", open_frames(video), "clip")) == [*range(1, 9)]
    return Project.open(tmp_path / "project")
