"""Options shared by several commands; parse their values and print results."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from ecosystem.scenario.scenario import Scenario

EVERY_STEP = range(sys.maxsize)
SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set the value at a dotted path of the scenario; repeatable.",
)

SEED = click.option("--seed", type=click.IntRange(min=0), help="Random seed (default: the scenario's).")
STEPS = click.option("--steps", type=click.IntRange(min=1), help="Number of steps (default: the scenario's).")
VARIANT = click.option("--variant", metavar="NAME", help="Variant of the scenario, such as published.")


def _use_cache(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    """Set the cache folder of this process and its child processes."""
    from ecosystem.cache import CACHE_VARIABLE, chosen_cache

    if folder is not None:
        os.environ[CACHE_VARIABLE] = str(chosen_cache(folder))


CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    expose_value=False,
    callback=_use_cache,
    help="Folder for foundations and tokenizers (default: $ECOSYSTEM_CACHE, or the user's cache folder).",
)


def _load_plugin(context: click.Context, option: click.Parameter, files: tuple[Path, ...]) -> None:
    """Load Python files with kinds of the user's own, before a command reads anything."""
    if files:
        from ecosystem.plugins import load_plugins

        load_plugins(files)


PLUGIN = click.option(
    "--plugin",
    metavar="FILE.py",
    type=click.Path(path_type=Path),
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load_plugin,
    help="Python file with a filter, source, model, metric or law of your own; repeatable.",
)

DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Compute device; auto prefers a GPU.",
)

MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    help="Memory for the run, such as 4GB, or with Ray for each worker (default: all). It computes batches in smaller "
    "parts if it has to; a resumed run keeps its own.",
)


class Place(click.Path):
    """A path, or the URL of an object store, which stays text."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or a URL as it is."""
        from ecosystem.input_files import is_url

        return value if is_url(value) else super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the folders of runs below ``outputs``, and paths."""
        return _completed(_runs(), incomplete) or super().shell_complete(ctx, param, incomplete)


class ScenarioPlace(Place):
    """A file, given by its path or by the name of one that comes with ecosystem; perhaps also a run."""

    def __init__(self, *, prefer: str = "", runs: bool = False) -> None:
        """``prefer`` is the subfolder of bundled scenarios that is searched first; with ``runs``, runs are allowed."""
        super().__init__()
        self._prefer, self._runs = prefer, runs

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file or run folder; the URL of a run as it is."""
        from ecosystem.scenario.presets import located

        place = super().convert(value, param, ctx) if self._runs else Path(value)
        return place if isinstance(place, str) else located(place, prefer=self._prefer, runs=self._runs)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names of files that come with ecosystem, folders of runs where they are allowed, and paths."""
        from ecosystem.scenario.presets import bundled_files

        names = {
            name: file
            for name, file in bundled_files().items()
            if ("/" in name) == ("/" in incomplete) and self._prefer in ("", file.parent.name)
        }
        words = [*names, *(_runs() if self._runs else [])]
        return _completed(words, incomplete) or click.Path.shell_complete(self, ctx, param, incomplete)


def _completed(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Return the words that begin with ``incomplete`` and the paths that do, or nothing if no word does.

    The shell completes paths if there is no word. Bash takes either its own paths or our words, hence both as words.
    """
    found = sorted(word for word in words if word.startswith(incomplete))
    beginning = Path(incomplete + "?")  # keeps a slash at the end
    paths = beginning.parent.iterdir() if found and beginning.parent.is_dir() else ()
    shown = [f"{path.as_posix()}/" if path.is_dir() else path.as_posix() for path in sorted(paths)]
    return [CompletionItem(word) for word in dict.fromkeys([*found, *shown]) if word.startswith(incomplete)]


def _runs() -> list[str]:
    """Return the folders of runs below the usual folder for them."""
    return [file.parent.as_posix() for file in Path("outputs").glob("*/*/scenario.toml")]


SCENARIO = click.argument("scenario", type=ScenarioPlace())


def local_only(context: click.Context, _: click.Parameter, places: Any) -> Any:
    """Return the values of an argument; raise EcosystemError if one is a URL."""
    from ecosystem.errors import EcosystemError
    from ecosystem.input_files import is_url

    for place in places if isinstance(places, tuple) else (places,):
        if is_url(place):
            raise EcosystemError(
                f"{place}: `ecosystem {context.info_name}` needs a local folder; copy the run to this machine first, "
                "with the tool of its object store, and give its folder."
            )
    return places


def run_folder(place: Path | str, weights: Container[int] = ()) -> Path:
    """Return the folder of a run; one in an object store is fetched first, its models only of these steps."""
    if isinstance(place, Path):
        return place
    from ecosystem.runs.remote.places import local_folder

    with shown_as(place):
        return local_folder(place, weights)


@contextmanager
def shown_as(place: Path | str) -> Iterator[None]:
    """Name the URL of a run, not the folder that mirrors it, in errors."""
    if isinstance(place, Path):
        yield
        return
    from ecosystem.runs.remote.mirror import out_root
    from ecosystem.runs.remote.places import urls_in_errors

    with urls_in_errors(out_root(place)):
        yield


def _lasting(context: click.Context, option: click.Parameter, place: Any) -> Any:
    """Return the value of --out; raise EcosystemError for a URL where no run can be kept."""
    from ecosystem.input_files import is_url

    if is_url(place):
        from ecosystem.runs.remote.places import require_lasting

        require_lasting(place)
    return place


