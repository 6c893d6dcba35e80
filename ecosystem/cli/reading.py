"""Commands that answer questions: what kinds there are, what was published, and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ecosystem.cli.options import (
    CACHE,
    JSON,
    read_values,
)

LISTED = ["scenarios", "studies", "entries", "models", "policies", "sources", "metrics", "laws", "tasks"]


@click.command("list")
@click.argument("what", type=click.Choice(LISTED))
@JSON
def list_(what: str, as_json: bool) -> None:
    """List scenarios, studies, models, policies, sources, metrics, laws or tasks with all their fields."""
    from ecosystem.cli.listing import listing

    click.echo(listing(what, as_json))


@click.command()
@click.argument("what", type=click.Choice(["scenario", "study", "frontier"]), default="scenario")
def schema(what: Literal["scenario", "study", "frontier"]) -> None:
    """Print the JSON Schema of scenario, study or frontier files, for editors that complete and check TOML."""
    import json

    from ecosystem.cli.listing import json_schema

    click.echo(json.dumps(json_schema(what), indent=2))


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--step", type=int, help="Step of publication (default: the last).")
@click.option("--author", help="Trainer (naive/0), population (naive), writer (writers/people/0) or initial.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Documents, at most.")
def show(run_folder: Path, step: int | None, author: str | None, limit: int) -> None:
    """Read what was published at a step of a run."""
    from ecosystem.cli.show import published
    from ecosystem.runs.run import Run

    click.echo(published(Run.open(run_folder), step, author, limit))


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("document", type=click.IntRange(min=0))
@click.option("--step", type=click.IntRange(min=1), help="Only the models that were fitted at this step.")
@JSON
def lineage(run_folder: Path, document: int, step: int | None, as_json: bool) -> None:
    """Trace a document (its number, as `show` prints it) back to people, through the training sets of models."""
    from ecosystem.cli.show import traced
    from ecosystem.runs.run import Run

    click.echo(traced(Run.open(run_folder), document, step, as_json=as_json))


@click.command()
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
@JSON
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

    values = ({} if policies is None else audits.policies_of(policies)) | read_values(settings)
    found = audits.audit(Run.open(run_folder), names, values, step=step, everything=everything, reader=reader)
    if out is not None:
        audits.write(found, out)
    if as_json:
        click.echo(found.write_json())
    else:
        audits.show(found)


@click.command()
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
