"""Dates of a run with a calendar: in tables, charts, sentences, the command line, branches, the page and studies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from ecosystem.api import branch, step_line
from ecosystem.app.knobs import knobs_of
from ecosystem.calendar import Calendar, step_at
from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.report import charts, findings, run_charts
from ecosystem.report.build import write_report
from ecosystem.report.data import RunReportData
from ecosystem.runs.branch import Branch
from ecosystem.runs.execute import begin
from ecosystem.runs.planning.estimate import Plan
from ecosystem.runs.run import Run, folder_of
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.run_study import run_study
from ecosystem.studies.spec.study import Study
from tests.conftest import MACHINE
from tests.studies.small_runs import WORLD
from tests.studies.small_study import SERIAL
from tests.test_calendar_scenarios import IN_TIME, scenario

CALENDAR = Calendar.of("2022-06-01", "1 month")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Run:
    spec, out = scenario(IN_TIME), tmp_path_factory.mktemp("dated")
    for _ in begin(spec, out=out, machine=MACHINE, cache=cache):
        pass
    return Run.open(folder_of(spec, out))


def test_tables_of_a_run_have_the_dates_of_their_steps(run) -> None:
    assert run.metrics.columns[-1] == "date"
    for table, step in ((run.metrics, "step"), (run.costs(), "step"), (run.documents.collect(), "t"),
                        (run.ledger.collect(), "step")):  # fmt: skip
        assert table.height
        assert table.schema["date"] == pl.Date
        assert all(day == CALENDAR.date_of(t) for t, day in table.select(step, "date").iter_rows())
    assert "date" not in run.costs(total=True).columns
    assert "date" not in run.store.table("metrics").columns  # files of a run stay as they are


def _milliseconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def test_charts_over_steps_have_an_axis_of_dates(run) -> None:
    data = RunReportData.of(run)
    for chart in (run_charts.quality(data, "perplexity"), run_charts.contamination(data, "depth")):
        for channel in charts.scaled(chart.spec, "x"):
            assert (channel["field"], channel["type"], channel["scale"]["type"]) == ("date", "temporal", "utc")
            ends = [{"year": 2022, "month": month, "date": 1, "utc": True} for month in (6, 12)]
            assert channel["scale"]["domain"] == ends
        rows = next(table for name, table in chart.datasets().items() if name == "means")
        assert {row["step"]: row["date"] for row in rows}[3] == _milliseconds("2022-09-01")
    svg = charts.pictures(run_charts.quality(data, "perplexity").spec | {"datasets": chart.datasets()})[0]
    assert b"September" in svg
    assert b">2022<" in svg  # all months are of one year, which the axis names
    long = scenario(IN_TIME, {"steps": "4 years"})
    theme = RunReportData.of(run, run.metrics.drop("date"), long, 48).theme
    x = next(charts.scaled(charts.over_steps(
        pl.DataFrame({"population": "naive", "step": [0, 9], "value": [0.0, 1.0], "error": 0.0, "members": 1}),
        theme, charts.ChartLabels("t", "s", "a")).spec, "x"))  # fmt: skip
    assert x["scale"]["domain"][1] == {"year": 2026, "month": 6, "date": 1, "utc": True}
    assert x.get("title") is None


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
def test_a_browser_draws_the_axis_of_dates(run, tmp_path) -> None:
    """The script of a report interprets expressions, which knows fewer calls than the compiled charts of its folder."""
    write_report(run)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"file://{run.path.resolve()}/report.html"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert 'data-ready="yes"' in page
    depth = re.search(r'data-chart="contamination_depth".*?</svg>', page, re.DOTALL)
    assert depth is not None and ">September</text>" in depth[0]


def test_sentences_name_steps_with_their_dates(run) -> None:
    data = RunReportData.of(run)
    [share, *_] = findings.contamination(data.metrics, data.populations, data.theme.calendar)
    assert share.startswith("Between step 0 (June 2022) and step 6 (December 2022), the synthetic share of the web")
    assert findings.spans([2, 3, 6], CALENDAR) == "2–3 (August 2022 to September 2022), 6 (December 2022)"
    assert findings.spans([2, 3, 6]) == "2–3, 6"
    assert run.lineage(300).text(None, run.calendar).count("2022)") >= 1


@pytest.mark.slow
def test_the_report_has_dates(run) -> None:
    from ecosystem.report import write_report

    page = write_report(run).read_text(encoding="utf-8")
    assert "June 2022 to December 2022" in page
    assert "The web at step 3 (September 2022)" in page
    assert "at step 0 (June 2022)" in page


def test_the_command_line_shows_dates(run, tmp_path) -> None:
    shown = CliRunner().invoke(cli, ["show", str(run.path), "--step", "3"])
    assert "documents at step 3 (September 2022)" in shown.output
    file = tmp_path / "dated.toml"
    file.write_text(run.scenario.to_toml())
    checked = CliRunner().invoke(cli, ["check", str(file)])
    assert "6 steps of 1 month (June 2022 to December 2022)" in checked.output
    weekly = CliRunner().invoke(cli, ["check", str(file), "--set", 'step="2 weeks"'])
    assert isinstance(weekly.exception, ScenarioError | EcosystemError)
    assert "the nearest are" in str(weekly.exception)
    plan = Plan.of(run.scenario, MACHINE, tmp_path).text()
    assert "  dates      June 2022 to December 2022" in plan

    class Step:
        t, metrics = 3, run.metrics.filter(pl.col("step") == 3)

    assert step_line(Step, 6, 1.0, CALENDAR).startswith("step 3/6 2022-09-01    1.0 s | web ")  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["2022-09-01", "2022-09", date(2022, 9, 1), 3])
def test_a_branch_leaves_at_a_date(run, when) -> None:
    forked = Branch.of(run, when, {"writers.people.rate": "6 per month"})
    assert forked.step == 3
    assert forked.scenario.at(4).writers["people"].rate == 6


def test_commands_that_read_a_step_take_dates(run, finished) -> None:
    def said(command: str, *options: str, of: Run = run) -> str:
        result = CliRunner().invoke(cli, [command, str(of.path), *options])
        return result.output if result.exception is None else str(result.exception)

    assert said("show", "--step", "2022-09") == said("show", "--step", "3") != said("show")
    first = run.documents.filter(pl.col("synthetic")).collect()["doc"][0]
    assert said("lineage", str(first), "--step", "2022-07") == said("lineage", str(first), "--step", "1")
    audited = ("--set", 'policies.x={kind="oracle"}', "--json")
    assert (
        said("audit", *audited, "--step", "2022-08-01")
        == said("audit", *audited, "--at", "2")
        != said("audit", *audited)
    )
    assert said("show", "--step", "2022-09-02").startswith("--step 2022-09-02: 2022-09-02 is between step 3")
    assert said("show", "--step", "x").startswith("--step x: 'x' is no step; give its number, or its date such as")
    assert "the scenario has no calendar" in said("audit", "--at", "2022-09", "--policy", "x", of=finished)


def test_a_branch_at_no_step_is_refused(run, finished) -> None:
    for when, expected in (
        (
            "2022-09-02",
            r"2022-09-02 is between step 3 \(2022-09-01\) and step 4 \(2022-10-01\); give the date of a step",
        ),
        ("september", "'september' is no step"),
        ("2022-13", "is no date of the calendar"),
        ("2022-01", "2022-01 is before the opening, 2022-06-01"),
    ):
        with pytest.raises(ScenarioError, match=expected):
            Branch.of(run, when, {})
    with pytest.raises(ScenarioError, match="2022-09: the scenario has no calendar"):
        branch(finished, "2022-09")
    with pytest.raises(EcosystemError):
        branch(run, date(2023, 1, 1))  # after the last step
    said = CliRunner().invoke(cli, ["branch", f"{run.path}@2022-09-02"])
    assert isinstance(said.exception, ScenarioError)
    assert "is between step 3" in str(said.exception)


def test_a_month_is_its_first_step() -> None:
    weekly = Calendar.of("2022-06-01", "1 week")
    assert step_at("2022-07", weekly) == 5  # 6 July
    assert step_at("2022-06", weekly) == 0
    with pytest.raises(ValueError, match=r"no step is in 2022-07: step 0 \(2022-06-01\) is before it"):
        step_at("2022-07", Calendar.of("2022-06-01", "1 quarter"))


def test_knobs_of_rates_are_numbers_a_step() -> None:
    knobs = {knob.path: knob for knob in knobs_of(scenario(IN_TIME)).values()}
    assert (knobs["trainers.naive.publish"].high, knobs["policies.window.steps"].high) == (36, 12)


@pytest.mark.slow
def test_the_page_shows_dates(run) -> None:
    pytest.importorskip("solara", reason="the extra view is not installed")
    from ecosystem.app.charts import world_charts
    from ecosystem.app.charts.live_charts import NOW
    from ecosystem.app.charts.world_charts import ChartSet
    from ecosystem.app.worlds.run_view import RunView

    [chart] = ChartSet([RunView(run)]).charts(world_charts.quality, "cross_entropy")
    assert [chart.at(step).columns[NOW] for step in (3, 6)] == [{"date": [_milliseconds("2022-09-01")]}, {"date": []}]
    [rule] = [layer for layer in chart.spec["layer"] if layer.get("data") == {"name": NOW}]
    assert rule["encoding"]["x"]["field"] == "date"
    [web] = ChartSet([RunView(run)]).charts(world_charts.web)
    assert web.at(3).title == "The web at step 3 (September 2022)"


STUDY = """
name = "dated-study"
base = "world.toml"
seeds = [1, 2]
[set]
start = 2022-06-01
step = "1 month"
[arms]
all = {}
few = { "trainers.lab.publish" = "120 per year" }
[[measures]]
metric = "variance"
goal = "higher"
at = 2022-09-01
[[measures]]
metric = "variance"
goal = "higher"
window = ["2 months", 2022-10-01]
"""


def _study(folder: Path, text: str = STUDY) -> Study:
    (folder / "world.toml").write_text(WORLD)
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def test_measures_of_studies_are_at_dates(tmp_path) -> None:
    study = _study(tmp_path)
    assert [measure.steps(5) for measure in study.measures] == [(3, 3), (2, 4)]
    assert [measure.name for measure in study.measures] == ["variance@2022-09-01", "variance@2 months-2022-10-01"]
    assert study.with_settings({}).fingerprint() == study.fingerprint()
    with pytest.raises(ScenarioError, match=r"measures\.0\.at: 2022-09-01 is between step 6"):
        study.with_settings({"step": "2 weeks"})
    for text in (STUDY.replace('step = "1 month"', "").replace("start = 2022-06-01", ""),
                 STUDY.replace("all = {}", 'all = { step = "1 week" }')):  # fmt: skip
        with pytest.raises(ScenarioError, match=r"measures\.0\.at: 2022-09-01 needs a calendar"):
            _study(tmp_path, text)
    branched = STUDY.replace("[arms]", "[branch]\nstep = 2022-08-01\n[arms]")
    cells = _study(tmp_path, branched).cells(tmp_path)
    assert {cell.branch_step for cell in cells} == {2}
    lever = STUDY.replace("few = {", 'few = { "branch.step" = 2022-07-01,')
    assert {cell.branch_step for cell in _study(tmp_path, lever).cells(tmp_path)} == {-1, 1}


@pytest.mark.slow
def test_tables_of_a_study_have_dates(tmp_path) -> None:
    study = _study(tmp_path)
    result = run_study(study, tmp_path, SERIAL, StudyProgress(quiet=True), out=str(tmp_path / "out"))
    folder = result.folder
    series = pl.read_parquet(folder / "series.parquet")
    assert series.schema["date"] == pl.Date
    assert all(day == CALENDAR.date_of(t) for t, day in series.select("step", "date").iter_rows())
    assert "date" in pl.read_csv(folder / "series.csv").columns
    assert json.dumps("utc") in (folder / "report.html").read_text(encoding="utf-8")
