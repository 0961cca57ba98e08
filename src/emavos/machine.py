"""The machine: its name, how it forks, how much memory is in use, and how to install what it lacks."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to load, and what reads files needs none
    import torch


@cache
def one_thread_after_fork() -> None:
    """Have forked children of this process compute in one thread: OpenMP's others are not there after a fork.

    A child that waits for them waits for ever, as in a pool of `multiprocessing`, which forks on Linux up to
    Python 3.13. It may set another number of threads itself if the parent has not computed yet.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


INSTALL = 'pip install ".[{extra}]"'  # inside a clone; once emavos is on the package index: "emavos[{extra}]"


def how_to_install(extra: str) -> str:
    """How to install an extra, as the end of an error: `run pip install ".[ui]" in your clone of emavos`."""
    return f"run {INSTALL.format(extra=extra)} in your clone of emavos"


def describe(device: torch.device) -> str:
    """The processor or accelerator, threads where they matter, and torch."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


# What libraries say that have no class for it: torch, oneDNN, C++.
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "could not create a primitive",
    "bad_alloc",
    "not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, whoever asked for it."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def keep_freed_memory() -> bool:
    """Have the C library keep the memory that a frame frees for the next one; whether it can.

    glibc gives much of it back to Linux, and to have it zeroed anew took a quarter of the time of the
    embedded model's frames. It is a setting of the whole process, so it is for the owner of the process to
    make, as the command line does. Up to 512 MB stay; the peak is what it was. Elsewhere this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    return bool(mallopt(trim_threshold, 512 << 20) == 1 and mallopt(mmap_threshold, 64 << 20) == 1)


class PeakMemory:
    """Memory at most since it was made: of torch's allocator on CUDA, otherwise of the process.

    Only Linux can forget the peak of what ran before; elsewhere, and on other accelerators, it is None.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._reset = False
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes what is held now
                self._reset = True
            except OSError:
                pass

    def mb(self) -> float | None:
        import torch

        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        if not self._reset:
            return None
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
        return None if kib is None else int(kib) * 1024 / 1e6
