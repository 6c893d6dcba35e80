"""Total collapse in a run: recorded once, told in the report with its time, its bound and what was left."""

import math
from shutil import copytree

import numpy as np
import polars as pl
import pytest

from ecosystem.errors import ScenarioError
from ecosystem.report.data import RunReportData
from ecosystem.report.panels import collapse
from ecosystem.report.sections import sections
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.theory.extinction import time_to_collapse

P = [0.5, 0.3, 0.2]


def loop(out, steps, replicates=120, n=4, law=True, **more) -> Run:
    trainer = {"count": replicates, "model": "m", "sites": 1, "publish": n}
    replace = {"policies": {"newest": {"kind": "replace"}}, "changes": [{"at": 2, "set": {"web.retain": ["newest"]}}]}
    data = {
        "name": "loop",
        "steps": steps,
        "sources": {"truth": {"kind": "categorical", "probabilities": P}},
        "web": {"kind": "isolated", "sites": replicates, "initial": {"source": "truth", "documents": 40 * replicates}},
        "models": {"m": {"kind": "categorical", "types": 3}},
        "trainers": {"loop": trainer | {"scrape": {"docs": n, "strategy": "reach", "links": 0}}},
        "measure": {"sites": False},
        "theory": [{"metric": "gini_simpson", "population": "loop", "law": "diversity_replace"}] if law else [],
    }
    if law:
        data["theory"][0]["parameters"] = {"h0": "truth", "n": n}
    scenario = Scenario.parse(data | replace | more)
    for _ in begin(scenario, out=out, machine=Machine("cpu", 1)):
        pass
    return Run.open(folder_of(scenario, out))


@pytest.fixture(scope="module")
def early(tmp_path_factory) -> Run:
    """Four of some twenty generations that all 120 replicates would take."""
    return loop(tmp_path_factory.mktemp("collapse"), 4)


@pytest.fixture(scope="module")
def late(tmp_path_factory, early) -> Run:
    """The same loop to its end, resumed from a copy."""
    out = tmp_path_factory.mktemp("late")
    copytree(early.path.parent, out / early.path.parent.name)
    return loop(out, 30)


@pytest.mark.slow
def test_a_collapse_is_recorded_once_and_for_good(late):
    """Resumed after step 4, so that who had collapsed before is remembered."""
    at = late.metrics.filter(pl.col("metric") == "collapsed_at")
    assert at["id"].is_unique().all() and (at["value"] == at["step"]).all()
    states = late.metrics.filter(pl.col("metric") == "collapsed").join(
        at.select("id", at="value"), on="id", how="left", maintain_order="left"
    )
    expected = (pl.col("step") >= pl.col("at")).fill_null(False).cast(pl.Float64)
    assert states.select((pl.col("value") == expected).all()).item(), "one symbol stays one"
    told = [event for _, event in late.events if "collapsed" in event]
    assert len(told) == 3, "the first, half and all of a large population"
    assert told[0].endswith("of 120 trainers of loop that has collapsed: nothing varies any more in what was learnt")
    assert told[1].startswith("half of the 120") and told[2].startswith("all 120 trainers of loop have collapsed")


@pytest.mark.slow
def test_few_trainers_are_told_of_by_name(tmp_path):
    told = [event for _, event in loop(tmp_path, 30, replicates=2).events]
    assert sorted(t.partition(" ")[0] for t in told) == ["loop/0", "loop/1"]


@pytest.mark.slow
def test_the_time_of_collapse_and_its_bound(early, late):
    """The mean time against an exact one, three standard errors; before all have collapsed it is a lower bound."""
    [whole], [part] = (collapse.collapse_times(RunReportData.of(run)) for run in (late, early))
    exact = expected_time(P, 4)
    assert whole.collapsed == whole.trainers == 120 and whole.share == (1.0, 0.0)
    assert abs(whole.mean - exact) < 3 * whole.error
    at = late.metrics.filter(pl.col("metric") == "collapsed_at")["value"].to_numpy()
    assert whole.error == pytest.approx(at.std(ddof=1) / math.sqrt(120)) and whole.median == np.sort(at)[59]
    assert part.collapsed == (at <= 4).sum() < 120 and part.mean == pytest.approx(np.minimum(at, 4).mean())
    share = part.collapsed / 120
    assert part.share == (share, pytest.approx(math.sqrt(share * (1 - share) / 120)))
    assert part.median is None or share >= 0.5
    assert whole.predicted == time_to_collapse(P, 4)
    [sentence] = collapse.findings(RunReportData.of(early))
    assert (
        "the mean step of collapse is at least" in sentence and "of the 120 trainers had collapsed totally" in sentence
    )
    [sentence] = collapse.findings(RunReportData.of(late))
    assert "all 120 trainers collapsed totally, at step" in sentence and "at least" not in sentence


