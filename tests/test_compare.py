"""The statistics of studies against SciPy, against closed forms, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ecosystem.errors import DataError, EcosystemError
from ecosystem.studies.design import Design, Range
from ecosystem.studies.frontier import search
from ecosystem.studies.sensitivity import indices, sample
from ecosystem.studies.statistics import bootstrap_interval, effects, holm, mean_interval, ranking, welch_interval

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
    assert effect.p < 1e-12 and effect.paired.settled


def test_pairing_drops_what_seeds_share_and_says_how_many_runs_it_saved() -> None:
    """With a shared part of standard deviation 10 and private ones of 1, unpaired needs 101 times the seeds."""
    shared = RNG.normal(0, 10, 400)
    base, arm = shared + RNG.normal(0, 1, 400), shared + RNG.normal(0.5, 1, 400)
    [effect] = effects("m", base, {"a": arm})
    assert effect.paired.settled and not effect.unpaired.settled
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
    assert same.p == 1 and not same.paired.settled and same.narrower == math.inf
    assert shifted.p == 0 and shifted.paired.settled and shifted.saved == 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    """Of 600 studies of 5 arms without effect a share of 5 % may find one; 4 standard errors of that are 3.6 points."""
    false = 0
    for _ in range(600):
        shared = RNG.normal(0, 1, 6)
        arms = {str(i): shared + RNG.normal(0, 1, 6) for i in range(5)}
        false += any(e.holm < 0.05 for e in effects("m", shared + RNG.normal(0, 1, 6), arms))
    assert false / 600 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
def test_intervals_cover_the_mean_as_often_as_they_say(interval) -> None:
    """Over 500 samples of 12 normals; a bootstrap of so few covers a little less, and is given 3 points for it."""
    covered = 0
    for _ in range(500):
        found = interval(RNG.normal(3, 2, 12))
        covered += found.low <= 3 <= found.high
    error = math.sqrt(0.95 * 0.05 / 500)
    assert 0.95 - 0.03 * (interval is bootstrap_interval) - 4 * error < covered / 500 < 0.95 + 4 * error


def test_the_interval_of_equal_samples_has_no_width() -> None:
    found = welch_interval(np.ones(3), np.ones(4))
    assert (found.mean, found.half, found.settled) == (0.0, 0.0, False)


def test_a_ranking_shows_ties_as_ties() -> None:
    noise = RNG.normal(0, 0.1, (4, 20))
    values = {"worst": 3 + noise[0], "best": 1 + noise[1], "tied": 1.01 + noise[2], "middle": 2 + noise[3]}
    assert ranking(values, lower_is_better=True) == [
        sorted(["best", "tied"], key=lambda name: values[name].mean()),
        ["middle"],
        ["worst"],
    ]
    assert ranking(values, lower_is_better=False)[0] == ["worst"]


# Thresholds


def noisy(truth, noise: float, seeds: int, rng):
    """A lever whose measure is ``truth`` plus luck that is the seed's at every value, and a little of its own."""
    shared = rng.normal(0, noise, seeds)

    def evaluate(values):
        own = [np.random.default_rng(int(abs(x) * 1e6)).normal(0, noise / 10, seeds) for x in values]
        return [truth(x) + shared + o for x, o in zip(values, own, strict=True)]

    return evaluate


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_a_threshold_covers_it_as_often_as_it_says(sign) -> None:
    """Of 300 searches, 95 % less 4 standard errors (5 points); the resolution only widens the interval."""
    span, covered, values = Range(low=0, high=10), 0, []
    for i in range(300):
        evaluate = noisy(lambda x: sign * x**2, 3.0, 6, np.random.default_rng(i))
        found = search(evaluate, span, sign * 25.0, precision=0.001)
        covered += found.low <= 5 <= found.high
        values.append(found.value)
        assert found.rising == (sign > 0) and found.low <= found.value <= found.high
    assert covered / 300 > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)
    assert covered < 300  # an interval that never misses is too wide
    assert np.mean(values) == pytest.approx(5, abs=4 * np.std(values) / math.sqrt(300) + 0.05)


def test_a_search_tries_no_value_twice_and_few_of_them() -> None:
    calls: list[float] = []

    def evaluate(values):
        calls.extend(values)
        return [np.array([x - 0.3, x - 0.31, x - 0.29]) for x in values]

    found = search(evaluate, Range(low=0, high=1), 0.0, precision=0.01)
    assert len(calls) == len(set(calls)) == len(found.tried) < 25
    assert found.value == pytest.approx(0.3, abs=0.01)


def test_a_search_on_whole_numbers_and_in_the_logarithm_ends() -> None:
    span = Range(low=1, high=1000, scale="log", whole=True)
    found = search(lambda values: [np.array([x, x, x + 1e-9]) for x in values], span, 40.5, precision=1e-6)
    assert found.value in (40, 41) and found.low in (40, 41) and found.high in (40, 41)


def test_a_limit_that_is_never_crossed_gives_no_threshold() -> None:
    found = search(lambda values: [np.array([x, x + 0.1]) for x in values], Range(low=0, high=1), 7.0)
    assert found.value is None and found.low == found.high == 1
    found = search(lambda values: [np.array([x, x + 0.1]) for x in values], Range(low=0, high=1), -7.0)
    assert found.value is None and found.low == found.high == 0


def test_what_lies_on_one_side_at_both_ends_is_not_searched_between_them() -> None:
    """Also where one end cannot be told from the limit: the interval is then the whole range."""
    for way, limit in ((1, 1.1), (1, -0.1), (-1, 0.1), (-1, -1.1)):

        def evaluate(values, way=way):
            return [np.array([way * x - 0.02, way * x + 0.02]) for x in values]

        found = search(evaluate, Range(low=0, high=1), limit)
        assert found.value is None and (found.low, found.high) == (0, 1) and list(found.tried) == [0, 1]


def test_a_run_without_a_value_stops_the_search() -> None:
    with pytest.raises(EcosystemError, match="1 of 2 runs"):
        search(lambda values: [np.array([1.0, np.nan])], Range(low=0, high=1), 0.5)


# Sensitivity


def test_sobol_indices_of_the_ishigami_function() -> None:
    """Closed forms with a = 7, b = 0.1: S1 = .3139, .4424, 0; ST = .5576, .4424, .2437 (Ishigami & Homma 1990)."""
    design = Design(method="sensitivity", points=1024)
    x = (2 * np.array(sample(3, design)) - 1) * np.pi
    y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    found = indices(["a", "b", "c"], design, y)
    for index, main, total in zip(found, (0.3139, 0.4424, 0.0), (0.5576, 0.4424, 0.2437), strict=True):
        assert abs(index.main - main) < 2 * index.main_half and abs(index.total - total) < 2 * index.total_half
        assert index.main_half < 0.15


def test_morris_screening_tells_the_axis_that_does_nothing() -> None:
    design = Design(method="morris", points=40)
    x = np.array(sample(3, design))
    linear, product, none = indices(["linear", "product", "none"], design, 2 * x[:, 0] + x[:, 0] * x[:, 1])
    assert none.main == 0 and none.total == 0
    assert linear.main > product.main > 0.3  # mean effects of 2.5 and 0.5
    assert product.total > 0.1  # the effect of one depends on the other


def test_a_design_with_a_hole_has_no_indices() -> None:
    with pytest.raises(DataError, match="1 of 16 points"):
        indices(["a", "b"], Design(method="sensitivity", points=4), np.array([np.nan, *np.ones(15)]))
