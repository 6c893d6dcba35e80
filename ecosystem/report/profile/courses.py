"""The statistics of the eight definitions of collapse over the steps of a run, from its metrics.

All are means over the trainers of a population, with standard errors as in :mod:`ecosystem.report.summaries`. Losses
of texts count from human text where that was measured; all other losses and risks count from the first measurement.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.metrics.definitions import QUANTILES
from ecosystem.report import summaries

HALF = 0.5  # limit of the definitions that speak of loss or ruin: half of what there was, or of the way to uselessness
BEYOND = 0.05  # limit of the share of texts that are less probable than 99 % of human text
SLOWER = 1 / 3  # growth levels off if its rate falls to this share of its first rate
FEWEST = 6  # measured steps, at least, for a verdict on growth
SIZES, RANGE = 3, 4.0  # fewest training sizes, and least ratio of the largest to the smallest, for a scaling law
RISKS = ("cross_entropy", "test_error", "w2", "l1", "held_out_nll")  # the first that a run measures is its risk
BOUNDED = ("l1",)
RARE = tuple(f"vocabulary_kept_{k}" for k in range(6, 11))  # shares of the rarer half of human words
_COURSE = {"population": pl.String, "step": pl.Int64, "value": pl.Float64, "error": pl.Float64}
_MEMBER = {"population": pl.String, "trainer": pl.String, "step": pl.Int64, "value": pl.Float64, "error": pl.Float64}


@dataclass(frozen=True)
class Course:
    """The statistic of a definition over steps (columns of _COURSE), the metric behind it and its limit.

    ``two_sided``: below minus the limit counts too. ``only`` names the populations in which it may hold; None: all.
    """

    metric: str
    values: pl.DataFrame
    limit: float = 0.0
    two_sided: bool = False
    only: Collection[str] | None = None


def ruin(
    metrics: pl.DataFrame,
    risk: str,
    models: Mapping[str, str],
    started: Mapping[str, str],
    levels: Mapping[str, float],
) -> Course:
    """Return the increase of the risk as a share of the way from its start to that of a useless model."""
    random = summaries.references(metrics, risk).filter(pl.col("kind") == "random")
    known = dict(random.select("model", "value").iter_rows())
    start = summaries.means(summaries.from_start(metrics, risk, started)).group_by("population", maintain_order=True)
    ways = [
        (population, known.get(models.get(population, ""), levels.get(risk, math.nan)) - value)
        for population, value in start.agg(pl.col("value").first()).iter_rows()
    ]
    way = pl.DataFrame(ways, schema={"population": pl.String, "way": pl.Float64}, orient="row")
    rows = summaries.means(summaries.changes(metrics, risk, started)).join(way, on="population", maintain_order="left")
    share = rows.filter(pl.col("way").is_not_nan() & (pl.col("way") > 0))
    return Course(risk, share.with_columns(pl.col("value", "error") / pl.col("way")), HALF)


def growth(metrics: pl.DataFrame, risk: str, started: Mapping[str, str]) -> Course:
    """Return the growth of the risk per step in the second half of the run; one row per population.

    It may hold only where growth has not levelled off compared with the first half.
    """
    rows, steady = [], []
    members = summaries.changes(metrics, risk, started).filter(pl.lit(risk not in BOUNDED))
    for (population,), member in members.group_by("population", maintain_order=True):
        steps = member["step"].unique().sort().to_list()
        if len(steps) < FEWEST:
            continue
        middle = steps[(len(steps) - 1) // 2]
        late, early = (_rate(member, *ends) for ends in ((middle, steps[-1]), (steps[0], middle)))
        if late is None or early is None:
            continue
        rows.append((population, steps[-1], *late))
        if late[0] > SLOWER * early[0]:
            steady.append(str(population))
    return Course(risk, pl.DataFrame(rows, schema=_COURSE, orient="row"), only=steady)


def _rate(member: pl.DataFrame, first: int, last: int) -> tuple[float, float | None] | None:
    """Return the mean growth per step of the members between two steps, with its standard error."""
    between = member.filter(pl.col("step").is_in([first, last])).filter(pl.len().over("trainer") == 2)
    found = summaries.means(summaries.since_start(between)).filter(pl.col("step") == last)
    if found.is_empty():
        return None
    value, error = found.select("value", "error").row(0)
    return value / (last - first), None if error is None else error / (last - first)


def variance(metrics: pl.DataFrame) -> Course:
    """Return the share lost of the variance of models, of the effective number of words, or of diversity."""
    if not summaries.members(metrics, "gini_simpson").is_empty():
        return _lost("gini_simpson", summaries.members(metrics, "gini_simpson"))
    for metric, scale in (("log_variance", 1.0), ("latent_log_std", 2.0), ("entropy", 1.0)):
        rows = _since(summaries.members(metrics, metric), _human(metrics, metric))
        if not rows.is_empty():
            left = (scale * pl.col("value")).exp()
            return Course(metric, rows.with_columns(value=1 - left, error=left * scale * pl.col("error")), HALF)
    return _lost("variance", summaries.members(metrics, "variance"))


def modes(metrics: pl.DataFrame) -> Course:
    """Return the share lost of the most frequent tenth of the words, or of the types with the highest probability."""
    types, tail = (summaries.members(metrics, name) for name in ("support", "tail_types"))
    if types.is_empty():
        frequent = "vocabulary_kept_1"
        return _lost(frequent, summaries.members(metrics, frequent), _human(metrics, frequent))
    key = ["population", "trainer", "step"]
    both = types.join(tail.select(*key, tail="value"), on=key, maintain_order="left")
    return _lost("support", both.with_columns(pl.col("value") - pl.col("tail")).drop("tail"))


def tails(metrics: pl.DataFrame) -> Course:
    """Return the share lost of the rarer half of the words, or of the types in the tail of the truth."""
    rare = pl.concat(summaries.members(metrics, name) for name in RARE)
    if rare.is_empty():
        return _lost("tail_types", summaries.members(metrics, "tail_types"))
    keys = pl.col("population", "trainer", "step")
    error = pl.col("error").fill_null(0.0).pow(2).sum().sqrt() / len(RARE)
    means = rare.group_by(keys, maintain_order=True).agg(pl.col("value").mean(), error=error)
    return _lost(RARE[-1], means.sort("step", maintain_order=True), _human(metrics, *RARE))


def _human(metrics: pl.DataFrame, *names: str) -> float | None:
    """Return the mean of metrics of human text, the baseline of texts; None if it was not measured."""
    found = [summaries.references(metrics, name).filter(pl.col("kind") == "human")["value"] for name in names]
    return sum(values[0] for values in found) / len(names) if all(map(len, found)) else None


def _since(members: pl.DataFrame, human: float | None) -> pl.DataFrame:
    """Return the mean difference from human text, or else from the first measurement: columns of _COURSE."""
    if human is None:
        return summaries.means(summaries.since_start(members))
    return summaries.means(members).with_columns(pl.col("value") - human)


def _lost(metric: str, members: pl.DataFrame, human: float | None = None) -> Course:
    """Return the share of a quantity that is lost compared with human text, or else with its first measurement."""
    first = summaries.means(members).group_by("population", maintain_order=True).agg(first=pl.col("value").first())
    rows = _since(members, human).join(first, on="population", maintain_order="left")
    whole = pl.col("first") if human is None else pl.lit(human)
    share = rows.filter(whole > 0).with_columns(value=-pl.col("value") / whole, error=pl.col("error") / whole)
    return Course(metric, share, HALF)


def scaling(metrics: pl.DataFrame, risk: str, groups: Sequence[Sequence[str]]) -> Course:
    """Return the change since the first step of the slope of ln risk over ln size, for populations of several sizes.

    A population whose training sets grow or shrink over the steps has no size.
    """
    fits = [summaries.members(metrics, name) for name in ("documents_trained", "tokens_trained")]
    trained = pl.concat(fits).group_by("population", maintain_order=True)
    same = trained.agg(pl.col("value").min(), most=pl.col("value").max()).filter(pl.col("most") < 1.1 * pl.col("value"))
    sizes = dict(same.select("population", "value").iter_rows())
    rows = []
    for group in groups:
        size = {name: sizes[name] for name in group if sizes.get(name, 0) > 0}
        if len(set(size.values())) < SIZES or max(size.values()) < RANGE * min(size.values()):
            continue
        levels = summaries.means(summaries.members(metrics, risk)).filter(
            pl.col("population").is_in(list(size)) & (pl.col("value") > 0) & pl.col("error").is_finite()
        )
        slopes = [
            (step, *_slope(at, size))
            for (step,), at in levels.group_by("step", maintain_order=True)
            if at.height == len(size)
        ]
        for step, slope, error in slopes:
            change, spread = slope - slopes[0][1], math.hypot(error, slopes[0][2]) if step > slopes[0][0] else 0.0
            rows += [(population, step, change, spread) for population in size]
    return Course(risk, pl.DataFrame(rows, schema=_COURSE, orient="row"), two_sided=True)


def _slope(levels: pl.DataFrame, size: Mapping[str, float]) -> tuple[float, float]:
    """Return the least-squares slope of ln value over ln size and its standard error, from those of the values."""
    x = np.log([size[name] for name in levels["population"]])
    value, error = levels["value"].to_numpy(), levels["error"].to_numpy()
    share = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return float(share @ np.log(value)), float(np.sqrt(((share * error / value) ** 2).sum()))


def improbable(metrics: pl.DataFrame) -> Course:
    """Return the share of published texts that are less probable under the initial weights than 99 % of human text."""
    quantiles = [
        summaries.members(metrics, f"initial_perplexity_q{percent:02d}").with_columns(percent=pl.lit(percent))
        for percent in QUANTILES
    ]
    human = summaries.references(metrics, "initial_perplexity_q99").filter(pl.col("kind") == "human")
    limits = dict(human.select("model", "value").iter_rows())
    rows = []
    for key, one in pl.concat(quantiles).group_by("population", "trainer", "step", maintain_order=True):
        limit = limits.get(key[0])
        if limit is not None and one.height == len(QUANTILES):
            rows.append((*key, *_share_above(one, limit)))
    values = pl.DataFrame(rows, schema=_MEMBER, orient="row")
    return Course("initial_perplexity_q99", summaries.means(values), BEYOND)


def _share_above(quantiles: pl.DataFrame, limit: float) -> tuple[float, float | None]:
    """Return the share above a limit and its standard error, from quantiles of one sample (percent, value, error).

    Shares are interpolated in the logarithm of the value; the error is that of the nearest quantile, as a share.
    """
    percent, value = (quantiles[name].to_numpy().astype(np.float64) for name in ("percent", "value"))
    place, log = math.log(limit), np.log(value)
    share = float(np.interp(place, log, percent / 100, left=0.0, right=1.0))
    near = int(np.abs(log - place).argmin())
    low, high = max(near - 1, 0), min(near + 1, len(log) - 1)
    error = quantiles["error"][near]
    if error is None or not math.isfinite(error) or log[high] == log[low]:
        return 1 - share, None
    density = (percent[high] - percent[low]) / 100 / (log[high] - log[low])
    return 1 - share, float(density * error / value[near])
