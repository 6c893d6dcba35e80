"""The method of fits against closed forms: emulators, noise, likelihood, posterior and pulls."""

import numpy as np
import pytest
from scipy import stats

from ecosystem.fitting import search as searches
from ecosystem.fitting.emulator import Emulator, Process, Processes, Regression
from ecosystem.fitting.identify import pulls, width_ratios
from ecosystem.fitting.likelihood import Likelihood, Noise, shrunk_covariance
from ecosystem.fitting.posterior import _stuck, sample
from ecosystem.fitting.runs import Output
from ecosystem.fitting.search import Search, sobol
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.fitting.trials import Trial, means_over_replicates, misfits
from ecosystem.streams import Streams

# Targets are linear in the two parameters that matter: y = MATRIX u + normal noise. The third has no effect.
MATRIX = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
NOISE = 0.05
VALUES = np.array([0.45, 0.65, 0.9, 0.9])


def targets(values=VALUES, error=0.05):
    return [
        Target(step=i, quantity=f"q{i}", value=float(v), error=error, use="fit" if i < 4 else "predict")
        for i, v in enumerate(values)
    ]


def trial(number, u, outputs):
    return Trial(number, "start", 0, u, {}, np.atleast_2d(outputs), "complete", 0.0)


def linear_trials(count=40, replicates=2, noise=0.0):
    """Trials whose replicates have the same noise everywhere, as runs with common random numbers have."""
    shared = noise * Streams(5).at("shared").rng().normal(size=(replicates, len(MATRIX)))
    return [trial(i, u, MATRIX @ u + shared) for i, u in enumerate(sobol(count, 3, 1))]


def exact_posterior(used, values=VALUES, error=0.05):
    """Mean and covariance of the first two parameters for a flat prior that does not bind."""
    design = MATRIX[used][:, :2]
    covariance = np.linalg.inv(design.T @ design / error**2)
    return covariance @ design.T @ values[used] / error**2, covariance


def likelihood():
    emulator = Emulator.fit(linear_trials(), 1)
    return Likelihood.of(emulator, Noise.between_replicates(emulator), targets())


@pytest.fixture(scope="module")
def posterior():
    return sample(likelihood(), 3, 1, "posterior")


def test_leave_one_out_errors_are_those_of_refits():
    rng = Streams(1).at("points").rng()
    u = rng.random((14, 2))
    y = np.sin(3 * u[:, 0]) + u[:, 1] ** 2 + 0.1 * rng.normal(size=14)
    fitted = Regression.fit("quadratic", u, y)
    left = []
    for i in range(14):
        others = np.arange(14) != i
        again = Emulator([Regression.fit("quadratic", u[others], y[others])], y, {}, y, 1)
        left.append(float(again.predict(u[i : i + 1])[0][0, 0]) - y[i])
    assert fitted.error == pytest.approx(float(np.sqrt(np.mean(np.square(left)))), rel=1e-9)


def test_leave_one_out_error_of_a_process_is_that_of_conditioning_on_the_others():
    rng = Streams(2).at("points").rng()
    u, k = rng.random((12, 2)), 12
    y = np.sin(4 * u[:, 0]) + u[:, 1]
    fitted = Process.fit(u, y, 1)
    whole = fitted.inverse  # of the Cholesky factor
    covariance = np.linalg.inv(whole.T @ whole)  # of the points, with their noise
    scaled, left = (y - fitted.centre) / fitted.scale, []
    for i in range(k):
        others = np.arange(k) != i
        predicted = covariance[i, others] @ np.linalg.solve(covariance[np.ix_(others, others)], scaled[others])
        left.append(fitted.scale * (predicted - scaled[i]))
    assert fitted.error == pytest.approx(float(np.sqrt(np.mean(np.square(left)))), rel=1e-6)
    mean, variance = Processes.of([fitted]).predict(u)
    assert np.abs(mean[:, 0] - y).max() < 0.05 and variance.min() >= 0


