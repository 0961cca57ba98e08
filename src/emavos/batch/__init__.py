"""Process many videos: jobs, their outputs, and runs that survive a kill."""

from emavos.batch.jobs import Job, find_jobs, shard
from emavos.batch.on_ray import run_on_ray
from emavos.batch.processes import run_in_processes
from emavos.batch.run import Batch, Outcome, run_batch

__all__ = [
    "Batch",
    "Job",
    "Outcome",
    "find_jobs",
    "run_batch",
    "run_in_processes",
    "run_on_ray",
    "shard",
]
