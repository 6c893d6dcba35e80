"""Training on drafts that people chose: preferences as a change of the distribution (Ferbach et al. 2024, 2407.09499).

Of K drafts from the last model, one is published: a draft with reward r is chosen with a probability in proportion to
e^r (Bradley & Terry for two drafts, Plackett & Luce for more). The next model is fitted to the chosen drafts.
Generation 0 is the first model, fitted to real documents; generation t follows t choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from ecosystem.errors import DataError
from ecosystem.theory.domains import (
    as_floats,
    check_at_least,
    check_positive,
    check_share,
    probabilities,
    whole_numbers,
)
from ecosystem.theory.laws import law
from ecosystem.types import Floats

_STEP = 0.1  # of the sum that replaces an integral; its error is exp(-pi^2 / step), far below rounding
_WIDEST = 600.0  # largest difference of two rewards, in nats


def preferred(p: ArrayLike, rewards: ArrayLike, drafts: int | None = 2) -> Floats:
    """Return the distribution of the chosen one of K = ``drafts`` independent drafts from ``p``, [types].

    ``drafts`` = None stands for infinitely many: p e^r, scaled to add up to 1. With a = e^r, the chance of type i is
    exactly K p_i times the integral of a_i e^(-s a_i) (sum_j p_j e^(-s a_j))^(K-1) over s > 0, since 1/x is the
    integral of e^(-s x). For K = 2 it is 2 p_i sum_j p_j a_i/(a_i + a_j). Derived for this project.
    """
    p = probabilities(p)
    return _preferred(p, _odds(p, rewards), drafts)


def preferred_share(p: ArrayLike, rewards: ArrayLike, kept: float) -> Floats:
    """Return the distribution of the share ``kept`` that is chosen of a large set of documents from ``p``, [types].

    Documents are chosen one after the other without replacement, each in proportion to e^r of those left. By the time s
    at which the share is reached, a document with a = e^r has been chosen with probability 1 - e^(-s a). Derived for
    this project.
    """
    p = probabilities(p)
    check_share(kept=kept)
    return _preferred_share(p, _odds(p, rewards), kept)


def _preferred(p: Floats, odds: Floats, drafts: int | None) -> Floats:
    if drafts is None:
        chosen = p * odds
        return as_floats(chosen / chosen.sum())
    check_at_least(1, drafts=drafts)
    # With s = e^y the integrand is analytic and vanishes fast at both ends: a plain sum is exact to rounding.
    s = np.exp(np.arange(math.log(1e-18 / drafts), math.log(750) - math.log(odds.min()), _STEP))
    decay = np.exp(-np.outer(s, odds))
    density = drafts * odds * decay * (s * (decay @ p) ** (drafts - 1))[:, None]
    chosen = p * density.sum(axis=0)
    return as_floats(chosen / chosen.sum())


def _preferred_share(p: Floats, odds: Floats, kept: float) -> Floats:
    if kept in (0, 1):
        return p if kept else _preferred(p, odds, None)
    log_s = brentq(lambda y: p @ -np.expm1(-odds * math.exp(y)) - kept, -700, 700, xtol=1e-14)
    chosen = p * -np.expm1(-odds * math.exp(log_s))
    return as_floats(chosen / chosen.sum())


def curated_distributions(
    p: ArrayLike,
    rewards: ArrayLike,
    generations: int,
    drafts: int | None = None,
    shares: Sequence[float] | None = None,
    kept: float | None = None,
    curated_per_real: float | None = None,
    n: int | None = None,
) -> tuple[Floats, Floats]:
    """Return the mean distributions of generations 0 (``p``) to ``generations``, and their variances by types.

    The shapes are [generations + 1, types] each. ``rewards`` [types], or [curators, types] with the ``shares`` of the
    curators' choices. Choices are among ``drafts`` documents (None: infinitely many), or keep the share ``kept`` of
    all. With ``curated_per_real`` = lambda, each generation is fitted to lambda chosen documents for each new real one:
    p' = (p_0 + lambda chosen(p))/(1 + lambda).

    Each generation is fitted to infinitely many chosen documents, which makes the recursion exact and the variances 0;
    or to ``n`` of them, and generation 0 to n real ones. Then means and covariances are right to the order 1/n: the map
    is averaged over points that have the mean and covariance of the distribution (Julier & Uhlmann 1997).
    """
    p, table = probabilities(p), np.atleast_2d(np.asarray(rewards, np.float64))
    if drafts is not None and kept is not None:
        raise DataError("drafts and kept exclude each other; give one of them.")
    share = probabilities([1.0] if shares is None else shares)
    if share.size != len(table):
        raise DataError(f"shares must have one number for each of the {len(table)} lists of rewards, not {share.size}.")
    ratio = math.inf if curated_per_real is None else curated_per_real
    if curated_per_real is not None:
        check_positive(curated_per_real=curated_per_real)
    if n is not None:
        check_at_least(1, n=n)
    real, sampling = 1 / (1 + ratio), 0.0 if n is None else 1 / n
    odds = [_odds(p, r) for r in table]

    def chosen(q: Floats) -> Floats:
        each = [_preferred(q, a, drafts) if kept is None else _preferred_share(q, a, kept) for a in odds]
        return as_floats(share @ np.array(each))

    truth = sampling * (np.diag(p) - np.outer(p, p))  # covariance of n real documents
    path, covariances = [p], [truth]
    for _ in range(generations):
        values, vectors = np.linalg.eigh(covariances[-1])
        offsets = (vectors * np.sqrt(np.maximum(values, 0) * p.size)).T
        # At the ends of every axis of the covariance; at the mean if there is none.
        points = [path[-1] + sign * offset for offset in offsets for sign in (1, -1)] if n else path[-1:]
        images = np.array([chosen(point) for point in points])
        mean = images.mean(axis=0)
        spread = (images - mean).T @ (images - mean) / len(images) + sampling * (np.diag(mean) - np.outer(mean, mean))
        new = real * p + (1 - real) * mean
        # Scaled again: an error in the sum would grow by the factor K in every generation.
        path.append(new / new.sum())
        covariances.append((1 - real) ** 2 * spread + real * (1 - real) * truth)
    return as_floats(path), as_floats([np.diag(covariance) for covariance in covariances])


@law("derived")
def curated_diversity(
    p: ArrayLike,
    rewards: ArrayLike,
    t: ArrayLike,
    drafts: int | None = None,
    shares: Sequence[float] | None = None,
    kept: float | None = None,
    curated_per_real: float | None = None,
    n: int | None = None,
) -> Floats:
    """Return the Gini-Simpson diversity 1 - sum p_i^2 after t choices of one of ``drafts``.

    Arguments as in :func:`curated_distributions`; no unit; shape of ``t``. It may rise before it falls. The setting is
    Ferbach et al. 2024 (2407.09499); the exact recursion for any number of drafts derived for this project.
    """
    generations = whole_numbers("t", t)
    path, variances = curated_distributions(
        p, rewards, generations.max(initial=0), drafts, shares, kept, curated_per_real, n
    )
    return as_floats(1 - (path**2 + variances).sum(axis=1)[generations])


@law("derived")
def curated_first_type(
    p: ArrayLike,
    rewards: ArrayLike,
    t: ArrayLike,
    drafts: int | None = None,
    shares: Sequence[float] | None = None,
    kept: float | None = None,
    curated_per_real: float | None = None,
    n: int | None = None,
) -> Floats:
    """Return the probability of the type that is likeliest under ``p`` after t choices of one of ``drafts``.

    Arguments as in :func:`curated_distributions`; no unit; shape of ``t``. The setting is Ferbach et al. 2024
    (2407.09499); the exact recursion for any number of drafts derived for this project.
    """
    generations = whole_numbers("t", t)
    path, _ = curated_distributions(p, rewards, generations.max(initial=0), drafts, shares, kept, curated_per_real, n)
    return as_floats(path[generations, int(np.argmax(path[0]))])


@law("derived")
def curated_reward(
    p: ArrayLike,
    rewards: ArrayLike,
    t: ArrayLike,
    drafts: int | None = None,
    shares: Sequence[float] | None = None,
    kept: float | None = None,
    curated_per_real: float | None = None,
    n: int | None = None,
) -> Floats:
    """Return the expected reward of a draft after t choices, the mean over curators' shares.

    Arguments as in :func:`curated_distributions`; in the unit of the rewards; shape of ``t``. Without real data it
    never falls if the curators agree. The setting is Ferbach et al. 2024 (2407.09499); the exact recursion for any
    number of drafts derived for this project.
    """
    generations = whole_numbers("t", t)
    path, _ = curated_distributions(p, rewards, generations.max(initial=0), drafts, shares, kept, curated_per_real, n)
    mean = np.atleast_1d([1.0] if shares is None else shares) @ np.atleast_2d(np.asarray(rewards, np.float64))
    return as_floats((path @ mean)[generations])


def preferred_shift(slope: float, variance: float = 1.0) -> float:
    """Return delta, the expected shift of the chosen one of two normal drafts along the direction of the reward.

    The reward is ``slope`` times the coordinate; delta = E[u/(1 + e^(-slope u))] with u ~ N(0, 2 variance), the
    difference of the drafts. In the unit of the data. Derived for this project.
    """
    check_positive(variance=variance)
    check_at_least(0, slope=abs(slope))
    z = np.arange(-12, 12, 0.005)
    u = math.sqrt(2 * variance) * z
    # E[u/(1 + e^-x)] = E[u tanh(x/2)]/2 by symmetry.
    return float((0.5 * u * np.tanh(slope * u / 2) * np.exp(-(z**2) / 2)).sum() * 0.005 / math.sqrt(2 * math.pi))


@law("derived")
def curated_mean_error(
    slope: float, n: int, t: ArrayLike, dimension: int = 1, variance: float = 1.0, start: float = 0.0
) -> Floats:
    """Return the expected squared error of a normal's mean after t choices of one of two drafts.

    It is start + (t delta)^2 + t (dimension variance - delta^2)/n, with delta from :func:`preferred_shift`: the mean
    moves by delta in every generation. Each generation is fitted to ``n`` chosen drafts, and the ``variance`` of every
    coordinate is known and not fitted; exact for every n, since the choice depends on the difference of two drafts
    only, and leaves E x^2 around the old mean as it was. In squared units of the data; shape of ``t``. The setting is
    Ferbach et al. 2024 (2407.09499); derived for this project.
    """
    check_at_least(1, n=n, dimension=dimension)
    check_at_least(0, start=start)
    delta, generations = preferred_shift(slope, variance), whole_numbers("t", t)
    return as_floats(start + (generations * delta) ** 2 + generations * (dimension * variance - delta**2) / n)


def _odds(p: Floats, rewards: ArrayLike) -> Floats:
    """Return e^r, at most 1, [types]; raise DataError unless there is a finite reward for every type, within limits."""
    array = np.asarray(rewards, np.float64)
    if array.shape != p.shape or not np.isfinite(array).all():
        raise DataError(f"rewards must be {p.size} finite numbers, one for each type, not {np.asarray(rewards)}.")
    if np.ptp(array) > _WIDEST:
        raise DataError(f"rewards must differ by at most {_WIDEST:g}, not {np.ptp(array):g}.")
    return as_floats(np.exp(array - array.max()))
