"""Conducts a study: its cells become jobs, jobs become runs, runs become tables, and tables a report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl

from ecosystem.cores import cores
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.runs import Run, folder_of
from ecosystem.scenario import Scenario
from ecosystem.store import Store
from ecosystem.studies import analysis
from ecosystem.studies.board import Board
from ecosystem.studies.engines import Kind, engine_of
from ecosystem.studies.jobs import Engine, Job, Outcome, complete
from ecosystem.studies.results import Results
from ecosystem.studies.spec import Cell, Study


@dataclass(frozen=True)
class Means:
    """With what a study is run: the engine, how many runs at a time, and what each of them may use."""

    engine: Kind = "processes"
    jobs: int | None = None  # runs at a time; None: one a core
    threads: int | None = None  # of each run; None: the cores shared out
    device: str = "auto"
    address: str | None = None  # of a Ray cluster
    gpus: float = 0.0  # share of a GPU that each run takes, on Ray

    @property
    def threads_each(self) -> int:
        """Compute threads of each run: more of them than cores would wait for one another."""
        at_once = 1 if self.engine == "serial" else self.jobs or cores()
        return self.threads or max(1, cores() // at_once)


@dataclass(frozen=True)
class Conducted:
    """A study that has been conducted: its tables, where they lie, and how long it took."""

    study: Study
    results: Results
    folder: Path
    report: Path
    seconds: float
    busy: float  # seconds that runs took, added up

    @property
    def effects(self) -> pl.DataFrame:
        """Every arm against the base arm (columns of :class:`analysis.Row`)."""
        return analysis.table(analysis.compared(self.study, self.results))

    def summary(self) -> dict[str, Any]:
        """Return the machine-readable summary."""
        failed = self.results.runs.filter(self.results.runs["error"].is_not_null())
        return {
            "study": str(self.folder),
            "report": str(self.report),
            "runs": self.results.runs.height,
            "failed": failed.select("arm", "world", "seed", "error").to_dicts(),
            "seconds": round(self.seconds, 1),
            "seconds_of_runs": round(self.busy, 1),
        }


def study(
    file: Study | str | Path, out: str | Path = "outputs", *, quiet: bool = True, base: Path = Path(), **how: Any
) -> Conducted:
    """Run what is missing of a study (a value, or the path of a file), write its report, and return what it found.

    ``base``: where the base scenario of a value is sought; ``how``: fields of :class:`Means`. The same as the command.
    """
    if not isinstance(file, Study):
        base = Path(file).parent
        file = Study.load(file)
    return conduct(file, base, Means(**how), Board(quiet=quiet), out=str(out))


def conduct(study: Study, base: Path, means: Means, board: Board, *, out: str = "outputs") -> Conducted:
    """Run what is missing of a study (``base``: the folder of its file), write its tables and its report.

    Raises ScenarioError for an arm that is no scenario, before anything runs. A run that fails is told in its cell.
    """
    from ecosystem.studies.report import write_study

    started = time.monotonic()
    cells = study.cells(base)
    plan = Plan(study.scenario(base)[1], means, out)
    numbers = [plan.add(cell, study) for cell in cells]
    with Workshop(means, board) as shop:
        made = shop.make(plan, study.name)
    results = Results.of(study, cells, [made[number] for number in numbers])
    store = Store(Path(out) / "studies" / f"{study.name}-{study.fingerprint()}")
    with store.lock():
        store.write("study.json", json.dumps(study.plain(), indent=1).encode())
        results.write(store)
        report = write_study(study, results, store)
    busy = sum(outcome.seconds for outcome in made)
    return Conducted(study, results, store.folder, report, time.monotonic() - started, busy)


def listing(study: Study, base: Path, out: str) -> str:
    """Return what a study would run, a line for each run, and which of them are there already."""
    lines = []
    for cell in study.cells(base):
        folder = folder_of(cell.scenario, out)
        there = "there already" if finished(folder, cell.scenario.steps) else "to do"
        lines.append(f"{cell.label}: {folder} ({there})")
    return "\n".join([*lines, f"{len(lines)} runs"])


class Plan:
    """The jobs that some runs need, each run once however many cells share it."""

    def __init__(self, base: Path, means: Means, out: str) -> None:
        """``base`` is the folder that relative paths of the scenarios begin from."""
        self._base, self._means, self._out = str(base.resolve()), means, out
        self.jobs: list[Job] = []
        self.steps: list[int] = []
        self.folders: list[Path] = []
        self.labels: list[str] = []

    def add(self, cell: Cell, study: Study) -> int:
        """Add a cell's run, and the run that it branches from if that is not given; return its job's number."""
        if cell.trunk is None:
            return self.add_run(cell.scenario, cell.label)
        stored = study.branch.run if study.branch is not None else None
        if stored is not None:
            parent, after = Path(stored) / str(cell.scenario.seed), None
            if Run.open(parent).scenario.fingerprint() != cell.trunk.fingerprint():
                raise ScenarioError(
                    f"{study.name}: branch.run: {parent} is a run of another scenario than the base of this study "
                    f"(that would be {folder_of(cell.trunk, self._out)}); leave branch.run out, or mend base and set."
                )
        else:
            after = self.add_run(cell.trunk, f"the world before the fork, seed {cell.scenario.seed}")
            parent = self.folders[after]
        return self.add_run(cell.scenario, cell.label, str(parent), cell.fork, after)

    def add_run(
        self, scenario: Scenario, label: str, parent: str = "", step: int = -1, after: int | None = None
    ) -> int:
        """Add a run, or find it where it was added before (the more steps count); return its job's number."""
        folder = folder_of(scenario, self._out)
        job = Job(
            scenario.to_toml(),
            self._base,
            self._out,
            self._means.device,
            self._means.threads_each,
            parent,
            step,
            after,
        )
        if folder in self.folders:
            number = self.folders.index(folder)
            if scenario.steps > self.steps[number]:
                self.steps[number], self.jobs[number] = scenario.steps, job
            return number
        self.folders.append(folder)
        self.steps.append(scenario.steps)
        self.labels.append(label)
        self.jobs.append(job)
        return len(self.jobs) - 1


