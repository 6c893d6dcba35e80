"""The class of checks, and the checks of ``ecosystem validate`` that need too many replicates or steps for a world.

They use :mod:`ecosystem.validation.recursions`, which tests compare with the world.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from ecosystem.metrics.estimates import mean_and_error
from ecosystem.streams import Streams
from ecosystem.theory.diversity import (
    distance_fresh_data,
    distance_partially_synthetic,
    diversity_accumulate,
    diversity_random_mixture,
    diversity_replace,
    gini_simpson,
    l1_ceiling_partially_synthetic,
    simpson_partially_synthetic,
    squared_drift,
)
from ecosystem.theory.extinction import (
    collapse_probability,
    collapse_probability_lower_bound,
    collapse_probability_upper_bound,
    survival_lower_bound,
    surviving_types_exact,
    time_to_collapse_bounds,
    time_to_collapse_exact,
)
from ecosystem.theory.gaussian import (
    gaussian_log_variance,
    gaussian_sd,
    gaussian_sd_tail_bound,
    gaussian_typical_variance,
    gaussian_variance,
    gaussian_w2,
)
from ecosystem.theory.learning import (
    drift_growing_corpus_constant,
    halving_time_ratio,
    self_training_drift,
    self_training_gradient,
)
from ecosystem.types import Floats
from ecosystem.validation import recursions

LONG = "long"  # name of the group of checks without a scenario file
LIMIT = 4.0
"""Number of standard errors beyond which a check fails."""
EXACT = 1e-12  # largest difference attributed to rounding; relative for predictions above 1

Relation = Literal["=", "≥", "≤"]


@dataclass(frozen=True)
class Check:
    """Comparison of a mean over replicates with a law or a bound."""

    name: str  # scenario/population/metric@step
    source: str
    predicted: float
    simulated: float
    error: float  # standard error over trainers
    replicates: int
    relation: Relation = "="  # of the simulated value to the prediction

    @classmethod
    def of(
        cls, name: str, source: str, predicted: float, values: NDArray[np.float64], relation: Relation = "="
    ) -> Check:
        """Return the comparison of the mean of independent values, one per replicate, with a prediction."""
        mean, error = mean_and_error(values)
        return cls(name, source, predicted, mean, error, values.size, relation)

    @property
    def z(self) -> float:
        """Distance of the simulation from the law in standard errors; 0 if they are equal up to rounding."""
        difference = self.simulated - self.predicted
        if abs(difference) <= EXACT * max(1.0, abs(self.predicted)):
            return 0.0
        return difference / self.error if self.error > 0 else math.copysign(math.inf, difference)

    @property
    def passed(self) -> bool:
        """Whether z is within the quantile of Student's t that corresponds to LIMIT of a normal distribution."""
        excess = {"=": abs(self.z), "≥": -self.z, "≤": self.z}[self.relation]
        if excess <= 0:
            return True
        return bool(np.isfinite(excess) and t.sf(excess, self.replicates - 1) >= norm.sf(LIMIT))


def long_checks(seed: int, replicates: int) -> list[Check]:
    """Return checks of laws about hundreds of generations or rare events, on loops without agents.

    ``replicates`` is raised to at least 100, because the checks have little power with fewer. Some checks use a
    multiple or a fraction of it.
    """
    replicates = max(replicates, 100)
    groups = (_normals, _symbols, _fixations, _real_data, _self_training)
    return [*_growing_corpus(), *(check for group in groups for check in group(seed, replicates))]


def _check(name: str, source: str, predicted: float | Floats, values: NDArray[Any], relation: Relation = "=") -> Check:
    return Check.of(f"{LONG}/{name}", source, float(predicted), np.asarray(values, np.float64), relation)


def zipf(types: int, exponent: float = 1.0) -> Floats:
    """Return the probabilities of Zipf's law, [types]."""
    weight = np.arange(1, types + 1) ** -exponent
    return np.asarray(weight / weight.sum(), np.float64)


