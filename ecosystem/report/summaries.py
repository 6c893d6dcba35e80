"""The numbers of a report: measurements aggregated into tables of populations, changes and rates.

All are pure functions of the long metrics table (columns of ``schema.METRICS``). A *population* is the first part of
an id (``naive`` of ``naive/0``); its value is the mean over its members. Its standard error is the larger of two: the
mean standard error of the members, which share the noise of the held-out text, and the standard error of their mean,
which reflects the independent noise of their training.
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

    A population with an infinite value at some step is left out at that step, since its mean would be infinite.
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
    """Return the mean over the members of each population: population, step, value, error, members (their number).

    ``frame`` has the columns of :func:`members`. ``error`` is null if neither standard error is known.
    """
    within = pl.when(pl.col("error").is_finite()).then(pl.col("error")).mean()
    between = error_of_mean("value")
    return (
        frame.group_by("population", "step", maintain_order=True)
        .agg(pl.col("value").mean(), error=pl.max_horizontal(within, between), members=pl.len())
        .sort("step", maintain_order=True)
    )


def from_start(metrics: pl.DataFrame, metric: str, models: Mapping[str, str]) -> pl.DataFrame:
    """Return :func:`members` of a quality metric, with the initial weights of each trainer as step 0.

    Trainers are first measured after their first fit; the value of step 0 is that of the reference ``initial``.
    ``models``: population → model, for the populations that start from pre-trained weights. Trainers of other
    populations, and of models whose initial weights are random, begin with their first measurement.
    """
    frame = members(metrics, metric)
    levels = references(metrics, metric)
    start = levels.filter(pl.col("kind") == "initial").select("model", "value", "error")
    random = levels.filter(pl.col("kind") == "random").select("model", floor="value")
    start = start.join(random, on="model", how="left").filter(
        pl.col("floor").is_null() | ((pl.col("floor") - pl.col("value")) > 0.02 * pl.col("floor").abs())
    )
    model_of = pl.DataFrame(
        {"population": list(models), "model": list(models.values())},
        schema={"population": pl.String, "model": pl.String},
    )
    first = frame.group_by("population", "trainer", maintain_order=True).agg(pl.col("step").min())
    opening = (
        first.filter(pl.col("step") > 0)
        .join(model_of, on="population", maintain_order="left")
        .join(start, on="model", maintain_order="left")
        .select("population", "trainer", step=pl.lit(0, pl.Int32), value="value", error="error")
    )
    return pl.concat([opening, frame])


def changes(metrics: pl.DataFrame, metric: str, models: Mapping[str, str]) -> pl.DataFrame:
    """Return the change of each trainer since its start; columns of :func:`members`, in the unit of the metric.

    If ``<metric>_change`` was measured (the paired difference from the initial weights, on the same documents), it is
    used for the trainers that started from these weights: its error is far smaller than that of two estimates.
    """
    absolute = since_start(from_start(metrics, metric, models))
    measured = members(metrics, metric).group_by("trainer").agg(measured=pl.col("step").min())
    started = absolute.group_by("trainer").agg(started=pl.col("step").min()).join(measured, on="trainer")
    pretrained = started.filter(pl.col("started") < pl.col("measured"))
    paired = members(metrics, f"{metric}_change").join(pretrained, on="trainer", how="semi")
    rest = absolute.join(paired, on=["trainer", "step"], how="anti", maintain_order="left")
    return pl.concat([rest, paired]).sort("step", maintain_order=True)


def since_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Return each trainer's value minus its first value; columns of :func:`members`, zero at the first step.

    Errors are those of two independent estimates. This overestimates them, because both values are measured on the
    same held-out text.
    """
    first = frame.group_by("trainer", maintain_order=True).agg(
        first_step=pl.col("step").first(), first_value=pl.col("value").first(), first_error=pl.col("error").first()
    )
    combined = (pl.col("error") ** 2 + pl.col("first_error") ** 2).sqrt()
    return (
        frame.join(first, on="trainer", how="left", maintain_order="left")
        .with_columns(
            value=pl.col("value") - pl.col("first_value"),
            error=pl.when(pl.col("step") == pl.col("first_step")).then(0.0).otherwise(combined),
        )
        .select(_MEMBERS)
    )


def at(frame: pl.DataFrame, population: str, step: int | None = None) -> tuple[float, float | None, int] | None:
    """Return (value, error, step) of a population in a table of :func:`means`, at ``step`` or at its last step."""
    rows = frame.filter(pl.col("population") == population)
    if step is not None:
        rows = rows.filter(pl.col("step") == step)
    if rows.is_empty():
        return None
    row = rows.row(-1, named=True)
    return row["value"], row["error"], row["step"]


