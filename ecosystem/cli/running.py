"""Commands that run, check and look at scenarios."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ecosystem.cli.options import (
    CACHE,
    DEVICE,
    DRY_RUN,
    OUT,
    QUIET,
    SCENARIO,
    SEED,
    SET,
    STEPS,
    SUMMARY,
    VARIANT,
    print_result,
    read_scenario,
    read_values,
)


@click.command()
@SCENARIO
@VARIANT
@SET
@SEED
@STEPS
@OUT
@DEVICE
@click.option(
    "--threads", type=click.IntRange(min=1), help="Compute threads (default: all cores; a resumed run keeps its own)."
)
@CACHE
@DRY_RUN
@SUMMARY
@QUIET
@click.option("--fresh", is_flag=True, help="Begin anew; an earlier run in the same place is set aside, not deleted.")
def run(
    scenario: Path,
    variant: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    steps: int | None,
    out: Path,
    device: str,
    threads: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    fresh: bool,
) -> None:
    """Run a scenario (or resume it) and write its report; the path of the report is printed last."""
    from ecosystem.runs.progress import Display

    spec = read_scenario(scenario, variant, settings, seed, steps)
    display = Display(quiet=quiet, json=as_json)
    from ecosystem.api import run_scenario  # after the scenario has been checked: this import is slow

    summary = run_scenario(
        spec, display, out=out, device=device, threads=threads, dry_run=dry_run, fresh=fresh, base=scenario.parent
    )
    print_result(summary if as_json else summary.get("report"))


@click.command()
@click.argument("place", metavar="RUN@STEP")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="What differs from the next step on, as in a timed change; repeatable.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Number of steps, the parent's counted (default: its own).")
@click.option("--name", help="Name of the branch (default: the parent's).")
@OUT
@CACHE
@DRY_RUN
@SUMMARY
@QUIET
@click.option(
    "--fresh", is_flag=True, help="Begin anew; an earlier branch in the same place is set aside, not deleted."
)
def branch(
    place: str,
    settings: tuple[str, ...],
    steps: int | None,
    name: str | None,
    out: Path,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    fresh: bool,
) -> None:
    """Fork a stored run after a committed step (default: the last) under another policy, or resume that branch.

    Nothing is copied: what came before is read in the run's own folder. Device and threads are the run's.
    """
    from ecosystem.api import run_scenario
    from ecosystem.errors import ScenarioError
    from ecosystem.runs.branch import Branch
    from ecosystem.runs.progress import Display
    from ecosystem.runs.run import Run

    folder, at, step = (place, "", "") if Path(place).is_dir() else place.rpartition("@")
    if at and not step.isdecimal():
        raise ScenarioError(f"{place}: write it as RUN@STEP, for instance {folder}@6.")
    parent = Run.open(folder if at else place)
    forked = Branch.of(parent, int(step) if at else parent.last_step, read_values(settings), steps=steps, name=name)
    display = Display(quiet=quiet, json=as_json)
    summary = run_scenario(forked, display, out=out, dry_run=dry_run, fresh=fresh)
    print_result(summary if as_json else summary.get("report"))


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@VARIANT
@SET
def check(files: tuple[Path, ...], variant: str | None, settings: tuple[str, ...]) -> None:
    """Validate scenarios, studies and frontiers without running them; of run folders, every file against its hash."""
    from ecosystem.errors import EcosystemError
    from ecosystem.scenario.consistency import unused_settings
    from ecosystem.scenario.presets import read_toml
    from ecosystem.studies.spec.frontier import Frontier
    from ecosystem.studies.spec.question import file_kind
    from ecosystem.studies.spec.study import Study

    problems = []
    for file in files:
        try:
            if file.is_dir():
                from ecosystem.runs.run import Run

                stored = Run.open(file)
                whole = stored.verify()
                click.echo(f"{file}: good (steps 0 to {stored.last_step}, {whole} files as they were committed)")
                continue
            kind = file_kind(read_toml(file))
            if kind != "scenario":
                summary, scenarios = (Study if kind == "study" else Frontier).load(file).check(file.parent)
                click.echo(f"{file}: good ({summary})")
                for note in dict.fromkeys(note for spec in scenarios for note in unused_settings(spec)):
                    click.echo(f"{file}: note: {note}")
                continue
            spec = read_scenario(file, variant, settings, None, None)
            click.echo(f"{file}: good ({spec.steps} steps, {sum(t.count for t in spec.trainers.values())} trainers)")
            for note in unused_settings(spec):
                click.echo(f"{file}: note: {note}")
        except EcosystemError as error:
            problems.append(str(error))
    if problems:
        raise EcosystemError("\n".join(problems))


@click.command()
@click.option("--check", "names", multiple=True, metavar="NAME", help="Only this validation scenario; repeatable.")
@click.option(
    "--replicates", type=click.IntRange(min=10), help="Trainers of every population (default: the scenario's)."
)
@click.option("--seed", type=click.IntRange(min=0), help="Another seed must pass as well.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("outputs/validation"),
    show_default=True,
    help="Folder for the table of checks, as Parquet and as a page.",
)
@CACHE
def validate(names: tuple[str, ...], replicates: int | None, seed: int | None, out: Path) -> None:
    """Check the simulation against closed forms; exits with 1 if any differs by more than 4 standard errors."""
    from ecosystem.runs.files import require_local_path
    from ecosystem.validation import validate as checks

    require_local_path(out)
    found = checks.validate(names, seed=seed, replicates=replicates)
    click.echo(checks.text(found))
    click.echo(checks.write(found, out))
    if not all(check.passed for check in found):
        sys.exit(1)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
def report(runs: tuple[Path, ...]) -> None:
    """Write (again) the report of finished or unfinished runs and print where each is."""
    from ecosystem.report import write_report
    from ecosystem.runs.run import Run

    for folder in runs:
        click.echo(write_report(Run.open(folder)))


@click.command()
@click.argument("places", metavar="SCENARIO | RUN [RUN]", nargs=-1, required=True, type=click.Path(path_type=Path))
@VARIANT
@SET
@SEED
@STEPS
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs"), help="Folder for worlds that are kept."
)
@DEVICE
@click.option("--threads", type=click.IntRange(min=1), help="Compute threads (default: all cores).")
@CACHE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others may see the page.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--no-browser", is_flag=True, help="Open no browser; print the address only.")
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
) -> None:
    """Look at a scenario's world while it lives, at a stored run step by step, or at two runs side by side."""
    import webbrowser

    from ecosystem.app.server import serve
    from ecosystem.app.worlds.session_model import SessionConfig
    from ecosystem.errors import ScenarioError
    from ecosystem.runs.environment import Machine
    from ecosystem.runs.files import require_local_path
    from ecosystem.runs.run import Run

    require_local_path(out)
    live = [place for place in places if not place.is_dir()]
    if live and len(places) > 1:
        told = " ".join(map(str, places))
        raise ScenarioError(f"{told}: give one scenario file, one run folder, or two run folders to lay side by side.")
    if not live and len(places) > 2:
        raise ScenarioError(f"{len(places)} run folders: at most two can be laid side by side.")
    if not live and (settings or variant or seed is not None or steps is not None):
        raise ScenarioError(
            f"{places[0]}: a stored run is what it is; --set, --variant, --seed and --steps are for scenarios."
        )
    spec = read_scenario(places[0], variant, settings, seed, steps) if live else None
    for place in places if not live else ():
        _ = Run.open(place).scenario
    base = places[0].parent if live else Path()
    config = SessionConfig(places if not live else (), spec, base, Machine.choose(device, threads), out)

    def ready(address: str) -> None:
        click.echo(f"{address}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(address)

    serve(config, host, port, ready)
