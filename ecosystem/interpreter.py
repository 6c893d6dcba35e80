"""What computing and drawing require of the Python process that they are asked for in, and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from ecosystem.errors import EcosystemError

_computing: int | None = None  # first process that computed; inherited by processes forked from it


def require_threads() -> None:
    """Raise EcosystemError in a process forked from one that has computed: it would wait for threads not copied."""
    global _computing
    _computing = _computing or os.getpid()
    if _computing != os.getpid():
        raise EcosystemError(
            "This process was forked from one that has already run a scenario or read a run, and a fork has no copy of "
            'its compute threads. Start processes with multiprocessing.get_context("spawn") or "forkserver", or use a '
            "study (ecosystem study, ecosystem.study), which runs many scenarios in parallel."
        )


def require_docstrings() -> None:
    """Raise EcosystemError in an interpreter without docstrings, in which no report could be drawn at the end."""
    if sys.flags.optimize > 1:
        raise EcosystemError("python -OO (PYTHONOPTIMIZE=2) removes docstrings, which Altair needs; use -O.")


def return_freed_memory() -> None:
    """Return memory that has been freed to the system; do nothing without glibc.

    It has a heap per thread, so weights that one thread read and freed would add to the memory of the thread that
    trains them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def thread_limits(threads: int) -> dict[str, str]:
    """Return environment variables that limit the threads of all libraries; set them before any import."""
    names = ("OMP", "OPENBLAS", "MKL", "RAYON")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "POLARS_MAX_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }


def memory_used() -> int | None:
    """Return the memory that this process holds now, in bytes; its peak outside Linux, None if nothing is known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return None


def memory_size() -> int | None:
    """Return the memory of this machine in bytes, or what a container allows; None if the system does not say."""
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max": none
            size = min(size, int(Path(limit).read_text()))
    return size


def cores() -> int:
    """Return the number of cores available to this process, or that of the machine if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
