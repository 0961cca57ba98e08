"""A batch in several processes. Most tests have threads in place of processes, which start at once."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import kills
from emavos import Predictor
from emavos.batch import Processes, find_jobs, processes, run_batch
from emavos.batch.run import Batch, Outcome
from emavos.cli import main
from emavos.io.notices import InputWarning
from kills import tree


class Side:
    """The side of a connection that a process has. Its parent's copy can be closed without closing it."""

    def __init__(self, connection):
        self.recv, self.send, self.end = connection.recv, connection.send, connection.close
        self.file = connection.fileno

    def close(self):
        pass


class Process:
    """A thread that ends like a process: its side of the connection is closed. SystemExit is a kill."""

    exitcode = -9

    def __init__(self, target, args, daemon):
        self.thread = threading.Thread(target=self.run, args=(target, args), daemon=daemon)
        self.start, self.join = self.thread.start, self.thread.join

    def run(self, target, args):
        try:
            with suppress(SystemExit):
                target(*args)
        finally:
            args[0].end()

    def terminate(self):
        pass


def pipe():
    ours, its = Pipe()
    return ours, Side(its)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Three clips beside their masks in `data`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    kills.clips(tmp_path / "data", 3)
    return tmp_path


@pytest.fixture
def threads(monkeypatch):
    """Threads in place of processes; returns the numbers of threads that torch was set to."""
    numbers: list[int] = []
    monkeypatch.setattr(processes, "_CONTEXT", SimpleNamespace(Pipe=pipe, Process=Process))
    monkeypatch.setattr(processes, "signal", SimpleNamespace(signal=lambda *_: None, SIGINT=2, SIG_IGN=1))
    monkeypatch.setattr("torch.set_num_threads", numbers.append)
    return numbers


def load():
    return Predictor.from_pretrained(device="cpu", size=64)


def test_several_processes_give_the_bytes_of_one(here, threads):
    run_batch(find_jobs("data"), load(), "one")
    seen = []
    outcomes = run_batch(find_jobs("data"), load, "two", workers=Processes(2, threads=3), each=seen.append)
    assert [outcome.name for outcome in outcomes] == ["clip0", "clip1", "clip2"]
    assert {outcome.name for outcome in seen} == {"clip0", "clip1", "clip2"}
    assert tree(here / "two") == tree(here / "one")
    assert threads == [3, 3]
    again = run_batch(find_jobs("data"), load, "two", workers=Processes())
    assert not any(outcome.made for outcome in again)
    assert run_batch([], load, "none", workers=Processes()) == []


def test_a_worker_whose_predictor_is_not_that_of_the_run_makes_nothing(here, threads):
    dtypes = iter([torch.float32, torch.bfloat16])  # as "auto" on machines that differ

    def load():
        return Predictor.from_pretrained(device="cpu", size=64, dtype=next(dtypes))

    outcomes = run_batch(find_jobs("data"), load, "out", workers=Processes(1))
    assert all("differs from that of the run in dtype, weights; load the same" in x.error for x in outcomes)
    assert not (here / "out" / "masks").exists()


@pytest.mark.parametrize(
    ("free", "count", "note"),
    [
        (None, 3, ""),  # not known
        (8e9, 3, ""),
        (1.95e9, 2, r"1\.9 GB of memory are free: auto starts 2 instead of 3 processes"),
        (0.0, 1, r"0\.0 GB of memory are free: auto starts 1 instead of 3 processes"),
    ],
)
def test_auto_starts_no_more_processes_than_fit_into_memory(here, threads, monkeypatch, free, count, note):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.setattr(processes, "free_memory", lambda: free)
    monkeypatch.setattr(Batch, "_track", lambda self, predictor, job, stage: (0, [], False))
    with pytest.warns(InputWarning, match=note) if note else nullcontext():
        run_batch(find_jobs("data"), load, "out", workers=Processes())
    assert len(threads) == count
    run_batch(find_jobs("data"), load, "out", workers=Processes(3))  # as you say
    assert len(threads) == count + 3


