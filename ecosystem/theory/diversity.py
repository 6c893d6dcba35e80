"""Diversity when models are fitted to samples of earlier ones, alone or mixed with human data.

``h0`` and ``h`` are the Gini-Simpson diversity of a distribution or the maximum likelihood variance per coordinate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import DataError
from ecosystem.theory.domains import (
    as_floats,
    check_at_least,
    check_share,
    generations_until,
    probabilities,
    products,
    whole_numbers,
)
from ecosystem.theory.laws import law
from ecosystem.types import Floats


def gini_simpson(p: ArrayLike) -> float:
    """Return 1 - sum p_i^2, the probability that two independent draws differ; ``p`` (types,), no unit."""
    array = probabilities(p)
    return float(1 - array @ array)


@law("paper")
def diversity_replace(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each model sees only ``n`` samples of the previous one, H_0 (1 - 1/n)^t.

    In the unit of ``h0``; shape of ``t``. Seddik et al. 2024 (2404.05090), Theorem 1.1.
    """
    check_at_least(0, h0=h0)
    check_at_least(1, n=n)
    return as_floats(h0 * (1 - 1 / n) ** whole_numbers("t", t))


@law("derived")
def diversity_merged(h0: float, n: int, merged: int, t: ArrayLike, parties: int = 2) -> Floats:
    """Return the expected diversity of frequencies when independent models are replaced by their mean.

    Each model sees only ``n`` samples of the previous one (:func:`diversity_replace`), and after generation ``merged``
    the mean of the frequencies of ``parties`` models goes on alone. Two draws from it come from the same model with
    probability 1 / parties, and from independent ones else, which differ with probability H_0 on average, since every
    frequency is a martingale. So merging gives back (parties - 1) / parties of the diversity that each has lost:
    H = (H_m + (parties - 1) H_0) / parties, and then H (1 - 1/n)^(t - m).

    In the unit of ``h0``; shape of ``t``. Not for variances, whose mean is not that of a mixture. Derived for this
    project.
    """
    check_at_least(0, h0=h0, merged=merged)
    check_at_least(1, n=n, parties=parties)
    generations = whole_numbers("t", t)
    alone, kept = diversity_replace(h0, n, generations), (1 - 1 / n) ** merged
    together = h0 * (kept + parties - 1) / parties * (1 - 1 / n) ** np.maximum(generations - merged, 0)
    return np.where(generations <= merged, alone, together)


