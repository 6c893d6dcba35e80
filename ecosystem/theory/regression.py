"""Least squares on labels from earlier fits, and on mixtures of real and synthetic rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import polygamma

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_at_least, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats


def _ols_error(noise_variance: float, dimension: int, rows: int) -> float:
    check_at_least(0, noise_variance=noise_variance)
    check_at_least(1, dimension=dimension)
    if rows < dimension + 2:
        raise DataError(f"rows must be at least dimension + 2 = {dimension + 2}, not {rows}.")
    return noise_variance * dimension / (rows - dimension - 1)


@law("digest")
def ols_error_replace(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when each model labels the training rows of the next, t sigma^2 d/(T - d - 1).

    Ordinary least squares on T = ``rows`` standard Gaussian rows of d = ``dimension``; in squared units of w; shape of
    ``t``. Gerstgrasser et al. 2024 (2404.01413, unread).
    """
    return as_floats(_ols_error(noise_variance, dimension, rows) * whole_numbers("t", t))


@law("digest")
def ols_error_accumulate(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when all labellings of the same rows are kept, sigma^2 d/(T - d - 1) sum 1/i^2.

    Arguments as in :func:`ols_error_replace`; shape of ``t``. With new rows at each generation, the error is lower.
    Gerstgrasser et al. 2024 (2404.01413, unread).
    """
    # psi'(t + 1) is the sum of all terms after t.
    partial = math.pi**2 / 6 - polygamma(1, whole_numbers("t", t) + 1.0)
    return as_floats(_ols_error(noise_variance, dimension, rows) * np.maximum(partial, 0))


@law("derived")
def ols_error_mixture(
    noise_variance: float, shift: float, dimension: int, n_real: int, n_synthetic: int, t: ArrayLike
) -> Floats:
    """Return the exact E||w_t - w*||^2 of least squares on all t batches of real and synthetic rows.

    Each batch has ``n_real`` rows labelled by w* and ``n_synthetic`` rows labelled by a vector at squared distance c^2
    = ``shift`` from w*. All labels have noise of sigma^2 = ``noise_variance``; all rows are new and standard Gaussian,
    of d = ``dimension``. With n1 real and n2 synthetic rows so far and n = n1 + n2 >= d + 2, the error is sigma^2
    d/(n-d-1) + c^2 [(n2/n)^2 + b (1 - 2/n + (nd-2)/(n-d-1))] with b = n1 n2/(n (n-1) (n+2)). In squared units of w;
    shape of ``t``, NaN at 0. The limit for large problems is that of Dohmatob et al. 2024 (2410.04840, unread); the
    exact form derived for this project from the second moments of a matrix-variate beta distribution.
    """
    check_at_least(0, noise_variance=noise_variance, shift=shift, n_real=n_real, n_synthetic=n_synthetic)
    check_at_least(1, dimension=dimension)
    generations = whole_numbers("t", t)
    batches = np.where(generations > 0, generations, np.nan)  # no model at generation 0
    real, synthetic = n_real * batches, n_synthetic * batches
    n = real + synthetic
    if (n < dimension + 2).any():
        raise DataError(f"n_real and n_synthetic must add up to at least dimension + 2 = {dimension + 2} rows.")
    inherited = _inherited(dimension, real, synthetic)
    return as_floats(noise_variance * dimension / (n - dimension - 1) + shift * inherited)


def _inherited(dimension: int, real: ArrayLike, synthetic: ArrayLike) -> Floats:
    """Return the share of the squared error of the vector that labels the synthetic rows which a fit inherits."""
    real, synthetic = as_floats(real), as_floats(synthetic)
    n = real + synthetic
    beta = real * synthetic / (n * (n - 1) * (n + 2))
    return as_floats((synthetic / n) ** 2 + beta * (1 - 2 / n + (n * dimension - 2) / (n - dimension - 1)))


@law("derived")
def ols_error_edited(noise_variance: float, dimension: int, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when the last model labels anew a part of every generation's new real rows.

    Of n = ``n_real`` + ``n_synthetic`` new rows at each generation, the last model labels ``n_synthetic``; those of
    the first generation are all real. With V = sigma^2 d/(n-d-1) and the inherited share a < 1 of
    :func:`ols_error_mixture`, the error is V (1 + a + ... + a^(t-1)), at most V/(1-a); without real rows, V t. In
    squared units of w; shape of ``t``. The model is that of ToEdit (Zhu et al. 2024, 2412.14689), which states a
    finite bound whose constant was not seen; the exact form derived for this project.
    """
    check_at_least(0, n_real=n_real, n_synthetic=n_synthetic)
    error = _ols_error(noise_variance, dimension, n_real + n_synthetic)
    generations = whole_numbers("t", t)
    powers = _inherited(dimension, n_real, n_synthetic) ** np.arange(generations.max(initial=0))
    return as_floats(error * np.concatenate([[0.0], np.cumsum(powers)])[generations])


@law("derived")
def ols_error_recovery(
    noise_variance: float, dimension: int, rows: int, recovery: float, at: int, t: ArrayLike
) -> Floats:
    """Return E||w_t - w*||^2 of :func:`ols_error_replace` if the fit of generation ``at`` is taken back.

    With the factor alpha = ``recovery``, the model of that generation has the weights of the one before it minus alpha
    times their change. The change is independent of the error before it, so the error is V (at - 1 + alpha^2), and
    grows by V with each generation after that: where there is noise alone, no alpha is better than 0. In squared units
    of w; shape of ``t``. Derived for this project.
    """
    check_at_least(1, at=at)
    check_at_least(-1, recovery=recovery)
    generations = whole_numbers("t", t)
    taken_back = (1 - recovery**2) * (generations >= at)
    return as_floats(_ols_error(noise_variance, dimension, rows) * (generations - taken_back))
