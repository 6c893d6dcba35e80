"""The tables of a study, and the runs that they are read from."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ecosystem.runs.run import Run
from tests.studies.small_study import STUDY, WORLD, run


@pytest.mark.slow
def test_a_study_measures_what_its_runs_did(folder: Path) -> None:
    """Every value is the mean over trainers at its step, or over a window, of the ordinary run of that arm and seed."""
    result = run(folder)
    assert result.results.runs["error"].null_count() == 9
    for arm, _, seed, place, *_ in result.results.runs.iter_rows():
        stored = Run.open(place)
        assert stored.seed == seed
        metrics = stored.metrics.filter(pl.col("scope") == "trainer")
        values = dict(
            result.results.values.filter((pl.col("arm") == arm) & (pl.col("seed") == seed))
            .select("measure", "value")
            .iter_rows()
        )
        variance = metrics.filter((pl.col("metric") == "variance") & (pl.col("step") == 4))["value"].mean()
        w2 = metrics.filter((pl.col("metric") == "w2") & pl.col("step").is_between(2, 4))["value"].mean()
        assert values["variance"] == pytest.approx(variance) and values["lab/w2@2-4"] == pytest.approx(w2)


@pytest.mark.slow
def test_arms_whose_trainers_had_nothing_to_train_on_are_marked_wherever_they_rank(folder: Path) -> None:
    """One arm refuses everything, one all machine text (there is no other after step 1), one population of two does."""
    text = STUDY.replace("seeds = [1, 2, 3]", "seeds = [1, 2]").replace(
        "[arms.more]", '[arms.refused]\n"trainers.lab.select" = ["none"]\n[arms.more]'
    )
    text = text.replace("[arms.more]", '[arms.human]\n"trainers.lab.select" = ["oracle"]\n[arms.more]')
    policies = '[policies.none]\nkind = "synthetic_detector"\ntrue_positive_rate = 1.0\nfalse_positive_rate = 1.0\n'
    policies += '[policies.oracle]\nkind = "oracle"\n'
    (folder / "loop.toml").write_text(
        WORLD.replace("sites = 4", "sites = 6").replace("documents = 80", "documents = 120")
        + policies
        + '[trainers.other]\ncount = 2\nmodel = "normal"\nsites = 1\nevery = 2\n'
        + 'scrape = { docs = 100, strategy = "reach", links = 0 }\npublish = 20\n'
    )
    result = run(folder, text)
    training = {
        (arm, of): row for arm, of, *row in result.results.training.filter(seed=2).drop("world", "seed").iter_rows()
    }
    fine = [4, 0, 0, 16, 0]
    assert training == {
        **{(arm, "lab"): fine for arm in ("alone", "helped", "more")},
        ("refused", "lab"): [4, 4, 0, 16, 16],
        ("human", "lab"): [4, 0, 4, 16, 12],
        **{(arm, "other"): [2, 0, 0, 4, 0] for arm in ("alone", "helped", "refused", "human", "more")},
    }
    untrained = result.results.untrained
    assert untrained("refused", "", "lab") == "never trained" and untrained("human", "", "lab") == "stopped training"
    assert untrained("refused", "") == "8 of 12 trainers never trained" and untrained("refused", "", "other") == ""
    for table in (result.effects, pl.read_parquet(result.folder / "ranking.parquet")):
        marks = dict(table.filter(measure=result.study.measures[1].name).select("arm", "training").iter_rows())
        assert marks.pop("human") == "stopped training" and set(marks.values()) <= {"", "never trained"}
    page = result.report.read_text()
    assert "Trainers had nothing to train on in <b>human</b> (8 of 12 trainers stopped training)" in page
    assert "<small>(stopped training)</small>" in page
    assert {row["arm"] for row in result.summary()["untrained"]} == {"refused", "human"}


@pytest.mark.slow
def test_damaged_runs_are_told_and_left_out(folder: Path) -> None:
    result = run(folder)
    alone, helped, more = (Path(place) for place in result.results.runs["run"][:3])  # of seed 1
    (alone / "metrics" / "000004.parquet").write_bytes(b"damaged")
    altered = (helped / "scenario.toml").read_text().replace("publish = 20", "publish = 21")
    (helped / "scenario.toml").write_text(altered)
    (more / "scenario.toml").write_text(altered[:200] + "[")
    again = run(folder)
    errors = again.results.runs["error"]
    assert errors.is_not_null().to_list() == [True] * 3 + [False] * 6 and "000004.parquet" in errors[0]
    for error, place in ((errors[1], helped), (errors[2], more)):
        assert error.startswith(f"{place / 'scenario.toml'}: has been altered") and "Restore it from a copy" in error
    assert "3 of 9 runs failed" in again.report.read_text()
    table = pl.read_parquet(again.folder / "effects.parquet")
    assert set(table["seeds"]) == {2}


@pytest.mark.slow
def test_means_over_different_populations_are_told(folder: Path) -> None:
    another = '[arms.more]\n"trainers.other" = { count = 1, model = "normal", sites = 1, publish = 20, '
    another += 'scrape = { docs = 100, strategy = "reach", links = 0 } }\n"web.sites" = 5\n'
    another += '"web.initial.documents" = 100\n'
    result = run(folder, STUDY.replace("[arms.more]", another))
    assert result.results.mixed == ("variance",)  # the other measure says whose it is
    assert "not all arms measured the same populations" in result.report.read_text()
