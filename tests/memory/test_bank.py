from __future__ import annotations

import pytest
import torch

from emavos.memory import MemoryBank, MemoryPolicy, topk_readout
from emavos.memory.prototypes import consolidate


def frame(number, objects=2):
    g = torch.Generator().manual_seed(number)
    return torch.randn(4, 3, 5, generator=g), torch.randn(objects, 6, 3, 5, generator=g)


def read_of(bank, numbers, query):
    """What a bank that holds just these frames says."""
    keys = torch.cat([frame(n)[0].flatten(1).T for n in numbers])
    values = torch.cat([frame(n)[1].flatten(2).permute(2, 0, 1) for n in numbers])
    return topk_readout(query.flatten(1), keys, values, bank.top_k).unflatten(2, query.shape[1:])


def filled(policy, kinds):
    bank = MemoryBank(policy)
    for number, kind in enumerate(kinds):
        bank.add(*frame(number), kind)
    return bank


QUERY = frame(99)[0]


def test_a_bank_reads_all_that_was_added():
    bank = filled(MemoryPolicy(max_frames=None), ["given"] + ["kept"] * 8)
    assert len(bank) == 9
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, range(9), QUERY))


@pytest.mark.parametrize("eviction", ["oldest", "least-used"])  # of frames that were not read
def test_the_oldest_kept_frame_goes_first(eviction):
    bank = filled(MemoryPolicy(max_frames=4, eviction=eviction), ["given"] + ["kept"] * 5)
    assert len(bank) == 4
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 3, 4, 5], QUERY))


def test_given_frames_never_go():
    bank = filled(MemoryPolicy(max_frames=2), ["given", "kept", "given", "given", "kept", "kept"])
    assert len(bank) == 4
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 2, 3, 5], QUERY))


def test_the_temporary_frame_goes_at_the_next_addition():
    policy = MemoryPolicy(include_last=True, max_frames=3)
    bank = filled(policy, ["given", "kept", "temporary", "temporary"])
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 3], QUERY))
    bank.add(*frame(4), "kept")
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 4], QUERY))


def test_a_temporary_frame_costs_no_kept_one():
    bank = filled(MemoryPolicy(include_last=True, max_frames=2), ["given", "kept", "temporary"])
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 2], QUERY))


def test_a_bounded_bank_stops_growing():
    bank = filled(MemoryPolicy(max_frames=6), ["given"] + ["kept"] * 6)
    size = bank.nbytes
    for number in range(7, 60):
        bank.add(*frame(number))
    assert bank.nbytes == size
    assert len(bank) == 6


def test_growth_is_by_doubling():
    bank = MemoryBank(MemoryPolicy(max_frames=None))
    sizes = set()
    for number in range(40):
        bank.add(*frame(number))
        sizes.add(bank._values.nbytes)  # keys are one tensor per frame, and never copied
    assert len(sizes) == 5  # 4, 8, 16, 32, 64 frames


def test_what_is_stored_does_not_change_with_what_was_given():
    bank = MemoryBank()
    key, values = frame(0)
    bank.add(key, values, "given")
    before = bank.read(QUERY)
    key.zero_()
    values.zero_()
    torch.testing.assert_close(bank.read(QUERY), before)


@pytest.mark.parametrize("field", ["every", "top_k", "max_frames", "max_cells"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "5", True])
def test_a_wrong_policy_says_which_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is a whole number"):
        MemoryPolicy(**{field: value})


def test_a_policy_names_an_eviction_that_exists():
    with pytest.raises(ValueError, match="eviction is one of oldest, least-used, consolidate, not 'newest'"):
        MemoryPolicy(eviction="newest")


def played(policy, frames, given=(0,), looked_at=None):
    """A bank of a video: each frame is read, then stored. looked_at: the frame whose key is read with."""
    bank = MemoryBank(policy)
    for number in range(frames):
        if number:
            bank.read(frame(number if looked_at is None else looked_at)[0], number)
        bank.add(*frame(number), "given" if number in given else "kept", number)
    return bank


def frames_of(bank):
    return [index for _, index in bank.state()[1]]


