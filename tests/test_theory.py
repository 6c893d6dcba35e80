"""The closed forms of the literature: limits agree with recursions, small independent simulations agree with both.

A simulation must lie within 4 standard errors of the formula and, where a mistake is plausible (a biased variance,
a wrong sign, sampling with replacement), more than 4 from what the mistake would give.
"""

import inspect
import json
import math

import numpy as np
import pytest

from ecosystem.cli.listing import listing
from ecosystem.errors import DataError
from ecosystem.theory import (
    adoption,
    curation,
    diversity,
    extinction,
    gaussian,
    learning,
    networks,
    regression,
    weighting,
)
from ecosystem.theory.curation import curated_diversity
from ecosystem.theory.diversity import (
    distance_fresh_data,
    distance_partially_synthetic,
    diversity_accumulate,
    diversity_accumulate_subsample,
    diversity_random_mixture,
    diversity_replace,
    effective_sample_size,
    gini_simpson,
    l1_bound_partially_synthetic,
    l1_ceiling_partially_synthetic,
    pool_diversity_accumulate_subsample,
    simpson_partially_synthetic,
    simpson_partially_synthetic_recursion,
    squared_drift,
)
from ecosystem.theory.extinction import (
    collapse_probability,
    collapse_probability_lower_bound,
    collapse_probability_upper_bound,
    diversity_truncated,
    expected_tail_mass,
    hutter_error_accumulate,
    hutter_error_replace,
    survival_lower_bound,
    survival_probability,
    surviving_types,
    surviving_types_exact,
    time_to_collapse,
    time_to_collapse_bounds,
    time_to_collapse_exact,
)
from ecosystem.theory.gaussian import (
    c4,
    gaussian_log_variance,
    gaussian_log_variance_variance,
    gaussian_mean_error,
    gaussian_sd,
    gaussian_sd_tail_bound,
    gaussian_typical_variance,
    gaussian_variance,
    gaussian_variance_variance,
    gaussian_w2,
    gaussian_w2_first_order,
    kde_variance_accumulate,
    kde_variance_replace,
)
from ecosystem.theory.laws import laws
from ecosystem.theory.learning import (
    diversity_edited,
    drift_growing_corpus_approximation,
    drift_growing_corpus_constant,
    halving_time_ratio,
    kept_correct_share,
    largest_share_growing_corpus,
    self_training_drift,
    self_training_gradient,
    temperature_map,
    top_k_map,
    top_p_map,
    verified_accuracy,
)
from ecosystem.theory.regression import (
    ols_error_accumulate,
    ols_error_edited,
    ols_error_mixture,
    ols_error_recovery,
    ols_error_replace,
)
from ecosystem.theory.weighting import weighted_fit_variance, weighted_mean_error

T = np.arange(0, 41)


def zipf(k, s=1.0):
    weights = np.arange(1, k + 1) ** -float(s)
    return weights / weights.sum()


def uniform(k):
    return np.full(k, 1 / k)


def agrees(sample, expected, *mistakes):
    """Compare the mean over axis 0 with ``expected``, and its distance from ``mistakes``, in standard errors."""
    sample = np.asarray(sample, float)
    mean, error = sample.mean(axis=0), sample.std(axis=0, ddof=1) / math.sqrt(len(sample))
    assert np.all(np.abs(mean - expected) <= 4 * error + 1e-12), (mean, expected, error)
    for mistake in mistakes:
        assert np.all(np.abs(mean - mistake) > 4 * error), (mean, mistake, error)


def gini(p):
    return 1 - (p**2).sum(axis=-1)


# Diversity when every model is fitted to samples of earlier ones.


def test_one_fit_is_the_same_in_every_workflow():
    for n in (1, 2, 10, 1000):
        first = 0.7 * (1 - 1 / n)
        for f in (
            diversity_replace,
            diversity_accumulate,
            diversity_random_mixture,
            diversity_accumulate_subsample,
            pool_diversity_accumulate_subsample,
        ):
            assert f(0.7, n, [0, 1]) == pytest.approx([0.7, first], abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 10_000])
def test_limits_are_where_the_recursions_go(n):
    far = 200_000
    euler = math.sin(math.pi / math.sqrt(n)) / (math.pi / math.sqrt(n))  # his product for the sine
    assert diversity_accumulate(1, n, far) == pytest.approx(euler, rel=1e-5, abs=1e-5)
    assert diversity_replace(1, n, far) <= math.exp(-far / n)


@pytest.mark.parametrize("n", [2, 10, 100])
def test_workflows_are_ordered(n):
    replace, accumulate = diversity_replace(1, n, T), diversity_accumulate(1, n, T)
    fit, pool = (
        diversity_accumulate_subsample(1, n, T),
        pool_diversity_accumulate_subsample(1, n, T),
    )
    assert (replace[2:] < fit[2:]).all()
    assert (fit[2:] < pool[2:]).all()
    assert (pool[3:] < accumulate[3:]).all()  # the first fit is on the whole pool
    for values in (replace, accumulate, fit, pool):
        assert (np.diff(values) < 0).all()


def test_known_values_of_diversity():
    assert diversity_accumulate(1, 10, [1, 10, 50]) == pytest.approx([0.9, 0.85150, 0.84511], abs=5e-6)
    keep_all = [diversity_accumulate(1, n, 1000) for n in (100, 500, 1000, 10_000)]
    assert keep_all == pytest.approx([0.98364, 0.99672, 0.99836, 0.99984], abs=6e-6)
    fit = diversity_accumulate_subsample(1, 10, [1, 2, 4, 8, 12])
    assert fit == pytest.approx([0.9, 0.8313, 0.7887, 0.7648, 0.7564], abs=6e-5)
    assert squared_drift(1, fit) == pytest.approx([0.1, 0.1687, 0.2113, 0.2352, 0.2436], abs=6e-5)
    far = 10**6
    limits = [diversity_accumulate_subsample(1, n, far) for n in (10, 100)]
    assert limits == pytest.approx([0.7390, 0.97100], abs=6e-5)
    pools = [pool_diversity_accumulate_subsample(1, n, far) for n in (10, 100)]
    assert pools == pytest.approx([0.8211, 0.98081], abs=6e-5)
    assert 1 - diversity_accumulate(0.9, 10, far) == pytest.approx(0.2409, abs=5e-5)
    assert 1 - diversity_replace(0.9, 10, 50) == pytest.approx(0.9954, abs=5e-5)
    h0 = gini_simpson(zipf(20))
    s = 1 - diversity_replace(h0, 50, [1, 10, 30, 100])
    assert s == pytest.approx([0.14085, 0.28368, 0.52178, 0.88373], abs=6e-6)
    h0 = 0.93794  # the law behind three of the numbers simulated for this project
    assert diversity_random_mixture(h0, 10, 50) == pytest.approx(0.79266, abs=6e-6)
    assert diversity_accumulate(h0, 20, 50) == pytest.approx(0.86353, abs=6e-6)
    assert distance_fresh_data(h0, 20, 80, far) == pytest.approx(0.02549, abs=6e-6)


def test_replace_and_accumulate_of_unigrams():
    rng, p, n, runs = np.random.default_rng(1), zipf(10), 10, 6000
    h0 = gini_simpson(p)
    last = np.broadcast_to(p, (runs, 10))
    pool = np.zeros((runs, 10))
    fit = last
    for t in range(1, 16):
        last = rng.multinomial(n, last) / n
        pool += rng.multinomial(n, fit)
        fit = pool / (n * t)
        if t in (1, 5, 15):
            agrees(gini(last), diversity_replace(h0, n, t), h0 * (1 - 1 / n) ** (t + 1))
            agrees(((last - p) ** 2).sum(axis=1), squared_drift(h0, diversity_replace(h0, n, t)))
            mistake = diversity_accumulate_subsample(h0, n, t) if t > 1 else h0
            agrees(gini(fit), diversity_accumulate(h0, n, t), mistake)


def test_random_mixture_of_past_models():
    rng, p, n, runs = np.random.default_rng(2), zipf(10), 10, 6000
    past = [np.broadcast_to(p, (runs, 10))]
    for t in range(1, 13):
        # Each sample chooses its model first: a mixture by counts, not by averaged probabilities.
        chosen = rng.multinomial(n, uniform(t), size=runs)
        counts = sum(rng.multinomial(chosen[:, m], past[m]) for m in range(t))
        past.append(counts / n)
    h0 = gini_simpson(p)
    wrong = diversity_replace(h0, n, 12), diversity_accumulate_subsample(h0, n, 12)
    agrees(gini(past[12]), diversity_random_mixture(h0, n, 12), *wrong)


