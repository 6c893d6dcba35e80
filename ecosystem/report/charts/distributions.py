"""Charts of distributions: fans of quantiles over steps, overlaid densities, and scatter plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from ecosystem.report.charts.axes import (
    DATE,
    change_rules,
    change_tables,
    colours,
    dated,
    step_tooltips,
    steps_axis,
)
from ecosystem.report.charts.templates import Chart, Tables
from ecosystem.report.charts.theme import HUMAN, NARROW, ChartLabels, ChartTheme


def fan(
    frame: pl.DataFrame, human: pl.DataFrame, theme: ChartTheme, labels: ChartLabels, domain: Sequence[float]
) -> Chart:
    """Draw the quantiles of a population over steps: the median, and bands between symmetric quantiles.

    ``frame``: population, step, percent, value. ``human``: percent, value of human text; the median and, fainter, the
    outermost quantiles are dotted lines. ``domain``: ends of the logarithmic value axis.
    """
    width, height = NARROW
    x = steps_axis(theme, width)
    scale = alt.Scale(type="log", domain=list(domain), nice=False)
    axis = alt.Axis(format=labels.format, values=_ticks(*domain))

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    tooltip = [
        alt.Tooltip("population:N"),
        *step_tooltips(theme),
        alt.Tooltip("percent:Q", title="quantile (%)"),
        alt.Tooltip("value:Q", title=labels.axis, format=labels.format),
    ]
    tables = Tables(dated(change_tables(theme, width), theme))
    layers = change_rules(theme, width, tables)
    frame = dated({"frame": frame}, theme)["frame"]
    when = [name for name in frame.columns if name in ("step", DATE)]
    colour, single_step = colours(theme), frame["step"].n_unique() == 1
    for low in sorted(p for p in frame["percent"].unique().to_list() if p < 50):
        ends = [
            frame.filter(pl.col("percent") == p).select(*when, "population", value="value") for p in (low, 100 - low)
        ]
        band = ends[0].rename({"value": "low"}).join(ends[1].rename({"value": "high"}), on=[*when, "population"])
        base = tables.chart(f"quantiles {low:g} to {100 - low:g} %", band)
        mark = base.mark_rule(strokeWidth=9, strokeOpacity=0.12) if single_step else base.mark_area(fillOpacity=0.12)
        layers.append(mark.encode(x=x, y=y("low"), y2=alt.Y2("high:Q"), color=colour))
    for percent, strength in ((1, 0.45), (50, 1.0), (99, 0.45)):
        rows = human.filter(pl.col("percent") == percent).with_columns(population=pl.lit("human text"))
        if rows.height:
            rule = tables.chart(f"human text, quantile {percent} %", rows).mark_rule(
                strokeDash=[2, 3], strokeWidth=1.4, strokeOpacity=strength, style="soft"
            )
            layers.append(rule.encode(y=y(), tooltip=[alt.Tooltip("population:N"), *tooltip[-2:]]))
    middle = tables.chart("median", frame.filter(pl.col("percent") == 50))
    layers.append(middle.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour))
    layers.append(middle.mark_circle(size=30, opacity=1).encode(x=x, y=y(), color=colour, tooltip=tooltip))
    return tables.drawn(layers, labels, width, height)


def _ticks(low: float, high: float) -> list[float]:
    """Return ticks for a logarithmic axis: powers of ten, and on a short axis also twice and five times these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 300 else (1,)
    return [factor * 10.0**k for k in powers for factor in factors if low <= factor * 10.0**k <= high]


def densities(
    frame: pl.DataFrame,
    truth: pl.DataFrame,
    theme: ChartTheme,
    labels: ChartLabels,
    *,
    x_title: str,
    x: Sequence[float],
    top: float,
    bins: bool = False,
) -> Chart:
    """Draw the densities of a population at several steps in one chart, later steps stronger.

    ``frame``: population, step, x, density. ``truth``: x, density of human documents. ``x_title``: title of the
    horizontal axis, from ``x[0]`` to ``x[1]``. ``top``: end of the vertical axis. ``bins``: draw histograms on a
    logarithmic axis, in which each density holds up to the next ``x``, with the truth filled; otherwise draw curves,
    with the truth dashed.
    """
    steps = sorted(frame["step"].unique().to_list())
    fade = alt.Scale(domain=steps, range=[0.3, 1] if len(steps) > 1 else [1, 1])
    opacity = alt.StrokeOpacity("step:O", scale=fade, legend=None)
    interpolate = "step-after" if bins else "linear"
    kind: dict[str, Any] = {"type": "log"} if bins else {"type": "linear", "zero": False}
    scale = alt.Scale(domain=list(x), nice=False, **kind)
    axis = alt.Axis(format=".3~s", values=_ticks(*x), grid=False) if bins else alt.Axis(tickCount=6, grid=False)
    across = alt.X("x:Q", title=x_title, scale=scale, axis=axis)
    up = alt.Y("density:Q", title=labels.axis, scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=4))
    tables = Tables()
    layers: list[alt.Chart] = []
    if truth.height and bins:
        layers.append(
            tables.chart("human", truth)
            .mark_area(interpolate=interpolate, color=HUMAN, fillOpacity=0.3, clip=True)
            .encode(x=across, y=up)
        )
    curves = tables.chart("densities", frame).mark_line(interpolate=interpolate, strokeWidth=2.2, clip=True)
    tooltip = [
        alt.Tooltip("population:N"),
        alt.Tooltip("step:O"),
        alt.Tooltip("x:Q", title=x_title, format=labels.format),
    ]
    layers.append(
        curves.encode(
            x=across, y=up, color=colours(theme), detail=alt.Detail("step:N"), strokeOpacity=opacity, tooltip=tooltip
        )
    )
    if truth.height and not bins:
        dashed = tables.chart("human", truth).mark_line(strokeDash=[6, 4], strokeWidth=1.6, style="ink", clip=True)
        layers.append(dashed.encode(x=across, y=up))
    return tables.drawn(layers, labels, *NARROW)


def scatter(
    frame: pl.DataFrame, human: pl.DataFrame, theme: ChartTheme, labels: ChartLabels, window: Sequence[Sequence[float]]
) -> Chart:
    """Draw the documents of a population as points over the initial documents.

    ``frame``: population, x, y. ``human``: x, y. ``window``: ends of the horizontal and of the vertical axis.
    """
    axes = [
        channel(f"{name}:Q", title=None, scale=alt.Scale(domain=list(ends), nice=False, zero=False), axis=axis)
        for channel, name, ends, axis in (
            (alt.X, "x", window[0], alt.Axis(tickCount=4, format=".2~g")),
            (alt.Y, "y", window[1], alt.Axis(tickCount=4, format=".2~g")),
        )
    ]
    across, up = axes
    tables = Tables()
    behind = tables.chart("human", human).mark_circle(size=9, color=HUMAN, opacity=0.35, clip=True)
    points = tables.chart("documents", frame).mark_circle(size=14, opacity=0.75, clip=True)
    layers = [behind.encode(x=across, y=up), points.encode(x=across, y=up, color=colours(theme))]
    return tables.drawn(layers, labels, NARROW[0], NARROW[0])
