"""Effects, rankings, regrets and ways to spend, from the tables of a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ecosystem.studies import analysis
from ecosystem.studies.results import Results
from tests.studies.small_study import STUDY, load, results_of, run


@pytest.mark.slow
def test_the_table_of_effects_is_that_of_the_values(folder: Path) -> None:
    result = run(folder)
    table = pl.read_parquet(result.folder / "effects.parquet")
    values = pl.read_csv(result.folder / "values.csv")

    def of(arm: str) -> np.ndarray:
        rows = values.filter((pl.col("arm") == arm) & (pl.col("measure") == "variance")).sort("seed")
        return rows["value"].to_numpy()

    row = table.row(by_predicate=(pl.col("arm") == "helped") & (pl.col("measure") == "variance"), named=True)
    assert row["effect"] == pytest.approx((of("helped") - of("alone")).mean())
    assert row["low"] < row["effect"] < row["high"] and row["seeds"] == 3
    assert row["p_holm"] >= row["p"]
    assert table.height == 4  # two arms against the base arm in two measures


def test_arms_that_differ_by_a_constant_up_to_rounding_have_a_table(folder: Path) -> None:
    """Errors of 1e-16 at every seed: the ratio of the variances is about 1e31, beyond any whole number."""
    study = load(folder, STUDY)
    noise = np.random.default_rng(3).normal(1, 0.3, 4)
    rows = [
        (arm, "", seed, float(noise[seed] + shift + 2e-16 * seed))
        for arm, shift in (("alone", 0.0), ("helped", 2.0), ("more", 0.0))
        for seed in range(4)
    ]
    rows_of = {row.arm: row for row in analysis.compare_arms(results_of(study, rows)) if row.measure == "variance"}
    table = analysis.effect_table(list(rows_of.values()))
    assert table["saved"].to_list() == [None, None] and table["bootstrap_low"].to_list() == [None, None]
    assert rows_of["helped"].significant and rows_of["helped"].effect == pytest.approx(2)
    assert not rows_of["more"].significant and rows_of["more"].effect == 0


def test_regret_is_against_the_best_arm_of_the_same_world(folder: Path) -> None:
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    study = load(folder, STUDY + worlds)
    means = {("alone", "a"): 1.0, ("alone", "b"): 9.0, ("helped", "a"): 2.0, ("helped", "b"): 4.0}
    means |= {("more", "a"): 6.0, ("more", "b"): 3.0}
    rows = [(arm, world, seed, mean + d) for (arm, world), mean in means.items() for seed, d in ((1, -0.1), (2, 0.1))]
    measure = study.measures[0].model_copy(update={"goal": "lower"})
    regrets = analysis.regrets(results_of(study, rows), measure)
    assert [r.arm for r in regrets] == ["helped", "more", "alone"]
    assert [round(r.worst_regret, 6) for r in regrets] == [1.0, 5.0, 6.0]
    assert [r.worst_world for r in regrets] == ["a", "a", "b"] and regrets[0].mean == pytest.approx(3.0)


def test_ways_to_spend_are_compared_at_equal_cost(folder: Path) -> None:
    """Between its arms a way is interpolated, beyond the dearest it is not; by hand: 4 - 6 at a cost of 10."""
    text = STUDY + (
        '[prices]\nreviews = 2.0\n[equal_cost]\nat = [10.0, 50.0]\nlevers = { one = ["helped"], other = ["more"] }\n'
    )
    rows = [(arm, "", s, y + s / 10) for arm, y in (("alone", 8.0), ("helped", 4.0), ("more", 2.0)) for s in (1, 2, 3)]
    study = load(folder, text)
    results = results_of(study, rows)
    amount = {"alone": 5.0, "helped": 15.0, "more": 20.0}
    costs = results.values.select("arm", "world", "seed", cost=pl.lit("reviews"))
    costs = costs.with_columns(amount=pl.col("arm").replace_strict(amount))
    results = Results(study, results.runs, results.values, results.series, costs)
    assert results.spending().filter(pl.col("arm") == "more")["cost"].to_list() == [40.0] * 3
    [row] = [m for m in analysis.compare_at_equal_cost(results) if m.measure == "variance"]
    one, other = 8 - 4 * 10 / 20, 8 - 6 * 10 / 30
    assert row.difference == pytest.approx(other - one) and (row.cost, row.way, row.against) == (10.0, "other", "one")


@pytest.mark.slow
def test_rankings_and_regrets_are_tables_too_and_costs_have_zeros(folder: Path) -> None:
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    result = run(folder, STUDY + worlds)
    ranking = pl.read_csv(result.folder / "ranking.csv")
    assert ranking.height == 2 * 2 * 3 and ranking["place"].min() == 1
    assert pl.read_parquet(result.folder / "regret.parquet").height == 2 * 3
    injected = result.results.costs.filter((pl.col("cost") == "documents_injected") & (pl.col("arm") == "alone"))
    assert injected["amount"].to_list() == [0.0] * 6
