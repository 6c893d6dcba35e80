"""What the literature on model collapse predicts, as closed forms: pure functions that know no simulator.

The toy models are two: the empirical distribution of a sample (a unigram model, or one context of a language
model) and the Gaussian fitted to a sample. In both, diversity obeys the same recursions, so ``h0`` and ``h`` below
are either the Gini-Simpson diversity H = 1 - sum p_i^2 or the maximum likelihood variance per coordinate.

Arguments mean the same everywhere. ``t`` holds generations, whole numbers of any shape: 0 is the true distribution,
1 the first model fitted to human data (the papers' p^(1)); the answer has the shape of ``t``. ``n`` is the number
of samples per generation, ``n_real`` and ``n_synthetic`` count samples, ``p`` (types,) is a distribution and adds
up to one. Diversities, distances and probabilities have no unit; a variance is in squared units of the data.
An argument outside its domain raises :class:`~ecosystem.errors.DataError`.

"Derived for this project" marks what no paper states in this form. "Unread" after a source means that the formula
was taken from a summary of the paper or from memory, not from its text. ``tests/test_theory.py`` checks all of them
against independent simulations or exact chains.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, gammaln, ndtr, polygamma, xlog1py, xlogy

from ecosystem.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SUM_TOLERANCE = 1e-9  # how far from one the sum of a distribution may be


# The domains of the arguments.


def _at_least(least: float, **values: float) -> None:
    for name, value in values.items():
        if not (value >= least and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number of at least {least:g}, not {value}.")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise DataError(f"{name} must be a finite number above 0, not {value}.")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise DataError(f"{name} must lie between 0 and 1, not {value}.")


def _whole(name: str, values: ArrayLike, least: int = 0) -> Ints:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise DataError(f"{name} must hold whole numbers, not values of type {array.dtype}.")
    if (array < least).any():
        raise DataError(f"{name} must hold whole numbers of at least {least}, not {array.min()}.")
    return array.astype(np.int64)


def _distribution(p: ArrayLike) -> Floats:
    array = np.asarray(p, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise DataError(f"A distribution must be a vector with at least one type, not an array of shape {array.shape}.")
    if not (array >= 0).all():
        raise DataError("A distribution must hold no negative probability and no NaN.")
    if not abs(array.sum() - 1) <= SUM_TOLERANCE:
        raise DataError(f"The probabilities of a distribution must add up to 1, not {array.sum():.12g}.")
    return array


def _products(factors: Floats) -> Floats:
    """Return the products of the first 0, 1, 2, ... factors."""
    return np.concatenate([[1.0], np.cumprod(factors)])


def _until(t: Ints) -> Floats:
    """Return 1, 2, ..., up to the last generation asked for."""
    return np.arange(1, t.max(initial=0) + 1, dtype=np.float64)


def _floats(values: ArrayLike) -> Floats:
    return np.asarray(values, np.float64)


# Diversity when every model is fitted to samples of earlier ones.


def gini_simpson(p: ArrayLike) -> float:
    """Return 1 - sum p_i^2, the chance that two independent draws differ; ``p`` (types,), no unit."""
    array = _distribution(p)
    return float(1 - array @ array)


def diversity_replace(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each model sees ``n`` samples of the last one only, H_0 (1 - 1/n)^t.

    In the unit of ``h0``; shape of ``t``. Seddik et al. 2404.05090, Theorem 1.1.
    """
    _at_least(0, h0=h0)
    _at_least(1, n=n)
    return _floats(h0 * (1 - 1 / n) ** _whole("t", t))


