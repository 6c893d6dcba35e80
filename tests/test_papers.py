"""The figures of docs/papers.md are those that its command prints from a run."""

import re

import pytest
from click.testing import CliRunner

import ecosystem
from benchmarks.papers import main
from tests.conftest import ROOT

PAPERS = ROOT / "scenarios" / "papers"
DOCS = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


def printed(run, *options):
    result = CliRunner().invoke(main, [str(run.path), *options])
    assert result.exit_code == 0, result.output
    return [[cell.strip() for cell in row.strip("| ").split("|")] for row in result.output.splitlines()]


def documented(name):
    """The cells of the rows of a scenario in the tables of the page."""
    rows, found = [], False
    for line in DOCS.splitlines():
        found = line.startswith(f"| `{name}`") or (found and line.startswith("| |"))
        if found:
            rows.append([cell.strip() for cell in line.strip("| ").split("|")])
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "options"), [("seddik_random_data", 1, ["--complement"]), ("kazdan_categorical", 20, [])]
)
def test_documented_figures_are_those_that_the_command_prints(name, steps, options, tmp_path):
    spec = ecosystem.Scenario.load(PAPERS / f"{name}.toml").override({"steps": steps})
    run = ecosystem.run(spec, out=tmp_path, device="cpu", threads=2)
    simulated = {row[-2] for row in printed(run, *options)}
    told = [row[-2] for row in documented(name) if row[-3] == str(steps)]
    assert told and set(told) <= simulated


def test_every_reproduction_is_on_the_page():
    files = {file.stem for file in PAPERS.glob("*.toml")} - {"seddik_loop"}  # the base of a study
    assert files <= set(re.findall(r"`([a-z_0-9]+)`", DOCS))
    assert set(re.findall(r"^\| `([a-z_0-9]+)`", DOCS, flags=re.MULTILINE)) <= files
