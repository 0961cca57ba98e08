"""Process many videos: jobs, their outputs, and runs that survive a kill."""

from emavos.batch.jobs import Job, find_jobs, shard
from emavos.batch.on_ray import RayWorkers
from emavos.batch.processes import Processes
from emavos.batch.run import Batch, Outcome, run_batch

__all__ = [
    "Batch",
    "Job",
    "Outcome",
    "Processes",
    "RayWorkers",
    "find_jobs",
    "run_batch",
    "shard",
]
