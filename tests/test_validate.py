"""Simulation against theory: the checks agree, would find a plausible bug, and travel the whole house."""

import shutil

import numpy as np
import polars as pl
import pytest
from scipy.stats import multivariate_normal

from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.report import summaries
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.streams import Streams
from ecosystem.validation import validate
from tests.conftest import ROOT

VALIDATION = ROOT / "scenarios" / "validation"
MACHINE = Machine("cpu", 1)


def loop(**changes):
    """A tiny loop of categories with three replicates."""
    scenario = validate.sized(Scenario.load(VALIDATION / "categorical_replace.toml"), 3)
    return scenario.override({"steps": 3} | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.mark.slow
def test_there_are_enough_checks_and_every_file_has_some():
    loaded = [Scenario.load(file) for file in validate.files().values()]
    assert all(scenario.theory for scenario in loaded)
    assert sum(len(theory.check) for scenario in loaded for theory in scenario.theory) >= 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["gaussian_replace", "categorical_replace", "verifier_transition", "hutter_tails", "strong_collapse"]
)
def test_a_small_batch_agrees_with_theory(name):
    """60 replicates; |z| <= 4 for every check, and standard errors that are not absurd."""
    checks = validate.run_checks(VALIDATION / f"{name}.toml", seed=11, replicates=60)
    assert [c.name for c in checks if not c.passed] == []
    assert all(c.replicates == 60 and 0 < c.error < 1 + abs(c.predicted) for c in checks)


@pytest.mark.slow
def test_a_plausible_bug_is_found(tmp_path):
    """The biased divisor where the unbiased one is claimed: off by a factor 0.9 a generation, z far beyond 4."""
    text = (VALIDATION / "gaussian_replace.toml").read_text()
    wrong = text.replace('covariance = "maximum_likelihood"', "")
    (tmp_path / "wrong.toml").write_text(wrong)
    checks = validate.run_checks(tmp_path / "wrong.toml", seed=1, replicates=120)
    failed = [c for c in checks if not c.passed]
    assert {c.name.split("/")[1] for c in failed} == {"biased"}
    assert any("log_variance@10" in c.name for c in failed)


def test_another_number_of_replicates_changes_nothing_else():
    scenario = Scenario.load(VALIDATION / "gaussian_replace.toml")
    small = validate.sized(scenario, 7)
    assert small.web.sites == 14 and small.web.initial.documents == 140
    assert {t.count for t in small.trainers.values()} == {7}
    with pytest.raises(EcosystemError, match="only trainers of an isolated web"):
        validate.sized(Scenario.load(ROOT / "scenarios" / "smoke.toml"), 3)


def test_z_and_the_table(tmp_path):
    exact = validate.Check("a", "", 1.0, 1.0, 0.0, 900)
    off = validate.Check("<b>", "x", 1.0, 1.5, 0.1, 900)
    never = validate.Check("c", "", 1.0, 1.1, 0.0, 9)
    assert (exact.z, off.z, never.z) == (0.0, pytest.approx(5), float("inf"))
    assert validate.Check("few", "", 1.0, 1.5, 0.1, 9).passed, "five of nine runs' standard errors are no rarity"
    page = validate.write([exact, off], tmp_path / "v")
    assert "&lt;b&gt;" in page.read_text() and "1 of 2 checks agree" in page.read_text()
    frame = pl.read_parquet(tmp_path / "v/validation.parquet")
    assert frame["verdict"].to_list() == ["agrees", "differs"]
    assert "DIFFERS" in validate.text([exact, off])
    with pytest.raises(EcosystemError, match=r'--check: .*\(did you mean "gaussian_replace"'):
        validate.validate(["gaussian_replaced"])


