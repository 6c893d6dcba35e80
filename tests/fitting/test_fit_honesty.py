"""Fits of simulated data are honest: intervals contain the truth as often as they say, and no more is claimed."""

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.fits import LEVEL, WorldRuns, covered, data_sets, scores
from ecosystem.fitting.identify import width_ratios
from ecosystem.fitting.posterior import ROUGH

pytestmark = pytest.mark.slow
SETS = 40


@pytest.fixture(scope="module")
def sets():
    with threadpool_limits(1):
        return data_sets(WorldRuns.of(noise=6), SETS, points=32, most=ROUGH)


def test_intervals_contain_the_truth_as_often_as_they_say(sets):
    spread = np.sqrt(SETS * LEVEL * (1 - LEVEL))
    assert np.abs(covered(sets) - LEVEL * SETS).max() <= 3 * spread  # binomial, three standard errors


def test_posteriors_are_neither_too_wide_nor_too_narrow_nor_shifted(sets):
    z = scores(sets)
    assert np.abs(z.mean(axis=0)).max() < 3.5 / np.sqrt(SETS)
    assert np.abs(z.std(axis=0, ddof=1) - 1).max() < 3.5 / np.sqrt(2 * SETS)


def test_targets_narrow_what_they_depend_on_and_nothing_else(sets):
    widths = np.array([width_ratios(one.posterior) for one in sets])
    assert widths[:, 0].mean() < 0.5 and widths[:, 1].mean() < 0.9
    assert widths[:, 2].mean() == pytest.approx(1.0, abs=0.02)  # the observers publish nothing
    pooled = np.concatenate([one.posterior.u[::100, 2] for one in sets])  # 40 nearly independent samples of each
    assert stats.kstest(pooled, "uniform").pvalue > 1e-3
