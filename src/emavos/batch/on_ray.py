"""Many videos on a cluster of Ray: workers that each hold a model, and take one video after the other."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from emavos.batch.jobs import Job
from emavos.batch.run import Batch, Outcome
from emavos.io.images import PathLike
from emavos.io.video import Damaged
from emavos.machine import how_to_install
from emavos.predictor import Predictor


class _Worker:
    """An actor of Ray Data. It outlives the videos that fail; Ray starts another where it is killed."""

    def __init__(self, load: Callable[[], Predictor], batch: Batch, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._predictor = load()
        self._batch = batch

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = Job.from_json(row["job"], row["home"])
        try:
            outcome = self._batch.run(self._predictor, job)
        except OSError as error:  # that stops the run: told here, since Ray would wrap it
            return {"stop": str(error), "outcome": ""}
        return {"stop": "", "outcome": json.dumps(asdict(outcome))}


def run_on_ray(
    jobs: Iterable[Job],
    load: Callable[[], Predictor],
    out: PathLike,
    *,
    workers: int,
    threads: int = 1,
    overlay: bool = False,
    rle: bool = False,
    force: bool = False,
    damaged: Damaged = "refuse",
    each: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """As `run_batch`, by so many workers of Ray Data (extra `ray`), each with a model that `load` makes.

    It runs on the cluster that Ray is connected to, or that RAY_ADDRESS names; otherwise one is started on
    this machine, and ended. Workers open the files of jobs and write to `out` by the same paths: on several
    machines these are on a disk that all of them see. A worker has `threads` processors, and a GPU where its
    predictor is on one. A video whose worker is killed is begun again, and given up when that happens twice.
    Outputs are those of one process with as many threads, byte for byte.

    each: told of each outcome as it comes, in no order.
    """
    ray, data = _import_ray()
    jobs = [*jobs]
    predictor = load()
    batch = Batch.of(predictor, os.path.abspath(out), overlay=overlay, rle=rle, damaged=damaged)
    batch = replace(batch, retries=secrets.token_hex(4))
    batch.begin(jobs, force)
    if not jobs:
        return []
    gpus = int(predictor.device.type == "cuda")
    del predictor
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                **_here(workers * threads),
            )
        except Exception as error:  # Ray has no class for it
            raise ValueError(f"Ray does not start: {error}") from error
    try:
        found: dict[str, Outcome] = {}
        for row in _rows(data, jobs, (load, batch, threads), workers, threads, gpus):
            if row["stop"]:
                raise OSError(row["stop"])
            content = json.loads(row["outcome"])
            outcome = Outcome(**content | {name: tuple(content[name]) for name in ("ids", "notes")})
            found[outcome.name] = outcome
            each(outcome)
    except ray.exceptions.RayError as error:
        raise ValueError(f"Ray stopped: {error}") from error
    finally:
        if started:
            ray.shutdown()
    return [found[job.name] for job in jobs]


def _here(processors: int) -> dict[str, Any]:
    """What Ray is started with on this machine; nothing if RAY_ADDRESS names a cluster.

    Ray runs the code of whoever connects to it. So it listens on this machine only, and joins no cluster that
    another user of the machine may have started.
    """
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": processors}


def _rows(
    data: Any, jobs: Sequence[Job], worker: tuple[Any, ...], workers: int, threads: int, gpus: int
) -> Any:
    """What the workers give for each job, as it comes. Ray begins a job again where its worker is killed."""
    home = os.getcwd()  # where relative paths begin; a worker's is another
    lines = [{"job": job.to_json(), "home": home} for job in jobs]
    videos = data.from_items(lines, override_num_blocks=len(lines))  # one a task
    videos.context.enable_progress_bars = False
    videos.context.print_on_execution_start = False
    videos.context.execution_no_progress_timeout_s = -1  # a video may take hours
    return videos.map(
        _Worker,
        fn_constructor_args=worker,
        compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=threads,
        num_gpus=gpus,
    ).iter_rows()


def _import_ray() -> tuple[Any, Any]:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"workers of Ray need Ray Data: {how_to_install('ray')}") from error
    return ray, ray.data
