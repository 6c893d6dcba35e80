"""A web larger than memory: rows in files, draws in blocks, openings in batches that go on after a kill."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem import draws
from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.storage import documents
from ecosystem.corpus.storage.documents import Documents
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.errors import EcosystemError
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.leftovers import other_files
from ecosystem.runs.planning.estimate import Plan
from ecosystem.runs.records import OPENING, SCRATCH, batch_file
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation import build
from ecosystem.simulation.step import human_drafts
from ecosystem.simulation.world import World
from ecosystem.sources import files
from ecosystem.sources.files import Parquet
from ecosystem.streams import Stream, Streams

MACHINE = Machine("cpu", 1)
SCENARIO = {
    "name": "large",
    "steps": 2,
    "sources": {"language": {"kind": "process", "mean_words": 12.0, "held_out": 20}},
    "web": {"kind": "complete", "sites": 3, "initial": {"source": "language", "documents": 1000, "sample": 300}},
    "models": {"bigram": {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64}},
    "writers": {"people": {"count": 2, "source": "language", "rate": 10.0}},
    "trainers": {"labs": {"count": 2, "model": "bigram", "scrape": {"docs": 50}, "publish": 5}},
    "curators": {"editors": {"count": 1, "reviews": 20, "action": "remove", "false_positive_rate": 0.3}},
    "measure": {"words": 50, "groups": 2},
}


def scenario(**initial) -> Scenario:
    data = dict(SCENARIO)
    data["web"] = SCENARIO["web"] | {"initial": SCENARIO["web"]["initial"] | initial}
    return Scenario.parse(data)


@pytest.fixture
def small_memory(monkeypatch):
    """Rows move to files after a few hundred documents, and an opening has batches of 300."""
    monkeypatch.setattr(documents, "_MEMORY", 50_000)
    monkeypatch.setattr(documents, "_AT_ONCE", 64)
    monkeypatch.setattr(build, "BATCH", 300)
    monkeypatch.setattr(build, "LARGE", 300)


# Draws.


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_the_smallest_keys_are_those_of_a_sort(count, k, threads, seed):
    keys = np.random.default_rng(seed).integers(0, 30, count).astype(float)  # with ties

    def block(at, bound):
        chosen = at.start + np.flatnonzero(keys[at] < bound)
        return chosen, keys[chosen]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "_BLOCK", 16)
        patch.setattr(draws, "_PART", 40)
        chosen = draws.smallest(count, k, block, threads)
    assert chosen.tolist() == np.sort(np.argsort(keys, kind="stable")[:k]).tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_first_arrivals_are_those_of_all_logarithms(threads):
    rng, stream = np.random.default_rng(1), Stream(3, "scrape", 2)
    ids = np.sort(rng.choice(2_000_000, 900_000, replace=False))
    appeal = rng.exponential(size=ids.size) ** 3
    for rates in (appeal, None):
        arrival = -np.log(stream.uniform(ids)) / (1.0 if rates is None else rates)
        chosen = draws.first_arrivals(ids, rates, 700, stream, threads)
        assert chosen.tolist() == ids[np.sort(np.argsort(arrival, kind="stable")[:700])].tolist()
    assert draws.lowest(ids, 50, stream).tolist() == ids[np.sort(np.argsort(stream.uniform(ids))[:50])].tolist()


# Documents.


def drafts(texts: list[str | None], source: str = "s") -> pl.DataFrame:
    rows = np.arange(len(texts))
    return human_drafts(pl.Series(texts, dtype=pl.String), source, rows, "initial", rows % 4)


def test_documents_in_files_read_as_those_in_memory(monkeypatch, tmp_path):
    texts = [f"text {i} " + "word " * (i % 30) for i in range(900)] + ["", "東京は", "text 3"]
    whole = Corpus()
    whole.publish(whole.prepare(drafts(texts), 0))
    monkeypatch.setattr(documents, "_MEMORY", 40_000)
    monkeypatch.setattr(documents, "_AT_ONCE", 50)
    parts = Corpus(scratch=Scratch(tmp_path / "scratch"))
    for first in range(0, len(texts), 100):
        parts.publish(parts.prepare(drafts(texts[first : first + 100]), 0).with_columns(row=pl.lit(7, pl.Int64)))
    assert len(list((tmp_path / "scratch").glob("*/*.arrow"))) > 2
    ids = np.random.default_rng(0).integers(0, len(texts), 400)
    for corpus in (whole, parts):
        corpus.retire(pl.Series([5, 870]), 1, "a policy")
        corpus.reweigh(pl.Series([6, 7]), pl.Series([0.5, 1.0]))
    assert parts.index.drop("row").equals(whole.index.drop("row")) and parts.index["row"].unique().to_list() == [7]
    assert parts.rows(ids).drop("row").equals(whole.rows(ids).drop("row"))
    assert parts.contents(ids).to_list() == [texts[i] for i in ids] and parts.contents([]).is_empty()
    assert parts.live().table().drop("row").equals(whole.live().table().drop("row"))
    here = [i for i in range(len(texts)) if i % 100 % 4 in (0, 3) and i not in (5, 870)]
    assert parts.live_on([0, 3]).tolist() == here
    assert parts.rows([5])["retired_at"].item() == 1 and parts.rows([6])["weight"].item() == 0.5


def test_vectors_in_files_read_as_those_in_memory(monkeypatch):
    monkeypatch.setattr(documents, "_MEMORY", 1000)
    values = np.random.default_rng(0).normal(size=(60, 5))
    kind = pl.Array(pl.Float64, 5)
    corpus = Corpus(kind)
    for first in range(0, 60, 20):
        rows = np.arange(first, first + 20)
        content = pl.Series(values[rows], dtype=kind)
        corpus.publish(corpus.prepare(human_drafts(content, "s", rows, "initial", rows % 2), 0))
    assert np.array_equal(corpus.contents([59, 0, 31]).to_numpy(), values[[59, 0, 31]])


def test_files_are_deleted_with_the_documents(tmp_path):
    scratch = Scratch(tmp_path / "s")
    table = Documents({"size": pl.Int32()}, scratch)
    for _ in range(3):
        table.append(pl.DataFrame({"size": pl.Series([60 << 20], dtype=pl.Int32)}))
    assert len(list((tmp_path / "s").glob("*/*"))) == 1 and len(table) == 3
    assert table.rows(np.array([2, 0]), ["size"])["size"].to_list() == [60 << 20] * 2
    del table, scratch
    assert list((tmp_path / "s").iterdir()) == []


# Openings and restores.


def computed(folder, cache, **options) -> dict[str, pl.DataFrame]:
    for _ in begin(scenario(), out=folder, machine=MACHINE, cache=cache, **options):
        pass
    path = folder_of(scenario(), folder)
    assert not (path / OPENING).exists() and not (path / SCRATCH).exists()
    return {name: Store(path).table(name) for name in ("corpus", "index", "ledger", "metrics")}


def cut_off(documents: int, error):
    """Return a report of progress that raises an error once so many initial documents are published."""

    def progress(what, done, total):
        if what == "opening of the web" and done >= documents:
            raise error

    return progress


def equal(a: dict[str, pl.DataFrame], b: dict[str, pl.DataFrame]) -> bool:
    return all(a[name].equals(b[name]) for name in a)


def test_batches_change_no_number(small_memory, tmp_path, cache, monkeypatch):
    batched = computed(tmp_path / "batched", cache)
    path = folder_of(scenario(), tmp_path / "batched")
    files = Store(path).commits()[0].table_files("corpus")
    assert files == [batch_file(k) for k in range(4)] and Store(path).commits()[0].format == 2
    assert Run(path).verify() > 0 and other_files(Store(path)) == []
    monkeypatch.undo()
    assert equal(batched, computed(tmp_path / "whole", cache))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_opening_that_is_cut_off_goes_on(small_memory, tmp_path, cache, monkeypatch, interruption):
    with pytest.raises(interruption):
        computed(tmp_path / "cut", cache, progress=cut_off(600, interruption))
    path = folder_of(scenario(), tmp_path / "cut")
    assert sorted(file.name for file in (path / "corpus").iterdir()) == ["000000-0000.parquet", "000000-0001.parquet"]
    made = []
    prepare = Corpus.prepare

    def counted(self, frame, t):
        made.append((t, frame.height))
        return prepare(self, frame, t)

    monkeypatch.setattr(Corpus, "prepare", counted)
    resumed = computed(tmp_path / "cut", cache)
    assert [n for t, n in made if t == 0] == [300, 100], "the first two batches are read, not made again"
    assert equal(resumed, computed(tmp_path / "whole", cache))


def test_a_damaged_batch_of_an_opening_is_made_again(small_memory, tmp_path, cache):
    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path / "cut", cache, progress=cut_off(900, KeyboardInterrupt))
    path = folder_of(scenario(), tmp_path / "cut")
    (path / batch_file(1)).write_bytes(b"damaged")
    assert equal(computed(tmp_path / "cut", cache), computed(tmp_path / "whole", cache))


def test_an_error_in_an_opening_leaves_no_folder(small_memory, tmp_path, cache):
    with pytest.raises(EcosystemError):
        computed(tmp_path / "out", cache, progress=cut_off(600, EcosystemError("the disk is full.")))
    assert not (tmp_path / "out").exists()


def test_a_run_with_batches_is_resumed_to_the_same_numbers(small_memory, tmp_path, cache):
    steps = begin(scenario(), out=tmp_path / "a", machine=MACHINE, cache=cache)
    next(steps), next(steps)
    steps.close()
    assert equal(computed(tmp_path / "a", cache), computed(tmp_path / "b", cache))


def test_models_learn_from_the_sample_alone(tmp_path, cache):
    few, more = (World(scenario(documents=n), cache=cache) for n in (300, 600))
    assert few.cohorts["bigram"].fingerprint == more.cohorts["bigram"].fingerprint
    other = World(scenario(documents=600, sample=301), cache=cache)
    assert other.cohorts["bigram"].fingerprint != more.cohorts["bigram"].fingerprint
    assert len(more.corpus) == 600


def test_the_plan_says_that_models_learn_from_a_sample():
    note = "learn from the first 300 of 1,000 initial documents (web.initial.sample)"
    assert any(note in line for line in Plan.of(scenario(), MACHINE, Path()).notes)
    assert not any("web.initial.sample" in line for line in Plan.of(scenario(sample=1000), MACHINE, Path()).notes)


def test_the_plan_counts_the_texts_that_there_are(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"document number {i}" for i in range(400)))
    asked = {"sources.language": {"kind": "text", "path": "a.txt", "held_out": 0}, "web.initial.documents": 1000}
    for sample, noted in ((300, True), (400, False)):
        notes = Plan.of(scenario(sample=sample).override(asked), MACHINE, Path(), tmp_path).notes
        assert any("learn from the first 300 of 400 initial documents" in line for line in notes) == noted


# Sources.


def test_a_large_source_is_read_from_files_as_from_memory(monkeypatch, tmp_path):
    texts = [f"text {i % 700}  " + "word " * (i % 9) for i in range(900)] + ["", "  "]
    pl.DataFrame({"text": texts}).write_parquet(tmp_path / "a.parquet")
    source = Parquet(path=str(tmp_path / "a.parquet"), held_out=20)
    whole = source.open("docs", Streams(1), tmp_path)
    monkeypatch.setattr(documents, "_MEMORY", 20_000)
    monkeypatch.setattr(files, "_BATCH", 100)
    parts = source.open("docs", Streams(1), tmp_path)
    assert parts.size == whole.size and parts.digest == whole.digest and parts.omissions == whole.omissions != ""
    rows = np.random.default_rng(0).integers(0, whole.size, 300)
    assert parts.rows(rows).equals(whole.rows(rows)) and parts.held_out.equals(whole.held_out)
