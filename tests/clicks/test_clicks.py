"""Masks from clicks: what a prompt may be, what a click changes, and following from clicks only."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from emavos import Predictor
from emavos.clicks import Clicked, ClickHead, SeenFrame
from emavos.clicks.pieces import near_clicks
from emavos.clicks.planes import PLANES, Prompts, planes_of
from emavos.clicks.prompt import make_prompt
from emavos.clicks.seen import score_of
from emavos.demo import synthetic_clip
from emavos.io import InputWarning
from emavos.weights import load_clicks, load_model, save_clicks
from emavos.weights.load import KNOWN

FRAMES, TRUTH = synthetic_clip(frames=3, size=(70, 110))
SIZE = (70, 110)


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def predictor(model):
    """A predictor whose head is not trained: its masks are the same each time, and nothing else."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Predictor(model, size=64, clicks=ClickHead.of(model).eval())


@pytest.fixture
def square(model):
    """A predictor whose prompter finds squares: around each positive click, without the negative ones."""

    def prompter(frame, prompt):
        assert frame.dtype == np.uint8
        assert frame.shape[2] == 3
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]] + 0.5
        mask = np.zeros(frame.shape[:2], bool) if prompt.mask is None else prompt.mask > 0.5
        for (px, py), label in zip(prompt.points, prompt.labels, strict=True):
            mask[(abs(x - px) < 8) & (abs(y - py) < 8)] = bool(label)
        return mask

    return Predictor(model, size=64, prompter=prompter)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({}, "there is no click on the object"),
        ({"points": []}, "there is no click on the object"),
        ({"mask": np.ones(SIZE, bool)}, "there is no click on the object"),
        ({"points": [(110, 5)]}, r"\(110, 5\), which is not in the frame: x is from 0 to 109"),
        ({"points": [(5, float("nan"))]}, "which is not in the frame"),
        ({"points": [(1, 2, 3)]}, r"an array \(N, 2\), not \(1, 3\)"),
        ({"points": "here"}, "points are pairs"),
        ({"points": [(5, 5)], "labels": [1, 0]}, "labels are one for each of the 1 points"),
        ({"points": [(5, 5)], "labels": [2]}, r"labels are 1 \(the object\) and 0"),
        ({"points": [(5, 5)], "labels": [0]}, "all points are beside the object"),
        ({"box": (10, 10, 5, 20)}, "box is"),
        ({"box": (0, 0, 111, 20)}, "box is"),
        ({"box": 3}, "four numbers, not 3"),
        ({"scribbles": 3}, "scribbles are a list of lines"),
        ({"scribbles": [[(1, 1), (200, 1)]]}, r"scribbles\[0\] hold \(200, 1\)"),
        ({"points": [(5, 5)], "mask": np.ones((3, 3), bool)}, "mask is 3x3 but frame is 70x110"),
        ({"points": [(5, 5)], "mask": np.full(SIZE, 1.5)}, "probabilities from 0 to 1"),
    ],
)
def test_prompts_that_do_not_fit_the_frame_say_why(said, error):
    with pytest.raises(ValueError, match=error):
        make_prompt(SIZE, **said)


def test_a_scribble_is_a_row_of_clicks():
    prompt = make_prompt(SIZE, scribbles=[[(10, 20), (50, 20)], [(5, 60)]], scribble_labels=[1, 0])
    line = prompt.points[prompt.labels == 1]
    assert (line[0].tolist(), line[-1].tolist()) == ([10.5, 20.5], [50.5, 20.5])
    assert np.diff(line[:, 0]).max() <= 8
    assert prompt.points[prompt.labels == 0].tolist() == [[5.5, 60.5]]


