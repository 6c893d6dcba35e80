"""Jobs: one run each, sent to any process or machine as text and answered by the place of the run.

A job is retried after a failure that may not recur (a killed worker, a full disk); the run then resumes after its last
committed step. An invalid scenario and a diverging model are final, since they would fail in every attempt.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Protocol

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ecosystem.cache import CACHE_VARIABLE
from ecosystem.errors import EcosystemError, FormatError, StoreError
from ecosystem.families.base import Progress, silent
from ecosystem.input_files import is_url
from ecosystem.plugins import Plugin, load_all
from ecosystem.runs.branch import Branch
from ecosystem.runs.callbacks.base import made
from ecosystem.runs.callbacks.watch import Watch as Followers
from ecosystem.runs.execute import begin, machine_for
from ecosystem.runs.planning.memory import require_cpu, resources
from ecosystem.runs.remote.mirror import Mirror
from ecosystem.runs.remote.places import place_of, with_store_paths
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

ATTEMPTS = 3
_WAIT_SECONDS = 0.5  # before the second attempt; four times as long before the third


@dataclass(frozen=True)
class Job:
    """One run to execute: the scenario as TOML, the folder of its relative paths, and where to write the run."""

    scenario: str
    base: str
    out: str  # a folder, or the URL of an object store
    _: KW_ONLY
    device: str = "auto"
    threads: int | None = None  # None: as many as the run began with, or one for a new run
    parent: str = ""  # the run to branch from
    branch_step: int = -1  # the last step shared with the parent
    parent_job: int | None = None  # the number of the job of the parent
    cache: str = ""  # folder of foundations and tokenizers; "": the default of the worker
    memory: int | None = None  # bytes for this run, in which the batches of a new one are computed; None: no limit
    plugins: tuple[Plugin, ...] = ()  # files that the kinds of the scenario come from
    callbacks: tuple[str, ...] = ()  # names of what follows the run


@dataclass(frozen=True)
class AttemptResult:
    """The result of one attempt at a job: a run, or an error."""

    number: int  # of the job
    run: str = ""
    error: str = ""
    final: bool = False  # whether another attempt would fail in the same way
    seconds: float = 0.0


@dataclass
class JobResult:
    """The result of a job so far: its run or final error, with the number and total time of its attempts."""

    run: str = ""
    error: str = ""
    attempts: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the job has succeeded or has finally failed."""
        return bool(self.run or self.error)


def run_job(job: Job, progress: Progress = silent) -> str:
    """Run or resume one job in this process and return the place of its run.

    A run in an object store is written to a scratch folder of this machine and pushed after every commit. Raises
    EcosystemError if the run fails.
    """
    load_all(job.plugins)
    scenario = Scenario.parse(tomllib.loads(job.scenario), base=Path(job.base))
    place, out, parent = place_of(scenario, job.out), job.out, job.parent
    mirror = Mirror(job.out) if is_url(job.out) else None
    if mirror is not None:
        out = str(mirror.folder)
        mirror.resume(folder_of(scenario, out))
        if parent:
            mirror.fetch(mirror.local(parent), weights=[job.branch_step])
            parent = str(mirror.local(parent))
    folder = folder_of(scenario, out)
    branch = Branch(Run.open(parent), job.branch_step, scenario) if parent else None
    begins = branch is None and Store(folder).last() < 0
    machine = machine_for(folder, job.device, job.threads or (1 if begins else None), branch)
    if job.memory is not None:
        require_cpu(machine.device)
        needed = resources(
            scenario,
            folder,
            threads=machine.threads,
            base=Path(job.base),
            budget=job.memory,
            done=Store(folder).last(),
            parts=None if begins else machine.parts,
        )
        needed.require()
        machine = replace(machine, parts=needed.parts)
    steps = begin(
        scenario,
        out=out,
        machine=machine,
        base=Path(job.base),
        cache=job.cache or None,
        progress=progress,
        branch=branch,
    )
    last = Store(folder).last()
    followers = Followers(made(job.callbacks), scenario, folder, place, job.branch_step if last < 0 else last)
    # Closing unlocks the folder even if a push fails.
    with followers, threadpool_limits(machine.threads), closing(steps):
        for snapshot in steps:
            if mirror is not None:
                mirror.push(folder)
            followers.step(snapshot)
    if mirror is not None:
        mirror.push(folder)  # the site graph in its final state
        for path in (folder / "weights").glob("*"):
            path.unlink()  # most of the disk space, and safe in the store
    return place


