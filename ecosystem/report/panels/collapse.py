"""Total collapse: how many trainers collapsed and when, and which symbol was left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.formats import number, percent
from ecosystem.metrics.estimates import binomial, mean_and_error
from ecosystem.report import summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import TOLD, bold, plus_minus, signed
from ecosystem.report.html import Cells, Column, Table, tinted
from ecosystem.theory.extinction import time_to_collapse

REPLACING = ("diversity_replace", "surviving_types")  # laws of populations that learn from their last texts alone
SYMBOLS = 8  # most likely symbols with a row of their own


@dataclass(frozen=True)
class Fate:
    """Number and times of collapse of the trainers of a population.

    ``mean`` is the mean step of collapse, with its standard error ``error``. Trainers that have not collapsed count as
    the last step, so the mean is then a lower bound. ``median`` is the step by which half had collapsed (Kaplan &
    Meier's, since all are observed equally long), None if fewer have. ``predicted`` is the closed form.
    """

    population: str
    trainers: int
    collapsed: int
    mean: float
    error: float | None
    median: float | None
    predicted: float | None

    @property
    def share(self) -> tuple[float, float]:
        """Share of the trainers that have collapsed, and its binomial standard error."""
        return binomial(self.collapsed, self.trainers)


def fates(data: RunReportData) -> list[Fate]:
    """Return the fate of every population in which a trainer collapsed."""
    flags = summaries.members(data.metrics, "collapsed")
    times = summaries.members(data.metrics, "collapsed_at").select("trainer", at="value")
    last = data.run.last_step
    reached = []
    for population in data.populations:
        trainers = flags.filter(pl.col("population") == population).select("trainer").unique()
        at = trainers.join(times, on="trainer", how="left")["at"]
        steps = np.sort(at.fill_null(float(last)).to_numpy())
        collapsed, n = int(at.count()), len(steps)
        if not collapsed:
            continue
        half = math.ceil(n / 2)
        mean, error = mean_and_error(steps)
        reached.append(
            Fate(
                population=population,
                trainers=n,
                collapsed=collapsed,
                mean=mean,
                error=error if n > 1 else None,
                median=float(steps[half - 1]) if collapsed >= half else None,
                predicted=_predicted(data, population),
            )
        )
    return reached


def _predicted(data: RunReportData, population: str) -> float | None:
    """Return the expected step of collapse if the scenario names a law of replacing and the truth is known."""
    p = data.truth.probabilities if data.truth is not None else None
    for one in data.run.scenario.theory:
        if p is not None and one.population == population and one.law in REPLACING:
            return time_to_collapse(p, one.parameters["n"]) - one.first
    return None


def findings(data: RunReportData) -> list[str]:
    """State which populations collapsed and when, with the closed form if there is one."""
    sentences = []
    for fate in fates(data)[:TOLD]:
        share, error = fate.share
        mean = plus_minus(fate.mean, fate.error, 1)
        if fate.collapsed == fate.trainers:
            who = f"all {fate.trainers} trainers" if fate.trainers > 1 else "the only trainer"
            outcome = f"{who} collapsed totally, at step {mean}" + (" on average" if fate.trainers > 1 else "")
        else:
            outcome = (
                f"{percent(share)} ± {number(100 * error, 1)} of the {fate.trainers} trainers had collapsed totally by "
                f"step {data.run.last_step}; the mean step of collapse is at least {mean}"
            )
        law = f" (closed form for large samples: {number(fate.predicted, 1)})" if fate.predicted is not None else ""
        sentences.append(f"In {bold(fate.population)} {outcome}{law}.")
    return sentences


@dataclass(frozen=True)
class CollapseTables:
    """Tables of the times to collapse, and of the symbols that were left if the truth is known."""

    times: Table
    bounded: bool  # True if some trainers have not collapsed: means are lower bounds
    symbols: Table | None
    early: list[str]  # populations in which some have not


def tables(data: RunReportData) -> CollapseTables | None:
    """Return the tables of times to collapse and of the symbols that were left; None if no trainer collapsed."""
    reached = fates(data)
    if not reached:
        return None
    early = [fate.population for fate in reached if fate.collapsed < fate.trainers]
    return CollapseTables(_times(data, reached), bool(early), _fixations(data, reached), early)


def _times(data: RunReportData, reached: list[Fate]) -> Table:
    rows: list[Cells] = []
    for fate in reached:
        share, error = fate.share
        bound = "" if fate.collapsed == fate.trainers else "≥ "
        rows.append(
            [
                tinted(data.populations, fate.population),
                f"{fate.collapsed} of {fate.trainers}",
                f"{percent(share)} ± {number(100 * error, 1)}",
                bound + plus_minus(fate.mean, fate.error, 1),
                "–" if fate.median is None else number(fate.median, 0),
                "–" if fate.predicted is None else number(fate.predicted, 1),
            ]
        )
    head = ["population", "collapsed", "share", "mean step of collapse", "median"]
    return Table([*head, Column("closed form", "large samples")], rows)


def fixations(data: RunReportData, population: str) -> pl.DataFrame:
    """Count the symbols left to collapsed trainers: symbol, probability, count, expected, z.

    The likeliest symbols under the truth have rows of their own; all others share one (symbol null). Without selection,
    each symbol is left with its true probability (Seddik et al. 2024, Proposition 1), so z is the difference in
    standard deviations of a binomial count.
    """
    assert data.truth is not None and data.truth.probabilities is not None
    p = data.truth.probabilities
    end = summaries.members(data.metrics, "collapsed_at").filter(pl.col("population") == population)
    left = summaries.members(data.metrics, "mode").join(end, on=["trainer", "step"], how="semi")["value"]
    counts = np.bincount(left.to_numpy().astype(np.int64), minlength=p.size)
    order = np.argsort(-p, kind="stable")
    own, rest = order[:SYMBOLS].tolist(), order[SYMBOLS:]
    rows = [(symbol, float(p[symbol]), int(counts[symbol])) for symbol in own]
    if rest.size:
        rows.append((None, float(p[rest].sum()), int(counts[rest].sum() + counts[p.size :].sum())))
    frame = pl.DataFrame(rows, schema={"symbol": pl.Int64, "probability": pl.Float64, "count": pl.Int64}, orient="row")
    expected = pl.col("probability") * left.len()
    spread = (expected * (1 - pl.col("probability"))).sqrt()
    return frame.with_columns(expected=expected, z=pl.when(spread > 0).then((pl.col("count") - expected) / spread))


def _fixations(data: RunReportData, reached: list[Fate]) -> Table | None:
    if data.truth is None or data.truth.probabilities is None:
        return None
    rows: list[Cells] = [
        [
            tinted(data.populations, fate.population),
            "all others" if symbol is None else str(symbol),
            f"{p:.4f}",
            str(count),
            number(expected, 1),
            "–" if z is None else signed(z, 1),
        ]
        for fate in reached
        for symbol, p, count, expected, z in fixations(data, fate.population).iter_rows()
    ]
    return Table(["population", "symbol", "true probability", "left to", "expected", "z"], rows)
