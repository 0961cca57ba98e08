from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from emavos import Predictor
from emavos.io import ahead, behind, open_frames, read_ahead, write_image
from emavos.io.ahead import has_spare_core

MODULE = sys.modules["emavos.io.ahead"]  # `emavos.io.ahead` is the function


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("emavos-")}


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threads()
    yield
    assert threads() <= before


def test_items_come_in_their_order_from_another_thread():
    made = []

    def source():
        for i in range(20):
            made.append(threading.current_thread())
            yield i

    assert list(ahead(source())) == list(range(20))
    assert threading.current_thread() not in made


def test_no_more_than_a_few_items_are_made_before_they_are_asked_for():
    asked = threading.Event()
    made = []

    def source():
        for i in range(100):
            made.append(i)
            if i == 3:
                asked.set()
            yield i

    items = ahead(source())
    assert next(items) == 0
    assert asked.wait(30)  # it does run ahead, though nobody asks
    assert next(items) == 1
    items.close()
    assert len(made) <= 5


def test_what_the_source_raises_arrives_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise ValueError("cut off")

    items = ahead(source())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="cut off"):
        next(items)


def test_a_loop_that_is_left_closes_its_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    for _ in ahead(source()):
        break
    assert closed.is_set()


def test_nothing_is_read_before_the_first_item_is_asked_for():
    read = []
    items = ahead(map(read.append, range(3)))
    assert not read
    items.close()


def test_calls_are_done_in_their_order_before_the_block_ends():
    done, here = [], threading.current_thread()
    with behind() as later:
        for i in range(30):
            later(lambda i: done.append((i, threading.current_thread() is here)), i)
    assert done == [(i, False) for i in range(30)]


def test_no_more_than_a_few_calls_wait():
    go, done = threading.Event(), []

    def call(i):
        assert go.wait(30)
        done.append(i)

    with behind() as later:
        for i in range(4):
            later(call, i)
        threading.Timer(0, go.set).start()
        later(call, 4)  # returns when the first is done
        assert done


def test_what_a_call_raises_arrives_at_the_end_of_the_block_at_the_latest():
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), behind() as later:
        later(fail)


def test_what_a_call_raises_stops_those_that_follow():
    done = []

    def fail():
        raise OSError("disk full")

    def fill(later):
        for i in range(50):
            later(fail if i == 0 else done.append, *([] if i == 0 else [i]))

    with pytest.raises(OSError, match="disk full"), behind() as later:
        fill(later)
    assert len(done) < 50


def test_calls_that_wait_are_dropped_where_the_block_fails():
    go, done = threading.Event(), []

    def body(later):
        later(go.wait, 30)
        for i in range(3):
            later(done.append, i)
        go.set()
        raise KeyError("stop")

    with pytest.raises(KeyError), behind() as later:
        body(later)
    assert len(done) <= 3


def test_frames_of_files_are_read_ahead_and_those_of_others_are_not(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"{i}.png", np.full((4, 4, 3), i, np.uint8))
    folder = open_frames(tmp_path)
    assert folder.stored
    assert [frame[0, 0, 0] for frame in read_ahead(folder)] == [0, 1, 2]
    seen = []
    stream = read_ahead(open_frames(seen.append(i) or i for i in range(9)))
    assert next(stream) == 0
    assert seen == [0]


def test_a_video_that_is_left_in_the_middle_leaves_no_thread(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        write_image(tmp_path / f"{i}.png", rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 1
    predictor = Predictor.from_pretrained(size=None)
    for result in predictor.propagate(tmp_path, mask):
        if result.index == 1:
            break


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "odd"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "100000"}, 8),
        ({}, 8),
    ],
)
def test_the_cores_are_no_more_than_the_time_of_the_container(monkeypatch, tmp_path, files, cores):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(MODULE, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(8)}, raising=False)
    assert MODULE.cores() == cores


@pytest.mark.parametrize(
    ("cores", "threads", "spare"), [(2, 1, True), (2, 2, False), (4, 3, False), (1, 2, False)]
)
def test_a_core_is_to_spare_where_torch_takes_half_of_them(monkeypatch, cores, threads, spare):
    monkeypatch.setattr(MODULE, "_CGROUP", Path("none"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(cores)}, raising=False)
    assert has_spare_core(threads) == spare
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert has_spare_core(threads) == spare
