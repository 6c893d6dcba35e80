"""The reference is written from the code: everything that can be named in a file is in it, with a description."""

import re

import click
import pytest

from docs import reference
from docs.prose import line, markdown
from ecosystem import Fit, Frontier, Scenario, Study
from ecosystem.cli.listing import fields_of
from ecosystem.cli.main import cli
from ecosystem.corpus.schema import ASSISTED, COLUMNS, LEFT, TIMINGS
from ecosystem.families.base import FAMILIES
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.definitions import is_plugged_in
from ecosystem.policies.base import POLICIES
from ecosystem.runs.store import TABLES
from ecosystem.scenario.presets import presets
from ecosystem.sources.base import SOURCES
from ecosystem.theory.laws import ARGUMENTS, laws

KINDS = {"sources": SOURCES, "models": FAMILIES, "policies": POLICIES}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name.removeprefix("reference/").removesuffix(".md"): text for name, text in reference.pages().items()}


def _rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a page by the name in their first cell."""
    rows = (row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| `"))
    return {cells[0].strip("`"): cells for cells in rows}


def _headings(cls: type, path: str = "") -> list[tuple[str, type]]:
    """The heading and spec of every table of a file below ``cls``, without those whose kinds have their own pages."""
    inner = [table for table in reference.tables_in(cls, path) if table.spec not in reference.PAGE_OF_KINDS]
    return [pair for table in inner for pair in ((table.heading, table.spec), *_headings(table.spec, table.path))]


@pytest.mark.parametrize("section", KINDS)
def test_every_kind_and_every_field_is_described(pages, section):
    sections = {part.split("\n", 1)[0]: part for part in pages[section].split("\n## ")}
    for kind, cls in KINDS[section].all().items():
        assert (cls.__doc__ or "").strip() and line(cls.__doc__) in " ".join(sections[kind].split()), kind
        rows = _rows(sections[kind])
        for name, sort, default, about in fields_of(cls):
            assert about, f"{section}.{kind}.{name} has no description"
            assert rows[name][1:] == [reference.code(sort), reference.code(default), line(about)]


@pytest.mark.parametrize(("page", "files"), [("scenario", [Scenario]), ("studies", [Study, Frontier]), ("fits", [Fit])])
def test_every_table_and_key_of_files_is_described(pages, page, files):
    sections = {part.split("\n", 1)[0].strip("`"): part for part in pages[page].split("\n## ")}
    starts = {Scenario: "Top level", Study: "A study file", Frontier: "A frontier file", Fit: "A fit file"}
    for heading, spec in [pair for cls in files for pair in ((starts[cls], cls), *_headings(cls))]:
        inner = {table.key: table for table in reference.tables_in(spec, "")}
        for name, field in spec.model_fields.items():
            key = field.alias or name
            about = inner[key].about if key in inner else field.description
            assert about, f"{heading} {key} has no description"
            assert key in inner or f"| `{key}` |" in sections[heading], f"{heading} {key}"
            assert line(about) in sections[heading], f"{heading} {key}"


def test_defaults_are_those_that_hold_where_a_table_is_left_out(pages):
    budget = pages["scenario"].split("\n## `[trainers.NAME.budget]`")[1].split("\n## ")[0]
    assert _rows(budget)["tokens"][2] == "`50000`"


def test_every_metric_has_a_unit_and_a_formula(pages):
    rows = _rows(pages["metrics"].split("\n## ")[0])
    built_in = {name: entry for name, entry in definitions().items() if not is_plugged_in(name)}
    for name, entry in built_in.items():
        cells = rows.get(name) or rows[f"{name}`<br>alias `{entry.alias}"]
        assert entry.unit and entry.formula and cells[1] == line(entry.text)
        assert cells[2] == f"{line(entry.formula)}<br>*{line(entry.source or 'this project')}*"


def test_a_source_of_a_metric_says_whether_its_text_was_read(pages):
    read = ("Seddik et al.", "Shumailov et al.")  # papers whose text was read
    marked = []
    for name, entry in definitions().items():
        for part in [] if is_plugged_in(name) else re.split(r";", entry.source):
            if re.search(r"\d{4}", part) and not part.strip().startswith(read):
                assert re.search(r"\((\d{4}\.\d{5}, )?(unread|abstract|code)\)", part), f"{name}: {part}"
                marked.append(name)
    assert {"perplexity", "bits_per_byte", "distinct_1"} <= set(marked)
    assert '"unread" if' in pages["metrics"] and "(unread)" in pages["metrics"]


def test_every_law_says_where_it_comes_from_and_describes_its_arguments(pages):
    sections = {part.split("\n", 1)[0]: part for part in pages["laws"].split("\n## ")}
    for name, law in laws().items():
        arguments = {p.name for p in law.parameters}
        assert arguments == set(_rows(sections[name])) and arguments <= set(ARGUMENTS), name
        assert reference._ORIGIN[law.source] in sections[name]
    assert {p.name for law in laws().values() for p in law.parameters} | {"t"} == set(ARGUMENTS)


def test_every_command_and_option_is_described(pages):
    for name, command in cli.commands.items():
        section = pages["commands"].split(f"\n## ecosystem {name}\n")[1].split("\n## ")[0]
        assert command.help and line(command.help.split("\n\n")[0]) in section
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert option.help, f"ecosystem {name} {option.opts[0]} has no help"
            assert f"`{', '.join(option.opts)}`" in section


def test_every_preset_is_described(pages):
    rows = _rows(pages["models"])
    assert presets() and all(rows[name][1] and rows[name][3] for name in presets())


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_of_a_run_folder_is_described(table):
    optional, stored = {"corpus": ASSISTED, "index": LEFT}.get(table, {}), TABLES | {"timings": TIMINGS}
    assert {name: column.dtype for name, column in COLUMNS[table].items()} == stored[table] | optional
    assert COLUMNS.keys() == stored.keys()
    rows = _rows(reference.columns(table))
    for name, column in COLUMNS[table].items():
        assert column.text and rows[name] == [f"`{name}`", f"`{column.dtype}`", column.unit, line(column.text)]


def test_docstrings_become_markdown():
    assert markdown("Return ``x`` of :func:`~a.b`; see *p_i*.") == r"Return `x` of `a.b`; see \*p\_i\*."
    assert markdown("As in::\n\n    code(*args)\n\nand <b> [1] a|b.") == (
        "As in:\n\n    code(*args)\n\nand \\<b\\> \\[1\\] a\\|b."
    )
    assert line("one\n    two") == "one two"
