"""Commands that make many runs and compare them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import click

from ecosystem.cli.options import (
    execution_options,
    print_result,
    read_values,
)


@click.command()
@click.argument("file", metavar="STUDY", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check every arm and list the runs only.")
@execution_options
def study(
    file: Path,
    dry_run: bool,
    settings: tuple[str, ...],
    seeds: int | None,
    out: str,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run every arm of a study with every seed and write the report, whose path is printed last.

    Finished runs are not run again; interrupted ones are resumed.
    """
    from ecosystem.studies.executors.options import ExecutionOptions
    from ecosystem.studies.progress import StudyProgress
    from ecosystem.studies.run_study import listing, run_study
    from ecosystem.studies.spec.study import Study

    spec = Study.load(file).with_settings(read_values(settings), seeds)
    if dry_run:
        click.echo(listing(spec, file.parent, out))
        return
    progress = StudyProgress(quiet=quiet, json=as_json)
    with interruptible():
        result = run_study(spec, file.parent, ExecutionOptions(**options), progress, out=out)
    print_result(result.summary() if as_json else result.report)


@click.command()
@click.argument("file", metavar="FRONTIER", type=click.Path(path_type=Path))
@execution_options
def threshold(
    file: Path, settings: tuple[str, ...], seeds: int | None, out: str, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Find the value of a lever at which a measure crosses a limit, with an interval (alias: frontier).

    FRONTIER is a frontier file. The path of the report is printed last.
    """
    from ecosystem.studies.executors.options import ExecutionOptions
    from ecosystem.studies.frontier import finding, run_frontier, summary, untrained_note
    from ecosystem.studies.progress import StudyProgress
    from ecosystem.studies.spec.frontier import Frontier

    spec = Frontier.load(file).with_settings(read_values(settings), seeds)
    progress = StudyProgress(quiet=quiet, json=as_json)
    with interruptible():
        result, report = run_frontier(spec, file.parent, ExecutionOptions(**options), progress, out=out)
    for sentence in filter(None, (finding(spec, result), untrained_note(spec, result))):
        progress.say(sentence)
    print_result(summary(spec, result) | {"report": str(report)} if as_json else report)


FRONTIER = copy(threshold)  # the same command under its former name
FRONTIER.hidden = True


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C break off work that has to put things away; say what becomes of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Stopped. What runs had committed stays; give the same command again to go on.", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
