"""Process many videos in several processes of this machine, each with a model of its own."""

from __future__ import annotations

import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from emavos.batch.jobs import Job
from emavos.batch.run import TRIES, Batch, Outcome, give_up_killed
from emavos.io.ahead import cores
from emavos.io.images import PathLike
from emavos.io.source import notice
from emavos.io.video import OnDamage
from emavos.io.whole import sweep
from emavos.predictor import Predictor

_CONTEXT = get_context("spawn")  # threads of torch do not survive a fork
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


def run_in_processes(
    jobs: Iterable[Job],
    load: Callable[[], Predictor],
    out: PathLike,
    *,
    processes: int | Literal["auto"] = "auto",
    threads: int = 1,
    overlay: bool = False,
    rle: bool = False,
    force: bool = False,
    on_damage: OnDamage = "stop",
    each: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Like `run_batch`, in several processes of this machine.

    jobs: videos to process.
    load: returns a predictor; called once in each process, so a function of a module, not a lambda.
    out: folder for the outputs.
    processes: number of processes, on which the masks do not depend. "auto": as many as have `threads` cores
        each, but not more than videos; on an accelerator one.
    threads: of each process. Another number rounds differently.
    overlay, rle, force, on_damage: see `run_batch`.
    each: called with each outcome as it arrives, in any order.

    If a process is killed, its video is started again; the video is given up after the second kill. Call this
    under `if __name__ == "__main__":` in a script, because each process imports the script.

    Raises ValueError like `Batch.begin`, if a number is below 1, and if no process can load the model, and
    OSError if the disk of the outputs is full or read-only.
    """
    for name, value in {"processes": 1 if processes == "auto" else processes, "threads": threads}.items():
        if type(value) is not int or value < 1:
            other = ' or "auto"' if name == "processes" else ""
            raise ValueError(f"{name} is a whole number of at least 1{other}, not {value!r:.40}")
    jobs = [*jobs]
    predictor = load()
    batch = Batch.of(predictor, out, overlay=overlay, rle=rle, on_damage=on_damage)
    batch.begin(jobs, force)
    batch = batch.agreed(predictor)
    many = max(cores() // threads, 1) if predictor.device.type == "cpu" else 1
    count = min(many if processes == "auto" else processes, len(jobs))
    if sys.platform == "win32":
        count = min(count, _MOST_ON_WINDOWS)
    del predictor
    waiting, found, kills = deque(jobs), dict[str, Outcome](), Counter[str]()
    started = [_Worker.start(load, batch, threads) for _ in range(count)]
    workers = [*started]
    try:
        while len(found) < len(jobs):
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
                    if (job := worker.job) is not None:
                        kills[job.name] += 1
                        if kills[job.name] < TRIES:
                            waiting.appendleft(job)
                        else:
                            found[job.name] = give_up_killed(batch, job)
                            each(found[job.name])
                    started.append(_Worker.start(load, batch, threads))
                    workers.append(started[-1])
                    continue
                if isinstance(message, OSError):
                    raise message
                if isinstance(message, Outcome):
                    found[message.name] = message
                    each(message)
                worker.ready, worker.job = True, None
    finally:
        for worker in started:  # those that had nothing more to do too
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()
        sweep(batch.out)  # what a worker was writing
    return [found[job.name] for job in jobs]


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


def _note_unloaded(worker: _Worker, left: int) -> None:
    """Tell that a process ended before its model was loaded. Raises ValueError if no other is left."""
    how = f"a process of the batch ended with code {worker.process.exitcode} before its model was loaded"
    remedy = "if there is too little memory, use fewer processes"
    if not left:
        raise ValueError(f"{how}; {remedy}")
    notice(f"{how}, {left} {'is' if left == 1 else 'are'} left; {remedy}", stacklevel=3)


def _work(connection: Connection, load: Callable[[], Predictor], batch: Batch, threads: int) -> None:
    """Track the videos that come through the connection, until it is closed."""
    import torch

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
