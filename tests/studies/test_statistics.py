"""The statistics of studies against SciPy, against closed forms, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import coverage
from ecosystem.errors import DataError
from ecosystem.metrics.intervals import (
    hedges_factor,
    independent_size,
    mean_interval,
    paired_difference,
    paired_size,
    welch_interval,
)
from ecosystem.studies.statistics import MOST_SAVED, bootstrap_interval, effects, holm, ranking

RNG = np.random.default_rng(7)


def test_effects_agree_with_the_tests_that_scipy_knows() -> None:
    base, arm = RNG.normal(5, 1, 8), RNG.normal(5.4, 1.3, 8)
    [effect] = effects("m", base, {"a": arm})
    paired, unpaired = stats.ttest_rel(arm, base), stats.ttest_ind(arm, base, equal_var=False)
    assert effect.p == pytest.approx(paired.pvalue)
    assert (effect.paired.low, effect.paired.high) == pytest.approx(tuple(paired.confidence_interval()))
    assert (effect.unpaired.low, effect.unpaired.high) == pytest.approx(tuple(unpaired.confidence_interval()))
    assert effect.correlation == pytest.approx(np.corrcoef(arm, base)[0, 1])
    assert effect.base_mean == pytest.approx(base.mean()) and effect.seeds == 8


def test_intervals_by_hand() -> None:
    """Student's t at 97.5 %: 4.302653 with 2 degrees of freedom (tables)."""
    a, b = np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0])
    half = 4.302653 * math.sqrt(7 / 3 / 3)
    for found, mean in ((mean_interval(a), 7 / 3), (welch_interval(a, b), 4 / 3)):  # b varies as little as can be
        assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half), rel=1e-6)
    assert mean_interval(np.full(3, 0.1)).half == pytest.approx(0.0, abs=1e-15)
    assert welch_interval(a, np.full(3, 0.1)).half == pytest.approx(half, rel=1e-6)
    [effect] = effects("m", a, {"nearly the same everywhere": a + np.array([0.5, 0.5, 0.5 + 1e-15])})
    assert effect.p < 1e-12 and effect.paired.significant


def test_pairing_drops_what_seeds_share_and_says_how_many_runs_it_saved() -> None:
    """With a shared part of standard deviation 10 and private ones of 1, unpaired needs 101 times the seeds."""
    shared = RNG.normal(0, 10, 400)
    base, arm = shared + RNG.normal(0, 1, 400), shared + RNG.normal(0.5, 1, 400)
    [effect] = effects("m", base, {"a": arm})
    assert effect.paired.significant and not effect.unpaired.significant
    assert effect.narrower == pytest.approx(math.sqrt(101), rel=0.15)  # both variances have errors of 7 %
    assert effect.saved == pytest.approx(2 * 400 * 100, rel=0.25)
    assert effect.paired.low < 0.5 < effect.paired.high


def test_values_that_are_missing_or_alone_are_refused() -> None:
    with pytest.raises(DataError, match="at least 2"):
        effects("m", np.array([1.0]), {"a": np.array([2.0])})
    with pytest.raises(DataError, match="not a finite number"):
        effects("m", np.array([1.0, np.nan]), {"a": np.array([2.0, 3.0])})


def test_arms_that_differ_by_nothing_or_by_the_same_at_every_seed() -> None:
    base = np.array([1.0, 2.0, 4.0])
    same, shifted = effects("m", base, {"same": base, "shifted": base + 0.5})
    assert same.p == 1 and not same.paired.significant and same.narrower == math.inf
    assert shifted.p == 0 and shifted.paired.significant and shifted.saved is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.slow
def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    """Of 600 studies of 5 arms without effect a share of 5 % may find one; 4 standard errors of that are 3.6 points."""
    false = 0
    for _ in range(600):
        shared = RNG.normal(0, 1, 6)
        arms = {str(i): shared + RNG.normal(0, 1, 6) for i in range(5)}
        false += any(e.holm < 0.05 for e in effects("m", shared + RNG.normal(0, 1, 6), arms))
    assert false / 600 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("constant", [0.0, 0.1, 2.0])
def test_differences_that_are_equal_up_to_rounding_are_equal(constant: float) -> None:
    """Variances 1 and 3 in units of the truth: one constant, computed with other errors at every seed."""
    base = RNG.normal(1, 0.5, 8)
    arm = base + constant + 4e-16 * RNG.integers(-2, 3, 8)
    [effect] = effects("m", base, {"a": arm})
    assert effect.paired.half == 0 and effect.paired.mean == pytest.approx(constant, abs=1e-14)
    assert effect.p == (0 if constant else 1) and effect.paired.significant == (constant > 0)
    assert effect.saved is None
    assert (len(ranking({"base": base, "a": arm}, lower_is_better=True)) == 1) == (constant == 0)
    assert bootstrap_interval(paired_difference(arm, base)) == effect.paired


def test_small_differences_between_small_values_are_not_rounding() -> None:
    base = 1e-20 * (1 + RNG.random(8))
    [effect] = effects("m", base, {"a": base * (1.5 + 0.01 * RNG.random(8))})
    assert effect.paired.significant and effect.paired.mean == pytest.approx(0.75e-20, rel=0.3)
    assert effect.saved is not None and effect.saved < 1e6


