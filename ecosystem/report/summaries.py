"""The numbers of a report: measurements turned into tables of populations, changes and rates.

All are pure functions of the long metrics table (columns of ``schema.METRICS``). A *population* is the first part of
an id (``naive`` of ``naive/0``); its value is the mean over its members. Its standard error is the larger of two: the
mean error of the members, which are measured on the same held-out text and share its noise, and the error of their
mean, since each was trained with its own noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.metrics.estimates import error_of_mean, error_of_share

ORIGINS = ("human", "synthetic")

_POPULATION = pl.col("id").str.split("/").list.first()
_MEMBERS = ["population", "trainer", "step", "value", "error"]


def members(metrics: pl.DataFrame, metric: str, scope: str = "trainer") -> pl.DataFrame:
    """Return one metric of every trainer: population, trainer, step, value, error.

    If the value of a trainer is infinite, so is the mean of its population: the population is left out at that step.
    """
    rows = metrics.filter(
        (pl.col("scope") == scope)
        & (pl.col("metric") == metric)
        & pl.col("value").is_not_null()
        & pl.col("value").is_not_nan()
    ).filter(pl.col("value").is_finite().all().over(_POPULATION, "step"))
    return rows.select(population=_POPULATION, trainer="id", step="step", value="value", error="error").sort(
        "step", maintain_order=True
    )


def means(frame: pl.DataFrame) -> pl.DataFrame:
    """Return population, step, value, error, members: the mean over the members of each population.

    ``frame`` has the columns of :func:`members`; ``error`` is null where neither standard error is known.
    """
    within = pl.when(pl.col("error").is_finite()).then(pl.col("error")).mean()
    between = error_of_mean("value")
    return (
        frame.group_by("population", "step", maintain_order=True)
        .agg(pl.col("value").mean(), error=pl.max_horizontal(within, between), members=pl.len())
        .sort("step", maintain_order=True)
    )


def from_start(metrics: pl.DataFrame, metric: str, models: Mapping[str, str]) -> pl.DataFrame:
    """Return :func:`members` of a measure of quality, beginning with the initial weights of each trainer.

    Trainers are first measured after their first fit. If a reference measured their initial weights, its value is their
    step 0. ``models`` names the model of each population that started from given weights. A model that began at random
    has no such value; it begins with its first measurement.
    """
    frame = members(metrics, metric)
    levels = references(metrics, metric)
    start = levels.filter(pl.col("kind") == "initial").select("model", "value", "error")
    random = levels.filter(pl.col("kind") == "random").select("model", floor="value")
    start = start.join(random, on="model", how="left").filter(
        pl.col("floor").is_null() | ((pl.col("floor") - pl.col("value")) > 0.02 * pl.col("floor").abs())
    )
    of = pl.DataFrame(
        {"population": list(models), "model": list(models.values())},
        schema={"population": pl.String, "model": pl.String},
    )
    first = frame.group_by("population", "trainer", maintain_order=True).agg(pl.col("step").min())
    opening = (
        first.filter(pl.col("step") > 0)
        .join(of, on="population", maintain_order="left")
        .join(start, on="model", maintain_order="left")
        .select("population", "trainer", step=pl.lit(0, pl.Int32), value="value", error="error")
    )
    return pl.concat([opening, frame])


def changes(metrics: pl.DataFrame, metric: str, models: Mapping[str, str]) -> pl.DataFrame:
    """Return the change of each trainer since its start; columns of :func:`members`, in the unit of the metric.

    If ``<metric>_change`` was measured (the paired difference to the given weights, on the same documents), it is used
    for the trainers that started from these; its error is far smaller than that of two estimates.
    """
    absolute = since_start(from_start(metrics, metric, models))
    measured = members(metrics, metric).group_by("trainer").agg(measured=pl.col("step").min())
    begun = absolute.group_by("trainer").agg(begun=pl.col("step").min()).join(measured, on="trainer")
    given = begun.filter(pl.col("begun") < pl.col("measured"))
    paired = members(metrics, f"{metric}_change").join(given, on="trainer", how="semi")
    rest = absolute.join(paired, on=["trainer", "step"], how="anti", maintain_order="left")
    return pl.concat([rest, paired]).sort("step", maintain_order=True)


def since_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Return each trainer's value minus its own first one; columns of :func:`members`, the first step at zero.

    Errors are those of two independent estimates. They are rather too large, because both values are measured on the
    same held-out text.
    """
    first = frame.group_by("trainer", maintain_order=True).agg(
        began=pl.col("step").first(), before=pl.col("value").first(), doubt=pl.col("error").first()
    )
    apart = (pl.col("error") ** 2 + pl.col("doubt") ** 2).sqrt()
    return (
        frame.join(first, on="trainer", how="left", maintain_order="left")
        .with_columns(
            value=pl.col("value") - pl.col("before"),
            error=pl.when(pl.col("step") == pl.col("began")).then(0.0).otherwise(apart),
        )
        .select(_MEMBERS)
    )


