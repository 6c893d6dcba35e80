"""Where the time and the tokens of a run went: by phase of a step, and by who caused them."""

from __future__ import annotations

from typing import Any

import polars as pl

from ecosystem.formats import number, percent
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData
from ecosystem.report.html import Column, Table

OTHERS = ("writers", "curators", "web")
_TIME = ChartLabels(
    "Time by phase and agent",
    "wall time of all steps; a cohort's is divided by tokens; web: work of no single agent, such as measuring",
    "seconds",
    ",.1f",
)
_TOKENS = ChartLabels(
    "Tokens by phase and agent", "tokens trained on (fit) and written (generate), of all steps", "tokens", ",.0f"
)


def spent(data: RunReportData) -> pl.DataFrame:
    """Return what each phase cost: phase (in the order of a step), who, seconds and tokens (null: none counted).

    ``who`` is a population of trainers, or one of OTHERS. A run of an earlier release has no rows.
    """
    sort, name = (pl.col("id").str.split("/").list.get(place, null_on_oob=True) for place in (0, 1))
    who = pl.when(sort == "trainers").then(name).otherwise(sort)
    timings = data.run.timings()
    phases = timings.filter(pl.col("step") > 0)["phase"].unique(maintain_order=True).to_list()
    order = {phase: place for place, phase in enumerate(phases)}
    sums = timings.group_by("phase", who=who, maintain_order=True)
    costs = sums.agg(pl.col("seconds").sum(), tokens=pl.col("tokens").sum(), counted=pl.col("tokens").count())
    return costs.sort(
        pl.col("phase").replace_strict(order, default=-1, return_dtype=pl.Int32), maintain_order=True
    ).select("phase", "who", "seconds", tokens=pl.when(pl.col("counted") > 0).then("tokens"))


def drawn(data: RunReportData) -> dict[str, Any]:
    """Draw seconds and tokens as stacked bars, one per phase; None where there are none."""
    rows = spent(data)
    visible = rows.filter(pl.col("seconds") >= 0.001 * pl.col("seconds").sum())
    tokens = rows.filter(pl.col("tokens") > 0)
    return {
        "time_by_phase": _bars(data, visible, "seconds", _TIME),
        "tokens_by_phase": _bars(data, tokens, "tokens", _TOKENS),
    }


def _bars(data: RunReportData, rows: pl.DataFrame, value: str, labels: ChartLabels) -> Any:
    if rows.is_empty():
        return None
    parts = rows.select("phase", population="who", value=value)
    present = set(parts["population"])
    phases = parts["phase"].unique(maintain_order=True).to_list()
    return charts.stacked(parts, data.theme, [name for name in OTHERS if name in present], phases, labels)


def table(data: RunReportData) -> Table | None:
    """Return the figures behind the charts, a row for each phase and who caused it; None if there are none."""
    rows = spent(data)
    total = float(rows["seconds"].sum())
    cells = [
        [phase, who, number(seconds, 2), percent(seconds / total), "–" if tokens is None else number(tokens, 0)]
        for phase, who, seconds, tokens in rows.iter_rows()
    ]
    head = [Column("phase"), Column("who"), Column("seconds"), Column("share", "of the time"), Column("tokens")]
    return Table(head, [list(row) for row in cells]) if cells else None
