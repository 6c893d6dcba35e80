"""Writers who adopt AI at a given share: how many documents, how much of each, and what stays the same."""

import numpy as np
import polars as pl
import pytest

from ecosystem.errors import ScenarioError
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.choices.mixing import mixed
from ecosystem.simulation.world import World
from tests.conftest import MACHINE
from tests.worlds import run_world

BINS, WEIGHTS = [0.055, 0.255, 0.555, 0.85, 1.0], [0.13, 0.35, 0.28, 0.21, 0.03]
COLUMNS = ["doc", "t", "site", "author", "synthetic", "ai_share", "assistant", "depth", "model", "source", "row"]
RISE = {"law": "saturating", "limit": 0.52, "time": "10 months", "from": "2022-08-01"}


def web_of_numbers(adoption: dict | None = None, *, people: dict | None = None, **tables) -> Scenario:
    """Numbers by people and by normals fitted to all of them."""
    data = {
        "name": "adopting",
        "start": "2022-06-01",
        "step": "1 month",
        "steps": 4,
        "sources": {"left": {"kind": "gaussian", "held_out": 0}},
        "web": {"kind": "barabasi_albert", "sites": 12, "initial": {"source": "left", "documents": 60}},
        "models": {"normal": {"kind": "gaussian", "init": "foundation"}},
        "writers": {
            "press": {"count": 3, "source": "left", "rate": 40.0, "sites": 2}
            | ({} if adoption is None else {"adoption": {"uses": "labs", **adoption}})
            | (people or {})
        },
        "trainers": {"labs": {"count": 2, "model": "normal", "sites": 1, "publish": 3, "scrape": {"docs": 50}}},
        "measure": {"synthetic": 0},
    }
    return Scenario.parse(data | tables)


def written(world: World) -> pl.DataFrame:
    """Return the documents of writers after the opening."""
    index = world.corpus.table(COLUMNS)
    return index.filter((pl.col("t") > 0) & pl.col("author").str.starts_with("writers/"))


def within(count: int, n: int, share: float, errors: float = 4.5) -> bool:
    """Return whether a count is within a number of binomial standard errors of its expectation."""
    return abs(count - n * share) <= errors * np.sqrt(n * share * (1 - share))


# The law of adoption.


def test_documents_are_made_with_ai_at_the_given_share():
    """At every step within 4.5 standard errors, and over all of them too, where a share one month late is not."""
    scenario = web_of_numbers({"share": RISE}, people={"rate": 400.0}, steps=6)
    documents, share = written(run_world(scenario, 6)), scenario.writers["press"].adoption.share
    made = dict(documents.group_by("t").agg(pl.col("synthetic").sum()).iter_rows())
    for t in range(1, 7):
        assert within(made[t], 1200, share.at(t)) if t > 2 else made[t] == 0
    mean, late = (np.mean([share.at(t - lag) for t in range(1, 7)]) for lag in (0, 1))
    assert documents.height == 7200 and within(sum(made.values()), 7200, mean)
    assert not within(sum(made.values()), 7200, late)


def test_shares_of_ai_occur_as_often_as_their_weights_say():
    adoption = {"share": 1.0, "ai_shares": BINS, "weights": [100 * w for w in WEIGHTS], "mix": "blend"}
    documents = written(run_world(web_of_numbers(adoption, people={"rate": 800.0}), 1))
    counts = dict(documents["ai_share"].value_counts().iter_rows())
    assert set(counts) == set(BINS) and documents.height == 2400
    for share, weight in zip(BINS, WEIGHTS, strict=True):
        assert within(counts[share], 2400, weight), share


def test_a_share_of_zero_leaves_the_web_as_it_is_without_adoption():
    without, zero = (run_world(web_of_numbers(adoption), 3) for adoption in (None, {"share": 0.0}))
    columns = [c for c in COLUMNS if c not in ("ai_share", "assistant")]
    assert without.corpus.table(columns).equals(zero.corpus.table(columns))
    docs = np.arange(len(zero.corpus))
    assert without.corpus.contents(docs).equals(zero.corpus.contents(docs))


def test_a_larger_share_adds_to_the_same_documents():
    adoption = {"ai_shares": BINS, "weights": WEIGHTS, "mix": "blend"}
    few, many = (written(run_world(web_of_numbers({"share": s, **adoption}), 3)) for s in (0.3, 0.6))
    assert few.select("doc", "t", "site", "author").equals(many.select("doc", "t", "site", "author"))
    ai = few["synthetic"].to_numpy()
    assert many["synthetic"].to_numpy()[ai].all() and many["synthetic"].sum() > few["synthetic"].sum() > 0
    assert few["ai_share"].to_numpy()[ai].tolist() == many["ai_share"].to_numpy()[ai].tolist()


