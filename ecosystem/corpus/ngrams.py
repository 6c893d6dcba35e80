"""Texts as hashed n-grams: one sparse row of counts per text, for classifiers and for distances between texts.

Words and pairs of words say what a text is about; strings of four bytes say how it is written, down to its spelling
and punctuation. Each n-gram is hashed to one of 2^18 columns (Weinberger et al. 2009), so there is no
vocabulary to be learnt, and the row of a text depends on nothing but the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.words import mix, windows, word_hashes
from ecosystem.corpus.words import words as number_words

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BITS = 18  # of a column's number


def ngrams(texts: pl.Series, words: Sequence[int] = (1, 2), strings: Sequence[int] = (4,)) -> csr_array:
    """Return 1 + ln(count) of every hashed n-gram, [texts, 2^18] (CSR, Float64), rows not normalised.

    ``words`` and ``strings`` say how many words, and how many bytes, in a row are one n-gram. A text that has none,
    such as an empty one, has an empty row.
    """
    from scipy.sparse import csr_array

    keys = np.sort(np.concatenate([*_word_keys(texts, words), *_byte_keys(texts, strings)]))
    first = np.flatnonzero(np.diff(keys, prepend=np.uint64(2**64 - 1)))
    counts = np.diff(first, append=keys.size)
    row, column = keys[first] >> np.uint64(BITS), keys[first] & np.uint64(2**BITS - 1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row.astype(np.int64), minlength=texts.len()))])
    # Of 32 bits, since liblinear takes no others.
    columns = (column.astype(np.int32), starts.astype(np.int32))
    return csr_array((1 + np.log(counts), *columns), shape=(texts.len(), 2**BITS))


def normalised(rows: csr_array) -> csr_array:
    """Return the rows scaled to length 1; empty rows stay empty."""
    scaled, each = rows.copy(), np.diff(rows.indptr)
    length = np.sqrt(np.add.reduceat(np.append(rows.data**2, 0.0), rows.indptr[:-1]))
    scaled.data = rows.data / np.repeat(length, each)
    return scaled


def _word_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    found = number_words(texts)
    each = word_hashes(found.vocabulary)[found.codes]
    return [_keys(each, found.document, n, n) for n in lengths]


def _byte_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    texts = texts.fill_null("")
    each = np.frombuffer("".join(texts).encode(), np.uint8).astype(np.uint64)
    document = np.repeat(np.arange(texts.len(), dtype=np.int64), texts.str.len_bytes().to_numpy().astype(np.int64))
    return [_keys(each, document, n, 16 + n) for n in lengths]


def _keys(each: NDArray[np.uint64], document: NDArray[np.int64], n: int, salt: int) -> NDArray[np.uint64]:
    """Return the number of the text and of the column, in one integer, of every ``n`` units in a row."""
    start = windows(document, n)
    key = np.full(start.size, salt, np.uint64)
    for k in range(n):
        key = mix(key + each[start + k])
    return document[start].astype(np.uint64) << np.uint64(BITS) | key >> np.uint64(64 - BITS)
