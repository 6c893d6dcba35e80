"""Verdicts on the eight definitions of collapse, side by side for every population of a run.

A definition holds at a step if its statistic exceeds its limit by more than two standard errors. It holds in a run if
it does so at the last measured step, and it set in at the first step since when it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.report import summaries
from ecosystem.report.profile import courses
from ecosystem.report.profile.courses import SIZES, Course
from ecosystem.scenario.entries.trainers import TrainerSpec
from ecosystem.sources.base import Truth

ERRORS = 2.0  # standard errors beyond the limit
PROFILE = {
    "population": pl.String,
    "definition": pl.String,
    "holds": pl.Boolean,  # null: not measured
    "metric": pl.String,  # null: not measured
    "statistic": pl.Float64,
    "error": pl.Float64,  # standard error of the statistic; null: exact, for a single trainer
    "step": pl.Int64,  # when it set in; null: it does not hold
}


@dataclass(frozen=True)
class Definition:
    """A definition of collapse: its name, when it holds here, its statistic in words, and why it may be missing.

    ``statistic`` has a place for the value with its error (a share if ``is_share``) and for the metric.
    """

    name: str
    holds: str
    statistic: str
    missing: str
    is_share: bool = True


DEFINITIONS = {
    "catastrophic": Definition(
        "Catastrophic increase of risk",
        "the risk has gone more than half of the way from its start to that of a useless model",
        "{metric} has gone {value} of the way from its start to a useless model",
        "the risk of a useless model (random weights; one point or one symbol) is not known, or the start is no better",
    ),
    "increase": Definition(
        "Any increase of risk",
        "the risk is higher than at its start",
        "{metric} has changed by {value}",
        "no risk was measured",
        is_share=False,
    ),
    "diverging": Definition(
        "Diverging risk",
        "the risk still grows in the second half of the run, at more than a third of the rate of the first half",
        "{metric} changed by {value} per step in the second half of the run",
        "it needs six measurements of a risk without an upper bound",
        is_share=False,
    ),
    "variance": Definition(
        "Collapsing variance",
        "more than half of the variance, or of the effective number of words or types, is lost",
        "{metric}: {value} is lost",
        "no variance or diversity was measured",
    ),
    "scaling": Definition(
        "Change of the scaling law",
        "the slope of log risk over log size of the training set differs from that of the first step",
        "{metric}: the slope of its logarithm over that of the size has changed by {value}",
        "no three populations differ only in the constant size of their training sets, fourfold at least",
        is_share=False,
    ),
    "modes": Definition(
        "Modes lost",
        "more than half of the most frequent tenth of the words or types is lost",
        "{metric}: {value} of the frequent ones are lost",
        "no frequent words or types were counted",
    ),
    "tails": Definition(
        "Tails lost",
        "more than half of the rare words or types is lost",
        "{metric}: {value} of the rare ones are lost",
        "no rare words or types were counted, or there were none at the first step",
    ),
    "hallucinated": Definition(
        "Hallucinated data",
        "more than 5 % of the texts are less probable under the initial weights than 99 % of human text",
        "{metric}: {value} of the texts are less probable than 99 % of human text",
        "texts were not scored by pre-trained initial weights",
    ),
}


def useless(truth: Truth | None) -> dict[str, float]:
    """Return the risk of a useless model, by metric, as far as the truth says.

    For vectors that is one point, the true mean; for categories one symbol, drawn from the truth, on average; for a
    regression, weights of zero. For text it is randomly initialised weights, which a run measures.
    """
    levels = {}
    if truth is not None and truth.covariance is not None:
        levels["w2"] = float(np.trace(truth.covariance))
    if truth is not None and truth.weights is not None:
        levels["test_error"] = float(truth.weights @ truth.weights)
    if truth is not None and truth.probabilities is not None:
        levels["l1"] = 2 - 2 * float(truth.probabilities @ truth.probabilities)
    return levels


def size_groups(trainers: Mapping[str, TrainerSpec]) -> list[list[str]]:
    """Group the populations that differ in nothing but the amount of their data."""
    groups: dict[str, list[str]] = {}
    for name, trainer in trainers.items():
        plain = trainer.plain()
        plain["scrape"] = {key: value for key, value in plain["scrape"].items() if key != "docs"}
        same = {key: value for key, value in plain.items() if key not in ("count", "sites", "budget", "publish")}
        groups.setdefault(repr(sorted(same.items())), []).append(name)
    return [group for group in groups.values() if len(group) >= SIZES]


def profile(
    metrics: pl.DataFrame,
    models: Mapping[str, str],
    started: Mapping[str, str],
    levels: Mapping[str, float],
    groups: Sequence[Sequence[str]] = (),
) -> pl.DataFrame:
    """Return the verdict of every definition on every population (columns of PROFILE).

    ``metrics``: the metrics of a run. ``models`` and ``started``: as in :func:`summaries.outcomes`. ``levels``: result
    of :func:`useless`. ``groups``: result of :func:`size_groups`.
    """
    risk = next((metric for metric in courses.RISKS if not summaries.members(metrics, metric).is_empty()), "")
    statistics = {
        "catastrophic": courses.ruin(metrics, risk, models, started, levels),
        "increase": Course(risk, summaries.means(summaries.changes(metrics, risk, started))),
        "diverging": courses.growth(metrics, risk, started),
        "variance": courses.variance(metrics),
        "scaling": courses.scaling(metrics, risk, groups),
        "modes": courses.modes(metrics),
        "tails": courses.tails(metrics),
        "hallucinated": courses.improbable(metrics),
    }
    increase = _judged(statistics["increase"])
    rows: list[tuple[object, ...]] = []
    for population in models:
        for key, course in statistics.items():
            found = _judged(course).filter(pl.col("population") == population)
            if found.is_empty():
                rows.append((population, key, None, None, None, None, None))
                continue
            holds, statistic, error, step = found.row(0)[1:]
            if key == "diverging" and holds:  # it set in where the risk rose above its first value, if it has
                rise = increase.filter(pl.col("population") == population)["step"][0]
                step = step if rise is None else rise
            rows.append((population, key, holds, course.metric, statistic, error, step))
    return pl.DataFrame(rows, schema=PROFILE, orient="row").fill_nan(None)


def _judged(course: Course) -> pl.DataFrame:
    """Return population, holds, statistic, error and the step since when it holds, at the last step of each."""
    size = pl.col("value").abs() if course.two_sided else pl.col("value")
    over = size - course.limit > ERRORS * pl.col("error").fill_nan(None).fill_null(0.0)
    if course.only is not None:
        over &= pl.col("population").is_in(list(course.only))
    since = pl.col("step").filter(pl.col("over").reverse().cast(pl.Int8).cum_prod().reverse() == 1).min()
    return (
        course.values.sort("step", maintain_order=True)
        .with_columns(over=over)
        .group_by("population", maintain_order=True)
        .agg(holds=pl.col("over").last(), statistic=pl.col("value").last(), error=pl.col("error").last(), step=since)
    )
