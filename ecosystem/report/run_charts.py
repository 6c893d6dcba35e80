"""Charts over steps for the report and the interactive page: from the data of a run to an Altair chart.

A function returns None if its metric was not measured.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ecosystem.metrics.catalogue import definitions, plugged_in
from ecosystem.report import charts, summaries
from ecosystem.report.charts import ChartLabels
from ecosystem.report.data import RunReportData

QUALITY = {
    "cross_entropy": ("Cross-entropy", "nats per token", ".2f", False),
    "perplexity": ("Perplexity", "perplexity (log scale)", ".3~s", True),
    "bits_per_byte": ("Bits per byte", "bits per byte", ".2f", False),
    "excess_nats": ("Distance to the truth", "nats per document above the entropy of the true process", ".2f", False),
}
TEXT = {
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct 2-grams",
    "distinct_4": "Distinct 4-grams",
    "self_bleu": "Self-BLEU",
    "rep_4": "Repeated 4-grams",
    "entropy": "Entropy",
    "compression_ratio": "Compression ratio",
    "zipf_exponent": "Zipf exponent",
    "mean_words": "Length of documents",
    "reward": "Reward of drafts",
}
PARAMETERS = (
    "held_out_nll",
    "mean_error",
    "variance",
    "log_variance",
    "standard_deviation",
    "w2",
    "density_distance",
    "density_change",
    "test_error",
    "accuracy",
    "label_accuracy",
    "label_noise",
    "simpson",
    "gini_simpson",
    "entropy",
    "entropy_share",
    "support",
    "max_probability",
    "tail_mass",
    "tail_types",
    "unseen_mass",
    "l1",
    "l2",
    "hellinger",
    "latent_log_std",
    "reward",
    "collapsed",
    "share_writing",
    "share_using_ai",
    "share_silent",
    "human_benefit",
    "ai_benefit",
    "welfare",
)
UNBOUNDED = ("held_out_nll",)  # drawn on a logarithmic axis if they grow without limit
TITLES = {
    "held_out_nll": "Held-out negative log-likelihood",
    "simpson": "Sum of squared probabilities",
    "gini_simpson": "Gini-Simpson diversity",
    "w2": "Squared Wasserstein distance",
    "l1": "L1 distance to the truth",
    "l2": "Squared L2 distance to the truth",
    "mean_error": "Squared error of the mean",
    "support": "Symbols alive",
    "first_type": "Probability of the likeliest true symbol",
    "unseen_mass": "True probability that the model misses",
    "accuracy": "Accuracy of the model",
    "label_accuracy": "Correct labels in the training set",
    "label_noise": "Noise of the labels that the model writes",
    "reward": "Reward of drafts",
    "vocabulary_kept_1": "Most frequent decile kept",
    "vocabulary_kept_10": "Rarest decile kept",
}
CONTAMINATION = {
    "synthetic_share": ChartLabels(
        "Synthetic share", "of the documents on the web, and of training sets (weighted)", "synthetic share", ".0%"
    ),
    "depth": ChartLabels(
        "Mean depth", "model hops back to human data, on the web and in training sets", "model hops", ".1f"
    ),
    "held_out_overlap": ChartLabels(
        "Held-out documents found",
        "share of held-out documents with several words in a row on the web, and in training sets",
        "share of held-out documents",
        ".0%",
    ),
}
UNCHANGED = pl.DataFrame({"label": ["no change"], "value": [0.0]})  # a reference line


def quality(data: RunReportData, metric: str, references: bool = False) -> Any:
    """Draw a metric of QUALITY by population.

    The axis has the range of the curves. The random and the unigram model, far worse than most, are drawn if they
    are in it and stated in the subtitle otherwise; with ``references``, the axis reaches to both.
    """
    label, axis, number_format, log = QUALITY[metric]
    single = summaries.from_start(data.metrics, metric, data.started)
    if single.is_empty():
        return None
    levels = summaries.references(data.metrics, metric).filter(pl.col("kind").is_in(["random", "unigram"]))
    labels = ChartLabels(
        f"{label} on held-out human text",
        f"{axis}; lower is better; bands: ± one standard error; thin lines: single trainers",
        axis,
        number_format,
    )
    return charts.over_steps(
        summaries.means(single),
        data.theme,
        labels,
        single=single,
        levels=levels,
        size=charts.WIDE,
        log=log,
        reach=references,
    )


def quality_with_references(data: RunReportData, metric: str) -> Any:
    """Draw :func:`quality` with its references; None if it was not measured or has them all anyway."""
    narrow, wide = quality(data, metric), quality(data, metric, references=True)
    return None if narrow is None or narrow.spec["title"] == wide.spec["title"] else wide


def quality_change(data: RunReportData) -> Any:
    """Draw the change in cross-entropy of each population since its start, in nats per token."""
    changes = summaries.changes(data.metrics, "cross_entropy", data.started)
    if changes["step"].n_unique() < 2:
        return None
    labels = ChartLabels(
        "Change in cross-entropy since each trainer's start",
        "nats per token on held-out human text; positive values are worse than the initial weights",
        "nats per token",
        "+.2f",
    )
    return charts.over_steps(
        summaries.means(changes), data.theme, labels, single=changes, levels=UNCHANGED, size=charts.WIDE
    )


def metric_title(metric: str) -> str:
    """Return the title of a metric in charts and tables."""
    entry = definitions().get(metric)
    title = TITLES.get(metric) or TEXT.get(metric) or (entry.title if entry is not None else "")
    if not title and metric in QUALITY:
        title = QUALITY[metric][0]
    return title or metric.replace("_", " ").capitalize()


def metric_unit(metric: str) -> str:
    """Return the unit of a metric, "" for pure numbers."""
    entry = definitions().get(metric)
    return "" if entry is None or entry.unit == "1" else entry.unit


def metric_labels(metric: str, subtitle: str) -> tuple[ChartLabels, bool]:
    """Return the texts of a chart of a metric over seeds, and whether its axis is logarithmic."""
    error, members = "half of the 95 % interval", "seeds"
    if metric in CONTAMINATION:
        known = CONTAMINATION[metric]
        return ChartLabels(known.title, subtitle, known.axis, known.format, error, members), False
    _, axis, form, log = QUALITY.get(metric) or ("", "", ".3~g", False)
    if metric.startswith(("accuracy_", "zero_shot_", "vocabulary_kept_")):
        form = ".0%"
    axis = axis if log else metric_unit(metric)
    return ChartLabels(metric_title(metric), subtitle, axis, form, error, members), log


def texts(data: RunReportData) -> dict[str, str]:
    """Return the titles of the metrics of published texts, by metric; those of plug-ins come last."""
    return TEXT | {metric: metric_title(metric) for metric in _plugged_in(data)}


def _plugged_in(data: RunReportData) -> list[str]:
    """Return the metrics of trainers that plug-ins define and this run measured."""
    measured = set(data.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    return [metric for metric in plugged_in() if metric in measured]


def parameters(data: RunReportData) -> list[str]:
    """Return the metrics of models of vectors or categories; those that a closed form predicts come first."""
    predicted = [theory.metric for theory in data.run.scenario.theory]
    return list(dict.fromkeys([*predicted, *PARAMETERS, *_plugged_in(data)]))


def parameter(data: RunReportData, metric: str) -> Any:
    """Draw a metric of models of vectors or categories, or of communities, with closed forms dashed."""
    single, theme = summaries.members(data.metrics, metric), data.theme
    if single.is_empty():
        single, theme = summaries.members(data.metrics, metric, "community"), data.choosing
    if single.is_empty() or (metric == "collapsed" and bool((single["value"] == 0).all())):
        return None
    definition, unit = definitions()[metric], metric_unit(metric)
    laws = data.laws(metric)
    names = laws.select("law").unique(maintain_order=True).to_series()
    subtitle = definition.text + (f"; dashed: {', '.join(names)}" if len(names) else "")
    levels = pl.DataFrame({"label": ["truth"], "value": [1.0]}) if metric == "variance" else None
    means = summaries.means(single)
    log = metric in UNBOUNDED and _spans_decades(single["value"])
    labels = ChartLabels(metric_title(metric), subtitle, f"{unit} (log scale)" if log else unit, ".3~g")
    return charts.over_steps(means, theme, labels, single=single, levels=levels, laws=laws, log=log)


def _spans_decades(values: pl.Series) -> bool:
    """Return whether positive values differ more than a thousandfold: a linear axis would show only the largest."""
    known = values.drop_nulls().filter(values.drop_nulls().is_finite()).to_list()
    return bool(known) and min(known) > 0 and max(known) > 1000 * min(known)


def contamination(data: RunReportData, metric: str) -> Any:
    """Draw a metric of CONTAMINATION for the web and for the training sets of each population."""
    web = summaries.series(data.metrics, "web", metric).with_columns(label=pl.lit("web"))
    single = summaries.members(data.metrics, metric, "training_set")
    if web.is_empty() and single.is_empty():
        return None
    return charts.over_steps(
        summaries.means(single),
        data.theme,
        CONTAMINATION[metric],
        single=single,
        web=web,
        size=(560, 300),
        domain=[0, 1.0] if metric == "synthetic_share" else None,
    )


def diversity(data: RunReportData, metric: str) -> Any:
    """Draw a metric of :func:`texts` by population, with held-out human text as reference line."""
    single = summaries.members(data.metrics, metric)
    if single.is_empty():
        return None
    levels = summaries.references(data.metrics, metric).filter(pl.col("kind") == "human")
    labels = ChartLabels(metric_title(metric), definitions()[metric].text, metric_unit(metric), ".3~r")
    return charts.over_steps(summaries.means(single), data.theme, labels, single=single, levels=levels)