@pytest.mark.parametrize("workflow", ["replace", "accumulate", "accumulate_subsample"])
def test_variance_of_kernel_density_estimates(workflow):
    rng, n, width, t, runs = np.random.default_rng(6), 5, 0.4, 5, 8000
    pool = rng.normal(size=(runs, n))
    for _ in range(t):
        fitted = pool
        if workflow == "accumulate_subsample":
            fitted = np.take_along_axis(pool, rng.random(pool.shape).argpartition(n - 1, axis=1)[:, :n], axis=1)
        variance = fitted.var(axis=1) + width**2
        chosen = np.take_along_axis(fitted, rng.integers(0, fitted.shape[1], (runs, n)), axis=1)
        new = chosen + width * rng.normal(size=(runs, n))
        pool = new if workflow == "replace" else np.hstack([pool, new])
    others = {"replace": kde_variance_replace, "accumulate": kde_variance_accumulate}
    law = laws()[f"kde_variance_{workflow}"].function(n, width, t)
    wrong = [other(n, width, t) for name, other in others.items() if name != workflow]
    agrees(variance, law, *wrong, law - width**2)
    assert kde_variance_replace(10, 0.5, 10**4) == pytest.approx(10 * 0.5**2), "settles at n h^2"
    later, far = kde_variance_accumulate(10, 0.5, [1000, 4000])
    assert far - later == pytest.approx(0.25 * math.log(4), rel=0.01), "and grows for ever like a logarithm"


def test_a_subsample_of_more_documents_than_are_read():
    """Models publish 12 documents and read 4 of all: between accumulate-subsample and a mixture of past models."""
    rng, p, n, published, runs = np.random.default_rng(4), zipf(10), 4, 12, 6000
    pool = rng.choice(10, (runs, published), p=p)
    for _ in range(6):
        chosen = rng.random(pool.shape).argpartition(n - 1, axis=1)[:, :n]
        items = np.take_along_axis(pool, chosen, axis=1)
        shares = (items[:, :, None] == np.arange(10)).mean(axis=1)
        copied = np.take_along_axis(items, rng.integers(0, n, (runs, published)), axis=1)
        pool = np.hstack([pool, copied])
    h0 = gini_simpson(p)
    wrong = diversity_random_mixture(h0, n, 6), diversity_accumulate_subsample(h0, n, 6)
    agrees(gini(shares), diversity_accumulate_subsample(h0, n, 6, published), *wrong)
    limit = diversity_accumulate_subsample(h0, n, T, 10**8)
    assert limit == pytest.approx(diversity_random_mixture(h0, n, T), rel=1e-6)


def test_accumulate_and_subsample_of_gaussians():
    rng, n, runs = np.random.default_rng(3), 10, 30_000
    pool = rng.normal(size=(runs, n))
    for t in range(1, 10):
        chosen = rng.random(pool.shape).argpartition(n - 1, axis=1)[:, :n] if t > 1 else np.arange(n)[None]
        items = np.take_along_axis(pool, np.broadcast_to(chosen, (runs, n)), axis=1)
        mean, sd = items.mean(axis=1), items.std(axis=1)
        if t in (2, 9):
            fitted = diversity_accumulate_subsample(1, n, t)
            pooled = pool_diversity_accumulate_subsample(1, n, t)
            replaced = [pooled * (1 - 1 / n)] if t == 2 else []  # later, drawing with replacement is nearly the same
            agrees(sd**2, fitted, diversity_replace(1, n, t), *replaced)
            agrees(pool.var(axis=1), pooled, *([diversity_accumulate(1, n, t)] if t > 2 else []))
            agrees(mean**2, squared_drift(1, fitted), t / n)
        pool = np.concatenate([pool, rng.normal(mean[:, None], sd[:, None], size=(runs, n))], axis=1)


# Diversity when human data stays in, or comes in.

MIXES = [(10, 100), (100, 10), (100, 100), (5, 1), (7, 0), (1, 3)]


@pytest.mark.parametrize(("real", "synthetic"), MIXES)
def test_the_closed_form_solves_the_recursion(real, synthetic):
    closed = simpson_partially_synthetic(0.3, real, synthetic, T)
    assert closed == pytest.approx(simpson_partially_synthetic_recursion(0.3, real, synthetic, T), abs=1e-14)
    assert closed[0] == 0.3
    assert closed[1] == pytest.approx(1 / real + (1 - 1 / real) * 0.3)


def as_printed(s0, real, synthetic, m):
    """Theorem 2 of Seddik et al. with the sign of the print, of S_{m+1}."""
    alpha = synthetic / (real + synthetic)
    beta = alpha * ((1 + 1 / real) * alpha - 1 / real)
    scale = 1 + (1 + 1 / real) * alpha
    first = (1 + 2 * alpha - (1 - 1 / real) * alpha * beta**m) / (real * scale)
    return first + (1 - 1 / real) * s0 / scale * (1 + alpha - alpha / real * beta**m)


def test_partially_synthetic_unigrams_and_the_sign_in_print():
    rng, p, real, synthetic, runs = np.random.default_rng(4), np.array([0.6, 0.3, 0.1]), 10, 100, 40_000
    s0 = float(p @ p)
    table = {1: (0.51379, 0.47636), 2: (0.51779, 0.48722), 4: (0.52386, 0.50338), 8: (0.53057, 0.52143)}
    human = rng.multinomial(real, p, size=runs)
    first = model = human / real
    for m in range(1, 9):
        if m > 1:
            model = (human + rng.multinomial(synthetic, model)) / (real + synthetic)
        if m in table:
            simulated, printed = table[m]
            expected = simpson_partially_synthetic(s0, real, synthetic, m)
            assert expected == pytest.approx(simulated, abs=0.001)
            assert as_printed(s0, real, synthetic, m - 1) == pytest.approx(printed, abs=6e-6)
            agrees(1 - gini(model), expected, printed)
            agrees(((model - first) ** 2).sum(axis=1), distance_partially_synthetic(s0, real, synthetic, m))


def test_known_values_of_partially_synthetic_loops():
    assert simpson_partially_synthetic(0.1, 100, 10, 1) == pytest.approx(0.1090)
    limits = [simpson_partially_synthetic(0.1, 100, n, 100_000) for n in (10, 100, 1000)]
    assert limits == pytest.approx([0.10974, 0.11196, 0.11322], abs=6e-6)


@pytest.mark.parametrize(("real", "synthetic"), MIXES)
def test_bounds_of_the_l1_distance_are_ordered(real, synthetic):
    support, s0 = 52, 0.1
    assert distance_partially_synthetic(s0, real, synthetic, 0) == pytest.approx((1 - s0) / real)
    bound = l1_bound_partially_synthetic(s0, support, real, synthetic, T[1:])
    assert bound[0] == pytest.approx(0, abs=1e-7)
    assert (np.diff(bound) >= -1e-12).all()
    assert bound[-1] <= l1_ceiling_partially_synthetic(support, real, synthetic)


def test_l1_distances_stay_below_the_bounds_that_say_something():
    rng, real, runs = np.random.default_rng(5), 100, 400
    p = zipf(52, 0.62)
    human = rng.multinomial(real, p, size=runs)
    for synthetic, ceiling in ((10, 0.226), (100, 0.51), (1000, 0.51)):
        model = human / real
        for _ in range(30):
            model = (human + rng.multinomial(synthetic, model)) / (real + synthetic)
        distance = np.abs(model - human / real).sum(axis=1).mean()
        bound = l1_bound_partially_synthetic(float(p @ p), 52, real, synthetic, 31)
        assert l1_ceiling_partially_synthetic(52, real, synthetic) == pytest.approx(ceiling, abs=5e-4)
        assert distance < bound < 2.2 * distance


@pytest.mark.parametrize(("real", "synthetic"), MIXES)
def test_fresh_data_has_a_limit_that_forgets_the_start(real, synthetic):
    limit = 0.9 / effective_sample_size(real, synthetic)
    for start in (0.0, 0.5):
        path = distance_fresh_data(0.9, real, synthetic, [0, 100_000], start)
        assert path == pytest.approx([start, limit], abs=1e-12)
        before = distance_fresh_data(0.9, real, synthetic, T, start)
        size, kept = real + synthetic, synthetic**2 - synthetic
        assert before[1:] == pytest.approx(0.9 / size + kept / size**2 * before[:-1])
    size = effective_sample_size(real, synthetic)
    share = synthetic / (real + synthetic)
    assert size / real == pytest.approx(1 + share + share / real)
    assert size >= real


