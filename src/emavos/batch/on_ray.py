"""Process many videos on a Ray cluster: each worker loads a model once and tracks one video after another."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emavos.batch.jobs import Job
from emavos.batch.run import Batch, Outcome
from emavos.machine import how_to_install
from emavos.predictor import Predictor

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # whether Ray may be of several machines


class _Worker:
    """A Ray Data actor. It survives failed videos; Ray starts a new actor if one is killed."""

    def __init__(self, load: Callable[[], Predictor], batch: Batch, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._predictor, self._batch = load(), batch

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = Job.from_json(row["job"], row["home"])
        try:
            outcome = self._batch.run(self._predictor, job)
        except OSError as error:  # stops the run; returned as text, since Ray would wrap the error
            return {"stop": str(error), "outcome": ""}
        return {"stop": "", "outcome": json.dumps(asdict(outcome))}


@dataclass(frozen=True)
class RayWorkers:
    """Workers of Ray Data (extra `ray`) for `run_batch`.

    count: number of workers.
    threads: processors per worker. A worker also gets a GPU if its predictor uses one.

    Runs on the connected Ray cluster, or the cluster at RAY_ADDRESS; otherwise Ray is started on this machine
    at 127.0.0.1 only, and stopped at the end. Workers use the same paths for inputs and outputs, so several
    machines need a shared disk. The outputs equal those of one process with as many threads, byte for byte.

    Raises ValueError if a number is below 1, and ImportError without Ray.
    """

    count: int
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in {"count": self.count, "threads": self.threads}.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r:.40}")
        _import_ray()  # raises ImportError before a model is loaded

    def outcomes(
        self, jobs: Sequence[Job], load: Callable[[], Predictor], batch: Batch, device: str
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each video as it arrives: see `emavos.batch.run.Workers`."""
        if not jobs:
            return
        ray, data = _import_ray()
        batch = replace(batch, out=Path(os.path.abspath(batch.out)), retries=secrets.token_hex(4))
        gpus = int(device == "cuda")
        started = not ray.is_initialized()
        if started:
            try:
                with _keeping_to_loopback(ray):
                    ray.init(
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="ERROR",
                        **_here(self.count * self.threads),
                    )
            except Exception as error:  # Ray raises no specific error here
                raise ValueError(f"Ray does not start: {error}") from error
        try:
            for row in _rows(data, jobs, (load, batch, self.threads), self.count, self.threads, gpus):
                if row["stop"]:
                    raise OSError(row["stop"])
                content = json.loads(row["outcome"])
                yield Outcome(**content | {name: tuple(content[name]) for name in ("ids", "notes")})
        except ray.exceptions.RayError as error:
            raise ValueError(f"Ray stopped: {error}") from error
        finally:
            if started:
                ray.shutdown()


def _here(processors: int) -> dict[str, Any]:
    """Options for starting Ray on this machine; empty if RAY_ADDRESS names a cluster.

    Ray runs code for every client that connects. So Ray listens only on this machine, and joins no cluster
    started by another user.
    """
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {"address": "local", "_node_ip_address": "127.0.0.1", "num_cpus": processors}


@contextmanager
def _keeping_to_loopback(ray: Any) -> Iterator[None]:
    """Context in which Ray starts at 127.0.0.1 only, unless you named a cluster or set its variable.

    On Linux, Ray would replace 127.0.0.1 by the machine's own address and listen on all of them. Ray reads
    the variable when it is imported, which may be long past; its processes read it when they start.
    """
    if os.environ.get("RAY_ADDRESS") or _CLUSTERS in os.environ:
        yield
        return
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    os.environ[_CLUSTERS], constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        del os.environ[_CLUSTERS]


def _rows(
    data: Any, jobs: Sequence[Job], worker: tuple[Any, ...], workers: int, threads: int, gpus: int
) -> Any:
    """Yield the workers' results as they arrive. Ray repeats a job if its worker is killed."""
    home = os.getcwd()  # base of relative paths; workers run in another folder
    lines = [{"job": job.to_json(), "home": home} for job in jobs]
    videos = data.from_items(lines, override_num_blocks=len(lines))  # one job per task
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
