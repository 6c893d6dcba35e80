"""Charts of distributions: quantiles over steps as a fan, overlaid densities at several steps, and scatter plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from ecosystem.report.charts.axes import change_rules, change_tables, colours, steps_axis
from ecosystem.report.charts.theme import HUMAN, NARROW, ChartLabels, ChartTheme


def fan(
    frame: pl.DataFrame, people: pl.DataFrame, theme: ChartTheme, labels: ChartLabels, domain: Sequence[float]
) -> alt.LayerChart:
    """Draw the quantiles of one population over steps: the median, and bands between symmetric quantiles.

    ``frame``: population, step, percent, value. ``people``: percent, value of human text; its median is a dotted line
    and its outermost quantiles are fainter. ``domain``: ends of the logarithmic value axis.
    """
    width, height = NARROW
    x = steps_axis(theme, width)
    scale = alt.Scale(type="log", domain=list(domain), nice=False)
    axis = alt.Axis(format=labels.format, values=_ticks(*domain))

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    tooltip = [
        alt.Tooltip("population:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip("percent:Q", title="quantile in %"),
        alt.Tooltip("value:Q", title=labels.axis, format=labels.format),
    ]
    layers = change_rules(theme, width, change_tables(theme, width))
    colour, alone = colours(theme), frame["step"].n_unique() == 1
    for low in sorted(p for p in frame["percent"].unique().to_list() if p < 50):
        ends = [
            frame.filter(pl.col("percent") == p).select("step", "population", value="value") for p in (low, 100 - low)
        ]
        band = ends[0].rename({"value": "low"}).join(ends[1].rename({"value": "high"}), on=["step", "population"])
        base = alt.Chart(band)
        mark = base.mark_rule(strokeWidth=9, strokeOpacity=0.12) if alone else base.mark_area(fillOpacity=0.12)
        layers.append(mark.encode(x=x, y=y("low"), y2=alt.Y2("high:Q"), color=colour))
    for percent, strength in ((1, 0.45), (50, 1.0), (99, 0.45)):
        rows = people.filter(pl.col("percent") == percent).with_columns(population=pl.lit("human text"))
        if rows.height:
            rule = alt.Chart(rows).mark_rule(strokeDash=[2, 3], strokeWidth=1.4, strokeOpacity=strength, style="soft")
            layers.append(rule.encode(y=y(), tooltip=[alt.Tooltip("population:N"), *tooltip[2:]]))
    middle = alt.Chart(frame.filter(pl.col("percent") == 50))
    layers.append(middle.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour))
    layers.append(middle.mark_circle(size=30, opacity=1).encode(x=x, y=y(), color=colour, tooltip=tooltip))
    title = alt.TitleParams(labels.title, subtitle=labels.below)
    return alt.layer(*layers, width=width, height=height, title=title)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic axis: powers of ten, and on a short axis also twice and five times them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    parts = (1, 2, 5) if high / low < 300 else (1,)
    return [part * 10.0**k for k in powers for part in parts if low <= part * 10.0**k <= high]


def densities(
    frame: pl.DataFrame,
    truth: pl.DataFrame,
    theme: ChartTheme,
    labels: ChartLabels,
    *,
    across: str,
    x: Sequence[float],
    top: float,
    bins: bool = False,
) -> alt.LayerChart:
    """Draw the densities of one population at several steps over one another, later ones stronger.

    ``frame``: population, step, x, density. ``truth``: x, density of human documents. ``across`` is the title of the
    horizontal axis, from ``x[0]`` to ``x[1]``; the vertical axis ends at ``top``. ``bins``: draw histograms, in which
    each density reaches up to the next ``x``, on a logarithmic axis, with the truth filled; else draw curves, with the
    truth dashed.
    """
    steps = sorted(frame["step"].unique().to_list())
    fade = alt.Scale(domain=steps, range=[0.3, 1] if len(steps) > 1 else [1, 1])
    opacity = alt.StrokeOpacity("step:O", scale=fade, legend=None)
    interpolate = "step-after" if bins else "linear"
    kind: dict[str, Any] = {"type": "log"} if bins else {"type": "linear", "zero": False}
    scale = alt.Scale(domain=list(x), nice=False, **kind)
    form = alt.Axis(format=".3~s", values=_ticks(*x), grid=False) if bins else alt.Axis(tickCount=6, grid=False)
    h = alt.X("x:Q", title=across, scale=scale, axis=form)
    v = alt.Y("density:Q", title=labels.axis, scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=4))
    layers: list[alt.Chart] = []
    people = alt.Chart(truth)
    if truth.height and bins:
        layers.append(
            people.mark_area(interpolate=interpolate, color=HUMAN, fillOpacity=0.3, clip=True).encode(x=h, y=v)
        )
    own = alt.Chart(frame).mark_line(interpolate=interpolate, strokeWidth=2.2, clip=True)
    tooltip = [
        alt.Tooltip("population:N"),
        alt.Tooltip("step:O"),
        alt.Tooltip("x:Q", title=across, format=labels.format),
    ]
    layers.append(
        own.encode(x=h, y=v, color=colours(theme), detail=alt.Detail("step:N"), strokeOpacity=opacity, tooltip=tooltip)
    )
    if truth.height and not bins:
        dashed = people.mark_line(strokeDash=[6, 4], strokeWidth=1.6, style="ink", clip=True)
        layers.append(dashed.encode(x=h, y=v))
    title = alt.TitleParams(labels.title, subtitle=labels.below)
    return alt.layer(*layers, width=NARROW[0], height=NARROW[1], title=title)


def scatter(
    frame: pl.DataFrame, people: pl.DataFrame, theme: ChartTheme, labels: ChartLabels, window: Sequence[Sequence[float]]
) -> alt.LayerChart:
    """Draw points of one population over those of the initial documents; ``window``: ends of both axes.

    ``frame``: population, x, y; ``people``: x, y.
    """
    axes = [
        channel(f"{name}:Q", title=None, scale=alt.Scale(domain=list(ends), nice=False, zero=False), axis=axis)
        for channel, name, ends, axis in (
            (alt.X, "x", window[0], alt.Axis(tickCount=4, format=".2~g")),
            (alt.Y, "y", window[1], alt.Axis(tickCount=4, format=".2~g")),
        )
    ]
    h, v = axes
    behind = alt.Chart(people).mark_circle(size=9, color=HUMAN, opacity=0.35, clip=True)
    own = alt.Chart(frame).mark_circle(size=14, opacity=0.75, clip=True)
    layers = [behind.encode(x=h, y=v), own.encode(x=h, y=v, color=colours(theme))]
    title = alt.TitleParams(labels.title, subtitle=labels.below)
    return alt.layer(*layers, width=NARROW[0], height=NARROW[0], title=title)