def test_the_better_emulator_is_taken_and_a_constant_is_one():
    points = sobol(40, 2, 1)
    outputs = np.stack([3 - 2 * points[:, 0], np.sin(9 * points[:, 0]) * points[:, 1], np.full(40, 7.0)], axis=1)
    emulator = Emulator.fit([trial(i, u, y) for i, (u, y) in enumerate(zip(points, outputs, strict=True))], 1)
    kinds = [surface.kind for surface in emulator.surfaces]
    assert kinds[0] in ("linear", "quadratic") and kinds[1:] == ["gaussian process", "constant"]
    new = sobol(16, 2, 2)
    expected = np.stack([3 - 2 * new[:, 0], np.sin(9 * new[:, 0]) * new[:, 1], np.full(16, 7.0)], axis=1)
    assert np.abs(emulator.predict(new)[0] - expected).max(axis=0) == pytest.approx([0, 0, 0], abs=0.06)
    part = emulator.of([1])
    assert np.allclose(part.predict(new)[0][:, 0], emulator.predict(new)[0][:, 1])


def test_points_with_one_replicate_are_corrected_for_its_common_noise():
    outputs = np.array([[[1.0], [3.0]], [[2.0], [4.0]], [[5.0], [np.nan]]])
    means, between = means_over_replicates(outputs)
    assert means[:, 0].tolist() == [2.0, 3.0, 6.0] and between.tolist() == [2.0]


def test_the_misfit_counts_fitted_targets_in_units_of_their_errors():
    found = [Target(step=1, quantity="a", value=1.0, error=0.3, discrepancy=0.4)]
    found += [Target(step=2, quantity="b", value=0.0, error=1.0, use="predict")]
    assert misfits(np.array([2.0, 99.0]), found) == pytest.approx(0.5 * 1 / 0.25)
    assert misfits(np.array([2.0, 99.0]), found, np.array([0.75, 0.0])) == pytest.approx(0.5)
    assert misfits(np.array([np.nan, 0.0]), found) == np.inf


def test_the_shrunk_covariance_keeps_variances_and_finds_correlations():
    rng = Streams(3).at("noise").rng()
    common = rng.normal(size=(4000, 1))
    values = np.hstack(
        [common + rng.normal(size=(4000, 1)), common + rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1))]
    )
    estimate = shrunk_covariance(values)
    assert np.diag(estimate) == pytest.approx(values.var(axis=0, ddof=1))
    assert estimate[0, 1] == pytest.approx(1.0, abs=4 * 2 / np.sqrt(4000))  # four standard errors
    few = shrunk_covariance(rng.normal(size=(5, 30)))
    assert np.linalg.eigvalsh(few).min() > 0  # fewer runs than targets


def test_runs_with_other_seeds_show_the_bias_of_the_common_ones():
    emulator = Emulator.fit(linear_trials(noise=NOISE), 1)
    rng = Streams(4).at("runs").rng()
    u = rng.random((400, 3))
    outputs = u @ MATRIX.T + NOISE * rng.normal(size=(400, 4))
    noise = Noise.of_runs(emulator, u, outputs)
    first = linear_trials(noise=NOISE)[0]
    shared = first.outputs.mean(axis=0) - MATRIX @ first.u
    assert noise.offset == pytest.approx(-shared, abs=4 * NOISE / np.sqrt(400))
    assert np.diag(noise.covariance) == pytest.approx(NOISE**2 * np.ones(4), rel=4 * np.sqrt(2 / 400))


@pytest.mark.slow
def test_the_posterior_is_the_exact_one(posterior):
    mean, covariance = exact_posterior([0, 1, 2, 3])
    sd = np.sqrt(np.diag(covariance))
    error = sd / np.sqrt(posterior.effective[:2])
    assert posterior.converged
    assert np.abs(posterior.u[:, :2].mean(axis=0) - mean).max() < 4 * error.max() + 1e-3
    assert posterior.u[:, :2].std(axis=0) == pytest.approx(sd, rel=4 / np.sqrt(2 * posterior.effective.min()) + 0.01)
    correlation = covariance[0, 1] / sd.prod()
    assert np.corrcoef(posterior.u[:, :2].T)[0, 1] == pytest.approx(
        correlation, abs=4 / np.sqrt(posterior.effective.min())
    )


@pytest.mark.slow
def test_a_parameter_without_effect_keeps_its_prior(posterior):
    independent = posterior.u[:: int(np.ceil(len(posterior.u) / posterior.effective[2])), 2]
    assert stats.kstest(independent, "uniform").pvalue > 1e-3
    assert width_ratios(posterior)[2] == pytest.approx(1.0, abs=4 * 0.45 / np.sqrt(posterior.effective[2]))


