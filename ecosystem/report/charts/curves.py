"""Charts of fitted laws: measured values beside curves with their intervals, and residuals."""

from __future__ import annotations

import altair as alt
import polars as pl

from ecosystem.report.charts.axes import span
from ecosystem.report.charts.templates import Chart, Tables
from ecosystem.report.charts.theme import WIDE, ChartLabels


def curves(points: pl.DataFrame, lines: pl.DataFrame, labels: ChartLabels, across: str) -> Chart:
    """Draw measured values over a fitted curve of each series, with the interval of the curve.

    ``points``: series, x, value. ``lines``: series, x, value, low, high. ``across`` is the title of the horizontal
    axis, which is linear near 0 and logarithmic beyond 1.
    """
    scale = alt.Scale(domain=span([*points["value"], *lines["value"]]), nice=False, zero=False, clamp=True)
    x = alt.X("x:Q", title=across, scale=alt.Scale(type="symlog", constant=1, nice=False))
    series = points["series"].unique(maintain_order=True).to_list()
    colour = alt.Color("series:N", scale=alt.Scale(domain=series), title=None, legend=alt.Legend(orient="right"))

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=alt.Axis(format=labels.format, tickCount=6))

    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=series), title=None, legend=alt.Legend(orient="right"))
    tables = Tables()
    fitted, measured = tables.chart("fitted", lines), tables.chart("measured", points)
    tooltip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=across, format=".3~g"), alt.Tooltip("value:Q")]
    layers = [
        fitted.mark_area(opacity=1, fillOpacity=0.13, clip=True).encode(x=x, y=y("low"), y2="high:Q", color=colour),
        fitted.mark_line(strokeWidth=1.8).encode(x=x, y=y(), color=colour, strokeDash=dash),
        measured.mark_circle(size=46, opacity=0.9).encode(x=x, y=y(), color=colour, tooltip=tooltip),
    ]
    return tables.drawn(layers, labels, WIDE[0] - 180, WIDE[1])


def residuals(points: pl.DataFrame, labels: ChartLabels, across: str) -> Chart:
    """Draw the residual of each point over its fitted value. ``points``: series, x (fitted), value (residual)."""
    series = points["series"].unique(maintain_order=True).to_list()
    colour = alt.Color("series:N", scale=alt.Scale(domain=series), title=None, legend=alt.Legend(orient="right"))
    x = alt.X("x:Q", title=across, scale=alt.Scale(domain=span(points["x"].to_list()), nice=False, zero=False))
    scale = alt.Scale(domain=span([*points["value"], 0.0]), nice=False)
    y = alt.Y("value:Q", title=labels.axis, scale=scale, axis=alt.Axis(format=labels.format, tickCount=5))
    tables = Tables()
    zero = tables.chart("_zero", pl.DataFrame({"at": [0.0]})).mark_rule(strokeDash=[2, 3], style="ink")
    tooltip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=across, format=".4~g"), alt.Tooltip("value:Q")]
    layers = [
        zero.encode(y=alt.Y("at:Q", title=labels.axis, scale=scale)),
        tables.chart("residuals", points)
        .mark_circle(size=46, opacity=0.9)
        .encode(x=x, y=y, color=colour, tooltip=tooltip),
    ]
    return tables.drawn(layers, labels, WIDE[0] - 180, WIDE[1] // 2)
