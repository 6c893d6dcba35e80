"""Fit files: priors, settings, targets, and what is refused with a sentence."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

import ecosystem
from ecosystem.cli.main import cli
from ecosystem.fitting.run_fit import move_aside
from ecosystem.fitting.search import require_optuna
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.priors import Beta, LogNormal, LogUniform, Normal, Uniform
from ecosystem.scenario.presets import read_toml, require_kind
from ecosystem.studies.spec.settings import Setting
from tests.conftest import ROOT

EXAMPLE = ROOT / "scenarios/fits/mixed_loop.toml"
PRIORS = [
    (Uniform(law="uniform", low=0.2, high=0.9), stats.uniform(0.2, 0.7)),
    (LogUniform(law="log_uniform", low=0.1, high=10.0), stats.loguniform(0.1, 10)),
    (Normal(law="normal", mean=1.0, sd=2.0, low=0.0, high=2.0), stats.truncnorm(-0.5, 0.5, 1.0, 2.0)),
    (LogNormal(law="lognormal", median=2.0, sigma=0.5, low=0.0, high=1e9), stats.lognorm(0.5, scale=2.0)),
    (Beta(law="beta", a=2.0, b=5.0, low=1.0, high=3.0), stats.beta(2, 5, 1, 2)),
]
IDS = [prior.law for prior, _ in PRIORS]


@pytest.mark.parametrize(("prior", "law"), PRIORS, ids=IDS)
def test_a_prior_is_its_law(prior, law):
    u = (np.arange(2000) + 0.5) / 2000
    values = prior.quantile(u)
    assert stats.kstest(values, law.cdf).statistic < 1e-3  # deterministic points: no noise
    assert np.allclose(prior.probability(values), u, atol=1e-9)
    assert np.allclose(prior.density(values), law.pdf(values), rtol=1e-6)
    assert prior.density(prior.quantile(np.array([0.0])) - 1.0)[0] == 0  # nothing below the low end


def test_an_unbounded_prior_gives_finite_values_at_its_ends():
    ends = Normal(law="normal", mean=0.0, sd=1.0).quantile(np.array([0.0, 1.0]))
    assert np.allclose(ends, stats.norm.ppf([1e-3, 1 - 1e-3]))


@pytest.mark.parametrize(
    ("setting", "value", "written"),
    [
        ({"path": "a.b"}, 0.25, 0.25),
        ({"path": "a.b", "whole": True}, 2.6, 3),
        ({"path": "a.b", "unit": "years"}, 0.83, "0.83 years"),
        ({"path": "a.b", "unit": "per month"}, 100 / 3, "33.333333333 per month"),
        ({"path": "a.b", "unit": "per month"}, 20.0, "20 per month"),
        ({"path": "a.b", "unit": "per month", "whole": True}, 39.7, "40 per month"),
        ({"path": "a.b", "unit": "years", "since": "2022-11-30"}, 1.0, "2023-11-30"),
        ({"path": "a.b", "unit": "days", "since": "2024-02-28"}, 1.2, "2024-02-29"),
    ],
)
def test_a_value_is_written_as_the_scenario_reads_it(setting, value, written):
    assert Setting.model_validate(setting).values(value) == {"a.b": written}


def test_several_paths_get_the_same_value():
    assert Setting(paths=["a.b", "c.d"]).values(0.5) == {"a.b": 0.5, "c.d": 0.5}


def example(**changes):
    data = read_toml(EXAMPLE) | {"scenario": str(ROOT / "scenarios/mixed_loop.toml")}
    data["targets"] = [{"step": 4, "quantity": "synthetic_share", "scope": "web", "value": 0.4, "error": 0.02}]
    for path, value in changes.items():
        *tables, key = path.split("__")
        node = data
        for table in tables:
            node = node[table]
        node[key] = value
    return data


def refused(tmp_path, **changes) -> str:
    import tomli_w

    file = tmp_path / "fit.toml"
    file.write_text(tomli_w.dumps(example(**changes)))
    result = CliRunner().invoke(cli, ["check", str(file)])
    assert isinstance(result.exception, ecosystem.EcosystemError), result.output
    assert str(tmp_path) in str(result.exception)
    return str(result.exception)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trails": 20}, ["trails: unknown key", 'did you mean "trials"']),
        ({"trials": 2}, ["trials: must be at least 8"]),
        ({"morris": 1}, ["morris: give 0", "at least 2"]),
        ({"parameters__temperature__prior": 0.5}, ["parameters.temperature.prior", "a law: uniform"]),
        ({"parameters__temperature__prior": {"law": "uniform", "low": 1.0, "high": 0.5}}, ["low: 1 must be below"]),
        (
            {"parameters__temperature__path": "trainers.labs.decoding.temprature"},
            ["parameters.temperature", "temprature"],
        ),
        ({"parameters__temperature__path": "writers.people.rate"}, ["is set by human_rate too"]),
        ({"parameters__temperature__path": "seed"}, ["is no setting of the world"]),
        ({"parameters__temperature__prior": {"law": "uniform", "low": -1.0, "high": 0.5}}, ["(at -1.0)"]),
        ({"parameters__temperature__unit": "years"}, ["parameters.temperature (at 0.4 years)"]),
        ({"set": {"writers.people.rate": 40.0}}, ['set: "writers.people.rate" is uncertain (parameters.human_rate)']),
        ({"targets": "none.csv"}, ["targets: there is no file"]),
        ({"targets": []}, ["targets", "at least"]),
    ],
)
def test_a_wrong_key_is_refused_with_a_sentence(changes, words, tmp_path):
    message = refused(tmp_path, **changes)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": 0.0}, "targets.0.error: must be greater than 0"),
        ({"step": 9}, "targets.0: step: 9 is outside the run, whose steps are 0 to 8"),
        ({"step": None}, "step: give either step or date"),
        ({"step": None, "date": "2023-01-01"}, "date: 2023-01-01 needs a calendar"),
        ({"use": "predict"}, 'no target has use = "fit"'),
        ({"use": "test"}, "targets.0.use"),
    ],
)
def test_a_wrong_target_is_refused_with_a_sentence(change, words, tmp_path):
    target = {k: v for k, v in (example()["targets"][0] | change).items() if v is not None}
    assert words in refused(tmp_path, targets=[target])


def test_a_date_counts_at_the_nearest_step(tmp_path):
    text = (ROOT / "scenarios/mixed_loop.toml").read_text()
    (tmp_path / "dated.toml").write_text(f'start = 2022-06-01\nstep = "1 month"\n{text}')
    data = example() | {"scenario": "dated.toml"}
    data["targets"][0] |= {"date": "2022-09-20"}
    del data["targets"][0]["step"]
    fit = Fit.model_validate(data)
    [target] = fit.dated(fit.scenario(tmp_path)[0])
    assert target.step == 4  # 1 October is nearer than 1 September


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("step,quantity,value,eror\n1,depth,1,1\n", 'unknown column "eror" (did you mean "error"?)'),
        ("step,quantity,value,error\n", "has no targets"),
        ("# note\nstep,quantity,value,error\n1,depth,high,1\n", "line 3: value: must be a number"),
        ("step,quantity,value,value,error\n1,depth,1,2,1\n", 'the column "value" is given twice'),
        (f"step,quantity,value,error\n1,{'x' * 200_000},1,1\n", "cannot be read as CSV"),
        ("step,quantity,value,error\n1,depth,1\n", "line 2: has 3 cells, but there are 4 columns"),
    ],
)
def test_a_wrong_table_of_targets_is_refused_with_its_line(table, words, tmp_path):
    (tmp_path / "t.csv").write_text(table)
    assert words in refused(tmp_path, targets="t.csv")


TABLE = "# made up\nstep, quantity,scope,value,error,source\n4,synthetic_share,web,0.4,0.02,us\n"


def test_the_table_of_targets_is_read_as_tables_are(tmp_path):
    (tmp_path / "t.csv").write_text(
        "# made up\nstep, quantity,scope,value,error,source\n4,synthetic_share,web,0.4,0.02,us\n"
    )
    read = Fit.model_validate(example(targets="t.csv")).resolved(tmp_path)
    written = example()
    written["targets"][0]["source"] = "us"
    assert read.targets == Fit.model_validate(written).targets


def test_another_command_names_the_right_one():
    result = CliRunner().invoke(cli, ["study", str(EXAMPLE)])
    assert "is a fit, not a study; run it with: ecosystem fit" in str(result.exception)
    with pytest.raises(ecosystem.EcosystemError, match="is a study, not a fit"):
        file = ROOT / "scenarios/studies/curators.toml"
        require_kind(read_toml(file), file, "fit")


def test_the_plan_counts_the_runs_and_runs_nothing(tmp_path):
    result = CliRunner().invoke(cli, ["fit", str(EXAMPLE), "--dry-run", "--trials", "10", "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.exception
    assert (
        "61 runs at most: 20 of trials, 16 of screening, 12 of noise, 12 of predictions, 1 of middle" in result.output
    )
    assert "held out web: synthetic_share at step 8" in result.output and not (tmp_path / "o").exists()


def test_fresh_moves_results_and_runs_aside(tmp_path):
    spec = Fit.model_validate(example())
    results = tmp_path / f"fits/{spec.name}-{spec.fingerprint()}"
    for folder in (results, tmp_path / "fits/runs"):
        folder.mkdir(parents=True)
    move_aside(spec, str(tmp_path))
    assert {path.name for path in (tmp_path / "fits").iterdir()} == {f"{results.name}.old-1", "runs.old-1"}
    with pytest.raises(ecosystem.EcosystemError, match="nothing is moved in an object store"):
        move_aside(spec, "s3://bucket/runs")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ecosystem.EcosystemError, match=r"pip install 'ecosystem\[fit\]'"):
        require_optuna()


POSTERIOR = {"worlds": {"posterior": "none.parquet", "draws": 4}}


def test_a_study_refuses_a_file_that_is_no_posterior(tmp_path):
    data = read_toml(ROOT / "scenarios/studies/curators.toml") | {"base": "smoke"} | POSTERIOR
    study = ecosystem.Study.model_validate(data)
    with pytest.raises(ecosystem.EcosystemError, match=r"worlds\.posterior: there is no file none\.parquet"):
        study.settings()
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    other = data | {"worlds": {"posterior": str(tmp_path / "other.parquet")}}
    with pytest.raises(ecosystem.EcosystemError, match=r"is not the posterior\.parquet of a fit"):
        ecosystem.Study.model_validate(other).settings()


@pytest.mark.parametrize("wrong", [3, ["a.parquet"]])
def test_a_posterior_that_is_no_path_is_refused_as_one(wrong, tmp_path):
    import tomli_w

    data = {"name": "s", "base": str(ROOT / "scenarios/mixed_loop.toml"), "seeds": [1], "arms": {"a": {}, "b": {}}}
    data |= {"measures": [{"metric": "synthetic_share", "of": "web"}], "worlds": {"posterior": wrong, "draws": 3}}
    file = tmp_path / "study.toml"
    file.write_text(tomli_w.dumps(data))
    result = CliRunner().invoke(cli, ["check", str(file)])
    assert "worlds.posterior: must be text in quotes" in str(result.exception)
    assert "worlds.draws" not in str(result.exception)
