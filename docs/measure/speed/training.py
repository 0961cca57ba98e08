"""Measure the speed of training and its waiting for data: `python docs/measure/speed/training.py --data DIR`.

Worker processes prepare samples while the model learns. Three rates show whether the workers keep up: samples
only, learning only (on one repeated batch), and both together. With --samples-on-device, workers make plans
and this process draws samples.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from emavos.data import Sample
from emavos.models import PRESETS, STCN
from emavos.training import STAGES, TrainConfig
from emavos.training.batches import Batches, open_batches
from emavos.training.learner import Learner
from emavos.training.loading import load_batches


@dataclass(frozen=True)
class Rates:
    """Samples (clips) per second, and the fraction of time spent waiting for samples.

    CPU time is more reliable than elapsed time if other programs are running.
    """

    workers: int
    data: float
    compute: float
    together: float
    waiting: float  # fraction of the time together, in [0, 1]
    data_cpu: float  # CPU seconds to prepare a clip
    compute_cpu: float  # CPU seconds to learn from a clip


def measure(
    data: Path,
    config: TrainConfig,
    *,
    batches: int = 10,
    workers: int = 1,
    device: str = "cpu",
    on_device: bool = False,
) -> Rates:
    """The rates of a stage over `batches` batches, after a warm-up, with random weights."""
    config = replace(config, iterations=max(config.iterations, batches + 1))
    source = open_batches(data, config, torch.device(device), on_device, workers)
    # arrival times of the batches; the first includes the start of the workers
    came = [time.perf_counter() for _ in _load(source, batches + 1, config, workers)]
    learner = Learner(STCN(PRESETS[config.preset]).to(device), config)
    start_cpu = time.process_time()
    one = next(_load(source, 1, config, 0))
    data_cpu = time.process_time() - start_cpu
    _learn(learner, one)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        _learn(learner, one)
    computed, compute_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    waited, spent, ready = 0.0, 0.0, time.perf_counter()
    for i, batch in enumerate(_load(source, batches + 1, config, workers)):
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


def _load(source: Batches, count: int, config: TrainConfig, workers: int) -> Iterator[Sample]:
    """Yield the first `count` batches, drawn to their end."""
    for items in load_batches(source.items, 0, count, config, workers, source.collate):
        sample = source.draw(items)
        if sample.frames.is_cuda:
            torch.cuda.synchronize()
        yield sample


def _learn(learner: Learner, batch: Sample) -> None:
    learner.step(batch, 0)  # reads the loss, so the work is done


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python docs/measure/speed/training.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="of the stage")
    parser.add_argument("--stage", choices=list(STAGES), default="tiny-1", help="(tiny-1)")
    parser.add_argument("--batches", type=int, default=10, help="measured batches after a warm-up (10)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1], help="processes that prepare samples (0 1)"
    )
    parser.add_argument("--threads", type=int, help="threads of torch (its default)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--samples-on-device", action="store_true", help="draw mixed samples on the device")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
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
        rates = measure(
            args.data,
            config,
            batches=args.batches,
            workers=workers,
            device=args.device,
            on_device=args.samples_on_device,
        )
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
