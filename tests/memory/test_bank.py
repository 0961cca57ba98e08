from __future__ import annotations

import pytest
import torch

from emavos.memory import MemoryBank, MemoryPolicy, topk_readout


def frame(number, objects=2):
    g = torch.Generator().manual_seed(number)
    return torch.randn(4, 3, 5, generator=g), torch.randn(objects, 6, 3, 5, generator=g)


def read_of(bank, numbers, query):
    """What a bank that holds just these frames says."""
    keys = torch.cat([frame(n)[0].flatten(1).T for n in numbers])
    values = torch.cat([frame(n)[1].flatten(2).permute(2, 0, 1) for n in numbers])
    return topk_readout(query.flatten(1), keys, values, bank.policy.top_k).unflatten(2, query.shape[1:])


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


def test_the_oldest_kept_frame_goes_first():
    bank = filled(MemoryPolicy(max_frames=4), ["given"] + ["kept"] * 5)
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
        sizes.add(bank.nbytes)
    assert len(sizes) == 5  # 4, 8, 16, 32, 64 frames


def test_what_is_stored_does_not_change_with_what_was_given():
    bank = MemoryBank()
    key, values = frame(0)
    bank.add(key, values, "given")
    before = bank.read(QUERY)
    key.zero_()
    values.zero_()
    torch.testing.assert_close(bank.read(QUERY), before)


@pytest.mark.parametrize("field", ["every", "top_k", "max_frames"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "5", True])
def test_a_wrong_policy_says_which_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is a whole number"):
        MemoryPolicy(**{field: value})


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


def test_a_copy_lives_a_life_of_its_own():
    bank = filled(MemoryPolicy(max_frames=4), ["given", "kept", "kept"])
    copy = bank.copy()
    for number in range(3, 7):
        bank.add(*frame(number))
    torch.testing.assert_close(copy.read(QUERY), read_of(copy, [0, 1, 2], QUERY))
    copy.add(*frame(9))
    torch.testing.assert_close(copy.read(QUERY), read_of(copy, [0, 1, 2, 9], QUERY))
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 4, 5, 6], QUERY))


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
    commit = bank.prepare(*frame(3))
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 2], QUERY))
    commit()
    torch.testing.assert_close(bank.read(QUERY), read_of(bank, [0, 1, 3], QUERY))
