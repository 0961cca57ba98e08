"""The current frame edited: objects added, corrected and removed, frames pinned and forgotten."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from emavos import MemoryPolicy, Session
from emavos.demo import synthetic_clip
from emavos.evaluation import region_similarity
from emavos.settings import Settings
from emavos.weights import load_model

FRAMES, TRUTH = synthetic_clip(frames=14, size=(96, 160))
SIZE = 96


@pytest.fixture(scope="module")
def model():
    return load_model()


def session(model, steps, mask=None, policy=None):
    video = Session(model, policy, SIZE)
    for i in range(steps):
        video.step(FRAMES[i], (TRUTH[0] if mask is None else mask) if i == 0 else None)
    return video


def go_on(video, steps=3):
    return [video.step(FRAMES[video.index]) for _ in range(steps)]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a.index, a.ids) == (b.index, b.ids)
        torch.testing.assert_close(a.prob, b.prob)


def only(id, frame=0):
    return np.where(TRUTH[frame] == id, id, 0)


def test_editing_a_frame_is_giving_its_mask_when_it_comes(model):
    """add() and correct() after a step do for the frames to come what step(frame, mask) does."""
    for edit, begin, given in (("add", only(1), only(2, 4)), ("correct", TRUTH[0], only(3, 4))):
        edited, whole = session(model, 5, begin), session(model, 4, begin)
        (id,) = np.unique(given)[1:].tolist()
        result = getattr(edited, edit)({id: given})
        assert np.array_equal(result.mask == id, whole.step(FRAMES[4], given).mask == id)
        assert_same(go_on(edited), go_on(whole))


def test_a_copied_session_goes_on_by_itself_with_the_same_network(model):
    video, alone = session(model, 3), session(model, 3)
    video.correct({1: only(1, 2) != 0})
    twin = copy.copy(video)
    twin.undo()
    twin.remove([3])
    others = go_on(twin)
    assert [result.ids for result in others] == 3 * [(1, 2)]
    video.undo()
    assert_same(go_on(video), go_on(alone))
    assert twin.model is video.model
    assert twin.network is twin._tracker.network is video.network


def test_an_object_that_is_added_takes_its_pixels_and_no_others(model):
    video = session(model, 5, only(1))
    before = video.step(FRAMES[5]).mask
    result = video.add({7: only(3, 5)})
    assert result.ids == (1, 7)
    taken = TRUTH[5] == 3
    assert (result.mask[taken] == 7).all()
    assert np.array_equal(result.mask[~taken], before[~taken])


def test_an_object_that_is_added_takes_nothing_where_others_are_unsure(model):
    """Where two objects and the background are equally probable, a third elsewhere changes no label."""
    video = session(model, 2, np.where(TRUTH[0] < 3, TRUTH[0], 0))
    unsure = torch.tensor([0.30, 0.36, 0.34])[:, None, None].expand_as(video._now.full)
    video._now = replace(video._now, full=unsure)
    mask = video.add({3: only(3, 1)}).mask
    assert (mask[TRUTH[1] != 3] == 1).all()
    assert (mask[TRUTH[1] == 3] == 3).all()


def test_a_correction_sticks(model):
    """An object that was given wrongly is followed wrongly, and rightly once it is corrected."""
    wrong = np.where(np.roll(TRUTH[0], 30, axis=1) == 3, 3, 0)
    lost, mended = session(model, 6, wrong), session(model, 6, wrong)
    mended.correct({3: TRUTH[5] == 3}, since=0)
    for a, b in zip(go_on(lost, 5), go_on(mended, 5), strict=True):
        truth = TRUTH[a.index] == 3
        assert region_similarity(b.mask == 3, truth) > region_similarity(a.mask == 3, truth) + 0.2


def test_a_corrected_object_may_be_absent(model):
    video = session(model, 5)
    result = video.correct({2: np.zeros_like(TRUTH[4])})
    assert not (result.mask == 2).any()
    assert result.ids == (1, 2, 3)


def test_a_removed_object_frees_its_memory_and_leaves_the_others(model):
    video = session(model, 6)
    before, held = video.step(FRAMES[6]), video.nbytes
    result = video.remove([2])
    assert result.ids == (1, 3)
    assert video.nbytes < 0.8 * held
    assert torch.equal(result.prob[1:], before.prob[[1, 3]])
    torch.testing.assert_close(result.prob.sum(0), torch.ones(96, 160))
    assert go_on(video)[-1].ids == (1, 3)
    assert video.remove([3, 1]).ids == ()
    assert not go_on(video)[-1].mask.any()
    assert video.nbytes == 0


def test_what_is_left_of_a_removed_object_is_not_below_zero(model):
    """Probabilities sum to one and a little more, by rounding."""
    video = session(model, 2)
    noise = torch.randn(4, 96, 160, generator=torch.Generator().manual_seed(0))
    video._now = replace(video._now, full=(12 * noise).softmax(dim=0))
    assert video.remove([3]).prob.min() >= 0


def test_a_pinned_frame_is_never_evicted(model):
    policy = MemoryPolicy(every=1, max_frames=2)
    plain, pinned = session(model, 4, policy=policy), session(model, 4, policy=policy)
    pinned.pin()
    go_on(plain, 6)
    go_on(pinned, 6)
    assert [len(group.bank) for group in plain.groups] == [2]
    assert [len(group.bank) for group in pinned.groups] == [3]  # the first, the pinned and one more


def test_what_is_forgotten_is_not_read(model):
    video, never = (
        Session(model, settings=Settings(MemoryPolicy(every=every), SIZE, locality=False))
        for every in (2, 100)
    )
    for index in range(7):
        video.step(FRAMES[index], TRUTH[0] if index == 0 else None)
    never.step(FRAMES[0], TRUTH[0])
    video.forget(since=1)
    never.index = 7
    assert_same(go_on(video, 1), go_on(never, 1))


def held(video):
    """By object: the kinds and frames that its memory holds."""
    return {id: group.bank.state()[1] for group in video.groups for id in group.ids}


def correct_later(video, id):
    video.correct({id: only(id, video.index - 1)})


def correct_in_a_step(video, id):
    video.step(FRAMES[video.index], only(id, video.index))


@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
@pytest.mark.parametrize("give", [correct_later, correct_in_a_step])
def test_what_is_guessed_beside_a_correction_is_evicted_and_the_correction_stays(model, give, eviction):
    video = session(model, 5, policy=MemoryPolicy(every=1, max_frames=4, eviction=eviction))
    give(video, 2)
    corrected = video.index - 1
    assert video._banks.remembered(corrected) == {2}
    go_on(video, 7)
    slots = held(video)
    assert ("given", corrected) in slots[2]
    for mate in (1, 3):
        assert [slot for slot in slots[mate] if slot[0] == "given"] == [("given", 0)]
        assert corrected not in [frame for _, frame in slots[mate]]


def test_what_is_guessed_beside_a_correction_is_forgotten_and_the_correction_stays(model):
    video = session(model, 5)
    video.correct({2: only(2, 4)})
    video.forget(since=1)
    assert held(video) == {1: [("given", 0)], 2: [("given", 0), ("given", 4)], 3: [("given", 0)]}


def test_a_correction_since_a_frame_leaves_the_memory_of_others_alone(model):
    video = session(model, 5, policy=MemoryPolicy(every=1))
    video.correct({2: only(2, 4)}, since=1)
    kept = [("given", 0), *(("kept", i) for i in range(1, 5))]
    assert held(video) == {1: kept, 2: [("given", 0), ("given", 4)], 3: kept}


@pytest.mark.parametrize("policy", [MemoryPolicy(), MemoryPolicy(every=1, include_last=True)])
def test_a_memory_that_was_divided_reads_as_the_whole_one(model, monkeypatch, policy):
    """The order of the objects stays too, whichever were corrected."""
    divided, whole = session(model, 5, policy=policy), session(model, 5, policy=policy)
    divided.correct({2: only(2, 4)})
    with monkeypatch.context() as patch:
        patch.setattr(type(whole._banks), "divide", lambda *_: None)
        whole.correct({2: only(2, 4)})
    assert [group.ids for group in divided.groups] == [(2,), (1, 3)]
    assert_same(go_on(divided), go_on(whole))
    assert divided.remove([1]).ids == whole.remove([1]).ids == (2, 3)
    assert_same(go_on(divided), go_on(whole))


def test_corrections_in_turn_are_undone_to_the_bit(model):
    video, plain = (session(model, 5, policy=MemoryPolicy(every=1, max_frames=3)) for _ in range(2))
    for id in (2, 3, 2, 1):
        video.correct({id: only(id, 4)}, since=2)
    for _ in range(4):
        video.undo()
    (group,), (other,) = video.groups, plain.groups
    assert group.ids == other.ids
    assert group.bank.state()[1] == other.bank.state()[1]
    assert all(torch.equal(x, other.bank.state()[0][name]) for name, x in group.bank.state()[0].items())
    for a, b in zip(go_on(video), go_on(plain), strict=True):
        assert torch.equal(a.prob, b.prob)


def test_an_object_that_was_corrected_alone_is_remembered_alone(model):
    video = session(model, 3)
    with pytest.raises(ValueError, match="lacks 1, 3"):
        video.remember(FRAMES[9], only(2, 9), 9)
    video.correct({2: only(2, 2)})
    assert video.remember(FRAMES[9], only(2, 9), 9) == (2,)


@pytest.mark.parametrize("edit", ["add", "correct", "remove", "pin", "forget"])
def test_an_edit_that_is_undone_never_was(model, edit):
    two = np.where(TRUTH[0] == 3, 0, TRUTH[0])
    edited, plain = session(model, 7, two), session(model, 7, two)
    mask = {"add": {3: only(3, 6)}, "correct": {1: only(1, 0)}}
    arguments = {"remove": [[1]], "pin": [], "forget": [0]}.get(edit, [mask.get(edit)])
    getattr(edited, edit)(*arguments)
    result = edited.undo()
    assert result.ids == (1, 2)
    assert_same(go_on(edited, 4), go_on(plain, 4))
    with pytest.raises(ValueError, match="nothing to undo"):
        edited.undo()


def test_edits_are_undone_one_by_one(model):
    video = session(model, 3)
    first = video.correct({1: only(1, 1)})
    video.remove([2])
    assert_same([video.undo()], [first])
    assert video.undo().ids == (1, 2, 3)


def test_a_step_that_fails_leaves_what_came_before_it_to_be_undone(model, monkeypatch):
    policy = MemoryPolicy(every=1, max_frames=3)
    video, plain = session(model, 6, policy=policy), session(model, 6, policy=policy)
    video.correct({1: only(1, 2)}, since=3)
    video.remove([2])
    with monkeypatch.context() as patch:
        patch.setattr(video.groups[0].bank, "_reserve", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            video.step(FRAMES[6])
    video.undo()
    assert video.undo().ids == (1, 2, 3)
    assert_same(go_on(video), go_on(plain))


def test_an_edit_holds_the_memory_frames_that_it_wrote_over_until_the_next_step(model):
    video = session(model, 6, policy=MemoryPolicy(every=1, max_frames=4))
    for shift in range(3):
        video.correct({id: only(id, 5 - shift) for id in (1, 2, 3)})
    (bank,) = (group.bank for group in video.groups)
    marks = [mark for _, mark in video._undo[-1].banks.marks]
    assert 0 < sum(x.nbytes for mark in marks for x in mark.replaced.values()) < 0.3 * bank.nbytes
    video.step(FRAMES[6])
    assert not bank._marks


def test_an_edit_that_fails_changes_nothing(model, monkeypatch):
    video, plain = session(model, 3), session(model, 3)
    with monkeypatch.context() as patch:
        patch.setattr(video.model, "encode_value", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            video.correct({1: only(1, 2)}, since=0)
    assert_same(go_on(video), go_on(plain))


@pytest.mark.parametrize("include_last", [False, True])
def test_a_step_that_fails_in_the_second_bank_leaves_the_first_as_it_was(model, monkeypatch, include_last):
    policy = MemoryPolicy(every=1, include_last=include_last)
    broken, plain = session(model, 3, only(1), policy), session(model, 3, only(1), policy)
    for video in (broken, plain):
        video.add({2: only(2, 2)})
    with monkeypatch.context() as patch:
        patch.setattr(broken.groups[1].bank, "_reserve", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.step(FRAMES[3], only(1, 3))
    assert_same(go_on(broken), go_on(plain))


@pytest.mark.parametrize("eviction", ["least-used", "consolidate"])
@pytest.mark.parametrize("trouble", ["undone", "failed"])
def test_what_did_not_happen_does_not_count_as_use(model, monkeypatch, eviction, trouble):
    policy = MemoryPolicy(every=1, max_frames=3, eviction=eviction)
    troubled, plain = session(model, 6, policy=policy), session(model, 6, policy=policy)
    if trouble == "undone":
        troubled.forget(since=2)
        troubled.pin()
        troubled.undo()
        troubled.undo()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(troubled.model, "encode_value", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                troubled.step(FRAMES[6])
    assert_same(go_on(troubled, 6), go_on(plain, 6))
    (one,), (other,) = ([group.bank.state() for group in video.groups] for video in (troubled, plain))
    assert one[1] == other[1]
    for name, held in one[0].items():
        torch.testing.assert_close(held, other[0][name])


def test_a_frame_counts_as_use_once_whatever_failed_or_was_remembered_before_it(model, monkeypatch, tmp_path):
    """Cells hand out one each for each step that was taken, and nothing for any other readout."""
    video = session(model, 4, policy=MemoryPolicy(every=2, max_frames=8))
    cells = 6 * 10

    def received(one):
        return [float(group.bank.state()[0]["received"].sum()) for group in one.groups]

    assert received(video) == pytest.approx([3 * cells])
    video.remember(FRAMES[9], TRUTH[9], 9)
    with monkeypatch.context() as patch:
        patch.setattr(video.model, "decode", lambda *_: 1 / 0)
        for attempt in (lambda: video.step(FRAMES[4]), lambda: video.remember(FRAMES[8], TRUTH[8], 8)):
            with pytest.raises(ZeroDivisionError):
                attempt()
    assert received(video) == pytest.approx([3 * cells])
    video.pin()
    video.save(tmp_path / "saved")
    for one in (video, Session.load(tmp_path / "saved", model)):
        one.step(FRAMES[4])
        one.step(FRAMES[5])
        assert received(one)[0] == pytest.approx(received(video)[0])


def test_what_is_remembered_of_the_current_frame_outlives_edits_of_others_and_a_pin(model):
    video, plain = (session(model, 3, only(1)) for _ in range(2))
    for one in (video, plain):
        one.add({2: only(2, 2)})
        one.step(FRAMES[3])
        one.remember(FRAMES[3], only(1, 3), 3)
    video.correct({2: only(2, 3)})
    video.pin()
    kept, (tensors, slots) = plain.groups[0].bank.state(), video.groups[0].bank.state()
    assert slots == kept[1]
    assert torch.equal(tensors["values"], kept[0]["values"])


def remembering(model, current):
    """A session at frame 3, whose three objects are remembered of it, before it came or since."""
    video = session(model, 1 if current == "before" else 4)
    video.remember(FRAMES[3], TRUTH[3], 3)
    if current == "before":
        for index in (1, 2, 3):
            video.step(FRAMES[index])
    return video


def values_of(video, frame, group=0):
    tensors, slots = video.groups[group].bank.state()
    return tensors["values"][[index for _, index in slots].index(frame)].unbind(dim=1)  # one of each object


@pytest.mark.parametrize("current", ["before", "since"])
def test_a_correction_leaves_what_is_remembered_of_the_others(model, current):
    video = remembering(model, current)
    known = [x.clone() for x in values_of(video, 3)]
    corrected = video.correct({1: only(1, 0)})
    one, two, three = values_of(video, 3)
    assert not torch.equal(one, known[0])
    assert torch.equal(two, known[1])
    assert torch.equal(three, known[2])
    first = one.clone()
    video.correct({3: only(3, 0)})
    one, two, three = values_of(video, 3)
    assert torch.equal(two, known[1])
    assert not torch.equal(three, known[2])
    video.undo()
    assert torch.equal(values_of(video, 3)[0], first)
    video.pin()
    assert all(torch.equal(x, y) for x, y in zip(values_of(video, 3), (first, *known[1:]), strict=True))
    assert_same([video.undo()], [corrected])


def test_the_mask_of_one_object_leaves_what_is_remembered_of_the_others(model):
    video = session(model, 3)
    video.remember(FRAMES[3], TRUTH[3], 3)
    known = [x.clone() for x in values_of(video, 3)]
    video.step(FRAMES[3], only(1, 0))
    equal = [torch.equal(x, y) for x, y in zip(values_of(video, 3), known, strict=True)]
    assert equal == [False, True, True]


def test_what_is_remembered_after_a_correction_takes_its_place(model):
    video = session(model, 4)
    video.correct({1: only(1, 0)})
    video.remember(FRAMES[3], TRUTH[3], 3)

    def values():
        return {
            id: value
            for g, group in enumerate(video.groups)
            for id, value in zip(group.ids, values_of(video, 3, g), strict=True)
        }

    known = {id: value.clone() for id, value in values().items()}
    video.pin()
    video.correct({2: only(2, 0)})
    assert {id: torch.equal(value, known[id]) for id, value in values().items()} == {
        1: True,
        2: False,
        3: True,
    }


def test_undoing_what_follows_a_pin_leaves_the_pin(model):
    """A pinned frame is taken as given, and an object that it does not show as gone."""
    videos = [session(model, 2, only(1)) for _ in range(2)]
    for video in videos:
        gone = torch.zeros_like(video._now.prob)
        gone[0] = 1
        video._now = replace(video._now, prob=gone)
        video.pin()
    videos[1].remove([1])
    videos[1].undo()
    first, second = (video.step(np.zeros_like(FRAMES[2])).confidences for video in videos)
    assert first == second


def test_an_edit_in_inference_mode_can_be_undone_outside_it(model):
    video, plain = session(model, 2), session(model, 2)
    with torch.inference_mode():
        video.pin()
    video.undo()
    assert_same(go_on(video, 2), go_on(plain, 2))


def test_what_is_forgotten_is_due_again(model):
    video = session(model, 4, policy=MemoryPolicy(every=3))
    video.forget(since=1)
    video.step(FRAMES[4])
    assert [len(group.bank) for group in video.groups] == [2]


def test_a_correction_delays_no_frame_that_is_to_be_kept(model):
    video = session(model, 3, policy=MemoryPolicy(every=3))
    video.correct({1: only(1, 2)})
    assert [len(group.bank) for group in video.groups] == [2, 2]  # of the corrected object, and of the others
    video.step(FRAMES[3])
    assert [len(group.bank) for group in video.groups] == [3, 3]


def test_a_frame_given_for_one_object_stays_so_when_another_is_edited(model):
    policy = MemoryPolicy(every=1, max_frames=2)
    video = session(model, 3, np.where(TRUTH[0] < 3, TRUTH[0], 0), policy)
    video.correct({1: only(1, 2)})
    video.remove([2])
    video.add({3: only(3, 2)})
    go_on(video, 5)
    assert video.groups[0].ids == (1,)
    assert len(video.groups[0].bank) == 3  # the first, the corrected one, and one more


MASK = np.zeros((96, 160), np.uint8)
ONE = MASK.copy()
ONE[:9, :9] = 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.add({1: ONE}), r"object 1 is tracked already; use correct\(\)"),
        (lambda s: s.correct({9: ONE}), r"object 9 is not tracked; use add\(\)"),
        (lambda s: s.remove([9]), "object 9 is not tracked"),
        (lambda s: s.add({9: MASK}), "mask of object 9 is empty"),
        (lambda s: s.add({8: ONE, 9: ONE}), "masks of two objects overlap"),
        (lambda s: s.add({0: ONE}), "other than 0, not 0"),
        (lambda s: s.add({"a": ONE}), "not 'a'"),
        (lambda s: s.add({}), "of one object or more"),
        (lambda s: s.add({9: ONE[:50]}), "mask is 50x160 but frame is 96x160"),
        (lambda s: s.add(ONE), r"masks are a dict \{id: mask\}, not ndarray"),
        (lambda s: s.remove(1), "ids are a list of them, not 1"),
        (lambda s: s.remove("ab"), "object a is not tracked"),
        (lambda s: s.forget(None), "since is the index of a frame, counted from 0, not None"),
        (lambda s: s.correct({1: ONE}, since=-1), "since is the index of a frame"),
        (lambda s: s.forget(2), "since is a frame up to the current one, 1, not 2"),
        (lambda s: s.correct({1: ONE}, since=99), "since is a frame up to the current one, 1, not 99"),
        (lambda s: s.undo(), "nothing to undo"),
    ],
)
def test_a_wrong_edit_is_told_and_changes_nothing(model, edit, message):
    video, plain = session(model, 2), session(model, 2)
    with pytest.raises(ValueError, match=message):
        edit(video)
    assert_same(go_on(video, 1), go_on(plain, 1))


def test_before_the_first_frame_there_is_nothing_to_edit(model):
    video = Session(model, None, SIZE)
    with pytest.raises(ValueError, match=r"no frame to edit yet; step\(\) comes first"):
        video.add({1: ONE})
    with pytest.raises(ValueError, match="no object is tracked"):
        video.pin()


def outcomes(video):
    """All that a session remembers and says of its current frame, to compare with another's."""
    banks = [group.bank.state() for group in video.groups]
    held = [x for tensors, _ in banks for x in tensors.values()]
    evidence = video._now.evidence
    signs = (*evidence.signs.flatten().tolist(), *evidence.edges_before.tolist(), *evidence.given)
    return video.index, video.ids, [slots for _, slots in banks], held, signs