def test_fresh_data_of_unigrams():
    assert effective_sample_size(20, 80) == pytest.approx(36.8)
    rng, p, real, synthetic, runs = np.random.default_rng(6), zipf(12), 10, 40, 8000
    model = np.broadcast_to(p, (runs, 12))
    h0 = gini_simpson(p)
    for t in range(1, 26):
        drawn = rng.multinomial(real, p, size=runs) + rng.multinomial(synthetic, model)
        model = drawn / (real + synthetic)
        if t in (1, 3, 25):
            distance = ((model - p) ** 2).sum(axis=1)
            agrees(distance, distance_fresh_data(h0, real, synthetic, t), h0 / real)
    agrees(distance, distance_fresh_data(h0, real, synthetic, 10_000), h0 / 50, h0 / (50 * (1 - 0.8**2)))
    model = np.tile(np.eye(12)[11], (runs, 1))
    apart = model[0] - p
    for _ in range(4):
        model = (rng.multinomial(real, p, size=runs) + rng.multinomial(synthetic, model)) / (real + synthetic)
    start = {"start": apart @ apart, "overlap": p @ apart}
    mistake = distance_fresh_data(h0, real, synthetic, 4, start=apart @ apart)
    agrees(((model - p) ** 2).sum(axis=1), distance_fresh_data(h0, real, synthetic, 4, **start), mistake)
    assert distance_fresh_data(h0, 10, 0, [1, 2], **start) == pytest.approx(h0 / 10), "no trace of the start"


# When and where a chain of unigram models ends.


def two_types(n, share):
    """Return, exactly, for a chain of two types: its transition matrix and the law of the first fit."""
    states = np.arange(n + 1)
    log_choose = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in states]
    with np.errstate(divide="ignore", invalid="ignore"):
        q = states[:, None] / n
        logs = np.asarray(log_choose) + np.where(states > 0, states * np.log(q), 0)
        logs = logs + np.where(states < n, (n - states) * np.log1p(-q), 0)
    chain = np.exp(logs)
    first = np.exp(log_choose + states * math.log(share) + (n - states) * math.log1p(-share))
    return chain, first


def test_two_types_exactly():
    n, share = 60, 0.2
    p = [share, 1 - share]
    chain, law = two_types(n, share)
    k = np.arange(n + 1) / n
    for t in range(1, 400):
        lower = collapse_probability_lower_bound(p, n, t)
        upper = collapse_probability_upper_bound(p, n, t)
        collapsed = law[0] + law[-1]
        assert lower <= collapsed + 1e-12
        assert collapsed <= upper + 1e-12
        assert law @ (2 * k * (1 - k)) == pytest.approx(diversity_replace(0.32, n, t))
        assert law @ k == pytest.approx(expected_tail_mass(p, 1, t))
        law = law @ chain
    far = law @ np.linalg.matrix_power(chain, 5000)
    assert [far[-1], far[0]] == pytest.approx(p)


def test_both_bounds_of_collapse_are_exact_for_two_samples():
    # One state is left besides the ends, so the diversity alone tells how often it is met.
    for t in range(1, 12):
        expected = 1 - 2 * diversity_replace(0.32, 2, t)
        assert collapse_probability_lower_bound([0.2, 0.8], 2, t) == pytest.approx(expected)
        assert collapse_probability_upper_bound([0.2, 0.8], 2, t) == pytest.approx(expected)
    assert time_to_collapse_bounds([0.2, 0.8], 2) == pytest.approx((1.64, 1.64))


def test_what_adds_up_over_types_is_known_exactly():
    rng, p, n, runs = np.random.default_rng(21), zipf(6), 8, 20_000
    shares, ended = np.broadcast_to(p, (runs, 6)), np.zeros(runs)
    for t in range(1, 120):
        shares = rng.multinomial(n, shares) / n
        alive = (shares > 0).sum(axis=1)
        ended[(alive == 1) & (ended == 0)] = t
        if t in (1, 3, 12):
            agrees(alive, surviving_types_exact(p, n, t), surviving_types_exact(p, n, t + 1))
            agrees(alive == 1, collapse_probability(p, n, t), collapse_probability(p, n, t + 1))
    assert ended.all()
    agrees(ended, time_to_collapse_exact(p, n), time_to_collapse(p, n))


def test_exact_values_lie_within_bounds_and_near_approximations():
    p, n, t = zipf(20), 50, np.arange(1, 400)
    exact = collapse_probability(p, n, t)
    assert (collapse_probability_lower_bound(p, n, t) <= exact).all()
    assert (exact <= collapse_probability_upper_bound(p, n, t)).all()
    time = time_to_collapse_exact(p, n)
    assert time == pytest.approx(1 + (1 - collapse_probability(p, n, np.arange(1, 4000))).sum())
    assert time < time_to_collapse(p, n) < 1.03 * time
    types = surviving_types_exact(zipf(300), 300, [0, 1, 5, 15])
    assert types == pytest.approx(surviving_types(zipf(300), 300, [0, 1, 5, 15]), rel=0.01)
    assert (types >= survival_lower_bound(300 * zipf(300), [0, 1, 5, 15]).sum(axis=1)).all()
    assert time_to_collapse_exact([1.0], 5) == 0 and time_to_collapse_exact(P, 1) == 1
    assert time_to_collapse_exact([0.5, 0.5], 2) == pytest.approx(2), "a coin until both tosses agree"


def test_time_to_collapse_is_the_large_sample_limit():
    error = []
    for n in (25, 50, 100, 200):
        chain, law = two_types(n, 0.3)
        inner = np.linalg.solve(np.eye(n - 1) - chain[1:-1, 1:-1], np.ones(n - 1))
        exact = 1 + law[1:-1] @ inner
        low, high = time_to_collapse_bounds([0.3, 0.7], n)
        assert low <= exact <= high
        error.append(exact / time_to_collapse([0.3, 0.7], n) - 1)
    assert abs(error[-1]) < 0.01
    assert np.all(np.abs(np.array(error[1:]) / error[:-1]) < 0.7)  # falls about as 1/n


def test_known_times_to_collapse():
    assert time_to_collapse(zipf(20), 50) == pytest.approx(93.3, abs=0.05)
    assert time_to_collapse(uniform(10), 100) == pytest.approx(189.6, abs=0.05)
    assert time_to_collapse(uniform(10), 10) == pytest.approx(18.96, abs=0.005)
    assert time_to_collapse(uniform(2), 100) == pytest.approx(200 * math.log(2))
    assert time_to_collapse(uniform(100_000), 100) == pytest.approx(200, rel=1e-4)
    assert time_to_collapse_bounds(uniform(10), 100) == pytest.approx((100, 8911))
    assert time_to_collapse([1.0, 0.0], 100) == 0
    assert time_to_collapse_bounds([0.0, 1.0], 100) == (0, 0)
    assert collapse_probability_lower_bound([1.0], 5, [0, 1]).tolist() == [1, 1]
    assert collapse_probability_upper_bound([0.0, 1.0], 5, [0, 1]).tolist() == [1, 1]
    assert collapse_probability_lower_bound([0.01, 0.99], 5, 0) == 0


def test_time_and_place_of_collapse():
    rng, p, n, runs = np.random.default_rng(7), zipf(6), 50, 1500
    counts, time, winner = np.broadcast_to(p, (runs, 6)), np.zeros(runs), np.zeros(runs, int)
    active, t = np.arange(runs), 0
    while active.size:
        t += 1
        counts = rng.multinomial(n, counts) / n
        done = counts.max(axis=1) == 1
        time[active[done]], winner[active[done]] = t, counts[done].argmax(axis=1)
        active, counts = active[~done], counts[~done]
    error = time.std() / math.sqrt(runs)
    expected = time_to_collapse(p, n)
    assert abs(time.mean() - expected) < 4 * error + 0.02 * expected
    assert abs(time.mean() - expected / 2) > 4 * error  # a diploid population: 4N, or N genes instead of 2N
    share = np.bincount(winner, minlength=6) / runs
    assert np.all(np.abs(share - p) < 4 * np.sqrt(p * (1 - p) / runs))


