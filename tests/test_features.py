"""Features of documents: zeros for nothing, Gopher's shares by hand, hashes that never change."""

import subprocess
import sys
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem.corpus.features import content_hash, features
from ecosystem.corpus.schema import FEATURES
from ecosystem.corpus.words import TOKENS, gram_keys, windows, words

TEXTS = st.lists(st.text(alphabet="ab \n#.-…é", max_size=40), max_size=8)


def one(text):
    return features(pl.Series([text])).row(0, named=True)


def test_the_columns_are_those_of_the_schema_and_size():
    frame = features(pl.Series(["some text", "more"]))
    assert dict(frame.schema) == {"size": pl.Int32(), **FEATURES}


@pytest.mark.parametrize("text", ["", " \n\t ", None])
def test_a_text_without_words_has_zeros_everywhere(text):
    row = one(text)
    row.pop("content_hash")
    assert row.pop("size") == len(text or "")
    assert set(row.values()) == {0}


def test_no_texts_give_an_empty_table():
    assert features(pl.Series([], dtype=pl.String)).shape == (0, 1 + len(FEATURES))


def test_features_by_hand():
    row = one("- The cat, of  9 lives...\n- the end\n\n- the end\n#")
    assert row["words"] == 13
    assert row["stop_words"] == 2  # the (in upper case too) and of
    assert row["bullet_lines"] == pytest.approx(3 / 4)
    assert row["ellipsis_lines"] == pytest.approx(1 / 4)
    assert row["duplicate_lines"] == pytest.approx(1 / 4)
    assert row["symbol_ratio"] == pytest.approx(2 / 13)
    assert row["alphabetic_words"] == pytest.approx(8 / 13)
    characters = 1 + 3 + 4 + 2 + 1 + 8 + 2 * 7 + 1
    assert row["mean_word_length"] == pytest.approx(characters / 13)
    assert row["top_2gram"] == pytest.approx(2 * 6 / characters)  # "the end", longer than "- the"
    assert row["top_3gram"] == pytest.approx(2 * 7 / characters)
    assert row["top_4gram"] == 0


def test_repeated_5grams_count_every_character_once():
    row = one("a b c d e f x a b c d e f")
    assert row["duplicate_5grams"] == pytest.approx(12 / 13)
    assert one("a a a a a a a")["duplicate_5grams"] == 1
    assert one("a b c d e")["duplicate_5grams"] == 0


def test_repetition_is_within_one_document_only():
    frame = features(pl.Series(["a b c d e f", "a b c d e f"]))
    assert frame["top_2gram"].to_list() == [0, 0]
    assert frame["duplicate_5grams"].to_list() == [0, 0]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_features_are_finite_and_do_not_depend_on_other_texts(texts):
    together = features(pl.Series(texts, dtype=pl.String))
    assert not together.select(pl.exclude("content_hash").cast(pl.Float64).is_finite().not_().any()).to_numpy().any()
    assert together.null_count().sum_horizontal().item() == 0
    if texts:
        apart = pl.concat([features(pl.Series([text])) for text in texts])
        assert together.equals(apart)
    shares = together.select("bullet_lines", "ellipsis_lines", "duplicate_lines", "^top.*$", "duplicate_5grams")
    assert shares.select(pl.all().is_between(0, 1).all()).to_numpy().all()


def test_the_hash_ignores_case_and_white_space_and_nothing_else():
    hashes = content_hash(pl.Series(["A  b\nc", " a b c ", "a b d"]))
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes.dtype == pl.UInt64


def test_the_hash_is_the_same_for_ever_and_in_every_process():
    expected = 16_622_875_313_915_518_730
    assert content_hash(pl.Series(["The same for ever"])).item() == expected
    program = "import polars as pl; from ecosystem.corpus.features import content_hash as h; "
    program += "print(h(pl.Series(['the  SAME for ever'])).item())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) == expected


def test_words_and_punctuation_marks_are_words():
    found = words(pl.Series(["Don't stop, it's §3.", None, ""]), TOKENS)
    assert found.vocabulary.to_list() == ["Don't", "stop", ",", "it's", "§", "3", "."]
    assert found.lengths().tolist() == [7, 0, 0]


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=5), st.integers(1, 5), st.sampled_from([4, 2**40]))
@settings(max_examples=60, deadline=None)
def test_gram_keys_are_equal_where_the_words_are(lists, n, types):
    found = words(pl.Series([" ".join(map(str, row)) for row in lists], dtype=pl.String))
    starts = windows(found.document, n)
    keys = gram_keys(found.codes, starts, n, types)  # a huge number of types forces the renumbering
    grams = [tuple(row[i : i + n]) for row in lists for i in range(len(row) - n + 1)]
    assert len(grams) == keys.size
    assert len(set(grams)) == len(set(keys.tolist()))
    assert len(set(zip(grams, keys.tolist(), strict=True))) == len(set(grams))


def test_two_thousand_documents_take_well_under_a_second():
    text = pl.Series([" ".join(f"word{i * j % 997}" for j in range(60)) for i in range(2000)])
    features(text)
    begin = time.perf_counter()
    features(text)
    assert time.perf_counter() - begin < 1.0  # about 0.06 s on an idle machine; the margin is for a busy one
