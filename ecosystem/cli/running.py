"""Commands that run, check, report and view scenarios and runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ecosystem.cli.comparing import holds_seeds, report_over_seeds, run_seeds, seeds_of
from ecosystem.cli.options import (
    CACHE,
    DEVICE,
    DRY_RUN,
    MEMORY,
    OUT,
    OUT_OR_URL,
    QUIET,
    SCENARIO,
    SEED,
    SET,
    STEPS,
    SUMMARY,
    VARIANT,
    Place,
    ScenarioPlace,
    following_options,
    local_only,
    placement_options,
    print_result,
    read_scenario,
    read_values,
    run_folder,
)


@click.command()
@SCENARIO
@VARIANT
@SET
@SEED
@click.option("--seeds", "seed_list", metavar="SEEDS", help="Several seeds, such as 1-8 or 1,3,5; one report.")
@STEPS
@OUT_OR_URL
@DEVICE
@click.option(
    "--threads", type=click.IntRange(min=1), help="Compute threads (default: all cores; a resumed run keeps its own)."
)
@MEMORY
@CACHE
@placement_options
@following_options
@DRY_RUN
@SUMMARY
@QUIET
@click.option("--fresh", is_flag=True, help="Start again; an existing run is moved aside, not deleted.")
def run(
    scenario: Path,
    variant: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    seed_list: str | None,
    steps: int | None,
    out: Path | str,
    device: str,
    threads: int | None,
    memory: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    fresh: bool,
    callbacks: tuple[str, ...],
    notify: str | None,
    **placement: Any,
) -> None:
    """Run or resume a scenario and write its report.

    SCENARIO is a file, or the name of one that comes with ecosystem (finite_web). An interrupted run continues after
    its last committed step. The path of the report is printed last. With --seeds, the scenario is run with every seed,
    and the report printed last has means and 95 % intervals over seeds.

    Example: ecosystem run finite_web --set models.small.preset=trigram --seeds 1-8
    """
    from ecosystem.errors import EcosystemError
    from ecosystem.placement.spec import chosen_placement
    from ecosystem.runs.planning.memory import memory_budget
    from ecosystem.runs.progress import RunProgress

    if seed_list is not None and (seed is not None or not isinstance(out, Path)):
        reason = "give --seed or --seeds, not both" if seed is not None else "several seeds need a local --out"
        raise EcosystemError(f"--seeds {seed_list}: {reason}.")
    seeds = None if seed_list is None else seeds_of(seed_list)
    spec = read_scenario(scenario, variant, settings, seed if seeds is None else seeds[0], steps)
    placed, budget = chosen_placement(spec.placement, placement), memory_budget(memory)
    progress = RunProgress(quiet=quiet, json=as_json)
    from ecosystem.api import run_scenario  # slow, so only once the scenario is valid

    def run_one(seed: int) -> dict[str, Any]:
        return run_scenario(
            spec.override({"seed": seed}) if seed != spec.seed else spec,
            progress if seeds is None else RunProgress(quiet=quiet, json=as_json),
            out=out,
            device=device,
            threads=threads,
            dry_run=dry_run,
            fresh=fresh,
            base=scenario.parent,
            where=str(scenario),
            placement=placed,
            memory=budget,
            callbacks=callbacks,
            notify=notify,
        )

    if seeds is None or dry_run:
        summary = run_one(spec.seed)
    else:
        summary = run_seeds(run_one, seeds, Path(out), progress.say)
    print_result(summary if as_json else summary.get("report"))


@click.command()
@click.argument("place", metavar="RUN@STEP", callback=local_only)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Value in force from the next step, as in a timed change; repeatable.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Total number of steps, including the parent's (default: the parent's)."
)
@click.option("--name", help="Name of the branch (default: the parent's).")
@OUT
@MEMORY
@CACHE
@placement_options
@following_options
@DRY_RUN
@SUMMARY
@QUIET
@click.option("--fresh", is_flag=True, help="Start again; an existing branch is moved aside, not deleted.")
def branch(
    place: str,
    settings: tuple[str, ...],
    steps: int | None,
    name: str | None,
    out: Path,
    memory: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    fresh: bool,
    callbacks: tuple[str, ...],
    notify: str | None,
    **placement: Any,
) -> None:
    """Fork a stored run after a step, or resume a branch.

    RUN@STEP is a run folder and a committed step, such as outputs/smoke-0123456789ab/1@6 (default: the last step);
    with a calendar also its date, such as RUN@2024-03-01 or RUN@2024-03.
    Earlier steps are read from the parent's folder and not copied. A branch uses the device and threads of its parent.
    The path of the report is printed last.
    """
    from ecosystem.api import run_scenario
    from ecosystem.errors import ScenarioError
    from ecosystem.input_files import is_folder
    from ecosystem.placement.spec import chosen_placement
    from ecosystem.runs.branch import Branch
    from ecosystem.runs.planning.memory import memory_budget
    from ecosystem.runs.progress import RunProgress
    from ecosystem.runs.run import Run

    folder, at, step = (place, "", "") if is_folder(Path(place)) else place.rpartition("@")
    if at and not step[:1].isdecimal():
        raise ScenarioError(f"{place}: write it as RUN@STEP, for instance {folder}@6.")
    parent = Run.open(folder if at else place)
    chosen = parent.last_step if not at else int(step) if step.isdecimal() else step
    forked = Branch.of(parent, chosen, read_values(settings), steps=steps, name=name)
    progress = RunProgress(quiet=quiet, json=as_json)
    placed, budget = chosen_placement(None, placement), memory_budget(memory)
    summary = run_scenario(
        forked,
        progress,
        out=out,
        dry_run=dry_run,
        fresh=fresh,
        placement=placed,
        memory=budget,
        callbacks=callbacks,
        notify=notify,
    )
    print_result(summary if as_json else summary.get("report"))


@click.command()
@click.option("--check", "names", multiple=True, metavar="NAME", help="Run this validation scenario only; repeatable.")
@click.option("--replicates", type=click.IntRange(min=10), help="Trainers per population (default: the scenario's).")
@click.option("--seed", type=click.IntRange(min=0), help="Random seed (default: the scenario's).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("outputs/validation"),
    show_default=True,
    help="Folder for the table of checks (Parquet and HTML).",
)
@CACHE
def validate(names: tuple[str, ...], replicates: int | None, seed: int | None, out: Path) -> None:
    """Check the simulation against closed forms.

    The exit code is 1 if any result differs from its closed form by more than 4 standard errors.
    """
    from ecosystem.runs.files import require_local_path
    from ecosystem.validation import validate as checks

    require_local_path(out)
    results = checks.validate(names, seed=seed, replicates=replicates)
    click.echo(checks.text(results))
    click.echo(checks.write(results, out))
    if not all(check.passed for check in results):
        sys.exit(1)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=Place())
def report(runs: tuple[Path | str, ...]) -> None:
    """Rewrite the reports of runs.

    The runs may be unfinished, and in an object store (RUNS are folders or URLs). All tables of a run are compared with
    their recorded hashes first. For a folder that holds the seeds of one scenario (OUT/NAME-FINGERPRINT), the report
    over its seeds is written, to OUT/seeds. The path of each report is printed.
    """
    from ecosystem.report import write_report
    from ecosystem.runs.run import Run

    for place in runs:
        if isinstance(place, Path) and holds_seeds(place):
            click.echo(report_over_seeds(place))
            continue
        run = Run.open(run_folder(place))
        run.verify_tables()
        written = write_report(run)
        if isinstance(place, str):
            from ecosystem.runs.remote.places import upload_report

            upload_report(run.path, place)
        click.echo(written if isinstance(place, Path) else f"{place.rstrip('/')}/report.html")


@click.command()
@click.argument(
    "places",
    metavar="SCENARIO | RUN [RUN]",
    nargs=-1,
    type=ScenarioPlace(runs=True),
    callback=local_only,
)
@VARIANT
@SET
@SEED
@STEPS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("outputs"),
    show_default=True,
    help="Folder for live runs that are kept.",
)
@DEVICE
@click.option("--threads", type=click.IntRange(min=1), help="Compute threads (default: all cores).")
@CACHE
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any other than the default may expose the page to other machines.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0 selects a free one.",
)
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
@click.option("--embed", is_flag=True, help="Let notebooks of this machine show the page in a frame (ecosystem.view).")
@click.option(
    "--advance", type=click.IntRange(min=0), default=0, help="Steps that a live world makes as soon as it has opened."
)
@click.option("--teach", is_flag=True, help="Show the stories for a class on model collapse.")
@click.option(
    "--story",
    "own",
    metavar="NAME|FILE",
    multiple=True,
    help="Show this story: one that comes with ecosystem or a file of your own; repeatable.",
)
def view(
    places: tuple[Path, ...],
    variant: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    steps: int | None,
    out: Path,
    device: str,
    threads: int | None,
    host: str,
    port: int,
    no_browser: bool,
    embed: bool,
    advance: int,
    teach: bool,
    own: tuple[str, ...],
) -> None:
    """Open the interactive page.

    A scenario is shown as a live world, a run folder step by step, and two run folders side by side. --variant, --set,
    --seed and --steps apply to scenarios only. --teach leads a class through worlds of its own, scene by scene.
    """
    import webbrowser

    from ecosystem.app.server import serve
    from ecosystem.app.worlds.session_model import SessionConfig
    from ecosystem.placement.spec import IGNORED_BY_PAGE
    from ecosystem.runs.environment import Machine
    from ecosystem.runs.files import require_local_path
    from ecosystem.runs.run import Run

    require_local_path(out)
    changed = bool(settings or variant or seed is not None or steps is not None or advance)
    live = _live(places, changed, teach or bool(own))
    stories: tuple[Any, ...] = ()
    if teach or own:
        from ecosystem.app.teaching.story import load, shipped

        stories = tuple(map(load, [*(shipped() if teach else ()), *own]))
    spec = read_scenario(places[0], variant, settings, seed, steps) if live else None
    if spec is not None and spec.placement is not None:
        click.echo(f"note: {IGNORED_BY_PAGE}.", err=True)
    for place in places if not live else ():
        _ = Run.open(place).scenario
    base = places[0].parent if live else Path()
    machine = Machine.choose(device, threads)
    config = SessionConfig(places if not live else (), spec, base, machine, out, advance, stories)

    def ready(address: str) -> None:
        click.echo(f"{address}  (Ctrl-C to quit)")
        if not no_browser:
            webbrowser.open(address)

    serve(config, host, port, ready, embed=embed)


def _live(places: Sequence[Path], settings: bool, teaching: bool) -> list[Path]:
    """Return the scenarios among the places of a page; raise ScenarioError if it cannot show all that was given."""
    from ecosystem.errors import ScenarioError
    from ecosystem.input_files import is_folder

    if teaching and (places or settings):
        raise ScenarioError("--teach and --story: stories have worlds of their own; give no scenario, run or setting.")
    if not teaching and not places:
        raise ScenarioError("give a scenario, a run folder, two to compare, or --teach for the stories.")
    live = [place for place in places if not is_folder(place)]
    if live and len(places) > 1:
        names = " ".join(map(str, places))
        raise ScenarioError(f"{names}: give one scenario file, one run folder, or two run folders to compare.")
    if not live and len(places) > 2:
        raise ScenarioError(f"{len(places)} run folders: at most two can be compared.")
    if not live and settings and places:
        raise ScenarioError(
            f"{places[0]}: --set, --variant, --seed, --steps and --advance apply to scenarios, not to stored runs."
        )
    return live
