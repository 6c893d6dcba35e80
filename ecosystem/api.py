"""Run and branch scenarios: plan, compute or resume the steps, and write the report.

:func:`run` and :func:`branch` are the Python counterparts of ``ecosystem run`` and ``ecosystem branch``.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import click

from ecosystem.cache import cache_folder
from ecosystem.calendar import Calendar
from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import DataError, EcosystemError, each_line, path_argument, path_of, whole_number
from ecosystem.families.base import CohortBuilder, build_cohort
from ecosystem.interpreter import require_docstrings
from ecosystem.metrics.estimates import error_of_mean
from ecosystem.notebook.run import Run
from ecosystem.placement.cohort import Placement
from ecosystem.placement.spec import PlacementSpec, chosen_placement
from ecosystem.placement.workers import Workers
from ecosystem.plugins import load_plugins
from ecosystem.runs.branch import Branch
from ecosystem.runs.callbacks.base import Callback, made
from ecosystem.runs.callbacks.notify import exit_at_sigterm, notified
from ecosystem.runs.callbacks.watch import Watch
from ecosystem.runs.environment import Machine, changed_error, changed_input, validate_device
from ecosystem.runs.execute import begin, machine_for
from ecosystem.runs.job import Job
from ecosystem.runs.planning.estimate import Plan
from ecosystem.runs.planning.memory import Resources, memory_budget, require_cpu, resources
from ecosystem.runs.progress import RunProgress, said_if_stopped
from ecosystem.runs.remote.places import local_folder, urls_in_errors
from ecosystem.runs.run import Run as StoredRun
from ecosystem.scenario.inputs import require_inputs
from ecosystem.scenario.presets import located
from ecosystem.scenario.scenario import Scenario


def run(
    scenario: Scenario | str | Path,
    seed: int | None = None,
    out: str | Path = "outputs",
    *,
    device: str = "auto",
    threads: int | None = None,
    cache: str | Path | None = None,
    fresh: bool = False,
    quiet: bool = True,
    placement: Mapping[str, Any] | None = None,
    memory: str | int | None = None,
    callbacks: Sequence[str | Callback] = (),
    plugins: Iterable[str | Path] = (),
) -> Run:
    """Run or resume a scenario, write its report and return the run.

    ``scenario`` is a Scenario, the path of a scenario file or the name of a bundled one, and ``seed`` replaces its
    seed. The run folder is made in ``out``, a folder or the URL of an object store (``s3://bucket/runs``). ``device``
    is "auto", "cpu", "cuda" or "mps"; ``threads`` is the number of compute threads (default: all cores, or those of the
    run that is resumed). ``cache`` is the folder for foundations and tokenizers (default: ``ECOSYSTEM_CACHE``, or the
    user's cache folder). ``fresh`` moves an existing run aside and starts again. ``quiet`` prints no progress.
    ``placement`` sets keys of the table of that name, such as ``{"engine": "ray", "workers": 4}``. ``memory`` is the
    memory for the run on CPUs, such as "4GB" (default: all): batches are computed in smaller parts to fit it, which the
    run records and a resume keeps.
    ``callbacks`` follow the run: names, such as "tensorboard", or objects
    (:class:`ecosystem.runs.callbacks.base.Callback`). ``plugins`` are Python files with kinds that a scenario file uses
    (:func:`ecosystem.load_plugin`).

    Raises EcosystemError for errors that the user can correct. Steps committed before an error are kept; the same call
    resumes after them.
    """
    load_plugins(plugins)
    base = Path()
    if not isinstance(scenario, Scenario):
        file = located(path_of(scenario, "Scenario"))
        base, scenario = file.parent, Scenario.load(file)
    if seed is not None:
        scenario = scenario.override({"seed": whole_number(seed, "seed")})
    progress = RunProgress(quiet=quiet)
    summary = run_scenario(
        scenario,
        progress,
        out=out,
        device=device,
        threads=threads,
        cache=cache,
        fresh=fresh,
        base=base,
        placement=chosen_placement(scenario.placement, dict(placement or {})),
        memory=memory_budget(memory),
        callbacks=callbacks,
    )
    with urls_in_errors(out):
        return Run.open(local_folder(summary["run"], weights=[summary["steps"]]))


def branch(
    parent: StoredRun | str | Path,
    step: int | str | date | None = None,
    values: Mapping[str, Any] | None = None,
    out: str | Path = "outputs",
    *,
    steps: int | None = None,
    name: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    cache: str | Path | None = None,
    fresh: bool = False,
    quiet: bool = True,
    callbacks: Sequence[str | Callback] = (),
    plugins: Iterable[str | Path] = (),
) -> Run:
    """Fork a stored run after ``step`` (default: the last), or resume such a branch; return the branch.

    ``parent`` is a Run or the path of its folder. ``step`` is a number or, with a calendar, a date (``"2024-03-01"``,
    ``"2024-03"``). ``values`` maps dotted paths to the values in force from the next
    step, as in a timed change (:meth:`Scenario.forked`). ``steps`` is the total number of steps, including those of the
    parent, and ``name`` that of the branch (default: the parent's). The other parameters are those of :func:`run`.
    Earlier steps are read from the parent's folder, which is never written to.

    Raises EcosystemError for errors that the user can correct.
    """
    load_plugins(plugins)
    parent = parent if isinstance(parent, StoredRun) else Run.open(path_of(parent, "Run", "folder"))
    steps = None if steps is None else whole_number(steps, "steps", 1)
    forked = Branch.of(parent, parent.last_step if step is None else step, values or {}, steps=steps, name=name)
    progress = RunProgress(quiet=quiet)
    summary = run_scenario(
        forked, progress, out=out, device=device, threads=threads, cache=cache, fresh=fresh, callbacks=callbacks
    )
    return Run.open(summary["run"])


def run_scenario(
    target: Scenario | Branch,
    progress: RunProgress,
    *,
    out: str | Path = "outputs",
    device: str = "auto",
    threads: int | None = None,
    cache: str | Path | None = None,
    dry_run: bool = False,
    fresh: bool = False,
    base: Path = Path(),
    where: str = "",
    placement: PlacementSpec | None = None,
    memory: int | None = None,
    callbacks: Sequence[str | Callback] = (),
    notify: str | None = None,
) -> dict[str, Any]:
    """Plan, run or resume, and report; return a summary with run, report, steps, seed, seconds, final and events.

    ``base`` is the folder for relative paths of a scenario; a branch uses its parent's. ``where`` is the file of the
    scenario, which begins messages about files that are missing. ``placement`` says which workers compute the models;
    None: this process. ``memory`` is a budget in bytes, of each worker if there are any. ``notify`` is a shell command
    to call at the end (:func:`~ecosystem.runs.callbacks.notify.notified`). With ``dry_run`` nothing is run, and the
    summary has run and plan only. The other parameters are those of :func:`run`.
    """
    started = time.monotonic()
    require_docstrings()
    validate_device(device, threads)
    if cache is not None:
        path_argument(cache, "cache")
    followers, scenario = made(callbacks), target.scenario if isinstance(target, Branch) else target
    ends = notified(None if dry_run else notify, {"name": scenario.name, "seed": scenario.seed})
    with ends as outcome, urls_in_errors(out), _file_in_errors(where):
        job = Job.of(target, out=out, cache=cache, fresh=fresh, base=base)
        outcome["run"] = job.place
        for sentence in [] if job.branch is None else job.branch.notes():
            progress.say(sentence)
        if dry_run:
            with _planned(job, progress, device, threads, cache, placement, memory) as planned:
                return {"run": job.place, "plan": planned.plan.plain()}
        with Watch(followers, job.scenario, job.folder, job.place, job.done) as watch:
            if job.last >= job.scenario.steps:
                summary = _finished(job, progress, started)
            else:
                with _planned(job, progress, device, threads, cache, placement, memory) as planned:
                    progress.say(job.opening())
                    _execute(job, planned.machine, progress, planned.builder, watch)
                watch.end("finished")
                summary = _summary(job, Run.open(job.folder), _report(job.folder), started)
        outcome |= {key: summary[key] for key in ("report", "steps")}
        return summary


@dataclass(frozen=True)
class _Planned:
    """The plan of a run, where it is computed, and what builds its models there."""

    plan: Plan
    machine: Machine
    builder: CohortBuilder


@contextmanager
def _planned(
    job: Job,
    progress: RunProgress,
    device: str,
    threads: int | None,
    cache: str | Path | None,
    placement: PlacementSpec | None,
    memory: int | None,
) -> Iterator[_Planned]:
    """Plan the missing steps of a run and print the plan; inside, its workers are there."""
    if job.branch is not None and job.last < 0:
        job.branch.parent.store.require(job.branch.step)
    require_inputs([job.scenario], job.base)
    machine = machine_for(job.folder, device, threads, job.branch, fresh=job.fresh, placement=placement)
    # Once more within: Ray replaces the handler of SIGTERM by one that aborts the process after three seconds.
    with _workers(job.scenario, machine, placement, progress) as workers, exit_at_sigterm():
        plan = Plan.of(job.scenario, machine, cache_folder(cache), job.base, done=job.done).placed(workers)
        plan = replace(plan, resources=_resources(job, machine, memory, workers))
        progress.say(plan.text())
        if plan.resources is not None:
            plan.resources.require()
            machine = replace(machine, parts=plan.resources.parts)
        yield _Planned(plan, machine, build_cohort if workers is None else Placement(workers).cohort)


@contextmanager
def _file_in_errors(where: str) -> Iterator[None]:
    """Begin errors of what a scenario names with the file of the scenario, if there is one."""
    try:
        yield
    except DataError as error:
        if where:
            error.args = (each_line(where, error),)
        raise


def _resources(job: Job, machine: Machine, memory: int | None, workers: Workers | None) -> Resources | None:
    """Estimate the memory and disk of a run; None on GPUs, whose memory is not estimated."""
    if machine.device != "cpu":
        if memory is not None:
            require_cpu(machine.device)
        return None
    return resources(
        job.scenario,
        job.folder,
        threads=machine.threads,
        base=job.base,
        budget=memory,
        done=job.done,
        parts=machine.parts if job.done >= 0 else None,
        workers=None if workers is None else workers.count,
    )


def _workers(
    scenario: Scenario, machine: Machine, placement: PlacementSpec | None, progress: RunProgress
) -> AbstractContextManager[Workers | None]:
    """Connect to the workers of a placement; None if there is none."""
    if placement is None:
        return nullcontext()
    if problem := placement.problem(scenario.models, scenario.placement):
        raise EcosystemError(problem)
    members = sum(trainer.count for trainer in scenario.trainers.values())
    return Workers(placement, machine.threads, members, progress.say, machine.device)


def _finished(job: Job, progress: RunProgress, started: float) -> dict[str, Any]:
    """Return the summary of a finished run; rewrite its report only if it is out of date."""
    run, report = Run.open(job.folder), job.folder / "report.html"
    if what := changed_input(run.environment, job.scenario, job.base):
        raise changed_error(run.path, what)
    record = run.store.owning_store(job.last).folder / "commits" / f"{job.last:06d}.json"
    current = report.exists() and report.stat().st_mtime_ns >= record.stat().st_mtime_ns
    if run.update_notes(job.scenario):
        current = False
        progress.say(
            "Its scenario.toml has the closed forms, licences and descriptions of the file now, and so another Merkle "
            "root; no result has changed."
        )
    if job.last > job.scenario.steps:
        progress.say(
            f"This run is finished: {job.place} has {job.last} steps, more than the {job.scenario.steps} asked for; "
            f"its report and final figures are of step {job.last} (give another --out for a shorter run)."
        )
    else:
        progress.say(f"This run is finished: {job.place} has all {job.last} steps (--fresh starts it again).")
    return _summary(job, run, str(report) if current else _report(job.folder), started)


def _execute(job: Job, machine: Machine, progress: RunProgress, builder: CohortBuilder, watch: Watch) -> None:
    """Run the missing steps; print a line for each and report it to callbacks."""
    done, steps = job.last, job.scenario.steps
    try:
        with progress:
            snapshots = begin(
                job.scenario,
                out=job.out,
                machine=machine,
                fresh=job.fresh,
                base=job.base,
                cache=job.cache,
                progress=progress.task,
                branch=job.branch,
                builder=builder,
                remote="" if job.mirror is None else job.place,
            )
            started = time.monotonic()
            for snapshot in _pushed(job, snapshots):
                done, seconds = snapshot.t, time.monotonic() - started
                line = step_line(snapshot, steps, seconds, job.scenario.calendar)
                progress.step(line, done, steps, seconds)
                for event in snapshot.state["events"]:
                    progress.say(f"  note: {event}")
                watch.step(snapshot)
                progress.steps(done, steps)
                started = time.monotonic()
    except (KeyboardInterrupt, SystemExit):  # the latter at SIGTERM
        committed = f"Steps up to {done} of {steps} are committed" if done >= 0 else "No step is committed yet"
        click.echo(f"Stopped. {committed}; run the same command again to continue.", err=True)
        raise


def _pushed(job: Job, snapshots: Generator[Snapshot, Any, None]) -> Iterator[Snapshot]:
    """Push every step, and at the end the site graph, before it is reported; unlock the folder even if that fails."""
    with closing(snapshots):
        for snapshot in snapshots:
            job.push()
            yield snapshot
    job.push()


def _report(folder: Path) -> str:
    from ecosystem.report import write_report

    with said_if_stopped("All steps are committed; run the same command again to write the report."):
        return str(write_report(Run.open(folder)))


def step_line(snapshot: Snapshot, steps: int, seconds: float, calendar: Calendar | None = None) -> str:
    """Return a line of key figures of a step, which took ``seconds``; with a calendar, it has the date."""
    figures = _figures(snapshot.metrics.filter(snapshot.metrics["step"] == snapshot.t))
    web = figures.pop("web", {})
    date = "" if calendar is None else f" {calendar.date_of(snapshot.t)}"
    parts = [f"step {snapshot.t:>{len(str(steps))}}/{steps}{date} {seconds:6.1f} s"]
    if "synthetic_share" in web:
        parts.append(f"web {web['synthetic_share']['value']:4.0%} synthetic")
    parts += [
        f"{name} {values['cross_entropy']['value']:.3f} nats/token"
        for name, values in figures.items()
        if "cross_entropy" in values
    ]
    return " | ".join(parts)


def _figures(metrics: Any) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return key figures of a step: those of the web, and means over the trainers of each population.

    The result maps "web" or a population to metrics, and these to value and standard error.
    """
    import polars as pl

    keys = ("cross_entropy", "perplexity", "bits_per_byte", "distinct_2", "synthetic_share")
    rows = metrics.filter(pl.col("scope").is_in(["trainer", "web"]) & pl.col("metric").is_in(keys))
    population = pl.col("id").str.split("/").list.first()
    rows = rows.with_columns(group=pl.when(pl.col("scope") == "web").then(pl.lit("web")).otherwise(population))
    means = rows.group_by("group", "metric", maintain_order=True).agg(
        pl.col("value").mean(),
        # Trainers are measured on the same held-out text, so averaging does not shrink the error of that sample: take
        # the larger of the mean error and the error from the spread over trainers.
        error=pl.max_horizontal(pl.col("error").mean(), error_of_mean("value").fill_null(0.0)),
    )
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    for group, metric, value, error in means.iter_rows():
        figures.setdefault(group, {})[metric] = {"value": value, "error": error}
    return figures


def _summary(job: Job, run: Run, report: str, started: float) -> dict[str, Any]:
    from ecosystem.report.data import RunReportData

    metrics = run.store.table("metrics")

    def dated(step: int) -> dict[str, str]:
        return {} if run.calendar is None else {"date": run.calendar.date_of(step).isoformat()}

    job.push_report()
    return {
        "run": job.place,
        "report": report if job.mirror is None else f"{job.place}/report.html",
        "steps": run.last_step,
        "seed": run.seed,
        "seconds": round(time.monotonic() - started, 1),
        "final": _figures(metrics.filter(metrics["step"] == run.last_step)),
        "profile": RunReportData.of(run).profile.to_dicts(),
        "events": [{"step": step, **dated(step), "event": event} for step, event in run.events],
    }
