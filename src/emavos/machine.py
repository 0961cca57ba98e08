"""Facts about the machine: device names, forking, memory in use, and how to install missing packages."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import sys
import threading
from contextlib import suppress
from functools import cache
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to load, and reading files does not need torch
    import torch


_CGROUP = Path("/sys/fs/cgroup")
# limit and use of the memory of a container, and files in it that give way, in versions 2 and 1
_GROUPS = (
    (_CGROUP, "memory.max", "memory.current", "inactive_file"),
    (_CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@cache
def one_thread_after_fork() -> None:
    """Make forked children compute in one thread, because OpenMP's other threads do not survive a fork.

    Without this, a child waits for the missing threads for ever, for example in a pool of `multiprocessing`,
    which forks on Linux up to Python 3.13. A child may set another number of threads if the parent has not
    computed yet.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@cache
def keep_garbage_after_fork() -> None:
    """Make the garbage collector of forked children leave the parent's objects alone.

    PyAV's decoders are freed by the garbage collector only, and join their threads when freed. A child does
    not have the threads and would wait for them for ever, at any moment at which it collects garbage.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=gc.freeze)


def end_with_parent() -> None:
    """Make this process of `multiprocessing` end at once when its parent does, also if that is killed."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


INSTALL = 'pip install ".[{extra}]"'  # run in a clone; once emavos is on the package index: "emavos[{extra}]"


def how_to_install(extra: str) -> str:
    """How to install an extra, to end an error with: `run pip install ".[ui]" in your clone of emavos`."""
    return f"run {INSTALL.format(extra=extra)} in your clone of emavos"


def describe(device: torch.device) -> str:
    """Name of the processor or accelerator, number of CPU threads, and version of torch."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}, torch {torch.__version__}"


# Messages of libraries without an exception class for this: torch, oneDNN, C++.
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "could not create a primitive",
    "bad_alloc",
    "not enough memory",
    "failed to map segment",  # of a library to load
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, whichever library raised the error."""
    torch = sys.modules.get("torch")  # memory may run out before torch is loaded
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    is_plain = isinstance(error, (RuntimeError, ImportError))
    return is_plain and any(words in str(error).lower() for words in _NO_MEMORY)


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for the next frame; returns whether the C library can.

    glibc returns much of the memory to Linux. Zeroing the memory again took a quarter of the time per frame
    of the embedded model. The setting affects the whole process, so libraries should leave the call to the
    application; the command line calls it. Up to 512 MB stay allocated, and the peak does not change. With
    other C libraries, nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold = -1, -3  # constants from <malloc.h>
    return bool(mallopt(trim_threshold, 512 << 20) == 1 and mallopt(mmap_threshold, 64 << 20) == 1)


SPINS = 50_000  # measured: docs/decisions.md


def spin_briefly() -> None:
    """Let threads of torch that wait for each other sleep after 50,000 turns, not 300,000.

    On a core that another process uses, a waiting thread delays the thread that it waits for. Only OpenMP of
    GCC has this setting, which torch's packages for Linux use. OpenMP reads the environment variable when
    torch is loaded, so afterwards this does nothing. Values of GOMP_SPINCOUNT and OMP_WAIT_POLICY that are
    set already stay. Processes that start from this one inherit the variable, so libraries should leave the
    call to the application; the command line calls it.
    """
    is_set = any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    if sys.platform == "linux" and "torch" not in sys.modules and not is_set:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


_ADAPTED = (32 << 20) - (64 << 10)  # bytes; glibc does not adapt to blocks above 32 MB


@cache
def adapt_freed_memory() -> None:
    """Let glibc keep up to 64 MB of freed memory, as after any free of a block of nearly 32 MB.

    glibc begins with 128 KB, and adapts to the largest block that was freed. The blocks of a frame are
    smaller, so that without this the system took back, and zeroed again, 45 MB in each frame of the embedded
    model. The block is not written to, so it costs nothing. What `keep_freed_memory`, MALLOC_TRIM_THRESHOLD_
    or another C library have decided stays.
    """
    import torch

    block = torch.empty(_ADAPTED, dtype=torch.uint8, device="cpu")
    del block


def multiplies_bfloat16() -> bool | None:
    """Whether the processor has instructions for bfloat16 products; None if the system does not list them."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def free_memory() -> float | None:
    """The bytes for new processes, within the limit of this container; None if unknown (not Linux)."""
    with suppress(OSError, ValueError, StopIteration):
        free = 1024 * _line_of(Path("/proc/meminfo"), "MemAvailable:")
        for folder, limit, used, cached in _GROUPS:
            with suppress(OSError, ValueError, StopIteration):  # no container, or no limit: "max"
                most, now = (float((folder / file).read_text()) for file in (limit, used))
                free = min(free, most - now + _line_of(folder / "memory.stat", cached))
        return max(free, 0.0)
    return None


def _line_of(path: Path, name: str) -> float:
    """The number in the line of a file that begins with this name."""
    lines = map(str.split, path.read_text().splitlines())
    return next(float(words[1]) for words in lines if words[0] == name)


class PeakMemory:
    """Peak memory since construction: of torch's allocator on CUDA, otherwise of the process.

    Only Linux can reset the peak of the process. On other systems and other accelerators, `mb()` returns
    None.
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
                Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to the current use
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
