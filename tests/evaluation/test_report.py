import csv
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest

from emavos.evaluation import PROTOCOLS, ObjectScore, Score, find_videos, score_videos
from emavos.evaluation.gallery import over_time, pictures_of, qualitative, sections, worst_frames
from emavos.evaluation.html import Section, html_report
from emavos.evaluation.prediction import Run, Timing
from emavos.evaluation.report import (
    Method,
    Table,
    by_sequence,
    objects_table,
    overview,
    to_dict,
    unit_note,
    write_overview,
    write_scores,
)
from emavos.io import read_mask, write_mask
from emavos.visualize import curves
from trees import davis_tree

COW = {1: ObjectScore((1.0, 0.5), (0.5, 0.5)), 2: ObjectScore((0.0, 0.5), (1.0, 0.5))}
APE = {1: ObjectScore((0.25, 0.25), (0.75, 0.75))}
SCORE = Score({"cow": COW, "ape": APE}, names={"cow": tuple("0123"), "ape": tuple("0123")})
CLASSES = Score({"cow": COW, "ape": APE}, seen={"cow": frozenset({1}), "ape": frozenset({1})})


@pytest.fixture
def results(tmp_path):
    """The videos of a tree, and the method that moves the truth of each by some pixels."""
    videos = find_videos(
        davis_tree(tmp_path / "data", {"one": 7, "two": 4}, (48, 64)), PROTOCOLS["davis-like"]
    )
    for video in videos:
        for t, path in enumerate(video.masks):
            (tmp_path / "out" / video.name).mkdir(parents=True, exist_ok=True)
            write_mask(tmp_path / "out" / video.name / path.name, np.roll(read_mask(path), t, axis=1))
    return videos, Method("moved", tmp_path / "out", score_videos(videos, tmp_path / "out"))


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_method_is_a_line_of_scores_speed_memory_and_size():
    run = Run(
        {"model": "a"}, {"cow": Timing(30, 2.0), "ape": Timing(10, 2.0)}, parameters=1234567, peak_mb=500.0
    )
    table = overview([Method("a", None, SCORE, run), Method("b", None, None, None)])
    assert table.columns == ("method", "J&F", "J", "F", "fps", "peak MB", "parameters")
    expected = ("a", SCORE.JF, SCORE.J.mean, SCORE.F.mean, 10.0, 500.0, 1234567)
    assert table.rows == (expected, ("b", *[None] * 6))
    assert table.text().splitlines()[1].split() == ["a", "0.542", "0.417", "0.667", "10", "500", "1,234,567"]
    assert table.text().splitlines()[2].split() == ["b", *"------"]


def test_the_speed_has_its_unit_and_its_machine():
    timed = [Run({}, parameters=1, machine=name) for name in ("a CPU, 2 threads", "a GPU", "a GPU")]
    methods = [Method(str(place), None, None, run) for place, run in enumerate(timed)]
    assert unit_note(methods) == (
        "fps: frames tracked per second, without reading and writing (a CPU, 2 threads, a GPU)"
    )
    assert unit_note([Method("others", None, SCORE, None), Method("copy", None, SCORE, Run({}))]) == ""


def test_a_method_without_a_network_has_no_speed():
    run = Run({}, {"cow": Timing(30, 2.0)})
    assert overview([Method("copy", None, SCORE, run)]).rows[0][-3:] == (None, None, None)


def test_seen_and_unseen_classes_have_columns_of_their_own():
    table = overview([Method("a", None, CLASSES)])
    assert table.columns[1:9] == ("G", "J&F", "J", "F", "J seen", "F seen", "J unseen", "F unseen")
    line = dict(zip(table.columns, table.rows[0], strict=True))
    assert (line["J unseen"], line["F unseen"]) == (0.25, 0.75)
    assert line["G"] == np.mean([line[f"{m} {kind}"] for m in "JF" for kind in ("seen", "unseen")])


def test_sequences_are_lines_and_methods_columns():
    other = Score({"cow": COW})
    table = by_sequence([Method("a", None, SCORE), Method("none", None), Method("b", None, other)])
    assert table.columns == ("sequence", "a", "b")
    assert table.rows == (("cow", 0.5625, 0.5625), ("ape", 0.5, None))


def test_files_hold_what_was_scored_in_full(tmp_path):
    write_scores(SCORE, tmp_path / "scores")
    objects = read_csv(tmp_path / "scores/objects.csv")
    assert [(line["sequence"], line["object"]) for line in objects] == [
        ("cow", "1"),
        ("cow", "2"),
        ("ape", "1"),
    ]
    assert float(objects[0]["J mean"]) == 0.75
    assert float(objects[0]["J decay"]) == COW[1].J.decay
    assert float(read_csv(tmp_path / "scores/sequences.csv")[0]["J&F"]) == pytest.approx(0.5625)
    assert float(read_csv(tmp_path / "scores/global.csv")[0]["F mean"]) == SCORE.F.mean
    stored = json.loads((tmp_path / "scores/scores.json").read_text())
    assert stored == json.loads(json.dumps(to_dict(SCORE)))
    assert stored["sequences"]["cow"]["objects"]["2"]["J_frames"] == [0.0, 0.5]