@pytest.mark.slow
def test_the_posterior_stays_inside_the_prior():
    emulator = Emulator.fit(linear_trials(), 1)
    far = targets(np.array([1.4, 0.9, 0.4, 1.6]))
    found = sample(Likelihood.of(emulator, Noise.between_replicates(emulator), far), 3, 1, "posterior")
    assert found.u.min() > 0 and found.u.max() < 1 and found.u[:, 0].mean() > 0.9


@pytest.mark.slow
def test_a_narrow_posterior_of_six_parameters_is_found():
    centre, sd = np.linspace(0.2, 0.8, 6), 0.004
    found = sample(lambda u: -0.5 * (((u - centre) / sd) ** 2).sum(axis=1), 6, 1, "posterior")
    assert found.converged
    independent = 1 / (1 / found.effective.min() + 1 / len(found.u))  # samples were drawn from the chains
    assert found.u.mean(axis=0) == pytest.approx(centre, abs=4 * sd / np.sqrt(independent))
    assert found.u.std(axis=0) == pytest.approx(sd, rel=4 / np.sqrt(2 * independent) + 0.01)


def test_walkers_that_are_stuck_are_noticed():
    rng = Streams(6).at("chains").rng()
    chains = rng.normal(size=(4, 200, 24, 2))
    assert not _stuck(chains)
    chains[:, :, 0] += 6.0
    assert _stuck(chains)


@pytest.mark.slow
def test_pulls_are_those_of_exact_refits(posterior):
    found = {pull.label: pull for pull in pulls(likelihood(), posterior, targets(), 1)}
    mean, covariance = exact_posterior([0, 1, 2, 3])
    sd = np.sqrt(np.diag(covariance))
    for left in range(4):
        others = [i for i in range(4) if i != left]
        other_mean, other_covariance = exact_posterior(others)
        pull = found[f"q{left}"]
        tolerance = 4 * 1.5 / np.sqrt(pull.effective)
        assert pull.effective > 300
        assert pull.shift[:2] == pytest.approx((mean - other_mean) / sd, abs=tolerance)
        assert pull.widening[:2] == pytest.approx(np.sqrt(np.diag(other_covariance)) / sd, rel=tolerance)
        assert pull.shift[2] == pytest.approx(0, abs=tolerance)


def fake_fit(**changes):
    data = {
        "name": "fake",
        "scenario": "smoke",
        "trials": 24,
        "batch": 4,
        "morris": 0,
        "targets": [t.plain() for t in targets()],
        "parameters": {
            name: {"path": f"writers.{name}.rate", "prior": {"law": "uniform", "low": 0.0, "high": 1.0}}
            for name in "abc"
        },
    }
    return Fit.model_validate(data | changes)


def linear_runs(name, requests):
    return [Output(MATRIX @ np.array(list(r.values.values()))) for r in requests]


def test_the_search_finds_the_best_point_and_depends_on_nothing_else():
    found = Search(fake_fit(), targets(), linear_runs).execute()
    best = min(found, key=lambda t: t.misfit)
    start = min((t for t in found if t.stage == "start"), key=lambda t: t.misfit)
    assert len(found) == 24 and best.misfit < start.misfit
    again = Search(fake_fit(), targets(), linear_runs).execute()
    assert all(np.array_equal(a.u, b.u) for a, b in zip(found, again, strict=True))


def test_far_points_of_the_search_run_once_and_failed_ones_are_named():
    counts = []

    def runs(name, requests):
        counts.extend(r.seed for r in requests)
        outputs = linear_runs(name, requests)
        return [
            Output(o.values * np.nan, "it broke") if r.values["c"] > 0.95 else o
            for o, r in zip(outputs, requests, strict=True)
        ]

    found = Search(fake_fit(trials=64, batch=8), targets(error=0.01), runs).execute()
    states = {state: [t for t in found if t.state == state] for state in ("complete", "pruned", "failed")}
    assert all(t.stage == "search" for t in states["pruned"]) and states["pruned"]
    assert all(np.isnan(t.outputs[1]).all() for t in states["pruned"])
    assert all(t.error == "it broke" and np.isnan(t.misfit) for t in states["failed"]) and states["failed"]
    assert len(counts) == 64 + len(states["complete"])
    best = min(t.misfit for t in states["complete"])
    assert all(t.misfit > best + searches.FAR for t in states["pruned"])
    later = [t for t in states["complete"] if t.stage == "search"]
    assert all(t.misfit < states["pruned"][0].misfit or t.batch < states["pruned"][0].batch for t in later)