def diversity_accumulate(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each model sees all batches of ``n`` so far, H_0 prod (1 - 1/(n i^2)).

    In the unit of ``h0``; shape of ``t``. Derived for this project; the Gaussian case is that of Kazdan et al.
    2410.16713 (unread).
    """
    _at_least(0, h0=h0)
    _at_least(1, n=n)
    generations = _whole("t", t)
    return _floats(h0 * _products(1 - 1 / (n * _until(generations) ** 2))[generations])


def diversity_accumulate_limit(h0: float, n: int) -> float:
    """Return where diversity ends when batches accumulate, H_0 sin(pi/sqrt n)/(pi/sqrt n), in the unit of ``h0``.

    Derived for this project (Euler's product for the sine); the Gaussian case is Kazdan et al. 2410.16713 (unread).
    """
    _at_least(0, h0=h0)
    _at_least(1, n=n)
    return float(h0 * np.sinc(1 / math.sqrt(n)))


def diversity_random_mixture(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return the expected diversity when each of ``n`` samples comes from a past model drawn at random.

    The same as under :func:`diversity_accumulate`, human data counting as model 0; in the unit of ``h0``; shape of
    ``t``. Derived for this project; the workflow is Seddik et al. 2404.05090, section 4.2.
    """
    return diversity_accumulate(h0, n, t)


def _batch(n: int, published: int | None) -> int:
    """Return how many documents each generation adds to the pool of which models see ``n``."""
    _at_least(1, n=n)
    if published is None:
        return n
    _at_least(n, published=published)
    return published


def _pool_share(size: Floats) -> Floats:
    """Return the chance that two draws with replacement from a pool of ``size`` items are not the same item."""
    return np.where(size == 0, 1.0, 1 - 1 / np.maximum(size, 1))


def pool_diversity_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return the expected diversity of the pool of ``t`` batches when models see ``n`` items of it.

    A batch has ``published`` items (absent: ``n``). In the unit of ``h0``; shape of ``t``; ``t = 0`` gives ``h0``.
    Derived for this project; the workflow is Kazdan et al. 2410.16713.
    """
    _at_least(0, h0=h0)
    batch, generations = _batch(n, published), _whole("t", t)
    # The chance that two different items of the pool differ falls where both are new, and less so where one is: the new
    # one may be a copy of the old one.
    size = batch * (_until(generations)[:-1] + 1)  # of the pool after each step from 1 batch on
    steps = 1 - batch * ((batch - 1) / n + 2) / (size * (size - 1))
    pairs = np.concatenate([[1.0], _products(steps)])
    return _floats(h0 * pairs[generations] * _pool_share(batch * generations.astype(np.float64)))


def diversity_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return the expected diversity of the model fitted to ``n`` items of the pool, drawn without replacement.

    Each generation adds ``published`` items to it (absent: ``n``); the more, the nearer to
    :func:`diversity_random_mixture`, because the same item is drawn less often at different generations. In the unit of
    ``h0``; shape of ``t``. Derived for this project; the workflow is Kazdan et al. 2410.16713.
    """
    generations = _whole("t", t)
    size = _batch(n, published) * generations.astype(np.float64)
    share = np.where(generations == 0, 1.0, (1 - 1 / n) / np.where(size > 1, _pool_share(size), 1.0))
    return _floats(pool_diversity_accumulate_subsample(h0, n, generations, published) * share)


def diversity_accumulate_subsample_limit(h0: float, n: int) -> float:
    """Return where the fitted diversity ends under accumulate-subsample, in the unit of ``h0``.

    The factors of the pool's recursion are ratios of polynomials in t, so their product is one of gamma functions.
    Derived for this project.
    """
    _at_least(0, h0=h0)
    _at_least(1, n=n)
    if n == 1:
        return 0.0
    root = math.sqrt(12 * n - 3)
    low, high = (4 * n - 1 - root) / (2 * n), (4 * n - 1 + root) / (2 * n)
    product = math.gamma(1 - 1 / n) / (math.gamma(low) * math.gamma(high))
    return h0 * (1 - 1 / n) ** 2 * product


def squared_drift(h0: float, h: ArrayLike) -> Floats:
    """Return the expected squared distance from the truth, H_0 - H, when all human data is generation 0's.

    ||p^(t) - p^(0)||^2 for distributions, the squared error of the mean per coordinate for Gaussians (maximum
    likelihood); in the unit of ``h0``; shape of ``h``. Holds for every workflow whose samples are unbiased: then
    second moments are martingales. Derived for this project.
    """
    _at_least(0, h0=h0)
    diversity = _floats(h)
    if not ((diversity >= 0) & (diversity <= h0)).all():
        raise DataError(f"A diversity that chance wears down must lie between 0 and h0 = {h0:g}.")
    return _floats(h0 - diversity)


def squared_drift_accumulate(h0: float, n: int, t: ArrayLike) -> Floats:
    """Return :func:`squared_drift` under :func:`diversity_accumulate`; shape of ``t``."""
    return squared_drift(h0, diversity_accumulate(h0, n, t))


def squared_drift_accumulate_subsample(h0: float, n: int, t: ArrayLike, published: int | None = None) -> Floats:
    """Return :func:`squared_drift` under :func:`diversity_accumulate_subsample`; shape of ``t``."""
    return squared_drift(h0, diversity_accumulate_subsample(h0, n, t, published))


# Diversity when human data stays in, or comes in.


def _mix(n_real: int, n_synthetic: int) -> tuple[float, float]:
    """Return alpha, the synthetic share of a training set, and beta, what one generation keeps of S."""
    _at_least(1, n_real=n_real)
    _at_least(0, n_synthetic=n_synthetic)
    alpha = n_synthetic / (n_real + n_synthetic)
    return alpha, alpha**2 - alpha / (n_real + n_synthetic)  # alpha^2 (1 - 1/n_synthetic), without dividing by 0


def simpson_partially_synthetic_recursion(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return S_t = E||p^(t)||^2 with the same real samples in every training set, step by step from ``s0`` = S_0.

    No unit; shape of ``t``. Derived for this project from the model of Seddik et al. 2404.05090, Theorem 2.
    """
    _share(s0=s0)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = _whole("t", t)
    first = 1 / n_real + (1 - 1 / n_real) * s0
    values = [s0, first]
    for _ in range(2, generations.max(initial=0) + 1):
        values.append((1 - alpha**2) * first + alpha * (1 - alpha) / n_real + beta * values[-1])
    return _floats(_floats(values)[generations])


def simpson_partially_synthetic(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return S_t = E||p^(t)||^2 with the same real samples in every training set, from ``s0`` = S_0; no unit.

    Shape of ``t``. Seddik et al. 2404.05090, Theorem 2, with the sign before (alpha/N) beta^m mended: it is printed
    as a minus, which at t = 1 is not the diversity of a plain sample.
    """
    _share(s0=s0)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = _whole("t", t)
    decay = beta ** np.maximum(generations - 1, 0)
    scale = 1 + (1 + 1 / n_real) * alpha
    sampling = (1 + 2 * alpha - (1 - 1 / n_real) * alpha * decay) / (n_real * scale)
    truth = (1 - 1 / n_real) * s0 * (1 + alpha + alpha / n_real * decay) / scale
    return _floats(np.where(generations == 0, s0, sampling + truth))


def simpson_partially_synthetic_limit(s0: float, n_real: int, n_synthetic: int) -> float:
    """Return the limit of S_t with the same real samples in every training set; no unit.

    Seddik et al. 2404.05090, Theorem 2, at m to infinity (where its sign error has no effect).
    """
    _share(s0=s0)
    alpha, _ = _mix(n_real, n_synthetic)
    return ((1 + 2 * alpha) / n_real + (1 + alpha) * (1 - 1 / n_real) * s0) / (1 + (1 + 1 / n_real) * alpha)


def distance_partially_synthetic(s0: float, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return E||p^(t) - p^(1)||^2 = |S_t - S_1| with the same real samples in every training set; no unit.

    Shape of ``t``; at ``t = 0`` the squared distance of the first model from the truth. Derived for this project.
    """
    first = simpson_partially_synthetic(s0, n_real, n_synthetic, 1)
    return _floats(np.abs(simpson_partially_synthetic(s0, n_real, n_synthetic, t) - first))


def l1_bound_partially_synthetic(s0: float, support: int, n_real: int, n_synthetic: int, t: ArrayLike) -> Floats:
    """Return sqrt(s |S_t - S_1|), an upper bound of E||p^(t) - p^(1)||_1 with the same real samples in every set.

    ``support`` is s, the number of types that occur; no unit; shape of ``t``. Derived for this project
    (Cauchy-Schwarz and Jensen).
    """
    _at_least(1, support=support)
    return _floats(np.sqrt(support * distance_partially_synthetic(s0, n_real, n_synthetic, t)))


def l1_ceiling_partially_synthetic(support: int, n_real: int, n_synthetic: int) -> float:
    """Return min(sqrt(n (s - 1))/N, sqrt(s/(2N))), which bounds E||p^(t) - p^(1)||_1 at every generation; no unit.

    ``support`` is s, the number of types that occur. The second term knows no n: with fixed real data nothing
    collapses, however much is generated. Derived for this project.
    """
    _at_least(1, support=support, n_real=n_real)
    _at_least(0, n_synthetic=n_synthetic)
    return min(math.sqrt(n_synthetic * (support - 1)) / n_real, math.sqrt(support / (2 * n_real)))


def l1_bound_seddik(types: int, n_real: int, n_synthetic: int) -> float:
    """Return the published bound of E||p^(t) - p^(1)||_1 with the same real samples in every set; inf if too large.

    ``types`` is the size of the vocabulary; no unit. Seddik et al. 2404.05090, Theorem 3. An L1 distance is at most
    2, so most values say nothing: see :func:`l1_ceiling_partially_synthetic`.
    """
    _at_least(1, types=types, n_real=n_real, n_synthetic=n_synthetic)
    reach = math.e**3 / (2 * math.pi) * n_synthetic
    scale = math.log(6 * math.e / math.pi**1.5 * types)
    if types == 1:
        return 0.0
    if types >= reach / math.e + 2:
        log_g = scale + reach / (2 * math.e)
    elif types >= reach / 4 + 2:
        log_g = scale + types / 2 * math.log(reach / types)
    else:
        log_g = types * math.log(2) + math.log1p(-(2.0 ** (1 - types)))
    log_bound = log_g + math.log(math.pi * n_synthetic / 2) / 2 - math.log(n_real)
    return math.exp(log_bound) if log_bound < 700 else math.inf


def effective_sample_size(n_real: int, n_synthetic: int) -> float:
    """Return n_e = N (1 - b^2) + b, the fresh real samples (a count) that serve as well as the mixed set.

    N = ``n_real`` + ``n_synthetic`` and b = ``n_synthetic`` / N, new real data in every generation. Derived for
    this project; the notion is that of Alemohammad et al. 2307.01850.
    """
    alpha, _ = _mix(n_real, n_synthetic)
    return (n_real + n_synthetic) * (1 - alpha**2) + alpha


def distance_fresh_data(
    h0: float, n_real: int, n_synthetic: int, t: ArrayLike, start: float = 0.0, overlap: float = 0.0
) -> Floats:
    """Return E||p^(t) - p^(0)||^2 when every training set mixes new real samples with some of the last model.

    ``start`` is the squared distance of the model of generation 0, q, from the truth, ``overlap`` the inner product of
    the truth p with q - p, zero where q is right on average (its samples are less diverse by twice as much otherwise,
    while it lasts); in the unit of ``h0``; shape of ``t``. Derived for this project.
    """
    _at_least(0, h0=h0, start=start)
    alpha, beta = _mix(n_real, n_synthetic)
    generations = _whole("t", t)
    limit = h0 / effective_sample_size(n_real, n_synthetic)
    # alpha - beta is the divisor of a geometric series; without synthetic samples nothing of the start is left.
    fading = (alpha**generations - beta**generations) * alpha**2 / (n_synthetic * (alpha - beta)) if n_synthetic else 0
    return _floats(limit + (start - limit) * beta**generations - 2 * overlap * fading)


def distance_fresh_data_limit(h0: float, n_real: int, n_synthetic: int) -> float:
    """Return the stationary E||p^(t) - p^(0)||^2 with fresh data, H_0 / n_e, in the unit of ``h0``.

    Derived for this project.
    """
    _at_least(0, h0=h0)
    return h0 / effective_sample_size(n_real, n_synthetic)


# When and where a chain of unigram models ends. The count of one type is a Markov chain of its own, so whatever adds up
# over types (how many are alive, whether one is alone) is known exactly.

MOST_SAMPLES = 4000  # for which the chain of one count is solved: a matrix of their square


def _binomial(n: int, p: Floats) -> Floats:
    """Return the chances of 0, 1, ..., n successes of probabilities p [k]: [k, n + 1]."""
    count = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(count + 1) - gammaln(n - count + 1)
    return _floats(np.exp(ways + xlogy(count, p[:, None]) + xlog1py(n - count, -p[:, None])))


def _one_count(p: ArrayLike, n: int) -> tuple[Floats, Floats]:
    """Return the expected number of types of each count after the first fit [n + 1], and the chain of one count."""
    _at_least(1, n=n)
    if n > MOST_SAMPLES:
        raise DataError(f"n must be at most {MOST_SAMPLES} for the exact chain, not {n}.")
    return _binomial(n, _distribution(p)).sum(axis=0), _binomial(n, np.arange(n + 1) / n)


def _expected_types(p: ArrayLike, n: int, t: ArrayLike, wanted: Ints, at_first: float) -> Floats:
    """Return the expected number of types at ``t`` whose count is among ``wanted``; ``at_first`` at t = 0."""
    generations = _whole("t", t)
    spectrum, chain = _one_count(p, n)
    values = [at_first]
    for _ in range(generations.max(initial=0)):
        values.append(float(spectrum[wanted].sum()))
        spectrum = spectrum @ chain
    return _floats(_floats(values)[generations])


def surviving_types_exact(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the expected number of types alive at generation ``t`` under Replace; ``n`` up to 4,000.

    Shape of ``t``. :func:`surviving_types` is close, and has no such limit. Derived for this project.
    """
    return _expected_types(p, n, t, np.arange(1, n + 1), float(np.count_nonzero(p)))


def collapse_probability(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the chance that one type is left by generation ``t`` under Replace; ``n`` up to 4,000.

    Shape of ``t``. Derived for this project; bounds are Seddik et al. 2404.05090, Theorem 1.2.
    """
    return _expected_types(p, n, t, np.array([n]), float(np.count_nonzero(p) == 1))


def time_to_collapse_exact(p: ArrayLike, n: int) -> float:
    """Return the expected generations until one type is left under Replace; ``n`` up to 4,000.

    :func:`time_to_collapse` is some two generations longer, and has no such limit. Derived for this project.
    """
    if np.count_nonzero(_distribution(p)) == 1:
        return 0.0
    spectrum, chain = _one_count(p, n)
    if n == 1:
        return 1.0
    # A type ends up alone with the chance of its share. What is missing of that, added up over types and generations,
    # is the chance that none is alone yet, added up over generations.
    share = np.arange(1, n) / n
    missing = np.linalg.solve(np.eye(n - 1) - chain[1:n, 1:n], share)
    return float(1 + spectrum[1:n] @ missing)


def time_to_collapse(p: ArrayLike, n: int) -> float:
    """Return the expected generations until one type is left, -2n sum (1 - p_i) ln(1 - p_i), for large ``n``.

    The diffusion limit of Wright and Fisher (Kingman's coalescent): too long by 9 % at ``n = 10``, within 2 % from
    50 on. Derived for this project.
    """
    _at_least(1, n=n)
    others = 1 - _distribution(p)
    others = others[others > 0]
    return float(-2 * n * (others @ np.log(others)))


def time_to_collapse_bounds(p: ArrayLike, n: int) -> tuple[float, float]:
    """Return a lower and an upper bound of the expected generations until one type is left, for any ``n``.

    Seddik et al. 2404.05090, Theorem 1.3. A distribution on one type has collapsed at 0.
    """
    _at_least(1, n=n)
    array = _distribution(p)
    support = np.count_nonzero(array)
    if support == 1:
        return 0.0, 0.0
    h0 = gini_simpson(array)
    return 1 + h0 / (1 - 1 / support) * (n - 1), 1 + h0 * n * (n - 1)


def collapse_probability_lower_bound(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return 1 - n H_0 (1 - 1/n)^t, cut at 0, below the chance that one type is left by generation ``t``.

    Shape of ``t``. Seddik et al. 2404.05090, Theorem 1.2; at ``t = 0``, where the theorem does not hold, 0.
    """
    _at_least(1, n=n)
    generations, h0 = _whole("t", t), gini_simpson(p)
    if np.count_nonzero(p) == 1:
        return np.ones(generations.shape)
    # The argument needs shares that are multiples of 1/n, which those of the truth are not.
    return _floats(np.where(generations == 0, 0, np.maximum(0, 1 - n * h0 * (1 - 1 / n) ** generations)))


def collapse_probability_upper_bound(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return 1 - H_0/(1 - 1/s) (1 - 1/n)^t, above the chance that one of s types is left by generation ``t``.

    Shape of ``t``. Seddik et al. 2404.05090, Theorem 1.2.
    """
    _at_least(1, n=n)
    generations, h0 = _whole("t", t), gini_simpson(p)
    support = np.count_nonzero(p)
    if support == 1:
        return np.ones(generations.shape)
    return _floats(1 - h0 / (1 - 1 / support) * (1 - 1 / n) ** generations)


def fixation_probability(p: ArrayLike) -> Floats:
    """Return the chance of each type to be the last one left, which is p_i itself; (types,).

    Seddik et al. 2404.05090, Proposition 1; Shumailov et al. 2305.17493, the discrete case.
    """
    return _distribution(p).copy()


def survival_probability(expected_count: ArrayLike, t: ArrayLike) -> Floats:
    """Return the chance that a type is alive at generation ``t`` under Replace, as a branching process.

    ``expected_count`` is n p_i, of any shape; the answer has the shape of ``t`` followed by that. Poisson offspring:
    good for types that are rare at each generation that counts. Derived for this project.
    """
    count, generations = _floats(expected_count), _whole("t", t)
    if not (count >= 0).all():
        raise DataError("expected_count must hold no negative number and no NaN.")
    lineage = [0.0, 1.0]  # chance that one token has descendants after t - 1 steps; the entry of t = 0 is not used
    for _ in range(2, generations.max(initial=0) + 1):
        lineage.append(-math.expm1(-lineage[-1]))
    index = generations.reshape(generations.shape + (1,) * count.ndim)
    return _floats(np.where(index == 0, count > 0, -np.expm1(-count * _floats(lineage)[index])))


def surviving_types(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the expected number of types alive at generation ``t`` under Replace.

    Shape of ``t``; takes memory for ``t`` times types. Derived for this project (see :func:`survival_probability`).
    """
    _at_least(1, n=n)
    return _floats(survival_probability(n * _distribution(p), t).sum(axis=-1))


def survival_lower_bound(expected_count: ArrayLike, t: ArrayLike) -> Floats:
    """Return 1 - exp(-lambda/t), below the chance that a type of expected count lambda is alive at ``t``.

    The answer has the shape of ``t`` followed by that of ``expected_count``. Suresh et al.
    2412.17646, the unigram theorem (unread).
    """
    count, generations = _floats(expected_count), _whole("t", t)
    if not (count >= 0).all():
        raise DataError("expected_count must hold no negative number and no NaN.")
    index = generations.reshape(generations.shape + (1,) * count.ndim)
    return _floats(np.where(index == 0, count > 0, -np.expm1(-count / np.maximum(index, 1))))


def expected_tail_mass(p: ArrayLike, k: int, t: ArrayLike) -> Floats:
    """Return the expected mass, at ``t``, of all types but the ``k`` most frequent of ``p``: a constant.

    Unbiased sampling makes each p_i a martingale, so the mass of the tail stays on average while its types die out;
    shape of ``t``. Derived for this project.
    """
    rank = int(_whole("k", k))
    generations = _whole("t", t)
    return np.full(generations.shape, np.sort(_distribution(p))[::-1][rank:].sum())


# Sampling that bends the distribution, with infinitely many samples.


def temperature_map(p: ArrayLike, temperature: float, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations at a temperature, p^((1/T)^t) made to add up to one.

    Log-odds grow by 1/T a generation; (shape of ``t``, types). Derived for this project.
    """
    array, generations = _distribution(p), _whole("t", t)
    _positive(temperature=temperature)
    alive = array > 0
    # Relative to the largest entry, so that a large power drives the others to 0 and not the sum.
    relative = np.log(array[alive]) - np.log(array.max())
    power = np.exp(np.minimum(-generations * math.log(temperature), 690))  # short of the largest float
    result = np.zeros(generations.shape + array.shape)
    result[..., alive] = np.exp(np.maximum(power[..., None] * relative, -1e4))
    return _floats(result / result.sum(axis=-1, keepdims=True))


def top_k_map(p: ArrayLike, k: int, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of top-k sampling: cut once, the same ever after.

    Equals are kept by falling probability, then by rising index; (shape of ``t``, types). Derived for this project.
    """
    array, generations = _distribution(p), _whole("t", t)
    kept = np.argsort(-array, kind="stable")[: int(_whole("k", k, least=1))]
    cut = np.zeros_like(array)
    cut[kept] = array[kept] / array[kept].sum()
    return np.where(generations[..., None] == 0, array, cut)


def top_p_map(p: ArrayLike, top_p: float, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of nucleus sampling, which cuts again at each of them.

    Each time the smallest set of the most frequent types that reaches ``top_p`` is kept; (shape of ``t``, types).
    Derived for this project.
    """
    array, generations = _distribution(p), _whole("t", t)
    _share(top_p=top_p)
    _positive(top_p=top_p)
    order = np.argsort(-array, kind="stable")
    current = array[order]
    states = [array]
    for _ in range(generations.max(initial=0)):
        before = np.cumsum(current) - current
        current = np.where(before < top_p - 1e-12, current, 0)  # a set that falls short by rounding reaches it
        current /= current.sum()
        state = np.empty_like(array)
        state[order] = current
        states.append(state)
    return _floats(states)[generations]


# Gaussians: one coordinate, refitted to n samples of the last fit.


def c4(n: int) -> float:
    """Return E s / sigma of ``n`` >= 2 Gaussian samples, s^2 the unbiased variance (the textbook factor c4)."""
    _at_least(2, n=n)
    half = (n - 1) / 2
    if half > 500:
        # The logarithms of large gammas would cancel, while 1 - c4 is what counts: its series is exact here.
        return 1 - (1 / 8 - (1 / 128 + (5 / 1024 - 21 / 32768 / half) / half) / half) / half
    return math.exp(gammaln(half + 0.5) - gammaln(half)) / math.sqrt(half)


def _gaussian(variance: float, n: int, unbiased: bool, sampling_bias: float) -> float:
    """Return by what the variance is multiplied, on average, at each generation."""
    _at_least(0, variance=variance)
    _at_least(2, n=n)
    _positive(sampling_bias=sampling_bias)
    return sampling_bias if unbiased else sampling_bias * (1 - 1 / n)


def gaussian_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected variance of the fit: variance lambda^t if ``unbiased``, else (lambda (1 - 1/n))^t times it.

    ``unbiased`` divides by n - 1, maximum likelihood by n; lambda = ``sampling_bias`` multiplies the variance that
    each generation is sampled with, below 1 to favour the likely. In the unit of ``variance``; shape of ``t``.
    Alemohammad et al. 2307.01850 (unbiased); maximum likelihood derived for this project.
    """
    return _floats(variance * _gaussian(variance, n, unbiased, sampling_bias) ** _whole("t", t))


def gaussian_sd(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected standard deviation of the fit, c4(n)^t times the true one if unbiased and without bias.

    Arguments of :func:`gaussian_variance`; in the unit of the data; shape of ``t``. Bertrand et al. 2310.00429 (as a
    bound, unbiased; unread); the rest derived for this project.
    """
    factor = c4(n) * math.sqrt(_gaussian(variance, n, unbiased, sampling_bias))
    return _floats(math.sqrt(variance) * factor ** _whole("t", t))


def gaussian_log_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected log variance of the fit, ln variance + t [psi((n-1)/2) + ln(2 lambda/(n-1))] if unbiased.

    Arguments of :func:`gaussian_variance`, but ``variance`` above 0; in nats; shape of ``t``. Falls by about 1/n a
    generation, by 2/n under maximum likelihood, even where the mean variance stays. Derived for this project.
    """
    _gaussian(variance, n, unbiased, sampling_bias)
    _positive(variance=variance)
    step = digamma((n - 1) / 2) + math.log(2 * sampling_bias / (n - 1 if unbiased else n))
    return _floats(math.log(variance) + _whole("t", t) * step)


def gaussian_log_variance_variance(n: int, t: ArrayLike) -> Floats:
    """Return the variance, between runs, of the log variance of the fit, t psi'((n - 1)/2), in squared nats.

    Of any estimator and sampling bias; shape of ``t``. Derived for this project.
    """
    _at_least(2, n=n)
    return _floats(_whole("t", t) * polygamma(1, (n - 1) / 2))


def gaussian_typical_variance(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return exp(E ln variance of the fit), close to the median run's variance once ``t`` is large.

    Arguments of :func:`gaussian_log_variance`; in the unit of ``variance``; shape of ``t``. Derived for this project.
    """
    return _floats(np.exp(gaussian_log_variance(n, t, variance, unbiased, sampling_bias)))


def gaussian_mean_error(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected squared error of the fitted mean, variance t/n if unbiased and without sampling bias.

    Arguments of :func:`gaussian_variance`; in the unit of ``variance``; shape of ``t``. Shumailov et al. 2305.17493
    for the unbiased case; the others derived for this project (a geometric series of lambda variance/n).
    """
    factor = _gaussian(variance, n, unbiased, sampling_bias)
    generations = _whole("t", t)
    terms = generations if factor == 1 else (1 - factor**generations) / (1 - factor)
    return _floats(variance * sampling_bias / n * terms)


def gaussian_w2(
    n: int, t: ArrayLike, variance: float = 1.0, unbiased: bool = True, sampling_bias: float = 1.0
) -> Floats:
    """Return the expected squared Wasserstein-2 distance to the truth, variance [t/n + 2 (1 - c4(n)^t)] if unbiased.

    Arguments of :func:`gaussian_variance`; in the unit of ``variance``; shape of ``t``; one dimension, where W2^2 is
    the squared difference of means plus that of standard deviations. Setting of Shumailov et al. 2305.17493, Theorem
    3.1; the exact form derived for this project.
    """
    mean = gaussian_mean_error(n, t, variance, unbiased, sampling_bias)
    spread = gaussian_variance(n, t, variance, unbiased, sampling_bias) + variance
    return _floats(mean + spread - 2 * math.sqrt(variance) * gaussian_sd(n, t, variance, unbiased, sampling_bias))


def gaussian_w2_first_order(n: int, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return (3/2) variance t/n, the first term of :func:`gaussian_w2` (unbiased), in the unit of ``variance``.

    Shape of ``t``; 5 % too large at ``n = 10``, ``t = 20``. Shumailov et al. 2305.17493 (unread).
    """
    _gaussian(variance, n, True, 1.0)
    return _floats(1.5 * variance * _whole("t", t) / n)


def gaussian_sd_tail_bound(n: int, t: ArrayLike, ratio: float) -> Floats:
    """Return min(1, exp(-t/(4n))/ratio), above the chance that the fitted sd exceeds ``ratio`` times the true one.

    No unit; shape of ``t``; for either estimator. Suresh et al. 2412.17646, the Gaussian theorem (unread).
    """
    _at_least(2, n=n)
    _positive(ratio=ratio)
    return _floats(np.minimum(1, np.exp(-_whole("t", t) / (4 * n)) / ratio))


# Kernel density estimates: a normal of standard deviation ``bandwidth`` around every document of a training set.


def _kde(n: int, bandwidth: float, variance: float) -> None:
    _at_least(1, n=n)
    _at_least(0, variance=variance)
    _positive(bandwidth=bandwidth)


def kde_variance_replace(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the expected variance per coordinate of the estimate from ``n`` samples of the last one.

    v_t = (1 - 1/n) v_(t-1) + h^2 with h = ``bandwidth``, which settles at n h^2: kernels put back what sampling takes
    away. ``variance`` is the truth's, v_0; in its unit; shape of ``t``. Derived for this project; the setting is Kazdan
    et al. 2410.16713.
    """
    _kde(n, bandwidth, variance)
    limit = n * bandwidth**2
    return _floats(limit + (variance - limit) * (1 - 1 / n) ** _whole("t", t))


def kde_variance_accumulate(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the same for the estimate from all batches of ``n`` so far: grows for ever, like bandwidth^2 ln t.

    Arguments of :func:`kde_variance_replace`; shape of ``t``. An error that is not zero on average adds up although
    everything is kept. Derived for this project; the setting is Kazdan et al. 2410.16713.
    """
    return _kde_variance_pool(n, bandwidth, t, variance, subsample=False)


def kde_variance_accumulate_subsample(n: int, bandwidth: float, t: ArrayLike, variance: float = 1.0) -> Floats:
    """Return the same for the estimate from ``n`` documents of all batches so far, drawn without replacement.

    Arguments of :func:`kde_variance_replace`; shape of ``t``. Derived for this project; the setting is Kazdan et al.
    2410.16713.
    """
    return _kde_variance_pool(n, bandwidth, t, variance, subsample=True)


def _kde_variance_pool(n: int, bandwidth: float, t: ArrayLike, variance: float, subsample: bool) -> Floats:
    _kde(n, bandwidth, variance)
    generations, values = _whole("t", t), [variance]
    apart = variance  # half the mean squared difference of two documents of the pool
    for batches in range(1, generations.max(initial=0) + 1):
        old, new = batches * n, (batches + 1) * n
        fit = (1 - 1 / (n if subsample else old)) * apart + bandwidth**2
        values.append(fit)
        mixed = (1 - 1 / old) * apart + bandwidth**2 / 2  # a new document is a moved copy of an old one
        apart = (n * (n - 1) * fit + old * (old - 1) * apart + 2 * n * old * mixed) / (new * (new - 1))
    return _floats(_floats(values)[generations])


# Linear regression.


def _ols(noise_variance: float, dimension: int, rows: int) -> float:
    _at_least(0, noise_variance=noise_variance)
    _at_least(1, dimension=dimension)
    if rows < dimension + 2:
        raise DataError(f"rows must be at least dimension + 2 = {dimension + 2}, not {rows}.")
    return noise_variance * dimension / (rows - dimension - 1)


def ols_error_replace(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when each model labels the rows for the next, t sigma^2 d/(T - d - 1).

    ``rows`` T of ``dimension`` d, standard Gaussian, ordinary least squares; in squared units of w; shape of ``t``.
    Gerstgrasser et al. 2404.01413 (unread).
    """
    return _floats(_ols(noise_variance, dimension, rows) * _whole("t", t))


def ols_error_accumulate(noise_variance: float, dimension: int, rows: int, t: ArrayLike) -> Floats:
    """Return E||w_t - w*||^2 when all labellings of the same rows are kept, sigma^2 d/(T - d - 1) sum 1/i^2.

    Arguments of :func:`ols_error_replace`; shape of ``t``. With new rows each time it is lower. Gerstgrasser et al.
    2404.01413 (unread).
    """
    # Minus psi' beyond t + 1 is the sum of the terms after t.
    partial = math.pi**2 / 6 - polygamma(1, _whole("t", t) + 1.0)
    return _floats(_ols(noise_variance, dimension, rows) * np.maximum(partial, 0))


def ols_error_accumulate_bound(noise_variance: float, dimension: int, rows: int) -> float:
    """Return sigma^2 d/(T - d - 1) pi^2/6, which no generation of :func:`ols_error_accumulate` reaches.

    Gerstgrasser et al. 2404.01413 (unread).
    """
    return _ols(noise_variance, dimension, rows) * math.pi**2 / 6


def strong_collapse_error(noise_variance: float, phi: float, synthetic: float, shift: float) -> float:
    """Return E||w - w*||^2 of least squares on a mixture, s^2 phi/(1-phi) + (p2^2 + p1 p2 phi/(1-phi)) c^2.

    ``phi`` is dimension over rows, ``synthetic`` p2 = 1 - p1 the share of rows labelled by another vector, ``shift``
    c^2 its squared distance from the true one. Large isotropic problems; in squared units of w. Dohmatob et al.
    2410.04840 (unread).
    """
    _at_least(0, noise_variance=noise_variance, shift=shift)
    _share(phi=phi, synthetic=synthetic)
    if phi == 1:
        raise DataError("phi must be below 1: with fewer rows than dimensions the formula does not hold.")
    odds = phi / (1 - phi)
    return noise_variance * odds + (synthetic**2 + (1 - synthetic) * synthetic * odds) * shift


def ols_error_mixture(
    noise_variance: float, shift: float, dimension: int, n_real: int, n_synthetic: int, t: ArrayLike
) -> Floats:
    """Return E||w_t - w*||^2 of least squares on t batches of real and synthetic rows, all of them kept: exact.

    Each batch has ``n_real`` rows labelled by w* and ``n_synthetic`` by a vector at the squared distance ``shift`` from
    it, with noise of ``noise_variance`` on all labels, and standard Gaussian designs of ``dimension`` d, new each time.
    With n1 real and n2 synthetic rows so far, n = n1 + n2 >= d + 2, it is sigma^2 d/(n-d-1) + c^2 [(n2/n)^2 + b (1 -
    2/n + (nd-2)/(n-d-1))] with b = n1 n2/(n (n-1) (n+2)); in squared units of w; shape of ``t``, NaN at 0. Its limit
    for large problems is :func:`strong_collapse_error`, of Dohmatob et al. 2410.04840; the exact form derived for this
    project from the second moments of a matrix-variate beta distribution.
    """
    _at_least(0, noise_variance=noise_variance, shift=shift, n_real=n_real, n_synthetic=n_synthetic)
    _at_least(1, dimension=dimension)
    generations = _whole("t", t)
    batches = np.where(generations > 0, generations, np.nan)  # before the first there is no model
    real, synthetic = n_real * batches, n_synthetic * batches
    n = real + synthetic
    if (n < dimension + 2).any():
        raise DataError(f"n_real and n_synthetic must add up to at least dimension + 2 = {dimension + 2} rows.")
    beta = real * synthetic / (n * (n - 1) * (n + 2))
    moved = (synthetic / n) ** 2 + beta * (1 - 2 / n + (n * dimension - 2) / (n - dimension - 1))
    return _floats(noise_variance * dimension / (n - dimension - 1) + shift * moved)


# Errors that add up: the argument of Wang et al. 2412.14872.


def _corpus(n_real: float, n_synthetic: float) -> None:
    _positive(n_real=n_real)
    _at_least(0, n_synthetic=n_synthetic)


def drift_replace(errors: ArrayLike) -> Floats:
    """Return p_t - p_0 for t = 1, 2, ... if each model learns the last one up to an error: their sums.

    ``errors`` (generations, ...): model minus the distribution it learnt from. Derived for this project; the
    argument is Wang et al. 2412.14872.
    """
    return np.cumsum(_floats(errors), axis=0)


def drift_growing_corpus(errors: ArrayLike, n_real: float, n_synthetic: float) -> Floats:
    """Return p_t - p_0 for t = 1, 2, ... if each model learns the corpus and adds to it.

    ``errors`` (generations, ...) as in :func:`drift_replace`; ``n_real`` units of text at first, ``n_synthetic``
    more per generation. An early error weighs n_synthetic/(n_real + i n_synthetic) in all later models. Derived for
    this project; the argument is Wang et al. 2412.14872.
    """
    _corpus(n_real, n_synthetic)
    array = _floats(errors)
    index = np.arange(1, len(array) + 1).reshape(-1, *[1] * (array.ndim - 1))
    inherited = np.cumsum(array * n_synthetic / (n_real + index * n_synthetic), axis=0)
    drift = array.copy()
    drift[1:] += inherited[:-1]
    return drift


def drift_growing_corpus_constant(bias: float, n_real: float, n_synthetic: float, t: ArrayLike) -> Floats:
    """Return p_t - p_0 in a growing corpus when every model errs by ``bias``: the exact sum, unbounded in ``t``.

    ``n_real`` and ``n_synthetic`` in any one unit of text; shape of ``t``. Derived for this project; the argument
    is Wang et al. 2412.14872.
    """
    _corpus(n_real, n_synthetic)
    generations = _whole("t", t)
    if n_synthetic == 0:
        inherited = np.zeros(generations.shape)
    else:
        # The harmonic sum of 1/(n_real/n_synthetic + i) over 0 < i < t, as a difference of digammas.
        start = n_real / n_synthetic
        inherited = digamma(start + np.maximum(generations, 1)) - digamma(start + 1)
    return _floats(np.where(generations == 0, 0, bias * (1 + inherited)))


def drift_growing_corpus_approximation(bias: float, n_real: float, n_synthetic: float, t: ArrayLike) -> Floats:
    """Return bias ln(1 + t n_synthetic/n_real), how :func:`drift_growing_corpus_constant` grows for large ``t``.

    Its arguments; shape of ``t``. Derived for this project.
    """
    _corpus(n_real, n_synthetic)
    return _floats(bias * np.log1p(_whole("t", t) * n_synthetic / n_real))


def largest_share_growing_corpus(
    p: ArrayLike, n_real: float, n_synthetic: float, temperature: float, t: ArrayLike
) -> Floats:
    """Return the largest probability of the t-th model (t = 1, 2, ...; 0 is ``p``) fitted to a corpus that grows.

    The corpus begins with ``n_real`` real units; every model fits all of it and adds ``n_synthetic`` units at a
    temperature. Exact as both go to infinity at a constant ratio; at temperature 1 nothing moves, whatever is added.
    Shape of ``t``. Derived for this project; the argument is Wang et al. 2412.14872.
    """
    _corpus(n_real, n_synthetic)
    _positive(temperature=temperature)
    corpus, generations, size = _distribution(p), _whole("t", t), float(n_real)
    states = [corpus, corpus]
    for _ in range(1, int(generations.max(initial=0))):
        written = temperature_map(corpus, temperature, 1)
        corpus = (size * corpus + n_synthetic * written) / (size + n_synthetic)
        size += n_synthetic
        states.append(corpus)
    return _floats(_floats([state.max() for state in states])[generations])


# Heavy tails: the memorising learner of Hutter, on Zipf's law (Dohmatob et al. 2402.07043).


def hutter_error(p: ArrayLike, samples: ArrayLike, cut: int | None = None) -> Floats:
    """Return the expected mass of ``p`` that a learner has not seen after so many samples.

    ``samples`` are whole numbers of any shape, drawn from ``p`` or, with ``cut``, from its ``cut`` most frequent
    types only; shape of ``samples``. The learner of Dohmatob et al. 2402.07043 (unread).
    """
    array, sizes = np.sort(_distribution(p))[::-1], _whole("samples", samples)
    kept = array if cut is None else array[: int(_whole("cut", cut, least=1))]
    missed = 1 - kept / kept.sum()
    tail = float(array[kept.size :].sum())
    return _floats([kept @ missed**size + tail for size in sizes.ravel()]).reshape(sizes.shape)


def hutter_error_replace(p: ArrayLike, n: int, t: ArrayLike) -> Floats:
    """Return the expected mass of ``p`` on types that are dead at generation ``t`` under Replace.

    Shape of ``t``. Derived for this project (see :func:`survival_probability`): grows more slowly than ``t``.
    """
    _at_least(1, n=n)
    array = _distribution(p)
    return _floats((1 - survival_probability(n * array, t)) @ array)


def hutter_error_accumulate(p: ArrayLike, n: int, t: ArrayLike, cut: int | None = None, clean: int = 0) -> Floats:
    """Return the expected mass of ``p`` that a learner has not seen in t batches of documents, all of them kept.

    Each batch has ``n`` documents drawn from ``p`` or, with ``cut``, from its ``cut`` most frequent types only, and
    ``clean`` more drawn from all of ``p``: (1 - q_i)^(n t) (1 - p_i)^(clean t) is the chance to miss a type, q_i its
    probability after the cut. Shape of ``t``. Dohmatob et al. 2402.07043 (unread; Theorem 3.2 for the mixture).
    """
    _at_least(0, n=n, clean=clean)
    batches = _whole("t", t)
    array = np.sort(_distribution(p))[::-1]
    seen = array.copy()
    if cut is not None:
        seen[int(_whole("cut", cut, least=1)) :] = 0
        seen /= seen.sum()
    missed = np.maximum(1 - seen, 0) ** n * np.maximum(1 - array, 0) ** clean
    return _floats([array @ missed**size for size in batches.ravel()]).reshape(batches.shape)


def hutter_scaling(samples: ArrayLike, beta: float, cut: float | None = None) -> Floats:
    """Return T^(-(beta-1)/beta) + cut^(-(beta-1)), how the unseen mass of Zipf's law scales, up to constants.

    ``samples`` T, numbers above 0 of any shape; p_i falls as i^-beta with ``beta`` above 1; no ``cut``, no second
    term; shape of ``samples``. Dohmatob et al. 2402.07043, Theorem 2.1 (unread).
    """
    size = _floats(samples)
    if not (size > 0).all():
        raise DataError("samples must hold numbers above 0.")
    if not beta > 1:
        raise DataError(f"beta must be above 1, not {beta}: Zipf's law has no sum otherwise.")
    floor = 0.0
    if cut is not None:
        _at_least(1, cut=cut)
        floor = cut ** (1 - beta)
    return _floats(size ** (-(beta - 1) / beta) + floor)


def hutter_cut(samples: float, beta: float) -> float:
    """Return samples^(1/beta), the rank at which a corpus of that size cuts Zipf's law, up to a constant.

    Dohmatob et al. 2402.07043 (unread).
    """
    _positive(samples=samples)
    if not beta > 1:
        raise DataError(f"beta must be above 1, not {beta}: Zipf's law has no sum otherwise.")
    return float(samples ** (1 / beta))


# A verifier, a stable mixture, and a model trained on its own text step by step.


def verification_threshold(keep_correct: float, keep_wrong: float) -> float:
    """Return p* = phi/(phi + psi), the share of wrong labels up to which learning from the kept ones succeeds.

    ``keep_correct`` phi and ``keep_wrong`` psi: the chances that the verifier keeps a correct or a wrong label.
    Feng et al. 2406.07515 (unread).
    """
    _share(keep_correct=keep_correct, keep_wrong=keep_wrong)
    if keep_correct + keep_wrong == 0:
        raise DataError("A verifier that keeps nothing has no threshold.")
    return keep_correct / (keep_correct + keep_wrong)


def kept_correct_share(wrong: float, keep_correct: float, keep_wrong: float, t: ArrayLike = 1) -> Floats:
    """Return the correct share of the labels that a verifier keeps, (1-p) phi^t/((1-p) phi^t + p psi^t).

    ``wrong`` p is the share of wrong labels at first; the others as in :func:`verification_threshold`. One half at
    the threshold. Shape of ``t``: at generation 1 the verifier sees labels of which p are wrong (Feng et al.
    2406.07515, Bayes' rule), at each later one labels as often right as those that it kept the last time, so that the
    odds are multiplied by phi/psi again: the loop of a model that errs as often as what it learnt from, for endless
    documents (derived for this project).
    """
    _share(wrong=wrong, keep_correct=keep_correct, keep_wrong=keep_wrong)
    most = max(keep_correct, keep_wrong)
    if (1 - wrong) * keep_correct + wrong * keep_wrong == 0:
        raise DataError("A verifier that keeps nothing has no correct share.")
    rounds = _whole("t", t).astype(np.float64)
    right = (1 - wrong) * (keep_correct / most) ** rounds
    return _floats(right / (right + wrong * (keep_wrong / most) ** rounds))


def verified_accuracy(
    wrong: float, dimension: int, n: int, t: ArrayLike, keep_correct: float = 1.0, keep_wrong: float = 1.0
) -> Floats:
    """Return the expected accuracy of the mean of y x over what a verifier keeps of ``n`` labelled documents.

    x ~ N(0, I) of ``dimension`` d, y the side of a plane on which x lies, wrong with chance ``wrong`` whatever x is;
    accuracy is 1 - angle/pi between the true plane and the fitted one. Along the true normal the mean is a = (2q - 1)
    sqrt(2/pi) with the variance (1 - a^2)/m, across it exactly N(0, I/m), m documents being kept, of which the share q
    is right; the chance that both planes say the same of a new x at the angle phi from the normal is then
    Phi(a sqrt(m) cos phi / sqrt(1 - a^2 cos^2 phi)), whose mean over phi (of density ~ sin^(d-2)) is returned.

    One fit, and so the same for every generation in the shape of ``t``. Within 0.002 if at least 50 documents are kept:
    m is put at its mean, and the mean along the normal at a normal distribution. Derived for this project; the setting
    is Feng et al. 2406.07515.
    """
    _at_least(1, dimension=dimension)
    share = float(kept_correct_share(wrong, keep_correct, keep_wrong))
    m = n * ((1 - wrong) * keep_correct + wrong * keep_wrong)
    if not m >= 1:
        raise DataError(f"n must be so large that at least one document is kept, not {n}, of which {m:.2g} are.")
    a = (2 * share - 1) * math.sqrt(2 / math.pi)
    if dimension == 1:
        cosine, density = np.ones(1), np.ones(1)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(400)
        angle = (nodes + 1) * math.pi / 4
        cosine, density = np.cos(angle), weights * np.sin(angle) ** (dimension - 2)
    agreed = ndtr(a * math.sqrt(m) * cosine / np.sqrt(1 - (a * cosine) ** 2))
    return np.full(_whole("t", t).shape, float(agreed @ density / density.sum()))


def retraining_rate(weight: float, curvature: float, lipschitz: float, distance: float) -> float:
    """Return the rate below which errors shrink per retraining on a mixture; 1 or more means no guarantee, or inf.

    ``weight`` lambda of the synthetic against the real log-likelihood, ``curvature`` alpha (strong concavity),
    ``lipschitz`` L of the Hessian, ``distance`` eps of the best model from the data. Below 1 exactly if
    lambda (1 + L eps/alpha) < 1/2, the condition of Bertrand et al. 2310.00429 (unread); the rate derived for
    this project from its Jacobian.
    """
    _at_least(0, weight=weight, lipschitz=lipschitz, distance=distance)
    _positive(curvature=curvature)
    load = weight * (1 + lipschitz * distance / curvature)
    return load / (1 - load) if load < 1 else math.inf


def self_training_gradient(p: ArrayLike, tokens: int) -> float:
    """Return the root mean square of the gradient on ``tokens`` own samples, sqrt((1 - S)/tokens).

    Of the mean log-likelihood with respect to the logits of a unigram model ``p``: its mean is 0, so without
    truncation self-training is pure diffusion. Derived for this project; the setting is Herel and Mikolov 2404.02305.
    """
    _at_least(1, tokens=tokens)
    return math.sqrt(max(gini_simpson(p), 0) / tokens)


def self_training_drift(p: ArrayLike, k: int) -> Floats:
    """Return the mean of that gradient when own samples are cut to the top ``k``: the cut distribution minus ``p``.

    (types,); pushes logits the same way at every step. Derived for this project.
    """
    return top_k_map(p, k, 1) - _distribution(p)


def halving_time_ratio(rate_ratio: float, batch_ratio: float = 1.0, truncated: bool = False) -> float:
    """Return by what the steps to half the entropy change when learning rate and batch are multiplied.

    Diffusion goes as batch/rate^2, the drift of truncated sampling as 1/rate; for plain gradient descent. Derived
    for this project; the setting is Herel and Mikolov 2404.02305.
    """
    _positive(rate_ratio=rate_ratio, batch_ratio=batch_ratio)
    return 1 / rate_ratio if truncated else batch_ratio / rate_ratio**2