def test_clicks_are_disks_where_they_were_made_and_boxes_cover_what_is_inside():
    prompts = Prompts(
        torch.tensor([[[10.0, 6.0], [50.0, 30.0], [0.0, 0.0]]]),
        torch.tensor([[1, 0, -1]]),
        torch.tensor([[8.0, 4.0, 24.0, 12.0]]),
        torch.zeros(1, 1, 10, 16),
        torch.zeros(1),
    )
    planes = planes_of(prompts)[0]
    assert planes.shape == (PLANES, 10, 16)
    assert planes.min() >= 0
    assert planes.max() <= 1
    assert planes[0, 1, 2] == planes[3, 7, 12] == 1
    assert divmod(int(planes[1].argmax()), 16) == (1, 2)
    assert divmod(int(planes[4].argmax()), 16) == (7, 12)
    assert planes[0, 0, 0] == planes[3, 0, 0] == 0  # no point
    inside = torch.zeros(10, 16)
    inside[1:3, 2:6] = 1
    torch.testing.assert_close(planes[6], inside)
    torch.testing.assert_close(planes[7], 1 - inside)


def test_a_click_gives_a_mask_of_the_size_of_the_frame_with_a_score(predictor):
    for said in ({"points": [(50, 30)]}, {"box": (20, 10, 60, 50)}, {"scribbles": [[(20, 20), (60, 50)]]}):
        found = predictor.click(FRAMES[0], **said)
        assert found.mask.shape == SIZE
        assert found.mask.dtype == bool
        assert found.prob.shape == SIZE
        assert 0 <= found.prob.min() <= found.prob.max() <= 1
        assert 0 <= found.score <= 1


def test_a_frame_that_was_encoded_before_is_clicked_on_alike(predictor, square, monkeypatch):
    assert predictor.shares_features
    assert not square.shares_features
    expected = predictor.look(FRAMES[0]).click([(30, 30)])
    encoded = predictor.encode(FRAMES[0])
    monkeypatch.setattr(predictor.network, "encode_key", None)
    assert torch.equal(predictor.look(encoded).click([(30, 30)]).prob, expected.prob)
    assert square.look(square.encode(FRAMES[0])).click([(30, 30)]).mask[30, 30]


def test_a_frame_that_was_looked_at_gives_what_a_click_gives(predictor):
    seen = predictor.look(FRAMES[0])
    first = seen.click([(50, 30)])
    torch.testing.assert_close(first.prob, predictor.click(FRAMES[0], [(50, 30)]).prob)
    again = seen.click([(50, 30), (5, 5)], [1, 0], mask=first)
    assert not torch.equal(again.prob, first.prob)


def test_looking_at_a_frame_encodes_it_and_clicks_do_not(predictor, monkeypatch):
    seen = predictor.look(FRAMES[0])
    monkeypatch.setattr(predictor.network, "encode_key", None)
    seen.click([(50, 30)])
    seen.click([(50, 30), (9, 9)], [1, 0])


@pytest.mark.parametrize("name", ["tiny", "base"])
@pytest.mark.filterwarnings("ignore:base has no click head")
def test_clicks_work_in_half_precision(name):
    half, single = (Predictor.from_pretrained(name, dtype=x, size=64) for x in ("bfloat16", "float32"))
    clicked, expected = (x.click(FRAMES[0], [(50, 30)]) for x in (half, single))
    assert expected.mask.any()
    assert (clicked.prob - expected.prob).abs().max() < 0.1
    video = half.session()
    video.step(FRAMES[0])
    assert (video.click([(50, 30)], id=7).mask == 7).any()


def test_a_mask_from_elsewhere_changes_only_in_pieces_near_clicks():
    before = torch.zeros(1, 1, 20, 30)
    before[..., 2:8, 2:8] = 1
    after = before.bool()
    after[..., 2:8, 8:12] = True  # a piece more, at the first
    after[..., 12:18, 20:28] = True  # and one that nobody clicked on
    prompts = Prompts(
        torch.tensor([[[40.0, 20.0]]]),
        torch.ones(1, 1),
        torch.full((1, 4), float("nan")),
        before,
        torch.ones(1),
    )
    where = near_clicks(after, prompts)[0, 0]
    assert where[2:8, 8:12].all()
    assert not where[10:].any()
    assert not where[:, :6].any()


