"""Line charts: quality, contamination and diversity over steps, and the vocabulary kept by frequency."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from ecosystem.report.charts.axes import (
    change_rules,
    change_tables,
    colours,
    dashes,
    dated,
    span,
    spread,
    step_tooltips,
    steps_axis,
)
from ecosystem.report.charts.templates import Chart, Tables, part, vega_lite
from ecosystem.report.charts.theme import LABELLED, NARROW, WIDE, ChartLabels, ChartTheme

FEW = 24  # up to this many trainers are drawn one by one
MANY = 150  # above this many points in total, points are small
Vertical = Callable[..., alt.Y]  # column → y channel


def _labelled(last: pl.DataFrame) -> pl.DataFrame:
    """Return the lines to name beside the plot: all, or of many the three highest and the three lowest."""
    if last.height <= LABELLED:
        return last
    ordered = last.sort("value")
    return pl.concat([ordered.head(3), ordered.tail(3)])


def over_steps(
    frame: pl.DataFrame,
    theme: ChartTheme,
    labels: ChartLabels,
    *,
    single: pl.DataFrame | None = None,
    web: pl.DataFrame | None = None,
    levels: pl.DataFrame | None = None,
    laws: pl.DataFrame | None = None,
    size: tuple[int, int] = NARROW,
    log: bool = False,
    domain: Sequence[float] | None = None,
    reach: bool = True,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Chart:
    """Draw a line over steps for each population, in its colour and named at its end.

    ``frame``: population, step, value, error, members (:func:`ecosystem.report.summaries.means`); bands show ± one
    standard error. ``single``: values of single trainers (:func:`ecosystem.report.summaries.members`), drawn as faint
    lines, or for many trainers as the band from the first to the last decile. ``web``: step, value, error, label of the
    web. ``levels``: label, value of reference lines. ``laws``: population, law, step, value of closed forms, dashed.
    ``reach``: whether the axis reaches to all levels; otherwise the subtitle states those beyond the range of the rest.
    ``limits``: the lowest and the highest possible value, where bands and a linear axis end.
    """
    tables = change_tables(theme, size[0])
    if levels is not None:
        tables["levels"] = levels
    if single is not None and single["trainer"].n_unique() > FEW:
        # A hundred lines show less than the range of most of them, and take minutes to draw.
        tables["deciles"] = _deciles(single)
    elif single is not None and frame["members"].max() != 1:
        tables["single"] = single
    tables["means"] = _with_band(frame, log, limits)
    for name, table in (("web", web), ("laws", laws)):
        if table is not None:
            tables[name] = table
    tables = dated({name: table for name, table in tables.items() if table.height}, theme)
    ranged = [table for name, table in tables.items() if reach or name != "levels"]
    drawn = [table[column] for table in ranged for column in ("low", "value", "high") if column in table]
    if single is not None and "deciles" not in tables:
        drawn.append(single["value"])
    values = [v for column in drawn for v in column if v is not None and (v > 0 or not log)]
    domain = list(domain) if domain else span(values, log)
    if not log:
        domain = [max(domain[0], limits[0]), min(domain[1], limits[1])]
    levels = None
    if "levels" in tables:
        inside = pl.lit(True) if reach else pl.col("value").is_between(domain[0], domain[1])
        tables["levels"] = tables["levels"].with_columns(_shown=inside)
        levels, beyond = (tables["levels"].filter(shown) for shown in ("_shown", ~pl.col("_shown")))
        labels = replace(labels, subtitle=_with_beyond(labels.subtitle, beyond))
    ends = _ends(tables.get("means", frame), tables.get("web"), levels)
    tables |= _names(ends, domain, size[1], log)
    cacheable = replace(theme, populations=tuple(theme.populations), changes=())
    fixed = replace(labels, title="", subtitle="")
    template = _lines(cacheable, fixed, size, log, frame.height > MANY, tuple(tables))
    return Chart.of(template, labels, tables, y=domain)


def _with_beyond(subtitle: str, levels: pl.DataFrame) -> str:
    """Return a subtitle that states the reference lines beyond the axis."""
    stated = ", ".join(f"{label} {value:.4g}" for label, value in levels.select("label", "value").iter_rows())
    return f"{subtitle}; beyond the axis: {stated}" if stated else subtitle


@lru_cache(maxsize=64)
def _lines(
    theme: ChartTheme,
    labels: ChartLabels,
    size: tuple[int, int],
    log: bool,
    many: bool,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Return the template for lines over steps that draws the tables ``names``."""
    x = steps_axis(theme, size[0])
    kind: dict[str, Any] = {"type": "log"} if log else {"type": "linear", "zero": False}
    scale = alt.Scale(domain=[0, 1], nice=False, **kind)
    axis = alt.Axis(format=labels.format, tickCount=5)
    value = alt.Tooltip("value:Q", title=labels.axis, format=labels.format)

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    layers = change_rules(theme, size[0], names)
    if "levels" in names:
        shown = part("levels").transform_filter("datum._shown")  # those beyond the axis are in the data only
        rule = shown.mark_rule(strokeDash=[2, 3], strokeWidth=1.2, style="soft")
        layers.append(rule.encode(y=y(), tooltip=[alt.Tooltip("label:N", title="reference"), value]))
    layers += _population_layers(theme, labels, x, y, value, many, names)
    if "web" in names:
        layers.append(part("web").mark_line(strokeWidth=2.6, style="ink").encode(x=x, y=y()))
        dots = part("web").mark_circle(size=30, style="ink", opacity=1)
        layers.append(
            dots.encode(x=x, y=y(), tooltip=[alt.Tooltip("label:N", title="scope"), *step_tooltips(theme), value])
        )
    if "laws" in names:
        dashes = part("laws").mark_line(strokeDash=[6, 4], strokeWidth=1.6, style="ink")
        tooltip = [alt.Tooltip("law:N"), alt.Tooltip("population:N"), *step_tooltips(theme), value]
        layers.append(
            dashes.encode(x=x, y=y(), detail=[alt.Detail("population:N"), alt.Detail("law:N")], tooltip=tooltip)
        )
    layers += name_layers(theme, y, names)
    return vega_lite(alt.layer(*layers, width=size[0], height=size[1]))