EVICTIONS = ["oldest", "least-used", "consolidate"]


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_whatever_is_evicted_the_bank_stops_growing_and_keeps_what_was_given(eviction):
    policy = MemoryPolicy(max_frames=5, eviction=eviction)
    bank = played(policy, 12, given=(0, 4))
    sizes = {bank.nbytes}
    for number in range(12, 70):
        bank.read(frame(number)[0], number)
        bank.add(*frame(number), frame=number)
        sizes.add(bank.nbytes)
    assert len(sizes) == 1
    assert set(frames_of(bank)) >= {0, 4, 69}
    room = MemoryBank(MemoryPolicy(max_frames=5))
    for number in range(5):
        room.add(*frame(number))
    assert bank.nbytes == room.nbytes  # prototypes take the room of a frame, not more


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_a_bound_in_cells_is_as_many_frames_as_fit(eviction):
    for cells, bound in ((15, 1), (44, 2), (75, 5), (99, 6)):  # a frame here has 15; one is held at least
        banks = [
            played(MemoryPolicy(max_frames=frames, max_cells=cells, eviction=eviction), 12)
            for frames in (None, 100, bound)
        ]
        assert len({bank.nbytes for bank in banks}) == 1
        assert len({tuple(frames_of(bank)) for bank in banks}) == 1
        assert MemoryPolicy(max_frames=None, max_cells=cells).frames(15) == max(cells // 15, 1)
    assert MemoryPolicy(max_frames=3, max_cells=75).frames(15) == 3
    assert MemoryPolicy(max_frames=None).frames(15) is None


def test_the_frame_that_was_read_least_goes():
    bank = played(MemoryPolicy(max_frames=4, eviction="least-used"), 12, looked_at=2)
    assert 2 in frames_of(bank)
    assert 0 in frames_of(bank)
    assert 2 not in frames_of(played(MemoryPolicy(max_frames=4, eviction="oldest"), 12, looked_at=2))


def test_use_is_counted_per_frame_of_time():
    bank = MemoryBank(MemoryPolicy(max_frames=3, eviction="least-used", top_k=1))
    for number in range(2):
        bank.add(*frame(number), frame=number)
    for number in range(2, 10):  # frame 0 is read for eight frames
        bank.read(frame(0)[0], number)
    bank.add(*frame(10), frame=10)
    bank.read(frame(10)[0], 11)  # and 10 for one, which is less in all, but more of its time than that of 1
    bank.add(*frame(12), frame=12)
    assert frames_of(bank) == [0, 12, 10]


def test_a_frame_that_is_read_again_counts_once():
    banks = [MemoryBank(MemoryPolicy(max_frames=4, eviction="least-used")) for _ in range(2)]
    for bank, times in zip(banks, (1, 3), strict=True):
        for number in range(3):
            bank.add(*frame(number), frame=number)
        for number in (5, 6):
            for _ in range(times):
                bank.read(frame(number)[0], number)
    torch.testing.assert_close(banks[0].state()[0]["received"], banks[1].state()[0]["received"])
    assert banks[0].state()[0]["received"].sum() == pytest.approx(2 * 15)


def test_a_readout_of_no_frame_and_one_that_is_taken_back_are_no_use():
    bank = MemoryBank(MemoryPolicy(max_frames=4, eviction="least-used"))
    bank.add(*frame(0), frame=0)
    bank.read(frame(1)[0], 1)
    bank.read(frame(7)[0])
    bank.read(frame(2)[0], 2)
    bank.unread(2)
    bank.unread(1)  # which was not the last
    assert bank.state()[0]["received"].sum() == pytest.approx(15)


def changed(bank, generator, number):
    """One change of a bank, drawn."""
    choice = int(torch.randint(6, (), generator=generator))
    if choice == 0:
        bank.forget(since=number - int(torch.randint(8, (), generator=generator)))
    elif choice == 1:
        bank.forget_previous()
    elif choice == 2 and bank.read(QUERY).shape[0] > 1:
        bank.select([1])
    elif choice == 3:
        bank.read(frame(number)[0], number)
    else:
        kind = ("given", "kept", "temporary")[int(torch.randint(3, (), generator=generator))]
        objects = bank.read(QUERY).shape[0]
        again = int(torch.randint(5, (), generator=generator)) == 0
        bank.add(*frame(number, objects), kind, number - 5 if again else number)


def assert_holds(bank, state, nbytes):
    (tensors, slots), (theirs, expected) = bank.state(), state
    assert slots == expected
    assert tensors.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[name]) for name, x in tensors.items())
    assert bank.nbytes == nbytes


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_a_bank_that_is_rewound_holds_what_it_held_and_goes_on_as_if_nothing_had_been(eviction, seed):
    generator = torch.Generator().manual_seed(seed)
    policy = MemoryPolicy(max_frames=4, eviction=eviction, include_last=True)
    bank, plain = (played(policy, 3 + seed) for _ in range(2))
    for one in (bank, plain):
        one.read(frame(50)[0], 9)  # which is not counted yet
    marks = []
    for number in range(10, 40):
        if number % 4 == 2:
            marks.append((bank.mark(), bank.state(), bank.nbytes))
        changed(bank, generator, number)
    for mark, *held in (marks[-1], marks[-2], marks[0]):  # those between are passed over
        bank.rewind(mark)
        assert_holds(bank, *held)
    for number in range(10, 20):
        for one in (bank, plain):
            one.read(frame(number)[0], number)
            one.add(*frame(number), "kept" if number % 2 else "temporary", number)
    assert_holds(bank, plain.state(), plain.nbytes)