def test_one_more_writer_changes_nothing_for_the_others():
    adoption = {"share": 0.5, "ai_shares": BINS}
    fewer, more = (written(run_world(web_of_numbers(adoption, people={"count": n}), 2)) for n in (3, 4))
    old = more.filter(pl.col("author") != "writers/press/3")
    assert old.height < more.height and old["synthetic"].to_list() == fewer["synthetic"].to_list()
    assert old["site"].to_list() == fewer["site"].to_list()


def test_a_timed_change_of_one_number_of_the_curve():
    changes = [{"at": 3, "set": {"writers.press.adoption.share.limit": 0.0}}]
    documents = written(run_world(web_of_numbers({"share": RISE | {"from": 0}}, changes=changes), 4))
    made = {t: documents.filter(pl.col("t") == t)["synthetic"].any() for t in range(1, 5)}
    assert made == {1: True, 2: True, 3: False, 4: False}


# Documents.


def test_mixed_documents_carry_their_share_in_truth_depth_and_metrics():
    adoption = {"share": 0.5, "ai_shares": [0.25, 1.0], "mix": "blend"}
    world = run_world(web_of_numbers(adoption), 1)
    documents = written(world)
    ai, whole = documents.filter(pl.col("ai_share") > 0), documents.filter(pl.col("ai_share") == 1)
    part, human = documents.filter(pl.col("ai_share") == 0.25), documents.filter(pl.col("ai_share") == 0)
    assert min(whole.height, part.height, human.height) > 10 and documents.height == 120
    assert set(ai["assistant"]) <= {"labs/0", "labs/1"} and set(ai["model"]) == {"normal"} and ai["synthetic"].all()
    assert ai.group_by("author").agg(pl.col("assistant").n_unique())["assistant"].max() == 1
    assert set(part["depth"]) == {0.25} and set(whole["depth"]) == {1.0} and set(human["depth"]) == {0.0}
    assert whole["row"].null_count() == whole.height and whole["source"].null_count() == whole.height
    drawn = pl.concat([part, human])
    assert sorted(drawn["row"]) == list(range(60, 60 + drawn.height)), "each row once, in order of the writers"
    assert human["assistant"].null_count() == human.height == human["model"].null_count()
    people = world.state.reservoirs["left"].rows(human["row"].to_numpy())
    assert world.corpus.contents(human["doc"]).equals(people)
    assert world.measured["web", "web", "synthetic_share"] == pytest.approx(
        (documents["ai_share"].sum() + 6) / (60 + 120 + 6)
    )
    assert world.measured["cost", "trainers/labs/0", "documents_generated"] > 3
    assert world.measured["cost", "writers/press/0", "human_documents"] < 40


def test_mixed_numbers_are_blends_of_a_persons_and_a_models():
    """A model whose numbers are all about 100 shows how much of a document is its own."""
    right = {"kind": "gaussian", "held_out": 0, "mean": [100.0]}
    adoption = {"share": 1.0, "ai_shares": [0.25], "mix": "blend"}
    sources = {"left": {"kind": "gaussian", "held_out": 0}, "right": right}
    world = run_world(
        web_of_numbers(
            adoption,
            sources=sources,
            web={"kind": "complete", "sites": 4, "initial": {"source": "right", "documents": 60}},
        ),
        1,
    )
    documents = written(world)
    assert world.corpus.contents(documents["doc"]).to_numpy().mean() == pytest.approx(25, abs=1)


def test_texts_have_the_wanted_shares_as_nearly_as_words_allow():
    rng = np.random.default_rng(1)
    texts = [" ".join("x" * n for n in rng.integers(1, 9, 200)) for _ in range(2000)]
    ai, human = pl.Series(texts[:1000]), pl.Series(texts[1000:])
    wanted = np.tile(BINS[:4], 250)
    made, share = mixed(ai, human, wanted, "draw", np.zeros(1000))
    assert np.abs(share - wanted).max() < 0.06
    off = (share - wanted) / (share - wanted).std() * np.sqrt(1000)
    assert abs(off.mean()) < 4, "no bias towards either part"
    assert made.str.split(" ").list.len().min() >= 200


