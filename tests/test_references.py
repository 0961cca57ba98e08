"""Reference pictures, absent objects, scene cuts: what a session does beside a mask of the first frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Predictor
from emavos.demo import synthetic_clip

FRAMES, MASKS = synthetic_clip(6, (64, 96))
OTHER, _ = synthetic_clip(3, (64, 96), seed=7)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained(size=64)


@pytest.mark.parametrize("size", [(64, 96), (96, 144), (150, 90), (32, 200)])
def test_a_reference_of_any_size_is_followed_without_a_mask(predictor, size):
    (picture, *_), (mask, *_) = synthetic_clip(1, size)
    session = predictor.session()
    assert session.remember(picture, mask) == tuple(np.unique(mask)[1:])
    assert session.ids == ()
    result = session.step(FRAMES[0])
    assert result.ids == tuple(np.unique(mask)[1:])
    torch.testing.assert_close(result.prob.sum(0), torch.ones(64, 96), atol=1e-4, rtol=0)


def test_the_first_frame_as_a_reference_is_read_as_if_it_had_been_played(predictor):
    session, played = predictor.session(), predictor.session()
    session.remember(FRAMES[0], MASKS[0])
    played.step(FRAMES[0], MASKS[0])
    results = [*predictor.propagate(FRAMES, session=session)]
    assert len(results) == len(FRAMES)
    assert torch.equal(results[0].prob, played.step(FRAMES[0]).prob)


def test_a_second_reference_shows_the_same_objects_and_is_kept_for_ever(predictor, tmp_path):
    session = predictor.session()
    session.remember(FRAMES[0], MASKS[0])
    session.remember(FRAMES[2], MASKS[2])
    for frame in FRAMES:
        session.step(frame)
    (group,) = session.groups
    assert [slot.frame for slot in group.bank._slots if slot.kind == "given"] == [-1, -2]
    session.remember(FRAMES[3], MASKS[3])  # later too
    session.forget(0)
    assert [slot.frame for slot in group.bank._slots] == [-1, -2, -3]
    session.save(tmp_path / "s.safetensors")
    again = predictor.session(tmp_path / "s.safetensors")
    assert np.array_equal(again.step(OTHER[0]).mask, session.step(OTHER[0]).mask)


def test_references_that_cannot_be_remembered_change_nothing(predictor, tmp_path):
    session = predictor.session()
    with pytest.raises(ValueError, match="the mask of the reference is empty"):
        session.remember(FRAMES[0], np.zeros((64, 96), np.uint8))
    with pytest.raises(ValueError, match="mask is 64x96 but frame is 96x144"):
        session.remember(np.zeros((96, 144, 3), np.uint8), MASKS[0])
    session.remember(FRAMES[0], MASKS[0])
    with pytest.raises(ValueError, match="a reference is stored at the first step; save the session after"):
        session.save(tmp_path / "s.safetensors")
    session.step(FRAMES[0])
    with pytest.raises(ValueError, match="the reference cannot be remembered: its mask lacks 1"):
        session.remember(FRAMES[1], np.full((64, 96), 9, np.uint8))
    assert session.ids == tuple(np.unique(MASKS[0])[1:])


@pytest.mark.parametrize(
    ("shown", "learned"),
    [
        ([{1, 2}, {1, 3}], [(1, 2), (3,)]),
        ([{1, 2}, {1, 2, 3}], [(1, 2), (1, 2, 3)]),
        ([{1}, {2}, {1, 2}, {2}], [(1,), (2,), (1, 2), (2,)]),
    ],
)
def test_references_before_the_first_step_name_the_objects_that_learn(predictor, shown, learned):
    session = predictor.session()
    assert [session.remember(FRAMES[0], _stripes(ids)) for ids in shown] == learned
    session.step(FRAMES[0])
    slots = {group.ids: [slot.frame for slot in group.bank._slots] for group in session.groups}
    assert slots == {
        ids: [-1 - at for at, known in enumerate(learned) if {*ids} <= {*known}] for ids in slots
    }


def test_a_reference_that_no_step_could_store_is_refused_at_once(predictor):
    session = predictor.session()
    session.remember(FRAMES[0], _stripes({1, 2}))
    with pytest.raises(ValueError, match="the reference cannot be remembered: its mask lacks 2"):
        session.remember(FRAMES[0], _stripes({1}))
    assert session.step(FRAMES[0]).ids == (1, 2)


def test_an_object_too_small_for_the_size_of_the_video_stops_no_step(predictor):
    large = np.zeros((256, 384), np.uint8)
    large[129, 129] = 1
    picture = np.ascontiguousarray(FRAMES[0].repeat(4, 0).repeat(4, 1))
    session = predictor.session()
    assert session.remember(picture, large) == (1,)
    assert session.step(FRAMES[0]).ids == (1,)


def test_a_reference_after_the_first_step_does_not_move_the_schedule(predictor):
    frames = []
    for remembers in (False, True):
        session = predictor.session()
        for index, frame in enumerate(FRAMES):
            session.step(frame, MASKS[0] if index == 0 else None)
            if remembers and index == 2:
                session.remember(FRAMES[0], MASKS[0])
        (group,) = session.groups
        frames.append([slot.frame for slot in group.bank._slots if slot.frame >= 0])
    assert frames == [[0, 5], [0, 5]]


def _stripes(ids):
    """A mask with a stripe of each object."""
    mask = np.zeros((64, 96), np.uint8)
    for id in ids:
        mask[:, 16 * id : 16 * id + 12] = id
    return mask


def test_a_step_that_fails_keeps_the_reference_for_the_next(predictor, monkeypatch):
    session = predictor.session()
    session.remember(FRAMES[0], MASKS[0])
    expected = predictor.session()
    expected.remember(FRAMES[0], MASKS[0])
    with monkeypatch.context() as patch:
        patch.setattr("emavos.session.frame.signs_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.step(FRAMES[0])
    assert session.ids == ()
    assert np.array_equal(session.step(FRAMES[0]).mask, expected.step(FRAMES[0]).mask)


def test_a_session_is_continued_where_it_stands(predictor):
    whole = [result.mask for result in predictor.propagate(FRAMES, MASKS[0])]
    session = predictor.session()
    for frame, mask in zip(FRAMES[:3], (MASKS[0], None, None), strict=True):
        session.step(frame, mask)
    rest = [*predictor.propagate(FRAMES, MASKS[0], session=session)]
    assert [result.index for result in rest] == [3, 4, 5]
    assert all(np.array_equal(result.mask, mask) for result, mask in zip(rest, whole[3:], strict=True))
    with pytest.raises(ValueError, match="a session tracks forward, not 'both'"):
        predictor.propagate(FRAMES, MASKS[0], session=session, direction="both")
    with pytest.raises(ValueError, match="of another predictor"):
        Predictor.from_pretrained(size=64).propagate(FRAMES, session=session)


def test_an_object_absent_for_some_frames_is_dropped_and_may_come_again(predictor, tmp_path):
    dropping = predictor.with_settings(drop_absent=2)
    assert dropping.facts()["drop_absent"] == 2
    assert "drop_absent" not in predictor.facts()
    session = dropping.session()
    session.step(FRAMES[0], MASKS[0])
    session.add({77: _corner()})
    session.correct({77: np.zeros((64, 96), bool)})  # absent from now on
    ids = []
    for index, frame in enumerate(FRAMES[1:4]):
        if index == 1:  # the count goes on in a saved session
            session.save(tmp_path / "s.safetensors")
            session = dropping.session(tmp_path / "s.safetensors")
        result = session.step(frame)
        assert not (result.mask == 77).any()
        ids.append(77 in session.ids)
    assert ids == [True, False, False]
    assert session.step(FRAMES[4], np.where(_corner(), 77, 0)).ids[-1] == 77
    with pytest.raises(ValueError, match="drop_absent is a number of frames of at least 1, or None, not 0"):
        predictor.with_settings(drop_absent=0)


@pytest.mark.parametrize("fails", ["select", "adding", "without"])
def test_a_step_that_fails_while_it_drops_an_object_changes_nothing(predictor, fails, monkeypatch):
    from emavos.memory import MemoryBank
    from emavos.session import session as module

    dropping = predictor.with_settings(drop_absent=1, policy=MemoryPolicy(every=1))
    broken, whole = dropping.session(), dropping.session()
    for session in (broken, whole):
        session.step(FRAMES[0], MASKS[0])
        session.add({77: _corner()})
        session.correct({77: np.zeros((64, 96), bool)})
    place, name, put = {
        "select": (MemoryBank, "select", lambda *_: 1 / 0),
        "adding": (MemoryBank, "adding", lambda *_, **__: 1 / 0),
        "without": (module, "without_objects", lambda *_: 1 / 0),
    }[fails]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, put)
        with pytest.raises(ZeroDivisionError):
            broken.step(FRAMES[1])
    assert (broken.index, 77 in broken.ids) == (1, True)
    assert broken.undo().ids == broken.ids  # edits before the step stay too
    broken.correct({77: np.zeros((64, 96), bool)})
    for frame in FRAMES[1:3]:
        one, other = broken.step(frame), whole.step(frame)
        assert (one.ids, broken.ids, broken.nbytes) == (other.ids, whole.ids, whole.nbytes)
        assert torch.equal(one.prob, other.prob)
    assert 77 not in broken.ids


def test_frames_of_another_scene_do_not_count_as_absence(predictor):
    session = predictor.with_settings(cuts="stop", drop_absent=2).session()
    session.step(FRAMES[0], MASKS[0])
    session.add({77: _corner()})
    session.correct({77: np.zeros((64, 96), bool)})
    ids = session.ids
    results, tracked = [], []
    for frame in (FRAMES[0], _noise(), _noise(), _noise(), FRAMES[0]):
        results.append(session.step(frame))
        tracked.append(session.ids)
    absent = [{id for id in ids if not (result.mask == id).any()} for result in results]
    assert absent[1:4] == [{*ids}] * 3
    assert tracked[:4] == [ids] * 4
    assert {*tracked[4]} == {*ids} - (absent[0] & absent[4])  # two frames in a row but for the other scene
    assert 77 not in tracked[4]
    assert tracked[4]


def _corner():
    mask = np.zeros((64, 96), bool)
    mask[:8, :8] = True
    return mask


def test_a_cut_to_another_scene_is_seen_and_one_scene_has_none(predictor):
    scene = [np.full((64, 96, 3), 40, np.uint8), *(np.roll(FRAMES[0], 2 * i, 1) for i in range(4))]
    clip = [*scene[1:], _noise(), *scene[1:3]]
    results = {}
    for cuts in ("ignore", "tell", "stop"):
        watching = predictor.with_settings(cuts=cuts)
        results[cuts] = [*watching.propagate(clip, MASKS[0])]
    assert all(result.unmatched is None and not result.cut for result in results["ignore"])
    assert [result.cut for result in results["tell"]] == [False, False, False, False, True, False, False]
    for watched, ignored in zip(results["tell"], results["ignore"], strict=True):
        assert np.array_equal(watched.mask, ignored.mask)  # only looked at
    assert not results["stop"][4].mask.any()
    assert results["stop"][5].mask.any()  # the scene is back
    assert predictor.with_settings(cuts="tell").facts() == predictor.facts()
    assert predictor.with_settings(cuts="stop").facts()["cuts"] == "stop"
    with pytest.raises(ValueError, match="cuts is one of"):
        predictor.with_settings(cuts="maybe")


def test_after_a_cut_a_mask_starts_again(predictor):
    stopping = predictor.with_settings(cuts="stop", policy=predictor.policy)
    clip = [FRAMES[0], _noise(), _noise(1), _noise(1)]
    masks = {0: MASKS[0], 2: np.where(_corner(), 5, 0)}
    results = [*stopping.propagate(clip, masks)]
    assert not results[1].mask.any()
    assert (results[2].mask == 5).sum() == 64
    assert not results[3].cut  # the given frame is remembered


def test_a_session_saved_with_cuts_goes_on_with_them(predictor, tmp_path):
    for cuts in ("tell", "stop"):
        session = predictor.with_settings(cuts=cuts).session()
        session.step(FRAMES[0], MASKS[0])
        session.save(tmp_path / "s.safetensors")
        again = predictor.session(tmp_path / "s.safetensors")
        assert again.settings.cuts == cuts
        assert again.step(_noise()).cut


def _noise(seed=0):
    """A picture that resembles nothing in the clip."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 2, (8, 12, 1), dtype=np.uint8) * np.array([255, 0, 180], np.uint8)
    return np.ascontiguousarray(blocks.repeat(8, 0).repeat(8, 1))
