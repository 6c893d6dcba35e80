"""Least squares on the labels of earlier fits, and on a mixture of real and synthetic rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import polygamma

from ecosystem.errors import DataError
from ecosystem.theory.domains import as_floats, check_at_least, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats


def _ols(noise_variance: float, dimension: int, rows: int) -> float:
    check_at_least(0, noise_variance=noise_variance)
    check_at_least(1, dimension=dimension)
    if rows < dimension + 2:
        raise DataError(f"rows must be at least dimension + 2 = {dimension + 2}, not {rows}.")
    return noise_variance * dimension / (rows - dimension - 1)


@law("digest")
def ols_error_replace(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when each model labels the rows for the next, t sigma^2 d/(T - d - 1).

    ``rows`` T of ``dimension`` d, standard Gaussian, ordinary least squares; in squared units of w; shape of ``t``.
    Gerstgrasser et al. 2404.01413 (unread).
    """
    return as_floats(_ols(noise_variance, dimension, rows) * whole_numbers("t", t))


@law("digest")
def ols_error_accumulate(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when all labellings of the same rows are kept, sigma^2 d/(T - d - 1) sum 1/i^2.

    Arguments of :func:`ols_error_replace`; shape of ``t``. With new rows each time it is lower. Gerstgrasser et al.
    2404.01413 (unread).
    """
    # Minus psi' beyond t + 1 is the sum of the terms after t.
    partial = math.pi**2 / 6 - polygamma(1, whole_numbers("t", t) + 1.0)
    return as_floats(_ols(noise_variance, dimension, rows) * np.maximum(partial, 0))


@law("derived")
def ols_error_mixture(
    noise_variance: float, shift: float, dimension: int, n_real: int, n_synthetic: int, t: ArrayLike
) -> Floats:
    """Return E||w_t - w*||^2 of least squares on t batches of real and synthetic rows, all of them kept: exact.

    Each batch has ``n_real`` rows labelled by w* and ``n_synthetic`` by a vector at the squared distance ``shift`` from
    it, with noise of ``noise_variance`` on all labels, and standard Gaussian designs of ``dimension`` d, new each time.
    With n1 real and n2 synthetic rows so far, n = n1 + n2 >= d + 2, it is sigma^2 d/(n-d-1) + c^2 [(n2/n)^2 + b (1 -
    2/n + (nd-2)/(n-d-1))] with b = n1 n2/(n (n-1) (n+2)); in squared units of w; shape of ``t``, NaN at 0. Its limit
    for large problems is that of Dohmatob et al. 2410.04840 (unread); the exact form derived for this project from the
    second moments of a matrix-variate beta distribution.
    """
    check_at_least(0, noise_variance=noise_variance, shift=shift, n_real=n_real, n_synthetic=n_synthetic)
    check_at_least(1, dimension=dimension)
    generations = whole_numbers("t", t)
    batches = np.where(generations > 0, generations, np.nan)  # before the first there is no model
    real, synthetic = n_real * batches, n_synthetic * batches
    n = real + synthetic
    if (n < dimension + 2).any():
        raise DataError(f"n_real and n_synthetic must add up to at least dimension + 2 = {dimension + 2} rows.")
    beta = real * synthetic / (n * (n - 1) * (n + 2))
    moved = (synthetic / n) ** 2 + beta * (1 - 2 / n + (n * dimension - 2) / (n - dimension - 1))
    return as_floats(noise_variance * dimension / (n - dimension - 1) + shift * moved)