RUN_MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    help="Memory for each run, such as 4GB (default: no limit). New runs compute batches in parts that fit it.",
)
OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("outputs"), show_default=True, help="Folder for runs."
)
OUT_OR_URL = click.option(
    "--out",
    type=Place(),
    callback=_lasting,
    default=Path("outputs"),
    show_default=True,
    help="Folder for runs, or the URL of an object store (such as s3://bucket/runs).",
)
OUT_OF_RUNS = click.option(
    "--out",
    callback=_lasting,
    default="outputs",
    show_default=True,
    help="Folder or URL (s3://, gs://) for runs and report. If it is a URL, the report is also written to the "
    "local folder outputs, and its path there is printed.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Validate the scenario and print the plan; run nothing.")
SUMMARY = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a summary as JSON instead of the report's path; progress goes to standard error.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
NOTIFY = click.option(
    "--notify",
    metavar="COMMAND",
    help="Shell command to call at the end, with the outcome in $ECOSYSTEM_OUTCOME (finished, stopped or failed).",
)
QUIET = click.option("--quiet", is_flag=True, help="Print the path of the report only.")


def _shorthand(context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the callbacks of --callback, and that of --tensorboard."""
    return ("tensorboard", *names) if context.params.pop("tensorboard", False) else names


FOLLOWING = [
    click.option(
        "--tensorboard",
        is_flag=True,
        is_eager=True,
        help="Write live curves to the folder tensorboard of each run: tensorboard --logdir outputs.",
    ),
    click.option(
        "--callback",
        "callbacks",
        multiple=True,
        metavar="NAME",
        callback=_shorthand,
        help="Call what follows each run, such as mlflow or wandb, at every step; repeatable.",
    ),
    NOTIFY,
]


def following_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what follows a run: --tensorboard, --callback and --notify."""
    for option in reversed(FOLLOWING):
        command = option(command)
    return command


def placement_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where the models of a run are computed; they replace keys of [placement]."""
    options = [
        click.option(
            "--engine",
            help="Where models are computed: local (in this process) or ray (in the workers of a Ray cluster). "
            "Default: that of [placement], or local.",
        ),
        click.option(
            "--address", help="Address of the Ray cluster; auto finds a running one (default: start a local cluster)."
        ),
        click.option(
            "--workers", type=int, help="Ray workers that share the models (default: as many as the cluster has room)."
        ),
        click.option(
            "--gpus-per-worker",
            type=float,
            help="GPUs of each Ray worker: 0.25 for four workers on one, 2 to divide each causal_lm over two.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def execution_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that execute many runs with the same seeds."""
    seeds = click.option(
        "--seeds",
        type=click.IntRange(min=1),
        help="Number of seeds to use, starting with the first (default: all).",
    )
    return many_runs_options(seeds(command))


def many_runs_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of commands that execute many runs."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["serial", "processes", "ray"]),
            default="processes",
            show_default=True,
            help="Where runs are executed: one by one in this process, in local processes, or on a Ray cluster.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Maximum number of concurrent runs (default: as many as the cores allow).",
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="Compute threads per run (default: 1; a resumed run keeps its own).",
        ),
        DEVICE,
        click.option(
            "--address", help="Address of a Ray cluster; auto finds a running one (default: start a local cluster)."
        ),
        click.option(
            "--gpus",
            type=click.FloatRange(min=0),
            default=0.0,
            show_default=True,
            help="GPUs per run, possibly a fraction; Ray only.",
        ),
        RUN_MEMORY,
        CACHE,
        SET,
        OUT_OF_RUNS,
        *FOLLOWING,
        SUMMARY,
        QUIET,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def read_scenario(
    file: Path,
    variant: str | None,
    settings: tuple[str, ...],
    seed: int | None,
    steps: int | None,
    data: dict[str, Any] | None = None,
) -> Scenario:
    """Read a scenario and apply --variant, --set, --seed and --steps; raise ScenarioError if the result is invalid.

    ``data`` is the content of the file, if it has been read: a pipe can be read only once.
    """
    from ecosystem.errors import ScenarioError, each_line
    from ecosystem.scenario.changes import dropped_fields
    from ecosystem.scenario.extending import read_file
    from ecosystem.scenario.presets import require_kind
    from ecosystem.scenario.scenario import Scenario

    numbers = {key: value for key, value in (("seed", seed), ("steps", steps)) if value is not None}
    values = read_values(settings) | numbers
    data = read_file(file) if data is None else data
    require_kind(data, file, "scenario")
    spec = Scenario.parse(data, where=str(file), base=file.parent, authored=True)
    if variant is not None:
        try:
            spec = spec.variant(variant, base=file.parent)
        except ScenarioError as error:
            raise ScenarioError(each_line(f"{file} with --variant {variant}", error)) from None
    if not values:
        return spec
    for sentence in dropped_fields(data, spec.plain(), values):
        click.echo(f"note: {sentence}.", err=True)
    try:
        return Scenario.parse(spec.override(values, base=file.parent).plain(), where=str(file), base=file.parent)
    except ScenarioError as error:
        options = [f"--set {s}" for s in settings] + [f"--{key} {value}" for key, value in numbers.items()]
        raise ScenarioError(each_line(f"{file} with {' '.join(options)}", error)) from None


def read_values(settings: tuple[str, ...]) -> dict[str, Any]:
    """Parse the values of --set PATH=VALUE; raise ScenarioError if one has another form."""
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


def print_result(result: Path | str | dict[str, Any] | None) -> None:
    """Print the result of a command: the path of a report, or a summary as JSON."""
    if isinstance(result, dict):
        import json

        click.echo(json.dumps(result))
    elif result is not None:
        click.echo(result)