def _deciles(single: pl.DataFrame) -> pl.DataFrame:
    """Return the first and the last decile of the trainers: population, step, low, high."""
    return single.group_by("population", "step", maintain_order=True).agg(
        low=pl.col("value").quantile(0.1, "linear"), high=pl.col("value").quantile(0.9, "linear")
    )


def _with_band(frame: pl.DataFrame, log: bool, limits: tuple[float, float]) -> pl.DataFrame:
    error = pl.col("error").fill_null(0.0).fill_nan(0.0)
    low = pl.col("value") - error
    low = pl.max_horizontal(low, pl.col("value") / 2) if log else low
    low, high = (end.clip(*limits) for end in (low, pl.col("value") + error))
    return frame.with_columns(low=low, high=high)


def _population_layers(
    theme: ChartTheme,
    labels: ChartLabels,
    x: alt.X,
    y: Vertical,
    value: alt.Tooltip,
    many: bool,
    tables: Collection[str],
) -> list[alt.Chart]:
    colour, layers = colours(theme), []
    low, high = y("low"), alt.Y2("high:Q")
    if "deciles" in tables:
        band = part("deciles").mark_area(opacity=1, fillOpacity=0.07)
        layers.append(band.encode(x=x, y=low, y2=high, color=colour))
    if "single" in tables:
        faint = part("single").mark_line(strokeWidth=1, strokeOpacity=0.3)
        layers.append(faint.encode(x=x, y=y(), color=colour, detail=alt.Detail("trainer:N")))
    if "means" not in tables:
        return layers
    base = part("means")
    if theme.first == theme.last:
        layers.append(base.mark_rule(strokeWidth=5, strokeOpacity=0.25).encode(x=x, y=low, y2=high, color=colour))
    else:
        layers.append(base.mark_area(opacity=1, fillOpacity=0.16).encode(x=x, y=low, y2=high, color=colour))
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour, **dashes(theme)))
    tooltip = [
        alt.Tooltip("population:N"),
        *step_tooltips(theme),
        value,
        alt.Tooltip("error:Q", title=labels.error, format=value["format"].replace("+", "")),
        alt.Tooltip("members:Q", title=labels.members),
    ]
    dots = base.mark_circle(size=12 if many else 34, opacity=1)
    layers.append(dots.encode(x=x, y=y(), color=colour, tooltip=tooltip))
    return layers


