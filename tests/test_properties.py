"""Laws of sessions, banks, policies and masks, held against whatever hypothesis thinks of."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from emavos import MemoryPolicy, Session, Shortcuts
from emavos.demo import synthetic_clip
from emavos.frames.preprocess import ids_of, one_hot, pad_to_stride, to_mask
from emavos.io import read_mask, write_mask
from emavos.memory import Eviction, Kind, MemoryBank
from emavos.models import aggregate
from emavos.session.frame import encode_values
from emavos.weights import load_model

HEIGHT, WIDTH = 32, 48
FRAMES = synthetic_clip(frames=32, size=(HEIGHT, WIDTH))[0]
MODEL = load_model()

policies = st.builds(
    MemoryPolicy,
    every=st.integers(1, 3),
    include_last=st.booleans(),
    top_k=st.sampled_from([1, 4, 20]),
    max_frames=st.none() | st.integers(1, 4),
    max_cells=st.none() | st.integers(1, 30),
    eviction=st.sampled_from(get_args(Eviction)),
)
shortcuts = st.builds(
    Shortcuts, decode_near=st.booleans(), encode_near=st.booleans(), still=st.sampled_from([0.0, 1.0])
)


@st.composite
def masks(draw):
    """(H, W) int32 of one object or more: boxes, the later ones on top."""
    mask = np.zeros((HEIGHT, WIDTH), np.int32)
    for id in draw(st.lists(st.sampled_from([1, 2, 7, 255, -3, 70_000]), min_size=1, max_size=3)):
        top, left = draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))
        mask[top : top + draw(st.integers(1, 24)), left : left + draw(st.integers(1, 24))] = id
    return mask


def ids_in(mask):
    return np.unique(mask[mask != 0]).tolist()


def bank_states(session):
    return [group.bank.state() for group in session.groups]


def assert_same_banks(session, states):
    for (ours, slots), (theirs, expected) in zip(bank_states(session), states, strict=True):
        assert slots == expected
        assert ours.keys() == theirs.keys()
        for name, x in ours.items():
            assert torch.equal(x, theirs[name]), name


class Sessions(RuleBasedStateMachine):
    """A session beside the plainest account of it: which objects, which frames were given for them, and what
    its memory has of those that were remembered. In the end all that was not undone is done anew, in one go.
    """

    def __init__(self):
        super().__init__()
        self.ids = ()  # in the order in which they came
        self.groups = []  # (ids, indices of given frames) of objects with one memory
        self.given = []  # objects whose masks are known on the current frame
        self.remembered = {}  # (id, index of frame): the values that `remember` stored, which are to stay
        self.done = []  # what was done to the session and not undone
        self.undo = []  # (account, result, states of banks) before each edit since the last step
        self.result = None

    @initialize(
        policy=policies, size=st.sampled_from([None, 16]), shortcuts=st.none() | shortcuts, mask=masks()
    )
    def begin(self, policy, size, shortcuts, mask):
        self.fresh = lambda: Session(MODEL, policy, size, shortcuts)
        self.session = self.fresh()
        self.step(mask)

    def do(self, act):
        """Do something to the session, and note it; returns what that returned."""
        returned = act(self.session)
        self.done.append(act)
        return returned

    def step(self, mask):
        self.result = self.do(lambda session: session.step(FRAMES[session.index % len(FRAMES)], mask))
        self.given, self.undo = [], []
        if mask is not None:
            self.note_given(ids_in(mask))
            assert np.array_equal(self.result.mask[mask != 0], mask[mask != 0])

    def note_given(self, ids):
        if new := [id for id in ids if id not in self.ids]:
            self.groups.append((new, set()))
            self.ids += tuple(new)
        self.given += ids
        masked = {*self.given, *(id for id, index in self.remembered if index == self.result.index)}
        for id in ids:
            self.remembered.pop((id, self.result.index), None)
        # objects with a mask part from those without
        parts = [
            ([id for id in members if (id in masked) is own], set(frames))
            for members, frames in self.groups
            for own in (True, False)
        ]
        self.groups = [part for part in parts if part[0]]
        for members, frames in self.groups:
            if set(members) <= masked:
                frames.add(self.result.index)

    def before_an_edit(self):
        groups = [(list(ids), set(frames)) for ids, frames in self.groups]
        account = self.ids, groups, list(self.given), dict(self.remembered), list(self.done), self.result
        self.undo.append((*account, bank_states(self.session)))

    @rule(mask=st.none() | masks())
    def take_a_step(self, mask):
        self.step(mask)

    @rule(steps=st.integers(2, 5))
    def take_some_steps(self, steps):
        for _ in range(steps):
            self.step(None)

    @rule(mask=st.none() | masks())
    def go_on_from_a_file(self, mask):
        with tempfile.TemporaryDirectory() as folder:
            self.session.save(Path(folder) / "session")
            loaded = Session.load(Path(folder) / "session", MODEL)
        self.step(mask)
        uninterrupted, self.session = self.session, loaded
        result = loaded.step(FRAMES[loaded.index % len(FRAMES)], mask)
        assert result.ids == self.result.ids
        assert np.array_equal(result.mask, self.result.mask)
        assert torch.equal(result.prob, self.result.prob)
        assert result.confidences == self.result.confidences
        assert_same_banks(loaded, bank_states(uninterrupted))

    @rule(mask=masks())
    def add(self, mask):
        new = [id for id in ids_in(mask) if id not in self.ids]
        assume(new)
        self.before_an_edit()
        self.result = self.do(lambda session: session.add({id: mask == id for id in new}))
        self.note_given(new)
        assert all((self.result.mask[mask == id] == id).all() for id in new)

    @rule(mask=masks(), data=st.data())
    def correct(self, mask, data):
        known = [id for id in ids_in(mask) if id in self.ids]
        assume(known)
        self.say(known, mask, data.draw(st.none() | st.integers(0, self.session.index - 1)))

    def say(self, known, mask, since=None):
        self.before_an_edit()
        self.result = self.do(lambda session: session.correct({id: mask == id for id in known}, since))
        self.note_given(known)
        assert all(np.array_equal(self.result.mask == id, mask == id) for id in known)
        with torch.no_grad():  # as in a session: with gradients, some convolutions round in another way
            values = encode_values(MODEL, self.session._now, self.session.shortcuts)
        encoded = dict(zip(self.ids, values.flatten(2), strict=True))
        for number, (ids, _) in enumerate(self.groups):
            if set(ids) & set(known):
                stored = zip(ids, self.values_of(number, self.result.index), strict=True)
                assert all(torch.equal(values, encoded[id].T) for id, values in stored if id in known)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def remove(self, data):
        gone = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, unique=True))
        self.before_an_edit()
        before = self.result
        self.result = self.do(lambda session: session.remove(gone))
        self.groups = [([id for id in ids if id not in gone], frames) for ids, frames in self.groups]
        self.groups = [group for group in self.groups if group[0]]
        self.ids = tuple(id for id in self.ids if id not in gone)
        self.given = [id for id in self.given if id not in gone]
        self.remembered = {key: x for key, x in self.remembered.items() if key[0] not in gone}
        for id in self.ids:
            plane, was = 1 + self.result.ids.index(id), 1 + before.ids.index(id)
            assert torch.equal(self.result.prob[plane], before.prob[was])

    @precondition(lambda self: self.ids)
    @rule()
    def pin(self):
        self.before_an_edit()
        self.do(lambda session: session.pin())
        known = dict(self.remembered)  # which a pin leaves as they are
        self.note_given(list(self.ids))
        self.remembered = known

    @rule(data=st.data())
    def forget(self, data):
        since = data.draw(st.integers(0, self.session.index - 1))
        self.before_an_edit()
        self.do(lambda session: session.forget(since))
        for group, (_, known) in zip(self.session.groups, self.groups, strict=True):
            held = [frame for _, frame in group.bank.state()[1]]
            assert all(frame < since or frame in known for frame in held)

    @precondition(lambda self: self.ids)
    @rule(mask=masks(), ahead=st.integers(0, 4), data=st.data())
    def remember(self, mask, ahead, data):
        """A mask that may lack all of them, and one with the objects of a group and perhaps others."""
        if data.draw(st.booleans()):
            ids = data.draw(st.sampled_from(self.groups))[0]
            mask[0, : len(ids)] = ids
        self.learn(mask, self.result.index + ahead)

    @precondition(lambda self: any(len(ids) > 1 for ids, _ in self.groups))
    @rule(mask=masks(), other=masks(), data=st.data())
    def correct_one_of_those_that_are_remembered(self, mask, other, data):
        ids = data.draw(st.sampled_from([ids for ids, _ in self.groups if len(ids) > 1]))
        mask[0, : len(ids)] = ids
        self.learn(mask, self.result.index)
        one = data.draw(st.sampled_from(ids))
        self.say([one], np.where(other != 0, one, 0))

    def learn(self, mask, index):
        states, learning = bank_states(self.session), []
        for number, (ids, frames) in enumerate(self.groups):
            if set(ids) <= set(ids_in(mask)):
                learning.append((number, ids))
                frames.add(index)
        if not learning:
            with pytest.raises(ValueError, match="cannot be remembered: it lacks"):
                self.session.remember(FRAMES[index % len(FRAMES)], mask, index)
            assert_same_banks(self.session, states)
            return
        remembered = self.do(lambda session: session.remember(FRAMES[index % len(FRAMES)], mask, index))
        assert list(remembered) == [id for _, ids in learning for id in ids]
        self.undo = []
        for number, ids in learning:
            for id, values in zip(ids, self.values_of(number, index), strict=True):
                self.remembered[id, index] = values

    def values_of(self, number, index):
        """What the memory of a group has of a frame: (h * w, Cv) of each object."""
        tensors, slots = self.session.groups[number].bank.state()
        return tensors["values"][[frame for _, frame in slots].index(index)].unbind(dim=1)

    @invariant()
    def what_was_remembered_is_held_until_that_object_is_corrected_there(self):
        for number, (ids, _) in enumerate(self.groups):
            for index in {index for id, index in self.remembered if id in ids}:
                for id, values in zip(ids, self.values_of(number, index), strict=True):
                    assert torch.equal(self.remembered.get((id, index), values), values)

    def teardown(self):
        if self.result is None:
            return
        again = self.fresh()
        for act in self.done:
            act(again)
        assert again.ids == self.session.ids
        assert again._banks.counted_from == self.session._banks.counted_from
        assert_same_banks(again, bank_states(self.session))
        ours, theirs = (one.step(FRAMES[one.index % len(FRAMES)]) for one in (self.session, again))
        assert torch.equal(ours.prob, theirs.prob)
        assert ours.confidences == theirs.confidences

    @precondition(lambda self: self.undo)
    @rule()
    def take_back(self):
        self.ids, self.groups, self.given, self.remembered, self.done, self.result, states = self.undo.pop()
        result = self.session.undo()
        assert result.ids == self.result.ids
        assert torch.equal(result.prob, self.result.prob)
        assert_same_banks(self.session, states)

    @precondition(lambda self: self.ids)
    @rule(mask=masks())
    def a_wrong_edit_changes_nothing(self, mask):
        states = bank_states(self.session)
        with pytest.raises(ValueError, match="is tracked already"):
            self.session.add({self.ids[0]: mask != 0})
        with pytest.raises(ValueError, match="is not tracked"):
            self.session.correct({123: mask != 0})
        with pytest.raises(ValueError, match="is empty"):
            self.session.add({123: mask == 123})
        assert_same_banks(self.session, states)

    @invariant()
    def ids_are_in_the_order_in_which_they_came(self):
        if self.result is not None:
            assert self.session.ids == self.result.ids == self.ids

    @invariant()
    def probabilities_sum_to_one_and_masks_hold_followed_ids_alone(self):
        if self.result is not None:
            prob = self.result.prob
            assert prob.shape == (1 + len(self.ids), HEIGHT, WIDTH)
            assert prob.min() >= 0
            torch.testing.assert_close(prob.sum(0), torch.ones(HEIGHT, WIDTH))
            assert set(np.unique(self.result.mask).tolist()) <= {0, *self.ids}
            assert all(0 <= confidence <= 1 for confidence in self.result.confidences)

    @invariant()
    def given_frames_are_held_and_the_policy_bounds_the_others(self):
        if self.result is None:
            return
        for group, (_, known) in zip(self.session.groups, self.groups, strict=True):
            assert_bounded(group.bank, known)


def assert_bounded(bank, given):
    """What every policy promises of a bank, of which the frames `given` were given."""
    tensors, slots = bank.state()
    frames = [frame for _, frame in slots]
    assert len(set(frames)) == len(frames)
    assert {frame for kind, frame in slots if kind == "given"} == given
    assert [kind for kind, _ in slots].count("temporary") <= bank.policy.include_last
    staying = sum(kind != "temporary" for kind, _ in slots)
    cells = tensors["keys"].shape[1]
    if (bound := bank.policy.frames(cells)) is not None:
        assert staying <= max(bound, len(given) + 1)
        prototypes = tensors.get("prototypes.keys", ())
        assert len(prototypes) <= cells
        if len(prototypes) and bound > 1:  # they take the room of one frame
            assert staying + 1 <= max(bound, len(given) + 2)


Sessions.TestCase.settings = settings(
    max_examples=15, stateful_step_count=10, deadline=None, derandomize=True
)
TestSessions = Sessions.TestCase


@pytest.mark.slow
def test_sessions_at_length():
    """A minute: enough that one of several objects is corrected where all were remembered."""
    longer = settings(max_examples=120, stateful_step_count=20, deadline=None, derandomize=True)
    run_state_machine_as_test(Sessions, settings=longer)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    policy=policies,
    frames=st.lists(
        st.tuples(st.sampled_from(get_args(Kind)), st.integers(1, 3), st.booleans()), min_size=1, max_size=20
    ),
)
def test_a_bank_keeps_within_its_policy_and_another_of_its_state_says_the_same(policy, frames):
    generator = torch.Generator().manual_seed(0)
    bank, given, now = MemoryBank(policy), set(), 0
    for kind, gap, read in frames:
        if kind == "temporary" and not policy.include_last:
            continue
        now += gap
        key, values = torch.randn(4, 2, 3, generator=generator), torch.randn(2, 5, 2, 3, generator=generator)
        if read and len(bank):
            other = MemoryBank.from_state(policy, *bank.state())
            assert torch.equal(bank.read(key, now), other.read(key, now))
        bank.add(key, values, kind, now)
        given |= {now} if kind == "given" else set()
        assert_bounded(bank, given)
        assert now in [frame for _, frame in bank.state()[1]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(policy=policies, cells=st.integers(1, 100))
def test_a_policy_holds_as_many_frames_as_fit_and_one_at_least(policy, cells):
    bound = policy.frames(cells)
    assert (bound is not None) == policy.bounded
    if bound is not None:
        assert bound >= 1
        assert policy.max_frames is None or bound <= policy.max_frames
        assert policy.max_cells is None or bound == 1 or bound * cells <= policy.max_cells
        assert bound == policy.max_frames or (bound + 1) * cells > policy.max_cells


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(
        ["every", "top_k", "max_frames", "max_cells", "include_last", "eviction", "backend"]
    ),
    value=st.integers(max_value=0) | st.floats() | st.text(max_size=5) | st.just(()),
)
def test_a_policy_that_makes_no_sense_is_refused_by_the_name_of_its_field(name, value):
    with pytest.raises(ValueError, match=name):
        MemoryPolicy(**{name: value})


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def written(draw):
    """(H, W) of ids for a file: scattered, in stairs of one pixel, or in slivers between two others."""
    shape, low = draw(shapes), draw(st.sampled_from([0, 200, 250, 60_000]))
    kind = draw(st.sampled_from(["scattered", "stairs", "slivers"]))
    if kind == "scattered":
        return draw(arrays.arrays(np.int32, shape, elements=st.integers(0, 3) | st.integers(0, 0xFFFF)))
    stairs = low + np.add.outer(np.arange(shape[0]), draw(st.integers(0, 9)) * np.arange(shape[1]))
    return stairs if kind == "stairs" else np.where(np.indices(shape).sum(axis=0) % 3, stairs, low)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(mask=written())
def test_a_mask_that_is_written_is_read_as_it_was(mask):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        write_mask(path, mask)
        assert np.array_equal(read_mask(path), mask)
        with Image.open(path) as picture:
            assert np.array_equal(to_mask(picture, mask.shape), mask)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(mask=arrays.arrays(np.int32, shapes, elements=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 2)))
def test_planes_say_what_the_ids_said(mask):
    ids = ids_of(to_mask(mask, mask.shape))
    assert list(ids) == np.unique(mask[mask != 0]).tolist()
    planes = one_hot(torch.from_numpy(mask), ids)
    table = np.array((0, *ids), np.int32)
    background = torch.full((1, *mask.shape), 0.5)
    assert np.array_equal(table[torch.cat([background, planes]).argmax(0).numpy()], mask)
    assert (planes.sum(0) == torch.from_numpy(mask != 0)).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    prob=arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 4)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_aggregated_probabilities_are_a_distribution_in_the_order_of_objects(prob):
    """Certain objects and none included."""
    out = aggregate(torch.from_numpy(prob))
    torch.testing.assert_close(out.sum(0), torch.ones(prob.shape[1:]))
    assert out.min() >= 0
    for before, after in itertools.pairwise(prob):
        ours = out[1:].numpy()
        first = next(i for i in range(len(prob)) if prob[i] is not None and np.shares_memory(prob[i], before))
        assert (ours[first][before > after] >= ours[first + 1][before > after]).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), stride=st.integers(1, 20), seed=st.integers(0, 9)
)
def test_padding_adds_zeros_alone_and_its_crop_is_the_picture(shape, stride, seed):
    x = 1 + torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    padded, crop = pad_to_stride(x, stride)
    assert torch.equal(padded[crop], x)
    assert (padded != 0).sum() == x.numel()
    assert all(size % stride == 0 for size in padded.shape)
