"""The command line. Every command imports what it needs inside itself, so that ``--help`` stays instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from ecosystem.scenario.scenario import Scenario

SCENARIO = click.argument("scenario", type=click.Path(path_type=Path))
SET = click.option(
    "--set", "settings", multiple=True, metavar="PATH=VALUE", help="Set a dotted path of the scenario; repeatable."
)

SEED = click.option("--seed", type=click.IntRange(min=0), help="Seed of all chance (default: the scenario's).")
STEPS = click.option("--steps", type=click.IntRange(min=1), help="Number of steps (default: the scenario's).")

LISTED = ["scenarios", "studies", "entries", "models", "policies", "sources", "metrics", "laws", "tasks"]
VARIANT = click.option("--variant", metavar="NAME", help="One of the scenario's variants, for instance published.")


def _use_cache(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    """Make a folder the cache of this process and of those that it starts, as the variable does."""
    from ecosystem.cache import CACHE_VARIABLE, chosen_cache

    if folder is not None:
        os.environ[CACHE_VARIABLE] = str(chosen_cache(folder))


CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    expose_value=False,
    callback=_use_cache,
    help="Folder for foundations and tokenizers (default: $ECOSYSTEM_CACHE, or your user cache folder).",
)

DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Device that models are computed on; auto prefers a GPU.",
)

SMALLER = "Make its models, counts or batches smaller; what is committed stays."


def _stop(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C where nothing is under way that could be lost: at once, also inside the import of a library."""
    os.write(2, b"Stopped; nothing that was committed is lost.\n")
    os._exit(130)


