"""The sections of a report: each draws its charts and renders a template of ``templates/run``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
from markupsafe import Markup

from ecosystem.metrics.estimates import error_of_share
from ecosystem.policies.base import Adder
from ecosystem.report import charts, run_charts, summaries, tables, tail_charts
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import plus_minus
from ecosystem.report.html import Cells, Figure, Table, render, tinted
from ecosystem.report.panels import (
    collapse,
    contrasts,
    distributions,
    instruments,
    profile,
    record,
    site_map,
    site_types,
    times,
)
from ecosystem.report.panels.documents import samples
from ecosystem.runs.run import Run

CONTENTS = {
    "findings": "Findings",
    "profile": "Collapse profile",
    "quality": "Quality",
    "parameters": "Models and theory",
    "contamination": "Contamination",
    "instruments": "What instruments see",
    "diversity": "Diversity and tails",
    "downstream": "Downstream tasks",
    "ledger": "Ledger",
    "web": "The web",
    "texts": "Documents",
    "figures": "Final figures",
    "run": "The run",
    "record": "For the record",
}
OPEN_POPULATIONS = 8  # populations whose documents are shown unfolded
POLICIES = 24  # above this many rows, the chart of refusals pools populations
EVENTS = 200  # maximum number of events shown


def _section(key: str, template: str = "", /, **context: Any) -> Markup:
    return render(f"run/{template or key}.html", key=key, title=CONTENTS[key], **context)


def _profile(data: RunReportData) -> Markup:
    return _section(
        "profile",
        overview=profile.overview(data),
        conditions=profile.conditions(len(data.populations)),
        order=profile.order(data),
        populations=profile.populations(data),
    )


def _quality(data: RunReportData) -> Markup:
    figures = {}
    for metric, (label, *_) in run_charts.QUALITY.items():
        if (chart := run_charts.quality(data, metric)) is not None:
            figure = data.figure(f"quality_{metric}", chart, full=True)
            if (wide := run_charts.quality_with_references(data, metric)) is not None:
                other = data.figure(f"quality_{metric}_references", wide, full=True)
                figure = replace(figure, other=other, choice="Show all references")
            figures[label] = figure
    chart = run_charts.quality_change(data) if figures else None
    change = [] if chart is None else [data.figure("quality_change", chart, full=True)]
    return _section("quality", figures=figures, change=change)


def _figures_of(data: RunReportData, prefix: str, drawn: dict[str, Any]) -> list[Figure]:
    """Store the charts that are not None and return their figures."""
    return [data.figure(f"{prefix}{metric}", chart) for metric, chart in drawn.items() if chart is not None]


def _parameters(data: RunReportData) -> Markup:
    drawn = {metric: run_charts.parameter(data, metric) for metric in run_charts.parameters(data)}
    figures = _figures_of(data, "model_", drawn)
    vectors, shape = distributions.vectors(data)
    return _section(
        "parameters",
        figures=figures,
        vectors=vectors,
        shape=shape,
        collapse=collapse.tables(data),
        forms=sorted({f"{t.metric}: {t.law} ({t.source})" for t in data.run.scenario.theory if t.source}),
    )


def _parameter_figures(data: RunReportData) -> Markup:
    rows: list[Cells] = []
    for metric in run_charts.parameters(data):
        means = summaries.means(summaries.members(data.metrics, metric))
        for population in data.populations:
            last = means.filter(pl.col("population") == population).tail(1)
            if last.is_empty():
                continue
            step, value, error = last.select("step", "value", "error").row(0)
            values = data.laws(metric).filter((pl.col("population") == population) & (pl.col("step") == step))["value"]
            name = tinted(data.populations, population)
            predicted = ", ".join(f"{v:.4g}" for v in values) or "–"
            rows.append([run_charts.metric_title(metric), name, plus_minus(value, error, 4), predicted])
    table = Table(["metric", "population", "simulated", "predicted"], rows, left=(0, 1))
    return _section("figures", "parameter_figures", table=table, compared=_compared(data))


def _contamination(data: RunReportData) -> Markup:
    drawn = {metric: run_charts.contamination(data, metric) for metric in run_charts.CONTAMINATION}
    drawn["reach"] = instruments.reach(data)
    return _section("contamination", figures=_figures_of(data, "contamination_", drawn))


def _instruments(data: RunReportData) -> Markup:
    return _section("instruments", figures=_figures_of(data, "instrument_", instruments.instruments(data)))


def _diversity(data: RunReportData) -> Markup:
    figures = _figures_of(
        data, "text_", {metric: run_charts.diversity(data, metric) for metric in run_charts.texts(data)}
    )
    vocabulary = tail_charts.vocabulary(data)
    return _section(
        "diversity",
        figures=figures,
        vocabulary=[] if vocabulary is None else [data.figure("vocabulary_kept", vocabulary, full=True)],
        tails=_figures_of(data, "", tail_charts.tails(data)),
        perplexities=distributions.perplexities(data),
    )


def _downstream(data: RunReportData) -> Markup:
    spec = data.run.scenario.measure.downstream
    requested = [("accuracy", spec.tasks), ("zero_shot", spec.zero_shot)] if spec is not None else []
    drawn = {
        f"{metric}_{task}": tail_charts.downstream(data, metric, task) for metric, tasks in requested for task in tasks
    }
    return _section("downstream", spec=spec, figures=_figures_of(data, "", drawn))


def _ledger(data: RunReportData) -> Markup:
    policies = data.run.scenario.at(data.run.last_step).policies  # includes policies added by timed changes
    adders = [name for name, policy in policies.items() if isinstance(policy, Adder)]
    refused = summaries.refusals(data.metrics).filter(~pl.col("what").is_in(adders))
    parts = []
    if refused.height:
        if refused.select("who", "what").unique().height > POLICIES:
            pooled = refused.group_by("what", "origin", maintain_order=True).agg(pl.col("flagged", "total").sum())
            flagged, total = pl.col("flagged"), pl.col("total")
            refused = pooled.with_columns(rate=flagged / total, error=error_of_share(flagged, total), row="what")
        else:
            refused = refused.with_columns(row=pl.format("{} · {}", "who", "what"))
        labels = ChartLabels(
            "Refusals by policy and true origin",
            "share of the documents that reached the policy, over all steps; upper bars, grey: human; lower bars, "
            "violet: synthetic; lines: ± one standard error",
            "share refused",
        )
        figure = data.figure("refusals", charts.rates(refused, labels), full=True)
        parts.append((figure, tables.counts_table(refused, ("population · policy", "refused", "evaluated"))))
    suspected = summaries.detections(data.metrics).with_columns(row="who")
    if suspected.height:
        labels = ChartLabels(
            "Documents that curators suspected, by true origin",
            "upper bars, grey: human documents wrongly suspected; lower bars, violet: synthetic documents detected "
            "(the rest were missed)",
            "share of the documents reviewed",
        )
        figure = data.figure("detections", charts.rates(suspected, labels), full=True)
        parts.append((figure, tables.counts_table(suspected, ("curators", "suspected", "reviewed"))))
    return _section("ledger", parts=parts)


def _web(data: RunReportData) -> Markup:
    drawn = dict(site_map.graphs(data.run.path, data.metrics, data.run.last_step, data.theme.calendar))
    types = _figures_of(data, "", site_types.drawn(data))
    return _section("web", figures=_figures_of(data, "", drawn), types=types)


def _samples(data: RunReportData) -> Markup:
    text, examples = data.run.scenario.modality == "text", samples(data)
    initial = "Human text" if text else "Real images" if examples.images else "Real documents"
    return _section(
        "texts", samples=examples, step_name=data.step_name, initial=initial, text=text, opened=OPEN_POPULATIONS
    )


def _figures(data: RunReportData) -> Markup:
    table = tables.final_table(data.metrics, data.outcomes, data.populations)
    return _section("figures", table=table, compared=_compared(data))


def _compared(data: RunReportData) -> Markup:
    several, base = len(data.populations) > 1, next(iter(data.populations), "")
    return render("run/contrasts.html", several=several, base=base, contrasts=contrasts.contrasts(data))


def _run(data: RunReportData) -> Markup:
    run = data.run
    events = run.events
    return _section(
        "run",
        events=[(data.step_name(step), event) for step, event in events[:EVENTS]],
        more=f"{len(events) - EVENTS:,}" if len(events) > EVENTS else "",
        seconds=f"{run.seconds:,.0f}",
        costs=tables.costs(run),
        times=[data.figure(name, chart, full=True) for name, chart in times.drawn(data).items() if chart is not None],
        phases=times.table(data),
    )


def _record(data: RunReportData) -> Markup:
    return record_section(data)


def record_section(data: RunReportData, runs: Sequence[Run] = ()) -> Markup:
    """Return the section for the record, of one run or of several with other seeds."""
    return _section("record", **record.record(data, runs))


_TEXT = (
    _profile,
    _quality,
    _contamination,
    _instruments,
    _diversity,
    _downstream,
    _ledger,
    _web,
    _samples,
    _figures,
    _run,
    _record,
)
_NUMBERS = (
    _profile,
    _parameters,
    _contamination,
    _instruments,
    _ledger,
    _web,
    _samples,
    _parameter_figures,
    _run,
    _record,
)
_KEYS = {section: section.__name__.removeprefix("_") for section in (*_TEXT, *_NUMBERS)}
_KEYS |= {_samples: "texts", _parameter_figures: "figures"}


def sections(data: RunReportData) -> dict[str, Callable[[RunReportData], Markup]]:
    """Return the sections of the report of this run, by their keys in CONTENTS."""
    chosen = _TEXT if data.run.scenario.modality == "text" else _NUMBERS
    scenario = data.run.scenario
    optional = {_downstream: scenario.measure.downstream is not None, _instruments: bool(scenario.instruments)}
    return {_KEYS[section]: section for section in chosen if optional.get(section, True)}
