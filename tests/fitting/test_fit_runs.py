"""Whole fits: the same files from every engine and after a kill, failed runs, the report and the fitted scenario."""

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

import ecosystem
from ecosystem.errors import EcosystemError
from ecosystem.fitting.run_fit import fit
from ecosystem.studies.report.data import StudyReportData
from tests.conftest import ROOT
from tests.fitting.small_fit import SCENARIO, contents, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def result(place):
    return fit(write(place), place / "serial", engine="serial")


def test_processes_give_the_same_files(result, place):
    fit(place / "small.toml", place / "processes", engine="processes", jobs=2)
    assert contents(place / "processes") == contents(place / "serial")


def test_a_fit_that_was_killed_gives_the_same_files(result, place):
    out = place / "killed"
    command = [sys.executable, "-c", "from ecosystem.cli.main import main; main()", "fit", str(place / "small.toml")]
    command += ["--quiet", "--engine", "serial", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for moment in (4, 22):  # in the start, and after the search
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while len(list(out.glob("fits/runs/*/*/commits/000003.json"))) < moment and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "the fit ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    fit(place / "small.toml", out, engine="serial")
    assert contents(out) == contents(place / "serial")


def test_the_files_say_what_was_found(result, place):
    files = contents(place / "serial")
    summary = json.loads(files["fit.json"])
    table = pl.read_parquet(result.folder / "targets.parquet")
    assert summary["fitted"].keys() == {"rate", "temperature"} and summary["findings"]
    assert table["use"].to_list() == ["fit", "fit", "predict"] and table["z"].is_finite().all()
    outputs = pl.read_parquet(result.folder / "outputs.parquet")
    counts = dict(outputs.filter(pl.col("target") == 0).group_by("stage").len().iter_rows())
    pruned = sum(t.state == "pruned" for t in result.results.trials)
    assert counts == {"start": 10, "search": 10 - pruned, "morris": 6, "noise": 4, "draw": 4}
    page = files["report.html"].decode()
    for words in (
        "Which targets pull which parameter",
        "How much each parameter matters",
        "held out",
        *summary["fitted"],
    ):
        assert words in page
    assert files["study.db"].startswith(b"SQLite format 3")


def test_the_share_of_machine_text_determines_the_rate(result):
    truth = 20  # gives about 0.25 at step 3
    row = result.results.parameter_table.row(0, named=True)
    assert row["low"] < truth < row["high"] and row["width_ratio"] < 0.5
    assert result.results.width_ratios[1] > 0.5  # the temperature hardly shows in shares


def test_optuna_opens_the_study(result):
    import optuna

    study = optuna.load_study(study_name="small", storage=f"sqlite:///{result.folder / 'study.db'}")
    assert len(study.trials) == 10
    assert study.best_value == pytest.approx(min(t.misfit for t in result.results.trials if t.state == "complete"))


def test_the_fitted_scenario_is_the_base_at_the_posterior_means(result):
    fitted = ecosystem.Scenario.load(result.folder / "fitted.toml")
    assert fitted.writers["people"].rate == pytest.approx(result.results.samples["rate"].mean())
    assert fitted.trainers["labs"].decoding.temperature == pytest.approx(result.results.samples["temperature"].mean())
    assert "# rate: writers.people.rate" in (result.folder / "fitted.toml").read_text()


def test_a_missing_metric_is_refused_after_one_run(place, tmp_path):
    file = write(tmp_path)
    file.write_text(file.read_text().replace('quantity = "variance"', 'quantity = "varience"'))
    with pytest.raises(ecosystem.EcosystemError, match=r'targets.2.quantity: .*did you mean "variance"'):
        fit(file, tmp_path / "out", engine="serial")
    assert len(list((tmp_path / "out").glob("fits/runs/*/*"))) == 1
    file.write_text(
        file.read_text().replace('quantity = "varience"', 'quantity = "variance"').replace('"labs"', '"lab"')
    )
    with pytest.raises(ecosystem.EcosystemError, match=r'id: variance has no id "lab" \(did you mean "labs"\?\)'):
        fit(file, tmp_path / "out", engine="serial")


STUDY = """
name = "over-posterior"
base = "pond.toml"
seeds = [1]
[worlds]
posterior = "POSTERIOR"
draws = 4
[arms.as_is]
[arms.twice]
"trainers.labs.publish" = 20
[[measures]]
metric = "synthetic_share"
of = "web"
goal = "lower"
"""


def test_a_study_draws_its_worlds_from_the_posterior(result, place, tmp_path):
    (tmp_path / "pond.toml").write_text(SCENARIO)
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("POSTERIOR", str(result.folder / "posterior.parquet")))
    done = ecosystem.study(file, tmp_path / "out", engine="serial")
    cells = done.study.cells(tmp_path)
    rates = {(c.world, c.scenario.writers["people"].rate) for c in cells}
    assert len(cells) == 8 and len(rates) == 4  # the same parameters in both arms of a draw
    [effect] = StudyReportData.of(done.results).posterior_effects
    values = done.results.values.pivot("arm", index="world", values="value")
    difference = (values["twice"] - values["as_is"]).to_numpy()
    assert effect.effect == pytest.approx(difference.mean()) and effect.better == 0.0 and effect.draws == 4
    assert effect.low < difference.min() and difference.max() < effect.high
    assert effect.high - effect.low > effect.mean_high - effect.mean_low
    assert "With what is unknown of the parameters" in done.report.read_text()
    assert pl.read_parquet(done.folder / "posterior_effects.parquet").height == 1
    assert ecosystem.Study.load(file).fingerprint() in done.folder.name


def test_notebooks_have_the_charts_of_the_report_and_the_parameters(result):
    files = {path.stem for path in (result.folder / "charts").glob("*.svg")}
    assert set(result.plot.names()) == files >= {"target_0", "posterior_rate", "correlations", "pulls", "narrowing"}
    assert result.plot.posterior("temperature").to_dict() == result.plot["posterior_temperature"].to_dict()
    assert result.plot.targets().to_dict() == result.plot["target_0"].to_dict()
    assert result.to_pandas()["median"].tolist() == result.results.parameter_table["median"].to_list()
    assert "temperature" in result._repr_html_() and str(result.report) in result._repr_html_()
    for wrong in (lambda: result.plot.posterior("rates"), lambda: result.plot.targets("depth")):
        with pytest.raises(EcosystemError, match=r"the fit has|the targets are of"):
            wrong()
