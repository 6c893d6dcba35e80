"""Altair charts for the report of a study; a function returns None if there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ecosystem.metrics.estimates import error_of_mean
from ecosystem.metrics.intervals import mean_interval
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels
from ecosystem.report.findings import signed
from ecosystem.studies import analysis
from ecosystem.studies.analysis import Row
from ecosystem.studies.report.data import StudyReportData, interval
from ecosystem.studies.sensitivity import Index
from ecosystem.studies.spec.measure import Measure

MORRIS = ("mu*: mean size of its effects", "sigma: their spread")
SOBOL = ("alone", "with its interactions")


def heading(measure: Measure, world: str) -> str:
    """Return the title of a chart or table of a measure in a world."""
    return measure.name + (f", world {world}" if world else "")


def _unit(measure: Measure) -> str:
    return measure.unit if measure.unit != "1" else "dimensionless"


def effects(data: StudyReportData, measure: Measure, world: str, rows: Sequence[Row]) -> Any:
    """Draw the difference of each arm from the base arm, with its paired and unpaired intervals."""
    frame = pl.DataFrame(
        {
            "row": [r.arm for r in rows],
            "population": [r.arm for r in rows],
            **{
                name: [getattr(r, name) for r in rows]
                for name in ("effect", "low", "high", "unpaired_low", "unpaired_high")
            },
            "label": [f"{signed(r.effect, 3)} [{signed(r.low, 3)}, {signed(r.high, 3)}]" for r in rows],
        }
    )
    better = "lower" if measure.lower_is_better else "higher"
    labels = ChartLabels(
        f"{heading(measure, world)} against {data.study.base_arm}",
        f"{_unit(measure)}; {better} is better",
        "difference",
        "+.3~g",
    )
    return charts.forest(frame, data.theme(), labels)


def axes_map(data: StudyReportData, measure: Measure, world: str) -> Any:
    """Draw the mean of a measure over the two axes of a grid."""
    x, y = data.study.axes
    compared = {row.arm: row for row in data.rows_of(measure, world)}
    values = analysis.values_by_arm(data.results, measure, world)
    cells = [
        {
            "x": _label(point[x]),
            "y": _label(point[y]),
            "value": float(np.mean(list(values[arm].values()))),
            "settled": arm in compared and compared[arm].significant,
            "label": _effect(compared[arm]) if arm in compared else "the base arm",
        }
        for arm, point in data.study.levers().items()
        if arm in values
    ]
    if not cells:
        return None
    subtitle = f"mean over seeds; a dot marks a significant difference from {data.study.base_arm} (Holm, 5 %)"
    labels = ChartLabels(heading(measure, world), subtitle, measure.unit, ".3~f")
    return charts.heatmap(pl.DataFrame(cells), (x, y), labels)


def _effect(row: Row) -> str:
    return f"{signed(row.effect, 4)} [{interval(row.low, row.high, 4)}]"


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def index_rows(indices: Sequence[Index], *, morris: bool) -> list[tuple[str, str, float, float]]:
    """Return axis, index, value and half interval (NaN if there is none), most influential axes first."""
    names = MORRIS if morris else SOBOL
    return [
        (i.axis, name, value, half)
        for i in sorted(indices, key=lambda i: -i.main if morris else -i.total)
        for name, value, half in ((names[0], i.main, i.main_half), (names[1], i.total, i.total_half))
    ]


def sensitivity(measure: Measure, world: str, indices: Sequence[Index], *, morris: bool) -> Any:
    """Draw the sensitivity indices of each axis for a measure."""
    rows = [
        {
            "row": axis,
            "index": name,
            "value": value,
            "low": value - (0.0 if np.isnan(half) else half),
            "high": value + (0.0 if np.isnan(half) else half),
        }
        for axis, name, value, half in index_rows(indices, morris=morris)
    ]
    labels = ChartLabels(
        f"{heading(measure, world)}: {'elementary effects' if morris else 'shares of its variance'}",
        "means over seeds; 95 % bootstrap intervals if the method provides them",
        measure.axis if morris else "share of the variance",
        ".3~g",
    )
    return charts.bars(pl.DataFrame(rows), labels)


def course(data: StudyReportData, measure: Measure, world: str) -> Any:
    """Draw the metric of a measure over steps, by arm."""
    rows = data.results.series.filter(
        (pl.col("of") == (measure.of or ""))
        & (pl.col("metric") == measure.metric)
        & (pl.col("world") == world)
        & pl.col("value").is_finite()
    )
    if rows.is_empty():
        return None
    frame = rows.group_by("arm", "step", maintain_order=True).agg(
        pl.col("value").mean(),
        error=error_of_mean("value"),
        members=pl.len(),
    )
    frame = frame.rename({"arm": "population"}).sort("step", maintain_order=True)
    population = f"{measure.of}, " if measure.of else ""
    labels = ChartLabels(
        f"{population}{measure.metric}" + (f", world {world}" if world else ""),
        f"{_unit(measure)}; mean over seeds ± one standard error",
        measure.axis,
        ".3~g",
    )
    last = int(rows["step"].max())  # type: ignore[arg-type]
    return charts.over_steps(frame, data.theme(last), labels, size=charts.WIDE)


def tradeoff(data: StudyReportData, measure: Measure) -> Any:
    """Draw a measure against the cost of a run of each arm, in the first world."""
    study, world = data.study, data.worlds[0]
    spent = data.results.spending().filter(pl.col("world") == world)
    costs = {arm: g["cost"].to_numpy() for (arm,), g in spent.group_by("arm", maintain_order=True)}
    values = analysis.values_by_arm(data.results, measure, world)
    rows: list[dict[str, Any]] = []
    for arm in data.arms:
        if arm not in values or arm not in costs or len(values[arm]) < 2:
            continue
        quality, cost = mean_interval(np.array(list(values[arm].values()))), mean_interval(costs[arm])
        rows.append(
            {
                "population": arm,
                "cost": cost.mean,
                "cost_low": cost.low,
                "cost_high": cost.high,
                "value": quality.mean,
                "low": quality.low,
                "high": quality.high,
            }
        )
    if not rows:
        return None
    sign = 1 if measure.lower_is_better else -1
    for row in rows:  # on the Pareto front: no other arm is at least as cheap and better
        row["best"] = not any(
            other["cost"] <= row["cost"] and sign * other["value"] < sign * row["value"] for other in rows
        )
    prices = ", ".join(f"{price:g} per unit of {cost.replace('_', ' ')}" for cost, price in study.prices.items())
    labels = ChartLabels(
        f"{measure.name} against cost",
        f"95 % intervals over seeds; the dashed line joins the arms that no other arm beats in both; prices: {prices}",
        measure.axis,
        ".3~g",
    )
    return charts.tradeoff(pl.DataFrame(rows), data.theme(), labels, "cost of a run")
