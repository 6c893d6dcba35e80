"""Loops without agents against the world's loop and against theory; tolerances in standard errors."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from ecosystem.errors import DataError
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.theory.diversity import diversity_replace, gini_simpson
from ecosystem.theory.gaussian import gaussian_mean_error
from ecosystem.validation import symbol_lines, validate
from ecosystem.validation.recursions import (
    categorical_mixture,
    categorical_replace,
    categorical_with_real,
    gaussian_accumulate,
    gaussian_replace,
    growing_corpus,
    self_training,
)
from tests.conftest import ROOT
from tests.test_validate import VALIDATION

PAPERS = ROOT / "scenarios" / "papers"


def measured(name, replicates, steps, metric):
    """The world's values of a metric: population → [steps, replicates]."""
    world = World(validate.sized(Scenario.load(VALIDATION / f"{name}.toml"), replicates), 5)
    frames = []
    for _ in range(steps):
        world.step()
        frames.append(world.snapshot().metrics.filter(pl.col("metric") == metric))
    table = pl.concat(frames).with_columns(population=pl.col("id").str.split("/").list.first())
    return {
        name: part["value"].to_numpy().reshape(steps, replicates)
        for (name,), part in table.group_by("population", maintain_order=True)
    }


def zipf(types):
    p = 1 / np.arange(1, types + 1)
    return p / p.sum()


def agree(a, b):
    """Means of two independent samples, one per row, within 4 standard errors of their difference."""
    error = np.sqrt(a.var(axis=1, ddof=1) / a.shape[1] + b.var(axis=1, ddof=1) / b.shape[1])
    return (np.abs(a.mean(axis=1) - b.mean(axis=1)) < 4 * error).all()


@pytest.mark.slow
def test_normals_agree_with_the_world():
    world = measured("gaussian_replace", 150, 5, "log_variance")
    for unbiased in (True, False):
        ours = gaussian_replace(2000, 5, 10, unbiased=unbiased)
        theirs = world["unbiased" if unbiased else "biased"]
        assert agree(np.log(ours.variance), theirs)
        assert not agree(np.log(ours.variance) + 0.5, theirs), "the test must be able to fail"


@pytest.mark.slow
def test_symbols_agree_with_the_world():
    scenario = Scenario.load(VALIDATION / "categorical_replace.toml")
    p = World(validate.sized(scenario, 2), 1).truth.probabilities
    ours = categorical_replace(p, 2000, 5, 50)
    assert agree(ours.gini_simpson, measured("categorical_replace", 150, 5, "gini_simpson")["loop"])
    assert agree(ours.support.astype(float), measured("categorical_replace", 150, 5, "support")["loop"])


@pytest.mark.slow
@pytest.mark.parametrize("many", [0, 10**9])
def test_borders_counted_and_compared_are_the_same_process(many, monkeypatch):
    """Means over 6,000 runs of diversity (exact law) and of what is left of the likeliest, within 4 standard errors."""
    monkeypatch.setattr(symbol_lines, "_MANY", many)
    p = zipf(40)
    found = categorical_replace(p, 6000, 25, 30)
    error = found.gini_simpson.std(axis=1, ddof=1) / np.sqrt(6000)
    law = diversity_replace(gini_simpson(p), 30, np.arange(1, 26))
    assert (np.abs(found.gini_simpson.mean(axis=1) - law) < 4 * error).all()
    assert (np.abs(law * (1 - 1 / 30) - law) > 4 * error).all(), "one generation too many would be seen"
    ended = categorical_replace(p, 4000, 400, 30, seed=2).survivor
    assert chisquare(np.bincount(ended, minlength=40), 4000 * p).pvalue > 6e-5  # 4 standard errors of a normal


@pytest.mark.parametrize("n", [2, 100, 256, 40_000])
def test_parents_are_equally_likely(n):
    """Chi-square over 100 (or n) cells; a plain remainder of 16 bits would favour small numbers by a quarter."""
    drawn = symbol_lines._below(n, 400_003, np.random.default_rng(n))
    assert drawn.size == 400_003 and drawn.max() == n - 1
    cells = min(n, 100)
    edges = np.linspace(0, n, cells + 1).round()
    assert chisquare(np.histogram(drawn, edges)[0], 400_003 * np.diff(edges) / n).pvalue > 6e-5


@pytest.mark.slow
def test_real_data_beside_synthetic_agree_with_the_world():
    p = zipf(100)
    fixed = (categorical_with_real(p, 2000, 5, 50, 50) ** 2).sum(axis=2)
    assert agree(fixed, measured("categorical_partially_synthetic", 150, 5, "simpson")["loop"])
    world = measured("categorical_fresh", 150, 5, "l2")["loop"]  # whose first fit is to 50 of the people's documents
    first = np.random.default_rng(1).multinomial(50, p, 300) / 50
    parts = [categorical_with_real(p, 1, 4, 20, 80, start=start, seed=i) for i, start in enumerate(first)]
    ours = ((np.concatenate(parts, axis=1) - p) ** 2).sum(axis=2)
    assert agree(ours, world[1:]) and not agree(1.25 * ours, world[1:]), "the test must be able to fail"


