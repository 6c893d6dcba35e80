"""For the record: settings, versions and the citation of a run, as methods sections and archives need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import tomli_w

from ecosystem.report import tables
from ecosystem.report.data import RunReportData
from ecosystem.report.html import Cell, Cells, Table
from ecosystem.report.panels.data_statement import DataStatement
from ecosystem.runs.citation import bibtex
from ecosystem.runs.run import Run
from ecosystem.scenario.departures import Setting, departures
from ecosystem.scenario.scenario import Scenario

LONGEST = 300  # characters of a value; the resolved scenario has all of it
FEW = 4  # sources or models that are not folded


def record(data: RunReportData, runs: Sequence[Run] = ()) -> dict[str, Any]:
    """Return what the section shows of a run, or of the first of several ``runs`` with other seeds."""
    run = data.run
    command = tables.command(run) + (f" --seeds {','.join(str(each.seed) for each in runs)}" if runs else "")
    chosen = departures(run.scenario)
    statement = DataStatement(data)
    return {
        "command": command,
        "paths": relative_paths(run.scenario),
        "only": f"seed {run.seed}" if runs else "",
        "settings": settings_table(chosen),
        "sources": statement.sources(),
        "models": statement.models(chosen),
        "few": FEW,
        "versions": versions(run),
        "facts": tables.reproduction(run),
        "bibtex": "\n".join(bibtex(each) for each in runs or [run]),
        "entries": len(runs or [run]),
        "scenario": (run.path / "scenario.toml").read_text(encoding="utf-8"),
    }


def relative_paths(scenario: Scenario) -> list[str]:
    """Return the relative paths of texts and of the site graph, on which a run elsewhere depends."""
    tables = [*scenario.plain()["sources"].values(), scenario.plain()["web"]]
    named = [path for table in tables for path in _texts(table.get("path")) if "://" not in path]
    return list(dict.fromkeys(path for path in named if not PurePath(path).is_absolute()))


def _texts(value: object) -> list[str]:
    """Return a text or a list of texts as a list."""
    return [value] if isinstance(value, str) else [str(each) for each in value] if isinstance(value, list) else []


def settings_table(chosen: Sequence[Setting]) -> Table:
    """Return the settings that differ from their defaults, with both values."""
    rows: list[Cells] = [[setting.path, _written(setting.value), _default(setting)] for setting in chosen]
    return Table(["setting", "value", "default"], rows, left=(0, 1, 2))


def _default(setting: Setting) -> Cell | str:
    return Cell("–", soft=True) if setting.default is None else _written(setting.default)


def _written(value: object) -> str:
    """Return a value as TOML writes it, on one line, shortened if it is long."""
    text = _line(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _line(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_line(each)}" for key, each in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_line, value)) + "]"
    return tomli_w.dumps({"v": value}).strip().removeprefix("v = ")


def versions(run: Run) -> Table:
    """Return the versions with which the run began, and those of resumes with others."""
    environment = run.environment
    packages = {"Python": environment.get("python", "?"), **environment.get("packages", {})}
    resumed = [
        (f"after step {entry.get('after_step')}", {"Python": entry.get("python", "?"), **entry.get("packages", {})})
        for entry in environment.get("resumed", [])
    ]
    others = [(when, versions) for when, versions in resumed if versions != packages]
    rows: list[Cells] = [
        [name, str(version), *(str(versions.get(name, "–")) for _, versions in others)]
        for name, version in packages.items()
    ]
    return Table(["package", "version", *(f"resumed {when}" for when, _ in others)], rows, left=(0, 1))
