"""Running a study: from its cells to jobs, run folders, tables and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from ecosystem.errors import EcosystemError, FormatError, StoreError, path_argument, path_of
from ecosystem.input_files import is_url
from ecosystem.placement.spec import IGNORED_BY_STUDIES
from ecosystem.plugins import load_plugins
from ecosystem.runs.callbacks.base import made
from ecosystem.runs.callbacks.watch import Watch
from ecosystem.runs.files import require_local_path
from ecosystem.runs.remote.places import last_step, open_run, upload
from ecosystem.runs.store import Store
from ecosystem.scenario.inputs import require_inputs
from ecosystem.scenario.presets import STUDIES, located
from ecosystem.studies.executors.jobs import Engine, Job, JobResult, run_jobs
from ecosystem.studies.executors.options import ExecutionKeywords, ExecutionOptions, start_engine
from ecosystem.studies.progress import PlannedRun, StudyProgress
from ecosystem.studies.results import Results
from ecosystem.studies.run_plan import RunPlan
from ecosystem.studies.spec.question import ManyRuns
from ecosystem.studies.spec.study import Study
from ecosystem.studies.study_result import StudyResult

_PARALLEL_REQUESTS = 16


def study(
    file: Study | str | Path,
    out: str | Path = "outputs",
    *,
    quiet: bool = True,
    base: Path = Path(),
    plugins: Iterable[str | Path] = (),
    **options: Unpack[ExecutionKeywords],
) -> StudyResult:
    """Run a study (a Study, or the path or bundled name of a file), write its report and return its results.

    Finished runs are reused. ``base`` is the folder to which the base scenario of a Study object is relative.
    ``plugins`` are Python files with kinds that the scenarios use (:func:`ecosystem.load_plugin`), and ``options`` are
    fields of :class:`ExecutionOptions`. The command ``ecosystem study`` does the same. Raises
    EcosystemError for errors that the user can correct.
    """
    load_plugins(plugins)
    if not isinstance(file, Study):
        path = located(path_of(file, "Study"), prefer=STUDIES)
        base, file = path.parent, Study.load(path)
    return run_study(
        file, base, ExecutionOptions.of(options), StudyProgress(quiet=quiet), out=str(path_argument(out, "out"))
    )


def run_study(
    study: Study, base: Path, options: ExecutionOptions, progress: StudyProgress, *, out: str = "outputs"
) -> StudyResult:
    """Execute the missing runs of a study and write its tables and report; ``base`` is the folder of its file.

    Raises ScenarioError before any run if the scenario of an arm is invalid. Failed runs do not raise; their errors are
    in the results.
    """
    started = time.monotonic()
    cells = study.cells(base)  # first: an invalid study leaves no folder
    if any(cell.scenario.placement is not None for cell in cells):
        progress.say(f"note: {IGNORED_BY_STUDIES}.")
    with study_folder(study, out, "studies", "study.json") as store:
        plan = RunPlan(study.scenario(base)[1], options, out)
        numbers = [plan.add_cell(cell, study) for cell in cells]
        with StudyRunner(options, progress) as runner:
            job_results = runner.execute(plan, study.name, meanwhile=_prepare_report)
        from ecosystem.studies.report import write_study
        from ecosystem.studies.report.data import StudyReportData

        of_cells = [job_results[number] for number in numbers]
        results = Results.of(study, cells, of_cells)
        for cell, result, error in zip(cells, of_cells, results.runs["error"], strict=True):
            if error and not result.error:  # it was finished before, but cannot be read
                progress.say_failed(cell.label, error)
        results.write(store)
        report = write_study(results, store)
        data = StudyReportData.of(results)
        for sentence in [*data.untrained_findings(), *data.missing_findings()]:
            progress.say(sentence)
    run_seconds = sum(result.seconds for result in job_results)
    return StudyResult(results, store.folder, report, time.monotonic() - started, run_seconds)


def _prepare_report() -> None:
    """Import and build what every report needs, which takes seconds; done while the workers start."""
    import ecosystem.studies.report  # noqa: F401
    from ecosystem.report.html import library

    with suppress(EcosystemError):  # it is raised again when the report is written, after the results
        library()


@contextmanager
def study_folder(question: ManyRuns, out: str, section: str, file: str) -> Iterator[Store]:
    """Lock and yield the local folder for the results of a question; write the question to ``file`` in it.

    The folder is ``<out>/<section>/<name>-<fingerprint>``. If ``out`` is a URL, the folder is below ``outputs`` and is
    uploaded at the end. Raises StoreError at once if the folder or the URL is not writable.
    """
    name = f"{question.name}-{question.fingerprint()}"
    store = Store(Path("outputs" if is_url(out) else require_local_path(out), section, name))
    url = f"{out.rstrip('/')}/{section}/{name}" if is_url(out) else ""
    with store.lock():
        store.write(file, json.dumps(question.plain(), indent=1).encode())
        if url:
            upload(store.folder, url, file)
        yield store
        if url:
            upload(store.folder, url)


def planned(study: Study, base: Path, out: str) -> list[dict[str, Any]]:
    """Return one record per cell: its label, the place of its run, and whether that is finished."""
    cells, folder = study.cells(base), study.scenario(base)[1]
    require_inputs([cell.scenario for cell in cells], folder, study.where)
    plan = RunPlan(folder, ExecutionOptions(), out)
    numbers = [plan.add_cell(cell, study) for cell in cells]
    done = finished(plan.runs)
    return [
        {"cell": cell.label, "run": plan.runs[n].place, "finished": done[n]}
        for cell, n in zip(cells, numbers, strict=True)
    ]


def listing(cells: Sequence[Mapping[str, Any]]) -> str:
    """Format the records of :func:`planned`, one per line, and count the runs."""
    lines = [f"{cell['cell']}: {cell['run']} ({'finished' if cell['finished'] else 'to do'})" for cell in cells]
    runs = len({cell["run"] for cell in cells})
    distinct = f", {runs} of them distinct" if runs < len(cells) else ""
    return "\n".join([*lines, f"{len(lines)} runs{distinct}"])


class StudyRunner:
    """Executes plans, one after another, with one engine; the end of its ``with`` block stops the engine."""

    def __init__(self, options: ExecutionOptions, progress: StudyProgress) -> None:
        self._options, self._progress = options, progress
        self._engine: Engine | None = None
        self._reported: set[str] = set()  # places of runs that callbacks know

    def __enter__(self) -> StudyRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.close()

    def execute(self, plan: RunPlan, name: str, meanwhile: Callable[[], None] = lambda: None) -> list[JobResult]:
        """Execute the unfinished runs of a plan and return the results of all jobs.

        ``meanwhile`` is called while the workers start. Raises StoreError if a finished run was made from other files.
        """
        results = [JobResult(run=run.place) for run in plan.runs]
        done = finished(plan.runs)
        plan.check_reused([number for number, ended in enumerate(done) if ended])
        missing = [number for number, ended in enumerate(done) if not ended]
        self._report_finished([run.place for run, ended in zip(plan.runs, done, strict=True) if ended])
        self._reported.update(run.place for run in plan.runs)
        if not missing:
            return results
        numbers = {number: i for i, number in enumerate(missing)}  # number in the plan → number among the missing
        jobs = [_renumbered(plan.jobs[number], numbers) for number in missing]
        if self._engine is None:
            self._engine = start_engine(self._options, tick=self._progress.refresh)
        with self._progress:
            self._progress.begin(name, [plan.runs[number] for number in missing], len(results) - len(missing))
            meanwhile()
            for number, result in zip(missing, run_jobs(jobs, self._engine, self._progress.watch), strict=True):
                results[number] = result
        return results

    def _report_finished(self, places: Sequence[str]) -> None:
        """Give runs that were finished before to the callbacks, once each; not those in an object store."""
        for place in places:
            if self._options.callbacks and not is_url(place) and place not in self._reported:
                with suppress(EcosystemError):  # a damaged run is left out of the results, with its error
                    run, callbacks = open_run(place), made(self._options.callbacks)
                    Watch(callbacks, run.scenario, Path(place), place, run.last_step).end("finished")


def _renumbered(job: Job, numbers: dict[int, int]) -> Job:
    """Return a job with the new number of its parent's job, or None if the parent is finished."""
    return job if job.parent_job is None else replace(job, parent_job=numbers.get(job.parent_job))


def finished(runs: Sequence[PlannedRun]) -> list[bool]:
    """Return whether each run has all its steps; False for a damaged run, whose execution reports the damage.

    Raises FormatError for a run written by a newer release.
    """
    with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
        return list(pool.map(_finished, runs))


def _finished(run: PlannedRun) -> bool:
    try:
        return (last_step(run.place) if is_url(run.place) else Store(Path(run.place)).last()) >= run.steps
    except FormatError:
        raise
    except StoreError:
        return False
