"""Overlap of held-out documents with the web: the index, the metric, and the filter that removes it."""

from contextlib import closing

import numpy as np
import polars as pl
import pytest

from ecosystem.corpus import overlap
from ecosystem.corpus.overlap import Overlaps
from ecosystem.errors import ScenarioError
from ecosystem.metrics.conditions import WEB_METRICS
from ecosystem.policies.duplicates import Decontaminate
from ecosystem.report.build import write_report
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.testing import check_policy
from tests.conftest import MACHINE
from tests.test_branch import branched, ran

N = 4


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The n-grams of a text, by definition; a short text is one."""
    words = pl.Series([text.lower()]).str.extract_all(r"\w+")[0].to_list()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def pairs(held_out, texts, n) -> set[tuple[int, int]]:
    known = [grams(text, n) for text in held_out]
    return {(i, j) for i, text in enumerate(texts) for j, own in enumerate(known) if own & grams(text, n)}


@pytest.mark.parametrize("n", [1, 2, 3, 13])
def test_overlaps_are_those_of_the_definition_in_any_batches(n, monkeypatch):
    monkeypatch.setattr(overlap, "_TEXT", 200)
    rng = np.random.default_rng(n)
    words = np.array(["the", "The", "cat", "sat.", "on", "a", "mat!", "naïve", "—", "x_1"])

    def prose(count):
        return [" ".join(rng.choice(words, size)) for size in rng.integers(0, 16, count)]

    held_out, texts = prose(9), prose(60)
    texts[5] = held_out[2]
    expected = pairs(held_out, texts, n)
    index = Overlaps(pl.Series(held_out), n)
    for first in (0, 7, 7, 40):
        index.add(pl.Series(texts[len(index) : first + 20], dtype=pl.String))
    assert len(index) == 60 and index.held_out == 9
    assert {(i, j) for i in range(60) for j in index.of(np.array([i])).tolist()} == expected
    some = np.array([3, 5, 8, 59])
    assert index.of(some).tolist() == sorted({j for i, j in expected if i in some})
    first = [min((j for k, j in expected if k == i), default=-1) for i in range(60)]
    assert index.first(np.arange(60)[::-1]).tolist() == first[::-1]


def test_nothing_overlaps_with_nothing():
    index = Overlaps(pl.Series([], dtype=pl.String), 13)
    index.add(pl.Series(["a b", None, ""]))
    assert index.of(np.arange(3)).size == 0 and index.first(np.arange(3)).tolist() == [-1] * 3


def scenario(**more) -> Scenario:
    """Bigrams of a small vocabulary, so that short overlaps are frequent; one of two laboratories is clean."""
    trainer = {"model": "words", "scrape": {"docs": 40}, "publish": 10, "decoding": {"max_tokens": 16}}
    return Scenario.parse(
        {
            "name": "overlaps",
            "steps": 4,
            "sources": {"language": {"kind": "process", "held_out": 30}},
            "web": {
                "kind": "watts_strogatz",
                "sites": 6,
                "degree": 2,
                "initial": {"source": "language", "documents": 80},
                "retain": ["recent"],
            },
            "models": {"words": {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64, "init": "foundation"}},
            "policies": {
                "recent": {"kind": "window", "steps": 2},
                "clean": {"kind": "decontaminate", "words": N},
                "archive": {"kind": "inject_real", "source": "language", "fraction": 0.5},
            },
            "writers": {"people": {"source": "language", "rate": 5.0}},
            "trainers": {"dirty": {**trainer, "select": ["archive"]}, "clean": {**trainer, "select": ["clean"]}},
            "measure": {"overlap": {"words": N}, "texts": ["distinct"], "words": 30, "held_out": 25},
            **more,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Run:
    return ran(scenario(), tmp_path_factory.mktemp("overlap"), cache=cache)


def value(run, step, who):
    [row] = run.metrics.filter(step=step, id=who, metric="held_out_overlap").select("value", "error").rows()
    return row


@pytest.mark.slow
def test_the_metric_is_the_share_of_held_out_documents_by_definition(run):
    world = World(run.scenario)
    held_out = world.state.references.held_out.to_list()
    assert len(held_out) == 25
    documents, ledger = run.documents.collect(), run.ledger.collect()
    for step in range(1, 5):
        alive = (pl.col("t") <= step) & (pl.col("retired_at").is_null() | (pl.col("retired_at") > step))
        found = {j for _, j in pairs(held_out, documents.filter(alive)["content"], N)}
        share = len(found) / 25
        assert value(run, step, "web") == pytest.approx((share, (share * (1 - share) / 25) ** 0.5))
        rows = ledger.filter(step=step, reader="dirty/0").filter(pl.col("verdict").is_null())
        assert rows["source"].null_count() < rows.height  # some are from the archive
        texts = world.state.contents(rows.filter(pl.col("source").is_not_null())).to_list()
        texts += documents["content"].gather(rows.filter(pl.col("source").is_null())["document"]).to_list()
        assert value(run, step, "dirty/0")[0] == pytest.approx(len({j for _, j in pairs(held_out, texts, N)}) / 25)
    assert value(run, 4, "dirty/0")[0] > 0 and 0 < value(run, 0, "web")[0] < 1


def test_the_filter_leaves_no_overlap_and_names_it(run):
    assert all(value(run, step, "clean/0")[0] == 0 for step in range(1, 5))
    refused = run.ledger.filter(pl.col("verdict") == "clean").collect()
    assert refused["reason"].str.contains(r"^shares 4 words in a row with held-out document \d+$").all()
    assert refused.height
    held_out, documents = World(run.scenario).state.references.held_out, run.documents.collect()
    for document, reason in refused.select("document", "reason").head(20).iter_rows():
        other = held_out[int(reason.rsplit(" ", 1)[1])]
        assert grams(documents["content"][document], N) & grams(other, N)


@pytest.mark.slow
def test_the_report_says_how_many_held_out_documents_are_found(run, monkeypatch):
    monkeypatch.setattr("ecosystem.report.charts.pictures", lambda spec: (b"<svg/>", b"png"))
    page = write_report(run).read_text()
    assert "of the held-out documents have 4 words in a row in common with a document on the web" in page
    assert "Held-out documents found" in page


@pytest.mark.slow
def test_a_resumed_run_and_a_branch_measure_alike(run, cache, tmp_path):
    for stop in (1, 3, 4):
        with closing(begin(scenario(), out=tmp_path, machine=MACHINE, cache=cache)) as snapshots:
            for snapshot in snapshots:
                if snapshot.t == stop:
                    break
    again = Run.open(folder_of(scenario(), tmp_path))
    assert again.metrics.equals(run.metrics)
    assert branched(run, 2, {}, tmp_path / "branch", cache).metrics.equals(run.metrics)


def test_not_asked_for_it_is_not_measured(run):
    plain = scenario(measure={"texts": ["distinct"], "words": 30, "held_out": 25})
    measured = set(run.metrics.filter(scope="web")["metric"])
    assert measured == {"synthetic_share", "depth", "documents", "held_out_overlap"} <= set(WEB_METRICS)
    assert "overlap" not in plain.plain()["measure"] and plain.fingerprint() != run.scenario.fingerprint()
    world = World(plain)
    world.step()
    assert "held_out_overlap" not in set(world.snapshot().metrics["metric"])


def test_a_condition_may_read_it(run):
    policies = {**run.scenario.plain()["policies"]}
    policies["clean"] = {**policies["clean"], "when": "web.held_out_overlap > 2"}
    world = World(scenario(policies=policies))
    world.step()
    assert world.snapshot().metrics.filter(metric="in_force")["value"].to_list() == [0.0]
    assert not [event for event in world.snapshot().state["events"] if "not measured" in event]


@pytest.mark.parametrize("words", [1, 13])
def test_the_filter_obeys_the_laws_of_policies(words):
    check_policy(Decontaminate(words=words))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sources.language.held_out": 0}, r"measure\.overlap: there are no held-out documents; give web\.initial"),
        ({"sources.language.held_out": 0}, r"policies\.clean: there are no held-out documents"),
        ({"measure.overlap.words": 0}, r"measure\.overlap\.words: must be greater than or equal to 1|at least 1"),
    ],
)
def test_an_overlap_with_nothing_is_a_sentence(values, sentence):
    with pytest.raises(ScenarioError, match=sentence):
        scenario().override(values)
