"""Commands about several runs: one scenario over seeds, comparisons, and disk space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ecosystem.cli.options import JSON, Place, local_only, print_result

_MOST_SEEDS = 10_000


def seeds_of(text: str) -> list[int]:
    """Return the seeds that ``1-8``, ``1,3,5`` or ``1-3,7`` names; raise EcosystemError for another form."""
    from ecosystem.errors import EcosystemError

    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.strip().isdecimal()):
            raise EcosystemError(f'--seeds "{text}": write 1-8, or 1,3,5, or both, such as 1-3,7.')
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise EcosystemError(f'--seeds "{text}": give the smaller seed first, {high}-{low}.')
        if high - low >= _MOST_SEEDS:
            raise EcosystemError(f'--seeds "{text}": give at most {_MOST_SEEDS:,} seeds.')
        seeds += range(low, high + 1)
    if len(set(seeds)) < len(seeds):
        raise EcosystemError(f'--seeds "{text}": a seed is repeated; equal seeds give equal runs.')
    return seeds


def run_seeds(
    run_one: Callable[[int], dict[str, Any]], seeds: list[int], out: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run a scenario with every seed and write one report over them; return a summary."""
    from ecosystem.report.over_seeds import folder_over_seeds
    from ecosystem.runs.run import Run
    from ecosystem.studies.comparison.groups import Group
    from ecosystem.studies.comparison.page import Comparison, write

    summaries = []
    for number, seed in enumerate(seeds, 1):
        say(f"seed {seed} ({number} of {len(seeds)})")
        summaries.append(run_one(seed))
    runs = tuple(Run.open(summary["run"]) for summary in summaries)
    scenario = runs[0].scenario
    comparison = Comparison.of([Group(scenario.name, runs)])
    folder = folder_over_seeds(out / f"{scenario.name}-{scenario.fingerprint()}")
    report = write(comparison, folder, scenario.name)
    say(comparison.text())
    return {"report": str(report), "runs": [summary["run"] for summary in summaries], **comparison.plain()}


def holds_seeds(place: Path) -> bool:
    """Return whether a folder is no run, but holds those of a scenario, one for each seed."""
    inside = (file.parent.name for file in place.glob("*/scenario.toml"))
    return not (place / "scenario.toml").exists() and any(name.isdecimal() for name in inside)


def report_over_seeds(place: Path) -> Path:
    """Write the report over all seeds in the folder of a scenario, ``OUT/NAME-HASH``; return the path of the page."""
    from ecosystem.errors import EcosystemError
    from ecosystem.report.over_seeds import folder_over_seeds
    from ecosystem.studies.comparison.groups import groups_of, open_runs
    from ecosystem.studies.comparison.page import Comparison, write

    runs = open_runs([place])
    for run in runs:
        run.verify_tables()
    groups = groups_of(runs)
    if len(groups) > 1:
        names = ", ".join(str(group.runs[0].path) for group in groups)
        raise EcosystemError(f"{place}: holds runs of several scenarios ({names}); name the folder of one.")
    return write(Comparison.of(groups), folder_over_seeds(place), groups[0].scenario.name)


@click.command()
@click.argument("places", metavar="RUN RUN…", nargs=-1, required=True, type=Place(), callback=local_only)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("outputs/comparisons"),
    show_default=True,
    help="Folder for the page and its tables.",
)
@JSON
def compare(places: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Compare stored runs.

    Settings that differ are listed, and differences of every metric at the last common step to the first run given.
    Runs of one scenario with several seeds form a group; a folder that holds them stands for all. Differences are
    paired by common seeds. The path of the page, with charts and tables, is printed last.

    Example: ecosystem compare outputs/naive-0123456789ab outputs/filtered-ba9876543210
    """
    import hashlib

    from ecosystem.errors import EcosystemError
    from ecosystem.runs.files import require_local_path
    from ecosystem.studies.comparison.groups import groups_of, open_runs
    from ecosystem.studies.comparison.page import Comparison, write

    runs = open_runs(places)
    if len(runs) < 2:
        raise EcosystemError(f"{places[0]}: give two or more runs to compare.")
    groups = groups_of(runs)
    comparison = Comparison.of(groups)
    names = " and ".join(group.name for group in groups)
    key = hashlib.sha256("\n".join(str(run.path.resolve()) for run in runs).encode()).hexdigest()[:12]
    page = write(comparison, require_local_path(out) / key, names)
    if as_json:
        print_result(comparison.plain() | {"report": str(page)})
        return
    click.echo(comparison.text())
    click.echo(page)


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), default=Path("outputs"))
@click.option("--runs", "whole", is_flag=True, help="Delete whole finished runs, not only models of past steps.")
@click.option("--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS", help="Leave newer runs alone.")
@click.option("--dry-run", is_flag=True, help="List what would be deleted; delete nothing.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@JSON
def prune(out: Path, whole: bool, days: float | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete what stored runs no longer need.

    OUT is the folder of runs (default: outputs). By default, the models of past steps of finished runs are deleted;
    documents, metrics, reports and the last models stay. With --runs, whole finished runs are deleted. What a branch
    needs, unfinished runs and runs at work stay. What is found is listed first, and nothing is deleted without a yes.

    Example: ecosystem prune --older-than 30 --dry-run
    """
    import time

    from ecosystem.errors import EcosystemError
    from ecosystem.formats import format_bytes
    from ecosystem.runs.files import require_local_path
    from ecosystem.runs.space import delete, prunable, stored_runs

    if not require_local_path(out).is_dir():
        raise EcosystemError(f"{out}: is no folder of runs; give the folder that runs were written to with --out.")
    before = None if days is None else time.time() - days * 86_400
    parts, kept = prunable(stored_runs(out), whole=whole, before=before)
    total = sum(part.size for part in parts)
    for line in [*(f"{part.folder}: {part.what}, {format_bytes(part.size)}" for part in parts), *kept]:
        click.echo(line, err=as_json)
    listed = [{"run": str(part.folder), "what": part.what, "bytes": part.size} for part in parts]
    found = {"freed": 0, "bytes": total, "parts": listed}
    if not parts or dry_run:
        print_result(found if as_json else f"{format_bytes(total)} would be free.")
        return
    if not yes:
        click.confirm(f"Delete {format_bytes(total)} for good?", abort=True, err=True)
    for part in parts:
        delete(part)
    print_result(found | {"freed": total} if as_json else f"{format_bytes(total)} deleted.")
