"""Commands for a beginning: a scenario for texts of one's own, and a check of the installation."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ecosystem.cli.options import CACHE, JSON, print_result


@click.command()
@click.argument("name")
@click.option(
    "--text",
    "texts",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="Texts: a file or a folder of .txt, .md, .jsonl or .parquet files, perhaps compressed.",
)
@click.option("--column", metavar="NAME", help="Column of JSON lines or Parquet that has the text (default: found).")
@click.option("--model", "preset", metavar="PRESET", help="Preset of the models (default: by the amount of text).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="the current folder",
    help="Folder for NAME.toml and the schema for editors.",
)
@JSON
def new(name: str, texts: Path, column: str | None, preset: str | None, out: Path, as_json: bool) -> None:
    """Write a scenario for texts of your own.

    The texts are read and described: documents, words, languages, copies, and what Gopher's rules would refuse. A
    commented scenario NAME.toml that runs is written, with a held-out part, a model of a size that suits the amount of
    text, and three populations of trainers. Nothing is overwritten.

    Example: ecosystem new my-web --text ~/texts && ecosystem run my-web.toml
    """
    from ecosystem.beginning.draft import draft, write
    from ecosystem.beginning.sourcing import choose_source
    from ecosystem.beginning.survey import survey
    from ecosystem.cli.schemas import FOLDER, write_schemas
    from ecosystem.errors import ScenarioError
    from ecosystem.scenario.scenario import Scenario

    if (out / f"{name}.toml").exists():
        raise ScenarioError(f"{out / f'{name}.toml'}: exists already; choose another NAME, or delete the file.")
    chosen = choose_source(texts, out, column)
    found = survey(chosen.texts(), str(texts))
    drafted = draft(name, chosen, found, preset)
    file = write(drafted, out)
    Scenario.load(file)
    if not (out / FOLDER / "scenario.json").exists():
        write_schemas(out / FOLDER, ("scenario",))
    if as_json:
        plain = {"survey": found.plain(), "model": drafted.preset, "why": drafted.why, "limits": drafted.limits}
        print_result({"file": str(file), **plain, "notes": drafted.notes})
        return
    for line in [*(f"note: {note}" for note in drafted.notes), *found.lines()]:
        click.echo(line)
    click.echo(f"model       {drafted.preset}: {drafted.why}")
    for sentence in drafted.limits:
        click.echo(f"            {sentence}")
    click.echo(f"next        ecosystem run {file}")
    click.echo(file)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("outputs"), help="Folder for runs to examine.")
@click.option("--no-test", is_flag=True, help="Leave the self-test out.")
@CACHE
@JSON
def doctor(out: Path, no_test: bool, as_json: bool) -> None:
    """Examine this installation.

    Versions, devices, cores, memory, disks, the compiler of kernels and optional packages with the command to install
    each are listed. A self-test of a few seconds runs a tiny world, resumes it, and compares both. The exit code is 1
    if the self-test fails. Nothing is downloaded, and nothing is left.

    Example: ecosystem doctor --json
    """
    from ecosystem.beginning import doctor as examination

    found = examination.examine(out)
    if not no_test:
        found["self_test"] = examination.self_test()
    print_result(found if as_json else examination.text(found))
    if not no_test and not found["self_test"]["passed"]:
        sys.exit(1)
