"""Extinction in chains of unigram models: surviving types, total collapse, and the probability of extinct types.

The count of a single type is a Markov chain, so sums over types (the number of surviving types, the probability that
only one survives) can be computed exactly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlog1py, xlogy

from ecosystem.errors import DataError
from ecosystem.theory.diversity import gini_simpson
from ecosystem.theory.domains import as_floats, check_at_least, probabilities, whole_numbers
from ecosystem.theory.laws import law
from ecosystem.types import Floats, Ints

MOST_SAMPLES = 4000  # largest n for the exact chain, a matrix of order n + 1


def _binomial(n: int, p: Floats) -> Floats:
    """Return the binomial probabilities of 0, 1, ..., n successes for success probabilities p [k]: [k, n + 1]."""
    count = np.arange(n + 1)
    log_coefficient = gammaln(n + 1) - gammaln(count + 1) - gammaln(n - count + 1)
    return as_floats(np.exp(log_coefficient + xlogy(count, p[:, None]) + xlog1py(n - count, -p[:, None])))


def _count_chain(p: ArrayLike, n: int) -> tuple[Floats, Floats]:
    """Return the expected number of types of each count after the first fit [n + 1], and the chain of one count."""
    fitted = np.arange(_chain_size(n) + 1) / n
    return _binomial(n, probabilities(p)).sum(axis=0), _binomial(n, fitted)


def _chain_size(n: int) -> int:
    """Return ``n``; raise DataError unless an exact chain of its counts is possible."""
    check_at_least(1, n=n)
    if n > MOST_SAMPLES:
        raise DataError(f"n must be at most {MOST_SAMPLES} for the exact chain, not {n}.")
    return n


def _expected_types(p: ArrayLike, n: int, t: ArrayLike, counts: Ints, initial: float) -> Floats:
    """Return the expected number of types at ``t`` whose count is in ``counts``; ``initial`` at t = 0."""
    generations = whole_numbers("t", t)
    spectrum, chain = _count_chain(p, n)
    values = [initial]
    for _ in range(generations.max(initial=0)):
        values.append(float(spectrum[counts].sum()))
        spectrum = spectrum @ chain
    return as_floats(as_floats(values)[generations])


@law("derived")
def surviving_types_exact(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the expected number of surviving types at generation ``t`` under Replace; ``n`` up to 4,000.

    Shape of ``t``. :func:`surviving_types` approximates it for any ``n``. Derived for this project.
    """
    return _expected_types(p, n, t, np.arange(1, n + 1), float(np.count_nonzero(p)))


