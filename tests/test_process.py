"""The formal language: probabilities sum to one, simulated moments equal the closed forms, every row is its own."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ecosystem.errors import DataError
from ecosystem.sources.formal_language import Process, ProcessReservoir
from ecosystem.spec import explain
from ecosystem.streams import Streams


def language(seed=1, name="lang", **fields) -> ProcessReservoir:
    return Process(**{"held_out": 20, **fields}).open(name, Streams(seed), Path())


TINY = {"lexicon": 4, "topics": 2, "branching": 2, "mean_words": 2.0, "min_words": 1, "sentence_words": 3.0}


def every_text(reservoir: ProcessReservoir, words: int) -> pl.Series:
    tokens = [*reservoir.words, *(f"{word}." for word in reservoir.words)]
    return pl.Series([" ".join(text) for text in product(tokens, repeat=words)])


# Laws.


def test_probabilities_of_all_documents_of_a_length_sum_to_the_probability_of_that_length():
    reservoir = language(**TINY)
    for words in (1, 2, 3, 4, 5):
        total = np.exp(reservoir.log_likelihood(every_text(reservoir, words))).sum()
        assert total == pytest.approx(0.5**words, rel=1e-12)  # geometric: ends after each word with chance 1/2


def test_the_entropy_is_what_enumeration_gives():
    reservoir = language(**TINY)
    nats = 0.0
    for words in (1, 2, 3, 4, 5):
        log_p = reservoir.log_likelihood(every_text(reservoir, words))
        log_p = log_p[np.isfinite(log_p)]
        nats -= (np.exp(log_p) * log_p).sum()
    # What is left are documents of more than five words: each word more costs one choice, one stop, one length.
    entropy = reservoir.entropy()
    step = (entropy.words + entropy.stops) / (entropy.mean_words - 1) + np.log(2)
    fixed = entropy.topic + entropy.first
    nats += sum(0.5**n * (fixed + np.log(2) + (n - 1) * step) for n in range(6, 200))
    assert entropy.per_document == pytest.approx(nats, rel=1e-12)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"zipf": 0.0, "topics": 1},
        {"zipf": 2.0, "branching": 3, "mean_words": 7.5, "min_words": 1},
        {"mean_words": 12.0, "min_words": 12},
        {"sentence_words": 1.0, "topics": 9},
        {"lexicon": 1, "topics": 1, "branching": 1, "mean_words": 6.0},
    ],
)
def test_the_mean_surprise_of_many_documents_is_the_entropy(fields):
    reservoir = language(**fields)
    docs = reservoir.rows(np.arange(2500))
    surprise = -reservoir.log_likelihood(docs)
    entropy = reservoir.entropy()
    error = surprise.std() / np.sqrt(len(surprise))
    assert abs(surprise.mean() - entropy.per_document) <= 4 * error + 1e-9
    words = np.array([len(text.split()) for text in docs])
    assert abs(words.mean() - entropy.mean_words) <= 4 * words.std() / np.sqrt(len(words)) + 1e-9
    assert words.min() >= reservoir._spec.min_words
    assert entropy.per_word == entropy.per_document / entropy.mean_words


def test_a_row_is_a_function_of_its_number_alone():
    reservoir, numbers = language(), np.array([7, 100_000, 3, 0, 7])
    together = reservoir.rows(numbers).to_list()
    assert together == [reservoir.rows(np.array([n]))[0] for n in numbers]
    assert together == language(held_out=3).rows(numbers).to_list()
    assert reservoir.rows(np.arange(50)).to_list() == reservoir.rows(np.arange(49, -1, -1)).to_list()[::-1]
    assert reservoir.rows(np.array([], dtype=np.int64)).to_list() == []


def test_seed_and_name_make_another_language_and_the_digest_tells():
    reservoirs = [language(), language(seed=2), language(name="other"), language(zipf=1.1)]
    assert len({r.digest for r in reservoirs}) == 4
    assert language().digest == reservoirs[0].digest
    assert reservoirs[1].words != reservoirs[0].words
    assert np.isneginf(reservoirs[0].log_likelihood(reservoirs[1].rows(np.arange(50)))).all()


def test_held_out_documents_are_of_the_language_and_are_not_rows():
    reservoir = language(held_out=200)
    assert reservoir.size is None and len(reservoir.held_out) == 200
    assert np.isfinite(reservoir.log_likelihood(reservoir.held_out)).all()
    assert set(reservoir.held_out).isdisjoint(reservoir.rows(np.arange(2000)))
    assert language(held_out=0).held_out.to_list() == []


def test_topics_are_told_by_the_first_word_and_equally_frequent():
    reservoir = language(topics=4)
    assert len(np.unique(reservoir.first)) == 4 * 8
    opener = {reservoir.words[word]: topic for topic, row in enumerate(reservoir.first) for word in row}
    topics = [opener[text.split(" ")[0].rstrip(".")] for text in reservoir.rows(np.arange(4000))]
    assert np.bincount(topics, minlength=4) / 4000 == pytest.approx([0.25] * 4, abs=0.03)


# The language.


@pytest.mark.slow
def test_words_are_different_and_can_be_spoken():
    words = language(lexicon=5000, topics=1).words
    assert len(set(words)) == 5000 and all(word.isascii() and word.islower() for word in words)
    assert len(words[0]) == 2 and len(words[-1]) == 6


def test_frequent_ranks_are_frequent_in_text():
    reservoir = language()
    counts: dict[str, int] = {}
    for text in reservoir.rows(np.arange(2000)):
        for token in text.split():
            counts[token.rstrip(".")] = counts.get(token.rstrip("."), 0) + 1
    share = [sum(counts.get(word, 0) for word in reservoir.words[a:b]) for a, b in ((0, 10), (10, 100), (100, 500))]
    assert share[0] / 10 > 4 * share[1] / 90 > 8 * share[2] / 400 > 0
    assert sum(n > 0 for n in counts.values()) > 400


def test_what_is_not_of_the_language_has_probability_zero():
    reservoir = language()
    good = reservoir.rows(np.array([0]))[0]
    bad = ["", None, " ", ".", "xylophone.", good + " ", " " + good, good[:-1], good + ".", good.upper(), good + "\n"]
    assert np.isneginf(reservoir.log_likelihood(pl.Series(bad, dtype=pl.String))).all()
    assert np.isfinite(reservoir.log_likelihood(pl.Series([good]))).all()
    assert reservoir.log_likelihood(pl.Series([], dtype=pl.String)).shape == (0,)


# What can be wrong.


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"held_out": 0.1}, "sources.lang.held_out: must be a number of documents such as 500"),
        ({"held_out": 1.5}, "sources.lang.held_out: must be a share below 1 or a whole number"),
        ({"lexicon": 20}, "topics x branching = 32 must be at most lexicon = 20"),
        ({"mean_words": 4.0}, "mean_words (4) must be at least min_words (5)"),
        ({"branching": 0}, "sources.lang.branching: must be at least 1"),
    ],
)
def test_a_wrong_field_is_a_sentence(fields, sentence):
    with pytest.raises(ValidationError) as error:
        Process(**fields)
    (problem,) = explain(error.value, "sources.lang", Process)
    assert sentence in problem


def test_rows_are_counted_from_zero():
    with pytest.raises(DataError, match=r"^sources\.lang: cannot draw row -1; rows are counted from 0\.$"):
        language().rows(np.array([3, -1]))
