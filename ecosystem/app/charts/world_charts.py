"""The charts of a world on the page: web, contamination, quality, diversity and ledger."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from ecosystem.app.charts.live_charts import FrameData, LiveChart, fit_height, on_common_scales, split_chart
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.site_map import SiteMap
from ecosystem.metrics.catalogue import plugged_in
from ecosystem.policies.base import Adder
from ecosystem.report import charts, run_charts, summaries, tail_charts
from ecosystem.report.charts import ChartLabels
from ecosystem.report.panels import instruments
from ecosystem.scenario.scenario import Scenario

SMALLEST = (10.0, 30.0)  # area in pixels of the smallest site, with many and with few sites
LARGEST = (40.0, 420.0)  # area of the largest site
CROWDED = 400  # above this many sites, draw on a canvas instead of as SVG, without gaps around dots
REFERENCES = "references"  # a key of qualities: cross-entropy with the untrained and the unigram model
ROOM = 1.4  # the axis of the ledger, as a multiple of its longest bar
LEDGER = "share of the documents that reached a policy or curator; grey: human, violet: synthetic; ± one standard error"


def web(view: RunView) -> LiveChart:
    """Draw the site graph: area is documents, colour their synthetic share, an outline a curated site.

    Sites that are not born yet, or are dead, are not drawn.
    """
    nodes = view.sites(view.last).drop("site").rename({"name": "site"})
    outlined = int(nodes["curated"].sum())
    chart = charts.site_graph(
        nodes if outlined else nodes.drop("curated"), view.links, ChartLabels("", "", "", ".0%"), 1
    )
    spec, data, _, _ = split_chart(chart)
    largest = min(LARGEST[1], max(LARGEST[0], 60_000 / nodes.height))
    for size in charts.scaled(spec, "size"):
        size["scale"]["range"] = [min(SMALLEST[1], max(SMALLEST[0], largest / 10)), largest]
    for layer in spec["layer"]:
        if layer["mark"].get("style") == "halo" and nodes.height > CROWDED:
            layer["mark"]["strokeWidth"] = 0  # it would cover most of a small dot
    name = next(name for name, rows in data.items() if rows and "documents" in rows[0])
    lines = next((key for key, rows in data.items() if rows and "x2" in rows[0]), None)
    below = "; area: documents" + ("; outlined: curated" if outlined else "")
    varying = ("documents", "value", "x", "y") if view.map.changes else ("documents", "value")

    def at(step: int) -> FrameData:
        sites, links = view.sites(step).with_columns(pl.col("value").round(4)), view.links_at(step)
        columns = {name: _lists(sites.select(varying))}
        if view.map.changes and lines is not None:
            columns[lines] = _lists(links)
        shown = f"{view.map.there(step).sum():,} sites"
        shown += f", {links['x'].count():,} links drawn" if links.height else ""
        return FrameData(f"The web at {view.scenario.step_name(step)}", shown + below, columns)

    data[name] = [{k: v for k, v in row.items() if k not in varying} for row in data[name]]
    if view.map.changes and lines is not None:
        data[lines] = []
    return _scaled(LiveChart("web", spec, data, at, steps_apart=True), view.scale)


def _lists(table: pl.DataFrame) -> dict[str, list[Any]]:
    return {name: column.to_list() for name, column in table.to_dict().items()}


def _scaled(chart: LiveChart, most: float) -> LiveChart:
    """Return a site graph on which the largest dot has ``most`` documents."""
    spec = copy.deepcopy(chart.spec)
    for size in charts.scaled(spec, "size"):
        size["scale"]["domain"] = [0, most]
    return replace(chart, spec=spec)


def contamination(view: RunView, metric: str) -> Any:
    """Draw a key of ``run_charts.CONTAMINATION``."""
    return run_charts.contamination(view.report_data, metric)


def possible_measures(scenario: Scenario) -> dict[str, list[str]]:
    """Return the metrics that the panels by metric may offer in worlds of this scenario, before any is measured."""
    contamination = list(run_charts.CONTAMINATION)
    if scenario.modality != "text":
        predicted = [theory.metric for theory in scenario.theory]
        names = list(dict.fromkeys([*predicted, *run_charts.PARAMETERS, *plugged_in()]))
        return {"contamination": contamination, "quality": names, "diversity": names}
    diversity = [*run_charts.TEXT, *plugged_in(), *tail_charts.BY_FREQUENCY, *tail_charts.DISTANCES, "vocabulary"]
    quality = [*run_charts.QUALITY, "change", REFERENCES]
    return {"contamination": contamination, "quality": quality, "diversity": diversity}


def contaminations(view: RunView) -> dict[str, str]:
    """Return the labels of the measures of contamination that this run has, by metric."""
    measured = set(view.metrics.filter(pl.col("scope") == "web")["metric"].unique())
    return {metric: labels.title for metric, labels in run_charts.CONTAMINATION.items() if metric in measured}


def qualities(view: RunView) -> dict[str, str]:
    """Return the labels of the quality measures of this run, by metric."""
    measured = set(view.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if view.scenario.modality == "text":
        names = {metric: label for metric, (label, *_) in run_charts.QUALITY.items() if metric in measured}
        if "cross_entropy" in measured:
            names |= {"change": "Change since the start", REFERENCES: "Cross-entropy, axis up to the references"}
        return names
    return {
        metric: run_charts.metric_title(metric)
        for metric in run_charts.parameters(view.report_data)
        if metric in measured
    }


def quality(view: RunView, metric: str) -> Any:
    """Draw a key of :func:`qualities`."""
    if view.scenario.modality != "text":
        return run_charts.parameter(view.report_data, metric)
    if metric == "change":
        return run_charts.quality_change(view.report_data)
    if metric == REFERENCES:
        return run_charts.quality(view.report_data, "cross_entropy", references=True)
    return run_charts.quality(view.report_data, metric)


def diversities(view: RunView) -> dict[str, str]:
    """Return the labels of the diversity and tail measures of this run, by metric."""
    measured = set(view.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if view.scenario.modality != "text":
        return qualities(view)
    named = (
        run_charts.texts(view.report_data)
        | tail_charts.BY_FREQUENCY
        | {metric: labels.title for metric, labels in tail_charts.DISTANCES.items()}
    )
    names = {metric: label for metric, label in named.items() if metric in measured}
    has_vocabulary = "vocabulary_kept_1" in measured
    return names | ({"vocabulary": "Human vocabulary kept, by frequency"} if has_vocabulary else {})


def diversity(view: RunView, metric: str) -> Any:
    """Draw a key of :func:`diversities`."""
    if view.scenario.modality != "text":
        return run_charts.parameter(view.report_data, metric)
    if metric == "vocabulary":
        return tail_charts.vocabulary(view.report_data)
    if metric in run_charts.texts(view.report_data):
        return run_charts.diversity(view.report_data, metric)
    return tail_charts.tails(view.report_data).get(metric)


def ledger(view: RunView) -> LiveChart | None:
    """Draw what each policy refused at a step, and what curators suspected, by true origin.

    All steps have the same rows and scale. Returns None if nothing was ever refused or suspected.
    """
    adders = [name for name, policy in view.scenario.policies.items() if isinstance(policy, Adder)]
    refused = summaries.refusals(view.metrics, "step").filter(~pl.col("what").is_in(adders))  # which refuse nothing
    refused = refused.with_columns(row=pl.format("{} · {}", "who", "what"))
    suspected = summaries.detections(view.metrics, "step").with_columns(row=pl.format("{} (curators)", "who"))
    rows = pl.concat([refused, suspected]).sort("step", maintain_order=True)
    if rows.is_empty():
        return None
    words = ChartLabels("", "", "share refused or suspected")
    spec, data, _, _ = split_chart(charts.rates(rows.drop("who", "what"), words))
    _fix_ledger_scales(spec, rows["row"].unique(maintain_order=True).to_list())
    ((name, bars),) = data.items()
    columns = list(bars[0])
    by_step: dict[int, list[dict[str, Any]]] = {}
    for bar in bars:
        by_step.setdefault(bar["step"], []).append(bar)

    def at(step: int) -> FrameData:
        shown = by_step.get(step, [])
        return FrameData(
            f"Who refused what at {view.scenario.step_name(step)}, by true origin",
            LEDGER if shown else "nothing was refused or suspected at this step",
            {name: {column: [bar[column] for bar in shown] for column in columns}},
        )

    return LiveChart("ledger", spec, {name: []}, at, steps_apart=True)


def _fix_ledger_scales(spec: dict[str, Any], rows: list[str]) -> None:
    """Give a ledger the same rows at every step, and room for the label of its longest bar."""
    spec["autosize"]["resize"] = True  # the labels move with their bars
    for x in charts.scaled(spec, "x"):
        top = x["scale"]["domain"][1]
        every = next((t for t in (0.01, 0.02, 0.05, 0.1, 0.2) if top <= 5 * t), 0.25)
        x["scale"]["domain"] = [0, ROOM * top]
        x["axis"] = {**x["axis"], "values": [n * every for n in range(int(top / every + 1e-9) + 1)]}
    for layer in spec["layer"]:
        layer["encoding"]["y"]["scale"] = {"domain": rows}
    fit_height(spec)


def instrument(view: RunView, name: str) -> Any:
    """Draw what an instrument observed, beside the truth; None before its first observation."""
    return instruments.instrument(view.report_data, name)


def has_readers(view: RunView) -> bool:
    """Return whether it is measured what readers see of the web."""
    return not view.metrics.filter(pl.col("metric") == "read_synthetic_share", pl.col("scope") == "web").is_empty()


def reach(view: RunView) -> Any:
    """Draw the machine text that readers see beside that of the whole web."""
    return instruments.reach(view.report_data)


class ChartSet:
    """The charts of the worlds of a page, redrawn when a world has a new step or another scenario."""

    def __init__(self, views: Sequence[RunView]) -> None:
        self.views = list(views)
        self._drawn: dict[tuple[Any, ...], list[LiveChart | None]] = {}
        self._graphs: dict[int, tuple[SiteMap, LiveChart]] = {}
        self._versions: list[tuple[int, int]] = []

    def charts(self, draw: Callable[..., Any], *arguments: Any) -> list[LiveChart | None]:
        """Return ``draw(view, *arguments)`` of every view on common scales; None where there is nothing to draw."""
        versions = [(view.last, id(view.scenario)) for view in self.views]
        if versions != self._versions:
            self._drawn.clear()
            self._versions = versions
        key = draw.__name__, *arguments
        if key not in self._drawn:
            drawn = [self._one(number, draw, *arguments) for number in range(len(self.views))]
            present = [chart for chart in drawn if chart is not None]
            common = iter(on_common_scales(present) if len(present) > 1 else present)
            self._drawn[key] = [None if chart is None else next(common) for chart in drawn]
        return self._drawn[key]

    def _one(self, number: int, draw: Callable[..., Any], *arguments: Any) -> LiveChart | None:
        view = self.views[number]
        name = "-".join([view.called, draw.__name__, *map(str, arguments)])
        if draw is web:  # positions are constant; only the scale may change
            if number not in self._graphs or self._graphs[number][0] is not view.map:
                self._graphs[number] = view.map, replace(web(view), name=name)
            return _scaled(self._graphs[number][1], view.scale)
        drawn = draw(view, *arguments)
        if drawn is None:
            return None
        return (
            replace(drawn, name=name)
            if isinstance(drawn, LiveChart)
            else LiveChart.of(name, drawn, view.last, view.scenario.calendar)
        )
