"""`emavos segment` with clicks: what it says of arguments, and masks by a prompter of one's own."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.demo import synthetic_clip

FRAMES, TRUTH = synthetic_clip(frames=3, size=(64, 96))


@pytest.fixture
def video(tmp_path, monkeypatch):
    """A folder of frames beside a module whose function finds squares around clicks, and boxes."""
    (tmp_path / "video").mkdir()
    for i, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / "video" / f"{i:05d}.png")
    (tmp_path / "squares_of_clicks.py").write_text(
        "import numpy as np\n"
        "def find(frame, prompt):\n"
        "    y, x = np.mgrid[:frame.shape[0], :frame.shape[1]] + 0.5\n"
        "    mask = np.zeros(frame.shape[:2], bool)\n"
        "    if prompt.box is not None:\n"
        "        left, top, right, bottom = prompt.box\n"
        "        mask = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)\n"
        "    for (px, py), label in zip(prompt.points, prompt.labels):\n"
        "        mask[(abs(x - px) < 8) & (abs(y - py) < 8)] = bool(label)\n"
        "    return mask\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "nothing says what to track"),
        (["--click", "5,5", "--mask", "m.png"], "pass one of them"),
        (["--click", "5"], "'5' is not X,Y"),
        (["--click", "a,b"], "'a,b' is not X,Y"),
        (["--click", "0:5,5"], "an id from 1"),
        (["--box", "1,2,3"], "'1,2,3' is not X0,Y0,X1,Y1"),
        (["--scribble", "1,2,3"], "is not X,Y,X,Y"),
        (["--mask", "m.png", "--click-frame", "2"], "--click-frame changes nothing"),
        (["--click", "5,5", "--prompter", "squares_of_clicks"], "is not MODULE:FUNCTION"),
        (["--click", "5,5", "--prompter", "no_such_module:find"], "cannot be imported"),
        (["--click", "5,5", "--prompter", "squares_of_clicks:lose"], "has no function lose"),
        (["--click", "500,5", "--prompter", "squares_of_clicks:find"], "which is not in the frame"),
        (["--not", "5,5", "--prompter", "squares_of_clicks:find"], "pass a point on it"),
        (
            ["--box", "1,1,9,9", "--box", "2,2,9,9", "--prompter", "squares_of_clicks:find"],
            "object 1 has 2 boxes",
        ),
        (
            ["--click", "5,5", "--click-frame", "3", "--prompter", "squares_of_clicks:find"],
            "after the last frame",
        ),
    ],
)
def test_clicks_that_cannot_be_say_why_and_nothing_is_written(video, arguments, error, capsys):
    assert main(["segment", "video", "--out", "out", "--size", "64", *arguments]) != 0
    assert error in capsys.readouterr().err.replace("\n", " ")
    assert not (video / "out").exists()


def test_a_video_is_followed_from_clicks_on_one_frame(video):
    arguments = ["--click", "20,20", "--not", "24,20", "--box", "3:50,30,80,50", "--click-frame", "1"]
    prompter = ["--prompter", "squares_of_clicks:find", "--size", "64", "--quiet"]
    assert main(["segment", "video", "--out", "out", *arguments, *prompter]) == 0
    masks = [np.asarray(Image.open(path)) for path in sorted((video / "out").glob("*.png"))]
    assert len(masks) == 3
    assert not masks[0].any()
    assert (masks[1][20, 14], masks[1][20, 24], masks[1][40, 60]) == (1, 0, 3)
