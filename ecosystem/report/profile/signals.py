"""The order of early-warning signals: the step at which each measurement leaves its baseline, its first value.

Tiwari (Model Collapse Observatory, 2026) compares each generation of texts with the first, by effect sizes and
Bonferroni's correction; a model's own perplexity on its output changes first there.
"""

from __future__ import annotations

from statistics import NormalDist

import polars as pl

from ecosystem.report import summaries

LEVEL = 0.05  # chance that any signal of a population at any step leaves its baseline although nothing has changed
# The signals of a run, in words; text first. Each is compared with its first measurement.
SIGNALS = {
    "cross_entropy_synthetic": "loss on new machine text",
    "distinct_2": "distinct 2-grams",
    "self_bleu": "self-BLEU",
    "rep_2": "repetition within documents",
    "entropy": "entropy",
    "zipf_exponent": "Zipf exponent",
    "vocabulary_kept_1": "frequent words kept",
    "vocabulary_kept_10": "rarest words kept",
    "initial_perplexity_q50": "perplexity of texts under the initial weights",
    "cross_entropy_change": "loss on human text",
    "cross_entropy_rare_change": "loss on rare tokens of human text",
    "mean_words": "words per document",
    "log_variance": "log variance",
    "gini_simpson": "Gini-Simpson index",
    "support": "types alive",
    "tail_types": "rare types alive",
    "tail_mass": "probability of rare types",
    "max_probability": "probability of the likeliest type",
    "mean_error": "error of the mean",
    "w2": "Wasserstein distance",
    "l1": "L1 distance",
    "test_error": "test error",
    "held_out_nll": "loss on held-out data",
}
DEPARTURES = {
    "population": pl.String,
    "signal": pl.String,  # a metric
    "step": pl.Int64,  # first step at which it has left its baseline; null: never
    "change": pl.Float64,  # at that step, or at the last one
    "error": pl.Float64,
    "errors": pl.Float64,  # the change in standard errors
}


def changes(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return the change of every measured signal since its first value: population, signal, step, value, error."""
    frames = []
    for signal in SIGNALS:
        rows = summaries.means(summaries.since_start(summaries.members(metrics, signal)))
        first = pl.col("step").min().over("population")
        frames.append(rows.filter(pl.col("step") > first).with_columns(signal=pl.lit(signal)))
    return pl.concat(frames).select("population", "signal", "step", "value", "error")


def departures(courses: pl.DataFrame) -> pl.DataFrame:
    """Return when each signal of a run left its baseline (columns of DEPARTURES), the earliest first.

    ``courses``: result of :func:`changes`. A signal has left its baseline once its change exceeds z standard errors,
    where z is Bonferroni's for all signals and steps of the population. Signals without standard errors are left out.
    """
    rows = []
    for (population,), table in courses.filter(pl.col("error") > 0).group_by("population", maintain_order=True):
        beyond = NormalDist().inv_cdf(1 - LEVEL / 2 / table.height)
        for (signal,), one in table.with_columns(z=pl.col("value") / pl.col("error")).group_by(
            "signal", maintain_order=True
        ):
            one = one.sort("step")
            left = one.filter(pl.col("z").abs() > beyond).head(1)
            step, *change = (left if left.height else one.tail(1)).select("step", "value", "error", "z").row(0)
            rows.append((population, signal, step if left.height else None, *change))
    found = pl.DataFrame(rows, schema=DEPARTURES, orient="row")
    return ordered(found, pl.col("errors"))


def ordered(found: pl.DataFrame, effect: pl.Expr) -> pl.DataFrame:
    """Sort signals by step (never: last), then by falling size of ``effect``."""
    return found.sort(pl.col("step"), -effect.abs(), nulls_last=True, maintain_order=True)