def test_people_write_everything_until_a_lab_has_a_model():
    models = {"normal": {"kind": "gaussian", "init": "untrained"}}
    world = World(web_of_numbers({"share": 0.5}, models=models))
    world.step()
    documents, [event] = written(world), world.snapshot().state["events"]
    assert documents.height == 120 and not documents["synthetic"].any() and documents["row"].null_count() == 0
    assert "labs have no model yet" in event and "writers of press" in event
    world.step()
    assert written(world).filter(pl.col("t") == 2)["synthetic"].any() and not world.snapshot().state["events"]


def test_a_source_that_runs_dry_leaves_documents_by_ai_alone(tmp_path):
    (tmp_path / "few.jsonl").write_text("".join(f'{{"text": "a b c {k}"}}\n' for k in range(20)))
    sources = {"few": {"kind": "jsonl", "path": str(tmp_path / "few.jsonl"), "held_out": 0}}
    models = {"grams": {"kind": "ngram", "order": 2, "context": 16, "vocabulary": 300}}
    scenario = web_of_numbers(
        {"share": 0.5},
        people={"source": "few", "count": 1, "rate": 30.0},
        sources=sources,
        models=models,
        web={"kind": "complete", "sites": 4, "initial": {"source": "few", "documents": 10}},
        trainers={"labs": {"count": 1, "model": "grams", "sites": 1, "publish": 0, "scrape": {"docs": 5}}},
    )
    world = run_world(scenario, 1)
    documents = written(world)
    human, ai = documents.filter(~pl.col("synthetic")), documents.filter("synthetic")
    assert human.height == 10 and ai.height > 5 and documents.height < 30
    assert any("ran dry" in event for event in world.snapshot().state["events"])


# Settings.


@pytest.mark.parametrize(
    ("people", "adoption", "message"),
    [
        ({"choice": {"benefit": 1.0, "cost": 0.5, "ai_cost": 0.5, "uses": "labs"}}, {}, "choice; remove one"),
        ({"rewrite": {"model": "normal"}}, {}, "rewrite; remove one"),
        ({}, {"uses": "lab"}, r'no \[trainers.lab\] \(did you mean "labs"\?\)|there is no \[trainers.lab\]'),
        ({}, {"share": 1.2}, "writers.press.adoption.share: must be at most 1, not 1.2"),
        ({}, {"share": {**RISE, "limit": 9.0}}, "must be at most 1 at all times"),
        ({}, {"weights": [1.0]}, "weights: has no meaning without ai_shares|no meaning without ai_shares"),
        ({}, {"ai_shares": [0.5], "weights": [1.0, 2.0]}, "2 values for 1 ai_shares"),
        ({}, {"ai_shares": [0.5], "weights": [0.0]}, "are all 0"),
        ({}, {"ai_shares": []}, "list at least one share"),
        ({}, {"ai_shares": [0.0]}, "ai_shares"),
    ],
)
def test_what_makes_no_sense_is_refused(people, adoption, message):
    with pytest.raises(ScenarioError, match=message):
        web_of_numbers({"share": 0.5} | adoption, people=people)


def test_runs_without_adoption_have_no_new_columns_or_metrics():
    world = run_world(web_of_numbers(), 1)
    assert "ai_share" not in world.snapshot().segment.columns
    assert ("web", "web", "read_synthetic_share") not in world.measured
    assert "adoption" not in str(world.current_scenario.plain()["writers"])


# Runs.


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bytes(tmp_path):
    instrument = {"observes": "flagged_share", "of": "new", "sample": 20, "false_positive_rate": 0.1}
    scenario = web_of_numbers(
        {"share": RISE, "ai_shares": BINS, "weights": WEIGHTS},
        instruments={"new": instrument, "read": {**instrument, "of": "read"}},
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for _ in begin(scenario, out=whole, machine=MACHINE):
        pass
    steps = begin(scenario, out=cut, machine=MACHINE)
    for snapshot in steps:
        if snapshot.t == 2:
            break
    steps.close()
    for _ in begin(scenario, out=cut, machine=MACHINE):
        pass
    run, resumed = (Run.open(folder_of(scenario, folder)) for folder in (whole, cut))
    for table in ("corpus", "metrics", "ledger", "index"):
        files = sorted((run.path / table).glob("*.parquet"))
        assert files and all(f.read_bytes() == (resumed.path / table / f.name).read_bytes() for f in files), table
    documents = run.documents.collect()
    last = documents.filter((pl.col("ai_share") > 0) & (pl.col("t") == 4) & pl.col("author").str.starts_with("writers"))
    lineage = run.lineage(last["doc"][0])
    assert lineage.fits[0].population == "labs" and lineage.ai_share == last["ai_share"][0]
    assert lineage.hops == pytest.approx(last["depth"][0])
