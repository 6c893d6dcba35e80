"""Audits: the gate's verdicts on a stored web, counted by the truth, agree with the ledger and with textbooks."""

import json
import math

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from scipy.stats import binomtest

from ecosystem.cli.main import cli
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.policies.filters import Length
from ecosystem.runs.audit import MEASURES, apply_policy, audit, proportion
from ecosystem.runs.execute import restore_world
from tests.test_branch import branched, ran, untouched, words

STEP = 4
DETECTOR = {"kind": "synthetic_detector", "true_positive_rate": 0.7, "false_positive_rate": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    """Six steps of which the models of only two are kept; the filters of one trainer refuse some documents each."""
    scenario = words(
        weights_every=5,
        policies__short__min_words=6,
        policies__fluent__high=20.0,
        policies__detector=DETECTOR,
        policies__neardup__threshold=0.4,
        policies__neardup__shingle=1,
        trainers__careful__scrape={"docs": 500},
        trainers__careful__select=["neardup", "short", "fluent", "detector", "archive"],
    )
    return ran(scenario, tmp_path_factory.mktemp("audited"), cache=cache)


@pytest.fixture(scope="module")
def world(run, cache):
    return restore_world(run, STEP, cache=cache)


def figure(found, measure, group, key="value"):
    return found.filter(pl.col("measure") == measure, pl.col("group") == group)[key].item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector", "neardup", "short", "fluent"])
def test_a_gate_of_one_policy_agrees_with_the_ledger(name, run, world):
    """A row-wise policy judges a document alike whoever stands at the gate; it saw what no earlier one had refused."""
    order = run.scenario.trainers["careful"].select
    earlier = order[: order.index(name)]
    ledger = run.ledger.collect().filter(
        pl.col("step") == STEP, pl.col("reader") == "careful/0", pl.col("source").is_null()
    )
    reached = ledger.filter(pl.col("verdict").is_null() | ~pl.col("verdict").is_in(earlier))
    mine = apply_policy(world, name, reader="careful/0").select(document="doc", mine="verdict", why="reason")
    both = reached.join(mine, on="document", how="left", maintain_order="left")
    refused = both["verdict"].fill_null("") == name
    assert 0 < refused.sum() < both.height
    assert both["mine"].is_not_null().to_list() == refused.to_list()
    assert both.filter(refused)["why"].to_list() == both.filter(refused)["reason"].to_list()


@pytest.mark.slow
def test_the_documents_are_those_on_the_web_after_that_step(run, cache):
    documents = run.documents.collect()
    now = documents.filter(
        pl.col("t") <= STEP, pl.col("verdict").is_null(), pl.col("retired_at").is_null() | (pl.col("retired_at") > STEP)
    )
    ever = documents.filter(pl.col("t") <= STEP)
    assert 0 < now.height < ever.height
    for everything, expected in ((False, now), (True, ever)):
        found = audit(run, ["short"], step=STEP, everything=everything, cache=cache)
        assert figure(found, "documents", "all") == expected.height
        counts = expected.group_by(pl.col("author").str.replace(r"/\d+$", "")).len()
        for author, n in counts.iter_rows():
            assert figure(found, "documents", author) == n
            assert figure(found, "share", author) == pytest.approx(n / expected.height)


@pytest.mark.slow
def test_an_oracle_is_perfect(run, cache):
    found = audit(run, values={"policies.truth.kind": "oracle"}, cache=cache)
    assert figure(found, "precision", "all") == figure(found, "recall", "all") == 1
    assert figure(found, "survival", "human") == 1 and figure(found, "survival", "synthetic") == 0
    assert figure(found, "false_positive_rate", "all") == 0 < figure(found, "false_positive_rate", "all", "error")
    assert figure(found, "share_after", "human") == 1
    assert figure(found, "recall", "naive") == 1  # of an author who is a model; people have none to be found
    assert found.filter(group="writers/people", measure="recall").is_empty()


@pytest.mark.slow
def test_a_fallible_detector_is_found_to_have_its_rates(run, cache):
    found = audit(run, values={"policies.detector": DETECTOR}, everything=True, cache=cache)
    documents = run.documents.collect()
    for measure, rate in (("recall", 0.7), ("false_positive_rate", 0.1)):
        n = documents.filter(pl.col("synthetic") == (measure == "recall")).height
        error = np.sqrt(rate * (1 - rate) / n)
        assert n > 100 and abs(figure(found, measure, "all") - rate) < 4 * error
        assert figure(found, measure, "all", "error") == pytest.approx(error, rel=0.3)
    human, synthetic = (figure(found, "survival", origin) for origin in ("human", "synthetic"))
    share = figure(found, "share", "synthetic")
    after = share * synthetic / (share * synthetic + (1 - share) * human)
    assert figure(found, "share_after", "synthetic") == pytest.approx(after)
    kept = share * (1 - synthetic) / (share * (1 - synthetic) + (1 - share) * (1 - human))
    assert figure(found, "precision", "all") == pytest.approx(kept)


def test_depths_are_rounded_and_in_order(run, cache):
    found = audit(run, ["detector"], cache=cache).filter(by="depth", measure="documents")
    live = run.documents.filter(pl.col("retired_at").is_null(), pl.col("verdict").is_null()).collect()
    depths = live["depth"].round().cast(pl.Int64)
    assert found["group"].to_list() == [str(d) for d in sorted(set(depths))] and depths.max() > 1
    assert found["value"].to_list() == [float((depths == d).sum()) for d in sorted(set(depths))]


@pytest.mark.parametrize(("k", "n"), [(0, 12), (12, 12), (3, 50), (400, 1000)])
def test_intervals_are_wilsons(k, n):
    found = proportion(k, n)
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-12)
    expected = binomtest(k, n).proportion_ci(0.682689492137086, method="wilson")
    assert found["error"] == pytest.approx((expected.high - expected.low) / 2)
    for end in {found["low"], found["high"]} - {0.0, 1.0}:  # as far from k/n as 1.96 errors of the end itself
        assert abs(k / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_a_weigher_is_told_by_its_mean_weights(run, world, cache):
    values = {"policies.odds": {"kind": "importance", "auc": 0.95, "synthetic_prior": 0.5}}
    found = audit(run, values=values, step=STEP, cache=cache)
    table = apply_policy(restore_world(run, STEP, values, cache=cache), "odds")
    assert table.height == apply_policy(world, "short").height
    for origin, synthetic in (("human", False), ("synthetic", True)):
        weight = table.filter(pl.col("synthetic") == synthetic)["weight"].to_numpy()
        assert figure(found, "mean_weight", origin) == pytest.approx(weight.mean())
        assert figure(found, "mean_weight", origin, "error") == pytest.approx(weight.std(ddof=1) / np.sqrt(weight.size))
        assert figure(found, "share_after", origin) == pytest.approx(weight.sum() / table["weight"].sum())
    assert figure(found, "mean_weight", "human") > 3 * figure(found, "mean_weight", "synthetic")


def test_an_adder_is_told_by_what_it_would_add(run, cache):
    found = audit(run, ["archive"], step=STEP, cache=cache)  # whose fraction a timed change had made 0.5
    added, all_ = figure(found, "documents", "language"), figure(found, "documents", "all")
    assert added == min(round(all_ * 0.25 / 0.75), 10_000)
    assert figure(found, "share_after", "language") == pytest.approx(added / (added + all_))
    human = figure(found, "share", "human") * all_ / (added + all_)
    assert figure(found, "share_after", "human") == pytest.approx(human)


def test_a_model_is_built_only_if_a_policy_asks_for_it(run, cache):
    world = restore_world(run, STEP, cache=cache)
    apply_policy(world, "short")
    assert not world.state.cohorts
    apply_policy(world, "fluent")
    assert list(world.state.cohorts) == ["tiny"]


def test_a_policy_sees_no_more_than_in_a_run(run, cache, monkeypatch):
    seen = []
    refuse = Length.refuse
    monkeypatch.setattr(
        Length, "refuse", lambda self, docs, ctx: seen.append(set(docs.columns)) or refuse(self, docs, ctx)
    )
    audit(run, ["short"], everything=True, cache=cache)
    assert "words" in seen[0] and not seen[0] & {"synthetic", "depth", "author", "model", "source", "verdict", "reason"}


def test_an_audit_leaves_the_run_as_it_was_and_needs_no_kept_models(run, cache):
    before = untouched(run.path)
    assert STEP not in run.store.steps_with_weights()
    first = audit(run, ["fluent", "short"], step=STEP, cache=cache)
    assert first["policy"].unique(maintain_order=True).to_list() == ["fluent", "short"]
    assert first.equals(audit(run, ["fluent", "short"], step=STEP, cache=cache))
    assert untouched(run.path) == before


@pytest.mark.slow
def test_a_branch_is_audited_like_any_run(run, cache, tmp_path):
    branch = branched(run, 5, {"policies.short.min_words": 9}, tmp_path, cache)
    assert audit(branch, ["short"], step=STEP, cache=cache).equals(audit(run, ["short"], step=STEP, cache=cache))
    later = audit(branch, ["short"], cache=cache)  # as it is in force there
    assert figure(later, "survival", "synthetic") < figure(audit(run, ["short"], cache=cache), "survival", "synthetic")


def test_mistakes_are_sentences(run, cache):
    with pytest.raises(
        EcosystemError, match=r'--policy "shrt": unknown policy \(did you mean "short"\?\); .*defined at step 6'
    ):
        audit(run, ["shrt"], cache=cache)
    with pytest.raises(EcosystemError, match=r"--policy NAME, or define one with --set .*defined at step 6: .*short"):
        audit(run, cache=cache)
    with pytest.raises(StoreError, match="step 9 is not committed; this run has steps 0 to 6"):
        audit(run, ["short"], step=9, cache=cache)
    with pytest.raises(ScenarioError, match=r"policies\.x\.model: there is no \[models\.none\]"):
        audit(run, values={"policies.x": {"kind": "perplexity_band", "model": "none"}}, cache=cache)
    with pytest.raises(ScenarioError, match=r'--set "steps": an audit runs nothing'):
        audit(run, values={"steps": 3}, cache=cache)
    with pytest.raises(EcosystemError, match=r'--reader "naiv": unknown reader \(did you mean "naive/\d"\?\)'):
        audit(run, ["short"], reader="naiv", cache=cache)


@pytest.mark.slow
def test_the_command_prints_a_table_json_and_files(run, tmp_path):
    def command(*arguments):
        return CliRunner().invoke(cli, ["audit", str(run.path), *arguments], catch_exceptions=False).output

    table = command("--policy", "short", "--set", 'policies.truth={kind="oracle"}', "--at", "2")
    assert "short (length) on the web after step 2" in table and "truth (oracle) on the web after step 2" in table
    for word in (*(MEASURES[m] for m in ("survival", "precision", "recall")), "writers/people", "naive", "± 0."):
        assert word in table
    (tmp_path / "mine.toml").write_text('[policies.long]\nkind = "length"\nmin_words = 20\n')
    rows = json.loads(command("--policies", str(tmp_path / "mine.toml"), "--json", "--out", str(tmp_path / "a.csv")))
    assert {row["policy"] for row in rows} == {"long"} and len(rows) == pl.read_csv(tmp_path / "a.csv").height
    command("--policy", "short", "--all", "--out", str(tmp_path / "new" / "a.parquet"))
    assert pl.read_parquet(tmp_path / "new" / "a.parquet")["measure"].is_in(list(MEASURES)).all()
    with pytest.raises(EcosystemError, match=r"ends in \.parquet or \.csv"):
        command("--policy", "short", "--out", "a.txt")
    (tmp_path / "none.toml").write_text("steps = 3\n")
    with pytest.raises(ScenarioError, match=r"has no policies; write each as a table"):
        command("--policies", str(tmp_path / "none.toml"))