def test_a_bound_may_be_kept_but_not_passed():
    def check(simulated, error, relation):
        return validate.Check("a", "", 1.0, simulated, error, 900, relation)

    assert check(0.2, 0.1, "≤").passed and check(1.3, 0.1, "≤").passed and not check(1.5, 0.1, "≤").passed
    assert check(9.0, 0.1, "≥").passed and check(0.7, 0.1, "≥").passed and not check(0.5, 0.1, "≥").passed
    assert check(2.0, 0.0, "≥").passed and not check(0.9, 0.0, "≥").passed
    assert check(1 + 1e-13, 0.0, "=").passed and not check(1 + 1e-11, 0.0, "=").passed
    assert "≥" in validate.text([check(9.0, 0.1, "≥")])


@pytest.mark.slow
def test_replicates_are_independent_and_alone(tmp_path):
    """Every trainer reads its own site only, and gets equally many initial documents."""
    scenario = loop()
    for _ in begin(scenario, out=tmp_path, machine=MACHINE):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    documents = run.documents.collect()
    assert documents["content"].dtype == pl.Int32
    assert documents.filter(pl.col("t") == 0).group_by("site").len()["len"].to_list() == [50] * 3
    ledger = run.ledger.collect().join(documents.select("doc", "site", "author"), left_on="document", right_on="doc")
    assert ledger.group_by("reader").agg(pl.col("site").n_unique())["site"].to_list() == [1] * 3
    synthetic = ledger.filter(pl.col("author") != "initial")
    assert (synthetic["reader"] == synthetic["author"]).all() and synthetic.height == 3 * 2 * 50
    assert run.metrics.filter(pl.col("metric") == "gini_simpson").height == 9


def test_vectors_resume_bit_for_bit(tmp_path):
    """A run of vectors stopped after a step and gone on with equals the uninterrupted one."""
    scenario = validate.sized(Scenario.load(VALIDATION / "gaussian_bias.toml"), 2).override({"steps": 4})
    for _ in begin(scenario, out=tmp_path / "whole", machine=MACHINE):
        pass
    short = scenario.override({"steps": 2})
    for _ in begin(short, out=tmp_path / "parts", machine=MACHINE):
        pass
    assert [s.t for s in begin(scenario, out=tmp_path / "parts", machine=MACHINE)] == [3, 4]
    whole, parts = (Run.open(folder_of(scenario, tmp_path / name)) for name in ("whole", "parts"))
    assert [c.files for c in whole.store.commits()] == [c.files for c in parts.store.commits()]


@pytest.mark.slow
def test_the_report_draws_the_laws(tmp_path):
    from ecosystem.report import write_report
    from ecosystem.report.closed_forms import laws

    scenario = loop()
    for _ in begin(scenario, out=tmp_path, machine=MACHINE):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    truth = scenario.sources["truth"].open("truth", Streams(1), tmp_path).truth
    curve = laws(scenario.theory, "gini_simpson", 3, truth)
    h0 = 1 - (truth.probabilities**2).sum()
    assert curve["step"].to_list() == [1, 2, 3] and np.allclose(curve["value"], h0 * 0.98 ** np.arange(1, 4))
    page = write_report(run).read_text()
    assert "Models and theory" in page and "diversity_replace" in page and "Seddik" in page
    assert (run.path / "charts/model_gini_simpson.svg").exists()
    shutil.rmtree(run.path)


def test_held_out_documents_are_scored_under_every_model():
    """The family's own density of the source's held-out documents, with the error of a mean over documents."""
    scenario = validate.sized(Scenario.load(VALIDATION / "gaussian_bias.toml"), 2)
    world = World(scenario.override({"sources.truth.held_out": 50, "measure.held_out": 40}), 1)
    world.step()
    mine = world.snapshot().metrics.filter(metric="held_out_nll")
    assert mine["id"].to_list() == ["biased/0", "biased/1", "faithful/0", "faithful/1"]
    docs, state = world.state.reservoirs["truth"].held_out.head(40).to_numpy(), world.state.cohorts["normal"].state()
    for value, error, mean, covariance in zip(
        mine["value"], mine["error"], state["mean"], state["covariance"], strict=True
    ):
        nats = -multivariate_normal(mean, covariance).logpdf(docs)
        assert value == pytest.approx(nats.mean()) and error == pytest.approx(nats.std(ddof=1) / np.sqrt(40))