def test_json_has_null_where_there_is_no_number(tmp_path):
    write_overview([Method("a", None, None, Run({"model": "a"}, parameters=1))], {"protocol": "p"}, tmp_path)
    stored = json.loads((tmp_path / "overview.json").read_text(), parse_constant=pytest.fail)
    assert stored["protocol"] == "p"
    assert stored["methods"][0]["fps"] is None
    assert stored["settings"] == {"a": {"model": "a"}}
    assert (tmp_path / "overview.csv").read_text().splitlines()[1] == "a,,,,,,1"


def test_nothing_is_a_dash_for_people_and_empty_for_csv():
    table = Table(("a", "b"), (("x", None), ("y", math.nan), ("z", 0.5)))
    assert table.text().splitlines() == ["a      b", "x      -", "y      -", "z  0.500"]
    assert table.csv().splitlines() == ["a,b", "x,", "y,", "z,0.5"]


class Page(HTMLParser):
    """What a page loads or links to, its tags, and its text."""

    def __init__(self, text):
        super().__init__()
        self.places, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.places += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_holds_its_pictures_and_needs_nothing_else():
    rng = np.random.default_rng(0)
    pictures = [
        ("noise", rng.integers(0, 256, (80, 100, 3), np.uint8)),
        ("flat", np.zeros((40, 50, 3), np.uint8)),
    ]
    text = html_report("Title", {"machine": "here"}, [Section("S", [("t", objects_table(SCORE))], pictures)])
    page = Page(text)
    assert [place.split(";")[0] for place in page.places] == ["data:image/jpeg", "data:image/png"]
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "0.625" in text  # J&F of the first cow


def test_names_cannot_become_markup():
    evil = '<script>alert("x")</script>&'
    table = Table((evil,), ((evil,),))
    page = Page(
        html_report(
            evil,
            {evil: evil},
            [Section(evil, [(evil, table)], [(evil, np.zeros((2, 2, 3), np.uint8))], evil)],
        )
    )
    assert "script" not in page.tags
    assert page.words.count(evil) == 10


def test_a_grid_has_a_row_for_each_method_below_the_truth(results):
    (one, _), method = results
    alone = qualitative(one, {}, 3, width=400)
    grid = qualitative(one, {"a": method.folder, "b": method.folder}, 3, width=400)
    assert grid.shape[1] == alone.shape[1] == 400
    assert len(grid) > 2 * len(alone)
    named = qualitative(one, {"a": method.folder}, ["00002"], width=400)
    assert named.shape[1] == 400
    with pytest.raises(ValueError, match="one has no frame 99"):
        qualitative(one, {}, ["99"])
    (method.folder / "one/00006.png").unlink()
    with pytest.raises(ValueError, match=r"one/00006.png is missing"):
        qualitative(one, {"a": method.folder}, 3)
    write_mask(method.folder / "one/00006.png", np.ones((4, 5), np.int32))
    with pytest.raises(ValueError, match=r"one/00006.png is 4x5 but its frame is 48x64"):
        qualitative(one, {"a": method.folder}, 3)


def test_more_frames_than_there_are_show_each_once(results):
    (_, two), method = results
    many, all_three = (qualitative(two, {"a": method.folder}, n) for n in (50, 3))
    np.testing.assert_array_equal(many, all_three)


def test_the_worst_frames_are_those_of_the_lowest_score(results):
    (one, _), method = results
    values = method.score.over_time("one")
    assert min(values, key=values.get) == "00005"  # moved farthest
    expected = qualitative(one, {"result": method.folder}, ["00005"], width=300)
    worst = worst_frames(one, method.folder, method.score, count=1, width=300)
    assert worst.shape == expected.shape
    np.testing.assert_array_equal(worst[60:], expected[60:])  # but for the score in the name of the frame


def test_a_report_shows_the_worst_sequences_first(results):
    videos, method = results
    order = sorted(["one", "two"], key=lambda n: np.mean([o.JF for o in method.score.sequences[n].values()]))
    assert [section.title for section in sections(videos, [method], 2)] == order
    assert [section.title for section in sections(videos, [method], 1)] == order[:1]
    shown = pictures_of(videos[0], [method])
    assert list(shown) == ["grid", "curves", "worst-moved"]
    assert list(pictures_of(videos[0], [Method("moved", method.folder)])) == ["grid"]


def test_curves_end_with_the_last_frame_that_counts(results):
    _, method = results
    values = list(method.score.over_time("one").values())
    assert len(values) == 5
    expected = curves({"a": values}, "one: J&F of the frames that are compared", 400, 200, start=1)
    np.testing.assert_array_equal(over_time("one", {"a": method.score}, 400, 200), expected)
