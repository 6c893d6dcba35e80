"""The section of a study's report on effects over worlds drawn from the posterior of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from ecosystem.formats import number, percent
from ecosystem.report import charts, html
from ecosystem.report.charts import ChartLabels
from ecosystem.report.findings import signed
from ecosystem.report.html import Cell, Cells, Table, tinted
from ecosystem.studies.posterior_worlds import PosteriorEffect
from ecosystem.studies.report.data import StudyReportData, interval
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.spec.measure import Measure


def posterior(data: StudyReportData) -> Markup | None:
    """Show the effects of all arms with the uncertainty of the parameters."""
    parts = []
    for number_, measure in enumerate(data.study.measures):
        rows = [effect for effect in data.posterior_effects if effect.measure == measure.name]
        if rows:
            figure = data.figure(f"posterior_{number_}", _chart(data, measure, rows), full=True)
            parts.append((figure, _table(data, rows)))
    return html.render("study/posterior.html", PAGES, parts=parts) if parts else None


def _chart(data: StudyReportData, measure: Measure, rows: Sequence[PosteriorEffect]) -> Any:
    frame = pl.DataFrame(
        {
            "row": [r.arm for r in rows],
            "population": [r.arm for r in rows],
            **{name: [getattr(r, name) for r in rows] for name in ("effect", "low", "high")},
            **{name: [getattr(r, name) for r in rows] for name in ("unpaired_low", "unpaired_high")},
            "label": [f"{signed(r.effect, 3)} [{interval(r.low, r.high)}]" for r in rows],
        }
    )
    better = "lower" if measure.lower_is_better else "higher"
    labels = ChartLabels(
        f"{measure.name} against {data.study.base_arm}, with what is unknown of the parameters",
        f"95 % of the worlds of the posterior; {better} is better; pale: without common random numbers and parameters",
        "difference",
        "+.3~g",
    )
    return charts.forest(frame, data.theme(), labels)


def _table(data: StudyReportData, rows: Sequence[PosteriorEffect]) -> Table:
    body: list[Cells] = [
        [
            tinted(data.arms, r.arm),
            str(r.draws),
            number(r.base_mean, 4),
            Cell(signed(r.effect, 4), bold=True),
            interval(r.low, r.high, 4),
            interval(r.mean_low, r.mean_high, 4),
            percent(r.better),
            percent(r.best),
        ]
        for r in rows
    ]
    head = ["arm", "draws", "base", "effect", "95 % of worlds", "95 % interval of the mean", "better in", "best in"]
    return Table(head, body)