def test_known_numbers_of_surviving_types():
    large = surviving_types(zipf(20_000), 20_000, [1, 2, 5, 10, 30])
    assert large == pytest.approx([5380, 3933, 2353, 1492, 662], abs=0.6)
    small = surviving_types(zipf(1000), 1000, [1, 5, 10, 50, 100])
    assert small == pytest.approx([333.7, 150.5, 96.3, 28.7, 16.1], abs=0.05)


def test_survival_of_types():
    assert surviving_types([0.5, 0.5, 0.0], 10, 0) == 2
    count = np.array([0.0, 0.1, 1.0, 30.0])
    alive = survival_probability(count, T)
    assert alive.shape == (41, 4)
    assert alive[:2].tolist() == [[0, 1, 1, 1], pytest.approx(-np.expm1(-count))]
    assert (np.diff(alive[1:, 1:], axis=0) < 0).all()
    assert (alive >= survival_lower_bound(count, T)).all()
    assert survival_probability(0.001, 5000) == pytest.approx(0.001 * 2 / 5000, rel=0.01)
    n = 400
    chain, law = two_types(n, 2 / n)
    for t in range(1, 30):  # the branching process against the exact chain
        assert 1 - law[0] == pytest.approx(survival_probability(2.0, t), rel=0.02)
        assert 1 - law[0] >= survival_lower_bound(2.0, t)
        law = law @ chain


def test_tail_types_die_and_tail_mass_stays():
    rng, p, runs, n = np.random.default_rng(8), zipf(200), 400, 200
    model = np.broadcast_to(p, (runs, 200))
    for t in range(1, 11):
        model = rng.multinomial(n, model) / n
        if t in (1, 10):
            agrees(model[:, 20:].sum(axis=1), expected_tail_mass(p, 20, t))
            alive, expected = (model > 0).sum(axis=1), float(surviving_types(p, n, t))
            error = alive.std() / math.sqrt(runs)
            assert abs(alive.mean() - expected) < 4 * error + 0.01 * expected
            assert abs(alive.mean() - surviving_types(p, n, t + 1)) > 4 * error + 0.01 * expected
    assert expected_tail_mass(zipf(1000), 100, 7) == pytest.approx(0.307, abs=5e-4)
    assert expected_tail_mass(zipf(1000)[::-1], 100, [7]) == pytest.approx(0.307, abs=5e-4)


# Sampling that bends the distribution.


def test_truncated_frequencies_of_two_types():
    rng, n, gamma, runs = np.random.default_rng(31), 12, 0.85, 40_000
    p = np.full(runs, 0.7)
    for t in range(1, 9):
        p = np.clip(rng.binomial(n, p) / n, 1 - gamma, gamma)
        if t in (1, 3, 8):
            mistakes = [diversity_replace(0.42, n, t), diversity_truncated([0.7, 0.3], n, 0.9, t)]
            agrees(2 * p * (1 - p), diversity_truncated([0.7, 0.3], n, gamma, t), *mistakes)
    plain = diversity_truncated([0.7, 0.3], n, 1.0, T)
    assert plain == pytest.approx(diversity_replace(0.42, n, T))
    assert (diversity_truncated([0.7, 0.3], n, 0.85, np.array([1, 10, 1000])) > 2 * 0.85 * 0.15).all()


def test_diversity_of_edited_documents():
    rng, truth, n = np.random.default_rng(32), np.array([0.45, 0.25, 0.2, 0.1]), 30
    flat = truth ** (1 / 2.0) / (truth ** (1 / 2.0)).sum()
    docs = rng.choice(4, (20_000, n), p=truth)
    edited = np.where(truth[docs] >= 0.25, rng.choice(4, docs.shape, p=flat), docs)
    counts = (edited[..., None] == np.arange(4)).sum(axis=1)
    expected, unedited = (diversity_edited(truth, n, threshold, 2.0, 1) for threshold in (0.25, 0.9))
    agrees(gini(counts / n), expected, unedited, diversity_edited(truth, n, 0.25, 0.5, 1))
    assert unedited == pytest.approx(gini(truth) * (1 - 1 / n))


def test_maps_compose_and_begin_at_the_truth():
    p = np.array([0.1, 0.4, 0.0, 0.3, 0.2])
    for law in (
        lambda p, t: temperature_map(p, 0.8, t),
        lambda p, t: top_k_map(p, 3, t),
        lambda p, t: top_p_map(p, 0.6, t),
    ):
        assert law(p, 0) == pytest.approx(p)
        path = law(p, [0, 1, 2, 3])
        assert path.shape == (4, 5)
        assert path.sum(axis=1) == pytest.approx(np.ones(4))
        assert law(law(p, 1), 2) == pytest.approx(path[3])
        assert (path[:, 2] == 0).all()


def test_temperature_multiplies_log_odds():
    p = temperature_map([0.6, 0.4], 0.9, 10)
    assert math.log(p[0] / p[1]) == pytest.approx(1.163, abs=5e-4)
    assert temperature_map([0.6, 0.4], 1.0, 50) == pytest.approx([0.6, 0.4])
    assert temperature_map([0.6, 0.4, 0], 2.0, 10_000) == pytest.approx([0.5, 0.5, 0])
    assert temperature_map([0.6, 0.4], 0.01, 10_000).tolist() == [1, 0]
    assert temperature_map([0.5, 0.5], 0.01, 10_000).tolist() == [0.5, 0.5]


def test_top_k_cuts_once_and_top_p_again():
    path = top_k_map(zipf(50), 7, [1, 2, 9])
    assert (path == path[0]).all()
    assert np.count_nonzero(path[0]) == 7
    assert top_k_map([0.2] * 5, 2, 1).tolist() == [0.5, 0.5, 0, 0, 0]
    support = np.count_nonzero(top_p_map(zipf(1000), 0.95, np.arange(6)), axis=1)
    assert support.tolist() == [1000, 688, 482, 344, 250, 185]
    assert np.count_nonzero(top_p_map(uniform(20), 0.95, 1)) == 19  # reached up to rounding
    assert top_p_map([0.3, 0.7], 1, 5) == pytest.approx([0.3, 0.7])
    assert top_p_map([0.3, 0.7], 0.5, 1).tolist() == [0, 1]


# Gaussians.


@pytest.mark.parametrize("unbiased", [True, False])
def test_gaussian_loops(unbiased):
    rng, n, runs, variance, bias = np.random.default_rng(9), 5, 30_000, 4.0, 0.9
    for sampling_bias in (1.0, bias):
        mean, sd = np.zeros(runs), np.full(runs, math.sqrt(variance))
        for t in range(1, 9):
            spread = sd * math.sqrt(sampling_bias)
            x = mean[:, None] + spread[:, None] * rng.normal(size=(runs, n))
            mean, sd = x.mean(axis=1), x.std(axis=1, ddof=int(unbiased))
            if t not in (1, 8):
                continue
            own, other = ((n, t, variance, flag, sampling_bias) for flag in (unbiased, not unbiased))
            agrees(sd**2, gaussian_variance(*own), gaussian_variance(*other))
            agrees(sd, gaussian_sd(*own), gaussian_sd(*other))
            agrees(2 * np.log(sd), gaussian_log_variance(*own), gaussian_log_variance(*other))
            agrees(mean**2, gaussian_mean_error(*own), *([gaussian_mean_error(*other)] if t == 8 else []))
            mistake = [gaussian_w2(*other)] if t == 8 else []
            agrees(mean**2 + (sd - math.sqrt(variance)) ** 2, gaussian_w2(*own), *mistake)
            logs = 2 * np.log(sd)
            squares = (logs - logs.mean()) ** 2
            agrees(squares, gaussian_log_variance_variance(n, t))
            if t == 1:  # later, the fourth power is too skewed for a standard error
                agrees((sd**2 - gaussian_variance(*own)) ** 2, gaussian_variance_variance(*own))
            for ratio in (0.3, 0.7, 1.0):
                exceeds = (sd > ratio * math.sqrt(variance)).mean()
                assert exceeds <= gaussian_sd_tail_bound(n, t, ratio)