def test_a_mark_sets_aside_what_is_written_over_and_nothing_else():
    def set_aside(mark):
        return sum(x.nbytes for x in mark.replaced.values())

    bank = played(MemoryPolicy(max_frames=4), 3)
    mark = bank.mark()
    bank.add(*frame(3), frame=3)  # where nothing was
    assert set_aside(mark) == 0
    one = bank.nbytes // 4
    mark = bank.mark()
    for number in (4, 4, 4):  # in place of one that goes, then of itself
        bank.add(*frame(number), "given", number)
    assert 0 < set_aside(mark) < 4 * one
    bank.unmark()
    bank.add(*frame(5), frame=5)
    held = set_aside(mark)
    bank.add(*frame(6), frame=6)
    assert set_aside(mark) == held


def test_what_an_evicted_frame_said_is_still_said_by_its_prototypes():
    query, values = frame(1)
    errors = {
        eviction: (played(MemoryPolicy(max_frames=4, top_k=1, eviction=eviction), 9).read(query) - values)
        .square()
        .mean()
        for eviction in ("oldest", "consolidate")
    }
    assert errors["consolidate"] < errors["oldest"]


def test_prototypes_are_the_most_used_cells_with_values_pooled_from_their_neighbours():
    keys, values = frame(0)
    keys, values = keys.flatten(1).T, values.flatten(2).permute(2, 0, 1)
    received = torch.arange(15.0).roll(4)
    made = consolidate(keys, values, received, 7, count=3, top_k=20)
    assert made.received.tolist() == [14, 13, 12]
    assert torch.equal(made.keys, keys[[3, 2, 1]])
    assert made.frames.tolist() == [7, 7, 7]
    affinity = (-torch.cdist(keys, made.keys).square() / 2).softmax(dim=0)  # over sqrt(4) channels
    torch.testing.assert_close(made.values, torch.einsum("noc,np->poc", values, affinity))
    alone = consolidate(keys, values, received, 7, count=3, top_k=1)
    assert torch.equal(alone.values, values[[3, 2, 1]])


def test_of_prototypes_those_used_least_go_first():
    policy = MemoryPolicy(max_frames=3, eviction="consolidate", top_k=1)
    bank = played(policy, 60, looked_at=1)  # each evicted frame leaves one of its 15 cells
    held = bank.state()[0]
    assert len(held["prototypes.keys"]) == 15
    assert 1 in held["prototypes.frames"].tolist()
    assert max(held["prototypes.frames"].tolist()) >= 57


