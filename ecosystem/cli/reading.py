"""Commands that list kinds and read stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecosystem.cli.options import (
    CACHE,
    JSON,
    Place,
    ScenarioPlace,
    local_only,
    read_values,
    run_folder,
)

if TYPE_CHECKING:
    import polars as pl

    from ecosystem.runs.run import Run

OR_DATE = ", or with a calendar its date, such as 2024-03"
LISTED = [
    *(
        "scenarios",
        "studies",
        "fits",
        "stories",
        "entries",
        "models",
        "policies",
        "sources",
        "metrics",
        "laws",
        "scaling_laws",
        "tasks",
    )
]


@click.command("list")
@click.argument("what", metavar="WHAT", type=click.Choice([*LISTED, "runs"]))
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs"), help="Folder of runs to list.")
@JSON
def list_(what: str, out: Path, as_json: bool) -> None:
    """List files, kinds, metrics or laws with their fields, or stored runs.

    WHAT is one of scenarios, studies, fits, stories, entries (tables of all files), models, policies, sources, metrics,
    laws, scaling_laws, tasks and runs (those in --out, with their disk use).
    """
    if what == "runs":
        from ecosystem.cli.disk import runs_listing

        click.echo(runs_listing(out, as_json))
        return
    from ecosystem.cli.listing import listing

    click.echo(listing(what, as_json))


@click.command()
@click.argument(
    "what", type=click.Choice(["scenario", "study", "frontier", "fit", "story", "model"]), default="scenario"
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the schemas of all formats as files into this folder instead.",
)
def schema(what: str, into: Path | None) -> None:
    """Print the JSON Schema of a file format.

    The schema of scenario files is the default. Editors such as VS Code with Even Better TOML (Taplo) use it to
    complete and check a file whose first line is `#:schema PATH`. Those in the folder schemas beside the shipped
    scenarios have the kinds of ecosystem; the ones that this command writes have those of installed plug-ins too.

    Example: ecosystem schema --into schemas
    """
    import json

    from ecosystem.cli.schemas import editor_schema, write_schemas

    if into is None:
        click.echo(json.dumps(editor_schema(what), indent=2))
    else:
        for file in write_schemas(into):
            click.echo(file)


@click.command()
@click.argument("place", metavar="RUN", type=Place())
@click.option("--step", metavar="STEP", help=f"Step of publication{OR_DATE} (default: the last).")
@click.option(
    "--author", help="Author: a trainer (naive/0), a population (naive), a writer (writers/people/0) or initial."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Maximum number of documents to print."
)
def show(place: Path | str, step: str | None, author: str | None, limit: int) -> None:
    """Print documents published at a step of a run."""
    from ecosystem.cli.show import published
    from ecosystem.runs.run import Run

    run = Run.open(run_folder(place))
    click.echo(published(run, _number(run, step, "--step"), author, limit))


@click.command()
@click.argument("places", metavar="RUN…", nargs=-1, required=True, type=Place())
def cite(places: tuple[Path | str, ...]) -> None:
    """Print a BibTeX entry for each run, with its Merkle root.

    The root is a hash over the hashes of all files of the run; `ecosystem check RUN` compares the files with them and
    prints the root. The entry has no author: add those of the run.

    Example: ecosystem cite outputs/smoke-0123456789ab/1 > run.bib
    """
    from ecosystem.runs.citation import bibtex
    from ecosystem.runs.run import Run

    click.echo("\n".join(bibtex(Run.open(run_folder(place))) for place in places), nl=False)


@click.command()
@click.argument("place", metavar="RUN", type=Place())
@click.argument("document", type=click.IntRange(min=0))
@click.option("--step", metavar="STEP", help=f"Show only models fitted at this step{OR_DATE} (default: all).")
@JSON
def lineage(place: Path | str, document: int, step: str | None, as_json: bool) -> None:
    """Trace a document of a run back to people.

    DOCUMENT is the id of a document, as printed by `ecosystem show`. It is traced through the training sets of models.
    """
    from ecosystem.cli.show import traced
    from ecosystem.runs.run import Run

    run = Run.open(run_folder(place))
    click.echo(traced(run, document, _number(run, step, "--step"), as_json=as_json))


@click.command()
@click.argument("place", metavar="RUN|FILE|FOLDER", type=Place())
@click.option(
    "--policy",
    "names",
    multiple=True,
    metavar="NAME",
    help="Policy of the run's scenario; for files a kind; repeatable.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="New policy, policies.NAME={kind=...}, or field of a policy, policies.NAME.FIELD=...; repeatable.",
)
@click.option(
    "--policies",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with new policies, as tables [policies.NAME].",
)
@click.option(
    "--at",
    "--step",
    "step",
    metavar="STEP",
    help=f"Step after which the web is audited{OR_DATE} (default: the last).",
)
@click.option(
    "--all", "everything", is_flag=True, help="Include documents that were retired or refused at publication."
)
@click.option("--reader", default="web", show_default=True, help="Reader of the gate: web, or a trainer (naive/0).")
@click.option("--column", metavar="NAME", help="Column of files that has the text (default: found).")
@click.option(
    "--label", metavar="NAME", help="Column of files that says which texts are synthetic (default: synthetic)."
)
@click.option("--out", type=click.Path(path_type=Path), help="File for the results as a tidy table, .parquet or .csv.")
@CACHE
@JSON
def audit(
    place: Path | str,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    policies: Path | None,
    step: str | None,
    everything: bool,
    reader: str,
    column: str | None,
    label: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare the verdicts of policies with the truth.

    Each policy is applied by itself to the web of a stored run; nothing is run. Verdicts are counted by true origin,
    depth and author. A refusal counts as a detection of synthetic text, so that precision and recall are those of a
    detector.

    Plain files of text, JSON lines or Parquet, or a folder of them, are audited too: with survival and reasons, and
    with precision and recall if a column labels the synthetic texts.

    Example: ecosystem audit texts.jsonl --policy gopher_quality --policy minhash_dedup
    """
    from ecosystem.runs import audit as audits
    from ecosystem.runs.run import Run

    values = ({} if policies is None else audits.read_policies(policies)) | read_values(settings)
    files = isinstance(place, Path) and not (place / "scenario.toml").exists() and _is_plain(place)
    if files:
        results = _audit_files(Path(place), names, values, column, label, step is None and not everything, reader)
    else:
        _require_no_columns(place, column, label)
        run = Run.open(run_folder(place))
        at = _number(run, step, "--at")
        results = audits.audit(run, names, values, step=at, everything=everything, reader=reader)
    if out is not None:
        audits.write(results, out)
    if as_json:
        click.echo(results.write_json())
    else:
        audits.show(results, str(place) if files else "")