def test_gaussian_laws():
    for n in (2, 3, 10, 1000):
        bound = gaussian_sd_tail_bound(n, T, 2.0)
        assert (gaussian_sd(n, T) / 2 <= bound).all()  # Markov's inequality, with c4 < exp(-1/(4n))
        assert bound == pytest.approx(math.exp(-1 / (4 * n)) ** T / 2)
        assert gaussian_variance(n, T, unbiased=False) == pytest.approx(diversity_replace(1, n, T))
        drift = squared_drift(3, diversity_replace(3, n, T))
        assert gaussian_mean_error(n, T, 3, unbiased=False) == pytest.approx(drift)
        assert gaussian_log_variance(n, T)[1:].max() < 0  # Jensen
        both = gaussian_variance_variance(n, T) + gaussian_variance(n, T) ** 2
        assert both == pytest.approx(both[1] ** T)  # a product of independent factors
        assert gaussian_typical_variance(n, T) == pytest.approx(np.exp(gaussian_log_variance(n, T)))
    small, switched = (1 - c4(n) for n in (1001, 1002))  # from gamma functions, from their series
    assert small / switched == pytest.approx(1001 / 1000, rel=1e-6)
    large = 10**6
    assert gaussian_w2(large, 20) == pytest.approx(gaussian_w2_first_order(large, 20), rel=1e-4)
    assert gaussian_log_variance(large, 5) == pytest.approx(-5 / large, rel=1e-3)
    assert gaussian_log_variance(large, 5, unbiased=False) == pytest.approx(-10 / large, rel=1e-3)
    for f in (gaussian_w2, gaussian_mean_error, gaussian_log_variance):
        assert f(10, 0) == pytest.approx(0, abs=1e-15)


def test_known_values_of_gaussians():
    assert gaussian_w2(100, 20) == pytest.approx(0.29850, abs=6e-6)
    assert gaussian_w2(10, 20) == pytest.approx(2.851, abs=5e-4)
    assert gaussian_w2_first_order(10, 20) == pytest.approx(3)
    assert gaussian_log_variance(100, [20, 100]) == pytest.approx([-0.2027, -1.01350], abs=6e-5)
    assert gaussian_log_variance(100, 100, unbiased=False) == pytest.approx(-2.01854, abs=6e-6)
    assert [float(gaussian_sd(n, 20)) for n in (100, 10)] == pytest.approx([0.95075, 0.57440], abs=6e-6)
    assert gaussian_variance(100, 100, unbiased=False) == pytest.approx(0.3660, abs=6e-5)
    assert gaussian_mean_error(100, 100, unbiased=False) == pytest.approx(0.6340, abs=6e-5)
    assert gaussian_variance(10, 5, sampling_bias=0.8) == pytest.approx(0.32768)
    sizes, t = (100, 500, 1000, 10_000), 1000
    means = [float(gaussian_variance(n, t, unbiased=False)) for n in sizes]
    assert means == pytest.approx([4.3e-5, 0.1351, 0.3677, 0.9048], rel=0.01)
    medians = [float(gaussian_typical_variance(n, t, unbiased=False)) for n in sizes]
    assert medians == pytest.approx([1.7e-9, 0.0182, 0.1351, 0.8187], rel=0.02)


# Linear regression.


def fit_rows(x, y):
    gram = np.einsum("rij,rik->rjk", x, x)
    return np.linalg.solve(gram, np.einsum("rij,ri->rj", x, y)[..., None])[..., 0]


def test_regression_on_the_same_rows():
    rng, d, rows, runs, noise = np.random.default_rng(10), 5, 20, 8000, 2.0
    x = rng.normal(size=(runs, rows, d))
    replace, accumulate, labels = np.zeros((runs, d)), np.zeros((runs, d)), np.zeros((runs, rows))
    for t in range(1, 6):
        replace = fit_rows(x, np.einsum("rij,rj->ri", x, replace) + math.sqrt(noise) * rng.normal(size=(runs, rows)))
        fresh = np.einsum("rij,rj->ri", x, accumulate) + math.sqrt(noise) * rng.normal(size=(runs, rows))
        labels += fresh  # least squares on all labellings of the same rows is least squares on their mean
        accumulate = fit_rows(x, labels / t)
        if t in (1, 5):
            expected = ols_error_replace(noise, d, rows, t)
            agrees((replace**2).sum(axis=1), expected, noise * d / rows * t, noise * d / (rows - d) * t)
            expected = ols_error_accumulate(noise, d, rows, t)
            agrees((accumulate**2).sum(axis=1), expected, noise * d / (rows - d) * expected / (noise * d / 14))


def test_known_regression_errors():
    base = 10 / 39
    assert base == pytest.approx(0.25641, abs=6e-6)
    t = [0, 1, 2, 5, 10]
    assert ols_error_replace(1, 10, 50, t) == pytest.approx([0, 0.2564, 0.5128, 1.2821, 2.5641], abs=6e-5)
    assert ols_error_accumulate(1, 10, 50, t) == pytest.approx([0, 0.2564, 0.3205, 0.3753, 0.3974], abs=6e-5)
    bound = base * math.pi**2 / 6
    assert bound == pytest.approx(0.4218, abs=6e-5)
    far = ols_error_accumulate(1, 10, 50, 10**6)
    assert bound * (1 - 1e-5) < far < bound
    direct = base * np.cumsum(1 / np.arange(1, 41) ** 2)
    assert ols_error_accumulate(1, 10, 50, T[1:]) == pytest.approx(direct)


def large_mixture(noise_variance, phi, synthetic, shift):
    """Return the error of least squares on a mixture in the limit of large problems, Dohmatob et al. 2410.04840."""
    odds = phi / (1 - phi)
    return noise_variance * odds + (synthetic**2 + (1 - synthetic) * synthetic * odds) * shift


def test_a_mixture_of_few_rows():
    """Two batches of 8 real and 4 synthetic rows for 5 numbers; the published form is for large problems."""
    rng, d, runs = np.random.default_rng(23), 5, 20_000
    x = rng.normal(size=(runs, 24, d))
    y = 0.5 * rng.normal(size=(runs, 24))
    y[:, :8] += x[:, :8, 0]
    mistakes = large_mixture(0.25, 5 / 24, 1 / 3, 1), ols_error_mixture(0.25, 1, d, 8, 4, 1)
    agrees((fit_rows(x, y) ** 2).sum(axis=1), ols_error_mixture(0.25, 1, d, 8, 4, 2), *mistakes)
    large = ols_error_mixture(0.25, 1, 5000, 25_000, 25_000, 1)
    assert large == pytest.approx(large_mixture(0.25, 0.1, 0.5, 1), rel=1e-3)
    assert ols_error_mixture(1, 3, 4, 10, 0, 2) == pytest.approx(ols_error_replace(1, 4, 20, 1))
    assert ols_error_mixture(1, 3, 4, 0, 10, 2) == pytest.approx(ols_error_replace(1, 4, 20, 1) + 3)
    assert np.isnan(ols_error_mixture(1, 3, 4, 0, 10, [0, 1])).tolist() == [True, False]


# Errors that add up.


def test_labels_of_new_rows_from_the_last_model_and_from_people():
    """20 rows for 4 numbers, of which the last model labels 15."""
    rng, d, rows, runs, noise = np.random.default_rng(33), 4, 20, 8000, 1.5
    w = np.zeros((runs, d))
    for t in range(1, 6):
        x = rng.normal(size=(runs, rows, d))
        labels = np.einsum("rij,rj->ri", x, w) * (np.arange(rows) < 15) + math.sqrt(noise) * rng.normal(
            size=(runs, rows)
        )
        w = fit_rows(x, labels)
        if t in (2, 5):
            agrees((w**2).sum(axis=1), ols_error_edited(noise, d, 5, 15, t), ols_error_replace(noise, d, rows, t))
    # As if a fit inherited only the mean, (3/4)^2 of the squared error.
    agrees((w**2).sum(axis=1), ols_error_edited(noise, d, 5, 15, 5), 0.4 * (1 - 0.75**10) / (1 - 0.75**2))
    assert ols_error_edited(noise, d, 0, 20, T) == pytest.approx(ols_error_replace(noise, d, rows, T))
    assert ols_error_edited(noise, d, 20, 0, T[1:]) == pytest.approx(np.full(40, noise * d / (rows - d - 1)))


