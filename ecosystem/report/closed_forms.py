"""The closed forms of a scenario, as curves and compared with the last measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.report.summaries import means, members
from ecosystem.scenario.entries.theory import TheorySpec
from ecosystem.sources.base import Truth
from ecosystem.theory.laws import predict


def laws(theory: Sequence[TheorySpec], metric: str, steps: int, truth: Truth | None) -> pl.DataFrame:
    """Return the closed forms of a metric from generation 1 to step ``steps``: population, law, step, value."""
    frames = [pl.DataFrame(schema={"population": pl.String, "law": pl.String, "step": pl.Int64, "value": pl.Float64})]
    for spec in theory:
        steps_predicted = np.arange(max(0, 1 - spec.first), steps + 1, dtype=np.int64)
        if spec.metric == metric and steps_predicted.size:
            values = predict(spec.law, steps_predicted + spec.first, spec.parameters, truth)
            curve = pl.DataFrame({"step": steps_predicted, "value": values})
            frames.append(
                curve.select(
                    pl.lit(spec.population).alias("population"), pl.lit(spec.law).alias("law"), "step", "value"
                )
            )
    return pl.concat(frames)


@dataclass(frozen=True)
class Agreement:
    """A closed form at the last step: mean over the trainers or communities, its standard error, and prediction."""

    population: str
    metric: str
    step: int
    simulated: float
    error: float | None
    predicted: float

    @property
    def z(self) -> float | None:
        """Difference between simulation and law in standard errors; None if the error is unknown or zero."""
        return (self.simulated - self.predicted) / self.error if self.error else None


def agreements(metrics: pl.DataFrame, theory: Sequence[TheorySpec], steps: int, truth: Truth | None) -> list[Agreement]:
    """Compare every closed form of a scenario with the last measurement of its metric."""
    comparisons = []
    for spec in theory:
        scopes = (members(metrics, spec.metric, scope) for scope in ("trainer", "community"))
        measured = means(pl.concat(scopes)).filter(pl.col("population") == spec.population).tail(1)
        for step, value, error in measured.select("step", "value", "error").iter_rows():
            curve = laws([spec], spec.metric, steps, truth).filter(pl.col("step") == step)
            comparisons += [
                Agreement(spec.population, spec.metric, step, value, error, predicted) for predicted in curve["value"]
            ]
    return comparisons