def test_parts_far_from_all_clicks_on_the_object_are_left_out(model, monkeypatch):
    logits = torch.full((1, 1, 40, 56), -2.0)  # of a frame of 70x110, at half of its padded size
    logits[..., 4:12, 4:16] = 2
    logits[..., 4:12, 18:26] = 2  # 4 pixels beside the first
    logits[..., 24:32, 40:50] = 2  # far from both
    monkeypatch.setattr(ClickHead, "forward", lambda head, seen, prompts: logits.clone())
    seen = Predictor(model, size=None, clicks=ClickHead.of(model).eval()).look(FRAMES[0])

    def parts(points, labels=None, **more):
        found = seen.click(points, labels, **more)
        assert 0 < found.score <= 1
        return [bool(found.mask[place]) for place in ((16, 20), (16, 44), (56, 90))]

    assert parts([(20, 16)]) == [True, True, False]
    assert parts([(20, 16)], mask=seen.click([(20, 16)])) == [True, True, False]
    assert parts([(20, 16), (90, 56)]) == [True, True, True]  # a click adds what it is on
    assert parts([(20, 16), (90, 56)], [1, 0]) == [True, True, False]
    assert parts([(20, 16)], mask=seen.click([(20, 16), (90, 56)])) == [
        True,
        True,
        True,
    ]  # it was there before
    assert parts([(109, 69)]) == [True, True, True]  # the last pixel
    assert parts([(100, 2)]) == [True, True, True]  # there is nothing, so nothing is left out
    assert parts([(20, 16)], box=(0, 0, 110, 70)) == [True, True, True]


def test_a_predictor_without_a_head_says_so(model, tmp_path):
    with pytest.raises(ValueError, match="no click head"):
        Predictor(model, size=64).click(FRAMES[0], [(5, 5)])
    model.save_pretrained(tmp_path / "own")
    with pytest.raises(ValueError, match=r"own has no clicks.safetensors"):
        Predictor.from_pretrained(tmp_path / "own", size=64).click(FRAMES[0], [(5, 5)])


def test_clicks_with_base_are_answered_by_tiny_which_is_told_once():
    base = Predictor.from_pretrained("base", size=64)
    with pytest.warns(InputWarning, match="base has no click head: tiny finds the masks of clicks"):
        first = base.click(FRAMES[0], [(50, 30)])
    tiny = Predictor.from_pretrained(size=64)
    torch.testing.assert_close(first.prob, tiny.click(FRAMES[0], [(50, 30)]).prob)
    video, other = base.session(), pickle.loads(pickle.dumps(base)).session()
    for session in (video, other):
        session.step(FRAMES[0])
        result = session.click([(50, 30)], id=3)
        np.testing.assert_array_equal(result.mask == 3, first.mask)
        assert session.step(FRAMES[1]).ids == (3,)


def test_a_head_comes_back_from_its_file_and_a_wrong_one_is_refused(model, predictor, tmp_path):
    path = tmp_path / "clicks.safetensors"
    save_clicks(predictor._looker.head()[0], path, torch.float32)
    state = torch.random.get_rng_state()
    head = load_clicks(model, path)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = Predictor(model, size=64, clicks=head)
    torch.testing.assert_close(
        other.click(FRAMES[0], [(50, 30)]).prob, predictor.click(FRAMES[0], [(50, 30)]).prob
    )
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_clicks(model, path)


def test_the_heads_in_the_package_are_small_and_what_their_table_says(model):
    for known in KNOWN.values():
        path = known.place / "clicks.safetensors"
        assert path.is_file() == (known.clicks_sha256 is not None)
        if path.is_file():
            assert path.stat().st_size <= 3_000_000


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (np.zeros((3, 3), bool), r"returned \(3, 3\) of bool"),
        (np.full(SIZE, 2.0), "not probabilities"),
        (None, "returned"),
    ],
)
def test_what_a_prompter_returns_is_checked(model, found, error):
    predictor = Predictor(model, size=64, prompter=lambda frame, prompt: found)
    with pytest.raises(ValueError, match=error):
        predictor.click(FRAMES[0], [(5, 5)])