def test_weights_beyond_the_last_but_one():
    rng, d, rows, runs = np.random.default_rng(34), 3, 12, 20_000
    last = w = np.zeros((runs, d))
    for _ in range(3):
        x, last = rng.normal(size=(runs, rows, d)), w
        w = fit_rows(x, np.einsum("rij,rj->ri", x, w) + rng.normal(size=(runs, rows)))
    back = last - 0.7 * (w - last)
    expected = ols_error_recovery(1, d, rows, 0.7, 3, 3)
    agrees((back**2).sum(axis=1), expected, ols_error_replace(1, d, rows, 3), ols_error_replace(1, d, rows, 2))
    assert ols_error_recovery(1, d, rows, -1, 3, T) == pytest.approx(ols_error_replace(1, d, rows, T))


def test_a_constant_bias_grows_without_end():
    drift = drift_growing_corpus_constant(0.01, 100, 5, np.arange(0, 51))
    exact = 0.3 + 0.01 * (1 + sum(5 / (100 + 5 * i) for i in range(1, 50)))
    assert 0.3 + drift[50] == pytest.approx(exact, abs=1e-12)
    share, size = 0.3, 100.0  # the corpus itself: every model errs by 0.01, and adds 5 documents
    for predicted in 0.3 + drift[1:]:
        assert share + 0.01 == pytest.approx(predicted, abs=1e-12)
        share, size = (size * share + 5 * (share + 0.01)) / (size + 5), size + 5
    assert drift[:2].tolist() == [0, 0.01]
    assert drift_growing_corpus_constant(0.01, 100, 0, [0, 1, 9]).tolist() == [0, 0.01, 0.01]
    far = 10 ** np.array([3, 6, 9])
    # What the approximation leaves out stays of the order of one bias, while both grow as the logarithm.
    gap = drift_growing_corpus_constant(1, 100, 5, far) - drift_growing_corpus_approximation(1, 100, 5, far)
    assert (np.abs(gap) < 1.1).all()
    steps = np.diff(drift_growing_corpus_constant(1, 100, 5, far))
    assert steps[1] == pytest.approx(math.log(1000), rel=1e-4)


# Heavy tails.


def test_unseen_mass_of_a_sample():
    rng, p, n, runs = np.random.default_rng(14), zipf(50, 1.5), 40, 4000
    seen = rng.multinomial(n, p, size=runs) > 0
    agrees((~seen) @ p, hutter_error_accumulate(p, n, 1), hutter_error_accumulate(p, n + 2, 1), ((1 - p) ** n).mean())
    cut = p[:10] / p[:10].sum()
    seen = rng.multinomial(n, cut, size=runs) > 0
    agrees((~seen) @ p[:10] + p[10:].sum(), hutter_error_accumulate(p, n, 1, cut=10), hutter_error_accumulate(p, n, 1))
    assert hutter_error_accumulate(p, 1, [0, 10**6], cut=10) == pytest.approx([1, p[10:].sum()])
    cut = hutter_error_accumulate(p, n, [[1]], cut=10)
    assert hutter_error_accumulate(p[::-1], n, [[1]], cut=10) == pytest.approx(cut)


def test_scaling_of_the_unseen_mass():
    p = zipf(1_000_000, 1.5)
    sizes = 10 ** np.arange(2, 6)
    slopes = np.diff(np.log10(hutter_error_accumulate(p, 1, sizes)))
    assert slopes == pytest.approx([-0.334, -0.337, -0.342], abs=6e-4)
    assert slopes == pytest.approx(np.full(3, -(1.5 - 1) / 1.5), abs=0.02)  # samples^(-(beta-1)/beta)
    plateaus = [float(hutter_error_accumulate(p, 10**7, 1, cut=k)) for k in (100, 1000, 10_000)]
    assert plateaus == pytest.approx([0.0757, 0.0235, 0.0069], rel=0.01)


def test_unseen_mass_of_a_mixture():
    rng, p, n, clean, runs = np.random.default_rng(24), zipf(50, 1.5), 40, 10, 4000
    cut = p[:10] / p[:10].sum()
    seen = rng.multinomial(3 * n, cut_to(cut, 50), size=runs) + rng.multinomial(3 * clean, p, size=runs) > 0
    agrees(
        (~seen) @ p,
        hutter_error_accumulate(p, n, 3, cut=10, clean=clean),
        hutter_error_accumulate(p, n, 3, cut=10),
        hutter_error_accumulate(p, n + clean, 3),
        hutter_error_accumulate(p, n, 2, cut=10, clean=clean),
    )
    assert hutter_error_accumulate(p, n, [0, 1, 7]) == pytest.approx([p @ (1 - p) ** (n * t) for t in (0, 1, 7)])
    assert hutter_error_accumulate(p, n, 2, cut=10) == pytest.approx(hutter_error_accumulate(p, 2 * n, 1, cut=10))
    assert hutter_error_accumulate([1.0], 3, [0, 1], clean=2) == pytest.approx([1, 0])


def cut_to(p, types):
    return np.concatenate([p, np.zeros(types - len(p))])


def test_unseen_mass_over_generations():
    p = zipf(200_000, 1.5)
    found = hutter_error_replace(p, 2000, [0, 1, 2, 5, 10])
    assert found == pytest.approx([0, 0.0746, 0.0852, 0.1088, 0.1323], rel=0.03)  # one run had 3 % of chance at t = 1
    assert found[1] == pytest.approx(hutter_error_accumulate(p, 2000, 1), rel=1e-3)
    assert found[4] < 10 * found[1]  # slower than linear
    rng, q, n, runs = np.random.default_rng(15), zipf(300, 1.5), 300, 1000
    model = np.broadcast_to(q, (runs, 300))
    for _ in range(5):
        model = rng.multinomial(n, model) / n
    dead = (model == 0) @ q
    expected = hutter_error_replace(q, n, 5)
    assert abs(dead.mean() - expected) < 4 * dead.std() / math.sqrt(runs) + 0.01 * expected