def main() -> None:
    """Run the command line; a user's mistake ends with one clear sentence and exit code 2."""
    signal.signal(signal.SIGINT, _stop)  # until a run begins, which finishes what it is writing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has every letter
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    from ecosystem.errors import EcosystemError

    try:
        cli.main(arguments, prog_name="ecosystem", standalone_mode=False)
    except EcosystemError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        sys.exit(130)
    except MemoryError as error:
        if debug:
            raise
        click.echo(
            f"Error: this machine has too little memory for what the scenario asks ({error}). {SMALLER}", err=True
        )
        sys.exit(2)
    except RuntimeError as error:  # how torch says the same (click's Abort is one too, but was caught above)
        if debug or "allocate" not in str(error):
            raise
        click.echo(f"Error: this machine has too little memory for what the scenario asks. {SMALLER}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone (| head); there is nobody to tell
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ecosystem")
def cli() -> None:
    """Simulate a web on which language models train on what language models wrote.

    Give --debug to any command to see the traceback behind an error.
    """


@cli.command()
@SCENARIO
@VARIANT
@SET
@SEED
@STEPS
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs"), help="Folder for runs.")
@DEVICE
@click.option(
    "--threads", type=click.IntRange(min=1), help="Compute threads (default: all cores; a resumed run keeps its own)."
)
@CACHE
@click.option("--dry-run", is_flag=True, help="Validate and print the plan only.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the report.")
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

    spec = _scenario(scenario, variant, settings, seed, steps)
    display = Display(quiet=quiet, json=as_json)
    from ecosystem.api import run_scenario

    summary = run_scenario(
        spec, display, out=out, device=device, threads=threads, dry_run=dry_run, fresh=fresh, base=scenario.parent
    )
    _print_summary(summary, as_json)


def _print_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        click.echo(json.dumps(summary))
    elif "report" in summary:
        click.echo(summary["report"])


def _scenario(
    file: Path, variant: str | None, settings: tuple[str, ...], seed: int | None, steps: int | None
) -> Scenario:
    """Read a scenario and apply --variant, --set, --seed and --steps, each checked like the file itself."""
    from ecosystem.errors import ScenarioError
    from ecosystem.scenario.presets import read_toml
    from ecosystem.scenario.scenario import Scenario
    from ecosystem.studies.question import require_kind

    values = _values(settings)
    values |= {key: value for key, value in (("seed", seed), ("steps", steps)) if value is not None}
    data = read_toml(file)
    require_kind(data, file, "scenario")
    spec = Scenario.parse(data, where=str(file), base=file.parent, authored=True)
    if variant is not None:
        spec = spec.variant(variant, base=file.parent)
    if not values:
        return spec
    try:
        return Scenario.parse(spec.override(values, base=file.parent).plain(), where=str(file), base=file.parent)
    except ScenarioError as error:
        raise ScenarioError(f"{file} with {' '.join(f'--set {s}' for s in settings)}: {error}") from None


def _values(settings: tuple[str, ...]) -> dict[str, Any]:
    """Read every --set PATH=VALUE; raise ScenarioError for what is not written so."""
    from ecosystem.errors import ScenarioError
    from ecosystem.spec import parse_value

    values: dict[str, Any] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not all(path.strip().split(".")):
            raise ScenarioError(
                f'--set "{setting}": write it as path=value, for instance --set trainers.naive.count=3.'
            )
        values[path.strip()] = parse_value(value.strip())
    return values


@cli.command()
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
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs"), help="Folder for runs.")
@CACHE
@click.option("--dry-run", is_flag=True, help="Validate and print the plan only.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last.")
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the report.")
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
    forked = Branch.of(parent, int(step) if at else parent.last_step, _values(settings), steps=steps, name=name)
    display = Display(quiet=quiet, json=as_json)
    _print_summary(run_scenario(forked, display, out=out, dry_run=dry_run, fresh=fresh), as_json)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@VARIANT
@SET
def check(files: tuple[Path, ...], variant: str | None, settings: tuple[str, ...]) -> None:
    """Validate scenarios, studies and frontiers without running them; of run folders, every file against its hash."""
    from ecosystem.errors import EcosystemError
    from ecosystem.scenario.consistency import unused_settings
    from ecosystem.scenario.presets import read_toml
    from ecosystem.studies.frontier_spec import Frontier
    from ecosystem.studies.question import file_kind
    from ecosystem.studies.study import Study

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
            spec = _scenario(file, variant, settings, None, None)
            click.echo(f"{file}: good ({spec.steps} steps, {sum(t.count for t in spec.trainers.values())} trainers)")
            for note in unused_settings(spec):
                click.echo(f"{file}: note: {note}")
        except EcosystemError as error:
            problems.append(str(error))
    if problems:
        raise EcosystemError("\n".join(problems))


@cli.command()
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


def execution_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options for making many runs."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["serial", "processes", "ray"]),
            default="processes",
            show_default=True,
            help="How runs are made: one after the other, in processes of this machine, or on a Ray cluster.",
        ),
        click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time (default: as many as cores allow)."),
        click.option("--threads", type=click.IntRange(min=1), help="Compute threads per run (default: 1)."),
        DEVICE,
        click.option(
            "--address", help="Address of a Ray cluster; auto discovers one (default: start a local cluster)."
        ),
        click.option(
            "--gpus", type=click.FloatRange(min=0), default=0.0, help="GPUs per run, may be a fraction (Ray only)."
        ),
        CACHE,
        SET,
        click.option(
            "--seeds", type=click.IntRange(min=1), help="Number of seeds to use, from the first on (default: all)."
        ),
        click.option(
            "--out",
            default="outputs",
            show_default=True,
            help="Folder or URL (s3://, gs://) for runs and report. With a URL the report is also written to the local "
            "folder outputs, and its path there is printed.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary last."),
        click.option("--quiet", is_flag=True, help="Print nothing but the path of the report."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command()
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
    from ecosystem.studies.study import Study

    spec = Study.load(file).with_settings(_values(settings), seeds)
    if dry_run:
        click.echo(listing(spec, file.parent, out))
        return
    progress = StudyProgress(quiet=quiet, json=as_json)
    with _interruptible():
        result = run_study(spec, file.parent, ExecutionOptions(**options), progress, out=out)
    _tell(result.summary() if as_json else result.report)


@cli.command()
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
    from ecosystem.studies.frontier_spec import Frontier
    from ecosystem.studies.progress import StudyProgress

    spec = Frontier.load(file).with_settings(_values(settings), seeds)
    progress = StudyProgress(quiet=quiet, json=as_json)
    with _interruptible():
        result, report = run_frontier(spec, file.parent, ExecutionOptions(**options), progress, out=out)
    for sentence in filter(None, (finding(spec, result), untrained_note(spec, result))):
        progress.say(sentence)
    _tell(summary(spec, result) | {"report": str(report)} if as_json else report)


_frontier = copy(threshold)
_frontier.hidden = True
cli.add_command(_frontier, "frontier")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C break off work that has to put things away; say what becomes of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Stopped. What runs had committed stays; give the same command again to go on.", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(result: Path | dict[str, Any]) -> None:
    """Print the last line: the path of a report, or a summary as JSON."""
    if isinstance(result, dict):
        import json

        click.echo(json.dumps(result))
    else:
        click.echo(result)


@cli.command()
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
    from ecosystem.app.session_model import SessionConfig
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
    spec = _scenario(places[0], variant, settings, seed, steps) if live else None
    for place in places if not live else ():
        _ = Run.open(place).scenario
    base = places[0].parent if live else Path()
    config = SessionConfig(places if not live else (), spec, base, Machine.choose(device, threads), out)

    def ready(address: str) -> None:
        click.echo(f"{address}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(address)

    serve(config, host, port, ready)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
def report(runs: tuple[Path, ...]) -> None:
    """Write (again) the report of finished or unfinished runs and print where each is."""
    from ecosystem.report import write_report
    from ecosystem.runs.run import Run

    for folder in runs:
        click.echo(write_report(Run.open(folder)))


@cli.command("list")
@click.argument("what", type=click.Choice(LISTED))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_(what: str, as_json: bool) -> None:
    """List scenarios, studies, models, policies, sources, metrics, laws or tasks with all their fields."""
    from ecosystem.cli.listing import listing

    click.echo(listing(what, as_json))


@cli.command()
@click.argument("what", type=click.Choice(["scenario", "study", "frontier"]), default="scenario")
def schema(what: Literal["scenario", "study", "frontier"]) -> None:
    """Print the JSON Schema of scenario, study or frontier files, for editors that complete and check TOML."""
    import json

    from ecosystem.cli.listing import json_schema

    click.echo(json.dumps(json_schema(what), indent=2))


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--step", type=int, help="Step of publication (default: the last).")
@click.option("--author", help="Trainer (naive/0), population (naive), writer (writers/people/0) or initial.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Documents, at most.")
def show(run_folder: Path, step: int | None, author: str | None, limit: int) -> None:
    """Read what was published at a step of a run."""
    from ecosystem.cli.show import published
    from ecosystem.runs.run import Run

    click.echo(published(Run.open(run_folder), step, author, limit))


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("document", type=click.IntRange(min=0))
@click.option("--step", type=click.IntRange(min=1), help="Only the models that were fitted at this step.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def lineage(run_folder: Path, document: int, step: int | None, as_json: bool) -> None:
    """Trace a document (its number, as `show` prints it) back to people, through the training sets of models."""
    from ecosystem.cli.show import traced
    from ecosystem.runs.run import Run

    click.echo(traced(Run.open(run_folder), document, step, as_json=as_json))


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--policy", "names", multiple=True, metavar="NAME", help="A policy of the run's scenario; repeatable.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="A policy of your own, policies.NAME={kind=...}, or a field of one, policies.NAME.FIELD=...; repeatable.",
)
@click.option(
    "--policies", type=click.Path(path_type=Path), metavar="FILE", help="TOML file with tables [policies.NAME]."
)
@click.option("--at", "step", type=click.IntRange(min=0), help="Step whose web is looked at (default: the last).")
@click.option("--all", "everything", is_flag=True, help="All documents so far, also those that left or never got in.")
@click.option(
    "--reader", default="web", show_default=True, help="For whom the gate stands: web or a trainer (naive/0)."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures as a tidy table: .parquet or .csv.")
@CACHE
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def audit(
    run_folder: Path,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    policies: Path | None,
    step: int | None,
    everything: bool,
    reader: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Apply policies, each by itself, to a stored web, and count what they do by true origin, depth and author.

    Nothing is run. Refusing counts as taking a document for synthetic: precision and recall are those of a detector.
    """
    from ecosystem.runs import audit as audits
    from ecosystem.runs.run import Run

    values = ({} if policies is None else audits.policies_of(policies)) | _values(settings)
    found = audits.audit(Run.open(run_folder), names, values, step=step, everything=everything, reader=reader)
    if out is not None:
        audits.write(found, out)
    if as_json:
        click.echo(found.write_json())
    else:
        audits.show(found)


@cli.command()
@click.argument("place", metavar="SCENARIO_OR_RUN", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trainer", metavar="NAME", help="Of a run: write this trainer's model as well, in FOLDER/model.")
@click.option("--step", type=click.IntRange(min=0), help="Step of that model (default: the last).")
@click.option(
    "--before",
    default="<|endoftext|>",
    show_default=True,
    help="What stands before every text: the models' end of text (</s> for OPT).",
)
@CACHE
def tasks(place: Path, folder: Path, trainer: str | None, step: int | None, before: str) -> None:
    """Write the downstream tasks' test examples for lm-evaluation-harness, and print how to call it."""
    from ecosystem.cli.listing import harness

    click.echo(harness(place, folder, trainer, step, before))