class Workshop:
    """An engine that is kept from one plan to the next, and stopped when the work is done or broken off."""

    def __init__(self, means: Means, board: Board) -> None:
        self._means, self._board = means, board
        self._engine: Engine | None = None

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close()

    def make(self, plan: Plan, name: str) -> list[Outcome]:
        """Make the runs of a plan that are not there yet; return what became of each of its jobs."""
        there = [finished(folder, steps) for folder, steps in zip(plan.folders, plan.steps, strict=True)]
        left = [number for number, done in enumerate(there) if not done]
        made = [Outcome(run=str(folder)) for folder in plan.folders]
        if not left:
            return made
        place = {number: i for i, number in enumerate(left)}
        jobs = [_renumbered(plan.jobs[number], place) for number in left]
        if self._engine is None:
            how = self._means
            self._engine = engine_of(how.engine, how.jobs, address=how.address, gpus=how.gpus, tick=self._board.refresh)
        with self._board:
            self._board.begin(
                name, [(plan.labels[i], plan.folders[i], plan.steps[i]) for i in left], len(made) - len(left)
            )
            for number, outcome in zip(left, complete(jobs, self._engine, self._board.watch), strict=True):
                made[number] = outcome
        return made


def _renumbered(job: Job, place: dict[int, int]) -> Job:
    """Return a job that waits for its parent by the parent's new number, or for nobody if the parent is there."""
    return job if job.after is None else replace(job, after=place.get(job.after))


def finished(folder: Path, steps: int) -> bool:
    """Return whether a run folder has so many steps; a damaged one has not, and its run will say why."""
    try:
        return Store(folder).last() >= steps
    except EcosystemError:
        return False
