"""Texts as integers: the words of many documents coded once, so that counting is array work; and hashed n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SPACED = r"\S+"  # runs without white space: the words of the features and of Gopher's rules
TOKENS = r"\w+(?:['’]\w+)*|[^\w\s]"  # words (don't is one) and single punctuation marks: the words of the metrics
LETTERED = r"\w+"  # words without punctuation: the words of near-duplicate detection
BITS = 18  # of the number of a hashed n-gram's column


@dataclass(frozen=True)
class Words:
    """The words of ``documents`` texts, one after the other.

    ``codes`` [N] holds the place of every word in ``vocabulary`` (words in order of first appearance). ``document``
    [N], ascending, holds the number of the text that the word is in. A text may have no words.
    """

    codes: NDArray[np.int64]
    document: NDArray[np.int64]
    vocabulary: pl.Series
    documents: int

    def lengths(self) -> NDArray[np.int64]:
        """Count the words of every document, [documents]."""
        return np.bincount(self.document, minlength=self.documents)


def words(text: pl.Series, pattern: str = TOKENS) -> Words:
    """Split every text into the matches of ``pattern`` and number them; a null text has none."""
    return number(filled(text).str.extract_all(pattern))


def filled(text: pl.Series) -> pl.Series:
    """Replace missing texts by empty ones."""
    return text if text.dtype == pl.String and not text.null_count() else text.fill_null("")


def number(lists: pl.Series) -> Words:
    """Number the entries of a column of lists of strings (words of documents, or lines of documents)."""
    lengths = lists.list.len().to_numpy().astype(np.int64)
    # An empty list explodes to one null in some versions of polars and to no row in others; neither is a word.
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
    """Return the positions at which ``n`` consecutive words are in one document."""
    if document.size < n:
        return np.empty(0, np.int64)
    return np.flatnonzero(document[: document.size - n + 1] == document[n - 1 :])


def gram_keys(codes: NDArray[np.int64], starts: NDArray[np.int64], n: int, types: int) -> NDArray[np.int64]:
    """Return one non-negative integer per ``n`` words from each start: equal where and only where the words are.

    Keys are packed in base ``types`` while they fit into 63 bits, and renumbered where they would not.
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
    """Hash every word to a number that is the same in every process, [words]."""
    hashes = (int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") for word in vocabulary)
    return np.fromiter(hashes, np.uint64, vocabulary.len())


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def ngrams(texts: pl.Series, words: Sequence[int] = (1, 2), strings: Sequence[int] = (4,)) -> csr_array:
    """Count hashed n-grams: 1 + ln(count) of each, [texts, 2^18] (CSR, Float64), rows not normalised.

    ``words`` and ``strings`` are the lengths of n-grams in words and in bytes. Words and pairs of words say what a text
    is about; strings of four bytes say how it is written, down to its spelling and punctuation. Each n-gram is hashed
    to one of 2^18 columns (Weinberger et al. 2009), so there is no vocabulary to learn, and the row of a text depends
    on that text alone. A text without n-grams has an empty row.
    """
    from scipy.sparse import csr_array

    keys = np.sort(np.concatenate([*_word_keys(texts, words), *_byte_keys(texts, strings)]))
    first = np.flatnonzero(np.diff(keys, prepend=np.uint64(2**64 - 1)))
    counts = np.diff(first, append=keys.size)
    row, column = keys[first] >> np.uint64(BITS), keys[first] & np.uint64(2**BITS - 1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row.astype(np.int64), minlength=texts.len()))])
    # 32 bits: liblinear takes no others.
    columns = (column.astype(np.int32), starts.astype(np.int32))
    return csr_array((1 + np.log(counts), *columns), shape=(texts.len(), 2**BITS))


def normalised(rows: csr_array) -> csr_array:
    """Scale rows to length 1; empty rows stay empty."""
    scaled, each = rows.copy(), np.diff(rows.indptr)
    length = np.sqrt(np.add.reduceat(np.append(rows.data**2, 0.0), rows.indptr[:-1]))
    scaled.data = rows.data / np.repeat(length, each)
    return scaled


def _word_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    tokens = words(texts)
    each = word_hashes(tokens.vocabulary)[tokens.codes]
    return [_keys(each, tokens.document, n, n) for n in lengths]


def _byte_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    texts = texts.fill_null("")
    each = np.frombuffer("".join(texts).encode(), np.uint8).astype(np.uint64)
    document = np.repeat(np.arange(texts.len(), dtype=np.int64), texts.str.len_bytes().to_numpy().astype(np.int64))
    return [_keys(each, document, n, 16 + n) for n in lengths]


def _keys(each: NDArray[np.uint64], document: NDArray[np.int64], n: int, salt: int) -> NDArray[np.uint64]:
    """Return text and column of every ``n`` consecutive units, packed into one integer."""
    start = windows(document, n)
    key = np.full(start.size, salt, np.uint64)
    for k in range(n):
        key = mix(key + each[start + k])
    return document[start].astype(np.uint64) << np.uint64(BITS) | key >> np.uint64(64 - BITS)
