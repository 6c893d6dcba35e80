"""The numerical baseline: small runs of every family give what they gave when it was stored."""

import pytest

from tests.baseline.record import (
    SCENARIOS,
    TOLERANCES,
    Result,
    changed,
    environment,
    environment_differences,
    measured,
    stored,
)

FILES = {"models/tiny/config.json": "a", "corpus/000000.parquet": "b", "metrics/000000.parquet": "c"}
FILES |= {"corpus/000001.parquet": "d", "ledger/000001.parquet": "e", "state/000001.json": "f"}
METRICS = {"0 web": {"documents": 300.0}, "1 trainer naive/0": {"cross_entropy": 4.5, "perplexity": 90.01713130}}
OLD = Result(FILES, METRICS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_numbers_are_those_of_the_baseline(name):
    before, results = stored()
    if lines := changed(name, results[name], measured(name), environment_differences(before, environment())):
        pytest.fail("\n".join(lines), pytrace=False)


def test_every_scenario_is_stored_and_has_a_tolerance():
    assert list(stored()[1]) == list(SCENARIOS) and TOLERANCES.keys() == SCENARIOS.keys()


def test_what_is_equal_is_no_change():
    assert changed("smoke", OLD, OLD, []) == changed("smoke", OLD, OLD, ["numpy 1 → 2"]) == []


def test_the_first_value_and_the_first_file_that_differ_are_said():
    files = FILES | {"state/000001.json": "?", "ledger/000001.parquet": "?", "corpus/000001.parquet": "?"}
    metrics = METRICS | {"1 trainer naive/0": {"cross_entropy": 4.500000001, "perplexity": 91.0}}
    said = changed("gpt2", OLD, Result(files, metrics), [])
    assert said[1] == (
        "  first of 2 metric values that differ, of 3: "
        "metrics/000001.parquet, step 1, trainer naive/0, cross_entropy: stored 4.5, got 4.500000001"
    )
    assert said[2:5] == [
        "  first of 3 files that differ, of 6: corpus/000001.parquet",
        "    ledger/000001.parquet",
        "    state/000001.json",
    ]
    only_files = changed("gpt2", OLD, Result(files, METRICS), [])
    assert only_files[1] == "  all 3 metric values agree to 10 digits" and only_files[2:5] == said[2:5]


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [("vectors", 4.5 + 1e-8, True), ("vectors", 4.5 + 1e-6, False), ("gpt2", 4.50001, True), ("gpt2", 4.501, False)],
)
def test_another_environment_has_the_tolerance_of_the_family(name, value, holds):
    new = Result({}, METRICS | {"1 trainer naive/0": {"cross_entropy": value, "perplexity": 90.0171313}})
    said = changed(name, OLD, new, ["numpy 2.1 → 2.4"])
    assert (said == []) == holds
    assert holds or "numpy 2.1 → 2.4" in said[-2]


def test_chaotic_numbers_may_differ_now_and_then_but_none_may_be_absent():
    old = Result({}, {f"{t} web": {"documents": 100.0} for t in range(8)})
    two, three = (old.metrics | {f"{t} web": {"documents": 500.0} for t in range(n)} for n in (2, 3))
    assert changed("smoke", old, Result({}, two), ["numpy 2.1 → 2.4"]) == []
    assert changed("smoke", old, Result({}, three), ["numpy 2.1 → 2.4"])
    fewer = {row: found for row, found in old.metrics.items() if row != "7 web"}
    assert "stored 100, got none" in changed("smoke", old, Result({}, fewer), ["numpy 2.1 → 2.4"])[1]
