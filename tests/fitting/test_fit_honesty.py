"""Fits of simulated data are honest: intervals contain the truth as often as they say, and no more is claimed."""

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from benchmarks.fits import LEVEL, WorldRuns, covered, data_sets, scores
from ecosystem.fitting.identify import width_ratios

pytestmark = pytest.mark.slow
SETS = 40
STEPS = 200


def test_intervals_contain_the_truth_and_targets_narrow_only_what_they_depend_on(monkeypatch):
    # One test, since several workers would each make the data sets again, for a minute.
    # Short chains cost the most. Of these, some hundred samples are independent, which place a truth within 2.5 %.
    monkeypatch.setattr("ecosystem.fitting.posterior._BLOCK", STEPS)
    monkeypatch.setattr("benchmarks.fits.ROUGH", STEPS)
    with threadpool_limits(1):
        sets = data_sets(WorldRuns.of(noise=6), SETS, points=32, most=STEPS)
    spread = np.sqrt(SETS * LEVEL * (1 - LEVEL))
    assert np.abs(covered(sets) - LEVEL * SETS).max() <= 3 * spread  # binomial, three standard errors

    # Posteriors are neither too wide nor too narrow, nor shifted.
    z = scores(sets)
    assert np.abs(z.mean(axis=0)).max() < 3.5 / np.sqrt(SETS)
    assert np.abs(z.std(axis=0, ddof=1) - 1).max() < 3.5 / np.sqrt(2 * SETS)

    widths = np.array([width_ratios(one.posterior) for one in sets])
    assert widths[:, 0].mean() < 0.5 and widths[:, 1].mean() < 0.9
    assert widths[:, 2].mean() == pytest.approx(1.0, abs=0.02)  # the observers publish nothing
    pooled = np.concatenate([one.posterior.u[::100, 2] for one in sets])  # 40 nearly independent samples of each
    assert stats.kstest(pooled, "uniform").pvalue > 1e-3