@pytest.mark.parametrize(("cores", "each", "videos"), [(1, 1, 1), (2, 1, 2), (8, 1, 3), (4, 2, 2), (1, 2, 1)])
def test_auto_is_a_process_for_each_core_and_no_more_than_videos(
    here, threads, monkeypatch, cores, each, videos
):
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(processes, "free_memory", lambda: None)
    monkeypatch.setattr(Batch, "_track", lambda self, predictor, job, stage: (0, [], False))
    run_batch(find_jobs("data"), load, "out", workers=Processes(threads=each))
    assert threads == [each] * videos


@pytest.mark.filterwarnings("ignore:the process that tracked")
@pytest.mark.parametrize("count", [1, 2])
def test_a_video_whose_process_is_killed_is_started_again_and_given_up_after_the_second_kill(
    here, threads, monkeypatch, count
):
    run_batch(find_jobs("data"), load(), "one")
    track, once = Batch._track, [1]

    def deadly(self, predictor, job, stage):
        if job.name == "clip2" or (job.name == "clip1" and once and once.pop()):
            raise SystemExit
        return track(self, predictor, job, stage)

    monkeypatch.setattr(Batch, "_track", deadly)
    outcomes = run_batch(find_jobs("data"), load, "out", workers=Processes(count))
    assert [outcome.error for outcome in outcomes] == [
        "",
        "",
        "the process that tracked it was killed, 2 times; if memory ran out, use fewer processes or a "
        "smaller --size",
    ]
    assert tree(here / "out" / "masks") == {
        path: content for path, content in tree(here / "one" / "masks").items() if "clip2" not in path
    }


def kill_at_clip1(monkeypatch):
    """Let each process that gets clip1 be killed; returns the method as it was."""
    run = Batch.run

    def deadly(self, predictor, job):
        if job.name == "clip1":
            raise SystemExit
        return run(self, predictor, job)

    monkeypatch.setattr(Batch, "run", deadly)
    return run


def test_a_video_that_kills_its_process_before_its_inputs_are_read_is_given_up(here, threads, monkeypatch):
    run = kill_at_clip1(monkeypatch)
    seen = []
    with pytest.warns(InputWarning, match="tracked clip1 was killed, .*; the batch goes on with 1 process$"):
        outcomes = run_batch(find_jobs("data"), load, "out", workers=Processes(2), each=seen.append)
    assert [outcome.error[:39] for outcome in outcomes] == ["", "the process that tracked it was killed,", ""]
    assert sorted(outcome.name for outcome in seen) == ["clip0", "clip1", "clip2"]
    assert "was killed, 2 times" in Path("out/status/clip1.json").read_text()
    assert len(threads) == 3  # two, and one when none was left
    monkeypatch.setattr(Batch, "run", run)
    assert not any(
        outcome.error for outcome in run_batch(find_jobs("data"), load, "out", workers=Processes())
    )


def test_a_process_that_crashes_is_replaced(here, threads, monkeypatch):
    kill_at_clip1(monkeypatch)
    monkeypatch.setattr(Process, "exitcode", -11)  # a segmentation fault, which is no lack of memory
    run_batch(find_jobs("data"), load, "out", workers=Processes(2))
    assert len(threads) == 4  # two, and one for each crash


