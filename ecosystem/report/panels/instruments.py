"""Charts of what instruments observe of the web beside the truth, and of what readers see beside all there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from ecosystem.formats import number, percent
from ecosystem.report import charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import LISTED, bold, plus_minus, share
from ecosystem.scenario.entries.instruments import InstrumentSpec

TITLES = {
    "flagged_share": "share flagged as machine text",
    "ai_text_share": "estimated share of AI in text",
    "posts": "posts relative to the baseline",
    "pages_gone": "pages seen earlier and gone",
    "synthetic_kept_ratio": "machine text kept, relative to human text",
}
RATIOS = ("posts", "synthetic_kept_ratio")
POPULATIONS = {
    "new": "new documents",
    "live": "all documents on the web",
    "crawl": "documents that crawlers reach",
    "read": "documents as readers see them",
    "new_sites": "first documents of new sites",
}
PAGES = {"new": "pages published then", "live": "pages on the web then"}


def instruments(data: RunReportData) -> dict[str, Any]:
    """Draw what every instrument observed, with ± one standard error, and the true values; by name."""
    drawn = {name: instrument(data, name) for name in data.run.scenario.instruments}
    return {name: chart for name, chart in drawn.items() if chart is not None}


def instrument(data: RunReportData, name: str) -> Any:
    """Draw what one instrument observed, with ± one standard error, and the true values; None without observations."""
    settings = data.run.scenario.instruments[name]
    own = data.metrics.filter((pl.col("scope") == "instrument") & (pl.col("id") == name))
    observed = summaries.members(own, settings.observes, "instrument")
    if observed.is_empty():
        return None
    truth = summaries.series(own, "instrument", "true_value").with_columns(label=pl.lit("true value"))
    labels = ChartLabels(
        f"{name}: {TITLES[settings.observes]}",
        _subtitle(settings),
        *(("ratio", ".2f") if settings.observes in RATIOS else ("share", ".0%")),
    )
    theme = replace(data.theme, populations=[name])
    return charts.over_steps(summaries.means(observed), theme, labels, web=truth)


def findings(data: RunReportData) -> list[str]:
    """State what every instrument gave at its last observation, and the share of machine text that readers see."""
    parts = []
    for name, settings in data.run.scenario.instruments.items():
        own = data.metrics.filter((pl.col("scope") == "instrument") & (pl.col("id") == name))
        observed = summaries.series(own, "instrument", settings.observes).tail(1)
        truth = summaries.series(own, "instrument", "true_value").tail(1)["value"]
        for value, error in observed.select("value", "error").iter_rows():
            ratio = settings.observes in RATIOS
            shown = plus_minus(value, error) if ratio else share(value, error)
            true = f" (in truth {number(truth[0]) if ratio else percent(truth[0])})" if len(truth) else ""
            parts.append(f"{bold(name)}, {TITLES[settings.observes]}: {shown}{true}")
    more = "" if len(parts) <= LISTED else f" (and {len(parts) - LISTED} more)"
    sentences = [f"What instruments last observed: {'; '.join(parts[:LISTED])}{more}."] if parts else []
    read = summaries.series(data.metrics, "web", "read_synthetic_share").tail(1)
    web = summaries.series(data.metrics, "web", "synthetic_share").tail(1)
    if read.height and web.height:
        sentences.append(
            f"Of what readers see, {percent(read['value'][0])} is machine text; of what is on the web, "
            f"{percent(web['value'][0])}."
        )
    return sentences


def _subtitle(settings: InstrumentSpec) -> str:
    """Return what an instrument observes and with what errors, in a line."""
    parts = []
    if settings.observes in ("flagged_share", "ai_text_share"):
        parts.append(POPULATIONS[settings.population])
    elif settings.observes == "pages_gone":
        parts.append(PAGES[settings.population])
    elif settings.policy is not None:
        parts.append(f"by the policy {settings.policy}")
    if settings.site_types is not None:
        parts.append(f"on sites of type {', '.join(settings.site_types)}")
    if settings.sample is not None:
        parts.append(f"sample of {settings.sample:,}")
    rates = {"false positives": settings.false_positive_rate, "false negatives": settings.false_negative_rate}
    parts += [f"{name} {rate:.3g}" for name, rate in rates.items() if rate]
    return "; ".join([*parts, "band: ± one standard error; line without a band: the truth"])


def reach(data: RunReportData) -> Any:
    """Draw the share of machine text in what readers see beside that of all documents; None if not measured."""
    read = summaries.series(data.metrics, "web", "read_synthetic_share")
    if read.is_empty():
        return None
    web = summaries.series(data.metrics, "web", "synthetic_share").with_columns(
        population=pl.lit("on the web"), members=pl.lit(1)
    )
    labels = ChartLabels(
        "Machine text that readers see",
        "sites by PageRank, the documents of a site alike; beside the share of all documents on the web",
        "synthetic share",
        ".0%",
    )
    theme = replace(data.theme, populations=["on the web"])
    return charts.over_steps(web, theme, labels, web=read.with_columns(label=pl.lit("seen")))