def at(frame: pl.DataFrame, population: str, step: int | None = None) -> tuple[float, float | None, int] | None:
    """Return (value, error, step) of a population in a table of :func:`means`, at a step or at its last one."""
    rows = frame.filter(pl.col("population") == population)
    if step is not None:
        rows = rows.filter(pl.col("step") == step)
    if rows.is_empty():
        return None
    row = rows.row(-1, named=True)
    return row["value"], row["error"], row["step"]


def references(metrics: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return the reference lines of a metric: label, kind, model, value, error.

    A kind is random, unigram, initial, human or chance.
    """
    rows = metrics.filter(
        (pl.col("scope") == "reference") & (pl.col("metric") == metric) & pl.col("value").is_finite()
    ).unique("id", keep="first", maintain_order=True)
    kind = pl.col("id").str.split("/").list.last()
    model = pl.when(pl.col("id").str.contains("/", literal=True)).then(pl.col("id").str.replace(r"/[^/]*$", ""))
    words = {
        "random": "randomly initialised",
        "unigram": "unigram model",
        "initial": "initial weights",
        "human": "human text",
    }
    named = rows.select(kind=kind, model=model, value="value", error="error")
    several = named["model"].drop_nulls().n_unique() > 1
    label = pl.col("kind").replace(words)
    if several:
        label = pl.when(pl.col("model").is_null()).then(label).otherwise(label + " (" + pl.col("model") + ")")
    return named.with_columns(label=label)


def series(metrics: pl.DataFrame, scope: str, metric: str) -> pl.DataFrame:
    """Return step, value, error of a metric of the web."""
    rows = metrics.filter((pl.col("scope") == scope) & (pl.col("metric") == metric) & pl.col("value").is_finite())
    return rows.select("step", "value", "error").sort("step", maintain_order=True)


def quantiles(metrics: pl.DataFrame, prefix: str, percents: Sequence[int]) -> pl.DataFrame:
    """Return population, step, percent, value of quantiles, each the mean over the members of a population.

    Rows of human text, measured once on equally long texts, have the step null.
    """
    parts = [
        pl.DataFrame(schema={"population": pl.String, "step": pl.Int32, "percent": pl.Int32, "value": pl.Float64}),
    ]
    for percent in percents:
        metric = f"{prefix}_q{percent:02d}"
        own = means(members(metrics, metric))
        people = members(metrics, metric, "reference").with_columns(step=pl.lit(None, pl.Int32))
        rows = pl.concat([frame.select("population", "step", "value") for frame in (own, people)])
        parts.append(rows.with_columns(percent=pl.lit(percent, pl.Int32)).select(parts[0].columns))
    return pl.concat(parts)


def between_quantiles(frame: pl.DataFrame) -> pl.DataFrame:
    """Compute the density of the logarithm between neighbouring quantiles of one sample: x, density, one row per edge.

    ``frame``: percent and value (positive). The density of a row extends to the next row; that of the last is zero.
    """
    at = frame.sort("percent").filter(pl.col("value") > 0).group_by("value", maintain_order=True).agg(pl.max("percent"))
    x, share = at["value"].to_numpy(), at["percent"].to_numpy() / 100
    return pl.DataFrame({"x": x, "density": np.append(np.diff(share) / np.diff(np.log(x)), 0.0)[: x.size]})


def refusals(metrics: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Return the refusals of each policy of each population, by true origin, over all steps and members.

    Columns: who (population), what (policy), origin, flagged, total, rate, error. Columns ``by`` come first; rows are
    grouped by them.
    """
    parts = pl.col("id").str.split("/")
    return _rates(metrics, "policy", parts.list.first(), parts.list.last(), "refused_", ("kept_", "refused_"), by)


def detections(metrics: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Return the rates at which each population of curators took documents for synthetic, by true origin.

    Columns as in :func:`refusals`; ``what`` is empty.
    """
    return _rates(metrics, "curator", _POPULATION, pl.lit(""), "suspect_", ("reviewed_",), by)


def _rates(
    metrics: pl.DataFrame,
    scope: str,
    who: pl.Expr,
    what: pl.Expr,
    flagged: str,
    total: tuple[str, ...],
    by: tuple[str, ...],
) -> pl.DataFrame:
    rows = metrics.filter((pl.col("scope") == scope) & pl.col("value").is_finite())
    rows = rows.select("metric", "value", *by, who=who, what=what)
    parts = []
    for origin in ORIGINS:
        counts = rows.group_by(*by, "who", "what", maintain_order=True).agg(
            flagged=pl.col("value").filter(pl.col("metric") == flagged + origin).sum(),
            total=pl.col("value").filter(pl.col("metric").is_in([t + origin for t in total])).sum(),
        )
        parts.append(counts.with_columns(origin=pl.lit(origin)))
    flagged_rows, all_rows = pl.col("flagged"), pl.col("total")
    return (
        pl.concat(parts)
        .filter(all_rows > 0)
        .with_columns(rate=flagged_rows / all_rows, error=error_of_share(flagged_rows, all_rows))
        .select(*by, "who", "what", "origin", "flagged", "total", "rate", "error")
    )


@dataclass(frozen=True)
class Outcome:
    """Outcome of a population: cross-entropy at its first and last measurement, in nats per token."""

    population: str
    first_step: int
    last_step: int
    before: float
    after: float
    change: float
    error: float | None
    towards_random: float | None  # share of the way from its start to the randomly initialised model
    members: int

    @property
    def verdict(self) -> str:
        """``degraded`` or ``improved`` beyond two standard errors, ``unchanged`` within, else ``unknown``."""
        if self.first_step == self.last_step or self.error is None:
            return "unknown"
        if abs(self.change) <= 2 * self.error:
            return "unchanged"
        return "degraded" if self.change > 0 else "improved"


def outcomes(metrics: pl.DataFrame, models: Mapping[str, str], started: Mapping[str, str]) -> list[Outcome]:
    """Return the outcome of each population.

    ``models`` names the model of each, for its random reference; ``started`` as in :func:`from_start`.
    """
    values = from_start(metrics, "cross_entropy", started)
    levels, moves = means(values), means(changes(metrics, "cross_entropy", started))
    random = references(metrics, "cross_entropy").filter(pl.col("kind") == "random")
    results = []
    for population in values["population"].unique(maintain_order=True):
        rows = levels.filter(pl.col("population") == population)
        first, last = rows.row(0, named=True), rows.row(-1, named=True)
        moved = moves.filter(pl.col("population") == population).row(-1, named=True)
        before = last["value"] - moved["value"]  # of the members measured last, maybe not all
        end = random.filter(pl.col("model") == models.get(population, ""))["value"]
        way = None
        # If the start is (nearly) the random model, a share of the distance to it is meaningless.
        if len(end) and end[0] - before > max(0.05, 5 * (first["error"] or 0.0)):
            way = moved["value"] / (end[0] - before)
        results.append(
            Outcome(
                population=population,
                first_step=first["step"],
                last_step=last["step"],
                before=before,
                after=last["value"],
                change=moved["value"],
                error=moved["error"],
                towards_random=way,
                members=last["members"],
            )
        )
    return results
