from __future__ import annotations

import shutil

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from emavos.memory import MemoryPolicy
from emavos.memory.shared import shared_top
from emavos.session.memory import Banks

BACKENDS = [
    "auto",
    "blocks",
    pytest.param("native", marks=pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")),
]
CELLS = 5, 9  # of a frame, not a multiple of the readout's groups of 8


def key(generator):
    return torch.randn(6, *CELLS, generator=generator)


def begun(frames=9, **policy):
    """Banks of objects that begin on frames 0, 1, 1, 3 and 6, and the generator that drew them.

    With include_last, every other frame is temporary.
    """
    generator = torch.Generator().manual_seed(0)
    banks = Banks(MemoryPolicy(every=1, **policy))
    last = banks.policy.include_last
    begin = {0: (1,), 1: (2, 3), 3: (4,), 6: (5,)}
    for index in range(frames):
        if banks.ids:
            banks.read(key(generator), index)
        if new := begin.get(index, ()):
            banks.introduce(new)
        values = torch.randn(len(banks.ids), 4, *CELLS, generator=generator)
        banks.adding(key(generator), values, index, given=new, stays=not last or index % 2 == 1)()
    return banks, generator


def apart(banks, query):
    return torch.cat([group.bank.read(query) for group in banks])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
@pytest.mark.parametrize("top_k", [1, 20, 500])
@pytest.mark.parametrize("include_last", [False, True])
def test_banks_read_together_as_each_on_its_own(backend, eviction, top_k, include_last):
    banks, generator = begun(
        max_frames=5, eviction=eviction, top_k=top_k, backend=backend, include_last=include_last
    )
    temporary = [slot.frame for group in banks for slot in group.bank._slots if slot.kind == "temporary"]
    assert temporary == [8] * 4 * include_last
    query = key(generator)
    assert shared_top([group.bank for group in banks], query) is not None
    torch.testing.assert_close(banks.read(query, None), apart(banks, query))


def test_a_cell_that_is_not_of_a_bank_takes_no_place_there():
    banks, generator = begun(frames=4, top_k=4)
    query = key(generator)
    first = banks.groups[0].bank
    first.add(query, torch.full((1, 4, *CELLS), 9.0), frame=4)  # all that is most similar is the first one's
    torch.testing.assert_close(banks.read(query, None), apart(banks, query))


def test_readouts_of_banks_that_are_read_together_count_as_use():
    together, generator = begun(max_frames=None)
    each, _ = begun(max_frames=None)
    query = key(generator)
    together.read(query, 9)
    for group in each:
        group.bank.read(query, 9)
    for one, other in zip(together, each, strict=True):
        torch.testing.assert_close(one.bank.state()[0]["received"], other.bank.state()[0]["received"])


def test_a_frame_that_several_banks_store_is_stored_once():
    one, _ = begun(frames=1, max_frames=None)
    (keys,) = one.groups[0].bank.frame_keys.values()
    banks, _ = begun(max_frames=None)
    assert [len(group.bank) for group in banks] == [9, 8, 6, 3]
    assert banks.nbytes == sum(group.bank.own_nbytes for group in banks) + 9 * keys.nbytes
    banks.remove([1])
    assert banks.nbytes == sum(group.bank.own_nbytes for group in banks) + 8 * keys.nbytes


def tensors_of(banks):
    """Each buffer of the banks, by its address."""
    buffers = [x for group in banks for x in group.bank._buffers]
    stored = [keys for group in banks for keys in group.bank.stored_keys]
    tensors = [*buffers, *(x for keys in stored for x in (keys.keys, keys.norms))]
    return {x.untyped_storage().data_ptr(): x for x in tensors}


@pytest.mark.parametrize("eviction", ["oldest", "least-used", "consolidate"])
def test_the_bytes_of_banks_are_those_of_their_buffers_before_and_after_an_edit(eviction):
    banks, generator = begun(max_frames=4, eviction=eviction)

    def check():
        assert banks.nbytes == sum(x.untyped_storage().nbytes() for x in tensors_of(banks).values())

    check()
    banks.divide([2])  # shares the keys of frames, and of prototypes
    check()
    if eviction == "consolidate":
        assert sum(group.bank.nbytes for group in banks) > banks.nbytes
    for index in (9, 10):
        banks.read(key(generator), index)
        banks.adding(key(generator), torch.randn(5, 4, *CELLS, generator=generator), index)()
        check()
    banks.forget(8, 11, [2, 4])
    check()
    banks.remove([1, 3])
    check()


def test_a_frame_that_is_stored_in_two_turns_shares_its_keys():
    banks, generator = begun()
    again, values = key(generator), torch.randn(5, 4, *CELLS, generator=generator)
    for groups in (banks.groups[:1], banks.groups[1:]):
        banks.adding_given(again.clone(), values, 20, groups, at=30)()
    assert len({id(group.bank.frame_keys[20]) for group in banks}) == 1
    banks.adding_given(again + 1, values, 20, banks.groups[:1], at=30)()  # another picture
    assert len({id(group.bank.frame_keys[20]) for group in banks}) == 2


def test_banks_without_a_frame_in_common_are_read_each_on_its_own():
    banks, generator = begun(frames=3)
    other, _ = begun(frames=3)
    assert shared_top([banks.groups[0].bank, other.groups[0].bank], key(generator)) is None
    assert shared_top([], key(generator)) is None


def test_on_a_gpu_frames_of_one_turn_share_their_keys_and_nothing_is_compared():
    with FakeTensorMode():  # to compare keys would need their numbers, which raises
        banks = Banks(MemoryPolicy(every=1, backend="blocks"))
        query = torch.empty(6, *CELLS, device="cuda")
        for index, new in enumerate([(1,), (2, 3), ()]):
            if new:
                banks.introduce(new)
            values = torch.empty(len(banks.ids), 4, *CELLS, device="cuda")
            banks.adding(query, values, index, given=new)()
        assert shared_top([group.bank for group in banks], query) is None
        readout = banks.read(query, None)
        assert (readout.shape, readout.device.type) == ((3, 4, *CELLS), "cuda")
        one, other = (group.bank.frame_keys for group in banks)
        assert one[1] is other[1]
        assert one[2] is other[2]
        for groups in (banks.groups[:1], banks.groups[1:]):  # two turns: not known to be the same
            banks.adding_given(query, values, 9, groups, at=10)()
        assert banks.groups[0].bank.frame_keys[9] is not banks.groups[1].bank.frame_keys[9]


def test_an_edit_of_banks_that_share_is_undone_to_the_bit():
    banks, generator = begun(max_frames=4)
    query = key(generator)
    before, nbytes = banks.read(query, None), banks.nbytes
    mark = banks.mark(contents=True)
    banks.divide([2])
    for index in (9, 10):
        banks.adding(key(generator), torch.randn(5, 4, *CELLS, generator=generator), index, given=[2])()
    banks.forget(3, 10, [1, 4])
    banks.remove([5])
    banks.rewind(mark)
    assert torch.equal(banks.read(query, None), before)
    assert banks.nbytes == nbytes
