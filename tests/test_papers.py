"""The figures of docs/papers.md are printed from a run, each rounded once."""

import re

import pytest
from click.testing import CliRunner

from benchmarks.papers import main
from ecosystem.report.data import RunReportData
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from tests.conftest import ROOT


def test_a_row_has_the_stored_mean_with_its_error_and_the_closed_form(tmp_path):
    scenario = Scenario.load(ROOT / "scenarios/papers/seddik_random_data.toml")
    scenario = scenario.override({"steps": 2, **{f"trainers.{name}.count": 20 for name in scenario.trainers}})
    for _ in begin(scenario, out=tmp_path, machine=Machine("cpu", 1), cache=tmp_path):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    arguments = [str(run.path), "--step", "2", "--digits", "6", "--complement"]
    printed = CliRunner().invoke(main, arguments, catch_exceptions=False).output.splitlines()
    law = scenario.theory[0]
    members = run.metrics.filter(
        (run.metrics["metric"] == law.metric)
        & (run.metrics["step"] == 2)
        & run.metrics["id"].str.starts_with(f"{law.population}/")
    )["value"]
    predicted = RunReportData.of(run).laws(law.metric).filter(population=law.population, step=2)["value"]
    [row] = [line for line in printed if line.startswith(f"| {law.population} | 1 - {law.metric} | 2 |")]
    simulated, error, *closed_forms = map(float, re.findall(r"\d\.\d{6}", row))
    assert len(members) == 20
    assert (simulated, error) == pytest.approx((1 - members.mean(), members.std() / 20**0.5), abs=5.1e-7)
    assert closed_forms == pytest.approx((1 - predicted).to_list(), abs=5.1e-7)
