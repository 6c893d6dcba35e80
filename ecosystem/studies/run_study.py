"""Conducts a study: its cells become jobs, jobs become runs, runs become tables, and tables a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl

from ecosystem.cache import chosen_cache
from ecosystem.errors import FormatError, ScenarioError, StoreError, path_of
from ecosystem.runs.environment import validate_device
from ecosystem.runs.files import require_local_path
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies import analysis
from ecosystem.studies.executors.jobs import Engine, Job, Outcome, complete
from ecosystem.studies.executors.local import Kind, engine_of, sensible
from ecosystem.studies.object_store import is_url, last_step, opened, place_of, upload
from ecosystem.studies.progress import Board, Entry
from ecosystem.studies.results import Results
from ecosystem.studies.study import Cell, Question, Study

_ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Means:
    """With what a study is run: the engine, how many runs at a time, and what each of them may use.

    Raises EcosystemError for what cannot be, also where nothing is left to run.
    """

    engine: Kind = "processes"
    jobs: int | None = None  # runs at a time; None: as many as there are cores for
    threads: int | None = None  # of each run; None: one, or those that a run began with
    device: str = "auto"
    address: str | None = None  # of a Ray cluster
    gpus: float = 0.0  # share of a GPU that each run takes, on Ray
    cache: str | Path | None = None  # folder of foundations; None: ECOSYSTEM_CACHE, or this user's cache folder

    def __post_init__(self) -> None:
        sensible(self.engine, self.jobs, self.address, self.gpus)
        validate_device(self.device, self.threads)


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
            "untrained": self.results.training.filter(pl.col("never") + pl.col("stopped") > 0).to_dicts(),
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
        path = path_of(file, "Study")
        base, file = path.parent, Study.load(path)
    return conduct(file, base, Means(**how), Board(quiet=quiet), out=str(out))


def conduct(study: Study, base: Path, means: Means, board: Board, *, out: str = "outputs") -> Conducted:
    """Run what is missing of a study (``base``: the folder of its file), write its tables and its report.

    Raises ScenarioError for an arm that is no scenario, before anything runs. A run that fails is told in its cell.
    """
    started = time.monotonic()
    with telling(study, out, "studies", "study.json") as store:
        cells = study.cells(base)
        plan = Plan(study.scenario(base)[1], means, out)
        numbers = [plan.add(cell, study) for cell in cells]
        with Workshop(means, board) as shop:
            made = shop.make(plan, study.name, meanwhile=_prepare_report)
        from ecosystem.studies.report import write_study
        from ecosystem.studies.report.data import StudyReportData

        results = Results.of(study, cells, [made[number] for number in numbers])
        results.write(store)
        report = write_study(study, results, store)
        data = StudyReportData(study, results)
        for sentence in [*data.idle(), *data.gaps()]:
            board.say(sentence)
    busy = sum(outcome.seconds for outcome in made)
    return Conducted(study, results, store.folder, report, time.monotonic() - started, busy)


def _prepare_report() -> None:
    """Import and build what every report needs, which takes seconds, while the workers import what every run needs."""
    import ecosystem.studies.report  # noqa: F401
    from ecosystem.report.html import library

    library()


@contextmanager
def telling(question: Question, out: str, among: str, told: str) -> Iterator[Store]:
    """Hold the folder on this machine for what the answer to a question says, with the question in the file ``told``.

    Where runs go to an object store it lies under ``outputs``, and all that is in it is put beside the runs too. A
    place that cannot be written is told at once, before anything runs.
    """
    name = f"{question.name}-{question.fingerprint()}"
    store = Store(Path("outputs" if is_url(out) else require_local_path(out), among, name))
    url = f"{out.rstrip('/')}/{among}/{name}" if is_url(out) else ""
    with store.lock():
        store.write(told, json.dumps(question.plain(), indent=1).encode())
        if url:
            upload(store.folder, url, told)
        yield store
        if url:
            upload(store.folder, url)


def listing(study: Study, base: Path, out: str) -> str:
    """Return what a study would run, a line for each run, and which of them are there already."""
    cells, plan = study.cells(base), Plan(study.scenario(base)[1], Means(), out)
    numbers = [plan.add(cell, study) for cell in cells]
    there = finished(plan.places, plan.steps)
    lines = [
        f"{cell.label}: {plan.places[n]} ({'there already' if there[n] else 'to do'})"
        for cell, n in zip(cells, numbers, strict=True)
    ]
    more = f", {len(set(numbers))} of them different" if len(set(numbers)) < len(cells) else ""
    return "\n".join([*lines, f"{len(lines)} runs{more}"])


class Plan:
    """The jobs that some runs need, each run once however many cells share it."""

    def __init__(self, base: Path, means: Means, out: str) -> None:
        """``base`` is the folder that relative paths of the scenarios begin from."""
        self._base, self._means, self._out = str(base.resolve()), means, out.rstrip("/") if is_url(out) else out
        self.jobs: list[Job] = []
        self.steps: list[int] = []
        self.places: list[str] = []
        self.labels: list[str] = []

    def add(self, cell: Cell, study: Study) -> int:
        """Add a cell's run, and the run that it branches from if that is not given; return its job's number."""
        if cell.trunk is None:
            return self.add_run(cell.scenario, cell.label)
        stored = study.branch.run if study.branch is not None else None
        if stored is not None:
            parent, after = f"{stored.rstrip('/')}/{cell.trunk.seed}", None
            if is_url(self._out) != is_url(stored) or (is_url(stored) and not stored.startswith(f"{self._out}/")):
                raise ScenarioError(
                    f"{study.where}: branch.run: {stored} does not lie where this study's runs go ({self._out}); arms "
                    "read there what came before the fork, so a folder goes with folders, and a URL lies under --out."
                )
            if opened(parent).scenario.fingerprint() != cell.trunk.fingerprint():
                raise ScenarioError(
                    f"{study.where}: branch.run: {parent} is a run of another scenario than the base of this study "
                    f"(that would be {place_of(cell.trunk, self._out)}); leave branch.run out, or mend base and set."
                )
        else:
            after = self.add_run(cell.trunk, f"the world before the fork, seed {cell.scenario.seed}")
            parent = self.places[after]
        return self.add_run(cell.scenario, cell.label, parent, cell.fork, after)

    def add_run(
        self, scenario: Scenario, label: str, parent: str = "", step: int = -1, after: int | None = None
    ) -> int:
        """Add a run, or find it where it was added before (the more steps count); return its job's number."""
        place = place_of(scenario, self._out)
        job = Job(
            scenario.to_toml(),
            self._base,
            self._out,
            self._means.device,
            self._means.threads,
            parent,
            step,
            after,
            str(chosen_cache(self._means.cache) or ""),
        )
        if place in self.places:
            number = self.places.index(place)
            if scenario.steps > self.steps[number]:
                self.steps[number], self.jobs[number] = scenario.steps, job
            return number
        self.places.append(place)
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

    def make(self, plan: Plan, name: str, meanwhile: Callable[[], None] = lambda: None) -> list[Outcome]:
        """Make the runs of a plan that are not there yet; return what became of each of its jobs.

        ``meanwhile`` is what there is to do while the workers import what every run needs.
        """
        there = finished(plan.places, plan.steps)
        left = [number for number, done in enumerate(there) if not done]
        made = [Outcome(run=place) for place in plan.places]
        if not left:
            return made
        new = {number: i for i, number in enumerate(left)}
        jobs = [_renumbered(plan.jobs[number], new) for number in left]
        if self._engine is None:
            how = self._means
            self._engine = engine_of(
                how.engine, how.jobs, how.threads or 1, address=how.address, gpus=how.gpus, tick=self._board.refresh
            )
        runs = [Entry(plan.labels[i], plan.places[i], plan.steps[i], plan.jobs[i].step) for i in left]
        with self._board:
            self._board.begin(name, runs, len(made) - len(left))
            meanwhile()
            for number, outcome in zip(left, complete(jobs, self._engine, self._board.watch), strict=True):
                made[number] = outcome
        return made


def _renumbered(job: Job, place: dict[int, int]) -> Job:
    """Return a job that waits for its parent by the parent's new number, or for nobody if the parent is there."""
    return job if job.after is None else replace(job, after=place.get(job.after))


def finished(places: Sequence[str], steps: Sequence[int]) -> list[bool]:
    """Return which runs have as many steps; a damaged one has not, and its run will say why.

    Raises FormatError for one that a newer release has written.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return list(pool.map(_finished, places, steps))


def _finished(place: str, steps: int) -> bool:
    try:
        return (last_step(place) if is_url(place) else Store(Path(place)).last()) >= steps
    except FormatError:
        raise
    except StoreError:
        return False
