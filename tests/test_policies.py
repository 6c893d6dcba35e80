"""Laws of the gate and of every policy, then each policy by example."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ecosystem.corpus import datatrove
from ecosystem.corpus.features import features
from ecosystem.corpus.words import LETTERED, word_shingles
from ecosystem.corpus.words import words as words_of
from ecosystem.errors import EcosystemError
from ecosystem.policies.base import POLICIES, Adder, Filter, Weigher, gate
from ecosystem.policies.duplicates import ExactDedup, MinhashDedup, NearDuplicates, rows_per_band
from ecosystem.policies.filters import GopherQuality, Length, Oracle, PerplexityBand, Repetition, SyntheticDetector
from ecosystem.policies.injection import InjectReal
from ecosystem.policies.learning import LearningFilter
from ecosystem.policies.retention import Accumulate, AccumulateSubsample, Decay, Replace, Window
from ecosystem.policies.sampling import Importance
from ecosystem.testing import check_policy, sample_context, sample_documents
from tests.conftest import ROOT

DOCS = sample_documents()
INDEX = DOCS.drop("content")
FIELDS = {
    "perplexity_band": [
        {"model": "small", "low": 5, "high": 300},
        {"model": "small"},
        {"model": "small", "keep": [0.2, 0.6]},
    ],
    "inject_real": [
        {"source": "docs", "fraction": 0.25},
        {"source": "docs", "fraction": 0.9, "mode": "fresh"},
        {"source": "docs", "count": 7, "mode": "fresh"},
    ],
    "accumulate_subsample": [{"capacity": 20}, {}],
    "sample": [{"count": 20}, {"words": 500}, {}],
    "gopher_quality": [{}, {"variant": "short_text"}, {"as": "datatrove"}],
    "repetition": [{}, {"as": "datatrove"}],
    "length": [{}, {"min_words": 3, "max_words": 10}],
    "decay": [{}, {"keeps_weights": False}],
    "importance": [{}, {"auc": 0.5}, {"detector": "seen"}, {"power": 10.0}],
    "watermark": [{"model": "small"}, {"model": "small", "scheme": "synthid", "threshold": 2.0, "min_tokens": 40}],
    "verified_archive": [{"source": "docs", "fraction": 0.5}, {"source": "docs", "count": 60, "mode": "fresh"}],
    "paid_writing": [{"source": "docs", "fraction": 0.5}, {"source": "docs", "count": 60, "price": 3.5}],
    "provenance_label": [{}, {"liars": 0.5, "lost": 0.3, "false_labels": 0.2}],
    "synthetic_cap": [{"per_author": 4}, {"share": 0.3}, {"per_author": 7, "share": 0.2}],
    "learned_detector": [{"false_positive_rate": 0.05}, {"threshold": 0.7}],
    "quality_classifier": [{"source": "docs", **rule} for rule in ({"threshold": 0.4}, {"keep": 0.3}, {"pareto": 9.0})],
    "diversity": [{"count": 25}, {}],
    "prefer": [
        {"rewards": [{"feature": "words", "scale": 0.1}], "drafts": 3},
        {"rewards": [{"lexicon": ["the"], "share": 0.4}, {"model": "small", "share": 0.6}], "drafts": 2},
        {"rewards": [{"feature": "size", "scale": -0.1}], "count": 20},
    ],
    "origin_weight": [{}, {"believed_by": "labels"}, {"believed_by": "labels", "real_share": 0.3}],
}
CASES = [(kind, fields) for kind in POLICIES.all() for fields in FIELDS.get(kind, [{}])]


def through(policy, docs=INDEX, context=None):
    return gate(docs, [("p", policy)], context or sample_context(DOCS))


def kept(policy, docs=INDEX, context=None):
    return through(policy, docs, context).filter(pl.col("verdict").is_null())["doc"].to_list()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fields"), CASES, ids=lambda case: str(case))
def test_every_registered_policy_obeys_the_laws(kind, fields):
    check_policy(POLICIES.get(kind)(**fields))


def test_every_policy_describes_itself():
    for kind, cls in POLICIES.all().items():
        assert cls.kind == kind
        assert cls.__doc__ and "\n" not in cls.__doc__.splitlines()[0]
        for name, field in cls.model_fields.items():
            assert field.description, f"{kind}.{name} has no description"


# The laws themselves: each broken on purpose.


class Cheat(Filter):
    law: ClassVar[str] = ""


class OrderBound(Cheat):
    law = "order"

    def refuse(self, docs, ctx):
        return pl.Series(["first"] * min(1, docs.height) + [None] * (docs.height - 1), dtype=pl.String)


class Comparative(Cheat):
    law = "row_wise"

    def refuse(self, docs, ctx):
        return docs.select(pl.when(pl.col("words") < pl.col("words").median()).then(pl.lit("short"))).to_series()


class Silent(Cheat):
    law = "empty reason"

    def refuse(self, docs, ctx):
        return pl.Series([""] * docs.height, dtype=pl.String)


class Fickle(Cheat):
    law = "same result"
    asked: ClassVar[list[int]] = [0]

    def refuse(self, docs, ctx):
        self.asked[0] += 1
        return pl.Series([f"no {self.asked[0]}"] * docs.height, dtype=pl.String)


class Masked(Cheat):
    law = "the gate refuses"

    def refuse(self, docs, ctx):
        return docs["words"] < 5


class Greedy(Cheat):
    law = "idempotent"
    row_wise = False

    def refuse(self, docs, ctx):
        last = pl.col("doc") == pl.col("doc").max()
        return docs.select(pl.when(last).then(pl.lit("the last one"))).to_series()


class Negative(Weigher):
    law: ClassVar[str] = "negative"

    def weigh(self, docs, ctx):
        return -docs["words"].cast(pl.Float64) - 1


class Unbounded(Adder):
    law: ClassVar[str] = "not exist in the source"

    def add(self, kept, ctx):
        return pl.DataFrame({"source": ["s"] * 100, "document": range(100), "weight": [1.0] * 100})


class Learner(LearningFilter):
    law: ClassVar[str] = ""

    def collect_examples(self, view):
        return view.labelled(20)

    def refused(self, score, reference):
        return score > 0.5


class Prophetic(Learner):
    law = "fitted by then"

    def fitted_at(self, t):
        return t + 1


class Receding(Learner):
    law = "stay in use until the next"

    def fitted_at(self, t):
        return max(0, t - 1)


class Whimsical(Learner):
    law = "the same examples"
    asked: ClassVar[list[int]] = [0]

    def collect_examples(self, view):
        self.asked[0] += 1
        return view.labelled(10 + self.asked[0])


class Speechless(Learner):
    law = "NoneType instead of Examples"

    def collect_examples(self, view):
        return view.labelled(20) if view.documents(1).height else None


class Untold(Learner):
    law = "positive without one bool for each of 40 texts"

    def collect_examples(self, view):
        examples = view.labelled(20)
        return replace(examples, positive=examples.positive[1:])


class Ranking(Learner):
    law = "on that score alone"
    row_wise = False

    def refused(self, score, reference):
        return score > np.median(score)


class Certain(Learner):
    law = "an array of bool"

    def refused(self, score, reference):
        return (score > 0.5).astype(float)


def test_the_learner_that_the_cheats_derive_from_obeys_the_laws():
    check_policy(Learner())
    with pytest.raises(EcosystemError, match=r"policies\.p: the method refused returned float64 .*one bool for each"):
        through(Certain())


LEARNERS = [Prophetic, Receding, Whimsical, Speechless, Untold, Ranking, Certain]


@pytest.mark.parametrize(
    "cheat", [*LEARNERS, OrderBound, Comparative, Silent, Fickle, Masked, Greedy, Negative, Unbounded]
)
def test_a_policy_that_breaks_a_law_is_found_out(cheat):
    with pytest.raises(AssertionError, match=cheat.law):
        check_policy(cheat())


class Peeking(Filter):
    def refuse(self, docs, ctx):
        return docs.select(pl.when(pl.col("synthetic")).then(pl.lit("machine"))).to_series()


def test_the_truth_is_hidden_from_all_but_oracles():
    with pytest.raises(EcosystemError, match=r"policies\.p: uses a column .*\"?synthetic"):
        through(Peeking())


# The gate.

POLICY = st.sampled_from(
    [
        Length(min_words=10),
        GopherQuality(variant="short_text"),
        Repetition(),
        ExactDedup(),
        SyntheticDetector(),
        Oracle(),
        Window(steps=3),
        AccumulateSubsample(capacity=25),
        Importance(),
        Decay(),
        InjectReal(source="docs", fraction=0.3, mode="fresh"),
        InjectReal(source="docs", count=3),
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(POLICY, max_size=5), st.integers(0, 60), st.integers(0, 5))
def test_laws_of_the_gate(policies, height, seed):
    docs = INDEX.sample(fraction=1.0, shuffle=True, seed=seed).head(height)
    named = [(f"p{i}", policy) for i, policy in enumerate(policies)]
    context = sample_context(DOCS)
    after = gate(docs, named, context)
    own = after.filter(pl.col("injected_from").is_null())
    assert own["doc"].to_list() == docs["doc"].to_list()  # nothing is deleted or moved
    assert own.select("words", "synthetic", "t").equals(docs.select("words", "synthetic", "t"))
    assert (after["verdict"].is_null() == after["reason"].is_null()).all()
    assert after["weight"].is_finite().all() and (after["weight"] >= 0).all()
    injected = after.filter(pl.col("injected_from").is_not_null())
    assert injected["verdict"].null_count() == injected.height
    # Step by step: a signature once written stays, and each row is signed by the first who refuses it.
    table, remaining = docs, docs.height
    for name, policy in named:
        if isinstance(policy, Adder):
            continue
        before = table
        table = gate(table, [(name, policy)], context)
        signed = before["verdict"].is_not_null() if "verdict" in before.columns else pl.Series([False] * docs.height)
        if "verdict" in before.columns:
            assert table.filter(signed)["verdict"].equals(before.filter(signed)["verdict"])
            assert table.filter(signed)["weight"].equals(before.filter(signed)["weight"])
        now = table["verdict"].null_count()
        assert now <= remaining
        remaining = now
    assert table["verdict"].equals(own["verdict"])
    assert np.allclose(table["weight"], own["weight"])


def test_the_first_to_refuse_signs_and_the_order_matters():
    rules = [("short", Length(min_words=30)), ("machine", Oracle())]
    forth, back = gate(INDEX, rules, sample_context(DOCS)), gate(INDEX, rules[::-1], sample_context(DOCS))
    assert forth["verdict"].is_null().equals(back["verdict"].is_null())
    both = INDEX.select((pl.col("words") < 30) & pl.col("synthetic")).to_series()
    assert set(forth.filter(both)["verdict"]) == {"short"}
    assert set(back.filter(both)["verdict"]) == {"machine"}


def test_a_gate_takes_tables_with_few_columns_and_ids_that_occur_twice():
    archive = pl.DataFrame({"doc": [1, 1, 2], "t": [6, 3, 6], "weight": [1.0, 2.0, 3.0]})
    after = gate(archive, [("r", Replace()), ("d", Decay(half_life=1))], sample_context(DOCS))
    assert after["verdict"].to_list() == [None, "r", None]
    assert after["weight"].to_list() == [1.0, 2.0, 3.0]
    assert gate(archive.drop("weight"), [], sample_context(DOCS))["weight"].to_list() == [1.0] * 3
    with pytest.raises(EcosystemError, match=r"policies\.l: uses a column"):
        gate(archive, [("l", Length())], sample_context(DOCS))


class TooShort(Filter):
    def refuse(self, docs, ctx):
        return pl.Series([], dtype=pl.String)


class Bare(Adder):
    def add(self, kept, ctx):
        return pl.DataFrame({"document": [1]})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_words": 49}, "max_words = 49 must be at least min_words = 50"),
        ({"variant": "short_text", "max_words": 4}, "max_words = 4 must be at least min_words = 5"),
        ({"min_mean_word_length": 11.0}, "max_mean_word_length = 10 must be at least min_mean_word_length = 11"),
    ],
)
def test_quality_rules_that_no_document_can_meet_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        GopherQuality(**fields)


@pytest.mark.parametrize("base", [Filter, Weigher, Adder])
def test_a_gate_names_the_policy_whose_code_fails(base):
    method = {Filter: "refuse", Weigher: "weigh", Adder: "add"}[base]
    silent = type("Silent", (base,), {method: lambda self, docs, ctx: None})()
    with pytest.raises(EcosystemError, match=r"policies\.p: returned NoneType instead of a Polars"):
        through(silent)
    faulty = type("Faulty", (base,), {method: lambda self, docs, ctx: 1 / 0})()
    with pytest.raises(ZeroDivisionError) as error:
        through(faulty)
    assert "policies.p: this error is from the code of the policy" in error.value.__notes__[0]


def test_a_gate_names_the_policy_that_breaks_its_contract():
    with pytest.raises(EcosystemError, match=r"policies\.p: returned 0 rows for a table of 60"):
        through(TooShort())
    with pytest.raises(EcosystemError, match=r"policies\.p: .*an adder returns source, document and weight"):
        through(Bare())
    with pytest.raises(EcosystemError, match=r"policies\.p: returned a weight that is missing, negative"):
        through(Negative())
    with pytest.raises(EcosystemError, match=r"policies\.p: the class Spec must be a Filter"):
        gate(INDEX, [("p", type("Spec", (), {"oracle": False})())], sample_context(DOCS))


# Filters.


def test_length():
    frame = pl.DataFrame({"doc": range(4), "words": [2, 3, 9, 10]})
    after = through(Length(min_words=3, max_words=9), frame)
    assert after["reason"].to_list() == ["number of words 2 is below 3", None, None, "number of words 10 is above 9"]
    with pytest.raises(ValidationError, match="at least min_words = 5"):
        Length(min_words=5, max_words=4)


GOOD = {
    "words": 60,
    "mean_word_length": 5.0,
    "symbol_ratio": 0.1,
    "bullet_lines": 0.9,
    "ellipsis_lines": 0.3,
    "alphabetic_words": 0.8,
    "stop_words": 2,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"words": 49}, "number of words 49 is below 50"),
        ({"words": 100_001}, "number of words 100001 is above 100000"),
        ({"mean_word_length": 2.9}, "mean word length 2.9 is below 3"),
        ({"mean_word_length": 10.1}, "mean word length 10.1 is above 10"),
        ({"symbol_ratio": 0.11}, "symbols per word 0.11 is above 0.1"),
        ({"bullet_lines": 0.91}, "share of bullet lines 0.91 is above 0.9"),
        ({"ellipsis_lines": 0.31}, "share of ellipsis lines 0.31 is above 0.3"),
        ({"alphabetic_words": 0.79}, "share of alphabetic words 0.79 is below 0.8"),
        ({"stop_words": 1}, "number of stop words 1 is below 2"),
    ],
)
def test_gophers_rules_one_by_one_bounds_included(change, said):
    frame = pl.DataFrame([{"doc": 0, **GOOD, **change}]).with_columns(
        pl.col(pl.Float64).cast(pl.Float32)  # as stored: 0.1 must not become larger than 0.1
    )
    assert through(GopherQuality(), frame)["reason"].to_list() == [said]


def test_the_short_text_variant_lets_short_prose_pass():
    frame = pl.DataFrame([{"doc": 0, **GOOD, "words": 7, "stop_words": 1}])
    assert kept(GopherQuality(), frame) == []
    assert kept(GopherQuality(variant="short_text"), frame) == [0]
    assert kept(GopherQuality(variant="short_text", min_words=8), frame) == []
    assert kept(GopherQuality(min_words=7, min_stop_words=0), frame) == [0]


def test_repetition():
    clean = {"duplicate_lines": 0.3, "top_2gram": 0.2, "top_3gram": 0.18, "top_4gram": 0.16, "duplicate_5grams": 0.15}
    rows = [clean, *({**clean, name: value + 0.01} for name, value in clean.items())]
    frame = pl.DataFrame(rows).with_columns(pl.all().cast(pl.Float32), doc=pl.int_range(len(rows)))
    assert kept(Repetition(), frame) == [0]


def verdicts(policy, texts):
    """The reasons for texts that are given to the policy as new documents."""
    frame = features(pl.Series(texts, dtype=pl.String)).with_columns(doc=pl.int_range(len(texts)))
    base = sample_context(DOCS)

    def context(name):
        ctx = base(name)
        contents = SimpleNamespace(contents=lambda ids: pl.Series(texts, dtype=pl.String).gather(ids))
        return type(ctx)(**{**ctx.__dict__, "corpus": contents})

    return through(policy, frame, context)["reason"].to_list()


PROSE = " ".join(f"word{i:02}" for i in range(40))  # 40 different words of 6 letters: 279 characters


@pytest.mark.parametrize(
    ("text", "own", "theirs"),
    [
        (PROSE, None, None),
        ("", None, "number of characters 0 is below 1"),
        # One 2-gram of 2 words of 3: 7 of 11 characters, though it occurs once.
        ("one two six", None, "share of the top 2-gram 0.636 is above 0.2"),
        # A 5-gram twice: 60 of 274 characters without spaces, or 30 of 319 from the second occurrence on.
        (f"{PROSE[:34]} {PROSE} also", "share of repeated 5-grams 0.219 is above 0.15", None),
        # One of two paragraphs, and of two lines, repeats the other.
        (
            f"{PROSE}\n\n{PROSE}",
            "share of repeated lines 0.5 is above 0.3",
            "share of repeated paragraphs 0.5 is above 0.3",
        ),
        # A line three times, among eight: 720 of 725 characters without spaces, or 558 of 849 from the second time on.
        (
            "\n".join([PROSE] * 3 + ["a", "b", "c", "d", "e"]),
            "share of repeated 5-grams 0.993 is above 0.15",
            "share of characters in repeated lines 0.657 is above 0.2",
        ),
    ],
)
def test_repetition_as_datatrove_counts_it(text, own, theirs):
    assert verdicts(Repetition(max_top_4gram=0.2), [text]) == [own]
    assert verdicts(Repetition(**{"as": "datatrove", "max_top_4gram": 0.2}), [text]) == [theirs]


def test_repeated_ngrams_as_datatrove_counts_them():
    """Read from left to right: after a repeated n-gram reading goes on behind it. By hand, 7 words of one letter."""
    [row] = datatrove.repetition(pl.Series(["a b c d e " * 3 + "x y z"])).rows(named=True)
    assert row["characters"] == 35
    assert row["duplicate_5grams"] == pytest.approx(10 / 35)  # the second and the third time
    assert row["duplicate_7grams"] == pytest.approx(7 / 35)  # from the sixth word on: seven words, then six are left
    assert row["top_2gram"] == pytest.approx(3 * 3 / 35)  # "a b" three times


def test_quality_as_datatrove_counts_it():
    text = "The end ... # # - and of that"
    [row] = datatrove.quality(pl.Series([text])).rows(named=True)
    assert row["words"] == 5 and row["mean_word_length"] == pytest.approx((3 + 3 + 3 + 2 + 4) / 5)
    assert row["hashes"] == pytest.approx(2 / 11) and row["ellipses"] == pytest.approx(1 / 11)  # of 11 words and marks
    assert row["alphabetic_words"] == pytest.approx(5 / 11)
    assert row["stop_words"] == 3  # The is not one
    lines = datatrove.quality(pl.Series(["- a\n\n* b\n• c ..."])).row(0, named=True)
    assert (lines["bullet_lines"], lines["ellipsis_lines"]) == (2 / 4, 1 / 4)
    prose = "The cat and the dog have a bone. " * 9
    quality = GopherQuality(**{"as": "datatrove"})
    assert verdicts(quality, [prose, "# " * 10 + prose, prose[:40]]) == [
        None,
        "hash signs per word 0.11 is above 0.1",
        "number of words 10 is below 50",
    ]


def test_scenarios_without_as_are_what_they_were():
    assert "as" not in GopherQuality().plain() and "as" not in Repetition().plain()
    assert Repetition(**{"as": "datatrove"}).plain()["as"] == "datatrove"


def test_perplexity_band():
    frame = pl.DataFrame({"doc": range(5)})
    nats = np.array([1.0, 20.0, 40.0, 0.0, 1e6])
    tokens = np.array([10, 10, 10, 0, 10])
    base = sample_context(DOCS)

    def context(name):
        ctx = base(name)
        return type(ctx)(**{**ctx.__dict__, "models": SimpleNamespace(score=lambda model, ids: (nats, tokens))})

    after = through(PerplexityBand(model="m", low=2, high=20), frame, context)
    assert after["reason"].to_list() == [
        "perplexity 1.1 is below 2",
        None,
        "perplexity 54.6 is above 20",
        "has no tokens to score",
        after["reason"][4],
    ]
    assert after["reason"][4].endswith("is above 20")
    with pytest.raises(ValidationError, match="at least low = 5"):
        PerplexityBand(model="m", low=5, high=4)


def many(n=20_000):
    return pl.DataFrame({"doc": range(n), "synthetic": [i % 2 == 0 for i in range(n)], "t": [0] * n})


def test_the_detector_has_its_rates_and_never_changes_its_mind():
    docs, policy = many(), SyntheticDetector(true_positive_rate=0.7, false_positive_rate=0.1)
    after = through(policy, docs)
    refused = after["verdict"].is_not_null()
    for synthetic, rate in ((True, 0.7), (False, 0.1)):
        share = float(refused.filter(docs["synthetic"] == synthetic).mean())
        assert abs(share - rate) < 4 * (rate * (1 - rate) / 10_000) ** 0.5
    later = through(policy, docs, sample_context(DOCS, t=9))
    assert later["verdict"].equals(after["verdict"])
    # A stricter detector finds all that a laxer one found: sliders move smoothly.
    more = through(SyntheticDetector(true_positive_rate=0.9, false_positive_rate=0.2), docs)
    assert (more["verdict"].is_not_null() | ~refused).all()
    perfect = through(SyntheticDetector(true_positive_rate=1, false_positive_rate=0), docs)
    assert perfect["verdict"].equals(through(Oracle(), docs)["verdict"])


# Duplicates.


def test_exact_duplicates():
    frame = pl.DataFrame({"doc": [5, 6], "duplicate_of": [None, 5]})
    assert through(ExactDedup(), frame)["reason"].to_list() == [None, "same text as document 5"]


def prose(n, words=60, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.integers(0, 5000, words)) for _ in range(n)]


def near_index(texts, ids=None, batches=(), **fields):
    index = NearDuplicates(**fields)
    ids = list(range(len(texts))) if ids is None else ids
    edges = [0, *batches, len(texts)]
    for a, b in pairwise(edges):
        index.add(ids[a:b], pl.Series(texts[a:b], dtype=pl.String))
    return index


def test_near_duplicates_are_found_and_the_earliest_is_named():
    base = prose(30)
    words = base[3].split()
    close = " ".join([*words[:58], "other", "end"])  # 54 shingles in common of 62
    far = " ".join([*words[:30], *prose(1, 30, seed=9)[0].split()])
    index = near_index([*base, close, far, close.upper() + " !", base[3]])
    assert index.earliest([*range(30), 31]).null_count() == 31
    assert index.earliest([30, 32, 33]).to_list() == [3, 3, 3]
    assert index.earliest([]).dtype == pl.Int64
    assert len(index) == 34


def test_texts_too_short_for_a_shingle_are_compared_whole():
    texts = ["", "...", "hello", "Hello!", "hello you", "hello you", "you hello", "", "a b c", "a b c"]
    found = near_index(texts, shingle=3).earliest(range(10)).to_list()
    assert found == [None, None, None, 2, None, 4, None, None, None, 8]


VARIED = st.lists(
    st.builds(
        lambda i, cut, tail: " ".join([*prose(1, 20, seed=i)[0].split()[:cut], *tail]),
        st.integers(0, 2),
        st.integers(0, 20),
        st.lists(st.sampled_from("xyz"), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(VARIED, st.data())
def test_batches_do_not_matter_and_later_documents_change_nothing(texts, data):
    whole = near_index(texts, threshold=0.6).earliest(range(len(texts)))
    cut = data.draw(st.integers(0, len(texts)))
    parts = near_index(texts, batches=[cut], threshold=0.6)
    assert parts.earliest(range(len(texts))).equals(whole)
    first = near_index(texts[:cut], threshold=0.6)
    assert first.earliest(range(cut)).equals(whole.head(cut))
    order = data.draw(st.permutations(range(len(texts))))
    assert parts.earliest(list(order)).to_list() == [whole[i] for i in order]


def test_near_duplicates_agree_with_comparing_all_pairs():
    rng = np.random.default_rng(5)
    texts = []
    for i in range(120):
        words = (texts[rng.integers(i)] if i % 2 else prose(1, 64, seed=i)[0]).split()
        words[int(rng.integers(len(words)))] = "changed"
        texts.append(" ".join(words))
    index = near_index(texts, ids=list(range(10, 130)), threshold=0.7)
    signatures = index._words.signature(np.arange(120))
    similar = (signatures[:, None] == signatures[None]).mean(axis=2) >= 0.7
    expected = [int(np.argmax(row[:i])) + 10 if row[:i].any() else None for i, row in enumerate(similar)]
    found = index.earliest(range(10, 130)).to_list()
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 117  # 99 % of pairs at the threshold meet
    assert all(a is None or similar[i, a - 10] for i, a in enumerate(found))


def test_the_estimate_is_that_of_the_jaccard_similarity():
    words = prose(1, 300)[0].split()
    texts = [" ".join(words)]
    texts += [" ".join([*words[:k], *prose(1, 300 - k, seed=k)[0].split()]) for k in range(30, 300, 15)]
    hashes, starts = word_shingles(words_of(pl.Series(texts), LETTERED), 3)
    sets = [set(hashes[int(a) : int(b)].tolist()) for a, b in pairwise(starts)]
    true = np.array([len(sets[0] & s) / len(sets[0] | s) for s in sets])
    signatures = near_index(texts, num_perm=512)._words.signature(np.arange(len(texts)))
    estimate = (signatures == signatures[0]).mean(axis=1)
    assert estimate[0] == 1
    assert (np.abs(estimate - true) <= 4 * np.sqrt(true * (1 - true) / 512) + 1e-9).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_are_long_but_miss_at_most_one_pair_in_a_hundred(threshold):
    def meet(r):
        return 1 - (1 - threshold**r) ** (128 // r)

    rows = rows_per_band(128, threshold)
    assert meet(rows) >= 0.99
    assert rows == 128 or meet(rows + 1) < 0.99


def test_near_duplicates_complain_of_wrong_ids():
    index = near_index(["a b c", "d e f"], ids=[4, 7])
    for ids in ([7], [9, 8], [9, 9]):
        with pytest.raises(EcosystemError, match="ascending order of their ids"):
            index.add(ids, pl.Series(["x"] * len(ids)))
    with pytest.raises(EcosystemError, match="3 ids for 1 texts"):
        index.add([8, 9, 10], pl.Series(["x"]))
    with pytest.raises(EcosystemError, match="document 5 was never added"):
        index.earliest([4, 5])
    with pytest.raises(EcosystemError, match="document 8 was never added"):
        index.earliest([8])


def test_the_reason_names_the_matched_document():
    frame = DOCS.with_columns(content=pl.lit("all of these are the very same text")).drop("content")
    copies = DOCS.with_columns(content=pl.lit("all of these are the very same text"))
    after = through(MinhashDedup(), frame, sample_context(copies))
    assert after["reason"].to_list() == [None, *["near-duplicate of document 0"] * 59]


@pytest.mark.slow
def test_signatures_are_the_same_in_every_process():
    program = (
        "import json, numpy as np, polars as pl; from ecosystem.policies.duplicates import NearDuplicates as N; "
        "n = N(32, 2, 0.5); n.add([0, 1], pl.Series(['one two three', 'two three four'])); "
        "print(json.dumps(n._words.signature(np.arange(2)).tolist()))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = near_index(["one two three", "two three four"], num_perm=32, shingle=2, threshold=0.5)
    assert json.loads(found.stdout) == here._words.signature(np.arange(2)).tolist()


def test_a_web_of_copies_is_no_slower_than_one_of_originals():
    copies = [f"{prose(1)[0]} {i % 5}" for i in range(2000)]
    near_index(prose(20))  # the library is loaded
    for texts in (prose(2000), copies):
        begin = time.perf_counter()
        index = near_index(texts)
        assert time.perf_counter() - begin < 2.0  # about 0.07 s on an idle machine
    assert index.earliest(range(5, 2000)).null_count() == 0


# Weights and injected documents.


def test_importance_weights_average_one_and_favour_people():
    docs = many()
    for auc in (0.5, 0.7, 0.95):
        weight = through(Importance(auc=auc), docs)["weight"].to_numpy()
        assert abs(weight.mean() - 1) <= 4 * weight.std() / len(weight) ** 0.5 + 1e-12
        human, synthetic = weight[1::2], weight[::2]
        ranks = np.argsort(np.argsort(weight)) + 1.0
        area = (ranks[1::2].sum() - human.size * (human.size + 1) / 2) / (human.size * synthetic.size)
        if auc > 0.5:  # at 0.5 all weights are equal
            assert abs(area - auc) < 4 * (auc * (1 - auc) / 10_000) ** 0.5
            assert human.mean() > 1 > synthetic.mean()
        else:
            assert np.allclose(weight, 1)
    assert through(Importance(synthetic_prior=0.2), docs)["weight"].max() <= 1 / 0.8
    weight = through(Importance(), docs)["weight"].to_numpy()
    assert np.allclose(through(Importance(power=10.0), docs)["weight"].to_numpy(), weight**10)


@pytest.mark.parametrize(("fraction", "kept_rows", "expected"), [(0.25, 30, 10), (0.5, 40, 40), (0, 9, 0), (0.9, 0, 0)])
def test_injection_by_fraction(fraction, kept_rows, expected):
    added = InjectReal(source="docs", fraction=fraction).add(kept_rows, sample_context(DOCS)("p"))
    assert added.height == expected
    if expected:
        assert added.height / (added.height + kept_rows) == fraction


def test_injection_takes_all_there_are_if_more_are_asked():
    added = InjectReal(source="docs", count=200).add(5, sample_context(DOCS, rows=12)("p"))
    assert added["document"].to_list() == list(range(12))
    assert InjectReal(source="docs", count=5).add(5, sample_context(DOCS, rows=0)("p")).is_empty()


def test_fixed_injection_repeats_its_rows_and_fresh_draws_new_ones():
    def rows(mode, t, count=10, size=1000):
        policy = InjectReal(source="docs", count=count, mode=mode)
        return set(policy.add(0, sample_context(DOCS, t=t, rows=size)("p"))["document"])

    assert rows("fixed", 1) == rows("fixed", 2)
    assert rows("fixed", 1) < rows("fixed", 2, count=20)
    assert rows("fresh", 1) == rows("fresh", 1)
    assert len(rows("fresh", 1) & rows("fresh", 2)) < 5
    assert rows("fixed", 1, size=None) == rows("fixed", 2, size=None)
    one, two = rows("fresh", 1, size=None), rows("fresh", 2, size=None)
    assert not one & two and len(one) == 10 and min(one) >= 2**24  # far behind what people draw
    assert max(one) - min(one) == 9


def test_fresh_injection_is_uniform_over_the_source():
    policy = InjectReal(source="docs", count=10, mode="fresh")
    draws = [policy.add(0, sample_context(DOCS, t=t, rows=50)("p"))["document"] for t in range(300)]
    counts = np.bincount(pl.concat(draws).to_numpy(), minlength=50)
    # Each row 300 * 0.2 = 60 times, with standard deviation 6.9; chi-square of 50 about 40 +- 9 (no replacement).
    assert 10 < ((counts - 60) ** 2 / 60).sum() < 80


def test_injected_rows_arrive_tagged():
    after = gate(INDEX, [("o", Oracle()), ("real", InjectReal(source="docs", fraction=0.5))], sample_context(DOCS))
    injected = after.filter(pl.col("injected_from") == "docs")
    assert injected.height == after.height - injected.height - INDEX["synthetic"].sum()
    assert injected.select("synthetic", "depth", "weight").unique().rows() == [(False, 0.0, 1.0)]


@pytest.mark.parametrize("fields", [{}, {"fraction": 0.1, "count": 3}, {"fraction": 1.0}, {"count": -1}])
def test_injection_wants_exactly_one_sensible_amount(fields):
    with pytest.raises(ValidationError):
        InjectReal(source="docs", **fields)


# Retention.


def aged(n=12):
    return pl.DataFrame({"doc": range(n), "t": [i % 7 for i in range(n)], "weight": [1.0] * n})


def test_replace_window_accumulate():
    docs = aged(7)
    assert kept(Replace(), docs) == kept(Window(steps=1), docs) == [6]
    assert kept(Window(steps=3), docs) == [4, 5, 6]
    assert kept(Accumulate(), docs) == list(range(7))


def test_decay_step_by_step_is_decay_at_once():
    weight = pl.DataFrame({"doc": [0], "t": [2], "weight": [3.0]})
    once = through(Decay(half_life=2, keeps_weights=False), weight, sample_context(DOCS, t=6))["weight"].item()
    assert once == pytest.approx(3.0 / 4)
    for t in range(2, 7):
        weight = through(Decay(half_life=2), weight, sample_context(DOCS, t=t)).select("doc", "t", "weight")
    assert weight["weight"].item() == pytest.approx(once)


def test_subsampling_is_uniform_irrevocable_and_the_same_in_instalments():
    policy, context = AccumulateSubsample(capacity=40), sample_context(DOCS)
    offered = [pl.DataFrame({"doc": range(100 * t, 100 * t + 100), "t": [t] * 100}) for t in range(5)]
    held = offered[0].clear()
    for batch in offered:
        held = pl.concat([held, batch])
        held = held.filter(through(policy, held, context)["verdict"].is_null())
        assert held.height == 40
    assert held["doc"].to_list() == kept(policy, pl.concat(offered), context)
    many_kept = kept(AccumulateSubsample(capacity=5000), many(), context)
    assert abs(np.mean(many_kept) - 9999.5) < 4 * (20_000 / 12**0.5) / 5000**0.5


def test_the_filter_in_the_readme_obeys_the_laws():
    [block] = [b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "Filter" in b]
    names = {}
    try:
        exec(block, names)
        check_policy(names["NoShouting"]())
    finally:
        POLICIES._kinds.pop("no_shouting", None)
