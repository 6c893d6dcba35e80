"""The cost ledger: what is counted is what was really drawn, trained, written, injected, reviewed and paid."""

import numpy as np
import polars as pl
import pytest

from ecosystem.families.language import generation
from ecosystem.families.language.gpt2 import cohort as gpt2_cohort
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.requests import Decoding, GenerateRequest, Prompt
from ecosystem.report.data import RunReportData
from ecosystem.report.sections import sections
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.streams import Stream
from tests.conftest import MACHINE, tiny


def table(run: Run) -> dict[tuple[int, str, str], float]:
    return {(step, who, metric): value for step, who, metric, value in run.costs().rows()}


@pytest.mark.slow
def test_a_ledger_holds_what_the_other_tables_hold(finished):
    costs, metrics = table(finished), finished.metrics
    documents, ledger = finished.documents.collect(), finished.ledger.collect()
    for t in range(1, 4):
        of_step = metrics.filter(pl.col("step") == t)
        for trainer in finished.trainers():
            trained = of_step.filter((pl.col("scope") == "trainer") & (pl.col("id") == trainer))
            assert (
                costs[t, f"trainers/{trainer}", "tokens_trained"]
                == trained.filter(metric="tokens_trained")["value"].item()
            )
        for writer in ("people/0", "people/1"):
            wrote = documents.filter((pl.col("t") == t) & (pl.col("author") == f"writers/{writer}")).height
            assert costs[t, f"writers/{writer}", "human_documents"] == wrote
        injected = ledger.filter((pl.col("step") == t) & pl.col("source").is_not_null())["added_by"]
        assert costs[t, "policies/archive", "documents_injected"] == injected.len() > 0
        assert set(injected) == {"archive"}
        reviewed = of_step.filter(pl.col("metric").is_in(["reviewed_human", "reviewed_synthetic"]))["value"].sum()
        assert costs[t, "curators/editors/0", "reviews"] == reviewed > 0
    assert ledger.filter(pl.col("source").is_null())["added_by"].null_count() == ledger["source"].null_count()
    assert not any(metric == "spent" for _, _, metric in costs), "nothing here has a price"
    assert not any(step == 0 for step, _, _ in costs)


@pytest.mark.slow
def test_tokens_are_those_that_were_drawn(cache, monkeypatch):
    """A document alone is written until it ends, so that its tokens are the calls of the function that draws one."""
    monkeypatch.setattr(gpt2_cohort, "usable", lambda *given: False)  # compiled kernels draw without that function
    world, calls, pick = World(tiny(), cache=cache, threads=1), [], generation.pick
    monkeypatch.setattr(generation, "pick", lambda *given: calls.append(1) or pick(*given))
    cohort, prompts = world.state.cohorts["tiny"], world.state.references.held_out.head(1)
    ended = set()
    for number in range(12):
        for decoding, start in (
            (Decoding(max_tokens=40, temperature=3.0), 0),
            (Decoding(max_tokens=40, temperature=3.0, prompt=Prompt(tokens=4)), 4),
            (Decoding(max_tokens=10**4, temperature=0.2), 0),  # until the context is full
        ):
            calls.clear()
            given = prompts if start else None
            cohort.generate([GenerateRequest(0, 1, decoding, given, Stream(1, f"drawn/{number}"))])
            [record] = cohort.written
            assert record.drawn.tolist() == [len(calls)] and record.read.tolist() == [start]
            ended.add((decoding.max_tokens, len(calls) < min(40, cohort.context)))
    assert {(40, True), (40, False), (10**4, False)} <= ended, "some ended by themselves, some were cut off"


def test_operations_follow_the_shape_of_the_model(cache):
    """Six operations per weight and trained token (three passes of a product and a sum), and the attention."""
    scenario = tiny(trainers__careful__offset=5)  # it writes and does not train at step 1
    world = World(scenario, cache=cache, threads=MACHINE.threads)
    world.step()
    costs = world.snapshot().metrics.filter(scope="cost")
    found = {(who, metric): value for who, metric, value in costs.select("id", "metric", "value").rows()}
    shape: Shape = world.state.cohorts["tiny"].shape
    weights = sum(np.prod(size) for name, size in shape.parameters().items() if len(size) == 2 and "wpe" not in name)
    assert shape.flops(1) == 2 * weights + 2 * shape.n_layer * shape.n_embd
    tokens = found["trainers/naive/0", "tokens_trained"]
    train = tokens * (6 * weights + 6 * shape.n_layer * shape.n_embd * shape.context)
    drawn = found["trainers/naive/0", "tokens_generated"]
    written = found["trainers/naive/0", "flops"] - train
    # Written one by one, a document of n tokens attends to n / 2 of them on average, at most 16.
    assert 2 * weights * drawn < written <= (2 * weights + 2 * shape.n_layer * shape.n_embd * 16) * drawn
    assert ("trainers/careful/0", "tokens_trained") not in found
    assert found["trainers/careful/0", "flops"] < found["trainers/naive/0", "flops"]
    assert 0 < found["trainers/naive/0", "tokens_published"] < drawn, "texts for scoring are drawn and not published"


