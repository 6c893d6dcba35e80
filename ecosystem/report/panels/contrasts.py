"""Populations of one run compared with the first: differences and effect sizes where a run has independent repetitions.

On an isolated web every trainer is alone, so the trainers of two populations are independent samples. On parallel webs
the trainers with one number share a web, so they are pairs. On any other web all trainers read each other: the run is
one observation, and effect sizes need several seeds.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ecosystem.formats import significant
from ecosystem.metrics.intervals import Interval, independent_comparison, paired_comparison
from ecosystem.report import run_charts, summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import signed
from ecosystem.report.html import Cell, Cells, Column, Table, tinted
from ecosystem.report.tables import FINAL

REPEATED = {"isolated": "independent trainers, Welch", "parallel": "pairs of one web, paired t"}
"""Kinds of webs that hold repetitions → how their populations are compared."""
MOST = 24  # populations; of more, only the first metric is compared


def contrasts(data: RunReportData) -> Table | None:
    """Return every population minus the first at the last step; None without repetitions or a second population."""
    kind = data.run.scenario.web.graph
    if kind not in REPEATED or len(data.populations) < 2:
        return None
    text = data.run.scenario.modality == "text"
    metrics = ["cross_entropy", *FINAL] if text else run_charts.parameters(data)
    rows: list[Cells] = []
    for metric in dict.fromkeys(metrics):
        rows += _rows(data, metric, paired=kind == "parallel")
        if rows and len(data.populations) > MOST:
            break
    size = Column("g", "95 % interval")
    head: list[Column | str] = ["metric", "population", "difference", "95 % interval", size, "n", "compared as"]
    return Table(head, rows, left=(0, 1, 6)) if rows else None


def _rows(data: RunReportData, metric: str, *, paired: bool) -> list[Cells]:
    members = summaries.members(data.metrics, metric)
    last = members.filter(pl.col("step") == pl.col("step").max())
    by_population = {
        str(name): rows.select(number=pl.col("trainer").str.split("/").list.last(), value="value")
        for (name,), rows in last.group_by("population", maintain_order=True)
    }
    base, *others = data.populations
    rows: list[Cells] = []
    for name in others:
        if base not in by_population or name not in by_population:
            continue
        found = _difference(by_population[name], by_population[base], paired=paired)
        if found is not None:
            difference, size, number = found
            rows.append(
                [
                    run_charts.metric_title(metric),
                    tinted(data.populations, name),
                    Cell(_signed(difference.mean), bold=difference.significant),
                    f"{_signed(difference.low)} to {_signed(difference.high)}",
                    size_cell(size),
                    number,
                    REPEATED["parallel" if paired else "isolated"],
                ]
            )
    return rows


def _difference(of: pl.DataFrame, base: pl.DataFrame, *, paired: bool) -> tuple[Interval, Interval | None, str] | None:
    """Return the interval of the difference, its effect size and the sample sizes; None for fewer than two values."""
    if paired:
        both = of.join(base, on="number", suffix="_base").sort("number")
        if both.height < 2:
            return None
        pairs = paired_comparison(both["value"].to_numpy(), both["value_base"].to_numpy())
        return *pairs, f"{both.height} pairs"
    a, b = (np.asarray(rows["value"], dtype=np.float64) for rows in (of, base))
    if min(a.size, b.size) < 2:
        return None
    return *independent_comparison(a, b), f"{a.size} and {b.size}"


def size_cell(size: Interval | None) -> Cell:
    """Return an effect size with its interval in small text."""
    if size is None:
        return Cell("–", soft=True)
    return Cell(signed(size.mean, 1), small=f"{signed(size.low, 1)} to {signed(size.high, 1)}")


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + significant(value).replace("-", "−")
