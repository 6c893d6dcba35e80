"""Estimates with their standard errors: means, ratios, shares, quantiles and areas under ROC curves.

Values that a run folder stores are computed by plain formulas here: a library may change its order of summation, and a
run must always measure the same bits. Intervals that are not stored come from :mod:`scipy.stats`, which is imported on
use since that takes up to a second.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ecosystem.types import Floats, Ints

Estimate = tuple[float, float]  # value, standard error (NaN where one observation has none)


def mean_and_error(values: ArrayLike) -> Estimate:
    """Return the mean of independent observations and its standard error (NaN for fewer than two)."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return math.nan, math.nan
    error = float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else math.nan
    return float(array.mean()), error


def hellinger(p: Floats, q: Floats, points: Floats) -> float:
    """Return the Hellinger distance of two densities of one number, √(½ ∫ (√p - √q)² dx), by the trapezoidal rule.

    ``p`` and ``q`` [points] are the densities at ascending ``points`` [points].
    """
    squares = (np.sqrt(p) - np.sqrt(q)) ** 2
    return math.sqrt(max(0.0, 0.5 * float(((squares[1:] + squares[:-1]) / 2 * np.diff(points)).sum())))


def ratio(numerator: Floats | Ints, denominator: Floats | Ints) -> Estimate:
    """Return sum(numerator) / sum(denominator) over documents and its standard error; NaN if the denominator is 0.

    The error is that of a ratio estimator (delta method): with residuals e_i = y_i - R x_i, the variance of
    R = sum(y) / sum(x) is n / (n - 1) * sum(e_i^2) / sum(x)^2. One document has no standard error: NaN.
    """
    y, x = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    total, n = float(x.sum()), int(np.count_nonzero(x))
    if total <= 0:
        return math.nan, math.nan
    value = float(y.sum()) / total
    if n < 2 or not math.isfinite(value):
        return value, math.nan
    residuals = (y - value * x)[x > 0]
    return value, math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total


def binomial(successes: int, trials: int) -> Estimate:
    """Return the share successes / trials and its binomial standard error; NaN for no trials."""
    if trials == 0:
        return math.nan, math.nan
    rate = successes / trials
    return rate, math.sqrt(rate * (1 - rate) / trials)


def share(flags: NDArray[np.bool_]) -> Estimate:
    """Return the share of flags that are set and its binomial standard error; NaN without flags."""
    return binomial(int(np.count_nonzero(flags)), flags.size)


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the lower and upper end of Wilson's interval (1927) for a share; at least one trial is required."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def quantile(values: Floats, share: float) -> Estimate:
    """Return a quantile of values [n], n > 0, and its standard error.

    The error is half the distance between the quantiles one binomial standard error below and above (Woodruff 1952),
    and NaN if one of these shares is outside the interval from 0 to 1.
    """
    error = math.sqrt(share * (1 - share) / values.size)
    with np.errstate(invalid="ignore"):  # the difference of two infinite values is NaN
        low, value, high = np.quantile(values, np.clip([share - error, share, share + error], 0, 1)).tolist()
    return value, (high - low) / 2 if values.size > 1 and error < share < 1 - error else math.nan


def roc_area(positive: Floats, negative: Floats) -> Estimate:
    """Return the area under the ROC curve and its standard error (DeLong, DeLong & Clarke-Pearson 1988).

    The area is the mean over pairs of 1 if the positive one scores higher and 1/2 for a tie. It is NaN without pairs,
    and its error is NaN with fewer than two of either class.
    """
    if not (positive.size and negative.size):
        return math.nan, math.nan
    above = _exceeded_share(positive, negative)
    below = 1 - _exceeded_share(negative, positive)
    if min(positive.size, negative.size) < 2:
        return float(above.mean()), math.nan
    variance = above.var(ddof=1) / positive.size + below.var(ddof=1) / negative.size
    return float(above.mean()), math.sqrt(variance)


def _exceeded_share(scores: Floats, others: Floats) -> Floats:
    """Return the share of ``others`` that each score exceeds; ties count one half."""
    ordered = np.sort(others)
    exceeded = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(exceeded / (2 * others.size), dtype=np.float64)


def error_of_mean(column: str) -> pl.Expr:
    """Return the standard error of the mean of a column, as an aggregation; null for one row."""
    return pl.col(column).std() / pl.len().sqrt()


def error_of_share(successes: pl.Expr, trials: pl.Expr) -> pl.Expr:
    """Return the binomial standard error of successes / trials, row by row."""
    rate = successes / trials
    return (rate * (1 - rate) / trials).sqrt()
