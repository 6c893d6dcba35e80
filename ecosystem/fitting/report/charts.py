"""Altair charts of a fit: measurements on the bands of runs, posteriors over priors, correlations, pulls, screening."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from ecosystem.calendar import Calendar
from ecosystem.fitting.identify import Pull
from ecosystem.fitting.results import FitResults
from ecosystem.fitting.spec.fit import Parameter
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels
from ecosystem.report.charts.theme import HUMAN, NARROW
from ecosystem.studies.sensitivity import Index
from ecosystem.types import Floats

MOST_CURVES = 12  # charts of measurements
_POINTS = 200  # of a density
_DRAWN = (*("kind", "observed", "error", "measured_low", "measured_high", "simulated", "low", "high", "z"),)


def measurements(results: FitResults, what: str) -> Any:
    """Draw the targets of one quantity with their errors over the band of runs at posterior samples."""
    calendar = results.base.calendar
    rows = [i for i, target in enumerate(results.targets) if target.what == what]
    table = results.target_table[rows].sort("step")
    if calendar is not None:
        table = table.with_columns(pl.Series(charts.DATE, [calendar.date_of(int(step)) for step in table["step"]]))
    frame = table.with_columns(
        measured_low=pl.col("observed") - pl.col("error"),
        measured_high=pl.col("observed") + pl.col("error"),
        kind=pl.when(pl.col("use") == "fit").then(pl.lit("fitted")).otherwise(pl.lit("held out")),
    )
    ends = [*frame["low"], *frame["high"], *frame["measured_low"], *frame["measured_high"]]
    scale = alt.Scale(domain=charts.span(ends), nice=False, zero=False)

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=None, scale=scale, axis=alt.Axis(format=".3~g", tickCount=5))

    x = _when(frame, calendar)
    tables = charts.Tables()
    base = tables.chart("targets", frame.select(x.shorthand.split(":")[0], *_DRAWN))
    band = (
        base.mark_area(opacity=1, fillOpacity=0.18)
        if frame.height > 1
        else base.mark_rule(strokeWidth=14, strokeOpacity=0.18)
    )
    shape = alt.Shape(
        "kind:N", scale=alt.Scale(domain=["fitted", "held out"], range=["circle", "diamond"]), legend=None
    )
    filled = alt.condition(alt.datum.kind == "fitted", alt.value(1.0), alt.value(0.0))
    tooltip = [
        alt.Tooltip(f"{charts.DATE}:T", timeUnit="utcyearmonthdate") if calendar else alt.Tooltip("step:Q"),
        alt.Tooltip("kind:N"),
        *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("observed", "error", "simulated", "low", "high", "z")),
    ]
    held = " (diamonds: held out)" if "held out" in frame["kind"] else ""
    subtitle = f"measured ± one standard error{held}; band: 90 % of runs at posterior samples"
    layers = [
        band.encode(x=x, y=y("low"), y2="high:Q"),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y("simulated")),
        base.mark_rule(style="ink", strokeWidth=1.3).encode(x=x, y=y("measured_low"), y2="measured_high:Q"),
        base.mark_point(size=48, style="ink", strokeWidth=1.6, fill="currentColor").encode(
            x=x, y=y("observed"), shape=shape, fillOpacity=filled, tooltip=tooltip
        ),
    ]
    return tables.drawn(layers, ChartLabels(what, subtitle, ""), *NARROW)


def _when(frame: pl.DataFrame, calendar: Calendar | None) -> alt.X:
    """Return the axis of the dates, or without a calendar of the steps, of these targets."""
    if calendar is None:
        axis = alt.Axis(format="d", grid=False, tickMinStep=1, labelOverlap=True)
        return alt.X("step:Q", title="step", scale=alt.Scale(zero=False), axis=axis)
    first, last = frame[charts.DATE][0], frame[charts.DATE][-1]
    margin = timedelta(days=max(40, (last - first).days // 30))
    return charts.dates_axis(first - margin, last + margin, NARROW[0])


def posterior(name: str, parameter: Parameter, values: Floats) -> Any:
    """Draw the marginal posterior of a parameter as an area over the density of its prior."""
    ends = parameter.at(np.array([0.002, 0.998]))
    x = np.linspace(float(ends[0]), float(ends[1]), _POINTS)
    rows = pl.concat(
        [
            pl.DataFrame({"x": x, "density": _density(values, x, parameter), "law": "posterior"}),
            pl.DataFrame({"x": x, "density": parameter.prior.density(x), "law": "prior"}),
        ]
    )
    scale = alt.X(
        "x:Q", title=parameter.unit or None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=6)
    )
    y = alt.Y("density:Q", title=None, axis=None)
    after, before = rows.filter(pl.col("law") == "posterior"), rows.filter(pl.col("law") == "prior")
    tables = charts.Tables()
    layers = [
        tables.chart("posterior", after).mark_area(opacity=1, fillOpacity=0.35).encode(x=scale, y=y),
        tables.chart("prior", before).mark_line(strokeWidth=1.6, strokeDash=[4, 3], color=HUMAN).encode(x=scale, y=y),
    ]
    subtitle = f"area: after the fit; dashed: before; {', '.join(parameter.targets)}"
    return tables.drawn(layers, ChartLabels(name, subtitle, ""), NARROW[0], NARROW[1] // 2)


def _density(values: Floats, x: Floats, parameter: Parameter) -> Floats:
    """Return the density of samples at x by a kernel on the probabilities of the prior, reflected at their ends."""
    u, at = parameter.prior.probability(values), parameter.prior.probability(x)
    width = 1.06 * max(float(u.std()), 1e-3) * u.size**-0.2
    mirrored = np.concatenate([u, -u, 2 - u])
    kernel = np.exp(-0.5 * ((at[:, None] - mirrored) / width) ** 2).sum(axis=1)
    return np.asarray(kernel / (u.size * width * np.sqrt(2 * np.pi)) * parameter.prior.density(x))


def correlations(table: pl.DataFrame, tied: float) -> Any:
    """Draw the posterior correlations of all pairs of parameters."""
    frame = table.filter(pl.col("x") != pl.col("y")).with_columns(
        marked=pl.col("value").abs() > tied, label=pl.col("value").round(2).cast(pl.String)
    )
    subtitle = f"framed: pairs that the targets hardly tell apart (beyond ±{tied:g})"
    return matrix(frame, "Posterior correlations", subtitle, 1.0)


def pulls(found: Sequence[Pull], names: Sequence[str]) -> Any:
    """Draw how far each group of targets moves each parameter."""
    rows = [
        {
            "x": name,
            "y": pull.label,
            "value": float(shift),
            "marked": bool(abs(shift) > 1),
            "label": f"{shift:+.2f} posterior standard deviations",
        }
        for pull in found
        for name, shift in zip(names, pull.shift, strict=True)
    ]
    subtitle = "shift of the posterior mean by these targets, in posterior standard deviations; framed if more than 1"
    return matrix(pl.DataFrame(rows), "Where targets pull", subtitle, 3.0)


def narrowing(found: Sequence[Pull], names: Sequence[str]) -> Any:
    """Draw how much wider the posterior of each parameter is without each group of targets."""
    rows = [
        {
            "x": name,
            "y": pull.label,
            "value": float(widening),
            "marked": bool(widening > 1.5),
            "label": f"{widening:.2f} times as wide without",
        }
        for pull in found
        for name, widening in zip(names, pull.widening, strict=True)
    ]
    subtitle = "standard deviation without these targets over that with all; 1: they say nothing that others do not"
    return matrix(pl.DataFrame(rows), "What targets say", subtitle, None)


def matrix(frame: pl.DataFrame, title: str, subtitle: str, limit: float | None) -> Any:
    """Draw numbers by row and column: ``frame`` has x, y, value, marked and label.

    Colours are symmetric around 0 and reach full strength at ``limit``; None: they rise from 1.
    """
    columns, rows = (frame[name].unique(maintain_order=True).to_list() for name in ("x", "y"))
    columns = sorted(columns, key=rows.index) if set(columns) == set(rows) else columns
    tilted = len(columns) > 1 and max(map(len, columns)) > 10
    x = alt.X("x:N", sort=columns, title=None, axis=alt.Axis(labelAngle=-30 if tilted else 0, labelLimit=160))
    y = alt.Y("y:N", sort=rows, title=None, axis=alt.Axis(labelLimit=280))
    if limit is None:
        scale = alt.Scale(domain=[1.0, 3.0], clamp=True, range=["#8793a322", "#8b5cd6"])
    else:
        scale = alt.Scale(domain=[-limit, 0.0, limit], clamp=True, range=["#d55e00", "#8793a322", "#0072b2"])
    colour = alt.Color("value:Q", title=None, legend=None, scale=scale)
    tooltip = [alt.Tooltip("y:N"), alt.Tooltip("x:N"), alt.Tooltip("label:N")]
    text = alt.Text("value:Q", format=".2f" if limit is None else "+.2f")
    tables = charts.Tables()
    base = tables.chart("cells", frame)
    layers = [
        base.mark_rect(cornerRadius=2).encode(x=x, y=y, color=colour, tooltip=tooltip),
        base.mark_text(fontSize=11.5, strokeWidth=3, style="halo").encode(x=x, y=y, text=text),
        base.mark_text(fontSize=11.5, style="ink").encode(x=x, y=y, text=text),
        base.transform_filter("datum.marked").mark_rect(filled=False, strokeWidth=1.6, style="ink").encode(x=x, y=y),
    ]
    labels = ChartLabels(title, subtitle, "")
    return tables.drawn(layers, labels, max(160, 72 * len(columns)), max(60, 34 * len(rows)))


def screening(title: str, indices: Sequence[Index]) -> Any:
    """Draw the indices of a Morris screening."""
    rows = []
    for index in sorted(indices, key=lambda i: -i.main):
        half = 0.0 if np.isnan(index.main_half) else index.main_half
        rows.append(
            {"row": index.axis, "index": "mu*: mean size of its effects", "value": index.main}
            | {"low": index.main - half, "high": index.main + half}
        )
        rows.append(
            {"row": index.axis, "index": "sigma: their spread", "value": index.total}
            | {"low": index.total, "high": index.total}
        )
    subtitle = "elementary effects over the whole prior; lines: 95 % bootstrap intervals"
    return charts.bars(pl.DataFrame(rows), ChartLabels(title, subtitle, "effect", ".3~g"))
