"""What computing and drawing require of the Python process that they are asked for in, and its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from ecosystem.errors import EcosystemError

_MMAP_THRESHOLD = -3  # number of the setting in glibc's malloc.h
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
    """Let the C library return every freed block of at least 1 MB to the system; do nothing without glibc.

    By itself, glibc keeps up to 32 MB per block for later, in pieces that the tensors of the next step do not fit.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, 1 << 20)


def thread_limits(threads: int) -> dict[str, str]:
    """Return environment variables that limit the threads of all libraries; set them before any import."""
    names = ("OMP", "OPENBLAS", "MKL", "RAYON")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "POLARS_MAX_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }


def cores() -> int:
    """Return the number of cores available to this process, or that of the machine if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
