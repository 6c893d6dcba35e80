"""Jobs: one run each, given as text and answered by a path, whatever process or machine does it.

A job that fails in a way that another attempt might mend (its worker was killed, a disk was full) is tried again and
goes on after its last committed step; a mistake in the scenario, or a model that diverges, is final, since the same
would happen again.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ecosystem.cache import CACHE_VARIABLE
from ecosystem.errors import EcosystemError, FormatError, StoreError
from ecosystem.families.base import Progress, silent
from ecosystem.runs.branch import Branch
from ecosystem.runs.execute import begin, machine_for
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.object_store import Mirror, addressed, is_url, place_of

ATTEMPTS = 3
_WAIT_SECONDS = 0.5  # before a second attempt, and four times as long before a third


@dataclass(frozen=True)
class Job:
    """One run to be made: the scenario as TOML, where relative paths of it begin, and where the run goes."""

    scenario: str
    base: str
    out: str  # a folder, or the address of an object store
    device: str = "auto"
    threads: int | None = None  # None: those that the run began with; one if it begins now
    parent: str = ""  # the run that it branches from
    step: int = -1  # after which step
    after: int | None = None  # the number of the job that makes this one's parent
    cache: str = ""  # folder of foundations and the like; "": that of the user who runs the worker


@dataclass(frozen=True)
class Ended:
    """How one attempt at a job ended: with a run, or with a sentence."""

    number: int
    run: str = ""
    error: str = ""
    final: bool = False  # trying again would end alike
    seconds: float = 0.0


def work(job: Job, progress: Progress = silent) -> str:
    """Run or resume one job in this process and return where its run lies.

    In an object store a run is made in a scratch folder of this machine, and pushed after every commit. Raises
    EcosystemError where it cannot be run.
    """
    scenario = Scenario.parse(tomllib.loads(job.scenario), base=Path(job.base))
    place, out, parent = place_of(scenario, job.out), job.out, job.parent
    mirror = Mirror(job.out) if is_url(job.out) else None
    if mirror is not None:
        out = str(mirror.folder)
        mirror.resume(folder_of(scenario, out))
        if parent:
            mirror.fetch(mirror.local(parent), weights=job.step)
            parent = str(mirror.local(parent))
    folder = folder_of(scenario, out)
    branch = Branch(Run.open(parent), job.step, scenario) if parent else None
    begins = branch is None and Store(folder).last() < 0
    machine = machine_for(folder, job.device, job.threads or (1 if begins else None), branch)
    steps = begin(
        scenario,
        out=out,
        machine=machine,
        base=Path(job.base),
        cache=job.cache or None,
        progress=progress,
        branch=branch,
    )
    with threadpool_limits(machine.threads), closing(steps):  # unlocks the folder, whatever becomes of a push
        for _ in steps:
            if mirror is not None:
                mirror.push(folder)
    if mirror is not None:
        mirror.push(folder)  # the site graph as it is at the end
        for path in (folder / "weights").glob("*"):
            path.unlink()  # most of the bytes, and safe where they are
    return place


def _is_final(problem: EcosystemError) -> bool:
    """Return whether another attempt would end the same way; a store may answer, or be free, the next time."""
    return isinstance(problem, FormatError) or not isinstance(problem, StoreError)


def attempt(number: int, job: Job, progress: Progress = silent) -> Ended:
    """Do a job and say how it ended."""
    started = time.monotonic()
    run, error, final = "", "", False
    try:
        run = work(job, progress)
    except EcosystemError as problem:
        error, final = addressed(str(problem), job.out), _is_final(problem)
    except Exception as problem:  # whatever a worker meets, the study goes on and tells it
        error = f"{type(problem).__name__}: {problem}"
    return Ended(number, run, error, final, time.monotonic() - started)


def attempt_in_worker(number: int, job: Job) -> Ended:
    """Do a job in a process that does nothing else, and say how it ended."""
    if job.cache:  # a worker has the environment of the process that it was forked from, or of another machine
        os.environ[CACHE_VARIABLE] = job.cache
    return attempt(number, job)


def caps(threads: int) -> dict[str, str]:
    """Return the environment that keeps every library of a worker to so many threads; they read it when imported."""
    names = ("OMP", "OPENBLAS", "MKL", "RAYON")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "POLARS_MAX_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }


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
    waiting = dict.fromkeys(range(len(jobs)), 0.0)  # and until when
    running: dict[int, float] = {}
    while waiting or running:
        for number, until in list(waiting.items()):
            parent = jobs[number].after
            if parent is not None and outcomes[parent].error:
                outcomes[number].error = f"the run that it branches from failed: {outcomes[parent].error}"
                del waiting[number]
            elif len(running) < engine.slots and until <= time.monotonic() and (parent is None or outcomes[parent].run):
                del waiting[number]
                running[number] = time.monotonic()
                engine.start(number, jobs[number])
        watch(running, outcomes)
        if not running:
            time.sleep(0.05 if waiting else 0.0)
            continue
        for ended in engine.wait(0.5):
            running.pop(ended.number)
            outcome = outcomes[ended.number]
            outcome.attempts += 1
            outcome.seconds += ended.seconds
            if ended.run:
                outcome.run = ended.run
            elif ended.final or outcome.attempts >= ATTEMPTS:
                outcome.error = ended.error
            else:
                pause = _WAIT_SECONDS * 4 ** (outcome.attempts - 1)
                waiting = {ended.number: time.monotonic() + pause, **waiting}
    watch(running, outcomes)
    return outcomes
