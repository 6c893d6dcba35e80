"""Charts of what happens to rare words and tokens, of distances between models, and of downstream tasks."""

from __future__ import annotations

from typing import Any

import polars as pl

from ecosystem.report import charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData
from ecosystem.report.run_charts import UNCHANGED, metric_title

DISTANCES = {
    "cross_entropy_synthetic": ChartLabels(
        "Cross-entropy on synthetic text",
        "nats per token, on unpublished text that all trainers wrote at the same step",
        "nats per token",
        ".2f",
    ),
    "next_token_l1": ChartLabels(
        "Change in next-token distributions",
        "L1 distance (0 to 2) from the initial weights, mean over held-out contexts",
        "L1 distance",
        ".2f",
    ),
    "radioactivity_z": ChartLabels(
        "Radioactivity",
        "standard deviations by which a model's likeliest tokens after human text are marked more often than by chance",
        "z",
        ".1f",
    ),
}
BY_FREQUENCY = {
    "cross_entropy_frequent": "Change in cross-entropy on frequent tokens",
    "cross_entropy_rare": "Change in cross-entropy on rare tokens",
}
DOWNSTREAM = {
    "accuracy": ("fine-tuned", "share of correct answers after fine-tuning"),
    "zero_shot": ("zero-shot", "share of correct answers without fine-tuning"),
}


def vocabulary(data: RunReportData) -> Any:
    """Draw the share of the human vocabulary that each population kept, by frequency, at its first and last step."""
    parts, human = [], []
    for decile in range(1, 11):
        metric = f"vocabulary_kept_{decile}"
        means = summaries.means(summaries.members(data.metrics, metric))
        for when, ordered in (("first", means), ("last", means.reverse())):
            rows = ordered.unique("population", keep="first", maintain_order=True)
            parts.append(rows.with_columns(decile=pl.lit(decile), when=pl.lit(when)))
        levels = summaries.references(data.metrics, metric).filter(pl.col("kind") == "human")
        human.append(levels.select(decile=pl.lit(decile), value="value"))
    frame = pl.concat(parts)
    if frame.is_empty():
        return None
    labels = ChartLabels(
        "Human vocabulary kept, by frequency",
        "words that occur, as a share of those expected in as much human text; dashed: first step; solid: last step",
        "share kept",
        ".0%",
    )
    return charts.vocabulary(frame, pl.concat(human), data.theme, labels)


def tails(data: RunReportData) -> dict[str, Any]:
    """Draw the changes on frequent and rare tokens, and the metrics of DISTANCES; return the charts by metric."""
    changes = {metric: summaries.changes(data.metrics, metric, data.started) for metric in BY_FREQUENCY}
    changes = {metric: frame for metric, frame in changes.items() if frame["step"].n_unique() > 1}
    drawn = {}
    values = [value for frame in changes.values() for value in [*frame["value"], *_with_errors(summaries.means(frame))]]
    # Both charts share a scale, so that rare and frequent tokens can be compared by eye.
    margin = 0.12 * (max(values) - min(values)) or 0.1 if values else 0.1
    for metric, frame in changes.items():
        labels = ChartLabels(
            BY_FREQUENCY[metric],
            "nats per token since the start, on held-out human text; same scale for frequent and rare tokens",
            "nats per token",
            "+.2f",
        )
        domain = [min(*values, 0.0) - margin, max(*values, 0.0) + margin]
        drawn[metric] = charts.over_steps(
            summaries.means(frame), data.theme, labels, single=frame, levels=UNCHANGED, domain=domain
        )
    for metric, labels in DISTANCES.items():
        single = summaries.members(data.metrics, metric)
        if single.height:
            drawn[metric] = charts.over_steps(summaries.means(single), data.theme, labels, single=single)
    return drawn


def _with_errors(frame: pl.DataFrame) -> list[float]:
    """Return the ends of the error bars of values (columns value and error)."""
    error = frame["error"].fill_null(0.0).fill_nan(0.0)
    return [*(frame["value"] - error), *(frame["value"] + error)]


def downstream(data: RunReportData, metric: str, task: str) -> Any:
    """Draw the accuracy on a downstream task; ``metric``: ``accuracy`` (fine-tuned) or ``zero_shot``."""
    single = summaries.members(data.metrics, f"{metric}_{task}")
    levels = summaries.references(data.metrics, f"{metric}_{task}")
    if single.is_empty():
        return None
    condition, subtitle = DOWNSTREAM[metric]
    labels = ChartLabels(
        f"{metric_title(task)}, {condition}", f"{subtitle}; dotted: random weights and guessing", "accuracy", ".0%"
    )
    values = [*_with_errors(summaries.means(single)), *single["value"], *levels["value"]]
    domain = [max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)]
    return charts.over_steps(summaries.means(single), data.theme, labels, single=single, levels=levels, domain=domain)
