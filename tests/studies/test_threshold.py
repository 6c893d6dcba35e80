"""The search for a threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecosystem.errors import EcosystemError
from ecosystem.studies.spec.design import Range
from ecosystem.studies.threshold import search


def noisy(truth, noise: float, seeds: int, rng):
    """A lever whose measure is ``truth`` plus noise that each seed has at every value, and a little more at each."""
    shared = rng.normal(0, noise, seeds)

    def evaluate(x):
        own = np.random.default_rng(int(abs(x) * 1e6)).normal(0, noise / 10, seeds)
        return truth(x) + shared + own

    return evaluate


@pytest.mark.slow
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

    def evaluate(x):
        calls.append(x)
        return np.array([x - 0.3, x - 0.31, x - 0.29])

    found = search(evaluate, Range(low=0, high=1), 0.0, precision=0.01)
    assert len(calls) == len(set(calls)) == len(found.tried) < 25
    assert found.value == pytest.approx(0.3, abs=0.01)


def test_a_search_on_whole_numbers_and_in_the_logarithm_ends() -> None:
    span = Range(low=1, high=1000, scale="log", whole=True)
    found = search(lambda x: np.array([x, x, x + 1e-9]), span, 40.5, precision=1e-6)
    assert found.value in (40, 41) and found.low in (40, 41) and found.high in (40, 41)


def test_a_limit_that_is_never_crossed_gives_no_threshold() -> None:
    found = search(lambda x: np.array([x, x + 0.1]), Range(low=0, high=1), 7.0)
    assert found.value is None and found.low == found.high == 1
    found = search(lambda x: np.array([x, x + 0.1]), Range(low=0, high=1), -7.0)
    assert found.value is None and found.low == found.high == 0


def test_a_lever_without_effect_neither_raises_nor_lowers_the_measure() -> None:
    noise = np.array([0.3, -0.1, 0.2])
    assert search(lambda x: noise, Range(low=0, high=1), 7.0).rising is None
    assert search(lambda x: noise + x * np.array([1, -1, 0.1]), Range(low=0, high=1), 7.0).rising is None
    assert search(lambda x: noise + x * np.array([1, 1.1, 0.9]), Range(low=0, high=1), 7.0).rising is True


def test_what_lies_on_one_side_at_both_ends_is_not_searched_between_them() -> None:
    """Also where one end cannot be told from the limit: the interval is then the whole range."""
    for way, limit in ((1, 1.1), (1, -0.1), (-1, 0.1), (-1, -1.1)):

        def evaluate(x, way=way):
            return np.array([way * x - 0.02, way * x + 0.02])

        found = search(evaluate, Range(low=0, high=1), limit)
        assert found.value is None and (found.low, found.high) == (0, 1) and list(found.tried) == [0, 1]


def test_a_run_without_a_value_stops_the_search() -> None:
    with pytest.raises(EcosystemError, match="1 of 2 runs"):
        search(lambda x: np.array([1.0, np.nan]), Range(low=0, high=1), 0.5)
