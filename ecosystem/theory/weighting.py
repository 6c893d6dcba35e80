"""Fits to new real samples and samples of the last model, weighted by origin (He, Xu & Cheng 2025, 2502.18049).

The real samples together have the weight w, the synthetic ones 1 - w, however many there are of each. With k = n_real /
n_synthetic, pooling is w = k/(k + 1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_at_least, check_positive, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats


def golden_weight(n_real: float, n_synthetic: float) -> float:
    """Return w* = (sqrt(k^2 + 4k) - k)/2, the weight of the real samples with the least stationary error.

    For k = 1 it is the inverse of the golden ratio, 0.618. He, Xu & Cheng 2025 (2502.18049), abstract.
    """
    check_positive(n_real=n_real, n_synthetic=n_synthetic)
    k = n_real / n_synthetic
    return 2 / (1 + math.sqrt(1 + 4 / k))  # without the difference of two nearly equal numbers


def stationary_mean_error(real_weight: float, n_real: int, n_synthetic: int, variance: float = 1.0) -> float:
    """Return V(w) = [w^2 + k (1 - w)^2]/[w (2 - w)] variance/n_real, where :func:`weighted_mean_error` settles.

    In the unit of ``variance``. At :func:`golden_weight` it is w* variance/n_real. Derived for this project.
    """
    w = _weight(real_weight, n_real, n_synthetic)
    check_at_least(0, variance=variance)
    return (w**2 + n_real / n_synthetic * (1 - w) ** 2) / (w * (2 - w)) * variance / n_real


@law("derived")
def weighted_mean_error(
    real_weight: float, n_real: int, n_synthetic: int, t: ArrayLike, variance: float = 1.0, start: float = 0.0
) -> Floats:
    """Return the expected squared error of a weighted mean, V + (start - V) (1 - w)^(2t).

    The recursion is E' = w^2 variance/n_real + (1 - w)^2 (E + variance/n_synthetic), with the fixed point V of
    :func:`stationary_mean_error`; ``start`` is the error of generation 0. The variance is known and not fitted; for
    vectors it is the trace of the covariance. In the unit of ``variance``; shape of ``t``. The setting is He, Xu &
    Cheng 2025 (2502.18049); derived for this project.
    """
    check_at_least(0, start=start)
    limit = stationary_mean_error(real_weight, n_real, n_synthetic, variance)
    return as_floats(limit + (start - limit) * (1 - real_weight) ** (2.0 * whole_numbers("t", t)))


@law("derived")
def weighted_fit_mean_error(
    real_weight: float,
    n_real: int,
    n_synthetic: int,
    t: ArrayLike,
    variance: float = 1.0,
    start: float = 0.0,
    unbiased: bool = True,
) -> Floats:
    """Return the expected squared error of the mean if the variance is fitted with the same weights.

    Arguments as in :func:`weighted_mean_error`; ``unbiased`` divides the variance by 1 - sum of squared weights.
    The recursion of the error E and the variance v is E' = w^2 variance/n + (1 - w)^2 (E + v/m) and v' = c [w (1 - w/n)
    variance + (1 - w)(1 - (1 - w)/m) v + w (1 - w) E], with n = ``n_real``, m = ``n_synthetic`` and c = 1 or 1/(1 -
    w^2/n - (1 - w)^2/m). It begins with a fit to real samples. In the unit of ``variance``; shape of ``t``. Derived for
    this project.
    """
    return _fitted(real_weight, n_real, n_synthetic, t, variance, start, unbiased)[0]


@law("derived")
def weighted_fit_variance(
    real_weight: float,
    n_real: int,
    n_synthetic: int,
    t: ArrayLike,
    variance: float = 1.0,
    start: float = 0.0,
    unbiased: bool = True,
) -> Floats:
    """Return the expected fitted variance; the recursion and its arguments are in :func:`weighted_fit_mean_error`.

    The unbiased one exceeds the truth: it counts the distance between the two means as variance. In the unit of
    ``variance``; shape of ``t``. Derived for this project.
    """
    return _fitted(real_weight, n_real, n_synthetic, t, variance, start, unbiased)[1]


def _fitted(
    real_weight: float, n: int, m: int, t: ArrayLike, variance: float, start: float, unbiased: bool
) -> tuple[Floats, Floats]:
    """Return the expected squared error of the mean and the expected variance, each in the shape of ``t``."""
    w = _weight(real_weight, n, m)
    check_at_least(0, variance=variance, start=start)
    squares = w**2 / n + (1 - w) ** 2 / m
    if unbiased and squares >= 1:
        raise DataError("an unbiased variance needs at least two samples with a weight.")
    c = 1 / (1 - squares) if unbiased else 1.0
    generations = whole_numbers("t", t)
    path = [(start, variance if unbiased else variance - start)]
    for _ in range(generations.max(initial=0)):
        error, v = path[-1]
        inner = w * (1 - w / n) * variance + (1 - w) * (1 - (1 - w) / m) * v + w * (1 - w) * error
        path.append((w**2 * variance / n + (1 - w) ** 2 * (error + v / m), c * inner))
    errors, variances = np.array(path).T
    return as_floats(errors[generations]), as_floats(variances[generations])


def _weight(real_weight: float, n_real: int, n_synthetic: int) -> float:
    """Return the weight; raise DataError unless it is in (0, 1] and there are samples of both sorts."""
    check_at_least(1, n_real=n_real, n_synthetic=n_synthetic)
    if not 0 < real_weight <= 1:
        raise DataError(f"real_weight must be above 0 and at most 1, not {real_weight}.")
    return real_weight