# A verifier, a stable mixture, and a model trained on its own text step by step.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "d", "n", "keep"), [(0.75, 3, 300, (0.8, 0.2)), (0.3, 1, 41, (1, 1)), (0.85, 4, 600, (0.8, 0.2))]
)
def test_accuracy_after_a_verifier(wrong, d, n, keep):
    """The mistakes: all documents kept, no verifier, one dimension more or fewer."""
    rng, runs, found = np.random.default_rng(25), 4000, []
    for _ in range(4):
        x = rng.normal(size=(runs // 4, n, d))
        correct = rng.random(x.shape[:2]) >= wrong
        kept = rng.random(x.shape[:2]) < np.where(correct, *keep)
        learnt = np.einsum("rn,rnd->rd", np.where(correct, 1, -1) * np.sign(x[..., 0]) * kept, x)
        found.append(1 - np.arctan2(np.linalg.norm(learnt[:, 1:], axis=1), learnt[:, 0]) / math.pi)
    mistakes = [verified_accuracy(wrong, d + 1, n, 1, *keep)]
    if keep != (1, 1):
        mistakes += [verified_accuracy(wrong, d, n, 1), verified_accuracy(wrong, d, 2 * n, 1, *keep)]
    agrees(np.concatenate(found), verified_accuracy(wrong, d, n, 1, *keep), *mistakes)


def test_the_accuracy_behind_a_verifier_has_a_transition():
    below, at, above = (float(verified_accuracy(p, 20, 20_000, 1, 0.8, 0.2)) for p in (0.75, 0.8, 0.85))
    assert below > 0.85 and at == pytest.approx(0.5) and above < 0.15
    assert below + above == pytest.approx(1, abs=0.02)  # nearly as many are kept, and wrong by as much
    endless = [float(verified_accuracy(p, 20, 10**12, 1, 0.8, 0.2)) for p in (0.79, 0.81)]
    assert endless == pytest.approx([1, 0], abs=1e-3)


def test_verified_at_every_generation():
    """Labels as often right as those kept last, verified again: odds in a geometric series, not another threshold."""
    rng, n, right = np.random.default_rng(26), 400_000, 0.15
    law = kept_correct_share(0.85, 0.8, 0.2, [0, 1, 2, 3])
    assert law[0] == pytest.approx(0.15) and law[1] < 0.5 < law[2]
    for t in (1, 2, 3):
        correct = rng.random(n) < right
        kept = correct[rng.random(n) < np.where(correct, 0.8, 0.2)]
        right = kept.mean()
        assert abs(right - law[t]) < 4 * 2 * math.sqrt(law[t] * (1 - law[t]) / kept.size)
    assert kept_correct_share(0.3, 1, 0, [1, 5000]) == pytest.approx(1)
    assert kept_correct_share(0.9, 0.01, 0.002, 5000) == pytest.approx(1), "powers that are no number by themselves"


def test_a_verifier_has_a_threshold():
    for keep_correct, keep_wrong in ((0.8, 0.2), (0.5, 0.5), (0.3, 0.9)):
        threshold = keep_correct / (keep_correct + keep_wrong)
        assert kept_correct_share(threshold, keep_correct, keep_wrong) == pytest.approx(0.5)
    rng, d, n = np.random.default_rng(16), 20, 20_000
    accuracy = []
    for wrong in (0.75, 0.8, 0.85):
        direction = np.eye(d)[0]
        x = rng.normal(size=(n, d))
        correct = rng.random(n) >= wrong
        kept = rng.random(n) < np.where(correct, 0.8, 0.2)
        share = kept_correct_share(wrong, 0.8, 0.2)
        error = math.sqrt(share * (1 - share) / kept.sum())
        assert abs(correct[kept].mean() - share) < 4 * error
        label = np.sign(x @ direction) * np.where(correct, 1, -1)
        learnt = label[kept] @ x[kept]
        accuracy.append(1 - math.acos(learnt @ direction / np.linalg.norm(learnt)) / math.pi)
    assert accuracy[0] > 0.85
    assert 0.3 <= accuracy[1] <= 0.7
    assert accuracy[2] < 0.15


def test_own_samples_give_no_direction_unless_truncated():
    rng, p, tokens, runs = np.random.default_rng(18), zipf(30), 20, 5000
    gradient = rng.multinomial(tokens, p, size=runs) / tokens - p
    size = self_training_gradient(p, tokens)
    agrees((gradient**2).sum(axis=1), size**2, 1 / tokens)
    assert np.linalg.norm(gradient.mean(axis=0)) < 2 * size / math.sqrt(runs)
    assert self_training_gradient(p, 10**6) == pytest.approx(9.48e-4, rel=1e-3)
    drift = self_training_drift(p, 10)
    cut = np.where(np.arange(30) < 10, p, 0)
    gradient = rng.multinomial(tokens, cut / cut.sum(), size=runs) / tokens - p
    agrees(gradient[:, :12], drift[:12], 0)
    assert drift.sum() == pytest.approx(0)


def steps_to_half(rate, k, tokens=20, runs=200, seed=19):
    """Return the median number of plain gradient steps that a softmax unigram takes to half its entropy."""
    rng, p = np.random.default_rng(seed), zipf(30)
    logits = np.repeat(np.log(p)[None], runs, axis=0)
    half = -(p @ np.log(p)) / 2
    done = np.zeros(runs)
    for step in range(1, 4000):
        q = np.exp(logits - logits.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(axis=1)
        done[(entropy < half) & (done == 0)] = step
        if (done > 0).mean() > 0.5:
            return float(np.median(np.where(done > 0, done, np.inf)))
        sampled = q
        if k < 30:
            least = np.partition(q, -k, axis=1)[:, -k, None]
            sampled = np.where(q >= least, q, 0)
            sampled = sampled / sampled.sum(axis=1, keepdims=True)
        logits = logits + rate * (rng.multinomial(tokens, sampled) / tokens - q)
    raise AssertionError("did not collapse")


def test_collapse_slows_with_the_square_of_the_rate_or_with_the_rate():
    assert halving_time_ratio(2) == 0.25
    assert halving_time_ratio(2, 4) == 1
    assert halving_time_ratio(2, 4, truncated=True) == 0.5
    free = steps_to_half(2.0, 30) / steps_to_half(1.0, 30)
    assert 1 / 5.5 <= free <= 1 / 3
    cut = steps_to_half(2.0, 10) / steps_to_half(1.0, 10)
    assert 1 / 2.4 <= cut <= 1 / 1.7


# What goes in and comes out.

P = [0.5, 0.3, 0.2]
OF_TIME = {
    "diversity_replace": (0.5, 10),
    "diversity_merged": (0.5, 10, 3),
    "diversity_accumulate": (0.5, 10),
    "diversity_random_mixture": (0.5, 10),
    "diversity_accumulate_subsample": (0.5, 10),
    "pool_diversity_accumulate_subsample": (0.5, 10),
    "simpson_partially_synthetic": (0.5, 10, 5),
    "simpson_partially_synthetic_recursion": (0.5, 10, 5),
    "distance_partially_synthetic": (0.5, 10, 5),
    "l1_bound_partially_synthetic": (0.5, 3, 10, 5),
    "distance_fresh_data": (0.5, 10, 5),
    "squared_drift_accumulate": (0.5, 10),
    "squared_drift_accumulate_subsample": (0.5, 10),
    "collapse_probability": (P, 10),
    "surviving_types_exact": (P, 10),
    "collapse_probability_lower_bound": (P, 10),
    "collapse_probability_upper_bound": (P, 10),
    "survival_probability": (1.5,),
    "surviving_types": (P, 10),
    "survival_lower_bound": (1.5,),
    "expected_tail_mass": (P, 1),
    "temperature_map": (P, 0.5),
    "top_k_map": (P, 2),
    "top_p_map": (P, 0.8),
    "gaussian_variance": (10,),
    "gaussian_variance_variance": (10,),
    "gaussian_sd": (10,),
    "gaussian_log_variance": (10,),
    "gaussian_log_variance_variance": (10,),
    "gaussian_typical_variance": (10,),
    "gaussian_mean_error": (10,),
    "gaussian_w2": (10,),
    "gaussian_w2_first_order": (10,),
    "kde_variance_replace": (10, 0.5),
    "kde_variance_accumulate": (10, 0.5),
    "kde_variance_accumulate_subsample": (10, 0.5),
    "network_mean_error": ([[5, 5], [0, 5]], [0, 5], 0),
    "network_mean_error_limit": ([[5, 5], [0, 5]], [0, 5], 0),
    "network_variance": ([[5, 5], [0, 5]], [0, 5], 0),
    "network_diversity": (0.5, [[5, 5], [0, 5]], [0, 5], 0),
    "network_regression_error": (1, 3, [[5, 5], [0, 5]], [0, 5], 0),
    "ols_error_replace": (1, 3, 10),
    "ols_error_accumulate": (1, 3, 10),
    "ols_error_edited": (1, 3, 10, 5),
    "ols_error_recovery": (1, 3, 10, 0.5, 4),
    "diversity_truncated": ([0.6, 0.4], 10, 0.9),
    "diversity_edited": (P, 10, 0.25, 1.5),
    "kept_correct_share": (0.6, 0.8, 0.2),
    "drift_growing_corpus_constant": (0.1, 100, 5),
    "drift_growing_corpus_approximation": (0.1, 100, 5),
    "largest_share_growing_corpus": (P, 100, 5, 0.9),
    "hutter_error_replace": (P, 10),
    "hutter_error_accumulate": (P, 10),
    "curated_diversity": (P, [0.0, 0.5, 1.0]),
    "curated_first_type": (P, [0.0, 0.5, 1.0]),
    "curated_reward": (P, [0.0, 0.5, 1.0]),
    "curated_mean_error": (0.5, 10),
    "weighted_mean_error": (0.5, 10, 5),
    "weighted_fit_mean_error": (0.5, 10, 5),
    "weighted_fit_variance": (0.5, 10, 5),
    "adoption_share": (3.5, 2.0, 0.75, 1.5, "ai"),
    "adoption_welfare": (3.5, 2.0, 0.75, 1.5),
    "replicator_share": (3.5, 2.0, 0.75, 1.5, 1.0, 0.2, 0.5, "ai"),
}


@pytest.mark.parametrize("name", OF_TIME)
def test_generations_of_any_shape(name):
    law, arguments = laws()[name].function, OF_TIME[name]
    generations = np.array([[1, 2, 0], [40, 5, 1]])
    found = law(*arguments, generations)
    types = (3,) if name.endswith("_map") else ()
    assert found.dtype == np.float64
    assert found.shape == (2, 3, *types)
    assert found[1, 0] == pytest.approx(law(*arguments, 40))
    assert isinstance(law(*arguments, 1), np.ndarray)
    assert law(*arguments, 1).shape == types
    assert law(*arguments, np.array([], int)).shape == (0, *types)
    for wrong in (-1, [1, -3], 1.5, [0.5], True):
        with pytest.raises(DataError, match=r"whole numbers.*\.$"):
            law(*arguments, wrong)


def test_every_law_is_checked_and_every_function_of_time_is_a_law():
    # The last arguments of two are others, and the third has no value at generation 0.
    assert set(laws()) - set(OF_TIME) == {"gaussian_sd_tail_bound", "verified_accuracy", "ols_error_mixture"}
    modules = (adoption, curation, diversity, extinction, gaussian, learning, networks, regression, weighting)
    for module in modules:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == module.__name__:
                assert (name in laws()) == ("t" in inspect.signature(function).parameters), name


def test_a_law_says_where_its_formula_comes_from():
    assert {law.source for law in laws().values()} == {"paper", "derived", "digest"}
    for name, law in laws().items():
        text = " ".join(law.function.__doc__.split()).lower()
        if law.source == "derived":
            assert "derived for this project" in text, name
        else:
            assert ("unread" in text) == (law.source == "digest"), name
    listed = {entry["name"]: entry for entry in json.loads(listing("laws", True))}
    assert {name: entry["source"] for name, entry in listed.items()} == {n: law.source for n, law in laws().items()}
    told = {name for name, entry in listed.items() if "taken from a summary" in entry["about"]}
    assert told == {name for name, law in laws().items() if law.source == "digest"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity_replace(0.5, 0, 1), "n must be a finite number of at least 1, not 0"),
        (lambda: diversity_replace(-0.5, 3, 1), "h0 must be"),
        (lambda: diversity_replace(math.nan, 3, 1), "h0 must be"),
        (lambda: diversity_accumulate(0.5, math.inf, 1), "n must be"),
        (lambda: diversity_accumulate_subsample(0.5, 10, 1, 9), "published must be"),
        (lambda: squared_drift(0.5, 0.6), "between 0 and h0"),
        (lambda: simpson_partially_synthetic(1.5, 5, 5, 1), "s0 must be between 0 and 1"),
        (lambda: simpson_partially_synthetic_recursion(0.5, 0, 5, 1), "n_real"),
        (lambda: distance_partially_synthetic(0.5, 5, 5, -1), "at least 0, not -1"),
        (lambda: l1_bound_partially_synthetic(0.5, 0, 5, 5, 1), "support"),
        (lambda: l1_ceiling_partially_synthetic(3, 0, 5), "n_real"),
        (lambda: effective_sample_size(0, 5), "n_real"),
        (lambda: distance_fresh_data(0.5, 5, 5, 1, start=-1), "start"),
        (lambda: gini_simpson([0.5, 0.4]), "add up to 1, not 0.9"),
        (lambda: gini_simpson([0.5, 0.5 + 1e-8]), "add up to 1"),
        (lambda: gini_simpson([1.5, -0.5]), "negative"),
        (lambda: gini_simpson([math.nan, 1]), "NaN"),
        (lambda: gini_simpson([[0.5, 0.5]]), "vector"),
        (lambda: gini_simpson([]), "vector"),
        (lambda: time_to_collapse([1.0], 0), "n must be"),
        (lambda: time_to_collapse_bounds([0.5], 5), "add up"),
        (lambda: time_to_collapse_exact(P, 5000), "n must be at most 4000"),
        (lambda: collapse_probability(P, 0, 1), "n must be"),
        (lambda: collapse_probability_lower_bound([0.5, 0.4], 5, 1), "add up"),
        (lambda: collapse_probability_upper_bound([0.5, 0.5], 0, 1), "n must be"),
        (lambda: survival_probability(-1, 1), "expected_count"),
        (lambda: survival_lower_bound(-1, 1), "expected_count"),
        (lambda: expected_tail_mass(P, -1, 1), "k must hold"),
        (lambda: temperature_map(P, 0, 1), "temperature must be a finite number above 0"),
        (lambda: top_k_map(P, 0, 1), "k must hold"),
        (lambda: top_p_map(P, 0, 1), "top_p"),
        (lambda: top_p_map(P, 1.1, 1), "top_p"),
        (lambda: c4(1), "n must be a finite number of at least 2"),
        (lambda: gaussian_variance(10, 1, variance=-1), "variance"),
        (lambda: gaussian_sd(1, 1), "n must be"),
        (lambda: gaussian_log_variance(10, 1, variance=0), "variance must be a finite number above 0"),
        (lambda: gaussian_log_variance_variance(1, 1), "n must be"),
        (lambda: gaussian_mean_error(10, 1, sampling_bias=0), "sampling_bias"),
        (lambda: gaussian_w2_first_order(10, 1, variance=-1), "variance"),
        (lambda: gaussian_sd_tail_bound(10, 1, 0), "ratio"),
        (lambda: kde_variance_replace(10, 0, 1), "bandwidth"),
        (lambda: kde_variance_accumulate(0, 0.5, 1), "n must be"),
        (lambda: ols_error_replace(1, 10, 11, 1), "rows must be at least dimension"),
        (lambda: drift_growing_corpus_constant(1, 1, -1, 1), "n_synthetic"),
        (lambda: kept_correct_share(1, 0.5, 0), "keeps nothing"),
        (lambda: verified_accuracy(0.5, 3, 1, 1, 0.5, 0.5), "at least one document is kept"),
        (lambda: verified_accuracy(0.5, 0, 10, 1), "dimension"),
        (lambda: ols_error_mixture(1, 1, 10, 6, 5, [1, 2]), "add up to at least dimension"),
        (lambda: ols_error_mixture(1, 1, 10, -6, 50, 1), "n_real"),
        (lambda: ols_error_edited(1, 10, 6, 5, 1), "rows must be at least"),
        (lambda: ols_error_recovery(1, 10, 20, -2, 3, 1), "recovery"),
        (lambda: diversity_truncated(P, 10, 0.9, 1), "two types"),
        (lambda: diversity_truncated([0.5, 0.5], 10, 0.4, 1), "gamma must be"),
        (lambda: hutter_error_accumulate(P, 1, 1, cut=0), "cut must hold"),
        (lambda: hutter_error_accumulate(P, -1, 1), "n must be"),
        (lambda: self_training_gradient(P, 0), "tokens"),
        (lambda: halving_time_ratio(0), "rate_ratio"),
        (lambda: curated_diversity(P, [0.0, 1.0], 1), "rewards must be 3 finite numbers"),
        (lambda: curated_diversity(P, [0.0, 1.0, 601.0], 1), "rewards must differ by at most 600"),
        (lambda: curated_diversity(P, [0.0, 1.0, 2.0], 1, drafts=0), "drafts must be"),
        (lambda: curated_diversity(P, [0.0, 1.0, 2.0], 1, drafts=2, kept=0.5), "exclude each other"),
        (lambda: curated_diversity(P, [0.0, 1.0, 2.0], 1, shares=[0.5, 0.5]), "each of the 1 lists of rewards"),
        (lambda: curated_diversity(P, [0.0, 1.0, 2.0], 1, curated_per_real=0), "curated_per_real must be"),
        (lambda: weighted_mean_error(0, 5, 5, 1), "real_weight must be above 0"),
        (lambda: weighted_mean_error(0.5, 5, 0, 1), "n_synthetic must be"),
        (lambda: weighted_fit_variance(1, 1, 5, 1), "at least two samples"),
    ],
)
def test_arguments_outside_their_domain(call, message):
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert str(caught.value).endswith(".")


def test_a_biased_sampler_drifts_for_every_amount_and_an_unbiased_one_for_none():
    t = np.arange(0, 400)
    for amount in (0.1, 1, 10):
        cool = largest_share_growing_corpus([0.5, 0.3, 0.2], 100, amount, 0.9, t)
        assert (np.diff(cool[1:]) > 0).all() and cool[0] == cool[1] == 0.5
        assert largest_share_growing_corpus([0.5, 0.3, 0.2], 100, amount, 1.0, t) == pytest.approx(0.5, abs=1e-12)
    # As little as changes the bias itself by nothing: the constant-bias sum, without the last model's own error.
    bias = temperature_map([0.5, 0.3, 0.2], 0.9, 1)[0] - 0.5
    little = largest_share_growing_corpus([0.5, 0.3, 0.2], 1e6, 1.0, 0.9, [101])[0] - 0.5
    assert little == pytest.approx(bias * np.log1p(100 / 1e6), rel=1e-3)
    # Replacing (all of the corpus is new): the temperature map.
    replaced = largest_share_growing_corpus([0.5, 0.3, 0.2], 1e-9, 1e9, 0.9, [2])
    assert replaced == pytest.approx(temperature_map([0.5, 0.3, 0.2], 0.9, 1)[:1])
