"""The closed forms of a scenario: as curves, and compared with the last measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.report.summaries import means, members
from ecosystem.scenario.entries import TheorySpec
from ecosystem.sources.base import Truth
from ecosystem.theory.laws import predict


def laws(theory: Sequence[TheorySpec], metric: str, steps: int, truth: Truth | None) -> pl.DataFrame:
    """Return the closed forms of a metric as curves, from their generation 1: population, law, step, value."""
    frames = [pl.DataFrame(schema={"population": pl.String, "law": pl.String, "step": pl.Int64, "value": pl.Float64})]
    for one in theory:
        at = np.arange(max(0, 1 - one.first), steps + 1, dtype=np.int64)
        if one.metric == metric and at.size:
            values = predict(one.law, at + one.first, one.parameters, truth)
            curve = pl.DataFrame({"step": at, "value": values})
            frames.append(
                curve.select(pl.lit(one.population).alias("population"), pl.lit(one.law).alias("law"), "step", "value")
            )
    return pl.concat(frames)


@dataclass(frozen=True)
class Agreement:
    """A closed form at the last step: simulated mean over a population's trainers, its error, and the prediction."""

    population: str
    metric: str
    step: int
    simulated: float
    error: float | None
    predicted: float

    @property
    def z(self) -> float | None:
        """Distance of the simulation from the law in standard errors; None if its error is unknown."""
        return (self.simulated - self.predicted) / self.error if self.error else None


def agreements(metrics: pl.DataFrame, theory: Sequence[TheorySpec], steps: int, truth: Truth | None) -> list[Agreement]:
    """Compare every closed form of a scenario with the last measurement of its metric."""
    comparisons = []
    for one in theory:
        measured = means(members(metrics, one.metric)).filter(pl.col("population") == one.population).tail(1)
        for step, value, error in measured.select("step", "value", "error").iter_rows():
            curve = laws([one], one.metric, steps, truth).filter(pl.col("step") == step)
            comparisons += [Agreement(one.population, one.metric, step, value, error, p) for p in curve["value"]]
    return comparisons
