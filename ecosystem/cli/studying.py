"""Commands that execute many runs and compare them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import click

from ecosystem.cli.options import (
    ScenarioPlace,
    execution_options,
    many_runs_options,
    print_result,
    read_values,
)


@click.command()
@click.argument("file", metavar="STUDY", type=ScenarioPlace(prefer="studies"))
@click.option("--dry-run", is_flag=True, help="Validate every arm and list its runs; run nothing.")
@execution_options
def study(
    file: Path,
    dry_run: bool,
    settings: tuple[str, ...],
    seeds: int | None,
    out: str,
    as_json: bool,
    quiet: bool,
    notify: str | None,
    **options: Any,
) -> None:
    """Run a study and write its report.

    STUDY is a study file. Every arm is run with every seed. Finished runs are reused, and interrupted ones resumed. The
    path of the report is printed last. The exit code is 1 if any run failed.
    """
    from ecosystem.runs.callbacks.notify import notified
    from ecosystem.studies.executors.options import ExecutionOptions
    from ecosystem.studies.progress import StudyProgress
    from ecosystem.studies.run_study import listing, planned, run_study
    from ecosystem.studies.spec.study import Study

    spec, execution = Study.load(file).with_settings(read_values(settings), seeds), ExecutionOptions(**options)
    if dry_run:
        cells = planned(spec, file.parent, out)
        print_result({"cells": cells} if as_json else listing(cells))
        return
    progress = StudyProgress(quiet=quiet, json=as_json)
    with notified(notify, {"name": spec.name}) as outcome, interruptible():
        result = run_study(spec, file.parent, execution, progress, out=out)
        outcome["report"] = result.report
        if failed := len(result.summary()["failed"]):
            outcome |= {"outcome": "failed", "message": f"{failed} of the runs failed"}
    print_result(result.summary() if as_json else result.report)
    if result.summary()["failed"]:
        sys.exit(1)


@click.command()
@click.argument("file", metavar="FRONTIER", type=ScenarioPlace(prefer="studies"))
@click.option("--dry-run", is_flag=True, help="Validate both ends of the range, and list their runs; run nothing.")
@execution_options
def threshold(
    file: Path,
    dry_run: bool,
    settings: tuple[str, ...],
    seeds: int | None,
    out: str,
    as_json: bool,
    quiet: bool,
    notify: str | None,
    **options: Any,
) -> None:
    """Find where a measure crosses a limit.

    FRONTIER is a frontier file, which names the lever, the measure and the limit. The value of the lever at the
    crossing is reported with an interval. The path of the report is printed last. `ecosystem frontier` is an alias.
    """
    from ecosystem.runs.callbacks.notify import notified
    from ecosystem.studies.executors.options import ExecutionOptions
    from ecosystem.studies.frontier import planned_search, run_frontier
    from ecosystem.studies.frontier_result import finding, notes
    from ecosystem.studies.progress import StudyProgress
    from ecosystem.studies.run_study import listing
    from ecosystem.studies.spec.frontier import Frontier

    spec = Frontier.load(file).with_settings(read_values(settings), seeds).resolved(file.parent)
    execution = ExecutionOptions(**options)
    if dry_run:
        cells, most = planned_search(spec, file.parent, out)
        whole = f"\nOnly whole numbers of {spec.path} are tried." if spec.range.whole else ""
        text = f"{listing(cells)} at the ends of the range; the search needs {most} at most{whole}"
        print_result({"cells": cells, "most_runs": most} if as_json else text)
        return
    progress = StudyProgress(quiet=quiet, json=as_json)
    with notified(notify, {"name": spec.name}) as outcome, interruptible():
        result = run_frontier(spec, file.parent, execution, progress, out=out)
        outcome["report"] = result.report
    for sentence in [finding(spec, result.threshold), *notes(spec, result.threshold)]:
        progress.say(sentence)
    print_result(result.summary() if as_json else result.report)


@click.command()
@click.argument("file", metavar="FIT", type=ScenarioPlace(prefer="fits"))
@click.option("--dry-run", is_flag=True, help="Validate the fit and list its targets and runs; run nothing.")
@click.option("--trials", type=click.IntRange(min=8), help="Points that are tried (default: those of the file).")
@click.option("--replicates", type=click.IntRange(min=1), help="Runs at a point (default: those of the file).")
@click.option("--fresh", is_flag=True, help="Move the runs and the results of this fit aside first, and run all again.")
@many_runs_options
def fit(
    file: Path,
    dry_run: bool,
    trials: int | None,
    replicates: int | None,
    fresh: bool,
    settings: tuple[str, ...],
    out: str,
    as_json: bool,
    quiet: bool,
    notify: str | None,
    **options: Any,
) -> None:
    """Fit parameters of a scenario to measurements.

    FIT is a fit file, which names the scenario, its uncertain parameters with their priors, and the targets. Finished
    runs are reused, and interrupted ones resumed. Posterior samples, the fitted scenario and a report are written. The
    path of the report is printed last.
    """
    from ecosystem.fitting.run_fit import plan_text, planned, run_fit
    from ecosystem.fitting.spec.fit import Fit
    from ecosystem.runs.callbacks.notify import notified
    from ecosystem.studies.executors.options import ExecutionOptions
    from ecosystem.studies.progress import StudyProgress

    spec = Fit.load(file).with_settings(read_values(settings), trials, replicates)
    execution = ExecutionOptions(**options)
    if dry_run:
        plan = planned(spec, file.parent)
        print_result(plan if as_json else plan_text(plan))
        return
    progress = StudyProgress(quiet=quiet, json=as_json)
    with notified(notify, {"name": spec.name}) as outcome, interruptible():
        result = run_fit(spec, file.parent, execution, progress, out=out, fresh=fresh)
        outcome["report"] = result.report
    print_result(result.summary() if as_json else result.report)


FRONTIER = copy(threshold)  # the former name of the command
FRONTIER.hidden = True


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, so that work can clean up, and print how to continue."""
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # the latter at SIGTERM
        click.echo("Stopped. Committed steps are kept; run the same command again to continue.", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, previous_handler)