@pytest.mark.slow
def test_accumulated_normals_agree_with_the_world():
    ours = gaussian_accumulate(2000, 5, 10)
    assert agree(ours.variance, measured("gaussian_accumulate", 150, 5, "variance")["accumulate"])
    assert agree(ours.mean**2, measured("gaussian_accumulate", 150, 5, "mean_error")["accumulate"])


@pytest.mark.slow
def test_mixtures_of_past_models_agree_with_the_world():
    """Models drawn by drawing from 300 documents of each: the published scenario, with fewer replicates and steps."""
    scenario = validate.sized(Scenario.load(PAPERS / "seddik_random_data.toml"), 100)
    world = World(scenario.override({"trainers.any.publish": 300, "web.initial.documents": 30_000}), 3)
    found = []
    for _ in range(6):
        world.step()
        found.append(world.snapshot().metrics.filter(metric="gini_simpson")["value"].to_numpy())
    assert agree(categorical_mixture(world.truth.probabilities, 2000, 6, 10), np.array(found))


def test_self_training_takes_as_many_steps_as_one_model_after_the_other():
    """Against a loop over single models and tokens; 4 standard errors of the mean logarithm of the steps."""
    p, rng, theirs = zipf(5), np.random.default_rng(8), []
    half = -(p @ np.log(p)) / 2
    for _ in range(60):
        logits, steps, entropy = np.log(p), 0, np.inf
        while entropy > half:
            q = np.exp(logits) / np.exp(logits).sum()
            tokens = rng.choice(np.argsort(-q)[:3], 2, p=np.sort(q)[::-1][:3] / np.sort(q)[::-1][:3].sum())
            logits = logits + 0.5 * (np.bincount(tokens, minlength=5) / 2 - q)
            q = np.exp(logits) / np.exp(logits).sum()
            entropy, steps = -(q @ np.log(q)), steps + 1
        theirs.append(np.log(steps))
    ours = np.log(self_training(p, 600, 0.5, 2, top_k=3))
    assert agree(ours[None], np.array([theirs])) and not agree(ours[None] + 0.5, np.array([theirs]))


def test_a_growing_corpus_is_the_weighted_mean_of_what_was_written():
    share = growing_corpus(0.3, 0.01, 100, 5, 3)
    assert share[0] == pytest.approx(0.31, abs=1e-15)
    assert share[1] == pytest.approx((100 * 0.3 + 5 * 0.31) / 105 + 0.01, abs=1e-15)


@pytest.mark.slow
def test_the_long_checks_pass_for_another_seed():
    checks = validate.long_checks(3, 200)
    assert len(checks) > 70 and [c.name for c in checks if not c.passed] == []


def test_collapse_is_for_ever_and_the_survivor_is_one_of_the_symbols():
    found = categorical_replace([0.7, 0.0, 0.3], 300, 60, 5)
    assert (np.diff((found.support == 1).astype(int), axis=0) >= 0).all() and (found.support[-1] == 1).all()
    assert set(found.survivor.tolist()) == {0, 2}
    assert abs((found.survivor == 0).mean() - 0.7) < 4 * np.sqrt(0.21 / 300)
    assert (found.gini_simpson[-1] == 0).all()


def test_seeds_blocks_and_replicates():
    a, b = gaussian_replace(600, 4, 10, seed=1), gaussian_replace(500, 4, 10, seed=1)
    assert (a.mean[:, :500] == b.mean).all(), "a block has a stream of its own"
    assert (a.mean[:, 500:] != b.mean[:, :100]).all()
    assert (gaussian_replace(10, 4, 10, seed=2).mean != gaussian_replace(10, 4, 10, seed=1).mean).all()
    assert categorical_replace([0.5, 0.5], 3, 2, 70_000).support.max() == 2, "more than 16 bits of documents"


def test_the_mean_error_grows_as_theory_says():
    mean = gaussian_replace(20_000, 10, 20).mean
    found, error = (mean**2).mean(axis=1), (mean**2).std(axis=1) / np.sqrt(20_000)
    assert (np.abs(found - gaussian_mean_error(20, np.arange(1, 11))) < 4 * error).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_replace(1, 1, 1), "n must be .*at least 2, not 1"),
        (lambda: gaussian_replace(1, 0, 2), "generations must be .*at least 1, not 0"),
        (lambda: gaussian_accumulate(1, 1, 1), "n must be .*at least 2, not 1"),
        (lambda: categorical_replace([0.5], 1, 1, 1), "add up to 1, not 0.5"),
        (lambda: categorical_mixture([1.0], 1, 1, 0), "n must be .*at least 1, not 0"),
        (lambda: categorical_with_real([1.0], 1, 1, 1, 0), "n_synthetic must be .*at least 1, not 0"),
        (lambda: self_training([0.5, 0.5], 1, 0.0, 1), "rate must be .*above 0"),
        (lambda: self_training([1.0, 0.0], 1, 0.1, 1), "no zeros"),
    ],
)
def test_arguments_outside_their_domain(call, message):
    with pytest.raises(DataError, match=message):
        call()
