"""The sections of a study's report on a fitted law, on machine text in training sets, and on survival by origin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ecosystem.formats import number, percent
from ecosystem.report import charts, html
from ecosystem.report.charts import ChartLabels
from ecosystem.report.findings import plus_minus
from ecosystem.report.html import Cell, Cells, Table, tinted
from ecosystem.studies.law_fit import LOSS, FittedLaw
from ecosystem.studies.report.data import StudyReportData
from ecosystem.studies.report.pages import PAGES
from ecosystem.theory.laws import QUANTITIES
from ecosystem.types import Floats

_SAME_SERIES = math.log(1.15)  # most by which the inputs of the points of one curve may differ
_CURVE = 60  # points of a curve


def law(data: StudyReportData) -> Markup | None:
    """Show the parameters of the fitted law, its curves beside the points, and the residuals."""
    fit = data.study.fit
    if fit is None:
        return None
    fitted = data.fitted
    if fitted is None:
        return html.render("study/law.html", PAGES, problem=data.fit_problem, figures=[], table=None, form="")
    series = _series(fitted)
    *others, across = fitted.law.inputs
    labels = ChartLabels(
        f"{fit.metric} and {fit.law}",
        "points: models, one for each seed; lines: the fitted law with its 95 % bootstrap interval",
        fit.metric,
        ".3~g",
    )
    points = pl.DataFrame({"series": series, "x": fitted.points[across], "value": fitted.points[LOSS]})
    chart = charts.curves(points, _lines(fitted, series, others, across), labels, QUANTITIES[across])
    left = pl.DataFrame({"series": series, "x": fitted.points["fitted"], "value": 100 * fitted.residuals})
    subtitle = "measured minus fitted, as a share of the fitted value"
    residuals = charts.residuals(
        left, ChartLabels(f"Residuals of {fit.law}", subtitle, "residual (%)", "+.3~g"), f"fitted {fit.metric}"
    )
    return html.render(
        "study/law.html",
        PAGES,
        problem="",
        figures=[data.figure("law", chart, full=True), data.figure("law_residuals", residuals, full=True)],
        table=_parameters(fitted),
        form=fitted.law.source,
    )


def _parameters(fitted: FittedLaw) -> Table:
    rows: list[Cells] = []
    for name, unknown in fitted.law.unknowns.items():
        value, note = fitted.values[name], ""
        if name in fitted.fixed:
            interval, note = "–", "fixed"
        else:
            low, high = fitted.interval(name)
            interval = f"{low:.3g} to {high:.3g}"
            note = "" if fitted.is_determined(name) else "not determined"
        rows.append([Cell(name, bold=True), unknown.text, f"{value:.4g}", interval, note])
    return Table(["parameter", "what it is", "value", "95 % interval", "note"], rows, left=(0, 1, 4))


def _series(fitted: FittedLaw) -> list[str]:
    """Return the name of each point's curve: points whose inputs, but for the last, are nearly equal share one."""
    others = fitted.law.inputs[:-1]
    rows = np.log(fitted.points.select(others).to_numpy())
    first: list[Floats] = []
    names = []
    for row in rows:
        number_ = next((i for i, seen in enumerate(first) if np.abs(row - seen).max() < _SAME_SERIES), len(first))
        if number_ == len(first):
            first.append(row)
        values = zip(others, np.exp(first[number_]), strict=True)
        names.append(", ".join(f"{value:,.3g} {name.replace('_', ' ')}" for name, value in values))
    return names


def _lines(fitted: FittedLaw, series: list[str], others: list[str], across: str) -> pl.DataFrame:
    """Return the fitted curve of each series: series, x, value, low, high."""
    parts = []
    groups = fitted.points.with_columns(series=pl.Series(series)).group_by("series", maintain_order=True)
    for (name,), points in groups:
        most = float(points[across].to_numpy().max())
        x = np.expm1(np.linspace(0, np.log1p(most), _CURVE))
        inputs = {other: np.full(x.shape, np.exp(np.log(points[other].to_numpy()).mean())) for other in others}
        value, low, high = fitted.curve({**inputs, across: x})
        parts.append(pl.DataFrame({"series": name, "x": x, "value": value, "low": low, "high": high}))
    return pl.concat(parts)


def mixtures(data: StudyReportData) -> Markup | None:
    """Show what machine text in training sets does to losses on human text and on a mixed validation set."""
    if not data.mixed:
        return None
    rows: list[Cells] = [
        [
            _named(data, c.arm, c.world),
            c.of,
            f"{c.parameters:,.0f}",
            f"{c.human_tokens:,.0f}",
            number(c.human_tokens / c.parameters, 1),
            number(c.synthetic_ratio, 2),
            Cell(_change(c.change, c.error), bold=c.harmful),
            Cell(_change(c.mixed_change, c.mixed_error), bold=c.hidden),
            f"{c.gain:.3g}",
            f"{c.low:.3g} to {c.high:.3g}",
        ]
        for c in data.mixed
    ]
    head = [
        *("arm", "population", "parameters", "human tokens", "per parameter", "machine per human"),
        *("change on human text", "on the mixture", "gain", "95 % interval"),
    ]
    return html.render("study/mixtures.html", PAGES, table=Table(head, rows, left=(0, 1)))


def _change(value: float, error: float) -> str:
    if math.isnan(value):
        return "–"
    return plus_minus(value, None if math.isnan(error) else error, 4, sign=True)


def _named(data: StudyReportData, arm: str, world: str) -> Any:
    return tinted(data.arms, arm, world)


def survival(data: StudyReportData) -> Markup | None:
    """Show which share of the documents of either origin each filter keeps."""
    if not data.survivals:
        return None
    rows: list[Cells] = [
        [
            _named(data, s.arm, s.world),
            s.of,
            s.policy,
            percent(s.human),
            percent(s.synthetic),
            Cell(f"{s.ratio:.3g}", bold=s.interval is not None and not s.interval.low <= 1 <= s.interval.high),
            f"{s.interval.low:.3g} to {s.interval.high:.3g}" if s.interval else "–",
        ]
        for s in data.survivals
    ]
    head = ["arm", "gate of", "filter", "human text kept", "machine text kept", "ratio", "95 % interval"]
    return html.render("study/survival.html", PAGES, table=Table(head, rows, left=(0, 1, 2)))
