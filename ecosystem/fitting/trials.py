"""Points of the parameters that were simulated, and how far their outputs are from the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ecosystem.fitting.spec.targets import Target
from ecosystem.types import Floats

State = Literal["complete", "pruned", "failed"]
Stage = Literal["start", "search", "morris"]


@dataclass(frozen=True)
class Trial:
    """A point that was simulated: its place in the unit cube of the prior, and what its runs gave.

    ``u`` [parameters]; ``outputs`` [replicates, targets], NaN for replicates that were not run or failed.
    """

    number: int
    stage: Stage
    batch: int
    u: Floats
    values: dict[str, float]
    outputs: Floats
    state: State
    misfit: float  # of the mean over replicates; NaN if the trial failed
    error: str = ""


def misfits(outputs: Floats, targets: Sequence[Target], between: Floats | float = 0.0) -> Floats:
    """Return half the sum of squared deviations from the targets of the fit, in units of their errors.

    ``outputs`` [..., targets]; ``between`` [targets] is the variance between runs, which adds to that of the errors.
    The result has the shape [...]. It is infinite where a target has no value.
    """
    used = np.array([target.use == "fit" for target in targets])
    value = np.array([target.value for target in targets])
    variance = np.array([target.error**2 + target.discrepancy**2 for target in targets]) + between
    total = 0.5 * ((outputs - value) ** 2 / variance)[..., used].sum(axis=-1)
    return np.asarray(np.where(np.isfinite(total), total, np.inf))


def means_over_replicates(outputs: Floats) -> tuple[Floats, Floats]:
    """Return the means over replicates [trials, targets] and the variance between replicates [targets].

    ``outputs`` [trials, replicates, targets] has NaN for replicates that were not run. All points have the same seeds,
    so the mean deviation of the first replicate at the complete points corrects points with the first alone.
    """
    complete = np.isfinite(outputs).all(axis=1)  # [trials, targets]
    means = np.where(complete, outputs.mean(axis=1), np.nan)
    offsets = np.nan_to_num(_mean_of(means - outputs[:, 0]))
    replicates = outputs.shape[1]
    between = np.zeros(outputs.shape[2])
    if replicates > 1:
        between = np.nan_to_num(_mean_of(np.where(complete, outputs.var(axis=1, ddof=1), np.nan)))
    return np.where(complete, means, outputs[:, 0] + offsets), between


def _mean_of(values: Floats) -> Floats:
    """Return the means over the first axis without NaN; NaN where there are no values."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0))


def described(values: dict[str, float]) -> str:
    """Return the values of parameters in one line."""
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