def test_a_symbol_that_cannot_be_has_infinite_nats_and_so_has_the_mean():
    world = World(loop(sources__truth__held_out=200), 1)
    world.step()
    found = world.snapshot().metrics.filter(metric="held_out_nll")
    assert found["value"].is_infinite().all() and found["error"].is_null().all()
    finite = found.with_columns(value=pl.Series([1.0, 2.0, np.inf]))
    assert summaries.members(finite, "held_out_nll").is_empty(), "a mean of those that are finite would be no mean"
    assert summaries.members(finite.head(2), "held_out_nll").height == 2


def test_entropy_as_a_share_of_the_truths():
    world = World(loop(), 1)
    world.step()
    p, q = world.truth.probabilities, world.state.cohorts["frequencies"].state()["probability"]
    share = -np.where(q > 0, q * np.log(np.maximum(q, 1e-300)), 0).sum(axis=1) / -(p * np.log(p)).sum()
    found = world.snapshot().metrics.filter(metric="entropy_share")["value"]
    assert found.to_numpy() == pytest.approx(share) and (share < 0.95).all()


@pytest.mark.slow
def test_a_finished_run_takes_over_another_theory(tmp_path):
    from ecosystem.api import run_scenario
    from ecosystem.runs.progress import RunProgress

    scenario, quiet = loop(), RunProgress(quiet=True)
    first = run_scenario(scenario, quiet, out=tmp_path)
    fewer = scenario.model_copy(update={"theory": scenario.theory[:1]})
    again = run_scenario(fewer, quiet, out=tmp_path)
    assert again["run"] == first["run"] and len(Run.open(again["run"]).scenario.theory) == 1
    assert "surviving_types" not in (tmp_path / again["run"] / "report.html").read_text()


MISTAKES = [
    ({"theory.0.parameters": {"h0": "truth", "n": 0}}, "theory.0.parameters: n must be"),
    ({"theory.0.parameters": {"h0": "truth", "n": "ten"}}, "the law diversity_replace cannot be computed with"),
    ({"theory.0.parameters": {"h0": "truth", "n": "truth"}}, 'n = "truth" cannot be read off a source of category'),
    (
        {
            "theory.0": {
                "metric": "l1",
                "population": "loop",
                "law": "top_k_map",
                "parameters": {"p": [0.5, 0.5], "k": 1},
            }
        },
        "top_k_map is not one number for each generation",
    ),
    (
        {"models.frequencies": {"kind": "gaussian"}},
        "models.frequencies: is for vector documents, but this scenario's are",
    ),
    ({"policies.near": {"kind": "minhash_dedup"}}, "policies.near: minhash_dedup reads words"),
    ({"policies.some": {"kind": "sample", "words": 9}}, "policies.some.words: "),
    ({"trainers.loop.decoding.repetition_penalty": 1.5}, "decoding.repetition_penalty: has no meaning for category"),
    ({"web.sites": 2}, "web.sites: 2 sites are too few for agents that need 3 of their own"),
    ({"theory.0.law": "diversity_replaced"}, 'no law "diversity_replaced" (did you mean "diversity_replace"?)'),
    ({"theory.0.parameters": {"n": 3}}, "the law diversity_replace takes h0, n; given n"),
    ({"theory.0.metric": "gini"}, 'there is no metric "gini"'),
    ({"theory.0.population": "lop"}, 'there is no [trainers.lop] (did you mean "loop"?)'),
]


@pytest.mark.parametrize(("values", "sentence"), MISTAKES, ids=[s[:30] for _, s in MISTAKES])
def test_a_mistake_is_a_sentence(values, sentence):
    with pytest.raises(ScenarioError) as caught:
        loop().override(values)
    assert sentence in str(caught.value)


def test_truth_that_cannot_be_known_is_a_sentence():
    from ecosystem.theory.laws import predict

    with pytest.raises(EcosystemError, match='theory: p = "truth" cannot be read off the initial source'):
        predict("surviving_types", np.array([1]), {"p": "truth", "n": 3})