def test_forgetting_drops_the_prototypes_of_these_frames_too():
    bank = played(MemoryPolicy(max_frames=3, eviction="consolidate"), 12)
    assert len(bank.state()[0]["prototypes.keys"]) == 10
    bank.forget(since=5)
    held = bank.state()[0]
    assert held["prototypes.frames"].tolist() == [1, 2, 3, 4]
    cells = torch.cat([held["prototypes.keys"], held["keys"].flatten(0, 1)])
    values = torch.cat([held["prototypes.values"], held["values"].flatten(0, 1)])
    expected = topk_readout(QUERY.flatten(1), cells, values, 20).unflatten(2, QUERY.shape[1:])
    torch.testing.assert_close(bank.read(QUERY), expected)
    bank.forget(since=0)
    assert "prototypes.keys" not in bank.state()[0]
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0], QUERY))


def test_objects_that_leave_take_their_prototypes_with_them():
    bank = played(MemoryPolicy(max_frames=3, eviction="consolidate"), 12)
    before = bank.read(QUERY)
    bank.select([1])
    torch.testing.assert_close(bank.read(QUERY), before[[1]])
    bank.add(*frame(12, objects=1), frame=12)
    assert bank.read(QUERY).shape[0] == 1


def test_given_frames_beyond_the_bound_do_not_copy_the_bank_each_time():
    bank = MemoryBank(MemoryPolicy(max_frames=4))
    copies, place = 0, 0
    for number in range(200):
        bank.add(*frame(number), "given")
        copies += bank._values.data_ptr() != place
        place = bank._values.data_ptr()
    assert len(bank) == 200
    assert copies < 12
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, range(200), QUERY))


def test_an_empty_bank_and_an_unknown_kind_are_told():
    with pytest.raises(ValueError, match="the memory is empty"):
        MemoryBank().read(QUERY)
    with pytest.raises(ValueError, match="kind is one of given, kept, temporary, not 'typo'"):
        MemoryBank().add(*frame(0), "typo")


def test_a_frame_that_is_added_again_takes_its_own_place():
    bank = MemoryBank(MemoryPolicy(max_frames=3))
    for number in range(3):
        bank.add(*frame(number), "kept", frame=10 + number)
    bank.add(*frame(7), "given", frame=11)
    assert len(bank) == 3
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 7, 2], QUERY))


def test_what_was_given_is_not_forgotten():
    bank = filled(MemoryPolicy(max_frames=None), ["given", "kept", "kept", "given", "kept", "temporary"])
    bank.forget(since=2)
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 3], QUERY))
    bank.add(*frame(8))
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 3, 8], QUERY))


def test_selected_objects_read_as_before_and_the_others_free_their_memory():
    bank = MemoryBank()
    for number in range(3):
        bank.add(*frame(number, objects=3))
    before, held = bank.read(QUERY), bank.nbytes
    bank.select([2, 0])
    torch.testing.assert_close(bank.read(QUERY), before[[2, 0]])
    assert bank.nbytes < held
    bank.add(*frame(5, objects=2))
    assert bank.read(QUERY).shape[0] == 2


def test_what_was_given_once_stays_given():
    bank = MemoryBank(MemoryPolicy(max_frames=2))
    bank.add(*frame(0), "given", frame=0)
    bank.add(*frame(1), "kept", frame=0)
    for number in (2, 3, 4):
        bank.add(*frame(number), frame=number)
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [1, 4], QUERY))


def test_a_frame_that_is_prepared_is_not_there_before_it_is_committed():
    policy = MemoryPolicy(max_frames=3, include_last=True)
    bank = filled(policy, ["given", "kept", "temporary"])
    commit = bank.adding(*frame(3))
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 2], QUERY))
    commit()
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 3], QUERY))


@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
def test_the_latest_key_is_that_of_the_latest_frame_that_stays(eviction):
    bank = MemoryBank(MemoryPolicy(max_frames=4, eviction=eviction))
    for number in range(7):
        bank.add(*frame(number), frame=number)
        bank.read(QUERY, number + 1)
    bank.add(*frame(7), "temporary", frame=7)
    assert torch.equal(bank.latest_key(7), frame(6)[0].flatten(1).T)


def test_frames_of_a_time_to_come_are_not_the_latest():
    bank = MemoryBank()
    bank.add(*frame(3), frame=3)
    bank.add(*frame(12), "given", frame=12)
    assert bank.latest(7) == 3
    assert torch.equal(bank.latest_key(7), frame(3)[0].flatten(1).T)
