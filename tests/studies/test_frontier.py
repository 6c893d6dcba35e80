"""Running a frontier, and its report."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ecosystem
from ecosystem.cli.main import cli
from ecosystem.errors import ScenarioError
from ecosystem.studies.frontier_result import finding, untrained_note
from ecosystem.studies.spec.frontier import Frontier
from ecosystem.studies.threshold import Threshold
from tests.studies.small_study import FRONTIER, WORLD, search


@pytest.mark.slow
def test_a_frontier_is_searched_resumed_and_reported(folder: Path) -> None:
    frontier, threshold, report = search(folder)
    assert threshold.rising and threshold.low <= threshold.high and len(threshold.tried) >= 3
    sentence = finding(frontier, threshold)
    assert "variance" in sentence and sentence.split(";")[0][:40] in report.read_text()
    near = Threshold(None, 5, 200, True, tried={5: np.array([0.1, 0.2]), 200: np.array([0.6, 0.9])})
    assert threshold.untrained == {} and "had nothing to train on" not in report.read_text()
    assert "does not cross 0.8; at 200 it does not differ significantly (5 %) from the limit" in finding(frontier, near)
    assert "the threshold is outside this range" in finding(frontier, replace(near, low=200))
    flat = finding(frontier, replace(near, rising=None))
    assert "goes from 0.15 to 0.75, no significant change (5 %), between" in flat
    wide = replace(threshold, value=20.0, low=5, high=60.0)
    assert "(95 % interval 5 to 60 and perhaps beyond 5; 3 seeds at each of" in finding(frontier, wide)
    assert "(95 % interval 5 to 200 and perhaps beyond 5 and 200;" in finding(frontier, replace(wide, high=200))
    times = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("loop-*/*/commits/*.json")}
    _, again, _ = search(folder)
    assert again.value == threshold.value and times == {p: p.stat().st_mtime_ns for p in times}
    result = ecosystem.frontier(folder / "where.toml", folder / "out", engine="serial", threads=1)
    assert tuple(result) == (result.threshold, result.report) and finding(frontier, result.threshold) in repr(result)
    card, spec = result._repr_html_(), result.plot.crossing().to_dict()
    assert frontier.path in card and str(result.report) in card
    assert result.plot.names() == ["frontier"] and result.plot["frontier"].to_dict() == spec
    assert result.plot.dark["frontier"].to_dict() != spec
    table = result.to_pandas()
    assert len(table) == 3 * len(threshold.tried) and set(table["seed"]) == set(frontier.seeds)
    assert pickle.loads(pickle.dumps(result)).report == result.report
    unpacked, page = result
    assert result.threshold is unpacked and unpacked.value == threshold.value and result.report == page == report


def test_a_frontier_marks_where_trainers_had_nothing_to_train_on(folder: Path) -> None:
    """At the upper end all machine text is refused, and after step 1 there is no other."""
    policy = '[policies.none]\nkind = "synthetic_detector"\ntrue_positive_rate = 0.0\nfalse_positive_rate = 0.0\n'
    (folder / "loop.toml").write_text(WORLD.replace("publish = 20", 'publish = 20\nselect = ["none"]') + policy)
    text = FRONTIER.replace("trainers.lab.publish", "policies.none.true_positive_rate").replace(
        "limit = 0.8", "limit = 99"
    )
    text = text.replace('low = 5, high = 200, whole = true, scale = "log"', "low = 0.0, high = 1.0")
    frontier, threshold, report = search(folder, text.replace("[1, 2, 3]", "[1, 2]"))
    assert threshold.untrained == {1.0: "stopped training"} and list(threshold.tried) == [0.0, 1.0]
    note = "Trainers had nothing to train on at policies.none.true_positive_rate = 1 (stopped training)"
    assert note in untrained_note(frontier, threshold) and note in report.read_text()


@pytest.mark.slow
def test_the_command_frontier_is_the_command_threshold(folder: Path) -> None:
    (folder / "where.toml").write_text(FRONTIER)
    options = ["--out", str(folder / "out"), "--engine", "serial", "--json"]
    results = [
        CliRunner().invoke(cli, [name, str(folder / "where.toml"), *options]) for name in ("threshold", "frontier")
    ]
    assert results[0].exit_code == 0 and '"threshold"' in results[0].stdout
    assert results[0].stdout == results[1].stdout
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert "threshold" in shown and "  frontier" not in shown


COUNTS = FRONTIER.replace("trainers.lab.publish", "trainers.lab.count").replace(
    'low = 5, high = 200, whole = true, scale = "log"', "low = 1, high = 4"
)


@pytest.mark.slow
def test_a_lever_that_takes_whole_numbers_is_searched_in_whole_numbers(folder: Path) -> None:
    (folder / "where.toml").write_text(COUNTS)
    checked = CliRunner().invoke(cli, ["check", str(folder / "where.toml")])
    assert "valid (trainers.lab.count from 1 to 4 in whole numbers, 3 seeds)" in checked.output
    frontier, threshold, report = search(folder, COUNTS)
    assert set(threshold.tried) <= {1, 2, 3, 4} and {1, 4} <= set(threshold.tried)
    assert "Only whole numbers of trainers.lab.count were tried." in report.read_text()
    assert not frontier.range.whole and frontier.resolved(folder).range.whole
    share = FRONTIER.replace("trainers.lab.publish", "trainers.lab.learning_rate").replace("whole = true, ", "")
    (folder / "share.toml").write_text(share)
    assert not Frontier.load(folder / "share.toml").resolved(folder).range.whole
    (folder / "where.toml").write_text(COUNTS.replace("low = 1, high = 4", "low = 1.1, high = 1.4"))
    error = CliRunner().invoke(cli, ["threshold", str(folder / "where.toml"), "--dry-run"]).exception
    assert "range: trainers.lab.count takes whole numbers, and there are not two of them" in str(error)


@pytest.mark.slow
def test_a_dry_run_of_a_frontier_lists_its_runs(folder: Path) -> None:
    (folder / "where.toml").write_text(COUNTS)
    options = [str(folder / "where.toml"), "--out", str(folder / "out")]
    shown = CliRunner().invoke(cli, ["threshold", *options, "--dry-run"]).output
    assert shown.startswith("trainers.lab.count = 1, seed 1: ") and shown.count("(to do)") == 6
    assert "6 runs at the ends of the range; the search needs 12 at most" in shown
    assert "Only whole numbers of trainers.lab.count are tried." in shown and not (folder / "out").exists()
    search(folder, COUNTS)
    plan = json.loads(CliRunner().invoke(cli, ["threshold", *options, "--dry-run", "--json"]).output)
    assert all(cell["finished"] for cell in plan["cells"]) and plan["most_runs"] == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('path = "trainers.lab.publish"', 'path = "trainers.lab.publis"'), "publis: unknown key"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", at = 9 }'), "step 9 comes after"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", of = "x" }'), "no [trainers.x]"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", of = "x" }'), "choose from lab, web"),
        (("low = 5", "low = 500"), "low (500) must be below high (200)"),
        (("seeds = [1, 2, 3]", "seeds = [1]"), "seeds"),
    ],
)
def test_a_mistake_in_a_frontier_is_told(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        search(folder, FRONTIER.replace(*change))
    assert said in str(error.value)