@law("derived")
def diversity_accumulate(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each model sees all batches of ``n`` so far, H_0 prod (1 - 1/(n i^2)).

    In the unit of ``h0``; shape of ``t``. Derived for this project; the Gaussian case is that of Kazdan et al. 2025
    (2410.16713, unread).
    """
    check_at_least(0, h0=h0)
    check_at_least(1, n=n)
    generations = whole_numbers("t", t)
    return as_floats(h0 * products(1 - 1 / (n * generations_until(generations) ** 2))[generations])


@law("derived")
def diversity_random_mixture(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each of ``n`` samples comes from a past model drawn at random.

    Equal to :func:`diversity_accumulate`, with human data as model 0; in the unit of ``h0``; shape of ``t``. Derived
    for this project; the workflow is Seddik et al. 2024 (2404.05090), section 4.2.
    """
    return diversity_accumulate(h0, n, t)


def _batch_size(n: int, published: int | None) -> int:
    """Return the number of documents that each generation adds to the pool: ``published``, or ``n`` if it is None."""
    check_at_least(1, n=n)
    if published is None:
        return n
    check_at_least(n, published=published)
    return published


def _distinct_probability(size: Floats) -> Floats:
    """Return the probability that two draws with replacement from a pool of ``size`` items are different items."""
    return np.where(size == 0, 1.0, 1 - 1 / np.maximum(size, 1))


@law("derived")
def pool_diversity_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return the expected diversity of a pool of ``t`` batches when each model sees ``n`` items of the pool.

    A batch has ``published`` items (default: ``n``). In the unit of ``h0``; shape of ``t``; ``t = 0`` gives ``h0``.
    Derived for this project; the workflow is Kazdan et al. 2025 (2410.16713).
    """
    check_at_least(0, h0=h0)
    batch, generations = _batch_size(n, published), whole_numbers("t", t)
    # Two items of the pool are less likely to differ if both are new, and slightly less likely if one is new: it may be
    # a copy of the other.
    size = batch * (generations_until(generations)[:-1] + 1)  # of the pool after each step, starting from 1 batch
    steps = 1 - batch * ((batch - 1) / n + 2) / (size * (size - 1))
    pairs = np.concatenate([[1.0], products(steps)])
    return as_floats(h0 * pairs[generations] * _distinct_probability(batch * generations.astype(np.float64)))


@law("derived")
def diversity_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return the expected diversity of a model fitted to ``n`` items drawn from the pool without replacement.

    Each generation adds ``published`` items to the pool (default: ``n``). The larger ``published`` is, the closer the
    result is to :func:`diversity_random_mixture`, because fewer items are drawn at more than one generation. In the
    unit of ``h0``; shape of ``t``. Derived for this project; the workflow is Kazdan et al. 2025 (2410.16713).
    """
    generations = whole_numbers("t", t)
    size = _batch_size(n, published) * generations.astype(np.float64)
    share = np.where(generations == 0, 1.0, (1 - 1 / n) / np.where(size > 1, _distinct_probability(size), 1.0))
    return as_floats(pool_diversity_accumulate_subsample(h0, n, generations, published) * share)


def squared_drift(h0: float, h: ArrayLike) -> Floats:
    """Return the expected squared distance from the truth, H_0 - H, when generation 0 is the only human data.

    ||p^(t) - p^(0)||^2 for distributions, the squared error of the mean per coordinate for Gaussians (maximum
    likelihood); in the unit of ``h0``; shape of ``h``. Holds for every workflow with unbiased samples, because second
    moments are then martingales. Derived for this project.
    """
    check_at_least(0, h0=h0)
    diversity = as_floats(h)
    if not ((diversity >= 0) & (diversity <= h0)).all():
        raise DataError(f"h must be between 0 and h0 = {h0:g}.")
    return as_floats(h0 - diversity)


@law("derived")
def squared_drift_accumulate(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return :func:`squared_drift` under :func:`diversity_accumulate`.

    In the unit of ``h0``; shape of ``t``. Derived for this project.
    """
    return squared_drift(h0, diversity_accumulate(h0, n, t))


@law("derived")
def squared_drift_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return :func:`squared_drift` under :func:`diversity_accumulate_subsample`.

    In the unit of ``h0``; shape of ``t``. Derived for this project.
    """
    return squared_drift(h0, diversity_accumulate_subsample(h0, n, t, published))


# Diversity when human data is kept or added.


def _mix(n_real: int, n_synthetic: int) -> tuple[float, float]:
    """Return alpha, the synthetic share of a training set, and beta, the coefficient of S_(t-1) in S_t."""
    check_at_least(1, n_real=n_real)
    check_at_least(0, n_synthetic=n_synthetic)
    alpha = n_synthetic / (n_real + n_synthetic)
    return alpha, alpha**2 - alpha / (n_real + n_synthetic)  # alpha^2 (1 - 1/n_synthetic), without dividing by 0


@law("derived")
def simpson_partially_synthetic_recursion(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return S_t = E||p^(t)||^2 with the same real samples in every training set, computed recursively.

    ``s0`` is S_0; no unit; shape of ``t``. Derived for this project from the model of Seddik et al. 2024 (2404.05090),
    Theorem 2.
    """
    check_share(s0=s0)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = whole_numbers("t", t)
    first = 1 / n_real + (1 - 1 / n_real) * s0
    values = [s0, first]
    for _ in range(2, generations.max(initial=0) + 1):
        values.append((1 - alpha**2) * first + alpha * (1 - alpha) / n_real + beta * values[-1])
    return as_floats(as_floats(values)[generations])


@law("paper")
def simpson_partially_synthetic(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return S_t = E||p^(t)||^2 with the same real samples in every training set, in closed form.

    ``s0`` is S_0; no unit; shape of ``t``. Seddik et al. 2024 (2404.05090), Theorem 2, with a corrected sign: the paper
    prints a minus before (alpha/N) beta^m, which at t = 1 does not give the diversity of a plain sample.
    """
    check_share(s0=s0)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = whole_numbers("t", t)
    decay = beta ** np.maximum(generations - 1, 0)
    scale = 1 + (1 + 1 / n_real) * alpha
    sampling = (1 + 2 * alpha - (1 - 1 / n_real) * alpha * decay) / (n_real * scale)
    truth = (1 - 1 / n_real) * s0 * (1 + alpha + alpha / n_real * decay) / scale
    return as_floats(np.where(generations == 0, s0, sampling + truth))


@law("derived")
def distance_partially_synthetic(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return E||p^(t) - p^(1)||^2 = |S_t - S_1| with the same real samples in every training set.

    No unit; shape of ``t``; at ``t = 0`` the squared distance of the first model from the truth. Derived for this
    project.
    """
    first = simpson_partially_synthetic(s0, n_real, n_synthetic, 1)
    return as_floats(np.abs(simpson_partially_synthetic(s0, n_real, n_synthetic, t) - first))


@law("derived")
def l1_bound_partially_synthetic(s0: float, support: int, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return sqrt(s |S_t - S_1|), an upper bound of E||p^(t) - p^(1)||_1 with the same real samples in every set.

    ``support`` is s, the number of types that occur; no unit; shape of ``t``. Derived for this project
    (Cauchy-Schwarz and Jensen).
    """
    check_at_least(1, support=support)
    return as_floats(np.sqrt(support * distance_partially_synthetic(s0, n_real, n_synthetic, t)))


def l1_ceiling_partially_synthetic(support: int, n_real: int, n_synthetic: int) -> float:
    """Return min(sqrt(n (s - 1))/N, sqrt(s/(2N))), an upper bound of E||p^(t) - p^(1)||_1 at every generation.

    ``support`` is s, the number of types that occur; no unit. The second term does not depend on n: with fixed real
    data, models do not collapse, however much text they generate. Derived for this project.
    """
    check_at_least(1, support=support, n_real=n_real)
    check_at_least(0, n_synthetic=n_synthetic)
    return min(math.sqrt(n_synthetic * (support - 1)) / n_real, math.sqrt(support / (2 * n_real)))


def effective_sample_size(n_real: int, n_synthetic: int) -> float:
    """Return n_e = N (1 - b^2) + b, the number of fresh real samples that are worth as much as the mixed set.

    N = ``n_real`` + ``n_synthetic`` and b = ``n_synthetic`` / N; the real data is new in every generation. Derived for
    this project; the notion is that of Alemohammad et al. 2023 (2307.01850).
    """
    alpha, _ = _mix(n_real, n_synthetic)
    return (n_real + n_synthetic) * (1 - alpha**2) + alpha


@law("derived")
def distance_fresh_data(
    h0: float, n_real: int, n_synthetic: int, t: ArrayLike, start: float = 0.0, overlap: float = 0.0
) -> Floats:
    """Return E||p^(t) - p^(0)||^2 when every training set mixes new real samples with samples of the previous model.

    ``start`` is the squared distance of q, the model of generation 0, from the truth p; ``overlap`` is the inner
    product of p with q - p, which is zero if q is unbiased (otherwise, it lowers the diversity of the samples of q by
    twice as much, an effect that decays). In the unit of ``h0``; shape of ``t``. Derived for this project.
    """
    check_at_least(0, h0=h0, start=start)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = whole_numbers("t", t)
    limit = h0 / effective_sample_size(n_real, n_synthetic)
    # alpha - beta divides a geometric series. Without synthetic samples, the start has no effect.
    transient = (
        (alpha**generations - beta**generations) * alpha**2 / (n_synthetic * (alpha - beta)) if n_synthetic else 0
    )
    return as_floats(limit + (start - limit) * beta**generations - 2 * overlap * transient)
