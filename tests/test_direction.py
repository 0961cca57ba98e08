"""Videos followed backward and both ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import MemoryPolicy, Predictor, Result
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.io import write_video
from emavos.session.both_ways import fuse

FRAMES, TRUTH = synthetic_clip(frames=10, size=(96, 160))


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(size=None)


def only(id, frame):
    return np.where(TRUTH[frame] == id, id, 0)


def masks_of(results):
    return np.stack([result.mask for result in results])


def test_backward_is_forward_over_the_frames_in_reverse(predictor):
    masks = {9: TRUTH[9], 4: only(2, 4)}
    ours = list(predictor.propagate(FRAMES, masks=masks, direction="backward"))
    theirs = list(predictor.propagate(FRAMES[::-1], {9 - i: mask for i, mask in masks.items()}))[::-1]
    assert [result.index for result in ours] == list(range(10))
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(a.mask, b.mask)
        assert (a.ids, a.confidences) == (b.ids, b.confidences)
        torch.testing.assert_close(a.prob, b.prob, atol=0.01, rtol=0)


def test_going_backward_there_is_nothing_behind_the_last_mask(predictor):
    results = list(predictor.propagate(FRAMES, {6: TRUTH[6]}, direction="backward"))
    assert [result.ids for result in results] == 7 * [(1, 2, 3)] + 3 * [()]
    assert not masks_of(results)[7:].any()
    assert results[9].prob.shape == (1, 96, 160)
    assert results[9].objects == {}


def test_one_mask_goes_both_ways(predictor):
    results = list(predictor.propagate(FRAMES, {5: TRUTH[5]}, direction="both"))
    assert [result.index for result in results] == list(range(10))
    forward = list(predictor.propagate(FRAMES[5:], TRUTH[5]))
    backward = list(predictor.propagate(FRAMES[5::-1], TRUTH[5]))
    assert np.array_equal(masks_of(results)[5:], masks_of(forward))
    assert np.array_equal(masks_of(results)[:6], masks_of(backward)[::-1])


def test_an_annotated_frame_comes_back_as_given_and_objects_keep_their_sides(predictor):
    masks = {0: only(1, 0), 8: np.where(TRUTH[8] == 3, 0, TRUTH[8]), 4: only(3, 4)}
    results = list(predictor.propagate(FRAMES, masks, direction="both"))
    for index, mask in masks.items():
        assert np.array_equal(np.where(mask != 0, results[index].mask, 0), mask)
    for result in results[1:9]:
        assert set(result.ids) == {1, 2, 3}
        torch.testing.assert_close(result.prob.sum(0), torch.ones(96, 160), atol=1e-4, rtol=0)
        for id in (1, 2, 3):
            assert region_similarity(result.mask == id, TRUTH[result.index] == id) > 0.5
    assert results[9].ids == (1, 3, 2)


def result(index, value, confidence):
    one = torch.full((1, 2, 2), value)
    return Result(index, (5,), torch.cat([1 - one, one]), (confidence,))


def test_of_two_answers_the_nearer_and_the_surer_counts_more():
    ends = {0: {5}, 10: {5}}
    for index, sure, expected in ((5, (0.8, 0.8), 0.5), (2, (0.8, 0.8), 0.8), (5, (0.8, 0.4), 16 / 17)):
        fused = fuse(result(index, 1.0, sure[0]), result(index, 0.0, sure[1]), ends)
        torch.testing.assert_close(fused.prob[1], torch.full((2, 2), expected))
    assert fuse(result(5, 1.0, 0.1), result(5, 0.0, 0.9), {0: {5}, 10: {4}}).confidences == (0.1,)


def test_after_a_cut_the_side_that_knows_the_scene_counts_alone():
    ends = {0: {5}, 10: {5}}
    ahead, back = result(5, 1.0, 0.8), result(5, 0.0, 0.8)
    for unmatched, stop, expected in (
        ((0.9, 0.1), True, 0.0),
        ((0.1, 0.9), True, 1.0),
        ((0.9, 0.1), False, 0.5),
    ):
        sides = [replace(one, unmatched=share) for one, share in zip((ahead, back), unmatched, strict=True)]
        fused = fuse(*sides, ends, stop)
        torch.testing.assert_close(fused.prob[1], torch.full((2, 2), expected))
        assert fused.unmatched == 0.1
        assert not fused.cut
    assert fuse(replace(ahead, unmatched=0.9), replace(back, unmatched=0.7), ends, True).cut
    assert fuse(replace(ahead, unmatched=0.9), back, ends).unmatched == 0.9
    assert fuse(ahead, back, ends).unmatched is None


def test_a_cut_is_seen_backward_and_both_ways(predictor):
    noise = np.random.default_rng(0).integers(0, 2, (12, 20, 1), np.uint8) * np.array([255, 0, 180], np.uint8)
    clip = [noise.repeat(8, 0).repeat(8, 1), *(np.roll(FRAMES[0], 2 * i, 1) for i in range(3))]
    for direction in ("backward", "both"):
        for cuts in ("tell", "stop"):
            watching = predictor.with_settings(cuts=cuts)
            results = [*watching.propagate(clip, {3: np.roll(TRUTH[0], 4, 1)}, direction=direction)]
            assert [result.cut for result in results] == [True, False, False, False]
            assert cuts == "tell" or not results[0].mask.any()
            assert results[1].mask.any()


def test_folder_video_and_list_give_the_same_masks_both_ways(predictor, tmp_path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    write_video(tmp_path / "clip.mp4", FRAMES, fps=10)
    from emavos.io import open_frames

    decoded = list(open_frames(tmp_path / "clip.mp4"))
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(decoded):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i}.png")
    masks = {1: TRUTH[1], 8: TRUTH[8]}
    expected = masks_of(predictor.propagate(decoded, masks, direction="both"))
    for source in (tmp_path / "clip.mp4", tmp_path / "frames", np.stack(decoded)):
        assert np.array_equal(masks_of(predictor.propagate(source, masks, direction="both")), expected)


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_a_stream_does_not_go_backward(predictor, direction):
    with pytest.raises(ValueError, match="the frames are a stream, which can be read only once"):
        next(predictor.propagate(iter(FRAMES), TRUTH[0], direction=direction))


def test_what_no_direction_can_follow_is_told(predictor):
    with pytest.raises(ValueError, match="direction is one of forward, backward, both, not 'up'"):
        predictor.propagate(FRAMES, TRUTH[0], direction="up")
    with pytest.raises(ValueError, match="give either mask, or masks as a dict"):
        predictor.propagate(FRAMES, TRUTH[0], masks={3: TRUTH[3]})
    with pytest.raises(ValueError, match="frame 10 but the video has 10 frames"):
        next(predictor.propagate(FRAMES, {10: TRUTH[9]}, direction="both"))


def test_a_frame_of_another_time_is_remembered_once_and_replaced_when_its_turn_comes(predictor):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    session.remember(FRAMES[2], TRUTH[2], 2)
    assert len(session.groups[0].bank) == 2
    session.step(FRAMES[1])
    session.step(FRAMES[2], TRUTH[2])
    assert len(session.groups[0].bank) == 2


@pytest.mark.parametrize("include_last", [False, True])
def test_a_guess_does_not_take_the_place_of_a_mask_that_is_remembered(predictor, include_last):
    policy = MemoryPolicy(every=1, include_last=include_last)
    session = Predictor(predictor.model, policy, size=None).session()
    session.step(FRAMES[0], TRUTH[0])
    session.remember(FRAMES[2], TRUTH[2], 2)
    known = session.groups[0].bank.state()[0]["values"][1]
    session.step(FRAMES[1])
    session.step(FRAMES[2])
    held, slots = session.groups[0].bank.state()
    assert slots == [("given", 0), ("given", 2), ("kept", 1)]
    assert torch.equal(held["values"][1], known)


def test_what_is_remembered_leaves_the_previous_frame_where_it_is(predictor):
    policy = MemoryPolicy(every=5, include_last=True, max_frames=2)
    session = Predictor(predictor.model, policy, size=None).session()
    session.step(FRAMES[0], TRUTH[0])
    session.step(FRAMES[1])
    session.remember(FRAMES[4], TRUTH[4], 4)
    assert session.groups[0].bank.state()[1] == [("given", 0), ("temporary", 1), ("given", 4)]
    session.step(FRAMES[2])
    assert session.groups[0].bank.state()[1] == [("given", 0), ("given", 4), ("temporary", 2)]


def test_undoing_an_edit_never_drops_what_was_remembered_after_it(predictor):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    session.step(FRAMES[1])
    session.correct({1: TRUTH[1] == 1})
    session.remember(FRAMES[5], TRUTH[5], 5)
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo()
    assert session.groups[0].bank.was_given(5)


def test_a_session_is_saved_with_the_frames_to_come_that_it_remembers(predictor, tmp_path):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    session.remember(FRAMES[3], TRUTH[3], 3)
    session.save(tmp_path / "session")
    loaded = predictor.session(tmp_path / "session")
    for frame in FRAMES[1:4]:
        assert torch.equal(loaded.step(frame).prob, session.step(frame).prob)


@pytest.mark.parametrize("index", [-1, 2.0, "2", True])  # None: a reference, see test_references
def test_what_is_remembered_has_an_index(predictor, index):
    session = predictor.session()
    session.step(FRAMES[0], TRUTH[0])
    with pytest.raises(ValueError, match="index is the index of a frame, counted from 0, not"):
        session.remember(FRAMES[2], TRUTH[2], index)


def test_errors_of_a_pass_backward_name_the_frame_of_the_video(predictor):
    odd = [*FRAMES[:3], FRAMES[3][:64], *FRAMES[4:]]
    with pytest.raises(ValueError, match="frame 3 is 64x160 but the video began with 96x160"):
        next(predictor.propagate(odd, {9: TRUTH[9]}, direction="backward"))
    with pytest.raises(ValueError, match="the mask of frame 3 does not fit: mask is 64x160"):
        next(predictor.propagate(odd, {0: TRUTH[0], 3: TRUTH[3][:64], 9: TRUTH[9]}, direction="both"))


def test_masks_of_another_kind_are_told_both_ways(predictor):
    with pytest.raises(ValueError, match="a mask is a PIL image, an array or a tensor, not list"):
        next(predictor.propagate(FRAMES, {0: TRUTH[0].tolist()}, direction="both"))


def test_a_frame_that_lacks_an_object_is_not_remembered_for_those_that_came_with_it(predictor):
    session = predictor.session()
    session.step(FRAMES[0], np.where(TRUTH[0] == 3, 0, TRUTH[0]))
    session.add({3: TRUTH[0] == 3})
    session.remember(FRAMES[5], np.where(TRUTH[5] == 1, 0, TRUTH[5]), 5)
    assert [len(group.bank) for group in session.groups] == [1, 2]


def test_remember_tells_which_objects_learn_of_the_frame(predictor):
    session = predictor.session()
    with pytest.raises(ValueError, match="no object is tracked; there is nothing to remember"):
        session.remember(FRAMES[5], TRUTH[5], 5)
    session.step(FRAMES[0], np.where(TRUTH[0] == 3, 0, TRUTH[0]))
    session.add({3: TRUTH[0] == 3})
    assert session.remember(FRAMES[5], TRUTH[5], 5) == (1, 2, 3)
    assert session.remember(FRAMES[6], np.where(TRUTH[6] == 1, 0, TRUTH[6]), 6) == (3,)
    held = [group.bank.state()[1] for group in session.groups]
    message = "mask of frame 7 cannot be remembered: it lacks 1, 3, and a mask must show all"
    with pytest.raises(ValueError, match=message):
        session.remember(FRAMES[7], only(2, 7), 7)
    with pytest.raises(ValueError, match="it lacks 1, 2, 3"):
        session.remember(FRAMES[7], np.full_like(TRUTH[7], 9), 7)
    assert [group.bank.state()[1] for group in session.groups] == held


def test_both_ways_masks_that_show_no_group_whole_are_followed_when_they_come(predictor):
    masks = {0: TRUTH[0], 5: only(2, 5), 9: TRUTH[9]}
    results = list(predictor.propagate(FRAMES, masks, direction="both"))
    assert np.array_equal(results[5].mask == 2, TRUTH[5] == 2)
