"""The collapse profile on a page: a row for each definition of collapse, and the order of early-warning signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ecosystem.calendar import Calendar, step_name
from ecosystem.formats import counted
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import LISTED, listed, of_population, plus_minus, share, signed
from ecosystem.report.html import Cell, Cells, Column, Table, tinted
from ecosystem.report.profile import DEFINITIONS
from ecosystem.report.profile.signals import SIGNALS
from ecosystem.report.run_charts import metric_title

NARROW = 5  # most populations or arms beside which a table says when each definition holds


@dataclass(frozen=True)
class PopulationProfile:
    """The profile of one population: verdicts with their statistics in words, and the order of its signals."""

    population: Cell
    verdicts: Table
    signals: Table


def definitions(columns: Sequence[str], cells: Sequence[Sequence[Cell | str]]) -> Table:
    """Return the table of the eight definitions with ``cells`` [definitions][columns] beside each.

    Up to NARROW columns leave room for when each definition holds.
    """
    narrow = len(columns) <= NARROW
    rows: list[Cells] = [
        [Cell(definition.name, bold=True), *([definition.holds] if narrow else []), *beside]
        for definition, beside in zip(DEFINITIONS.values(), cells, strict=True)
    ]
    return Table(["definition", *(["holds if"] if narrow else []), *columns], rows, left=(0, 1) if narrow else (0,))


def conditions(columns: int) -> Table | None:
    """Return when each definition holds, for a table of definitions that has no room for it; else None."""
    rows: list[Cells] = [[definition.name, definition.holds] for definition in DEFINITIONS.values()]
    return None if columns <= NARROW else Table(["definition", "holds if"], rows, left=(0, 1))


def overview(data: RunReportData) -> Table:
    """Return the verdicts of all populations, with a row for each definition."""
    verdicts = {(row["population"], row["definition"]): row for row in data.profile.iter_rows(named=True)}
    cells = [[_verdict(verdicts[population, key], data) for population in data.populations] for key in DEFINITIONS]
    return definitions(data.populations, cells)


def _verdict(row: dict[str, Any], data: RunReportData) -> Cell:
    if row["holds"] is None:
        return Cell("–", soft=True)
    return Cell("yes", small=f"since {data.step_name(row['step'])}", bold=True) if row["holds"] else Cell("no")


def order(data: RunReportData) -> Table | None:
    """Return the signals of each population in the order in which they left their baseline; None without any."""
    rows: list[Cells] = []
    for population in data.populations:
        found = data.departures.filter(pl.col("population") == population)
        left = found.drop_nulls("step")
        never = f"{found.height - left.height} of {counted(found.height, 'signal')}"
        if found.height:
            rows.append([tinted(data.populations, population), in_order(found, data.theme.calendar), never])
    return Table(["population", "signals that left their baseline", "never left"], rows, left=(0, 1)) if rows else None


def in_order(found: pl.DataFrame, calendar: Calendar | None = None) -> str:
    """Return the signals that left their baseline (columns ``signal`` and ``step``, ascending) by step, in words."""
    by_step = found.drop_nulls("step").group_by("step", maintain_order=True)
    parts = [
        f"{step_name(int(str(step)), calendar)}: {listed([SIGNALS[name] for name in group['signal']])}"
        for (step,), group in by_step
    ]
    return "; ".join(parts) or "none"


def populations(data: RunReportData) -> list[PopulationProfile]:
    """Return the profile of each population."""
    return [
        PopulationProfile(tinted(data.populations, name), _verdicts(data, name), _signals(data, name))
        for name in data.populations
    ]


def _verdicts(data: RunReportData, population: str) -> Table:
    rows: list[Cells] = [
        [DEFINITIONS[row["definition"]].name, _verdict(row, data), in_words(row)]
        for row in data.profile.filter(pl.col("population") == population).iter_rows(named=True)
    ]
    return Table(["definition", "verdict", "measured at the last step"], rows, left=(0, 1, 2))


def in_words(row: dict[str, Any]) -> str:
    """Return the statistic of a verdict, a row of the profile, as a sentence."""
    definition = DEFINITIONS[row["definition"]]
    if row["holds"] is None:
        return f"Not measured: {definition.missing}."
    value, error, pattern = row["statistic"], row["error"], definition.statistic
    if value < 0 and pattern.endswith("lost"):
        value, pattern = -value, pattern.removesuffix("lost") + "gained"
    shown = share(value, error) if definition.is_share else plus_minus(value, error, 3, sign=True)
    return f"{pattern.format(metric=metric_title(row['metric']), value=shown)}."


def _signals(data: RunReportData, population: str) -> Table:
    rows: list[Cells] = [
        [
            Cell(SIGNALS[row["signal"]], small=row["signal"]),
            "never" if row["step"] is None else data.step_name(row["step"]).removeprefix("step "),
            plus_minus(row["change"], row["error"], 3, sign=True),
            signed(row["errors"], 1),
        ]
        for row in data.departures.filter(pl.col("population") == population).iter_rows(named=True)
    ]
    head: list[Column | str] = [
        "signal",
        "left at step",
        Column("change", "then, or at the last step"),
        Column("change", "standard errors"),
    ]
    return Table(head, rows)


def findings(data: RunReportData) -> list[str]:
    """State how many definitions of collapse hold in each population."""
    parts = []
    for population in data.populations[:LISTED]:
        judged = data.profile.filter(pl.col("population") == population).drop_nulls("holds")
        if judged.height:
            parts.append(f"{int(judged['holds'].sum())} of {judged.height} for {of_population(population)}")
    more = f" ({len(data.populations) - LISTED} more populations are below)" if len(data.populations) > LISTED else ""
    if not parts:
        return []
    return [f"Definitions of collapse that hold, of those that could be tested: {listed(parts)}{more}."]
