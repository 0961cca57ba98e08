"""Which frames to correct first."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.confidence import ObjectState
from emavos.demo import synthetic_clip
from emavos.io import read_mask, write_mask
from emavos.review import suggest


def states(confidences, area=100):
    return [{1: ObjectState(area > 0, value, area)} for value in confidences]


def test_a_long_unsure_stretch_comes_before_one_bad_frame():
    line = np.full(60, 0.95)
    line[10] = 0.3
    line[30:50] = 0.5
    found = suggest(states(line), direction="both")
    assert 35 <= found[0].frame <= 45
    assert (found[0].first, found[0].last) == (30, 49)
    assert 10 in [one.frame for one in found]


def test_forward_the_beginning_of_trouble_is_corrected_and_backward_its_end():
    line = np.full(60, 0.95)
    line[30:50] = 0.5
    assert suggest(states(line), 1, "forward")[0].frame == 30
    assert suggest(states(line), 1, "backward")[0].frame == 49


def test_what_is_sure_is_not_suggested():
    assert suggest(states([1.0, 0.9, 0.8])) == []


def test_frames_beside_one_another_are_suggested_where_no_others_are_left():
    found = suggest(states([0.9, 0.0, 0.0, 0.9]), direction="both")
    assert [one.frame for one in found] == [1, 2]
    assert found[1].gain < found[0].gain / 5


def test_suggestions_within_a_long_stretch_lie_apart():
    frames = [one.frame for one in suggest(states([0.4] * 80), count=5, direction="both")]
    assert len(frames) == 5
    assert min(abs(a - b) for i, a in enumerate(frames) for b in frames[:i]) > 3


def test_a_frame_that_was_helped_already_does_not_hide_one_far_away():
    line = [0.3, 0.69, *[0.72] * 100, *[0.95] * 50, 0.65]  # the second would help those that are sure
    assert [one.frame for one in suggest(states(line))] == [0, 152]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_a_long_video_is_reviewed_as_its_parts_are(direction):
    """Of frames that are far apart; and no matrix of all pairs of them is made, which would be 7 GB here."""
    line = np.full(30_000, 0.95)
    line[20_000:20_020] = 0.5
    (whole,), (part,) = (suggest(states(x), 1, direction) for x in (line, line[19_000:21_000]))
    assert whole.frame == part.frame + 19_000
    assert whole.gain == pytest.approx(part.gain)


def test_the_reason_is_told_of_the_least_sure_object():
    normal = [{1: ObjectState(True, 0.9, 100), 2: ObjectState(True, 0.9, 50)} for _ in range(9)]

    def reason(state):
        (found,) = suggest([*normal, {1: ObjectState(True, 0.8, 100), 2: state}], 1)
        assert (found.frame, found.object) == (9, 2)
        return found.reason

    assert reason(ObjectState(False, 0.1, 0)) == "has no mask, and was not seen to leave"
    assert reason(ObjectState(True, 0.5, 10)) == "shrunk to 20% of its usual area"
    assert reason(ObjectState(True, 0.5, 200)) == "grown to 400% of its usual area"
    assert reason(ObjectState(True, 0.5, 60)) == "its outline is blurred"


def test_what_cannot_be_reviewed_is_told():
    with pytest.raises(ValueError, match="no object in any frame"):
        suggest([{}, {}])
    with pytest.raises(ValueError, match="count is at least 1, not 0"):
        suggest(states([0.5]), count=0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A clip whose second half is dark, and the mask of its first frame."""
    monkeypatch.chdir(tmp_path)
    frames, truth = synthetic_clip(frames=8, size=(64, 96))
    (tmp_path / "clip").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame // (1 if i < 4 else 12)).save(tmp_path / "clip" / f"{i}.png")
    write_mask("first.png", truth[0])
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_masks_are_reviewed_as_the_video_that_they_were_found_in(here, capsys):
    options = ["--mask", "first.png", "--size", "0"]
    assert main(["segment", "clip", *options, "--out", "masks", "--confidence", "sure.csv", "--quiet"]) == 0
    table = rows("sure.csv")
    assert [row["frame"] for row in table[::3]] == [str(i) for i in range(8)]
    assert all(float(row["confidence"]) == 1 for row in table[:3])
    assert max(len(row["confidence"]) for row in table) <= len("0.1234")
    areas = [np.count_nonzero(read_mask(f"masks/{row['frame']}.png") == int(row["object"])) for row in table]
    assert [int(row["area"]) for row in table] == areas
    assert main(["review", "clip", "--masks", "masks", "--confidence", "sure.csv", "--out", "one"]) == 0
    assert "why" in capsys.readouterr().out
    assert main(["review", "clip", *options, "--out", "two", "--quiet"]) == 0
    found = rows("one/review.csv")
    assert found == rows("two/review.csv")
    assert found[0]["rank"] == "1"
    assert np.array_equal(np.array(Image.open("one/review.png")), np.array(Image.open("two/review.png")))
    assert len(list((here / "two" / "masks").iterdir())) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--masks", "clip"], "--masks and --confidence go together"),
        (["--mask", "first.png", "--confidence", "x.csv"], "--masks and --confidence go together"),
        (["--masks", "clip", "--confidence", "odd.csv"], "has not the columns frame, object"),
        (["--masks", "clip", "--confidence", "other.csv"], "has frame 99, but VIDEO does not"),
        (["--masks", "clip", "--confidence", "broken.csv"], "is damaged in line 2"),
        (["--masks", "clip", "--confidence", "other.csv", "--every", "9"], "--every changes nothing"),
    ],
)
def test_a_review_that_cannot_be_is_told_and_writes_nothing(here, capsys, options, message):
    head = "frame,object,present,confidence,area\n"
    (here / "odd.csv").write_text("a,b\n1,2\n")
    (here / "other.csv").write_text(head + "99,1,1,0.5,3\n")
    (here / "broken.csv").write_text(head + "1,1,1,nan,3\n")
    assert main(["review", "clip", *options, "--out", "out"]) == 1
    assert message in capsys.readouterr().err
    assert not (here / "out").exists()


def test_a_direction_other_than_forward_is_an_option(here):
    (here / "masks").mkdir()
    write_mask("masks/5.png", read_mask("first.png"))
    options = ["--mask", "masks", "--size", "0", "--quiet"]
    assert main(["segment", "clip", *options, "--out", "out", "--direction", "both"]) == 0
    assert all(read_mask(f"out/{i}.png").any() for i in (0, 5, 7))
    assert main(["segment", "clip", *options, "--out", "back", "--direction", "backward"]) == 0
    assert [read_mask(f"back/{i}.png").any() for i in (0, 5, 7)] == [True, True, False]