@law("derived")
def collapse_probability(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the probability that one type is left by generation ``t`` under Replace; ``n`` up to 4,000.

    Shape of ``t``. Derived for this project; for bounds see Seddik et al. 2024 (2404.05090), Theorem 1.2.
    """
    return _expected_types(p, n, t, np.array([n]), float(np.count_nonzero(p) == 1))


@law("derived")
def diversity_truncated(p: ArrayLike, n: int, gamma: float, t: ArrayLike) -> Floats:
    """Return the expected Gini-Simpson index of two types under Replace and truncated cross-entropy; ``n`` to 4,000.

    ``p`` has two entries. Truncated cross-entropy does not learn a type that the model gives more than ``gamma`` (at
    least 1/2), so that a fit of gradient descent rests at the frequency of each type in its n documents, or at gamma
    and 1 - gamma if one is more frequent than gamma. No type is ever lost, and the index is at least 2 gamma
    (1 - gamma). Exact, by the chain of counts; shape of ``t``. The objective is that of ForTIFAI (2025, 2509.08972);
    the law derived for this project.
    """
    truth, generations = probabilities(p), whole_numbers("t", t)
    if truth.size != 2:
        raise DataError(f"p must hold the probabilities of two types, not {truth.size}.")
    if not 0.5 <= gamma <= 1:
        raise DataError(f"gamma must be between 0.5 and 1, not {gamma}.")
    fitted = np.clip(np.arange(_chain_size(n) + 1) / n, 1 - gamma, gamma)
    [spectrum], chain, values = _binomial(n, truth[:1]), _binomial(n, fitted), [gini_simpson(truth)]
    for _ in range(generations.max(initial=0)):
        values.append(float(spectrum @ (2 * fitted * (1 - fitted))))
        spectrum = spectrum @ chain
    return as_floats(as_floats(values)[generations])


def time_to_collapse_exact(p: ArrayLike, n: int) -> float:
    """Return the expected number of generations until one type is left under Replace; ``n`` up to 4,000.

    :func:`time_to_collapse` is about two generations longer, and works for any ``n``. Derived for this project.
    """
    if np.count_nonzero(probabilities(p)) == 1:
        return 0.0
    spectrum, chain = _count_chain(p, n)
    if n == 1:
        return 1.0
    # In the end, a type is the only one left with a probability equal to its share. The part of that probability not
    # yet realised, summed over types, is the probability that several types are left; its sum over generations is the
    # expected time.
    share = np.arange(1, n) / n
    shortfall = np.linalg.solve(np.eye(n - 1) - chain[1:n, 1:n], share)
    return float(1 + spectrum[1:n] @ shortfall)


def time_to_collapse(p: ArrayLike, n: int) -> float:
    """Return the expected number of generations until one type is left, -2n sum (1 - p_i) ln(1 - p_i).

    The Wright-Fisher diffusion limit for large ``n`` (Kingman's coalescent): too long by 9 % at ``n = 10``, within 2 %
    for ``n`` >= 50. Derived for this project.
    """
    check_at_least(1, n=n)
    others = 1 - probabilities(p)
    others = others[others > 0]
    return float(-2 * n * (others @ np.log(others)))


def time_to_collapse_bounds(p: ArrayLike, n: int) -> tuple[float, float]:
    """Return a lower and an upper bound of the expected number of generations until one type is left, for any ``n``.

    Seddik et al. 2024 (2404.05090), Theorem 1.3. A distribution on one type has collapsed at generation 0.
    """
    check_at_least(1, n=n)
    array = probabilities(p)
    support = np.count_nonzero(array)
    if support == 1:
        return 0.0, 0.0
    h0 = gini_simpson(array)
    return 1 + h0 / (1 - 1 / support) * (n - 1), 1 + h0 * n * (n - 1)


@law("paper")
def collapse_probability_lower_bound(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return 1 - n H_0 (1 - 1/n)^t, cut at 0, a lower bound of the probability that one type is left by ``t``.

    Shape of ``t``. Seddik et al. 2024 (2404.05090), Theorem 1.2; at ``t = 0``, where the theorem does not hold, 0.
    """
    check_at_least(1, n=n)
    generations, h0 = whole_numbers("t", t), gini_simpson(p)
    if np.count_nonzero(p) == 1:
        return np.ones(generations.shape)
    # The theorem assumes shares that are multiples of 1/n; those of the truth at t = 0 are not.
    return as_floats(np.where(generations == 0, 0, np.maximum(0, 1 - n * h0 * (1 - 1 / n) ** generations)))


@law("paper")
def collapse_probability_upper_bound(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return 1 - H_0/(1 - 1/s) (1 - 1/n)^t, an upper bound of the probability that one of s types is left by ``t``.

    Shape of ``t``. Seddik et al. 2024 (2404.05090), Theorem 1.2.
    """
    check_at_least(1, n=n)
    generations, h0 = whole_numbers("t", t), gini_simpson(p)
    support = np.count_nonzero(p)
    if support == 1:
        return np.ones(generations.shape)
    return as_floats(1 - h0 / (1 - 1 / support) * (1 - 1 / n) ** generations)


@law("derived")
def survival_probability(expected_count: ArrayLike, t: ArrayLike) -> Floats:
    """Return the probability that a type survives to generation ``t`` under Replace, as a branching process.

    ``expected_count`` is n p_i, of any shape; the result has the shape of ``t`` followed by that of ``expected_count``.
    The offspring is Poisson, which is accurate for rare types. Derived for this project.
    """
    count, generations = as_floats(expected_count), whole_numbers("t", t)
    if not (count >= 0).all():
        raise DataError("expected_count must not contain negative numbers or NaN.")
    lineage = [0.0, 1.0]  # probability that a token has descendants after t - 1 steps; the entry of t = 0 is unused
    for _ in range(2, generations.max(initial=0) + 1):
        lineage.append(-math.expm1(-lineage[-1]))
    index = generations.reshape(generations.shape + (1,) * count.ndim)
    return as_floats(np.where(index == 0, count > 0, -np.expm1(-count * as_floats(lineage)[index])))


@law("derived")
def surviving_types(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the approximate expected number of surviving types at generation ``t`` under Replace.

    Shape of ``t``; takes memory for ``t`` times types. Derived for this project (see :func:`survival_probability`).
    """
    check_at_least(1, n=n)
    return as_floats(survival_probability(n * probabilities(p), t).sum(axis=-1))


@law("digest")
def survival_lower_bound(expected_count: ArrayLike, t: ArrayLike) -> Floats:
    """Return 1 - exp(-lambda/t), a lower bound of the probability that a type survives to ``t``.

    lambda is the ``expected_count`` of the type. The result has the shape of ``t`` followed by that of
    ``expected_count``. Suresh et al. 2024 (2412.17646, unread), the unigram theorem.
    """
    count, generations = as_floats(expected_count), whole_numbers("t", t)
    if not (count >= 0).all():
        raise DataError("expected_count must not contain negative numbers or NaN.")
    index = generations.reshape(generations.shape + (1,) * count.ndim)
    return as_floats(np.where(index == 0, count > 0, -np.expm1(-count / np.maximum(index, 1))))


@law("derived")
def expected_tail_mass(p: ArrayLike, k: int, t: ArrayLike) -> Floats:
    """Return the expected mass at ``t`` of all types except the ``k`` most frequent in ``p``, a constant.

    With unbiased sampling each p_i is a martingale, so the expected mass of the tail is constant while its types die
    out. Shape of ``t``. Derived for this project.
    """
    rank = int(whole_numbers("k", k))
    generations = whole_numbers("t", t)
    return np.full(generations.shape, np.sort(probabilities(p))[::-1][rank:].sum())


# The probability of unseen types: Hutter's memorising learner (Dohmatob et al. 2024, 2402.07043).


@law("derived")
def hutter_error_replace(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the expected mass of ``p`` on types that are extinct at generation ``t`` under Replace.

    Shape of ``t``; grows more slowly than ``t``. Derived for this project (see :func:`survival_probability`).
    """
    check_at_least(1, n=n)
    array = probabilities(p)
    return as_floats((1 - survival_probability(n * array, t)) @ array)


@law("digest")
def hutter_error_accumulate(p: ArrayLike, n: int, t: ArrayLike, cut: int | None = None, clean: int = 0) -> Floats:
    """Return the expected mass of ``p`` that a learner has not seen in t accumulated batches of documents.

    Each batch has ``n`` documents drawn from ``p`` or, if ``cut`` is given, from its ``cut`` most frequent types only,
    and ``clean`` documents drawn from all of ``p``. The probability of missing a type is (1 - q_i)^(n t) (1 -
    p_i)^(clean t), where q_i is its probability after the cut. Shape of ``t``. Dohmatob et al. 2024 (2402.07043,
    unread; Theorem 3.2 for the mixture).
    """
    check_at_least(0, n=n, clean=clean)
    batches = whole_numbers("t", t)
    array = np.sort(probabilities(p))[::-1]
    truncated = array.copy()
    if cut is not None:
        truncated[int(whole_numbers("cut", cut, least=1)) :] = 0
        truncated /= truncated.sum()
    missed = np.maximum(1 - truncated, 0) ** n * np.maximum(1 - array, 0) ** clean
    return as_floats([array @ missed**size for size in batches.ravel()]).reshape(batches.shape)
