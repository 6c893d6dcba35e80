"""Bar charts of rates by true origin, and maps of the site graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import altair as alt
import polars as pl

from ecosystem.report.charts.templates import Chart, Tables, part, vega_lite
from ecosystem.report.charts.theme import HUMAN, LABELLED, NARROW, SYNTHETIC, WIDE, ChartLabels, ChartTheme


def rates(frame: pl.DataFrame, labels: ChartLabels) -> Chart:
    """Draw two bars per row, human above synthetic: the shares refused or suspected.

    ``frame``: row, origin, flagged, total, rate, error (:func:`ecosystem.report.summaries.refusals`).
    """
    texts = [f"{100 * rate:.1f} % of {total:,.0f}" for rate, total in frame.select("rate", "total").iter_rows()]
    low, high = pl.max_horizontal(pl.col("rate") - pl.col("error"), 0.0), pl.col("rate") + pl.col("error")
    bars = frame.with_columns(low=low, high=high, _label=pl.Series(texts, dtype=pl.String))
    top = max([*(v for v in bars["high"] if v is not None), *frame["rate"], 0.01]) * 1.02
    template = _bars(tuple(frame["row"].unique(maintain_order=True).to_list()), labels.axis)
    return Chart.of(template, labels, {"bars": bars}, x=[0, top])


@lru_cache(maxsize=16)
def _bars(order: tuple[str, ...], title: str) -> dict[str, Any]:
    """Return the template for pairs of bars; ``order``: the rows from top to bottom."""
    base = part("bars")
    row = alt.Y("row:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=260, labelFontSize=12, labelPadding=10))
    offset = alt.YOffset("origin:N", sort=["human", "synthetic"])
    x = alt.X("rate:Q", title=title, scale=alt.Scale(domain=[0, 1], nice=False), axis=alt.Axis(format="%", tickCount=5))
    colour = alt.Color(
        "origin:N", scale=alt.Scale(domain=["human", "synthetic"], range=[HUMAN, SYNTHETIC]), legend=None
    )
    tooltip = [
        alt.Tooltip("row:N", title="by"),
        alt.Tooltip("origin:N", title="true origin"),
        alt.Tooltip("flagged:Q", format=",d"),
        alt.Tooltip("total:Q", format=",d"),
        alt.Tooltip("rate:Q", format=".2%"),
        alt.Tooltip("error:Q", title="± standard error", format=".2%"),
    ]
    bars = base.mark_bar(cornerRadiusEnd=2, height={"band": 0.86}).encode(
        x=x, y=row, yOffset=offset, color=colour, tooltip=tooltip
    )
    errors = base.mark_rule(style="ink", strokeOpacity=0.55).encode(
        x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"), y=row, yOffset=offset
    )
    texts = base.mark_text(align="left", dx=7, fontSize=11, style="soft").encode(
        x=alt.X("high:Q", title=title), y=row, yOffset=offset, text=alt.Text("_label:N")
    )
    return vega_lite(alt.layer(bars, errors, texts, width=WIDE[0], height=46 * len(order)))


def stacked(
    frame: pl.DataFrame, theme: ChartTheme, others: Sequence[str], phases: Sequence[str], labels: ChartLabels
) -> Chart:
    """Draw a bar for every phase, divided by population; ``others`` are grey parts, no populations of the theme.

    ``frame``: phase, population, value. ``phases`` is their order from top to bottom.
    """
    rank = {name: place for place, name in enumerate([*theme.populations, *others])}
    parts = (
        frame.sort(pl.col("population").replace_strict(rank, return_dtype=pl.Int32), maintain_order=True)
        .with_columns(end=pl.col("value").cum_sum().over("phase"))
        .with_columns(start=pl.col("end") - pl.col("value"))
    )
    x = alt.X("start:Q", title=labels.axis, axis=alt.Axis(format=",~f", tickCount=6))
    y = alt.Y("phase:N", sort=list(phases), title=None, axis=alt.Axis(labelFontSize=12, labelPadding=10))
    tooltip = ["phase:N", "population:N", alt.Tooltip("value:Q", title=labels.axis, format=labels.format)]
    legend = alt.Legend(orient="top", title=None)
    hues = alt.Scale(domain=list(theme.populations))  # its range is that of the page's light or dark mode
    greys = alt.Scale(domain=list(others), range="ordinal")
    tables = Tables()
    layers = [
        tables.chart(name, part)
        .mark_bar(height={"band": 0.78})
        .encode(x=x, x2="end:Q", y=y, tooltip=tooltip, color=alt.Color("population:N", scale=scale, legend=named))
        for name, part, scale, named in (
            (
                "populations",
                parts.filter(~pl.col("population").is_in(others)),
                hues,
                legend if len(rank) <= LABELLED else None,
            ),
            ("others", parts.filter(pl.col("population").is_in(others)), greys, legend),
        )
        if part.height
    ]
    return tables.drawn(layers, labels, WIDE[0], 26 * len(phases), color="independent")


def site_graph(nodes: pl.DataFrame, links: pl.DataFrame, labels: ChartLabels, most: float) -> Chart:
    """Draw the sites of the web: colour shows the synthetic share, area the number of documents.

    ``nodes``: site, x, y (0 to 1), documents, value (synthetic share, null for an empty site) and optionally curated
    (boolean), to outline the sites of curators. ``links``: x, y, x2, y2. ``most``: number of documents of the largest
    dot, the same in all charts of a row.
    """
    span = alt.Scale(domain=[-0.03, 1.03], nice=False)
    x, y = alt.X("x:Q", axis=None, scale=span), alt.Y("y:Q", axis=None, scale=span)
    largest = min(420.0, 60000 / max(1, nodes.height))
    dense = links.height > 600
    tables = Tables()
    sites = tables.chart("sites", nodes)
    lines = tables.chart("links", links).mark_rule(
        strokeWidth=0.5 if dense else 0.8, strokeOpacity=0.18 if dense else 0.35, style="soft"
    )
    legend = alt.Legend(format="%", orient="bottom", direction="horizontal")
    share = alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], type="linear"), title="synthetic share", legend=legend)
    least = max(9.0, largest / 40)  # smallest area of a site with documents: colours are hard to see on smaller dots
    area = alt.Scale(domain=[0, most], range=[least, max(largest, 5 * least)])
    tooltip = [
        alt.Tooltip("site:N"),
        alt.Tooltip("documents:Q", format=",d"),
        alt.Tooltip("value:Q", title="synthetic share", format=labels.format),
    ]
    dots = sites.mark_circle(opacity=1, strokeWidth=0.4 if dense else 0.8, style="halo")
    area_of = alt.Size("documents:Q", scale=area, legend=None)
    outlines = []
    if "curated" in nodes.columns:
        ring = sites.transform_filter("datum.curated").mark_point(filled=False, opacity=1, strokeWidth=1.6)
        tooltip.append(alt.Tooltip("curated:N", title="curated"))
        # The ring covers its dot, so it carries the tooltip.
        outlines = [ring.encode(x=x, y=y, size=area_of, stroke=alt.StrokeValue("#c98200"), tooltip=tooltip)]
    layers = [
        lines.encode(x=x, y=y, x2=alt.X2("x2:Q"), y2=alt.Y2("y2:Q")),
        # Sites without documents have no share; they are drawn below the others.
        sites.mark_circle(opacity=1, size=largest / 60, style="soft").encode(x=x, y=y),
        dots.encode(x=x, y=y, color=share, size=area_of, tooltip=tooltip),
        *outlines,
    ]
    return tables.drawn(layers, labels, NARROW[0], 360)
