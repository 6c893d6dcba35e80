"""Jobs: one run each, given as text and answered by a path, whatever process or machine does it.

A job that fails in a way that another attempt might mend (its worker was killed, a disk was full) is tried again and
goes on after its last committed step; a mistake in the scenario, or a model that diverges, is final, since the same
would happen again.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import tomllib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ecosystem.errors import EcosystemError, StoreError
from ecosystem.families.base import Progress
from ecosystem.runs import Branch, Run, begin, folder_of, machine_for
from ecosystem.scenario import Scenario

ATTEMPTS = 3
_WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Job:
    """One run to be made: the scenario as TOML, where relative paths of it begin, and where the run goes."""

    scenario: str
    base: str
    out: str
    device: str = "auto"
    threads: int = 1
    parent: str = ""  # the run folder that it branches from
    step: int = -1  # after which step
    after: int | None = None  # the number of the job that makes this one's parent


@dataclass(frozen=True)
class Ended:
    """How one attempt at a job ended: with a run, or with a sentence."""

    number: int
    run: str = ""
    error: str = ""
    final: bool = False  # trying again would end alike
    seconds: float = 0.0


def work(job: Job, progress: Progress | None = None) -> str:
    """Run or resume one job in this process and return its run folder; raise EcosystemError where it cannot be run."""
    scenario = Scenario.parse(tomllib.loads(job.scenario), base=Path(job.base))
    branch = Branch(Run.open(job.parent), job.step, scenario) if job.parent else None
    folder = folder_of(scenario, job.out)
    machine = machine_for(folder, job.device, job.threads, branch)
    told = progress or _while_parent_lives()
    for _ in begin(scenario, out=job.out, machine=machine, base=Path(job.base), progress=told, branch=branch):
        pass
    return str(folder)


def attempt(number: int, job: Job, progress: Progress | None = None) -> Ended:
    """Do a job and say how it ended."""
    started = time.monotonic()
    run, error, final = "", "", False
    try:
        run = work(job, progress)
    except EcosystemError as problem:
        error, final = str(problem), not isinstance(problem, StoreError)
    except Exception as problem:  # whatever a worker meets, the study goes on and tells it
        error = f"{type(problem).__name__}: {problem}"
    return Ended(number, run, error, final, time.monotonic() - started)


def _while_parent_lives() -> Progress:
    """Return a sign of progress that ends a worker whose study is gone, so that nobody else finds its run locked."""
    parent, looked = multiprocessing.parent_process(), time.monotonic()

    def watch(what: str, done: int, total: int) -> None:
        nonlocal looked
        if parent is not None and time.monotonic() - looked > _WATCH_SECONDS:
            looked = time.monotonic()
            if not parent.is_alive():
                os._exit(1)  # what was committed is safe, and the rest is of no use to anybody

    return watch


class Engine(Protocol):
    """What runs jobs: :meth:`start` begins one if fewer than ``slots`` are under way, :meth:`wait` hears of ends."""

    slots: int

    def start(self, number: int, job: Job) -> None:
        """Begin a job."""

    def wait(self, seconds: float) -> list[Ended]:
        """Return the jobs that have ended, after at most ``seconds`` (an engine in this process: when one has)."""

    def close(self) -> None:
        """Stop everything under way; what was committed stays."""


@dataclass
class Outcome:
    """What became of a job: its run, or why there is none, after how many attempts and how long a time."""

    run: str = ""
    error: str = ""
    attempts: int = 0
    seconds: float = 0.0


Watch = Callable[[dict[int, float], list[Outcome]], None]
"""``watch(running, outcomes)``: jobs under way with the time each began, and what became of all so far."""


def complete(jobs: Sequence[Job], engine: Engine, watch: Watch = lambda running, outcomes: None) -> list[Outcome]:
    """Do all jobs, as many at a time as the engine has slots, and return what became of each.

    A job whose parent is another job begins when that has ended. Nothing is raised for a job that fails: its Outcome
    says why.
    """
    outcomes = [Outcome() for _ in jobs]
    waiting = deque(range(len(jobs)))
    running: dict[int, float] = {}
    while waiting or running:
        for number in list(waiting):
            if len(running) >= engine.slots:
                break
            parent = jobs[number].after
            if parent is not None and outcomes[parent].error:
                outcomes[number].error = f"the run that it branches from failed: {outcomes[parent].error}"
                waiting.remove(number)
            elif parent is None or outcomes[parent].run:
                waiting.remove(number)
                running[number] = time.monotonic()
                engine.start(number, jobs[number])
        watch(running, outcomes)
        for ended in engine.wait(0.5) if running else []:
            running.pop(ended.number)
            outcome = outcomes[ended.number]
            outcome.attempts += 1
            outcome.seconds += ended.seconds
            if ended.run:
                outcome.run = ended.run
            elif ended.final or outcome.attempts >= ATTEMPTS:
                outcome.error = ended.error
            else:
                waiting.appendleft(ended.number)
    watch(running, outcomes)
    return outcomes
