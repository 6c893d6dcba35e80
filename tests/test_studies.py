"""Study files, what their runs come to, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.runs.paths import folder_of
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.studies import analysis
from ecosystem.studies.frontier import Threshold, conduct_frontier, idle, sentence
from ecosystem.studies.progress import Board
from ecosystem.studies.report import write_study
from ecosystem.studies.report.data import StudyReportData, findings
from ecosystem.studies.results import Results
from ecosystem.studies.run_study import Means, conduct
from ecosystem.studies.study import Frontier, Study

WORLD = """
name = "loop"
steps = 4
[sources.truth]
kind = "gaussian"
[web]
kind = "isolated"
sites = 4
initial = { source = "truth", documents = 80 }
[[changes]]
at = 2
set = { "web.retain" = ["newest"] }
[policies.newest]
kind = "replace"
[policies.fresh]
kind = "inject_real"
source = "truth"
fraction = 0.5
mode = "fresh"
[models.normal]
kind = "gaussian"
[trainers.lab]
count = 4
model = "normal"
sites = 1
scrape = { docs = 100, strategy = "reach", links = 0 }
publish = 20
[measure]
synthetic = 0
sites = false
"""

STUDY = """
name = "small"
base = "loop.toml"
seeds = [1, 2, 3]
reference = "alone"
[arms.alone]
[arms.helped]
"trainers.lab.select" = ["fresh"]
[arms.more]
"trainers.lab.select" = ["fresh"]
"policies.fresh.fraction" = 0.8
[[measures]]
metric = "variance"
[[measures]]
metric = "w2"
of = "lab"
window = [2, 4]
"""

SERIAL = Means(engine="serial", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loop.toml").write_text(WORLD)
    (tmp_path / "small.toml").write_text(STUDY)
    return tmp_path


def study(folder: Path, text: str = STUDY) -> Study:
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def done(folder: Path, text: str = STUDY, **more):
    return conduct(study(folder, text), folder, SERIAL, Board(quiet=True), out=str(folder / "out"), **more)


# What may stand in a file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('metric = "variance"', 'metric = "varience"'), 'no metric "varience" (did you mean "variance"?)'),
        (('of = "lab"', 'of = "labs"'), 'no [trainers.labs] (did you mean "lab"?)'),
        (("window = [2, 4]", "window = [2, 9]"), "step 9 comes after the last step, 4"),
        (("window = [2, 4]", "window = [4, 2]"), "window: 4 comes after 2"),
        (("seeds = [1, 2, 3]", "seeds = [1, 1]"), "seeds: each may stand there once only"),
        (("seeds = [1, 2, 3]", "seeds = [1]"), "a difference needs at least two"),
        (('reference = "alone"', 'reference = "alon"'), 'no arm "alon" (did you mean "alone"?)'),
        (('base = "loop.toml"', 'base = "loob"'), 'there is no scenario "loob"'),
        (('fraction" = 0.8', 'fraction" = 1.8'), "arms.more: policies.fresh.fraction"),
        (('fraction" = 0.8', 'fracton" = 0.8'), 'unknown key (did you mean "fraction"?)'),
        (("[arms.more]", "[arms.'more money']"), 'the name "more money" may only have'),
        (("[arms.alone]", "[axes]\nsteps = [3, 4]\n[arms.alone]"), "either arms (named sets of path = value) or axes"),
        (('name = "small"', 'nam = "small"'), 'unknown key (did you mean "name"?)'),
        (('metric = "w2"', 'metric = "mean_words"'), 'say goal = "lower" or "higher"'),
        (("[arms.alone]", "[branch]\nstep = 4\n[arms.alone]"), "branch.step = 4: give a step from 0 to 3"),
        (
            ("[arms.alone]", "[prices]\nmilk = 2.0\n[arms.alone]"),
            'prices: there is no cost "milk"; there are tokens_trained, ',
        ),
        (('of = "lab"', 'of = "labs"'), "measures.1.of: there is no [trainers.labs]"),
        (('of = "lab"', 'of = "x"'), "there are lab, web, in arms.alone"),
        (('metric = "variance"', 'metric = "varience"'), "measures.0.metric: there is no metric"),
        (("window = [2, 4]", "window = [4, 2]"), "measures.1.window: 4 comes after 2"),
        (('policies.fresh.fraction"', 'policies.fesh.fraction"'), "arms.more: policies.fesh.fraction: there is no"),
        (('policies.fresh.fraction"', 'policies.fesh.fraction"'), '(did you mean "fresh"?); defined in [policies]: '),
        (('policies.fresh.fraction" = 0.8', 'trainers.la.publish" = 8'), 'no [trainers.la] (did you mean "lab"?)'),
        (
            ('policies.fresh.fraction" = 0.8', 'policies.new.kind" = "inject"'),
            "arms.more: policies.new: unknown policy kind",
        ),
        (("[arms.alone]", '[design]\nmethod = "sobol"\npoints = 3\n[arms.alone]'), "no power of two"),
    ],
)
def test_a_mistake_is_told_where_it_stands(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        study(folder, STUDY.replace(*change)).cells(folder)
    assert said in str(error.value)
    assert all(line.startswith(f"{folder / 'study.toml'}: ") for line in str(error.value).splitlines())


def test_a_mistake_in_a_file_ends_the_command_with_a_sentence(folder: Path) -> None:
    (folder / "small.toml").write_text(STUDY.replace("0.8", "1.8"))
    result = CliRunner().invoke(cli, ["study", str(folder / "small.toml"), "--dry-run"])
    assert isinstance(result.exception, ScenarioError) and not (folder / "out").exists()


def test_cells_are_arms_by_worlds_by_seeds_and_seeds_come_first(folder: Path) -> None:
    worlds = STUDY + '[worlds.short]\nsteps = 4\n[worlds.wide]\n"trainers.lab.publish" = 30\n'
    cells = study(folder, worlds).cells(folder)
    assert len(cells) == 3 * 2 * 3
    assert [cell.scenario.seed for cell in cells] == [1] * 6 + [2] * 6 + [3] * 6
    assert cells[0].label == "alone in short, seed 1"
    wide = next(c for c in cells if (c.arm, c.world) == ("more", "wide"))
    assert wide.scenario.trainers["lab"].publish == 30 and wide.scenario.policies["fresh"].fraction == 0.8


def axes(design: str, values: str) -> str:
    return STUDY[: STUDY.index("reference")] + f'[axes]\n{values}\n{design}\n[[measures]]\nmetric = "variance"\n'


def test_axes_make_a_grid_of_named_arms(folder: Path) -> None:
    text = axes("", '"trainers.lab.publish" = [10, 20]\n"policies.fresh.fraction" = [0.25, 0.5, 0.75]')
    found = study(folder, text)
    assert len(found.levers()) == 6 and len(found.cells(folder)) == 18
    assert next(iter(found.levers())) == found.base_arm == "publish=10, fraction=0.25"


@pytest.mark.parametrize("method", ["latin_hypercube", "sobol"])
def test_designs_spread_points_over_ranges(folder: Path, method: str) -> None:
    ranges = '"trainers.lab.publish" = { low = 10, high = 1000, scale = "log", whole = true }\n'
    ranges += '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'
    found = study(folder, axes(f'[design]\nmethod = "{method}"\npoints = 16', ranges))
    points = list(found.levers().values())
    counts = np.array([point["trainers.lab.publish"] for point in points])
    shares = np.array([point["policies.fresh.fraction"] for point in points])
    assert len(points) == 16 and counts.dtype.kind == "i" and 10 <= counts.min() < counts.max() <= 1000
    assert np.unique(np.floor(shares / 0.8 * 16)).size >= 15  # one in every sixteenth of the range (rounding aside)
    assert found.levers() == study(folder, axes(f'[design]\nmethod = "{method}"\npoints = 16', ranges)).levers()


def test_a_grid_of_a_range_and_a_spread_of_a_list_are_mistakes(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="a grid design needs listed values"):
        study(folder, axes("", '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'))
    with pytest.raises(ScenarioError, match="a sobol design needs a range"):
        study(folder, axes('[design]\nmethod = "sobol"\npoints = 4', '"policies.fresh.fraction" = [0.1, 0.2]'))
    with pytest.raises(ScenarioError, match="points: say how many"):
        study(folder, axes('[design]\nmethod = "sobol"', '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'))


# What comes out


def test_a_study_measures_what_its_runs_did(folder: Path) -> None:
    """Every value is the mean over trainers at its step, or over a window, of the ordinary run of that arm and seed."""
    made = done(folder)
    assert made.results.runs["error"].null_count() == 9
    for arm, _, seed, run, *_ in made.results.runs.iter_rows():
        stored = Run.open(run)
        assert stored.seed == seed
        metrics = stored.metrics.filter(pl.col("scope") == "trainer")
        found = dict(
            made.results.values.filter((pl.col("arm") == arm) & (pl.col("seed") == seed))
            .select("measure", "value")
            .iter_rows()
        )
        variance = metrics.filter((pl.col("metric") == "variance") & (pl.col("step") == 4))["value"].mean()
        w2 = metrics.filter((pl.col("metric") == "w2") & pl.col("step").is_between(2, 4))["value"].mean()
        assert found["variance"] == pytest.approx(variance) and found["lab/w2@2-4"] == pytest.approx(w2)


def test_the_table_of_effects_is_that_of_the_values(folder: Path) -> None:
    made = done(folder)
    table = pl.read_parquet(made.folder / "effects.parquet")
    values = pl.read_csv(made.folder / "values.csv")

    def of(arm: str) -> np.ndarray:
        rows = values.filter((pl.col("arm") == arm) & (pl.col("measure") == "variance")).sort("seed")
        return rows["value"].to_numpy()

    row = table.row(by_predicate=(pl.col("arm") == "helped") & (pl.col("measure") == "variance"), named=True)
    assert row["effect"] == pytest.approx((of("helped") - of("alone")).mean())
    assert row["low"] < row["effect"] < row["high"] and row["seeds"] == 3
    assert row["p_holm"] >= row["p"]
    assert table.height == 4  # two arms against the base arm in two measures


def test_a_second_call_runs_nothing_and_says_the_same(folder: Path) -> None:
    first = done(folder)
    times = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("loop-*/*/commits/*.json")}
    second = done(folder)
    assert times == {p: p.stat().st_mtime_ns for p in times} and len(times) == 9 * 5
    assert second.results.values.equals(first.results.values)
    assert second.results.runs["attempts"].to_list() == [0] * 9


def test_arms_that_come_to_the_same_scenario_share_its_run(folder: Path) -> None:
    text = STUDY.replace("[arms.more]", '[arms.named]\n"policies.fresh.mode" = "fresh"\n[arms.more]')
    made = done(folder, text)
    runs = made.results.runs
    assert runs.height == 12 and runs["run"].n_unique() == 9


def test_arms_that_fork_share_the_history_of_the_base(folder: Path) -> None:
    """After the fork they are what the uninterrupted scenario with that timed change is, bit for bit."""
    text = STUDY + "[branch]\nstep = 2\n"
    made = done(folder, text)
    assert made.results.runs["error"].null_count() == 9
    cells = {(c.arm, c.scenario.seed): c for c in study(folder, text).cells(folder)}
    alone = Run.open(folder_of(cells["alone", 1].scenario, folder / "out"))
    helped = Run.open(folder_of(cells["helped", 1].scenario, folder / "out"))
    early = pl.col("step") <= 2
    assert helped.metrics.filter(early).equals(alone.metrics.filter(early))
    assert not helped.metrics.filter(~early).equals(alone.metrics.filter(~early))
    assert not (helped.path / "corpus" / "000001.parquet").exists()  # read through, not copied
    import ecosystem

    whole = ecosystem.run(cells["helped", 1].scenario, out=folder / "elsewhere")
    assert whole.metrics.equals(helped.metrics)


def test_a_lever_may_be_the_step_at_which_an_arm_forks(folder: Path) -> None:
    text = STUDY.replace(
        "[arms.more]", '[arms.later]\n"branch.step" = 3\n"trainers.lab.select" = ["fresh"]\n[arms.more]'
    )
    cells = study(folder, text + "[branch]\nstep = 1\n").cells(folder)
    assert {cell.arm: cell.fork for cell in cells} == {"alone": 1, "helped": 1, "later": 3, "more": 1}
    assert {cell.arm: cell.trunk is None for cell in cells}["alone"]  # nothing to fork: it is the base itself


def test_a_stored_run_of_another_scenario_is_no_trunk(folder: Path) -> None:
    import ecosystem
    from ecosystem.scenario.scenario import Scenario

    other = ecosystem.run(
        Scenario.load(folder / "loop.toml").override({"trainers.lab.publish": 21}), out=folder / "out"
    )
    text = STUDY + f'[branch]\nstep = 2\nrun = "{other.path.parent}"\n'
    with pytest.raises(ScenarioError, match="a run of another scenario"):
        done(folder, text)


# Worlds, costs


def table_of(rows: list[tuple[str, str, int, float]], measure: str = "variance") -> Results:
    cells = pl.DataFrame([r[:3] for r in rows], schema=["arm", "world", "seed"], orient="row")
    values = cells.with_columns(measure=pl.lit(measure), value=pl.Series([r[3] for r in rows]))
    runs = cells.with_columns(run=pl.lit("x"), error=pl.lit(None, pl.String), attempts=pl.lit(0), seconds=pl.lit(1.0))
    series = cells.with_columns(
        of=pl.lit(""), metric=pl.lit(measure), step=pl.lit(4, pl.Int64), value=pl.Series([r[3] for r in rows])
    )
    return Results(runs, values, series, cells.with_columns(cost=pl.lit("reviews"), amount=pl.lit(0.0)).clear())


def test_regret_is_against_the_best_arm_of_the_same_world(folder: Path) -> None:
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    found = study(folder, STUDY + worlds)
    means = {("alone", "a"): 1.0, ("alone", "b"): 9.0, ("helped", "a"): 2.0, ("helped", "b"): 4.0}
    means |= {("more", "a"): 6.0, ("more", "b"): 3.0}
    rows = [(arm, world, seed, mean + d) for (arm, world), mean in means.items() for seed, d in ((1, -0.1), (2, 0.1))]
    measure = found.measures[0].model_copy(update={"goal": "lower"})
    regrets = analysis.regrets(found, table_of(rows), measure)
    assert [r.arm for r in regrets] == ["helped", "more", "alone"]
    assert [round(r.worst_regret, 6) for r in regrets] == [1.0, 5.0, 6.0]
    assert [r.worst_world for r in regrets] == ["a", "a", "b"] and regrets[0].mean == pytest.approx(3.0)


def test_ways_to_spend_are_compared_at_equal_cost(folder: Path) -> None:
    """Between its arms a way is interpolated, beyond the dearest it is not; by hand: 4 - 6 at a cost of 10."""
    text = STUDY + (
        '[prices]\nreviews = 2.0\n[equal_cost]\nat = [10.0, 50.0]\nlevers = { one = ["helped"], other = ["more"] }\n'
    )
    rows = [(arm, "", s, y + s / 10) for arm, y in (("alone", 8.0), ("helped", 4.0), ("more", 2.0)) for s in (1, 2, 3)]
    results = table_of(rows)
    amount = {"alone": 5.0, "helped": 15.0, "more": 20.0}
    costs = results.values.select("arm", "world", "seed", cost=pl.lit("reviews"))
    costs = costs.with_columns(amount=pl.col("arm").replace_strict(amount))
    results = Results(results.runs, results.values, results.series, costs)
    found = study(folder, text)
    assert results.spending(found).filter(pl.col("arm") == "more")["cost"].to_list() == [40.0] * 3
    [row] = [m for m in analysis.matched(found, results) if m.measure == "variance"]
    one, other = 8 - 4 * 10 / 20, 8 - 6 * 10 / 30
    assert row.difference == pytest.approx(other - one) and (row.cost, row.way, row.against) == (10.0, "other", "one")


# The report


def test_the_report_has_every_part_and_nothing_can_run(folder: Path) -> None:
    text = STUDY.replace('name = "small"', 'name = "small"\ndescription = "<script>alert(1)</script> & more"')
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    made = done(folder, text + worlds)
    page = made.report.read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    for part in ("What each arm changes", "Ranking", "Over uncertain worlds", "Over time", "Runs", "Methods"):
        assert part in page
    for name in ("effect_variance_a", "course_lab_w2_b"):
        assert (made.folder / "charts" / f"{name}.svg").exists() and f'data-chart="{name}"' in page
    assert page.count("sharing luck between arms") == 2 and "Trainers had nothing to train on" not in page
    specs = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    assert all(isinstance(spec["height"], int) for spec in specs.values())  # others are warned of in a browser


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
    made = done(folder, text)
    told = {(arm, of): row for arm, of, *row in made.results.training.filter(seed=2).drop("world", "seed").iter_rows()}
    fine = [4, 0, 0, 16, 0]
    assert told == {
        **{(arm, "lab"): fine for arm in ("alone", "helped", "more")},
        ("refused", "lab"): [4, 4, 0, 16, 16],
        ("human", "lab"): [4, 0, 4, 16, 12],
        **{(arm, "other"): [2, 0, 0, 4, 0] for arm in ("alone", "helped", "refused", "human", "more")},
    }
    mark = made.results.untrained
    assert mark("refused", "", "lab") == "never trained" and mark("human", "", "lab") == "stopped training"
    assert mark("refused", "") == "8 of 12 trainers never trained" and mark("refused", "", "other") == ""
    for table in (made.effects, pl.read_parquet(made.folder / "ranking.parquet")):
        marks = dict(table.filter(measure=made.study.measures[1].name).select("arm", "training").iter_rows())
        assert marks.pop("human") == "stopped training" and set(marks.values()) <= {"", "never trained"}
    page = made.report.read_text()
    assert "Trainers had nothing to train on in <b>human</b> (8 of 12 trainers stopped training)" in page
    assert "<small>(stopped training)</small>" in page
    assert {row["arm"] for row in made.summary()["untrained"]} == {"refused", "human"}


def test_damaged_runs_are_told_and_left_out(folder: Path) -> None:
    made = done(folder)
    alone, helped, more = (Path(run) for run in made.results.runs["run"][:3])  # of seed 1
    (alone / "metrics" / "000004.parquet").write_bytes(b"damaged")
    altered = (helped / "scenario.toml").read_text().replace("publish = 20", "publish = 21")
    (helped / "scenario.toml").write_text(altered)
    (more / "scenario.toml").write_text(altered[:200] + "[")
    again = done(folder)
    errors = again.results.runs["error"]
    assert errors.is_not_null().to_list() == [True] * 3 + [False] * 6 and "000004.parquet" in errors[0]
    for error, run, said in ((errors[1], helped, "has been altered"), (errors[2], more, "is damaged")):
        assert error.startswith(f"{run / 'scenario.toml'}: ") and said in error and "Restore it from a copy" in error
    assert "3 of 9 runs failed" in again.report.read_text()
    table = pl.read_parquet(again.folder / "effects.parquet")
    assert set(table["seeds"]) == {2}


def test_arms_that_change_nothing_are_told_apart_from_those_that_cannot_be_told(folder: Path) -> None:
    text = STUDY.replace("[arms.more]", '[arms.idle]\n"policies.fresh.fraction" = 0.8\n[arms.more]')  # not selected
    rows = [(arm, "", s, s + k * s * s) for arm, k in (("alone", 0), ("idle", 0), ("helped", 1e-3)) for s in (1, 2, 3)]
    rows = [(arm, world, seed, y - (arm == "helped") * 0.005) for arm, world, seed, y in rows]
    told = findings(StudyReportData(study(folder, text), table_of(rows)))
    assert "variance: **helped** cannot be told from **alone**." in told
    assert any(s.startswith("variance: **idle** had exactly the values of **alone** at every seed") for s in told)


def test_the_command_says_where_the_report_is_and_as_json_what_failed(folder: Path) -> None:
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--engine", "serial"]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["runs"] == 9 and summary["failed"] == [] and Path(summary["report"]).exists()
    dry = CliRunner().invoke(cli, [*arguments, "--dry-run"])
    assert dry.stdout.count("(there already)") == 9


def test_sensitivity_of_a_study_says_which_lever_matters(folder: Path) -> None:
    ranges = '"trainers.lab.publish" = { low = 5, high = 80, whole = true }\n'
    ranges += '"policies.fresh.fraction" = { low = 0.0, high = 0.8 }'  # not selected by anybody: it does nothing
    text = axes('[design]\nmethod = "morris"\npoints = 4', ranges).replace("[1, 2, 3]", "[1, 2]")
    made = done(folder, text)
    page = made.report.read_text()
    assert "How much each axis matters" in page and "What each arm changes" not in page
    charts = json.loads(page.split('id="specs">')[1].split("</script>")[0])
    rows = next(iter(charts["index_variance"]["datasets"].values()))
    size = {(r["row"], r["index"]): r["value"] for r in rows}
    assert size["policies.fresh.fraction", "mu*: mean size of its effects"] == 0
    assert size["trainers.lab.publish", "mu*: mean size of its effects"] > 0
    table = pl.read_csv(made.folder / "sensitivity.csv")
    assert table.select("measure", "axis").rows() == [("variance", axis) for axis in made.study.axes]
    assert table["main"].to_list() == [size[axis, "mu*: mean size of its effects"] for axis in made.study.axes]
    assert table["total_half"].null_count() == 2 and "± 0<" in page  # of the axis that does nothing
    assert page.split("How much each axis matters</h2>")[1].count("<td>–</td>") == 2  # sigma has no interval
    assert not (made.folder / "effects.csv").exists()


# Frontiers


FRONTIER = """
name = "where"
base = "loop.toml"
seeds = [1, 2, 3]
path = "trainers.lab.publish"
range = { low = 5, high = 200, whole = true, scale = "log" }
measure = { metric = "variance" }
limit = 0.8
precision = 0.1
"""


def test_a_frontier_is_searched_resumed_and_reported(folder: Path) -> None:
    (folder / "where.toml").write_text(FRONTIER)
    frontier = Frontier.load(folder / "where.toml")
    found, page = conduct_frontier(frontier, folder, SERIAL, Board(quiet=True), out=str(folder / "out"))
    assert found.rising and found.low <= found.high and len(found.tried) >= 3
    told = sentence(frontier, found)
    assert "variance" in told and told.split(";")[0][:40] in page.read_text()
    near = Threshold(None, 5, 200, True, tried={5: np.array([0.1, 0.2]), 200: np.array([0.6, 0.9])})
    assert found.idle == {} and "had nothing to train on" not in page.read_text()
    assert "does not cross 0.8; at 200 it cannot be told from it (95 %)" in sentence(frontier, near)
    assert "the threshold lies outside this range" in sentence(frontier, replace(near, low=200))
    times = {p: p.stat().st_mtime_ns for p in (folder / "out").glob("loop-*/*/commits/*.json")}
    again, _ = conduct_frontier(frontier, folder, SERIAL, Board(quiet=True), out=str(folder / "out"))
    assert again.value == found.value and times == {p: p.stat().st_mtime_ns for p in times}


def test_a_frontier_marks_where_trainers_had_nothing_to_train_on(folder: Path) -> None:
    """At the upper end all machine text is refused, and after step 1 there is no other."""
    policy = '[policies.none]\nkind = "synthetic_detector"\ntrue_positive_rate = 0.0\nfalse_positive_rate = 0.0\n'
    (folder / "loop.toml").write_text(WORLD.replace("publish = 20", 'publish = 20\nselect = ["none"]') + policy)
    text = FRONTIER.replace("trainers.lab.publish", "policies.none.true_positive_rate").replace(
        "limit = 0.8", "limit = 99"
    )
    text = text.replace('low = 5, high = 200, whole = true, scale = "log"', "low = 0.0, high = 1.0")
    (folder / "where.toml").write_text(text.replace("[1, 2, 3]", "[1, 2]"))
    frontier = Frontier.load(folder / "where.toml")
    found, page = conduct_frontier(frontier, folder, SERIAL, Board(quiet=True), out=str(folder / "out"))
    assert found.idle == {1.0: "stopped training"} and list(found.tried) == [0.0, 1.0]
    told = "Trainers had nothing to train on at policies.none.true_positive_rate = 1 (stopped training)"
    assert told in idle(frontier, found) and told in page.read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('path = "trainers.lab.publish"', 'path = "trainers.lab.publis"'), "publis: unknown key"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", at = 9 }'), "step 9 comes after"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", of = "x" }'), "no [trainers.x]"),
        (('measure = { metric = "variance" }', 'measure = { metric = "variance", of = "x" }'), "there are lab, web"),
        (("low = 5", "low = 500"), "low (500) must be below high (200)"),
        (("seeds = [1, 2, 3]", "seeds = [1]"), "seeds"),
    ],
)
def test_a_mistake_in_a_frontier_is_told(folder: Path, change: tuple[str, str], said: str) -> None:
    (folder / "where.toml").write_text(FRONTIER.replace(*change))
    with pytest.raises(ScenarioError) as error:
        frontier = Frontier.load(folder / "where.toml")
        conduct_frontier(frontier, folder, SERIAL, Board(quiet=True), out=str(folder / "out"))
    assert said in str(error.value)


def test_a_report_of_a_study_without_any_value(folder: Path) -> None:
    found = study(folder)
    empty = table_of([("alone", "", 1, float("nan"))])
    assert write_study(found, empty, Store(folder / "s")).exists()


# What the project brings


SHIPPED = sorted((Path(__file__).parents[1] / "scenarios" / "studies").glob("*.toml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_study_that_comes_with_the_project_is_sound(file: Path) -> None:
    if "[[measures]]" in file.read_text():
        assert len(Study.load(file).cells(file.parent)) >= 4
    else:
        frontier = Frontier.load(file)
        for end in (frontier.range.low, frontier.range.high):
            frontier.scenario(file.parent, round(end) if frontier.range.whole else end, 1)


def test_a_study_is_checked_and_described_like_a_scenario(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["check", str(folder / "small.toml"), str(folder / "loop.toml")])
    assert "small.toml: good (9 runs, 3 arms)" in result.stdout and "loop.toml: good (4 steps" in result.stdout
    assert "note" not in result.stdout
    (folder / "loop.toml").write_text(WORLD.replace("publish = 20", "publish = 20\nbudget = { tokens = 9 }"))
    (folder / "where.toml").write_text(FRONTIER)
    for file in ("small.toml", "where.toml"):
        said = CliRunner().invoke(cli, ["check", str(folder / file)]).stdout
        assert said.count(f"{file}: note: trainers.lab.budget has no effect") == 1
    result = CliRunner().invoke(cli, ["run", str(folder / "small.toml")])
    assert "is a study, not a scenario: ecosystem study" in str(result.exception)
    for what in ("study", "frontier"):
        schema = json.loads(CliRunner().invoke(cli, ["schema", what]).stdout)
        assert {"name", "base", "seeds"} <= set(schema["properties"])


def test_from_python_a_study_is_one_call(folder: Path) -> None:
    import ecosystem

    found = ecosystem.study(folder / "small.toml", folder / "out", engine="serial", threads=1)
    assert found.effects.height == 4 and found.report.exists() and found.results.values.height == 18
    for how, said in (
        ({"engine": "slurm"}, "--engine slurm: there is no such engine; there are serial, processes, ray"),
        ({"jobs": 0}, "--jobs 0: give at least 1"),
        ({"device": "tpu"}, "--device tpu: there is no such thing"),
    ):
        with pytest.raises(EcosystemError, match=said):  # though there is nothing left to run
            ecosystem.study(folder / "small.toml", folder / "out", **how)
    (folder / "where.toml").write_text(FRONTIER)
    frontier = Frontier.load(folder / "where.toml")
    found, page = ecosystem.frontier(frontier, folder / "out", base=folder, engine="serial", threads=1)
    assert found.value is not None and page.exists()


def test_the_courses_have_a_line_where_each_policy_starts(folder: Path) -> None:
    late = STUDY.replace("[arms.more]", '[arms.more]\n"branch.step" = 3') + "[branch]\nstep = 1\n"
    made = done(folder, late)
    page = json.loads(made.report.read_text().split('id="specs">')[1].split("</script>")[0])
    rows = [row for data in page["course_variance"]["datasets"].values() for row in data if "change" in row]
    assert {(row["step"], row["change"]) for row in rows} == {(2, "helped"), (4, "more")}


def test_a_study_is_confirmed_with_other_models_and_fewer_seeds(folder: Path) -> None:
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--dry-run"]
    first = CliRunner().invoke(cli, arguments).stdout
    other = CliRunner().invoke(cli, [*arguments, "--seeds", "2", "--set", "trainers.lab.publish=30"]).stdout
    assert first.count("(to do)") == 9 and other.count("(to do)") == 6
    assert not {line.split()[3] for line in first.splitlines()[:9]} & {
        line.split()[3] for line in other.splitlines()[:6]
    }
    for wrong, said in ((["--seeds", "1"], "at least two"), (["--seeds", "4"], "there are 3")):
        assert said in str(CliRunner().invoke(cli, [*arguments, *wrong]).exception)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[arms.alone]", "[arms.alone]\nseed = 20"), '"seed" is the study\'s own'),
        (("[[measures]]", '[[measures]]\nmetric = "variance"\n[[measures]]'), "measures: variance stands there twice"),
        (('base = "loop.toml"', 'base = "small.toml"'), "is itself a study"),
    ],
)
def test_what_would_compare_nothing_is_refused(folder: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        study(folder, STUDY.replace(*change, 1)).cells(folder)


def test_grids_have_an_end_and_no_value_twice(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="has a value twice"):
        study(folder, axes("", '"trainers.lab.publish" = [20, 20]'))
    many = f'"trainers.lab.publish" = {list(range(1, 201))}\n"trainers.lab.scrape.docs" = {list(range(1, 201))}'
    with pytest.raises(ScenarioError, match="40,000 arms and worlds are more"):
        study(folder, axes("", many))


def test_the_wrong_sort_of_file_is_told_in_a_sentence(folder: Path) -> None:
    (folder / "where.toml").write_text(FRONTIER)
    for kind, file, said in (
        (Study, "loop.toml", "is a scenario, not a study: ecosystem run"),
        (Study, "where.toml", "is a frontier, not a study: ecosystem frontier"),
        (Frontier, "small.toml", "is a study, not a frontier: ecosystem study"),
    ):
        with pytest.raises(ScenarioError, match=said):
            kind.load(folder / file)


def test_means_over_different_populations_are_told(folder: Path) -> None:
    another = '[arms.more]\n"trainers.other" = { count = 1, model = "normal", sites = 1, publish = 20, '
    another += 'scrape = { docs = 100, strategy = "reach", links = 0 } }\n"web.sites" = 5\n'
    another += '"web.initial.documents" = 100\n'
    made = done(folder, STUDY.replace("[arms.more]", another))
    assert made.results.mixed == ("variance",)  # the other measure says whose it is
    assert "not all arms have measured the same populations" in made.report.read_text()


def test_rankings_and_regrets_are_tables_too_and_costs_have_zeros(folder: Path) -> None:
    worlds = '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n'
    made = done(folder, STUDY + worlds)
    ranking = pl.read_csv(made.folder / "ranking.csv")
    assert ranking.height == 2 * 2 * 3 and ranking["place"].min() == 1
    assert pl.read_parquet(made.folder / "regret.parquet").height == 2 * 3
    injected = made.results.costs.filter((pl.col("cost") == "documents_injected") & (pl.col("arm") == "alone"))
    assert injected["amount"].to_list() == [0.0] * 6


def test_a_study_that_measures_nothing_says_so_at_once(folder: Path) -> None:
    (folder / "loop.toml").write_text(WORLD.replace("[trainers.lab]", "[trainers.lab]\noffset = 9"))
    arguments = ["study", str(folder / "small.toml"), "--out", str(folder / "out"), "--engine", "serial"]
    assert "variance has no finite value in 9 of 9 runs" in CliRunner().invoke(cli, arguments).output
    refused = '[policies.none]\nkind = "synthetic_detector"\ntrue_positive_rate = 1.0\nfalse_positive_rate = 1.0\n'
    (folder / "loop.toml").write_text(WORLD + refused)
    text = STUDY.replace("[arms.alone]", '[arms.alone]\n"trainers.lab.select" = ["none"]').replace(
        "[1, 2, 3]", "[1, 2]"
    )
    [told] = [
        s
        for s in StudyReportData(study(folder, text), done(folder, text).results).gaps()
        if s.startswith("variance has")
    ]
    assert "2 of 6 runs" in told and "(step 4 of alone, seed 1: lab/0 had nothing to train on: " in told


def test_pairing_that_helped_little_says_why(folder: Path) -> None:
    """Arms that agree perfectly but vary by different amounts: the spread that one has more is not shared."""
    rows = [(arm, "", s, k * s) for arm, k in (("alone", 1.0), ("helped", 2.5), ("more", 2.6)) for s in (1, 2, 3)]
    found = study(folder)
    write_study(found, table_of(rows), Store(folder / "s"))
    still = StudyReportData(found, table_of([(arm, world, s, y * (arm != "alone")) for arm, world, s, y in rows]))
    assert still.effects and "nan" not in " ".join(findings(still))
    two = StudyReportData(found, table_of([row for row in rows if row[2] < 3]))  # any two points lie on a line
    assert two.effects and not any("sharing luck" in told for told in findings(two))
    assert all(row.saved is None and np.isnan(row.correlation) for row in two.effects)
    assert "they vary by different amounts" in (folder / "s" / "report.html").read_text()
