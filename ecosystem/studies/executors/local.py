"""Engines: what runs jobs. In this process, in several of this machine, or on a Ray cluster."""

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
from typing import Any, Literal, get_args

from ecosystem.errors import EcosystemError, nearest
from ecosystem.runs.environment import cores
from ecosystem.studies.executors.jobs import ATTEMPTS, Ended, Engine, Job, attempt, attempt_in_worker, caps

Kind = Literal["serial", "processes", "ray"]
_PRELOAD = ["ecosystem.studies.executors.jobs", "ecosystem.simulation.world", "torch"]


def engine_of(
    kind: Kind,
    slots: int | None = None,
    threads: int = 1,
    *,
    address: str | None = None,
    gpus: float = 0.0,
    tick: Callable[[], None] = lambda: None,
) -> Engine:
    """Return an engine; ``slots`` None means as many runs at a time as there are cores (serial: always one).

    ``threads`` are those of each run, ``address`` is that of a Ray cluster (``auto`` finds it; None starts one here),
    ``gpus`` the share of one that each run takes there. ``tick`` is called while a serial engine works.
    """
    sensible(kind, slots, address, gpus)
    if kind == "serial":
        return Serial(tick)
    if kind == "processes":
        return Processes(slots or max(1, cores() // threads), threads)
    from ecosystem.studies.executors.ray import Ray

    return Ray(slots, threads, address, gpus)


def sensible(kind: str, slots: int | None, address: str | None, gpus: float) -> None:
    """Raise EcosystemError for what no engine can be, before one is asked for."""
    if kind not in get_args(Kind):
        raise EcosystemError(
            f"--engine {kind}: there is no such engine{nearest(kind, get_args(Kind))}; there are "
            f"{', '.join(get_args(Kind))}."
        )
    if slots is not None and slots < 1:
        raise EcosystemError(f"--jobs {slots}: give at least 1.")
    if kind != "ray" and (address is not None or gpus):
        raise EcosystemError(f"--address and --gpus belong to --engine ray, not to {kind}.")
    if kind == "serial" and slots not in (None, 1):
        raise EcosystemError(f"--engine serial does one run at a time, not {slots}; take --engine processes.")


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

    def __init__(self, slots: int, threads: int = 1) -> None:
        self.slots = slots
        there = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(there)
        self._caps = caps(threads)
        self._workers: list[_Worker] = []
        if there == "forkserver":
            # The libraries are imported once, not once a worker, and nothing is used there that starts threads.
            self._context.set_forkserver_preload(_PRELOAD)
            from multiprocessing.forkserver import ensure_running

            with _left_alone(self._caps):
                ensure_running()

    def start(self, number: int, job: Job) -> None:
        """Give a job to an idle worker, made if there is none."""
        idle = [worker for worker in self._workers if worker.number is None]
        for worker in idle:
            if worker.pipe.poll():  # nobody speaks unasked: it was killed between two jobs
                self._workers.remove(worker)
        worker = next((worker for worker in idle if worker in self._workers), None) or self._hire()
        worker.number, worker.began = number, time.monotonic()
        with suppress(OSError):  # it has died this moment, as wait() will find
            worker.pipe.send((number, job))

    def _hire(self) -> _Worker:
        for _ in range(ATTEMPTS):
            with (
                _left_alone(self._caps),
                suppress(EOFError, OSError),
            ):  # what workers come from was killed: begin it anew
                worker = _Worker(self._context)
                self._workers.append(worker)
                return worker
        raise EcosystemError("no worker can be started: the process that they come from dies each time.")

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
        out_of_memory = -code == getattr(signal, "SIGKILL", 9)  # Windows has no such name
        why = "; a machine that runs out of memory does that: give fewer --jobs" if out_of_memory else ""
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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            number, job = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(attempt_in_worker(number, job))


def _end_with_parent() -> None:
    """End this worker when its study is gone, so that whoever goes on does not find its run locked."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what was committed is safe, and the rest is of no use to anybody


@contextmanager
def _left_alone(environment: Mapping[str, str]) -> Iterator[None]:
    """Let processes begin with this environment, deaf to Ctrl-C, and without the script that called for the study.

    They need nothing of that script, which would otherwise be imported in each of them, and run if it has no guard.
    """
    main = sys.modules["__main__"]
    before = {name: os.environ.get(name) for name in environment}
    heard = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    os.environ.update(environment)
    sys.modules["__main__"] = ModuleType("__main__")
    if heard is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if heard is not None:
            signal.signal(signal.SIGINT, heard)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