def expected_time(p, n) -> float:
    """Return the expected generations of a three-symbol Wright-Fisher chain from a first sample of p, exactly."""
    states = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
    places = {state: k for k, state in enumerate(states)}

    def row(q):
        chances = np.zeros(len(states))
        for i, j, k in states:
            ways = math.factorial(n) / (math.factorial(i) * math.factorial(j) * math.factorial(k))
            chances[places[i, j, k]] = ways * q[0] ** i * q[1] ** j * q[2] ** k
        return chances

    open_ = [k for k, state in enumerate(states) if max(state) < n]
    moves = np.stack([row(np.array(state) / n) for state in states])[np.ix_(open_, open_)]
    left = np.linalg.solve(np.eye(len(open_)) - moves, np.ones(len(open_)))
    return float(1 + row(np.array(p))[open_] @ left)


@pytest.mark.slow
def test_every_symbol_is_left_with_its_own_probability(late):
    found = collapse.fixations(RunReportData.of(late), "loop")
    assert found["symbol"].to_list() == [0, 1, 2] and found["count"].sum() == 120
    ends = late.metrics.filter((pl.col("metric") == "mode") & (pl.col("step") == 30))["value"]
    assert found["count"].to_list() == [(ends == k).sum() for k in range(3)]
    assert np.allclose(found["expected"], 120 * np.array(P))
    z = (found["count"] - found["expected"]) / np.sqrt(120 * np.array(P) * (1 - np.array(P)))
    assert np.allclose(found["z"], z) and (z.abs() < 4).all()


@pytest.mark.slow
def test_the_report_tells_it(late, early):
    whole, part = (sections(book)["parameters"](book) for book in (RunReportData.of(late), RunReportData.of(early)))
    assert "120 of 120" in whole and "Surviving symbols" in whole and "≥" not in whole
    assert "≥" in part and "favour likely symbols" in part
    assert f">{time_to_collapse(P, 4):.1f}<" in whole


def test_no_closed_form_without_a_law_that_says_it_holds(tmp_path):
    [times] = collapse.collapse_times(RunReportData.of(loop(tmp_path, 6, replicates=20, law=False)))
    assert times.predicted is None


# What a scenario says that cannot be.


def wrong(**more) -> str:
    data = {
        "name": "wrong",
        "sources": {"a": {"kind": "gaussian", "dim": 2}},
        "web": {"kind": "isolated", "sites": 1, "initial": {"source": "a", "documents": 9}},
        "models": {"m": {"kind": "gaussian"}},
        "trainers": {"t": {"model": "m", "sites": 1}},
    }
    with pytest.raises(ScenarioError) as error:
        Scenario.parse(data | more)
    return str(error.value)


def test_lengths_that_differ_are_found_in_the_file():
    other = {"kind": "regression", "weights": [1.0, 2.0]}
    said = wrong(sources={"a": {"kind": "gaussian", "dim": 2}, "b": other})
    assert "sources: their vectors must all have one length, but the lengths are a 2, b 3" in said
    for source, width in (
        ({"kind": "digits"}, 64),
        ({"kind": "toy", "shape": "swiss_roll"}, 3),
        ({"kind": "images", "path": "x", "size": [4, 5]}, 20),
        ({"kind": "regression"}, 2),
    ):
        assert f"a 7, b {width};" in wrong(sources={"a": {"kind": "gaussian", "dim": 7}, "b": source})


def test_a_web_that_begins_empty_is_found_in_the_file():
    assert "web.initial: is missing, but models of vector documents learn" in wrong(
        web={"kind": "isolated", "sites": 1}
    )


def test_too_few_symbols_are_found_in_the_file():
    few = {"sources": {"a": {"kind": "categorical", "types": 9}}, "models": {"m": {"kind": "categorical", "types": 5}}}
    assert 'models.m.types: 5 symbols are too few for the source "a", which has 9; give at least 9' in wrong(**few)


@pytest.mark.slow
def test_a_loop_that_collapses_does_so_by_the_definitions_that_are_measured(late):
    """Drift on three symbols: the risk of a single symbol is reached, and diversity and the tail are gone.

    The likeliest symbol, the only mode, is what remains in half of the trainers.
    """
    data = RunReportData.of(late)
    rows = {row["definition"]: row for row in data.profile.iter_rows(named=True)}
    assert all(rows[name]["holds"] for name in ("catastrophic", "increase", "variance", "tails"))
    assert all(rows[name]["holds"] is None for name in ("diverging", "scaling", "hallucinated"))
    lost = 1 - P[0] / (1 - (1 - P[0]) ** 4)  # of those that had it after the first fit, to four documents
    assert not rows["modes"]["holds"] and abs(rows["modes"]["statistic"] - lost) < 4 * rows["modes"]["error"]
    first = data.departures.drop_nulls("step")
    assert first["step"].is_sorted() and "support" in first.filter(pl.col("step") == first["step"].min())["signal"]
