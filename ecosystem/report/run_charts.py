"""The charts over steps of a report and of the interactive page: from the data of a run to an Altair chart.

A function returns None if nothing that it draws was measured.
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
    "excess_nats": ("Distance to the truth", "nats per document above the true process", ".2f", False),
}
TEXT = {
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct 2-grams",
    "distinct_4": "Distinct 4-grams",
    "self_bleu": "Self-BLEU",
    "rep_4": "Repeated 4-grams",
    "entropy": "Entropy of words",
    "compression_ratio": "Compression ratio",
    "zipf_exponent": "Zipf exponent",
    "mean_words": "Length of documents",
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
    "latent_log_std",
    "collapsed",
)
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
    "unseen_mass": "True mass to which the model gives no probability",
    "accuracy": "Accuracy of the model",
    "label_accuracy": "Right labels in the training set",
    "label_noise": "Noise of a model's own labels",
}
OTHERS = {
    "cross_entropy_synthetic": ChartLabels(
        "Cross-entropy on synthetic text",
        "nats per token, on unpublished text by all trainers of the same step",
        "nats per token",
        ".2f",
    ),
    "next_token_l1": ChartLabels(
        "Next-token distributions against the start",
        "L1 distance (0 to 2) from those of the initial weights, mean over held-out contexts",
        "L1 distance",
        ".2f",
    ),
}
LATE = {
    "cross_entropy_frequent": "Change on frequent tokens",
    "cross_entropy_rare": "Change on rare tokens",
}
CONTAMINATION = {
    "synthetic_share": ChartLabels(
        "Synthetic share", "of the documents on the web, and of training sets by weight", "synthetic share", ".0%"
    ),
    "depth": ChartLabels(
        "Mean depth", "model hops back to human data, of the web and of training sets", "model hops", ".1f"
    ),
}
DOWNSTREAM = {
    "accuracy": ("fine-tuned", "share of right answers after fine-tuning"),
    "zero_shot": ("zero-shot", "share of right answers without fine-tuning"),
}
_UNCHANGED = pl.DataFrame({"label": ["no change"], "value": [0.0]})


def quality(data: RunReportData, metric: str) -> Any:
    """Draw a key of QUALITY by population, with reference lines that are measured once."""
    label, axis, form, log = QUALITY[metric]
    single = summaries.from_start(data.metrics, metric, data.started)
    if single.is_empty():
        return None
    levels = summaries.references(data.metrics, metric).filter(pl.col("kind").is_in(["random", "unigram"]))
    labels = ChartLabels(
        f"{label} on held-out human text",
        f"{axis}; lower is better; bands are ± one standard error, thin lines single trainers",
        axis,
        form,
    )
    return charts.over_steps(
        summaries.means(single), data.theme, labels, single=single, levels=levels, size=charts.WIDE, log=log
    )


def quality_change(data: RunReportData) -> Any:
    """Draw the change in cross-entropy of each population since its start."""
    moved = summaries.changes(data.metrics, "cross_entropy", data.started)
    if moved["step"].n_unique() < 2:
        return None
    labels = ChartLabels(
        "Change in cross-entropy since each trainer's start",
        "nats per token on held-out human text; above zero is worse than the initial weights",
        "nats per token",
        "+.2f",
    )
    return charts.over_steps(
        summaries.means(moved), data.theme, labels, single=moved, levels=_UNCHANGED, size=charts.WIDE
    )


def called(metric: str) -> str:
    """Return the title of a metric above a chart."""
    entry = definitions().get(metric)
    title = TITLES.get(metric) or (entry.title if entry is not None else "")
    return title or metric.replace("_", " ").capitalize()


def texts(data: RunReportData) -> dict[str, str]:
    """Return the metrics of published texts that are drawn, with what each is called; those of plug-ins last."""
    return TEXT | {metric: called(metric) for metric in _plugged_in(data)}


def _plugged_in(data: RunReportData) -> list[str]:
    """Return the metrics of trainers that plug-ins define and this run has."""
    measured = set(data.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    return [metric for metric in plugged_in() if metric in measured]


def parameters(data: RunReportData) -> list[str]:
    """Return the metrics of models of vectors or categories in order: first those that a closed form predicts."""
    predicted = [theory.metric for theory in data.run.scenario.theory]
    return list(dict.fromkeys([*predicted, *PARAMETERS, *_plugged_in(data)]))


def parameter(data: RunReportData, metric: str) -> Any:
    """Draw a metric of models of vectors or categories, with its closed forms in the scenario dashed."""
    single = summaries.members(data.metrics, metric)
    if single.is_empty() or (metric == "collapsed" and bool((single["value"] == 0).all())):
        return None
    definition = definitions()[metric]
    unit = "" if definition.unit == "1" else definition.unit
    laws = data.laws(metric)
    drawn = laws.select("law").unique(maintain_order=True).to_series()
    below = definition.text + (f"; dashed: {', '.join(drawn)}" if len(drawn) else "")
    levels = pl.DataFrame({"label": ["truth"], "value": [1.0]}) if metric == "variance" else None
    labels = ChartLabels(called(metric), below, unit, ".3~g")
    return charts.over_steps(summaries.means(single), data.theme, labels, single=single, levels=levels, laws=laws)


def contamination(data: RunReportData, metric: str) -> Any:
    """Draw a key of CONTAMINATION for the web and for the training sets of each population."""
    web = summaries.series(data.metrics, "web", metric).with_columns(label=pl.lit("web"))
    single = summaries.members(data.metrics, metric, "training_set")
    if web.is_empty() and single.is_empty():
        return None
    return charts.over_steps(
        summaries.means(single),
        data.theme,
        CONTAMINATION[metric],
        single=single,
        whole=web,
        size=(560, 300),
        domain=[0, 1.0] if metric == "synthetic_share" else None,
    )


def diversity(data: RunReportData, metric: str) -> Any:
    """Draw a key of :func:`texts` by population, against held-out human text."""
    single = summaries.members(data.metrics, metric)
    if single.is_empty():
        return None
    levels = summaries.references(data.metrics, metric).filter(pl.col("kind") == "human")
    definition = definitions()[metric]
    unit = "" if definition.unit == "1" else definition.unit
    labels = ChartLabels(TEXT.get(metric) or called(metric), definition.text, unit, ".3~r")
    return charts.over_steps(summaries.means(single), data.theme, labels, single=single, levels=levels)


def vocabulary(data: RunReportData) -> Any:
    """Draw the share of the human vocabulary kept by each population, by frequency, at the first and last step."""
    parts, people = [], []
    for decile in range(1, 11):
        metric = f"vocabulary_kept_{decile}"
        means = summaries.means(summaries.members(data.metrics, metric))
        for when, ordered in (("first", means), ("last", means.reverse())):
            rows = ordered.unique("population", keep="first", maintain_order=True)
            parts.append(rows.with_columns(decile=pl.lit(decile), when=pl.lit(when)))
        levels = summaries.references(data.metrics, metric).filter(pl.col("kind") == "human")
        people.append(levels.select(decile=pl.lit(decile), value="value"))
    frame = pl.concat(parts)
    if frame.is_empty():
        return None
    labels = ChartLabels(
        "Human vocabulary kept, by frequency",
        "words in published text, per words expected in as much human text; first step dashed, last step solid",
        "share kept",
        ".0%",
    )
    return charts.vocabulary(frame, pl.concat(people), data.theme, labels)


def tails(data: RunReportData) -> dict[str, Any]:
    """Draw the changes on frequent and rare tokens and other measures of distance, by metric; may be empty."""
    moves = {metric: summaries.changes(data.metrics, metric, data.started) for metric in LATE}
    moves = {metric: frame for metric, frame in moves.items() if frame["step"].n_unique() > 1}
    drawn = {}
    ends = [value for frame in moves.values() for value in frame["value"]]
    # One scale for both, to compare rare and frequent tokens by eye.
    air = 0.12 * (max(ends) - min(ends)) or 0.1 if ends else 0.1
    for metric, frame in moves.items():
        labels = ChartLabels(
            LATE[metric],
            "nats per token since the start, on held-out human text; one scale for both",
            "nats per token",
            "+.2f",
        )
        domain = [min(*ends, 0.0) - air, max(*ends, 0.0) + air]
        drawn[metric] = charts.over_steps(
            summaries.means(frame), data.theme, labels, single=frame, levels=_UNCHANGED, domain=domain
        )
    for metric, labels in OTHERS.items():
        single = summaries.members(data.metrics, metric)
        if single.height:
            drawn[metric] = charts.over_steps(summaries.means(single), data.theme, labels, single=single)
    return drawn


def downstream(data: RunReportData, name: str, kind: str) -> Any:
    """Draw the accuracy on a downstream task, fine-tuned (``accuracy``) or not (``zero_shot``)."""
    single = summaries.members(data.metrics, f"{name}_{kind}")
    levels = summaries.references(data.metrics, f"{name}_{kind}")
    if single.is_empty():
        return None
    way, about = DOWNSTREAM[name]
    labels = ChartLabels(f"{called(kind)}, {way}", f"{about}; dotted: random weights and guessing", "accuracy", ".0%")
    ends = [*single["value"], *levels["value"]]
    domain = [max(0.0, min(ends) - 0.05), min(1.0, max(ends) + 0.05)]
    return charts.over_steps(summaries.means(single), data.theme, labels, single=single, levels=levels, domain=domain)
