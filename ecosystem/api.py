"""What ``ecosystem run`` and ``ecosystem branch`` do, from the plan to the report.

:func:`run` and :func:`branch` are the same for Python.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ecosystem.cache import cache_folder
from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import path_of
from ecosystem.metrics.estimates import error_of_mean
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine, validate_device
from ecosystem.runs.estimate import Plan
from ecosystem.runs.execute import begin, machine_for
from ecosystem.runs.progress import Display
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
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
) -> Run:
    """Run a scenario (a value or the path of a file), or resume it, write its report and return the run.

    ``cache`` is the folder of foundations and tokenizers (default: ``ECOSYSTEM_CACHE``, or this user's cache folder).
    Errors a user can mend are EcosystemError; what was committed before one stays and is resumed by the same call.
    """
    base = Path()
    if not isinstance(scenario, Scenario):
        file = path_of(scenario, "Scenario")
        base, scenario = file.parent, Scenario.load(file)
    if seed is not None:
        scenario = scenario.override({"seed": seed})
    display = Display(quiet=quiet)
    summary = run_scenario(
        scenario, display, out=out, device=device, threads=threads, cache=cache, fresh=fresh, base=base
    )
    return Run.open(summary["run"])


def branch(
    parent: Run | str | Path,
    step: int | None = None,
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
) -> Run:
    """Fork a stored run after ``step`` (default: its last) under other values, or resume that; return the branch.

    ``values`` are dotted paths as of a timed change (:meth:`Scenario.forked`), in force from the next step on. What
    came before is read in the parent's folder and never written there. ``cache`` is as in :func:`run`. Errors a
    user can mend are EcosystemError.
    """
    parent = parent if isinstance(parent, Run) else Run.open(parent)
    forked = Branch.of(parent, parent.last_step if step is None else step, values or {}, steps=steps, name=name)
    display = Display(quiet=quiet)
    summary = run_scenario(forked, display, out=out, device=device, threads=threads, cache=cache, fresh=fresh)
    return Run.open(summary["run"])


def run_scenario(
    target: Scenario | Branch,
    display: Display,
    *,
    out: str | Path = "outputs",
    device: str = "auto",
    threads: int | None = None,
    cache: str | Path | None = None,
    dry_run: bool = False,
    fresh: bool = False,
    base: Path = Path(),
) -> dict[str, Any]:
    """Plan, run or resume, and report; return a summary: run, report, steps, seconds and final figures.

    ``base`` is the folder that relative paths of a scenario begin from; a branch has its parent's.
    """
    started = time.monotonic()
    validate_device(device, threads)
    job = _Job.of(target, out=out, cache=cache, fresh=fresh, base=base)
    for sentence in [] if job.branch is None else job.branch.left_out():
        display.say(sentence)
    if job.last >= job.scenario.steps and not dry_run:
        return _finished(job, display, started)
    if job.branch is not None and job.last < 0:
        job.branch.parent.store.require(job.branch.step)
    machine = machine_for(job.folder, device, threads, job.branch, fresh=fresh)
    plan = Plan.of(job.scenario, machine, cache_folder(cache))
    display.say(plan.text())
    if dry_run:
        return {"run": str(job.folder), "plan": plan.plain()}
    display.say(job.opening())
    report = _execute(job, machine, display)
    return _summary(Run.open(job.folder), report, started)


@dataclass(frozen=True)
class _Job:
    """What is to be run, where, and how far it has got: ``last`` is the last committed step, -1 if there is none."""

    scenario: Scenario
    branch: Branch | None
    folder: Path
    last: int
    out: str | Path
    base: Path
    cache: str | Path | None
    fresh: bool

    @classmethod
    def of(
        cls, target: Scenario | Branch, *, out: str | Path, cache: str | Path | None, fresh: bool, base: Path
    ) -> _Job:
        branch = target if isinstance(target, Branch) else None
        scenario = target.scenario if isinstance(target, Branch) else target
        folder = folder_of(scenario, out) if branch is None else branch.folder(out)
        last = -1 if fresh else Store(folder).last()
        return cls(scenario, branch, folder, last, out, base if branch is None else branch.parent.base, cache, fresh)

    def opening(self) -> str:
        """Say where the run is, and whether it is resumed or branches off."""
        if self.last >= 0:
            return f"Resuming {self.folder} after step {self.last} of {self.scenario.steps}."
        if self.branch is None:
            return f"Run folder: {self.folder}"
        parent, step = self.branch.parent.path, self.branch.step
        return f"Branching off {parent} after step {step} of {self.scenario.steps}: {self.folder}"


def _finished(job: _Job, display: Display, started: float) -> dict[str, Any]:
    """Return the summary of a run that has all its steps; its report is written again only where it is out of date."""
    run, report = Run.open(job.folder), job.folder / "report.html"
    record = run.store.owning_store(job.last).folder / "commits" / f"{job.last:06d}.json"
    current = report.exists() and report.stat().st_mtime_ns >= record.stat().st_mtime_ns
    current = not run.update_theory(job.scenario) and current
    display.say(f"This run is finished: {job.folder} has all {job.scenario.steps} steps (--fresh begins it anew).")
    return _summary(run, str(report) if current else _report(job.folder), started)


def _execute(job: _Job, machine: Machine, display: Display) -> str:
    """Run the steps that are missing, telling of each, and return the path of the report."""
    done, steps = job.last, job.scenario.steps
    try:
        with display:
            snapshots = begin(
                job.scenario,
                out=job.out,
                machine=machine,
                fresh=job.fresh,
                base=job.base,
                cache=job.cache,
                progress=display.progress,
                branch=job.branch,
            )
            started = time.monotonic()
            for snapshot in snapshots:
                done = snapshot.t
                display.say(step_line(snapshot, steps, time.monotonic() - started))
                for event in snapshot.state["events"]:
                    display.say(f"  note: {event}")
                display.steps(done, steps)
                started = time.monotonic()
        return _report(job.folder)
    except KeyboardInterrupt:
        committed = f"Steps up to {done} of {steps} are committed" if done >= 0 else "Nothing is committed yet"
        click.echo(f"Stopped. {committed}; give the same command again to go on.", err=True)
        raise


def _report(folder: Path) -> str:
    from ecosystem.report import write_report

    return str(write_report(Run.open(folder)))


def step_line(snapshot: Snapshot, steps: int, seconds: float) -> str:
    """Return one line of key figures for a step."""
    figures = _figures(snapshot.metrics.filter(snapshot.metrics["step"] == snapshot.t))
    web = figures.pop("web", {})
    parts = [f"step {snapshot.t:>{len(str(steps))}}/{steps} {seconds:6.1f} s"]
    if "synthetic_share" in web:
        parts.append(f"web {web['synthetic_share']['value']:4.0%} synthetic")
    parts += [
        f"{name} {values['cross_entropy']['value']:.3f} nats/token"
        for name, values in figures.items()
        if "cross_entropy" in values
    ]
    return " | ".join(parts)


def _figures(metrics: Any) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the key figures of a step's metrics: the web's, and each population's mean over its trainers."""
    import polars as pl

    keys = ("cross_entropy", "perplexity", "bits_per_byte", "distinct_2", "synthetic_share")
    wanted = metrics.filter(pl.col("scope").is_in(["trainer", "web"]) & pl.col("metric").is_in(keys))
    named = wanted.with_columns(
        who=pl.when(pl.col("scope") == "web").then(pl.lit("web")).otherwise(pl.col("id").str.split("/").list.first())
    )
    means = named.group_by("who", "metric", maintain_order=True).agg(
        pl.col("value").mean(),
        # Over the members of a population, whose estimates share the held-out text; the larger of the two errors.
        error=pl.max_horizontal(pl.col("error").mean(), error_of_mean("value").fill_null(0.0)),
    )
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    for who, metric, value, error in means.iter_rows():
        figures.setdefault(who, {})[metric] = {"value": value, "error": error}
    return figures


def _summary(run: Run, report: str, started: float) -> dict[str, Any]:
    metrics = run.metrics
    return {
        "run": str(run.path),
        "report": report,
        "steps": run.last_step,
        "seed": run.seed,
        "seconds": round(time.monotonic() - started, 1),
        "final": _figures(metrics.filter(metrics["step"] == run.last_step)),
        "events": [{"step": step, "event": event} for step, event in run.events],
    }
