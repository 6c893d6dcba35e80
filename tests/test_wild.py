"""The scaling law of machine text beside human text, and compute-equivalent gains."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ecosystem.errors import DataError
from ecosystem.theory.laws import QUANTITIES, scaling_laws
from ecosystem.theory.wild import cheapest_compute, compute_gain, diluting_ratio, saturating_ratio, wildai

HUMAN = {"e": 1.7, "a": 400.0, "alpha": 0.34, "b": 410.0, "beta": 0.28}
MIXED = {**HUMAN, "eta": 0.6, "k": 2.0, "rho": -0.4, "gamma": 0.05, "u": 0.5, "v": 0.1}
SIZES, TOKENS = np.array([2e7, 2e8, 1e9]), np.array([6e7, 4e9, 9e10])


def test_without_machine_text_it_is_the_law_of_human_text():
    expected = HUMAN["e"] + HUMAN["a"] / SIZES ** HUMAN["alpha"] + HUMAN["b"] / TOKENS ** HUMAN["beta"]
    assert wildai(SIZES, TOKENS, np.zeros(3), **MIXED) == pytest.approx(expected, rel=1e-14)


def test_a_little_machine_text_counts_as_human_text_and_does_no_harm():
    ratio = np.full(3, 1e-7)
    worth = wildai(SIZES, TOKENS * (1 + MIXED["eta"] * 1e-7), np.zeros(3), **MIXED)
    assert wildai(SIZES, TOKENS, ratio, **MIXED) == pytest.approx(worth, rel=1e-14)
    assert diluting_ratio(1e-4) == pytest.approx(1e-8 / 2, rel=1e-3)


def test_much_machine_text_counts_up_to_a_limit_and_harms_as_its_logarithm():
    limit = MIXED["k"] * (TOKENS / (20 * SIZES)) ** MIXED["rho"]
    assert saturating_ratio(1e6, limit) == pytest.approx(limit, rel=1e-12)
    assert np.diff(diluting_ratio([1e6, 1e7])) == pytest.approx(np.log(10), rel=1e-4)
    assert saturating_ratio([0.0, 2.0], [0.0, 0.0]).tolist() == [0.0, 0.0]
    harmless = wildai(SIZES, TOKENS, np.full(3, 1e9), **MIXED | {"gamma": 0.0})
    saturated = wildai(SIZES, TOKENS * (1 + MIXED["eta"] * limit), np.zeros(3), **MIXED)
    assert harmless == pytest.approx(saturated, rel=1e-12)
    losses = [float(wildai(2e7, 6e7, r, **MIXED)) for r in (0, 2, 1e30)]
    assert losses[1] < losses[0] < losses[2]  # there is a best amount


def test_the_sign_of_the_effect_depends_on_the_human_tokens_per_parameter():
    effect = [float(wildai(1e8, d, 4, **MIXED) - wildai(1e8, d, 0, **MIXED)) for d in (2e8, 1e12)]
    assert effect[0] < 0 < effect[1]


def test_the_cheapest_model_is_the_one_that_a_search_finds():
    loss = 2.4

    def compute(log_size: float) -> float:
        left = loss - HUMAN["e"] - HUMAN["a"] / np.exp(log_size) ** HUMAN["alpha"]
        return 6 * np.exp(log_size) * (HUMAN["b"] / left) ** (1 / HUMAN["beta"]) if left > 0 else np.inf

    smallest = np.log(HUMAN["a"] / (loss - HUMAN["e"])) / HUMAN["alpha"]
    found = minimize_scalar(compute, bounds=(smallest + 1e-6, smallest + 10), method="bounded", options={"xatol": 1e-9})
    assert cheapest_compute(loss, **HUMAN) == pytest.approx(found.fun, rel=1e-8)
    assert cheapest_compute(1.7, **HUMAN) == np.inf


def test_the_gain_is_the_ratio_of_the_cheapest_computes():
    after, before = np.array([2.3, 2.5, 1.6]), np.array([2.4, 2.4, 2.4])
    gain = compute_gain(after, before, HUMAN["e"], HUMAN["alpha"], HUMAN["beta"])
    costs = [[cheapest_compute(x, **HUMAN) for x in pair] for pair in zip(after, before, strict=True)]
    assert gain == pytest.approx([a / b for a, b in costs])
    assert gain[0] > 1 > gain[1] and gain[2] == np.inf
    assert np.isnan(compute_gain(2.0, 1.6, HUMAN["e"], HUMAN["alpha"], HUMAN["beta"]))


def test_quantities_outside_the_domain_are_refused():
    for size, tokens, ratio in ((0.0, 1e6, 1.0), (1e6, 0.0, 1.0), (1e6, 1e6, -1.0)):
        with pytest.raises(DataError, match="must"):
            wildai(size, tokens, ratio, **MIXED)


def test_every_scaling_law_takes_quantities_that_a_study_measures():
    for law in scaling_laws().values():
        assert set(law.inputs) <= set(QUANTITIES) and all(unknown.text for unknown in law.unknowns.values())