def references(metrics: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return the reference values of a metric: label, kind, model, value, error.

    The kinds are random, unigram, initial, human and chance.
    """
    rows = metrics.filter(
        (pl.col("scope") == "reference") & (pl.col("metric") == metric) & pl.col("value").is_finite()
    ).unique("id", keep="first", maintain_order=True)
    kind = pl.col("id").str.split("/").list.last()
    model = pl.when(pl.col("id").str.contains("/", literal=True)).then(pl.col("id").str.replace(r"/[^/]*$", ""))
    labels = {
        "random": "randomly initialised",
        "unigram": "unigram model",
        "initial": "initial weights",
        "human": "human text",
    }
    levels = rows.select(kind=kind, model=model, value="value", error="error")
    several = levels["model"].drop_nulls().n_unique() > 1
    label = pl.col("kind").replace(labels)
    if several:
        label = pl.when(pl.col("model").is_null()).then(label).otherwise(label + " (" + pl.col("model") + ")")
    return levels.with_columns(label=label)


def series(metrics: pl.DataFrame, scope: str, metric: str) -> pl.DataFrame:
    """Return a metric of a scope with one value per step, such as the web: step, value, error."""
    rows = metrics.filter((pl.col("scope") == scope) & (pl.col("metric") == metric) & pl.col("value").is_finite())
    return rows.select("step", "value", "error").sort("step", maintain_order=True)


def in_force(metrics: pl.DataFrame) -> dict[str, list[int]]:
    """Return the steps at which each policy with a condition was in force, by its name."""
    rows = metrics.filter((pl.col("scope") == "policy") & (pl.col("metric") == "in_force"))
    by_policy = rows.group_by("id", maintain_order=True).agg(pl.col("step").filter(pl.col("value") > 0).sort())
    return dict(by_policy.iter_rows())


def switches(metrics: pl.DataFrame) -> list[tuple[int, str]]:
    """Return the steps at which policies with a condition came into force, or no longer were, and a short text."""
    found = []
    last = metrics["step"].to_list()[-1] if metrics.height else 0
    for name, steps in in_force(metrics).items():
        ends = [step + 1 for step in steps if step + 1 not in steps and step < last]
        found += [(step, f"policies.{name} in force") for step in steps if step - 1 not in steps]
        found += [(step, f"policies.{name} not in force") for step in ends]
    return sorted(found)


def quantiles(metrics: pl.DataFrame, prefix: str, percents: Sequence[int]) -> pl.DataFrame:
    """Return quantiles, each the mean over the members of a population: population, step, percent, value.

    Human text is measured once, on texts of the same length; its rows have a null step.
    """
    parts = [
        pl.DataFrame(schema={"population": pl.String, "step": pl.Int32, "percent": pl.Int32, "value": pl.Float64}),
    ]
    for percent in percents:
        metric = f"{prefix}_q{percent:02d}"
        synthetic = means(members(metrics, metric))
        human = members(metrics, metric, "reference").with_columns(step=pl.lit(None, pl.Int32))
        rows = pl.concat([frame.select("population", "step", "value") for frame in (synthetic, human)])
        parts.append(rows.with_columns(percent=pl.lit(percent, pl.Int32)).select(parts[0].columns))
    return pl.concat(parts)


def between_quantiles(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the density of log x between adjacent quantiles of one sample: x, density; one row per edge.

    ``frame``: percent, value (positive). The density of a row holds up to the next row; that of the last is zero.
    """
    edges = (
        frame.sort("percent").filter(pl.col("value") > 0).group_by("value", maintain_order=True).agg(pl.max("percent"))
    )
    x, share = edges["value"].to_numpy(), edges["percent"].to_numpy() / 100
    return pl.DataFrame({"x": x, "density": np.append(np.diff(share) / np.diff(np.log(x)), 0.0)[: x.size]})


def refusals(metrics: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Return the refusals by population, policy and true origin, over all steps and members.

    Columns: the columns ``by``, who (population), what (policy), origin, flagged, total, rate, error.
    """
    parts = pl.col("id").str.split("/")
    return _rates(metrics, "policy", parts.list.first(), parts.list.last(), "refused_", ("kept_", "refused_"), by)


def detections(metrics: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Return the rates at which each population of curators suspected documents, by true origin.

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
    """Change in cross-entropy of a population from its first to its last measurement, in nats per token."""

    population: str
    first_step: int
    last_step: int
    before: float
    after: float
    change: float
    error: float | None
    towards_random: float | None  # change, as a share of the distance from the start to random weights
    members: int

    @property
    def verdict(self) -> str:
        """``degraded`` or ``improved`` beyond two standard errors, ``unchanged`` within; else ``unknown``."""
        if self.first_step == self.last_step or self.error is None:
            return "unknown"
        if abs(self.change) <= 2 * self.error:
            return "unchanged"
        return "degraded" if self.change > 0 else "improved"


def outcomes(metrics: pl.DataFrame, models: Mapping[str, str], started: Mapping[str, str]) -> list[Outcome]:
    """Return the outcome of each population.

    ``models``: population → model, for the random reference. ``started``: as ``models`` in :func:`from_start`.
    """
    values = from_start(metrics, "cross_entropy", started)
    levels, moves = means(values), means(changes(metrics, "cross_entropy", started))
    random = references(metrics, "cross_entropy").filter(pl.col("kind") == "random")
    results = []
    for population in values["population"].unique(maintain_order=True):
        rows = levels.filter(pl.col("population") == population)
        first, last = rows.row(0, named=True), rows.row(-1, named=True)
        moved = moves.filter(pl.col("population") == population).row(-1, named=True)
        before = last["value"] - moved["value"]  # of the members measured last, which may not be all
        at_random = random.filter(pl.col("model") == models.get(population, ""))["value"]
        towards_random = None
        # A share of the distance to random weights is meaningless if the start is close to them.
        if len(at_random) and at_random[0] - before > max(0.05, 5 * (first["error"] or 0.0)):
            towards_random = moved["value"] / (at_random[0] - before)
        results.append(
            Outcome(
                population=population,
                first_step=first["step"],
                last_step=last["step"],
                before=before,
                after=last["value"],
                change=moved["value"],
                error=moved["error"],
                towards_random=towards_random,
                members=last["members"],
            )
        )
    return results