@pytest.mark.parametrize("mode", ["fixed", "fresh"])
def test_a_document_is_paid_for_once(mode, tmp_path):
    """Fixed: two readers and three steps share what is bought at the first; fresh: each time and reader it is new."""
    data = {
        "name": "bought",
        "steps": 3,
        "sources": {"docs": {"kind": "categorical", "types": 8, "held_out": 50}},
        "web": {"kind": "complete", "sites": 3, "initial": {"source": "docs", "documents": 100}},
        "models": {"one": {"kind": "categorical", "types": 8}},
        "measure": {"synthetic": 10},
        "policies": {"bought": {"kind": "inject_real", "source": "docs", "count": 30, "mode": mode, "price": 0.5}},
        "trainers": {"a": {"count": 2, "model": "one", "select": ["bought"], "scrape": {"docs": 50}, "publish": 40}},
    }
    scenario = Scenario.parse(data)
    steps = begin(scenario, out=tmp_path, machine=MACHINE)
    for snapshot in steps:
        if snapshot.t == 2:
            break
    steps.close()  # the rest is a resume, which must know what has been bought
    for _ in begin(scenario, out=tmp_path, machine=MACHINE):
        pass
    run = Run.open(folder_of(scenario, tmp_path))
    costs = table(run)
    new = {"fixed": [30, 0, 0], "fresh": [60, 60, 60]}[mode]
    for t, count in zip(range(1, 4), new, strict=True):
        assert costs[t, "policies/bought", "documents_injected"] == 60
        assert costs[t, "policies/bought", "human_documents"] == count
        assert costs[t, "policies/bought", "spent"] == 0.5 * count
        assert costs[t, "trainers/a/0", "documents_trained"] == 80
        assert costs.get((t, "trainers/a/0", "documents_generated"), 0) == (0 if t == 1 else 50)
    assert not any(metric.startswith("tokens") or metric == "flops" for _, _, metric in costs)
    totals = {(who, metric): value for who, metric, value in run.costs(total=True).rows()}
    assert totals["policies/bought", "spent"] == 0.5 * sum(new)


def test_what_an_adder_cannot_give_is_an_event_of_its_step(tmp_path):
    """Of 40 documents the web begins with 25 and a writer takes 5 a step; two trainers ask an archive and pay for more.

    The archive holds 25 of 30 that each wants; of what nobody has drawn 10, then 5, then none are left to pay for, and
    those left at step 2 were all bought at step 1.
    """
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{k}" for k in rng.integers(0, 200, 20)) for _ in range(40)]
    pl.DataFrame({"text": texts}).write_ndjson(tmp_path / "few.jsonl")
    scenario = Scenario.parse(
        {
            "name": "short",
            "steps": 3,
            "sources": {"few": {"kind": "jsonl", "path": str(tmp_path / "few.jsonl"), "held_out": 0.0}},
            "web": {"kind": "complete", "sites": 3, "initial": {"source": "few", "documents": 25}},
            "models": {"small": {"preset": "trigram"}},
            "policies": {
                "archive": {"kind": "verified_archive", "source": "few", "count": 30},
                "paid": {"kind": "paid_writing", "source": "few", "count": 8, "price": 2.0},
                "enough": {"kind": "inject_real", "source": "few", "count": 40},
            },
            "writers": {"people": {"count": 1, "source": "few", "rate": 5.0}},
            "trainers": {"a": {"count": 2, "model": "small", "select": ["enough", "archive", "paid"], "publish": 2}},
            "measure": {"synthetic": 2, "texts": []},
        }
    )
    world, events, spent = World(scenario, cache=tmp_path / "cache", threads=1), [], []
    for _ in range(3):
        world.step()
        events.append(sorted(e for e in world.snapshot().state["events"] if "policies" in e))
        costs = world.snapshot().metrics.filter(scope="cost", id="policies/paid")
        spent.append(dict(costs.select("metric", "value").iter_rows()).get("spent", 0.0))
    archive = "policies.archive: 2 trainers asked for 60 documents and got 50, since there are no more"
    none = "policies.paid: no new documents were written for pay; all 10 documents added had been bought before, so "
    assert events == [
        [archive],
        [
            archive,
            "policies.paid: 2 trainers asked for 16 documents and got 10, since there are no more",
            none + "nothing was spent",
        ],
        [archive, "policies.paid: 2 trainers asked for 16 documents and got 0, since there are no more"],
    ]
    assert spent == [20.0, 0.0, 0.0]


@pytest.mark.slow
def test_the_report_says_what_it_cost(finished):
    data = RunReportData.of(finished)
    told = sections(data)["run"](data)
    total = finished.costs(total=True).filter(id="curators/editors/0")["value"].item()
    assert "curators/editors" in told and f"{total:,.0f}" in told and "trainers/naive<" in told
    assert f"{finished.seconds:,.0f} s" in told and finished.seconds == sum(c.seconds for c in finished.store.commits())