def test_runs_saved_stay_within_a_whole_number() -> None:
    base = RNG.normal(0, 1, 8)
    [effect] = effects("m", base, {"a": base + 1 + 1e-11 * RNG.normal(0, 1, 8)})
    assert effect.saved == MOST_SAVED and effect.paired.half > 0


def test_a_constant_of_rounding_size_has_no_correlation() -> None:
    base = 3 + 4e-16 * np.array([1, 0, -1, 1, 0, 1])
    [effect] = effects("m", base, {"a": RNG.normal(4, 1, 6)})
    assert math.isnan(effect.correlation)


def test_the_bootstrap_is_left_out_where_it_has_no_finite_interval() -> None:
    assert bootstrap_interval(RNG.normal(0, 1, 4)) is None
    assert bootstrap_interval(np.array([0.0, 0, 0, 0, 0, 0, 1])) is None  # every third resample has no spread
    assert bootstrap_interval(RNG.normal(0, 1, 5)) is not None


def test_the_bootstrap_follows_the_skewness() -> None:
    """The mean of a sample skewed to the right is more often far below the truth than far above it."""
    found = bootstrap_interval(RNG.exponential(size=30))
    assert found is not None and found.high - found.mean > 1.1 * (found.mean - found.low)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "distribution", "n", "least"),
    [
        *(("Student's", "normal", n, 0.95) for n in (2, 5, 12)),
        *(("Welch's", "normal", n, 0.95) for n in (3, 12)),
        *(("bootstrap", name, n, 0.94) for name in ("normal", "exponential") for n in (5, 12, 30)),
        ("bootstrap", "Student's t, 3 degrees", 12, 0.92),
    ],
)
def test_intervals_cover_the_mean_as_often_as_they_say(method: str, distribution: str, n: int, least: float) -> None:
    """Over 500 samples, within 4 standard errors of the level: the bootstrap's falls a little short of it."""
    found = coverage(method, distribution, n, samples=500, seed=3)
    error = math.sqrt(least * (1 - least) / 500)
    assert found > least - 4 * error
    assert found < 0.975 + 4 * math.sqrt(0.975 * 0.025 / 500)


@pytest.mark.slow
def test_the_bootstrap_covers_skewed_differences_more_often_than_student() -> None:
    """Measured: 93.8 and 88.1 %; the difference of two shares of 500 has a standard error of 1.8 points."""
    shares = [coverage(method, "exponential", 5, samples=500, seed=4) for method in ("bootstrap", "Student's")]
    assert shares[0] - shares[1] > 0


def test_the_interval_of_equal_samples_has_no_width() -> None:
    found = welch_interval(np.ones(3), np.ones(4))
    assert (found.mean, found.half, found.significant) == (0.0, 0.0, False)


def test_a_ranking_shows_ties_as_ties() -> None:
    noise = RNG.normal(0, 0.1, (4, 20))
    values = {"worst": 3 + noise[0], "best": 1 + noise[1], "tied": 1.01 + noise[2], "middle": 2 + noise[3]}
    assert ranking(values, lower_is_better=True) == [
        sorted(["best", "tied"], key=lambda name: values[name].mean()),
        ["middle"],
        ["worst"],
    ]
    assert ranking(values, lower_is_better=False)[0] == ["worst"]


def test_effect_sizes_by_hand_and_without_bias() -> None:
    """Hedges' factor is 0.5642 with 2 degrees of freedom and 0.9490 with 15 (tables); 1 - 3 / (4 f - 1) is near it."""
    assert [hedges_factor(f) for f in (2, 15)] == pytest.approx([0.5642, 0.9490], abs=1e-4)
    assert hedges_factor(200) == pytest.approx(1 - 3 / 799, abs=1e-6) and hedges_factor(1) == 0
    x, y = np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 4.0])
    g = paired_size(x)
    d = 7 / 3 / math.sqrt(7 / 3)
    half = 1.959964 * math.sqrt(1 / 3 + d**2 / 4)
    assert (g.mean, g.low, g.high) == pytest.approx((0.56419 * d, d - half, d + half), rel=1e-4)
    assert independent_size(x, y).mean == pytest.approx(
        0.79788 * (7 / 3 - 1.5) / math.sqrt((7 / 3 + 4.75) / 2), rel=1e-4
    )
    assert paired_size(x[:2]) is None and paired_size(np.ones(5)) is None and independent_size(x, y[:2]) is None
    true, draws = 1.0, 4000
    samples = np.random.default_rng(3).normal(true, 1, (draws, 4))
    found = [paired_size(sample) for sample in samples]
    means = np.array([size.mean for size in found])
    assert abs(means.mean() - true) < 4 * means.std() / math.sqrt(draws)
    covered = np.mean([size.low < true < size.high for size in found])
    assert covered > 0.95 - 4 * math.sqrt(0.05 * 0.95 / draws)
    pairs = [independent_size(a + true, b) for a, b in RNG.standard_normal((draws, 2, 4))]
    means = np.array([size.mean for size in pairs])
    assert abs(means.mean() - true) < 4 * means.std() / math.sqrt(draws)
    assert np.mean([size.low < true < size.high for size in pairs]) > 0.95 - 4 * math.sqrt(0.05 * 0.95 / draws)