def test_a_prompter_sees_the_frame_and_the_clicks_in_its_pixels(square):
    found = square.click(FRAMES[0], [(50, 30), (54, 30)], [1, 0])
    assert isinstance(found, Clicked)
    assert found.mask[30, 44]
    assert not found.mask[30, 54]
    assert not found.mask[:20].any()


def test_a_session_follows_an_object_from_clicks_only(square):
    video = square.session()
    empty = video.step(FRAMES[0])
    assert empty.ids == ()
    found = video.click([(50, 30)], id=7)
    assert found.ids == (7,)
    assert found.mask[30, 50] == 7
    assert video.step(FRAMES[1]).ids == (7,)


def test_clicks_of_a_session_add_up_and_are_undone_one_by_one(square):
    video = square.session()
    video.step(FRAMES[0])
    first = video.click([(50, 30)])
    second = video.click([(70, 30)])
    third = video.click([(50, 30)], [0])
    assert (second.mask > 0).sum() > (first.mask > 0).sum()
    assert not third.mask[30, 50]
    assert third.mask[30, 70] == 1
    np.testing.assert_array_equal(video.undo().mask, second.mask)
    np.testing.assert_array_equal(video.undo().mask, first.mask)
    np.testing.assert_array_equal(video.click([(70, 30)]).mask, second.mask)


def test_a_copied_session_goes_on_with_the_clicks_and_the_same_head(square):
    video = square.session()
    video.step(FRAMES[0])
    first = video.click([(50, 30)])
    twin = copy.copy(video)
    assert twin._look is video._look
    ours = twin.click([(70, 30)])
    assert (ours.mask > 0).sum() > (first.mask > 0).sum()
    np.testing.assert_array_equal(video._now.result().mask, first.mask)
    np.testing.assert_array_equal(video.click([(70, 30)]).mask, ours.mask)


def test_a_click_corrects_the_object_that_is_followed(square):
    video = square.session()
    start = video.step(FRAMES[0], TRUTH[0])
    id = start.ids[0]
    before = (start.mask == id).sum()
    y, x = (int(axis[len(axis) // 2]) for axis in np.nonzero(start.mask == id))
    after = video.click([(x, y)], [0], id=id)
    assert after.mask[y, x] == 0
    assert 0 < (after.mask == id).sum() < before
    with pytest.raises(ValueError, match="which is not in the frame"):
        video.click([(500, 3)], id=id)
    np.testing.assert_array_equal(video.undo().mask, start.mask)


def test_a_session_says_when_it_cannot_be_clicked_on(square, model):
    with pytest.raises(ValueError, match="no frame to click on yet"):
        square.session().click([(5, 5)])
    video = Predictor(model, size=64).session()
    video.step(FRAMES[0])
    with pytest.raises(ValueError, match="no click head"):
        video.click([(5, 5)])


def test_a_session_shares_the_features_of_tracking_with_clicks(predictor, monkeypatch):
    video = predictor.session()
    video.step(FRAMES[0], TRUTH[0])
    monkeypatch.setattr(predictor.network, "encode_key", None)
    video.click([(50, 30)], id=int(TRUTH[0].max()))


def test_a_seen_frame_knows_its_size(predictor):
    seen = predictor.look(FRAMES[0])
    assert isinstance(seen, SeenFrame)
    assert seen.size == SIZE


@pytest.mark.parametrize("size", [(60, 80), (61, 47), (7, 90), (2, 40)])
def test_a_score_leaves_out_probabilities_far_from_the_mask_and_counts_those_near_it(size):
    prob = torch.full(size, 0.4)
    height, width = size[0] // 6 + 1, size[1] // 6 + 1
    prob[:height, :width] = 0.9
    far, near = prob.clone(), prob.clone()
    far[:, size[1] // 2 :] = 0
    near[:height, width] = 0
    assert score_of(far) == score_of(prob)
    assert score_of(near) > score_of(prob)
    assert score_of(torch.zeros(size)) == 0
    assert score_of((prob > 0.5).float()) == 1