def _ends(frame: pl.DataFrame, web: pl.DataFrame | None, levels: pl.DataFrame | None) -> pl.DataFrame:
    """Return the names at the right edge of the plot: name, value, kind (population, web or level)."""
    ends = _labelled(frame.group_by("population", maintain_order=True).last())
    parts = [ends.select(name="population", value="value", kind=pl.lit("population"))]
    if levels is not None:
        parts.append(levels.select(name="label", value="value", kind=pl.lit("level")))
    if web is not None:
        parts.append(web.tail(1).select(name="label", value="value", kind=pl.lit("web")))
    return pl.concat(parts)


def _names(ends: pl.DataFrame, domain: Sequence[float], height: int, log: bool = False) -> dict[str, pl.DataFrame]:
    """Return the names beside the plot, without overlaps: kind → place, population (the name)."""
    places = pl.Series(spread(ends["value"].to_list(), domain, height, log), dtype=pl.Float64)
    placed = ends.select("kind", place=places, population="name")
    parts = placed.partition_by("kind", as_dict=True, include_key=False, maintain_order=True)
    return {f"_names of {kind}": rows for (kind,), rows in parts.items()}


def name_layers(theme: ChartTheme, y: Vertical, tables: Collection[str]) -> list[alt.Chart]:
    """Return the names beside the plot, in one column even if a line ends before the last step.

    ``tables``: names of the tables of the chart.
    """
    layers = []
    for kind, style in (("population", None), ("web", "ink"), ("level", "soft")):
        if f"_names of {kind}" in tables:
            text = part(f"_names of {kind}").mark_text(
                align="left", dx=9, fontWeight=500, **({"style": style} if style else {})
            )
            colour = {} if style else {"color": colours(theme)}
            layers.append(text.encode(x=alt.XValue("width"), y=y("place"), text=alt.Text("population:N"), **colour))
    return layers


def vocabulary(frame: pl.DataFrame, human: pl.DataFrame, theme: ChartTheme, labels: ChartLabels) -> Chart:
    """Draw the share of the human vocabulary kept, by frequency decile: dashed at the first step, solid at the last.

    ``frame``: population, decile, when (first or last), step, value, error. ``human``: decile, value.
    """
    width, height = WIDE
    x = alt.X(
        "decile:O", title="frequency decile of the human vocabulary (1: most frequent)", axis=alt.Axis(labelAngle=0)
    )
    domain = [0.0, 1.06 * max([*frame["value"], *human["value"], 0.01])]
    scale, axis = alt.Scale(domain=domain, nice=False), alt.Axis(format="%", tickCount=5)

    def y(column: str = "value") -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    tables = Tables()
    layers: list[alt.Chart] = []
    if human.height:
        line = tables.chart("human", human).mark_line(strokeDash=[2, 3], strokeWidth=1.2, style="soft")
        layers.append(line.encode(x=x, y=y()))
    colour, base = colours(theme), tables.chart("kept", frame)
    ends = ["first", "last"]
    dash = alt.StrokeDash("when:O", scale=alt.Scale(domain=ends, range=[[5, 3], [1, 0]]), legend=None)
    fade = alt.Scale(domain=ends, range=[0.55, 1])
    line_opacity = alt.StrokeOpacity("when:O", scale=fade, legend=None)
    dot_opacity = alt.FillOpacity("when:O", scale=fade, legend=None)
    layers.append(
        base.mark_line(strokeWidth=2.2).encode(x=x, y=y(), color=colour, strokeDash=dash, strokeOpacity=line_opacity)
    )
    error = alt.Tooltip("error:Q", title="± standard error", format=labels.format)
    value = alt.Tooltip("value:Q", title=labels.axis, format=labels.format)
    tooltip = [alt.Tooltip("population:N"), alt.Tooltip("decile:O"), alt.Tooltip("step:Q"), value, error]
    layers.append(
        base.mark_circle(size=34, opacity=1).encode(x=x, y=y(), color=colour, fillOpacity=dot_opacity, tooltip=tooltip)
    )
    solid = frame.filter(pl.col("when") == "last").sort("decile", maintain_order=True)
    level = human.with_columns(label=pl.lit("human text")).tail(1)
    names = _names(_ends(solid, None, level), domain, height)
    tables |= names
    layers += name_layers(theme, y, names)
    return tables.drawn(layers, labels, width, height)
