"""Charts of studies: forest plots of effects, heatmaps, quality against cost, sensitivity indices, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import altair as alt
import polars as pl

from ecosystem.report.charts.axes import colours, span
from ecosystem.report.charts.templates import Chart, Tables
from ecosystem.report.charts.theme import NARROW, WIDE, ChartLabels, ChartTheme

_PLACES: dict[str, tuple[Literal["left", "right"], int]] = {  # of the name of a point: alignment, offset in pixels
    "above right": ("left", -8),
    "above left": ("right", -8),
    "below right": ("left", 10),
    "below left": ("right", 10),
}


def forest(frame: pl.DataFrame, theme: ChartTheme, labels: ChartLabels) -> Chart:
    """Draw the paired effect of each arm with its interval, over the interval that unpaired runs would have.

    ``frame``: row (label), population (arm), effect, low, high, unpaired_low, unpaired_high, label.
    """
    values = [*frame["unpaired_low"], *frame["unpaired_high"], *frame["low"], *frame["high"], 0.0]
    scale = alt.Scale(domain=span(values), nice=False)
    axis = alt.Axis(format=labels.format, tickCount=6)
    order = frame["row"].unique(maintain_order=True).to_list()
    y = alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=280, labelFontSize=12, labelPadding=10))

    def x(column: str) -> alt.X:
        return alt.X(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    tooltip = [
        alt.Tooltip("row:N", title="arm"),
        *(alt.Tooltip(f"{c}:Q", format=labels.format) for c in ("effect", "low", "high")),
        alt.Tooltip("unpaired_low:Q", title="unpaired low", format=labels.format),
        alt.Tooltip("unpaired_high:Q", title="unpaired high", format=labels.format),
    ]
    tables, colour = Tables(), colours(theme)
    base = tables.chart("effects", frame.rename({"label": "_label"}))
    zero = tables.chart("_zero", pl.DataFrame({"at": [0.0]})).mark_rule(strokeDash=[2, 3], style="ink")
    wide = base.mark_rule(strokeWidth=8, strokeOpacity=0.22, strokeCap="round")
    paired = base.mark_rule(strokeWidth=2.4)
    dots = base.mark_circle(size=70, opacity=1)
    text = base.mark_text(align="left", dx=8, fontSize=11, style="soft")
    layers = [
        zero.encode(x=x("at")),
        wide.encode(x=x("unpaired_low"), x2=alt.X2("unpaired_high:Q"), y=y, color=colour),
        paired.encode(x=x("low"), x2=alt.X2("high:Q"), y=y, color=colour),
        dots.encode(x=x("effect"), y=y, color=colour, tooltip=tooltip),
        text.encode(x=alt.XValue("width"), y=y, text=alt.Text("_label:N")),
    ]
    # The height is a number, because Vega-Lite logs a warning about heights given per row.
    return tables.drawn(layers, labels, WIDE[0] - 260, 26 * len(order))


def heatmap(frame: pl.DataFrame, axes: tuple[str, str], labels: ChartLabels) -> Chart:
    """Draw a measure over two axes; a dot marks cells that differ from the base arm (``settled``).

    ``frame``: x, y (labels, in order of appearance), value, settled, label.
    """
    orders = [frame[name].unique(maintain_order=True).to_list() for name in ("x", "y")]
    x = alt.X("x:O", sort=orders[0], title=axes[0], axis=alt.Axis(labelAngle=0))
    y = alt.Y("y:O", sort=orders[1][::-1], title=axes[1])
    colour = alt.Color("value:Q", title=None, legend=alt.Legend(format=labels.format), scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("x:N", title=axes[0]),
        alt.Tooltip("y:N", title=axes[1]),
        alt.Tooltip("label:N", title="effect"),
    ]
    tables = Tables()
    base = tables.chart("cells", frame)
    cells = base.mark_rect(cornerRadius=2).encode(x=x, y=y, color=colour, tooltip=tooltip)
    halo = base.mark_text(fontSize=11.5, strokeWidth=3, style="halo").encode(
        x=x, y=y, text=alt.Text("value:Q", format=labels.format)
    )
    text = base.mark_text(fontSize=11.5, style="ink").encode(x=x, y=y, text=alt.Text("value:Q", format=labels.format))
    marks = base.transform_filter("datum.settled").mark_circle(size=16, dy=-14, style="ink", opacity=1)
    layers = [cells, halo, text, marks.encode(x=x, y=y)]
    return tables.drawn(layers, labels, NARROW[0], max(140, 46 * len(orders[1])))


def tradeoff(frame: pl.DataFrame, theme: ChartTheme, labels: ChartLabels, cost: str) -> Chart:
    """Draw quality against cost, with intervals for both; a line joins the arms on the Pareto frontier.

    ``frame``: population (arm), cost, cost_low, cost_high, value, low, high, best (on the frontier).
    """
    reach = span([*frame["cost_low"], *frame["cost_high"]])
    if frame["cost_low"].min() >= 0:  # type: ignore[operator]
        reach[0] = max(reach[0], 0.0)
    x = alt.X("cost:Q", title=cost, scale=alt.Scale(domain=reach, nice=False))
    scale = alt.Scale(domain=span([*frame["low"], *frame["high"]]), nice=False, zero=False)
    y = alt.Y("value:Q", title=labels.axis, scale=scale, axis=alt.Axis(format=labels.format))
    tables, colour = Tables(), colours(theme)
    base = tables.chart("arms", _placed(frame, reach, scale["domain"]))
    front = base.transform_filter("datum.best").mark_line(strokeDash=[5, 4], style="ink", strokeWidth=1.4)
    tooltip = [
        alt.Tooltip("population:N"),
        alt.Tooltip("cost:Q", format=",.6g"),
        alt.Tooltip("value:Q", format=labels.format),
    ]
    layers = [
        front.encode(x=x, y=y),
        base.mark_rule(strokeWidth=1.6).encode(
            x=x, y=alt.Y("low:Q", title=labels.axis, scale=scale), y2=alt.Y2("high:Q"), color=colour
        ),
        base.mark_rule(strokeWidth=1.6).encode(
            x=alt.X("cost_low:Q", title=cost), x2=alt.X2("cost_high:Q"), y=y, color=colour
        ),
        base.mark_circle(size=80, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip),
    ]
    for place, (align, dy) in _PLACES.items():
        names = base.transform_filter(f"datum._place == '{place}'")
        text = names.mark_text(align=align, dx=9 if align == "left" else -9, dy=dy, fontWeight=500)
        layers.append(text.encode(x=x, y=y, text=alt.Text("population:N"), color=colour))
    return tables.drawn(layers, labels, *WIDE)


def _placed(frame: pl.DataFrame, across: Sequence[float], up: Sequence[float]) -> pl.DataFrame:
    """Add where the name of each arm goes: inwards, and below its point if there is another point close above."""
    points = frame.select(
        (pl.col("cost") - across[0]) / (across[1] - across[0]), pl.col("value") / (up[1] - up[0])
    ).rows()
    places = []
    for i, (x, y) in enumerate(points):
        near = any(
            abs(x - other) < 0.15 and 0 <= height - y < 0.08 and (height > y or j < i)
            for j, (other, height) in enumerate(points)
            if j != i
        )
        places.append(("below" if near else "above") + (" left" if x > 0.75 else " right"))
    return frame.with_columns(_place=pl.Series(places, dtype=pl.String))


def bars(frame: pl.DataFrame, labels: ChartLabels) -> Chart:
    """Draw two sensitivity indices for each axis, with their intervals.

    ``frame``: row (axis), index (name of the index), value, low, high.
    """
    order = frame["row"].unique(maintain_order=True).to_list()
    kinds = frame["index"].unique(maintain_order=True).to_list()
    y = alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=280, labelFontSize=12, labelPadding=10))
    offset = alt.YOffset("index:N", sort=kinds)
    scale = alt.Scale(domain=span([*frame["low"], *frame["high"], 0.0]), nice=False)
    axis = alt.Axis(format=labels.format, tickCount=5)
    colour = alt.Color("index:N", scale=alt.Scale(domain=kinds), title=None, legend=alt.Legend(orient="top"))
    tables = Tables()
    base = tables.chart("indices", frame)
    x = alt.X("value:Q", title=labels.axis, scale=scale, axis=axis)
    tooltip = [
        alt.Tooltip("row:N"),
        alt.Tooltip("index:N"),
        *(alt.Tooltip(f"{c}:Q", format=labels.format) for c in ("value", "low", "high")),
    ]
    layers = [
        base.mark_bar(cornerRadiusEnd=2, height={"band": 0.8}).encode(
            x=x, y=y, yOffset=offset, color=colour, tooltip=tooltip
        ),
        base.mark_rule(style="ink", strokeOpacity=0.6).encode(
            x=alt.X("low:Q", title=labels.axis), x2=alt.X2("high:Q"), y=y, yOffset=offset
        ),
    ]
    return tables.drawn(layers, labels, WIDE[0], 20 * len(kinds) * len(order))


def crossing(
    frame: pl.DataFrame,
    limit: float,
    between: tuple[float, float] | None,
    marks: Mapping[str, float],
    labels: ChartLabels,
    lever: str,
    *,
    log: bool = False,
) -> Chart:
    """Draw a measure as a function of a lever, with its limit and the place where it crosses the limit.

    ``frame``: value (of the lever), measure, low, high. ``between``: interval of the crossing, shaded. ``marks``:
    name → value of the lever, drawn as vertical lines. ``log``: use a logarithmic axis for the lever.
    """
    scale = alt.Scale(domain=span([*frame["low"], *frame["high"], limit]), nice=False, zero=False)
    across = alt.Scale(
        **({"type": "log"} if log else {"zero": False}), nice=False, domain=span(frame["value"].to_list(), log)
    )
    axis = alt.Axis(format=labels.format, tickCount=6)
    x = alt.X("value:Q", title=lever, scale=across)

    def y(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=labels.axis, scale=scale, axis=axis)

    tables = Tables()
    base = tables.chart("tried", frame)
    tooltip = [
        alt.Tooltip("value:Q", title=lever),
        *(alt.Tooltip(f"{c}:Q", format=".4~g") for c in ("measure", "low", "high")),
    ]
    layers = []
    if between is not None:
        shade = tables.chart("interval", pl.DataFrame({"value": [between[0]], "to": [between[1]]}))
        layers.append(shade.mark_rect(opacity=0.15, style="soft").encode(x=x, x2=alt.X2("to:Q")))
    rule = tables.chart("limit", pl.DataFrame({"at": [limit], "label": [f"limit {limit:g}"]}))
    layers += [
        rule.mark_rule(strokeDash=[2, 3], style="ink").encode(y=y("at")),
        rule.mark_text(align="left", dx=8, style="soft").encode(
            x=alt.XValue("width"), y=y("at"), text=alt.Text("label:N")
        ),
        base.mark_area(opacity=1, fillOpacity=0.16).encode(x=x, y=y("low"), y2=alt.Y2("high:Q")),
        base.mark_line(strokeWidth=2.2).encode(x=x, y=y("measure")),
        base.mark_circle(size=46, opacity=1).encode(x=x, y=y("measure"), tooltip=tooltip),
    ]
    if marks:
        lines = pl.DataFrame({"value": list(marks.values()), "label": list(marks)})
        dash = alt.StrokeDash("label:N", legend=alt.Legend(title=None, orient="top"))
        layers.append(tables.chart("marks", lines).mark_rule(strokeWidth=1.6, style="ink").encode(x=x, strokeDash=dash))
    return tables.drawn(layers, labels, *WIDE)
