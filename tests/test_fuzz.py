"""A bounded part of the campaigns of ``python -m tests.fuzz``: random inputs, altered files and kills."""

import pytest

from tests.conftest import with_kernels
from tests.fuzz import kills, tampering
from tests.fuzz.campaign import run, upper_bound
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=[pytest.mark.slow] * ("runs" in name)) for name in TARGETS]
)
def test_inputs_are_used_or_refused_with_a_sentence(target):
    inputs = 400 if target.startswith("mutated") else 50  # few mutations leave a scenario valid
    tally = run(target, inputs, 1)
    assert tally.tried >= inputs and not tally.failures
    assert tally.outcomes["used"] and tally.outcomes["refused"]


def test_a_failure_is_counted_and_its_place_named(monkeypatch):
    def fail(drawn, folder):
        raise ValueError("a fault")

    broken = TARGETS["damaged TOML"].__class__(TARGETS["damaged TOML"].inputs, fail)
    monkeypatch.setitem(TARGETS, "damaged TOML", broken)
    tally = run("damaged TOML", 20, 1)
    assert tally.outcomes == {"failed": tally.tried}
    assert list(tally.failures) == ["ValueError at outside of the package"]


def test_the_bound_of_no_failure_is_three_in_so_many():
    """The rule of three: 1 - 0.05 ** (1 / n)."""
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)
    assert upper_bound(3, 3) == 1


@pytest.mark.slow
def test_altered_files_are_named(tmp_path):
    campaign = tampering.Campaign(tmp_path)
    for reader, count in {"check of a run": 30, "check of a branch": 30, "resume": 2, "report": 2}.items():
        assert not campaign.alter(reader, count, 1).missed


@pytest.mark.slow
def test_killed_commands_end_as_undisturbed_ones(tmp_path, monkeypatch):
    with_kernels(tmp_path / "cache")
    monkeypatch.setenv("ECOSYSTEM_CACHE", "")  # the campaign sets it
    tally = kills.Campaign(tmp_path).kill("run", 3, 1)
    assert tally.kills >= 3 and tally.results and not tally.different
