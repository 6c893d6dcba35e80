"""Repeated fits of a Gaussian (one coordinate) and of a kernel density estimate to samples of the previous fit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln, polygamma

from ecosystem.theory.domains import as_floats, check_at_least, check_positive, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats


def c4(n: int) -> float:
    """Return c4 = E[s] / sigma for ``n`` >= 2 Gaussian samples, where s^2 is the unbiased sample variance."""
    check_at_least(2, n=n)
    half = (n - 1) / 2
    if half > 500:
        # Callers need 1 - c4. The difference of two large log-gammas would lose its digits; the series keeps them.
        return 1 - (1 / 8 - (1 / 128 + (5 / 1024 - 21 / 32768 / half) / half) / half) / half
    return math.exp(gammaln(half + 0.5) - gammaln(half)) / math.sqrt(half)


def _variance_factor(variance: float, n: int, unbiased: bool, sampling_bias: float) -> float:
    """Return the factor of the expected variance per generation; raise DataError outside the domain."""
    check_at_least(0, variance=variance)
    check_at_least(2, n=n)
    check_positive(sampling_bias=sampling_bias)
    return sampling_bias if unbiased else sampling_bias * (1 - 1 / n)


@law("derived")
def gaussian_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected variance of the fit, variance lambda^t if ``unbiased``, else variance (lambda (1 - 1/n))^t.

    The unbiased estimator divides by n - 1, maximum likelihood by n. lambda = ``sampling_bias`` multiplies the variance
    at which each generation is sampled; below 1, it favours likely values. In the unit of ``variance``; shape of ``t``.
    Alemohammad et al. 2023 (2307.01850) for the unbiased case; maximum likelihood derived for this project.
    """
    return as_floats(variance * _variance_factor(variance, n, unbiased, sampling_bias) ** whole_numbers("t", t))


@law("derived")
def gaussian_variance_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the variance between runs of the variance of the fit, variance^2 [f^t (1 + 2/(n-1))^t - f^t].

    f is the square of the factor per generation in :func:`gaussian_variance`, with its arguments; in the squared unit
    of ``variance``; shape of ``t``. The fits are strongly skewed: most runs are far below the mean. Derived for this
    project from E[chi^4] = (n - 1)(n + 1).
    """
    square = _variance_factor(variance, n, unbiased, sampling_bias) ** 2
    generations = whole_numbers("t", t)
    return as_floats(variance**2 * ((square * (1 + 2 / (n - 1))) ** generations - square**generations))


@law("digest")
def gaussian_sd(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected standard deviation of the fit, sigma c4(n)^t if unbiased and without sampling bias.

    Arguments as in :func:`gaussian_variance`; in the unit of the data; shape of ``t``. Bertrand et al. 2024
    (2310.00429, unread) as a bound for the unbiased case; the rest derived for this project.
    """
    factor = c4(n) * math.sqrt(_variance_factor(variance, n, unbiased, sampling_bias))
    return as_floats(math.sqrt(variance) * factor ** whole_numbers("t", t))


@law("derived")
def gaussian_log_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected log variance of the fit, ln variance + t [psi((n-1)/2) + ln(2 lambda/(n-1))] if unbiased.

    Arguments as in :func:`gaussian_variance`, but ``variance`` above 0; in nats; shape of ``t``. Falls by about 1/n per
    generation, or 2/n under maximum likelihood, even if the mean variance is constant. Derived for this project.
    """
    _variance_factor(variance, n, unbiased, sampling_bias)
    check_positive(variance=variance)
    step = digamma((n - 1) / 2) + math.log(2 * sampling_bias / (n - 1 if unbiased else n))
    return as_floats(math.log(variance) + whole_numbers("t", t) * step)


@law("derived")
def gaussian_log_variance_variance(n: int, t: ArrayLike) -> Floats:
    """Return the variance between runs of the log variance of the fit, t psi'((n - 1)/2), in squared nats.

    The same for both estimators and every sampling bias; shape of ``t``. Derived for this project.
    """
    check_at_least(2, n=n)
    return as_floats(whole_numbers("t", t) * polygamma(1, (n - 1) / 2))


@law("derived")
def gaussian_typical_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return exp(E ln variance of the fit), which is close to the median over runs for large ``t``.

    Arguments as in :func:`gaussian_log_variance`; in the unit of ``variance``; shape of ``t``. Derived for this
    project.
    """
    return as_floats(np.exp(gaussian_log_variance(n, t, variance, unbiased, sampling_bias)))