def _growing_corpus() -> Iterator[Check]:
    """W1, which is deterministic, so both values must be equal."""
    share = recursions.growing_corpus(0.3, 0.01, 100, 5, 50)
    for step in (1, 10, 50):
        predicted = 0.3 + float(drift_growing_corpus_constant(0.01, 100, 5, step))
        name = f"{LONG}/biased models, corpus of 100 growing by 5/first_type@{step}"
        yield Check(name, "Wang et al. 2024; derived", predicted, float(share[step - 1]), 0.0, 1)


def _normals(seed: int, replicates: int) -> Iterator[Check]:
    """G1 to G3, B1, K1, M1 and the tail bound of Suresh et al."""
    # For smaller n or larger t, variance and distance have tails so heavy that standard errors are unreliable, so
    # logarithms and medians are compared instead.
    large = recursions.gaussian_replace(10 * replicates, 20, 100, seed=seed)
    w2 = large.mean[-1] ** 2 + (np.sqrt(large.variance[-1]) - 1) ** 2
    yield _check("gaussian n=100/w2@20", "Shumailov et al. 2024; derived", gaussian_w2(100, 20), w2)
    small = recursions.gaussian_replace(10 * replicates, 100, 10, seed=seed)
    for n, loop in ((100, large), (10, small)):
        deviation = np.sqrt(loop.variance[19])
        predicted = gaussian_sd(n, 20)
        yield _check(f"gaussian n={n}/standard_deviation@20", "Bertrand et al. 2024", predicted, deviation)
    for step in (20, 100):
        wide = np.sqrt(small.variance[step - 1]) > 0.3
        bound = gaussian_sd_tail_bound(10, step, 0.3)
        yield _check(f"gaussian n=10/wider than 0.3@{step}", "Suresh et al. 2024, a bound", bound, wide, "≤")
    for unbiased in (True, False):
        loop = recursions.gaussian_replace(replicates, 100, 100, unbiased=unbiased, seed=seed)
        name = f"gaussian n=100 {'unbiased' if unbiased else 'biased'}/log_variance@100"
        predicted = gaussian_log_variance(100, 100, unbiased=unbiased)
        yield _check(name, "derived", predicted, np.log(loop.variance[-1]))
    biased = recursions.gaussian_replace(replicates, 10, 10, sampling_bias=0.8, seed=seed)
    predicted = gaussian_variance(10, 9, sampling_bias=0.8)
    yield _check("gaussian lambda=0.8/variance@10", "Alemohammad et al. 2023", predicted, biased.variance[-1])
    source = "Shumailov et al. 2024, their code; derived"
    for n in (100, 500, 1000, 10_000):
        last = recursions.gaussian_replace(replicates // 2, 1000, n, unbiased=False, seed=seed).variance[-1]
        typical = gaussian_typical_variance(n, 1000, unbiased=False)
        yield _check(f"gaussian n={n} biased/below the typical variance@1000", source, 0.5, last < typical)
    yield _check("gaussian n=10000 biased/variance@1000", source, gaussian_variance(n, 1000, unbiased=False), last)
    for n, steps in ((10, (1, 10, 50)), (100, (1000,)), (500, (1000,))):
        kept = recursions.gaussian_accumulate(replicates, max(steps), n, seed=seed)
        for step in steps:
            variance = float(diversity_accumulate(1, n, step))
            name = f"gaussian n={n} accumulated"
            yield _check(f"{name}/variance@{step}", "Kazdan et al. 2025; derived", variance, kept.variance[step - 1])
            drift, error = squared_drift(1, variance), kept.mean[step - 1] ** 2
            yield _check(f"{name}/mean_error@{step}", "Kazdan et al. 2025; derived", float(drift), error)


def _symbols(seed: int, replicates: int) -> Iterator[Check]:
    """S1, S2, K2, S5, the number of surviving symbols and the bound of Suresh et al."""
    p = zipf(20)
    loop = recursions.categorical_replace(p, 2 * replicates, 100, 50, seed=seed)
    for step in (1, 10, 30, 100):
        predicted = 1 - diversity_replace(gini_simpson(p), 50, step)
        simpson = 1 - loop.gini_simpson[step - 1]
        yield _check(f"Zipf-20 n=50/simpson@{step}", "Seddik et al. 2024, Theorem 1", predicted, simpson)
    uniform = np.full(10, 0.1)
    for n, runs in ((10, replicates), (50, replicates), (100, replicates), (1000, replicates // 10)):
        # Fewer than one in a million runs of n samples take longer than 16 n generations.
        loop = recursions.categorical_replace(uniform, runs, 16 * n, n, seed=seed)
        time = (loop.support > 1).sum(axis=0) + 1.0  # generation with one symbol left
        exact, source = time_to_collapse_exact(uniform, n), "Kazdan et al. 2025; derived (chain of one count)"
        yield _check(f"uniform K=10 n={n}/time_to_collapse", source, exact, time)
        if n == 100:
            low, high = time_to_collapse_bounds(uniform, n)
            name, source = f"uniform K=10 n={n}/time_to_collapse", "Seddik et al. 2024, Theorem 1"
            yield _check(f"{name}, from below", source, low, time, "≥")
            yield _check(f"{name}, from above", source, high, time, "≤")
    p = zipf(1000)
    support = recursions.categorical_replace(p, replicates // 5, 100, 1000, seed=seed).support
    steps = np.array([1, 5, 10, 50, 100])
    for step, predicted in zip(steps, surviving_types_exact(p, 1000, steps), strict=True):
        yield _check(f"Zipf-1000 n=1000/support@{step}", "derived (chain of one count)", predicted, support[step - 1])
    for step in (10, 50):
        bound = survival_lower_bound(1000 * p, step).sum()
        yield _check(f"Zipf-1000 n=1000/support@{step}, bound", "Suresh et al. 2024", bound, support[step - 1], "≥")
    p = zipf(52, 1.1008)  # sum p^2 = 0.1
    h0 = gini_simpson(p)
    mixture = recursions.categorical_mixture(p, replicates, 200, 10, seed=seed)
    for step in (10, 200):
        predicted = 1 - diversity_random_mixture(h0, 10, step)
        simpson = 1 - mixture[step - 1]
        yield _check(f"any past model n=10/simpson@{step}", "Seddik et al. 2024, section 4.2", predicted, simpson)
    replaced = 1 - recursions.categorical_replace(p, 2 * replicates, 50, 10, seed=seed).gini_simpson[-1]
    predicted = 1 - diversity_replace(h0, 10, 50)
    yield _check("last model n=10/simpson@50", "Seddik et al. 2024, Theorem 1", predicted, replaced)


def _fixations(seed: int, replicates: int) -> Iterator[Check]:
    """S3 and the probability of collapse with its bounds."""
    p = zipf(20)
    loop = recursions.categorical_replace(p, replicates, 1200, 50, seed=seed)
    yield _check("Zipf-20 n=50/fixation of the first", "Seddik et al. 2024, Proposition 1", p[0], loop.survivor == 0)
    # The mean of Pearson's statistic is exactly K - 1 for a part of any size.
    parts = np.array_split(loop.survivor, 20)
    counts = np.array([np.bincount(part, minlength=20) for part in parts])
    expected = np.array([part.size for part in parts])[:, None] * p
    statistic = ((counts - expected) ** 2 / expected).sum(axis=1)
    yield _check("Zipf-20 n=50/fixation of all, chi-square", "Seddik et al. 2024, Proposition 1", 19, statistic)
    for step in (50, 200):
        collapsed, name = loop.support[step - 1] == 1, f"Zipf-20 n=50/collapsed@{step}"
        yield _check(name, "derived (chain of one count)", collapse_probability(p, 50, step), collapsed)
        low = collapse_probability_lower_bound(p, 50, step)
        high = collapse_probability_upper_bound(p, 50, step)
        yield _check(f"{name}, from below", "Seddik et al. 2024, Theorem 1", low, collapsed, "≥")
        yield _check(f"{name}, from above", "Seddik et al. 2024, Theorem 1", high, collapsed, "≤")


def _real_data(seed: int, replicates: int) -> Iterator[Check]:
    """S4, S6 and M2: real data that is kept, or new at every generation."""
    p = np.array([0.6, 0.3, 0.1])
    loop = recursions.categorical_with_real(p, 10 * replicates, 8, 10, 100, seed=seed)
    for step in (1, 2, 4, 8):
        predicted = simpson_partially_synthetic(float(p @ p), 10, 100, step)
        simulated = (loop[step - 1] ** 2).sum(axis=1)
        source = "Seddik et al. 2024, Theorem 2 with its sign corrected"
        yield _check(f"3 symbols N=10 n=100/simpson@{step}", source, predicted, simulated)
    p = zipf(52, 1.1008)
    s0 = float(p @ p)
    for n in (10, 100, 1000):
        loop, name = recursions.categorical_with_real(p, replicates, 20, 100, n, seed=seed), f"Zipf-52 N=100 n={n}"
        predicted = simpson_partially_synthetic(s0, 100, n, 20)
        source = "Seddik et al. 2024, Theorem 2 with its sign corrected"
        yield _check(f"{name}/simpson@20", source, predicted, (loop[-1] ** 2).sum(axis=1))
        difference = loop[-1] - loop[0]
        predicted = distance_partially_synthetic(s0, 100, n, 20)
        yield _check(f"{name}/l2 from the first fit@20", "derived", predicted, (difference**2).sum(axis=1))
        bound = l1_ceiling_partially_synthetic(52, 100, n)
        yield _check(f"{name}/l1 from the first fit@20", "derived, a bound", bound, np.abs(difference).sum(axis=1), "≤")
    p = zipf(20)
    h0 = gini_simpson(p)
    for label, start in (("uniform", np.full(20, 0.05)), ("one symbol", np.eye(20)[19])):
        loop = recursions.categorical_with_real(p, replicates, 30, 20, 80, start=start, seed=seed)
        for step in (5, 30):
            offset = start - p
            predicted = distance_fresh_data(h0, 20, 80, step, float(offset @ offset), float(p @ offset))
            simulated = ((loop[step - 1] - p) ** 2).sum(axis=1)
            name = f"20 fresh beside 80, from {label}/l2@{step}"
            yield _check(name, "Alemohammad et al. 2023 (n_e = 36.8); derived", predicted, simulated)


def _self_training(seed: int, replicates: int) -> Iterator[Check]:
    """H1 and H2: a softmax trained on its own samples, with and without truncation."""
    p, source = zipf(30), "Herel and Mikolov 2024; derived"
    share = np.tile(p, (replicates, 1))
    drift = self_training_drift(p, 10)
    direction = drift / np.sqrt(drift @ drift)
    rng = Streams(seed).at("checks/own_samples").rng()
    full = recursions.sample_gradient(share, 20, rng)
    truncated = recursions.sample_gradient(share, 20, rng, top_k=10)
    predicted = self_training_gradient(p, 20) ** 2
    yield _check("softmax of 30/squared gradient of 20 own samples", source, predicted, (full**2).sum(axis=1))
    yield _check("softmax of 30/gradient of own samples towards top 10", source, 0.0, full @ direction)
    yield _check(
        "softmax of 30/the same, samples cut to top 10", source, float(np.sqrt(drift @ drift)), truncated @ direction
    )
    # Steps to half the entropy at one rate and at half that rate; different seeds make the two independent.
    runs = replicates // 10
    for label, types, tokens, k in (("all", 10, 1, None), ("the top 10", 30, 20, 10)):
        fast, slow = (
            recursions.self_training(zipf(types), runs, rate, tokens, top_k=k, seed=seed + offset)
            for rate, offset in ((0.1, 0), (0.05, 10**6))
        )
        predicted = np.log(halving_time_ratio(0.5, truncated=k is not None))
        name = f"softmax of {types}, samples of {label}/log of steps at half the rate"
        yield _check(name, source, predicted, np.log(slow) - np.log(fast))
