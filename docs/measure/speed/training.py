"""How fast training runs here, and what it waits for: `python docs/measure/speed/training.py --data DIR`.

Samples are made by worker processes while the model learns. Three rates tell whether they keep up: of the
samples alone, of learning alone (one batch again and again), and of both together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from emavos.data import Sample
from emavos.models import PRESETS, STCN
from emavos.training import STAGES, TrainConfig
from emavos.training.learner import Learner
from emavos.training.loading import load_batches
from emavos.training.sources import open_samples


@dataclass(frozen=True)
class Rates:
    """Samples (clips) a second, and the share of the time that learning waited for them.

    The CPU's own time says more than the clock where other work runs beside.
    """

    workers: int
    data: float
    compute: float
    together: float
    waiting: float  # of the time together, in [0, 1]
    data_cpu: float  # CPU seconds that making a clip takes
    compute_cpu: float  # and learning from one


def measure(
    data: Path, config: TrainConfig, *, batches: int = 10, workers: int = 1, device: str = "cpu"
) -> Rates:
    """The rates of a stage over so many batches, after one more; weights are random, which costs the same."""
    config = replace(config, iterations=max(config.iterations, batches + 1))
    samples = open_samples(data, config)

    def load() -> list[float]:
        """When each batch came, the first left out: it waits for the workers to start."""
        return [time.perf_counter() for _ in load_batches(samples, 0, batches + 1, config, workers)]

    came = load()
    learner = Learner(STCN(PRESETS[config.preset]).to(device), config)
    start_cpu = time.process_time()
    one = next(iter(load_batches(samples, 0, 1, config, 0)))
    data_cpu = time.process_time() - start_cpu
    _learn(learner, one)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        _learn(learner, one)
    computed, compute_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    waited, spent, ready = 0.0, 0.0, time.perf_counter()
    for i, batch in enumerate(load_batches(samples, 0, batches + 1, config, workers)):
        began = time.perf_counter()
        _learn(learner, batch)
        if i:
            waited, spent = waited + began - ready, spent + time.perf_counter() - ready
        ready = time.perf_counter()
    count = batches * config.batch
    return Rates(
        workers,
        data=count / (came[-1] - came[0]),
        compute=count / computed,
        together=count / spent,
        waiting=waited / spent,
        data_cpu=data_cpu / config.batch,
        compute_cpu=compute_cpu / count,
    )


def _learn(learner: Learner, batch: Sample) -> None:
    learner.step(Sample(*(x.to(learner.device) for x in batch)), 0)  # its loss is read, so it is done


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/training.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="of the stage")
    parser.add_argument("--stage", choices=list(STAGES), default="tiny-1", help="(tiny-1)")
    parser.add_argument("--batches", type=int, default=10, help="measured, after one more (10)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1], help="processes that make samples (0 1)"
    )
    parser.add_argument("--threads", type=int, help="of torch (its default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    config = STAGES[args.stage]
    print(
        f"stage {args.stage}: {config.batch} clips of {config.frames} frames of {config.size} pixels; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; clips a second"
    )
    print(
        f"{'workers':>8}{'data':>9}{'compute':>9}{'together':>10}{'waiting':>9}"
        f"{'CPU s: data':>13}{'compute':>9}"
    )
    rows = []
    for workers in args.workers:
        rates = measure(args.data, config, batches=args.batches, workers=workers, device=args.device)
        rows.append(asdict(rates))
        print(
            f"{workers:8}{rates.data:9.2f}{rates.compute:9.2f}{rates.together:10.2f}{rates.waiting:9.1%}"
            f"{rates.data_cpu:13.3f}{rates.compute_cpu:9.3f}",
            flush=True,
        )
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