@law("derived")
def gaussian_mean_error(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected squared error of the fitted mean, variance t/n if unbiased and without sampling bias.

    Arguments as in :func:`gaussian_variance`; in the unit of ``variance``; shape of ``t``. Shumailov et al. 2024
    (2305.17493) for the unbiased case; the others derived for this project (a geometric series of lambda variance/n).
    """
    factor = _variance_factor(variance, n, unbiased, sampling_bias)
    generations = whole_numbers("t", t)
    terms = generations if factor == 1 else (1 - factor**generations) / (1 - factor)
    return as_floats(variance * sampling_bias / n * terms)


@law("derived")
def gaussian_w2(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected squared Wasserstein-2 distance to the truth, variance [t/n + 2 (1 - c4(n)^t)] if unbiased.

    Arguments as in :func:`gaussian_variance`; in the unit of ``variance``; shape of ``t``. In one dimension, W2^2 is
    the squared difference of the means plus that of the standard deviations. The setting is Shumailov et al. 2024
    (2305.17493), Theorem 3.1; the exact form derived for this project.
    """
    mean = gaussian_mean_error(n, t, variance, unbiased, sampling_bias)
    spread = gaussian_variance(n, t, variance, unbiased, sampling_bias) + variance
    return as_floats(mean + spread - 2 * math.sqrt(variance) * gaussian_sd(n, t, variance, unbiased, sampling_bias))


@law("digest")
def gaussian_w2_first_order(n: int, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return (3/2) variance t/n, the first-order term of :func:`gaussian_w2` (unbiased), in the unit of ``variance``.

    Shape of ``t``; 5 % too large at ``n = 10``, ``t = 20``. Shumailov et al. 2024 (2305.17493, unread).
    """
    _variance_factor(variance, n, True, 1.0)
    return as_floats(1.5 * variance * whole_numbers("t", t) / n)


@law("digest")
def gaussian_sd_tail_bound(n: int, t: ArrayLike, ratio: float) -> Floats:
    """Return min(1, exp(-t/(4n))/ratio), an upper bound of the probability that the fitted sd exceeds ratio sigma.

    No unit; shape of ``t``; for both estimators. Suresh et al. 2024 (2412.17646, unread), the Gaussian theorem.
    """
    check_at_least(2, n=n)
    check_positive(ratio=ratio)
    return as_floats(np.minimum(1, np.exp(-whole_numbers("t", t) / (4 * n)) / ratio))


# Kernel density estimates: a normal of standard deviation ``bandwidth`` around every document of a training set.


def _check_kde(n: int, bandwidth: float, variance: float) -> None:
    check_at_least(1, n=n)
    check_at_least(0, variance=variance)
    check_positive(bandwidth=bandwidth)


@law("derived")
def kde_variance_replace(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the expected variance per coordinate of an estimate from ``n`` samples of the previous one.

    v_t = (1 - 1/n) v_(t-1) + h^2 with h = ``bandwidth``, and v_0 = ``variance``, that of the truth. Converges to n h^2,
    where the kernels restore as much variance as sampling removes. In the unit of ``variance``; shape of ``t``. Derived
    for this project; the setting is Kazdan et al. 2025 (2410.16713).
    """
    _check_kde(n, bandwidth, variance)
    limit = n * bandwidth**2
    return as_floats(limit + (variance - limit) * (1 - 1 / n) ** whole_numbers("t", t))


@law("derived")
def kde_variance_accumulate(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the expected variance of an estimate from all batches of ``n`` so far; unbounded, like bandwidth^2 ln t.

    Arguments as in :func:`kde_variance_replace`; shape of ``t``. Errors with a nonzero mean accumulate even if all data
    is kept. Derived for this project; the setting is Kazdan et al. 2025 (2410.16713).
    """
    return _kde_variance_pool(n, bandwidth, t, variance, subsample=False)


@law("derived")
def kde_variance_accumulate_subsample(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the expected variance of an estimate from ``n`` documents drawn from all batches without replacement.

    Arguments as in :func:`kde_variance_replace`; shape of ``t``. Derived for this project; the setting is Kazdan et al.
    2025 (2410.16713).
    """
    return _kde_variance_pool(n, bandwidth, t, variance, subsample=True)


def _kde_variance_pool(n: int, bandwidth: float, t: ArrayLike, variance: float, subsample: bool) -> Floats:
    _check_kde(n, bandwidth, variance)
    generations, values = whole_numbers("t", t), [variance]
    pooled = variance  # half the mean squared difference of two documents in the pool
    for batches in range(1, generations.max(initial=0) + 1):
        old, new = batches * n, (batches + 1) * n
        fit = (1 - 1 / (n if subsample else old)) * pooled + bandwidth**2
        values.append(fit)
        cross = (1 - 1 / old) * pooled + bandwidth**2 / 2  # a new document is a displaced copy of an old one
        pooled = (n * (n - 1) * fit + old * (old - 1) * pooled + 2 * n * old * cross) / (new * (new - 1))
    return as_floats(as_floats(values)[generations])