def _number(run: Run, step: str | None, option: str) -> int | None:
    """Return the step that a number or a date means; None if there is none."""
    return None if step is None else run.step_number(step, f"{option} {step}")


def _is_plain(place: Path) -> bool:
    """Return whether a place is meant as a file or a folder of texts: it is no run, and has none below it."""
    from ecosystem.beginning.sourcing import holds_texts
    from ecosystem.input_files import is_folder

    return not is_folder(place) or holds_texts(place) or next(place.rglob("scenario.toml"), None) is None


def _require_no_columns(place: Path | str, column: str | None, label: str | None) -> None:
    from ecosystem.errors import EcosystemError

    if column is not None or label is not None:
        raise EcosystemError(f"{place}: is a run; --column and --label belong to plain files.")


def _audit_files(
    place: Path,
    names: tuple[str, ...],
    values: dict[str, Any],
    column: str | None,
    label: str | None,
    without_step: bool,
    reader: str,
) -> pl.DataFrame:
    from ecosystem.beginning.audit_files import PlainDocuments, audit_files
    from ecosystem.errors import EcosystemError

    if not without_step or reader != "web":
        raise EcosystemError(f"{place}: holds plain texts; --at, --all and --reader belong to runs.")
    documents = PlainDocuments(place, column, label)
    for note in documents.notes:
        click.echo(f"note: {note}.", err=True)
    return audit_files(documents, names, values)


@click.command()
@click.argument("place", metavar="SCENARIO_OR_RUN", type=ScenarioPlace(runs=True), callback=local_only)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trainer", metavar="NAME", help="Also write the model of this trainer to FOLDER/model; runs only.")
@click.option("--step", metavar="STEP", help=f"Step of that model{OR_DATE} (default: the last).")
@click.option(
    "--before",
    default="<|endoftext|>",
    show_default=True,
    help="Text before every example: the end-of-text token of the models (</s> for OPT).",
)
@CACHE
def tasks(place: Path, folder: Path, trainer: str | None, step: str | None, before: str) -> None:
    """Export downstream tasks for lm-evaluation-harness.

    The test examples are written to FOLDER, and the command that evaluates a model on them is printed.
    """
    from ecosystem.cli.listing import harness

    click.echo(harness(place, folder, trainer, step, before))
