"""Charts of the life of the web: its types of sites, what left it and why, and what crawlers may not read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from ecosystem.report import charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData

REASONS = {
    "left_page_died": "page died",
    "left_site_died": "site died",
    "left_curated": "curators",
    "left_filtered": "retain gate",
}
BY_TYPE = {
    "documents": ChartLabels("Documents by type of site", "live documents", "documents", ",.0f"),
    "synthetic_share": ChartLabels(
        "Synthetic share by type of site", "of the live documents of each type", "synthetic share", ".0%"
    ),
    "sites": ChartLabels("Sites by type", "living sites", "sites", ",.0f"),
    "crawl_refused_share": ChartLabels(
        "Documents that crawlers may not read",
        "share of live documents on sites that refuse crawlers, by type of site and on the web",
        "share of documents",
        ".0%",
    ),
}
DEPARTURES = ChartLabels("What left the web", "documents that left in each step, by reason", "documents a step", ",.0f")


def by_type(data: RunReportData, metric: str) -> Any:
    """Draw a metric of BY_TYPE for every type of sites; None if it was not measured."""
    single = summaries.members(data.metrics, metric, "site_type")
    if single.is_empty():
        return None
    names = single["population"].unique(maintain_order=True).to_list()
    web = summaries.series(data.metrics, "web", metric).with_columns(label=pl.lit("web"))
    shares = metric.endswith("share")
    return charts.over_steps(
        summaries.means(single),
        replace(data.theme, populations=sorted(names)),
        BY_TYPE[metric],
        web=web if shares and web.height else None,
        domain=[0, 1.0] if metric == "synthetic_share" else None,
    )


def departures(data: RunReportData) -> Any:
    """Draw how many documents left the web in each step, by reason; None if none ever left."""
    rows = data.metrics.filter((pl.col("scope") == "site_type") & pl.col("metric").is_in(list(REASONS)))
    ever = rows.filter(pl.col("value") > 0)["metric"].unique().to_list()
    if not ever:
        return None
    frame = (
        rows.filter(pl.col("metric").is_in(ever) & (pl.col("step") > 0))
        .group_by("metric", "step", maintain_order=True)
        .agg(pl.col("value").sum())
        .select(
            pl.col("metric").replace(REASONS).alias("population"),
            "step",
            "value",
            error=pl.lit(None, pl.Float64),
            members=pl.lit(1, pl.UInt32),
        )
        .sort("step", maintain_order=True)
    )
    reasons = [text for metric, text in REASONS.items() if metric in ever]
    return charts.over_steps(frame, replace(data.theme, populations=reasons), DEPARTURES)


def drawn(data: RunReportData) -> dict[str, Any]:
    """Return the charts of this module by name; empty for a web without types."""
    by_name = {f"types_{metric}": by_type(data, metric) for metric in BY_TYPE} | {"departures": departures(data)}
    return {name: chart for name, chart in by_name.items() if chart is not None}
