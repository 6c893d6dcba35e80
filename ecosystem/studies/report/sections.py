"""The sections of a study's report: charts with their data tables.

Each function renders a template under ``templates/study`` and returns None if its section does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from ecosystem.errors import EcosystemError
from ecosystem.formats import number
from ecosystem.metrics.estimates import error_of_mean
from ecosystem.metrics.intervals import SIZE_SEEDS
from ecosystem.report import html
from ecosystem.report.findings import plus_minus, signed
from ecosystem.report.html import Cell, Cells, Column, Figure, Table, tinted
from ecosystem.report.panels.contrasts import size_cell
from ecosystem.report.panels.profile import conditions
from ecosystem.studies import analysis
from ecosystem.studies.analysis import Row
from ecosystem.studies.report import study_charts
from ecosystem.studies.report.data import StudyReportData, interval
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.report.profile import profile_parts
from ecosystem.studies.report.study_charts import heading
from ecosystem.studies.statistics import BOOTSTRAP_SEEDS

LISTED_ARMS = 64  # at most, in the methods


def _section(key: str, **context: Any) -> Markup:
    return html.render(f"study/{key}.html", PAGES, **context)


def _key(*parts: str) -> str:
    """Return a safe file name for a chart, from arbitrary names."""
    return "_".join("".join(c if c.isalnum() else "-" for c in part) for part in parts if part)[:80]


def _arm(data: StudyReportData, arm: str, training: str) -> Cell:
    """Return the name of an arm, with a note if trainers did not train."""
    return tinted(data.arms, arm, f"({training})" if training else "")


def effects(data: StudyReportData) -> Markup | None:
    """Show the paired effects of all arms."""
    parts = []
    for measure in data.study.measures:
        for world in data.worlds:
            if rows := data.rows_of(measure, world):
                chart = study_charts.effects(data, measure, world, rows)
                figure = data.figure(_key("effect", measure.name, world), chart, full=True)
                parts.append((figure, _effect_table(data, rows)))
    return _section("effects", parts=parts) if data.effects else None


def _effect_table(data: StudyReportData, rows: Sequence[Row]) -> Table:
    head: list[Column | str] = [
        *("arm", "seeds", "base", Column("effect", "95 % interval")),
        *(Column("g", "95 % interval"), "bootstrap", "unpaired"),
        *("correlation", "narrower", "runs saved", "p (Holm)"),
    ]
    body: list[Cells] = [
        [
            _arm(data, r.arm, r.training),
            str(r.seeds),
            number(r.base_mean, 4),
            Cell(signed(r.effect, 4), small=interval(r.low, r.high, 4), bold=True),
            size_cell(r.effect_size),
            "–"
            if r.bootstrap_low is None or r.bootstrap_high is None
            else interval(r.bootstrap_low, r.bootstrap_high, 4),
            interval(r.unpaired_low, r.unpaired_high, 4),
            number(r.correlation) if np.isfinite(r.correlation) else "–",
            f"{number(r.narrower, 1)} ×" if np.isfinite(r.narrower) and r.saved is not None else "–",
            "–" if r.saved is None else f"{r.saved:,}",
            Cell(f"{r.p_holm:.2g}", bold=r.significant),
        ]
        for r in rows
    ]
    return Table(head, body)


def maps(data: StudyReportData) -> Markup | None:
    """Show each measure as a map over the two axes of a grid."""
    if len(data.study.axes) != 2 or data.study.design.method != "grid":
        return None
    figures = [
        data.figure(_key("map", measure.name, world), chart)
        for measure in data.study.measures
        for world in data.worlds
        if (chart := study_charts.axes_map(data, measure, world)) is not None
    ]
    return _section("maps", figures=figures) if figures else None


@dataclass(frozen=True)
class Sensitivity:
    """The sensitivity indices of a measure as a chart and a table, or why there are none."""

    figure: Figure | None
    table: Table | None
    problem: str = ""


def sensitivity(data: StudyReportData) -> Markup | None:
    """Show the sensitivity indices of each axis."""
    study, morris = data.study, data.study.design.method == "morris"
    if study.compares:
        return None
    parts = []
    for measure in study.measures:
        for world in data.worlds:
            try:
                indices = analysis.indices_of(data.results, measure, world)
            except EcosystemError as problem:
                parts.append(Sensitivity(None, None, f"{heading(measure, world)}: {problem}"))
                continue
            chart = study_charts.sensitivity(measure, world, indices, morris=morris)
            figure = data.figure(_key("index", measure.name, world), chart, full=True)
            rows = [
                [axis, name, f"{value:.4g}", "–" if np.isnan(half) else f"± {half:.2g}"]
                for axis, name, value, half in study_charts.index_rows(indices, morris=morris)
            ]
            parts.append(Sensitivity(figure, Table(["axis", "index", "value", "half interval"], rows, left=(0, 1))))
    return _section("sensitivity", parts=parts)


def rankings(data: StudyReportData) -> Markup | None:
    """Show the arms from best to worst, with ties."""
    parts = []
    for measure in data.study.measures if data.study.compares else []:
        for world in data.worlds:
            ranking = data.rankings.filter((pl.col("measure") == measure.name) & (pl.col("world") == world))
            columns = ranking.select("place", "tied", "arm", "mean", "training")
            rows: list[Cells] = [
                [
                    str(place) if tied == 1 else f"{place}–{place + tied - 1} (tie)",
                    _arm(data, arm, training),
                    number(mean, 4),
                ]
                for place, tied, arm, mean, training in columns.iter_rows()
            ]
            if rows:
                table = Table(["place", "arm", f"mean ({measure.unit})"], rows, left=(0, 1))
                parts.append((heading(measure, world), table))
    return _section("rankings", parts=parts) if parts else None


def worlds(data: StudyReportData) -> Markup | None:
    """Show the regret of each arm over uncertain worlds."""
    results = data.by_world or data.results
    if len(results.study.settings()) < 2 or not data.study.compares:
        return None
    parts = []
    for measure in data.study.measures:
        rows: list[Cells] = [
            [
                _arm(data, r.arm, data.untrained_in_some_world(r.arm, measure.of)),
                number(r.mean, 4),
                number(r.mean_regret, 4),
                number(r.worst_regret, 4),
                r.worst_world if r.worst_regret > 0 else "–",
            ]
            for r in analysis.regrets(results, measure)
        ]
        if rows:
            head = ["arm", "mean over worlds", "mean regret", "worst regret", "in world"]
            parts.append((measure.name, Table(head, rows, left=(0, 4))))
    return _section("worlds", parts=parts)


def profile(data: StudyReportData) -> Markup | None:
    """Show in how many runs each definition of collapse holds, and the order of early-warning signals."""
    if not data.study.compares or data.results.profile.is_empty():
        return None
    parts = profile_parts(data.results, data.arms)
    return _section("profile", parts=parts, conditions=conditions(len(data.arms)), arms="arm")


def course(data: StudyReportData) -> Markup | None:
    """Show the metric of each measure over steps."""
    figures, seen = [], set()
    for measure in data.study.measures if data.study.compares else []:
        if (measure.of, measure.metric) in seen:
            continue
        seen.add((measure.of, measure.metric))
        for world in data.worlds:
            if (chart := study_charts.course(data, measure, world)) is not None:
                key = _key("course", measure.of or "", measure.metric, world)
                figures.append(data.figure(key, chart, full=True))
    return _section("course", figures=figures) if figures else None


def cost(data: StudyReportData) -> Markup | None:
    """Show the costs of arms, quality against cost, and ways to spend at equal cost."""
    study, costs = data.study, data.results.costs
    if costs.is_empty() or not study.compares:
        return None
    kinds = costs["cost"].unique(maintain_order=True).to_list()
    means = costs.group_by("arm", "cost", maintain_order=True).agg(
        pl.col("amount").mean(), error=error_of_mean("amount")
    )
    amounts = {(arm, kind): _amount(amount, error) for arm, kind, amount, error in means.iter_rows()}
    rows: list[Cells] = [
        [tinted(data.arms, arm), *(amounts.get((arm, kind), "–") for kind in kinds)] for arm in data.arms
    ]
    figures = [
        data.figure(_key("cost", measure.name), chart, full=True)
        for measure in (study.measures if study.prices else [])
        if (chart := study_charts.tradeoff(data, measure)) is not None
    ]
    return _section(
        "cost",
        table=Table(["arm", *(kind.replace("_", " ") for kind in kinds)], rows),
        figures=figures,
        equal_cost=_equal_cost_table(data) if study.prices and study.equal_cost is not None else None,
    )


def _amount(amount: float, error: float | None) -> str:
    if not error:
        return f"{amount:,.0f}"
    return plus_minus(amount, error, 0) if amount < 1e6 else f"{amount:.3g} ± {error:.1g}"


def _equal_cost_table(data: StudyReportData) -> Table:
    rows: list[Cells] = [
        [
            d.measure,
            number(d.cost, 0),
            f"{d.way} minus {d.against}",
            str(d.seeds),
            Cell(signed(d.difference, 4), bold=True),
            interval(d.low, d.high, 4),
        ]
        for d in analysis.compare_at_equal_cost(data.results)
    ]
    head = ["measure", "cost above the base arm's", "comparison", "seeds", "difference", "95 % interval"]
    return Table(head, rows, left=(0, 2))


def runs(data: StudyReportData) -> Markup:
    """Show every run with its folder or its error."""
    rows: list[Cells] = [
        [
            tinted(data.arms, arm, world),
            str(seed),
            error or run,
            str(attempts),
            "–" if seconds is None else number(seconds, 1),
        ]
        for arm, world, seed, run, error, attempts, seconds in data.results.runs.iter_rows()
    ]
    head = ["arm", "seed", "run, or error", "attempts", "seconds"]
    return _section("runs", table=Table(head, rows, left=(0, 2)))


def methods(data: StudyReportData) -> Markup:
    """Describe the arms, the worlds and the statistical methods."""
    study = (data.by_world or data.results).study
    arms = [(tinted(data.arms, arm), _values(lever)) for arm, lever in list(study.levers().items())[:LISTED_ARMS]]
    settings = study.settings() if list(study.settings()) != [""] else {}
    return _section(
        "methods",
        base=study.base,
        seeds=", ".join(map(str, study.seeds)),
        bootstrap_seeds=BOOTSTRAP_SEEDS,
        size_seeds=SIZE_SEEDS,
        arms=arms,
        worlds={world: _values(values) for world, values in settings.items()},
    )


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in values.items())
