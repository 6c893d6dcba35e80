"""Texts as integers: the words of many documents, coded once, so that everything counted of them is array work."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

SPACED = r"\S+"  # whatever stands between white space: the "words" of the features and of Gopher's rules
TOKENS = r"\w+(?:['’]\w+)*|[^\w\s]"  # words (don't is one) and punctuation marks, one by one: the words of the metrics
LETTERED = r"\w+"  # words without any punctuation: what near-duplicates are compared by


@dataclass(frozen=True)
class Words:
    """The words of ``documents`` texts, one after the other.

    ``codes`` (N,) holds for every word its place in ``vocabulary`` (words in order of first appearance), and
    ``document`` (N,), which never falls, the number of the text it stands in; a text may have no words at all.
    """

    codes: NDArray[np.int64]
    document: NDArray[np.int64]
    vocabulary: pl.Series
    documents: int

    def lengths(self) -> NDArray[np.int64]:
        """Return the number of words of every document, (documents,)."""
        return np.bincount(self.document, minlength=self.documents)


def words(text: pl.Series, pattern: str = TOKENS) -> Words:
    """Cut every text into the matches of ``pattern`` and number them; a null text has none."""
    return number(filled(text).str.extract_all(pattern))


def filled(text: pl.Series) -> pl.Series:
    """Return texts with an empty one for each that is missing."""
    return text if text.dtype == pl.String and not text.null_count() else text.fill_null("")


def number(lists: pl.Series) -> Words:
    """Number the entries of a column of lists of strings (words of documents, or lines of documents)."""
    lengths = lists.list.len().to_numpy().astype(np.int64)
    # An empty list explodes to one null in some versions of polars and to nothing in others; neither is a word.
    flat = lists.explode()
    flat = flat.drop_nulls() if flat.null_count() else flat
    vocabulary = flat.unique(maintain_order=True)
    places = vocabulary.to_frame("word").with_row_index("code")
    codes = flat.to_frame("word").join(places, on="word", how="left", maintain_order="left")["code"]
    return Words(
        codes=codes.to_numpy().astype(np.int64),
        document=np.repeat(np.arange(lists.len(), dtype=np.int64), lengths),
        vocabulary=vocabulary,
        documents=lists.len(),
    )


def windows(document: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the positions at which ``n`` words in a row stand within one document."""
    if document.size < n:
        return np.empty(0, np.int64)
    return np.flatnonzero(document[: document.size - n + 1] == document[n - 1 :])


def gram_keys(codes: NDArray[np.int64], starts: NDArray[np.int64], n: int, types: int) -> NDArray[np.int64]:
    """Return one non-negative integer per ``n`` words from each start: equal where and only where the words are.

    Packed in base ``types`` as long as 63 bits hold it, and renumbered in between where they would not.
    """
    key = codes[starts]
    size = max(types, 1)
    for k in range(1, n):
        if size * types >= 2**62:
            unique, key = np.unique(key, return_inverse=True)
            size = unique.size
        key = key * types + codes[starts + k]
        size *= types
    return key


def word_hashes(vocabulary: pl.Series) -> NDArray[np.uint64]:
    """Return a number per word that is the same in every process, (words,)."""
    found = (int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") for word in vocabulary)
    return np.fromiter(found, np.uint64, vocabulary.len())


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
