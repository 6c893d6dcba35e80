"""Engines: what runs jobs. In this process, in several of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from ecosystem.cores import cores
from ecosystem.errors import EcosystemError
from ecosystem.studies.jobs import Ended, Engine, Job, attempt

Kind = Literal["serial", "processes", "ray"]
_PRELOAD = ["ecosystem.studies.jobs", "ecosystem.world", "torch", "sklearn.feature_extraction.text"]


def engine_of(
    kind: Kind, slots: int | None = None, *, address: str | None = None, gpus: float = 0.0, tick: Callable[[], None]
) -> Engine:
    """Return an engine; ``slots`` None means as many runs at a time as there are cores (serial: always one).

    ``address`` is that of a Ray cluster (``auto`` finds it; None starts one here), ``gpus`` the share of one that each
    run takes there. ``tick`` is called while a serial engine works.
    """
    if kind == "serial":
        if slots not in (None, 1):
            raise EcosystemError(f"--engine serial does one run at a time, not {slots}; take --engine processes.")
        return Serial(tick)
    if kind == "processes":
        return Processes(slots or cores())
    from ecosystem.studies.cluster import Ray

    return Ray(slots, address, gpus)


class Serial:
    """One run after another, in this process."""

    slots = 1

    def __init__(self, tick: Callable[[], None]) -> None:
        self._jobs: deque[tuple[int, Job]] = deque()
        self._tick, self._told = tick, time.monotonic()

    def start(self, number: int, job: Job) -> None:
        """Note a job, which :meth:`wait` does."""
        self._jobs.append((number, job))

    def wait(self, seconds: float) -> list[Ended]:
        """Do the job that was noted."""
        return [attempt(*self._jobs.popleft(), progress=self._progress)]

    def _progress(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._told > 0.5:
            self._told = time.monotonic()
            self._tick()

    def close(self) -> None:
        """Nothing is under way between jobs."""


class _Worker:
    """A process that does jobs one after another, told and answering through a pipe."""

    def __init__(self, context: Any) -> None:
        self.pipe: Connection
        self.pipe, there = multiprocessing.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(there,), daemon=True)
        self.process.start()
        there.close()
        self.number: int | None = None
        self.began = 0.0


class Processes:
    """Several workers on this machine, each a process of its own that lives as long as the study.

    A worker that is killed costs its run one attempt and nobody else anything; another takes its place.
    """

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise EcosystemError(f"--jobs {slots}: give at least 1.")
        self.slots = slots
        there = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(there)
        if there == "forkserver":
            self._context.set_forkserver_preload(_PRELOAD)  # the libraries are imported once, not once a worker
        self._workers: list[_Worker] = []

    def start(self, number: int, job: Job) -> None:
        """Give a job to an idle worker, made if there is none."""
        worker = next((w for w in self._workers if w.number is None), None)
        if worker is None:
            worker = _Worker(self._context)
            self._workers.append(worker)
        worker.number, worker.began = number, time.monotonic()
        worker.pipe.send((number, job))

    def wait(self, seconds: float) -> list[Ended]:
        """Return what workers have answered, and what those that died were doing."""
        busy = [worker for worker in self._workers if worker.number is not None]
        wait([source for worker in busy for source in (worker.pipe, worker.process.sentinel)], seconds)
        ends = []
        for worker in busy:
            try:
                if worker.pipe.poll():
                    ends.append(worker.pipe.recv())
                    worker.number = None
                elif not worker.process.is_alive():
                    raise EOFError
            except (EOFError, OSError):
                ends.append(self._lost(worker))
        return ends

    def _lost(self, worker: _Worker) -> Ended:
        worker.process.join()
        self._workers.remove(worker)
        code, number = worker.process.exitcode or 0, worker.number
        assert number is not None
        how = f"killed (signal {-code})" if code < 0 else f"gone (exit code {code})"
        why = "; a machine that runs out of memory does that: give fewer --jobs" if code == -signal.SIGKILL else ""
        return Ended(number, error=f"its worker was {how}{why}", seconds=time.monotonic() - worker.began)

    def close(self) -> None:
        """Stop all workers."""
        for worker in self._workers:
            worker.process.kill()  # a run folder is whole at every moment
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()


def _serve(pipe: Connection) -> None:
    """Do jobs until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which stops its workers
    while True:
        try:
            number, job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(attempt(number, job))