def _is_final(problem: EcosystemError) -> bool:
    """Return whether another attempt would fail in the same way; errors of a store may be temporary."""
    return isinstance(problem, FormatError) or not isinstance(problem, StoreError)


def attempt(number: int, job: Job, progress: Progress = silent) -> AttemptResult:
    """Execute a job once and return its result or error; never raise."""
    started = time.monotonic()
    run, error, final = "", "", False
    try:
        run = run_job(job, progress)
    except EcosystemError as problem:
        error, final = with_store_paths(str(problem), job.out), _is_final(problem)
    except Exception as problem:  # the study continues and reports the error in the cell
        error = f"{type(problem).__name__}: {problem}"
    return AttemptResult(number, run, error, final, time.monotonic() - started)


def attempt_in_worker(number: int, job: Job) -> AttemptResult:
    """Execute a job once in a worker process."""
    if job.cache:  # a worker does not have the environment of the study's process
        os.environ[CACHE_VARIABLE] = job.cache
    return attempt(number, job)


class Engine(Protocol):
    """Executes jobs: :meth:`start` begins one if fewer than ``slots`` are running, :meth:`wait` returns results."""

    slots: int

    def start(self, number: int, job: Job) -> None:
        """Begin a job."""

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Wait for results for at most ``seconds`` and return those since the last call; may execute a job itself."""

    def close(self) -> None:
        """Stop all running jobs; committed steps are kept."""


Watch = Callable[[dict[int, float], list[JobResult]], None]
"""``watch(running, results)``: the time at which each running job began, and the results of all jobs so far."""


def run_jobs(jobs: Sequence[Job], engine: Engine, watch: Watch = lambda running, results: None) -> list[JobResult]:
    """Execute all jobs, as many in parallel as the engine has slots, and return their results.

    A job with a ``parent_job`` begins after that job has succeeded, and fails if that fails. A failed job does not
    raise; its result has the error.
    """
    results = [JobResult() for _ in jobs]
    waiting = dict.fromkeys(range(len(jobs)), 0.0)  # job → earliest time of its next attempt
    running: dict[int, float] = {}
    while waiting or running:
        for number, earliest in list(waiting.items()):
            parent = jobs[number].parent_job
            if parent is not None and results[parent].error:
                results[number].error = f"the run that it branches from failed: {results[parent].error}"
                del waiting[number]
                continue
            ready = earliest <= time.monotonic() and (parent is None or results[parent].run)
            if ready and len(running) < engine.slots:
                del waiting[number]
                running[number] = time.monotonic()
                engine.start(number, jobs[number])
        watch(running, results)
        if not running:
            time.sleep(0.05 if waiting else 0.0)
            continue
        for attempted in engine.wait(0.5):
            running.pop(attempted.number)
            pause = _count_attempt(results[attempted.number], attempted)
            if pause is not None:
                waiting = {attempted.number: time.monotonic() + pause, **waiting}
    watch(running, results)
    return results


def _count_attempt(result: JobResult, attempted: AttemptResult) -> float | None:
    """Add an attempt to a job's result; return the seconds before the next attempt, or None if the job has ended."""
    result.attempts += 1
    result.seconds += attempted.seconds
    if attempted.run:
        result.run = attempted.run
    elif attempted.final or result.attempts >= ATTEMPTS:
        result.error = attempted.error
    return None if result.ended else _WAIT_SECONDS * 4 ** (result.attempts - 1)
