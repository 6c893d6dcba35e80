"""Worker threads that run jobs in parallel, each with a fixed number of PyTorch threads, and report their progress.

On a CPU, two small models in two Python threads with one compute thread each are faster than one model after the other
with two compute threads: neither waits for the other, and PyTorch releases the interpreter lock while it computes. (The
number of compute threads is a thread-local setting of OpenMP and MKL.) The arithmetic of a job does not depend on the
number of worker threads, so neither do its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event, Lock
from types import TracebackType
from typing import TypeVar

import torch

from ecosystem.families.base import Progress, silent

T = TypeVar("T")
A = TypeVar("A")


class Stopped(Exception):
    """Raised inside a job by :meth:`WorkerPool.report` when another job failed or the user pressed Ctrl-C."""


class WorkerPool:
    """A pool of worker threads; use it as a context manager, from one thread."""

    def __init__(self, threads: int, compute: int = 1) -> None:
        """``threads`` jobs run at once, each with ``compute`` PyTorch threads."""
        self.threads = threads
        self._jobs = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(compute,))
        self._parts = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(compute,))
        self._lock, self._stop, self._done = Lock(), Event(), 0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._jobs.shutdown()
        self._parts.shutdown()

    def report(self, amount: int) -> None:
        """Add ``amount`` to the progress, from inside a job; raise Stopped if the job should end."""
        if self._stop.is_set():
            raise Stopped
        with self._lock:
            self._done += amount

    def run(
        self, jobs: Sequence[Callable[[], T]], what: str = "", total: int = 0, progress: Progress = silent
    ) -> list[T]:
        """Run jobs in parallel, one per thread; return their results in order.

        ``progress`` is called from the calling thread only. The first error in a job stops the others and is raised.
        """
        futures = [self._jobs.submit(job) for job in jobs]
        try:
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
                if any(future.exception() for future in finished):
                    break
                progress(what, self._done, total)
        finally:
            if not all(future.done() and not future.exception() for future in futures):
                self._stop.set()
            for future in futures:
                future.cancel()
            wait([future for future in futures if not future.cancelled()])
        errors = [e for f in futures if not f.cancelled() and (e := f.exception())]
        for error in sorted(errors, key=lambda e: isinstance(e, Stopped)):
            raise error
        return [future.result() for future in futures]

    def map_parts(self, function: Callable[[A], T], parts: Sequence[A]) -> list[T]:
        """Compute the parts of one job in parallel, from inside the job; return the results in order."""
        return list(self._parts.map(function, parts))
