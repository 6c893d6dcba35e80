"""Engines for one machine: jobs run one after another in this process, or in several worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.interpreter import thread_limits
from ecosystem.studies.executors.jobs import (
    ATTEMPTS,
    AttemptResult,
    Job,
    attempt,
    attempt_in_worker,
)

_PRELOAD = ["ecosystem.studies.executors.jobs", "ecosystem.simulation.world", "torch"]
_TICK_SECONDS = 0.5


class Serial:
    """Executes one job after another in this process, and calls ``tick`` about twice a second."""

    slots = 1

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self._jobs: deque[tuple[int, Job]] = deque()
        self._tick, self._ticked = tick, time.monotonic()

    def start(self, number: int, job: Job) -> None:
        """Queue a job for :meth:`wait`."""
        self._jobs.append((number, job))

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Execute the next job, however long it takes."""
        return [attempt(*self._jobs.popleft(), progress=self._progress)]

    def _progress(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._ticked > _TICK_SECONDS:
            self._ticked = time.monotonic()
            self._tick()

    def close(self) -> None:
        """Do nothing: no job runs outside :meth:`wait`."""


class _Worker:
    """A process that receives jobs and returns results through a pipe."""

    def __init__(self, context: Any) -> None:
        self.pipe: Connection
        self.pipe, other_end = multiprocessing.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(other_end,), daemon=True)
        self.process.start()
        other_end.close()
        self.number: int | None = None  # of the job; None: idle
        self.began = 0.0


class Processes:
    """Executes jobs in worker processes of this machine, which run until the engine is closed.

    A killed worker costs its own job one attempt, does not affect other jobs, and is replaced.
    """

    def __init__(self, slots: int, threads: int = 1) -> None:
        self.slots = slots
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        self._environment = thread_limits(threads)
        self._workers: list[_Worker] = []
        if method == "forkserver":
            # Libraries are imported once, not once per worker. The server must not start threads, so nothing is called.
            self._context.set_forkserver_preload(_PRELOAD)
            from multiprocessing.forkserver import ensure_running

            with _isolated(self._environment):
                ensure_running()

    def start(self, number: int, job: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        worker = self._idle_worker() or self._new_worker()
        worker.number, worker.began = number, time.monotonic()
        with suppress(OSError):  # the worker has just died; wait() reports it
            worker.pipe.send((number, job))

    def _idle_worker(self) -> _Worker | None:
        for worker in [worker for worker in self._workers if worker.number is None]:
            if not worker.pipe.poll():
                return worker
            self._workers.remove(worker)  # an idle worker sends nothing: its pipe is closed because it was killed
        return None

    def _new_worker(self) -> _Worker:
        for _ in range(ATTEMPTS):
            # The fork server may have been killed; the next attempt starts another.
            with _isolated(self._environment), suppress(EOFError, OSError):
                worker = _Worker(self._context)
                self._workers.append(worker)
                return worker
        raise EcosystemError(f"no worker can be started: the fork server died in each of {ATTEMPTS} attempts.")

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Return the results sent by workers, and errors for the jobs of workers that died."""
        busy = [worker for worker in self._workers if worker.number is not None]
        wait([source for worker in busy for source in (worker.pipe, worker.process.sentinel)], seconds)
        results = []
        for worker in busy:
            try:
                if worker.pipe.poll():
                    results.append(worker.pipe.recv())
                    worker.number = None
                elif not worker.process.is_alive():
                    raise EOFError
            except (EOFError, OSError):
                results.append(self._remove(worker))
        return results

    def _remove(self, worker: _Worker) -> AttemptResult:
        worker.process.join()
        self._workers.remove(worker)
        code, number = worker.process.exitcode or 0, worker.number
        assert number is not None
        cause = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
        out_of_memory = -code == getattr(signal, "SIGKILL", 9)  # undefined on Windows
        advice = "; if the machine ran out of memory, use fewer --jobs" if out_of_memory else ""
        return AttemptResult(number, error=f"its worker {cause}{advice}", seconds=time.monotonic() - worker.began)

    def close(self) -> None:
        """Stop all workers."""
        for worker in self._workers:
            worker.process.kill()  # safe: a run folder is consistent at all times
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()


def _serve(pipe: Connection) -> None:
    """Execute jobs until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study's process handles Ctrl-C and stops its workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    while True:
        try:
            number, job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(attempt_in_worker(number, job))


def _exit_with_parent() -> None:
    """Exit when the study's process ends, to release the lock of the current run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # committed steps are safe


@contextmanager
def _isolated(environment: Mapping[str, str]) -> Iterator[None]:
    """Within this context, processes start with this environment, ignore Ctrl-C, and do not import the main script.

    Workers do not need the main script, and importing it would run it if it has no ``__main__`` guard.
    """
    main = sys.modules["__main__"]
    previous = {name: os.environ.get(name) for name in environment}
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    os.environ.update(environment)
    sys.modules["__main__"] = ModuleType("__main__")
    if handler is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        for name, value in previous.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
