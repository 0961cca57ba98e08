"""Process many videos in several processes of this machine, each with a model of its own."""

from __future__ import annotations

import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from emavos.batch.jobs import Job
from emavos.batch.run import TRIES, Batch, Outcome, give_up_killed
from emavos.io.ahead import cores
from emavos.io.notices import notice
from emavos.io.whole import sweep
from emavos.machine import end_with_parent, free_memory
from emavos.predictor import Predictor

_CONTEXT = get_context("spawn")  # threads of torch do not survive a fork
_MEMORY = 0.9e9  # bytes of a process with a small model at 480 lines
_KILL = 9  # SIGKILL, which Windows lacks
_MOST_ON_WINDOWS = 60  # `wait` takes at most 63 connections there
_READY = "ready"  # first message of a worker; then come outcomes, or an OSError that stops the run


@dataclass
class _Worker:
    """A process that tracks videos, as its parent sees it."""

    process: Any
    connection: Connection
    job: Job | None = None  # the video that it tracks now
    ready: bool = False  # whether the model is loaded

    @classmethod
    def start(cls, load: Callable[[], Predictor], batch: Batch, threads: int) -> _Worker:
        ours, its = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(its, load, batch, threads), daemon=True)
        process.start()
        its.close()  # else the end of the process would not be seen
        return cls(process, ours)


@dataclass(frozen=True)
class Processes:
    """Processes of this machine for `run_batch`.

    count: number of processes. "auto": as many as have `threads` cores and memory for a model each, but not
        more than videos; on an accelerator one.
    threads: of each process. Another number rounds differently.

    A process that was killed, as by a system without memory, is not replaced if others go on. Processes end
    with the one that calls `run_batch`.

    Call `run_batch` under `if __name__ == "__main__":` in a script, because each process imports the script.

    Raises ValueError if a number is below 1.
    """

    count: int | Literal["auto"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in {
            "count": 1 if self.count == "auto" else self.count,
            "threads": self.threads,
        }.items():
            if type(value) is not int or value < 1:
                other = ' or "auto"' if name == "count" else ""
                raise ValueError(f"{name} is a whole number of at least 1{other}, not {value!r:.40}")

    def outcomes(
        self, jobs: Sequence[Job], load: Callable[[], Predictor], batch: Batch, device: str
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each video as it arrives: see `emavos.batch.run.Workers`."""
        count = min(
            _fitting(device, self.threads, len(jobs)) if self.count == "auto" else self.count, len(jobs)
        )
        if sys.platform == "win32":
            count = min(count, _MOST_ON_WINDOWS)
        waiting, missing, kills = deque(jobs), len(jobs), Counter[str]()
        started = [_Worker.start(load, batch, self.threads) for _ in range(count)]
        workers = [*started]
        try:
            while missing:
                workers = _handed_out(workers, waiting)
                for connection in wait([worker.connection for worker in workers]):
                    worker = next(worker for worker in workers if worker.connection is connection)
                    try:
                        message = worker.connection.recv()
                    except (EOFError, OSError):  # killed, perhaps in the middle of a message
                        workers.remove(worker)
                        worker.process.join()
                        if not worker.ready:
                            _note_unloaded(worker, len(workers))
                            continue
                        back_off = bool(workers) and worker.process.exitcode == -_KILL
                        if back_off:
                            _note_killed(worker, len(workers))
                        if (job := worker.job) is not None:
                            kills[job.name] += 1
                            if kills[job.name] < TRIES:
                                waiting.appendleft(job)
                            else:
                                missing -= 1
                                yield give_up_killed(batch, job)
                        if not back_off:
                            started.append(_Worker.start(load, batch, self.threads))
                            workers.append(started[-1])
                        continue
                    if isinstance(message, OSError):
                        raise message
                    worker.ready, worker.job = True, None
                    if isinstance(message, Outcome):
                        missing -= 1
                        yield message
        finally:
            for worker in started:  # those that had nothing more to do too
                worker.connection.close()
                worker.process.terminate()
                worker.process.join()
            sweep(batch.out)  # what a worker was writing


def _handed_out(workers: Sequence[_Worker], waiting: deque[Job]) -> list[_Worker]:
    """Give a video to each worker that waits for one; returns the workers without those that get none."""
    idle = [worker for worker in workers if worker.ready and worker.job is None]
    for worker in idle:
        if waiting:
            worker.job = waiting.popleft()
            with suppress(OSError):  # killed while it waited: `recv` says so
                worker.connection.send(worker.job)
        else:
            worker.connection.close()  # the process ends
    return [worker for worker in workers if not worker.connection.closed]


def _fitting(device: str, threads: int, videos: int) -> int:
    """How many processes have `threads` cores and memory each; one on an accelerator."""
    if device != "cpu":
        return 1
    many = min(max(cores() // threads, 1), videos)
    free = free_memory()
    fitting = many if free is None else int(free // _MEMORY)
    if fitting < many and many > 1:
        notice(
            f"{(free or 0) / 1e9:.1f} GB of memory are free: auto starts {max(fitting, 1)} instead of {many} "
            "processes",
            stacklevel=3,
        )
    return max(min(many, fitting), 1)


def _note_killed(worker: _Worker, left: int) -> None:
    """Tell that a process was killed and is not replaced, because others go on."""
    name = "a process" if worker.job is None else f"the process that tracked {worker.job.name}"
    notice(
        f"{name} was killed, perhaps because memory ran out; the batch goes on with {left} "
        f"{'process' if left == 1 else 'processes'}",
        stacklevel=3,
    )


def _note_unloaded(worker: _Worker, left: int) -> None:
    """Report that a process ended before its model was loaded. Raises ValueError if no other is left."""
    how = f"a process of the batch ended with code {worker.process.exitcode} before its model was loaded"
    remedy = "if there is too little memory, use fewer processes"
    if not left:
        raise ValueError(f"{how}; {remedy}")
    notice(f"{how}, {left} {'is' if left == 1 else 'are'} left; {remedy}", stacklevel=3)


def _work(connection: Connection, load: Callable[[], Predictor], batch: Batch, threads: int) -> None:
    """Track the videos that come through the connection, until it is closed."""
    import torch

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    torch.set_num_threads(threads)
    predictor = load()
    try:
        connection.send(_READY)
        while True:
            job = connection.recv()
            try:
                connection.send(batch.run(predictor, job))
            except OSError as error:
                if isinstance(error, ConnectionError):
                    raise
                connection.send(error)
    except (EOFError, ConnectionError):  # the parent has ended, or has nothing more to do
        return
