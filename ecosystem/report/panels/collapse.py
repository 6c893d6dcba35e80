"""Total collapse: how many trainers collapsed, when, and on which symbol."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.formats import number
from ecosystem.metrics.estimates import binomial, mean_and_error
from ecosystem.report import summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import LISTED, bold, plus_minus, share, signed
from ecosystem.report.html import Cells, Column, Table, tinted
from ecosystem.theory.extinction import time_to_collapse

REPLACING = ("diversity_replace", "surviving_types")  # laws for populations that learn only from their last texts
SYMBOLS = 8  # number of likeliest symbols with a row each


@dataclass(frozen=True)
class CollapseTimes:
    """How many trainers of a population collapsed, and when.

    ``mean`` is the mean step of collapse; ``error`` is its standard error, None for one trainer. Trainers that have not
    collapsed count with the last step, which makes the mean a lower bound. ``median`` is the step by which half of the
    trainers had collapsed, None if fewer have; it equals the Kaplan-Meier estimate, since all trainers are observed for
    the same time. ``predicted`` is the closed form, if one applies.
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
        """Share of the trainers that collapsed, and its binomial standard error."""
        return binomial(self.collapsed, self.trainers)


def collapse_times(data: RunReportData) -> list[CollapseTimes]:
    """Return the collapse times of each population in which a trainer collapsed."""
    flags = summaries.members(data.metrics, "collapsed")
    times = summaries.members(data.metrics, "collapsed_at").select("trainer", at="value")
    last = data.run.last_step
    populations = []
    for population in data.populations:
        trainers = flags.filter(pl.col("population") == population).select("trainer").unique()
        collapsed_at = trainers.join(times, on="trainer", how="left")["at"]
        steps = np.sort(collapsed_at.fill_null(float(last)).to_numpy())
        collapsed, n = int(collapsed_at.count()), len(steps)
        if not collapsed:
            continue
        half = math.ceil(n / 2)
        mean, error = mean_and_error(steps)
        populations.append(
            CollapseTimes(
                population=population,
                trainers=n,
                collapsed=collapsed,
                mean=mean,
                error=error if n > 1 else None,
                median=float(steps[half - 1]) if collapsed >= half else None,
                predicted=_predicted(data, population),
            )
        )
    return populations


def _predicted(data: RunReportData, population: str) -> float | None:
    """Return the expected step of collapse if the scenario has a law of REPLACING and the truth is known; else None."""
    p = data.truth.probabilities if data.truth is not None else None
    for spec in data.run.scenario.theory:
        if p is not None and spec.population == population and spec.law in REPLACING:
            return time_to_collapse(p, spec.parameters["n"]) - spec.first
    return None


def findings(data: RunReportData) -> list[str]:
    """State which populations collapsed, when, and what the closed form predicts."""
    sentences = []
    for times in collapse_times(data)[:LISTED]:
        mean = plus_minus(times.mean, times.error, 1)
        if (calendar := data.theme.calendar) is not None:
            mean += f" ({calendar.shown(round(times.mean))})"
        if times.collapsed == times.trainers:
            several = times.trainers > 1
            trainers = f"all {times.trainers} trainers" if several else "the only trainer"
            outcome = f"{trainers} collapsed totally, at step {mean}" + (" on average" if several else "")
        else:
            outcome = (
                f"{share(*times.share)} of the {times.trainers} trainers had collapsed totally "
                f"by {data.step_name(data.run.last_step)}; the mean step of collapse is at least {mean}"
            )
        law = f" (large-sample closed form: {number(times.predicted, 1)})" if times.predicted is not None else ""
        sentences.append(f"In {bold(times.population)}, {outcome}{law}.")
    return sentences


@dataclass(frozen=True)
class CollapseTables:
    """Tables of the times to collapse and, if the truth is known, of the surviving symbols."""

    times: Table
    bounded: bool  # whether some trainers have not collapsed, so that means are lower bounds
    symbols: Table | None
    incomplete: list[str]  # populations in which some trainers have not collapsed


def tables(data: RunReportData) -> CollapseTables | None:
    """Return the tables of collapse times and of surviving symbols; None if no trainer collapsed."""
    populations = collapse_times(data)
    if not populations:
        return None
    incomplete = [times.population for times in populations if times.collapsed < times.trainers]
    return CollapseTables(_times(data, populations), bool(incomplete), _fixations(data, populations), incomplete)


def _times(data: RunReportData, populations: list[CollapseTimes]) -> Table:
    rows: list[Cells] = []
    for times in populations:
        bound = "" if times.collapsed == times.trainers else "≥ "
        rows.append(
            [
                tinted(data.populations, times.population),
                f"{times.collapsed} of {times.trainers}",
                share(*times.share),
                bound + plus_minus(times.mean, times.error, 1),
                "–" if times.median is None else number(times.median, 0),
                "–" if times.predicted is None else number(times.predicted, 1),
            ]
        )
    head = ["population", "collapsed", "share", "mean step of collapse", "median"]
    return Table([*head, Column("closed form", "large samples")], rows)


def fixations(data: RunReportData, population: str) -> pl.DataFrame:
    """Count the symbols on which trainers collapsed: symbol, probability, count, expected, z.

    The SYMBOLS symbols that are likeliest under the truth have a row each; all others share one (symbol null). Without
    selection, a symbol survives with its true probability (Seddik et al. 2024, Proposition 1); z is the difference from
    the expected count in binomial standard deviations.
    """
    assert data.truth is not None and data.truth.probabilities is not None
    p = data.truth.probabilities
    collapsed_at = summaries.members(data.metrics, "collapsed_at").filter(pl.col("population") == population)
    survivors = summaries.members(data.metrics, "mode").join(collapsed_at, on=["trainer", "step"], how="semi")["value"]
    counts = np.bincount(survivors.to_numpy().astype(np.int64), minlength=p.size)
    order = np.argsort(-p, kind="stable")
    likeliest, rest = order[:SYMBOLS].tolist(), order[SYMBOLS:]
    rows = [(symbol, float(p[symbol]), int(counts[symbol])) for symbol in likeliest]
    if rest.size:
        rows.append((None, float(p[rest].sum()), int(counts[rest].sum() + counts[p.size :].sum())))
    frame = pl.DataFrame(rows, schema={"symbol": pl.Int64, "probability": pl.Float64, "count": pl.Int64}, orient="row")
    expected = pl.col("probability") * survivors.len()
    spread = (expected * (1 - pl.col("probability"))).sqrt()
    return frame.with_columns(expected=expected, z=pl.when(spread > 0).then((pl.col("count") - expected) / spread))


def _fixations(data: RunReportData, populations: list[CollapseTimes]) -> Table | None:
    if data.truth is None or data.truth.probabilities is None:
        return None
    rows: list[Cells] = [
        [
            tinted(data.populations, times.population),
            "all others" if symbol is None else str(symbol),
            f"{p:.4f}",
            str(count),
            number(expected, 1),
            "–" if z is None else signed(z, 1),
        ]
        for times in populations
        for symbol, p, count, expected, z in fixations(data, times.population).iter_rows()
    ]
    return Table(["population", "symbol", "true probability", "trainers", "expected", "z"], rows)
