"""Policies about where documents come from and how they differ: labels, caps, archives, quantiles, diversity."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ecosystem.corpus.words import ngrams, normalised
from ecosystem.errors import ScenarioError
from ecosystem.policies.base import gate
from ecosystem.policies.diversity import Diversity, embedded, spread
from ecosystem.policies.filters import PerplexityBand
from ecosystem.policies.injection import InjectReal, PaidWriting, VerifiedArchive
from ecosystem.policies.provenance import ProvenanceLabel, SyntheticCap
from ecosystem.policies.sampling import Sample
from ecosystem.testing import sample_context, sample_documents
from tests.conftest import tiny

DOCS = sample_documents()
AUTHORS, EACH = 400, 50


def through(policy, docs, context=None):
    return gate(docs, [("p", policy)], context or sample_context(DOCS))


def refused(policy, docs, context=None):
    return through(policy, docs, context)["verdict"].is_not_null().to_numpy()


def written(synthetic=True):
    """Return documents of 400 authors, 50 of each."""
    n = AUTHORS * EACH
    return pl.DataFrame(
        {"doc": range(n), "t": [0] * n, "author": [f"a/{i // EACH}" for i in range(n)], "synthetic": [synthetic] * n}
    )


def near(share, expected, n):
    return abs(share - expected) <= 4 * (expected * (1 - expected) / n) ** 0.5


# Provenance labels.


def test_labels_are_those_of_the_honest_that_were_not_lost():
    docs = written()
    assert refused(ProvenanceLabel(), docs).all() and not refused(ProvenanceLabel(), written(False)).any()
    by_author = refused(ProvenanceLabel(liars=0.3, lost=0.2), docs).reshape(AUTHORS, EACH)
    honest = by_author.any(axis=1)  # that an honest author loses all 50 labels has probability 0.2^50
    assert near(1 - honest.mean(), 0.3, AUTHORS)
    assert near(by_author[honest].mean(), 0.8, by_author[honest].size)
    assert near(refused(ProvenanceLabel(false_labels=0.1), written(False)).mean(), 0.1, AUTHORS * EACH)
    assert not refused(ProvenanceLabel(liars=1.0), docs).any() and not refused(ProvenanceLabel(lost=1.0), docs).any()


def test_liars_lie_for_ever_and_more_lie_as_their_share_grows():
    docs = written()
    few, later = (refused(ProvenanceLabel(liars=0.3), docs, sample_context(DOCS, t=t)) for t in (1, 9))
    assert (few == later).all()
    more = refused(ProvenanceLabel(liars=0.6), docs)
    assert (few >= more).all() and few.sum() > more.sum()
    new = docs.with_columns(doc=pl.col("doc") + 1_000_000)
    assert (refused(ProvenanceLabel(liars=0.3), new) == few).all()  # it is the author who lies, not the document


# Caps on synthetic publishing.


def test_caps_by_author_and_by_share():
    docs = pl.DataFrame(
        {
            "doc": range(60),
            "t": [0] * 60,
            "author": ["m/0"] * 30 + ["m/1"] * 5 + ["m/2"] * 11 + ["people"] * 14,
            "synthetic": [True] * 46 + [False] * 14,
        }
    )

    def kept(**fields):
        return docs.filter(pl.Series(~refused(SyntheticCap(**fields), docs)))["author"].value_counts().rows()

    assert dict(kept(per_author=8)) == {"m/0": 8, "m/1": 5, "m/2": 8, "people": 14}
    by_share = dict(kept(share=0.3))  # 6 of 20 are 0.3: 0.3 / 0.7 * 14 is 6, though just below it in floating point
    assert by_share.pop("people") == 14 and sum(by_share.values()) == 6
    both = dict(kept(per_author=2, share=0.3))
    assert both.pop("people") == 14 and both == {"m/0": 2, "m/1": 2, "m/2": 2}
    assert dict(kept(share=0.0)) == {"people": 14} and len(kept(share=1.0)) == 4
    strict, lax = (refused(SyntheticCap(share=share), docs) for share in (0.3, 0.6))
    assert (strict >= lax).all()
    assert refused(SyntheticCap(share=0.9), docs.filter("synthetic")).all()  # no people, no machines
    with pytest.raises(ValidationError, match="per_author, share or both"):
        SyntheticCap()


# Real documents: an archive of what was published, and what was not.


def test_an_archive_holds_what_was_published_and_paid_writing_what_was_not():
    base = sample_context(DOCS, t=3, rows=100)
    asked = []

    def context(name):
        drawn = lambda source, t: asked.append((source, t)) or 10 + 20 * t  # noqa: E731
        return replace(base(name), sources=SimpleNamespace(drawn=drawn, size=base(name).sources.size))

    def rows(policy, kept=0):
        return policy.add(kept, context("p"))["document"].to_list()

    assert rows(VerifiedArchive(source="s", count=99)) == list(range(10))
    assert rows(VerifiedArchive(source="s", count=99, until=1)) == list(range(30))
    assert rows(VerifiedArchive(source="s", count=999, until=9)) == list(range(70))  # no more than until now
    assert rows(PaidWriting(source="s", count=99)) == list(range(70, 100))
    assert asked == [("s", 0), ("s", 1), ("s", 3), ("s", 3)]
    part = rows(VerifiedArchive(source="s", fraction=0.5), kept=4)
    assert len(part) == 4 and set(part) < set(range(10))
    # Where everything has been published, an archive is the whole source and nothing is left to be paid for.
    sources = SimpleNamespace(drawn=lambda source, t: 100, size=base("p").sources.size)
    everything = replace(base("p"), sources=sources)
    for mode in ("fixed", "fresh"):
        whole, archive = (
            kind(source="s", count=40, mode=mode).add(0, everything) for kind in (InjectReal, VerifiedArchive)
        )
        assert archive.equals(whole)
    assert PaidWriting(source="s", count=40).add(0, everything).is_empty()


def test_only_paid_writing_has_a_price_unless_it_is_given():
    assert InjectReal(source="s", count=1).price is None and "price" not in InjectReal(source="s", count=1).plain()
    assert InjectReal(source="s", count=1, price=0.5).price == 0.5
    assert PaidWriting(source="s", count=1).price == 1.0
    with pytest.raises(ValidationError):
        PaidWriting(source="s", count=1, price=-1.0)


# Perplexity by quantiles of what is on the web.


def test_a_band_of_quantiles_is_that_of_the_web_as_it_is():
    frame = pl.DataFrame({"doc": range(2000), "t": [0] * 2000})
    perplexity = np.arange(2000) + 10.0
    tokens = np.where(np.arange(2000) % 100 == 7, 0, 10)  # one in a hundred has no perplexity and does not count
    base = sample_context(DOCS)

    def score(model, ids):
        at = ids.to_numpy()
        return np.log(perplexity[at]) * 10, tokens[at]

    def kept(keep, live, docs=frame):
        corpus = SimpleNamespace(live=lambda: frame["doc"].gather(live))
        context = lambda name: replace(base(name), models=SimpleNamespace(score=score), corpus=corpus)  # noqa: E731
        return ~refused(PerplexityBand(model="m", keep=keep), docs, context)

    live = np.arange(500, 1400)
    ordinary = perplexity[live][tokens[live] > 0]
    for keep in ([0.0, 0.3], [0.3, 0.6], [0.6, 1.0]):
        low, high = np.quantile(ordinary, keep)
        low, high = (0 if keep[0] == 0 else low), (np.inf if keep[1] == 1 else high)
        assert (kept(keep, live) == (tokens > 0) & (perplexity >= low - 1e-6) & (perplexity <= high + 1e-6)).all()
    # Of more than 1,000 a sample is taken: the quantile 0.4 is then known to sqrt(0.24 / 1,000).
    share = kept([0.0, 0.4], np.arange(2000))[tokens > 0].mean()
    assert 0 < abs(share - 0.4) < 4 * (0.24 / 1000) ** 0.5
    assert kept([0.0, 0.4], live[:0])[tokens > 0].all()
    for wrong in ({"keep": [0.5, 0.2]}, {"keep": [0.1]}, {"keep": [0.0, 0.3], "high": 9.0}):
        with pytest.raises(ValidationError):
            PerplexityBand(model="m", **wrong)


# Diversity, and the n-grams behind it.


def test_a_row_of_ngrams_is_of_its_text_alone_and_the_same_in_any_company():
    texts = DOCS["content"]
    rows = normalised(ngrams(texts))
    for i in (0, 3, 17, 59):
        alone = normalised(ngrams(texts[i : i + 1]))
        assert (alone != rows[[i]]).nnz == 0
    length = np.sqrt(rows.multiply(rows).sum(axis=1))
    assert np.allclose(length, np.where(np.diff(rows.indptr) > 0, 1, 0))
    # "abcd" twice as a word and as a string, a pair of words, and four strings with a blank in them.
    assert ngrams(pl.Series(["abcd abcd"])).sum() == pytest.approx(2 * (1 + np.log(2)) + 1 + 4)
    assert ngrams(pl.Series(["", None, "a"])).sum(axis=1).tolist() == [0, 0, 1]


def test_selection_covers_what_luck_would_miss():
    rng = np.random.default_rng(1)
    kinds = [[f"k{k}w{i}" for i in range(30)] for k in range(8)]
    size = [300, *[1] * 7]  # one topic prevails
    texts = [" ".join(rng.choice(kinds[k], 25)) for k, n in enumerate(size) for _ in range(n)]
    chosen = spread(embedded(pl.Series(texts)), 8)
    assert {texts[place][:2] for place in chosen.tolist()} == {f"k{k}" for k in range(8)}


def test_greedy_selection_agrees_with_its_definition_and_leaves_copies_to_the_last():
    texts = pl.concat([DOCS["content"], DOCS["content"].head(20), pl.Series(["", ""])])
    vectors = embedded(texts)
    assert (vectors == np.round(vectors)).all() and np.abs(vectors).max() <= 1000
    chosen = [0]
    for _ in range(1, 30):
        products = [max(int(v @ vectors[c]) for c in chosen) if v.any() else np.inf for v in vectors.astype(np.int64)]
        free = [i for i in range(len(vectors)) if i not in chosen]
        chosen.append(min(free, key=lambda i: (products[i], i)))
    assert spread(vectors, 30).tolist() == chosen
    distinct = texts.n_unique() - 1  # and the empty one
    last = spread(vectors, len(vectors))
    assert texts.gather(last[: distinct - 1]).n_unique() == distinct - 1
    assert sorted(last.tolist()) == list(range(len(vectors)))


def test_diversity_keeps_the_same_texts_in_any_order_of_rows():
    index = DOCS.drop("content")
    policy = Diversity(count=20)
    keep = set(index.filter(pl.Series(~refused(policy, index)))["doc"])
    back = index.reverse()
    assert len(keep) == 20 and keep == set(back.filter(pl.Series(~refused(policy, back)))["doc"])
    assert not refused(Diversity(count=60), index).any()


def test_a_sample_is_of_fixed_size_and_another_one_for_each_reader_and_step() -> None:
    """Over 40 steps every one of 60 documents is kept as often as any other: 20 of 60, within 4.5 standard errors."""
    table = sample_documents(60)
    policy = Sample(count=20)
    kept = np.zeros((40, 60), np.bool_)
    for t in range(40):
        signed = gate(table, [("sample", policy)], sample_context(table, t=t + 1))
        kept[t] = signed["verdict"].is_null().to_numpy()
    assert (kept.sum(axis=1) == 20).all()
    assert len({tuple(row) for row in kept.tolist()}) == 40
    assert np.abs(kept.mean(axis=0) - 1 / 3).max() < 4.5 * np.sqrt(2 / 9 / 40)
    assert gate(table.head(5), [("sample", policy)], sample_context(table))["verdict"].null_count() == 5


@pytest.mark.slow
def test_a_sample_of_words_holds_as_much_text_whoever_wrote_it_and_whatever_was_added() -> None:
    """Long documents and short ones alike fill 900 words, on average and to half a document; none is preferred.

    Over 400 steps the mean is 900 to 4 standard errors (a rule that refused, or kept, whatever crosses the line would
    be off by 10 words, which is 17 of them), and of the documents kept as many are long as of all.
    """
    table = pl.DataFrame({"doc": range(400), "words": [60] * 100 + [20] * 300})
    policy, base = Sample(words=900), sample_context(DOCS)
    held, long = np.zeros(400), np.zeros(400)
    for t in range(400):
        signed = gate(table, [("sample", policy)], sample_context(DOCS, t=t + 1))
        kept = signed.filter(pl.col("verdict").is_null())["words"].to_numpy()
        held[t], long[t] = kept.sum(), (kept == 60).mean()
    assert np.abs(held - 900).max() <= 30 and 5 < held.std() < 20
    assert abs(held.mean() - 900) < 4 * held.std() / 20
    assert abs(long.mean() - 0.25) < 4 * long.std() / 20
    # A gate with only long documents and one with only short ones give the same amount of text.
    for part, documents in ((table.head(100), 15), (table.tail(300), 45)):
        assert gate(part, [("sample", policy)], base)["verdict"].null_count() == documents
    # What was added counts, and is never refused: whatever came before the sample, the set is as large.
    contents = pl.Series([" ".join(["word"] * 70)] * 97)
    sources = SimpleNamespace(contents=lambda source, rows: contents.gather(rows), size=base("p").sources.size)
    context = lambda name: replace(base(name), sources=sources)  # noqa: E731
    for count, room in ((0, 900), (5, 550), (12, 60), (40, 0)):
        rules = [("real", InjectReal(source="s", count=count)), ("sample", policy)]
        signed = gate(table.tail(300), rules, context)
        added = pl.col("injected_from").is_not_null()
        assert signed.filter(added)["verdict"].null_count() == count
        assert signed.filter(~added)["verdict"].null_count() == pytest.approx(room / 20, abs=0.5)
        # Behind the sample it only adds.
        assert gate(table.tail(300), rules[::-1], context)["verdict"].null_count() == 45 + count
    assert gate(table.tail(10), [("sample", policy)], base)["verdict"].null_count() == 10
    for wrong in ({"count": 10, "words": 10}, {"words": 0}):
        with pytest.raises(ValidationError):
            Sample(**wrong)
    for amount, fits in (({"count": 9}, True), ({"words": 9}, False)):  # an archive knows of no words
        changes = {"policies.some": {"kind": "sample", **amount}, "trainers.naive.retain": ["some"]}
        with nullcontext() if fits else pytest.raises(ScenarioError, match="cannot thin an archive"):
            tiny().override(changes)
    assert Sample().plain() == {"kind": "sample", "count": 1000} and Sample(words=9).plain()["words"] == 9