PARENT = """
import multiprocessing, sys, time
from emavos.machine import end_with_parent

def child(pipe):
    end_with_parent()
    pipe.send("ready")
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=child, args=(its,))
    process.start()
    ours.recv()
    print(process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_processes_end_with_their_parent_however_it_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
        for _ in range(600):
            if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
                return
            time.sleep(0.1)
    pytest.fail("the process goes on without its parent")


def test_a_process_that_is_killed_while_it_sends_is_one_that_is_killed(here, threads, monkeypatch):
    end = Process.run

    def cut_off(self, target, args):
        side, cut = args[0], [1]
        send = side.send

        def half(message):
            if isinstance(message, Outcome) and cut and cut.pop():
                os.write(side.file(), struct.pack("!i", 1000) + b"half of it")
                raise SystemExit
            send(message)

        side.send = half
        end(self, target, args)

    monkeypatch.setattr(Process, "run", cut_off)
    outcomes = run_batch(find_jobs("data"), load, "out", workers=Processes(1))
    assert all("was killed, 2 times" in outcome.error for outcome in outcomes)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "many", None])
def test_numbers_of_processes_and_threads_below_one_are_refused(here, wrong):
    with pytest.raises(ValueError, match=r'count is a whole number of at least 1 or "auto", not '):
        run_batch(find_jobs("data"), load, "out", workers=Processes(wrong))
    with pytest.raises(ValueError, match="threads is a whole number of at least 1, not "):
        run_batch(find_jobs("data"), load, "out", workers=Processes(threads=wrong))


def test_workers_refuse_a_predictor_because_each_makes_its_own(here):
    with pytest.raises(ValueError, match="pass a function of a module that returns one, not a predictor"):
        run_batch(find_jobs("data"), load(), "out", workers=Processes())
    assert not Path("out").exists()


def test_a_process_that_ends_before_its_model_is_loaded_is_told_if_others_go_on(here, threads, monkeypatch):
    loads = []

    def load_all_but_one():
        loads.append(1)
        if len(loads) == 2:
            raise SystemExit
        if len(loads) > 2:
            time.sleep(0.2)  # so that the other is seen to end first
        return load()

    with pytest.warns(InputWarning, match=r"ended with code -9 before .*, 1 is left; .* fewer processes"):
        outcomes = run_batch(find_jobs("data"), load_all_but_one, "out", workers=Processes(2))
    assert not any(outcome.error for outcome in outcomes)


def test_windows_waits_for_no_more_processes_than_it_can(here, threads, monkeypatch):
    monkeypatch.setattr(processes, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(processes, "_MOST_ON_WINDOWS", 2)
    run_batch(find_jobs("data"), load, "out", workers=Processes(3))
    assert threads == [1, 1]


@pytest.mark.filterwarnings("ignore:a process of the batch ended")
def test_processes_that_cannot_load_the_model_end_the_run_and_a_full_disk_does(here, threads, monkeypatch):
    loads = []

    def load_once():
        if loads:
            raise SystemExit
        loads.append(1)
        return load()

    with pytest.raises(ValueError, match=r"ended with code -9 before its model was loaded; .*fewer"):
        run_batch(find_jobs("data"), load_once, "out", workers=Processes(2))

    def full(self, predictor, job, stage):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Batch, "_track", full)
    with pytest.raises(OSError, match="No space left"):
        run_batch(find_jobs("data"), load, "out", workers=Processes(2))
    assert not [path for path in Path("out").rglob("*") if "partial" in path.name]


def test_the_command_takes_a_number_of_processes_or_auto(here, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        "emavos.batch.run_batch", lambda jobs, load, out, workers, **k: calls.append(workers) or []
    )
    command = ["batch", "data", "--out", "out", "--quiet", "--processes"]
    assert main([*command, "auto"]) == 0
    assert main([*command, "3", "--threads", "2"]) == 0
    assert calls == [Processes("auto", 1), Processes(3, 2)]
    assert main([*command, "2", "--ray", "2"]) == 1
    assert "pass either --ray or --processes" in capsys.readouterr().err
    for wrong in ("0", "many"):
        assert main([*command, wrong]) == 2
        assert "is not a whole number" in capsys.readouterr().err


@pytest.mark.slow
def test_real_processes_give_the_bytes_of_one(here, capsys):
    common = ["--size", "64", "--device", "cpu", "--threads", "1"]
    assert main(["batch", "data", "--out", "one", *common]) == 0
    assert main(["batch", "data", "--out", "two", "--processes", "2", *common]) == 0
    assert "3 videos made" in capsys.readouterr().out.splitlines()[-1]
    assert tree(here / "two") == tree(here / "one")