def assert_alike(ours, theirs):
    assert ours[:3] == theirs[:3]
    assert all(torch.equal(a, b) for a, b in zip(ours[3], theirs[3], strict=True))
    assert ours[4] == theirs[4]


STEPS_AND_EDITS = {
    "a step": lambda video: video.step(FRAMES[video.index]),
    "a step with a mask": lambda video: video.step(FRAMES[video.index], only(3, video.index)),
    "add": lambda video: video.add({3: only(3, 4)}),
    "correct": lambda video: video.correct({1: only(1, 4)}, since=1),
    "remove": lambda video: video.remove([1]),
    "pin": lambda video: video.pin(),
}


@pytest.mark.parametrize("name", [name for name in STEPS_AND_EDITS if name != "pin"])  # has no result
@pytest.mark.parametrize("trouble", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_what_fails_while_confidences_are_computed_did_not_happen(model, monkeypatch, name, trouble):
    two = np.where(TRUTH[0] == 3, 0, TRUTH[0])
    broken, plain = (session(model, 5, two, MemoryPolicy(every=1, max_frames=3)) for _ in range(2))

    def fail(*_):
        raise trouble

    with monkeypatch.context() as patch:
        patch.setattr("emavos.session.frame.signs_of", fail)
        with pytest.raises(trouble):
            STEPS_AND_EDITS[name](broken)
    assert_alike(outcomes(broken), outcomes(plain))
    assert_same(go_on(broken), go_on(plain))


@pytest.mark.parametrize("size", [None, SIZE, 64])
@pytest.mark.parametrize("edit", ["a step", "add", "correct", "remove", "pin", "undo"])
def test_what_is_written_to_a_result_changes_nothing(model, size, edit):
    two = np.where(TRUTH[0] == 3, 0, TRUTH[0])
    after = []
    for write in (False, True):
        video = Session(model, MemoryPolicy(every=1), size)
        results = [video.step(FRAMES[0], two), video.step(FRAMES[1])]
        if write:
            results[-1].prob.zero_()
        if edit == "undo":
            result = video.correct({1: only(1, 1)})
            if write:
                result.prob.zero_()
            results.append(video.undo())
            if write:
                kept, result = results[-1].prob.clone(), results[-1]
                results[-1].prob.zero_()
                results[-1] = replace(result, prob=kept)
        else:
            results.append(STEPS_AND_EDITS[edit](video))
        after.append((results[-1], video.step(FRAMES[2])))
    for plain, written in zip(*after, strict=True):
        assert plain is written is None or torch.equal(plain.prob, written.prob)


def test_a_correction_since_a_frame_forgets_in_the_memory_of_its_objects_and_no_others(model):
    video = session(model, 1, only(1), MemoryPolicy(every=2))
    video.add({2: only(2), 3: only(3)})
    go_on(video, 6)

    def frames():
        return {id: [frame for _, frame in slots] for id, slots in held(video).items()}

    every = [0, 2, 4, 6]
    assert frames() == {1: every, 2: every, 3: every}
    video.correct({2: only(2, 6)}, since=1)
    assert frames() == {1: every, 2: [0, 6], 3: every}
    video.undo()
    video.correct({1: only(1, 6), 3: only(3, 6)}, since=3)
    assert frames() == {1: [0, 2, 6], 2: every, 3: [0, 2, 6]}
    video.forget(since=1)
    assert frames() == {1: [0, 6], 2: [0], 3: [0, 6]}
