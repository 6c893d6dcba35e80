"""Texts as integers: the words of many documents, numbered once for fast counting, and hashed n-grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.segmentation import split_unspaced

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SPACED = r"\S+"  # runs without white space, for the features and Gopher's rules
TOKENS = r"\w+(?:['’]\w+)*|[^\w\s]"  # words (don't is one) and single punctuation marks, for the metrics
LETTERED = r"\w+"  # words without punctuation, for near-duplicate detection
BITS = 18  # of the column number of a hashed n-gram


@dataclass(frozen=True)
class Words:
    """The words of ``documents`` texts in one sequence.

    ``codes`` [N] holds the index of every word in ``vocabulary`` (in order of first appearance), and ``document`` [N],
    ascending, the number of its text. A text may have no words.
    """

    codes: NDArray[np.int64]
    document: NDArray[np.int64]
    vocabulary: pl.Series
    documents: int

    def lengths(self) -> NDArray[np.int64]:
        """Count the words of every document, [documents]."""
        return np.bincount(self.document, minlength=self.documents)


def words(text: pl.Series, pattern: str = TOKENS) -> Words:
    """Split every text into the matches of ``pattern`` and number them; a null text has none.

    A match in a script without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is split into its words.
    """
    return number_strings(split_unspaced(fill_missing(text).str.extract_all(pattern)))


def blocks(texts: pl.Series, most_bytes: int, most_texts: int | None = None) -> Iterator[slice]:
    """Cut texts, in order, into blocks of limited size; a longer text is a block of its own.

    Without texts, there is one empty block.
    """
    end = np.cumsum(texts.str.len_bytes().to_numpy().astype(np.int64))
    start = 0
    while start < texts.len() or not start:
        limit = most_bytes + (end[start - 1] if start else 0)
        stop = max(int(np.searchsorted(end, limit, "right")), start + 1)
        stop = stop if most_texts is None else min(stop, start + most_texts)
        yield slice(start, stop)
        start = stop


def fill_missing(text: pl.Series) -> pl.Series:
    """Replace missing texts with empty ones."""
    return text if text.dtype == pl.String and not text.null_count() else text.fill_null("")


def number_strings(lists: pl.Series) -> Words:
    """Number the strings in a column of lists (the words or the lines of documents)."""
    lengths = lists.list.len().to_numpy().astype(np.int64)
    # An empty list explodes to one null in some versions of polars, and to no row in others.
    flat = lists.explode()
    flat = flat.drop_nulls() if flat.null_count() else flat
    vocabulary = flat.unique(maintain_order=True)
    numbered = vocabulary.to_frame("word").with_row_index("code")
    codes = flat.to_frame("word").join(numbered, on="word", how="left", maintain_order="left")["code"]
    return Words(
        codes=codes.to_numpy().astype(np.int64),
        document=np.repeat(np.arange(lists.len(), dtype=np.int64), lengths),
        vocabulary=vocabulary,
        documents=lists.len(),
    )


def windows(document: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the positions at which ``n`` consecutive words of the same document begin."""
    if document.size < n:
        return np.empty(0, np.int64)
    return np.flatnonzero(document[: document.size - n + 1] == document[n - 1 :])


def gram_keys(codes: NDArray[np.int64], starts: NDArray[np.int64], n: int, types: int) -> NDArray[np.int64]:
    """Return one non-negative integer for the ``n`` words from each start; keys are equal if and only if the words are.

    Keys are packed in base ``types`` while they fit into 63 bits, and renumbered otherwise.
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
    """Hash every word; hashes [words] are the same in every process."""
    hashes = (int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") for word in vocabulary)
    return np.fromiter(hashes, np.uint64, vocabulary.len())


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def word_shingles(tokens: Words, n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hash all shingles of ``n`` words, text after text; return the hashes and the start of each text, [texts + 1].

    Hashes are equal in every process. A text of one to ``n - 1`` words has a single shingle, the whole text; a text
    without words has none.
    """
    lengths = tokens.lengths()
    each = word_hashes(tokens.vocabulary)[tokens.codes]
    begin = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    short = (lengths > 0) & (lengths < n)
    # Windows of full length, and one at the first word of each short text.
    start = np.sort(np.concatenate([windows(tokens.document, n), begin[short]]))
    document = tokens.document[start]
    length = np.minimum(n, lengths[document])
    key = np.zeros(start.size, np.uint64)
    for k in range(n):
        inside = k < length
        word = each[np.minimum(start + k, max(each.size - 1, 0))]
        key = np.where(inside, mix(key + word), key)
    return key, starts_of(document, tokens.documents)


def starts_of(document: NDArray[np.int64], documents: int) -> NDArray[np.uint64]:
    """Return where each document begins, [documents + 1], given the document of every item, ascending."""
    counts = np.bincount(document, minlength=documents)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)


def ngrams(texts: pl.Series, words: Sequence[int] = (1, 2), strings: Sequence[int] = (4,)) -> csr_array:
    """Return 1 + ln(count) of hashed n-grams, [texts, 2^18] (CSR, Float64), with rows that are not normalised.

    ``words`` and ``strings`` are the lengths of n-grams in words and in bytes. Words and pairs of words capture the
    topic of a text, strings of four bytes its style, down to spelling and punctuation. Each n-gram is hashed to one of
    2^18 columns (Weinberger et al. 2009), so there is no vocabulary to learn, and the row of a text depends on that
    text alone. A text without n-grams has an empty row.
    """
    from scipy.sparse import csr_array

    keys = np.sort(np.concatenate([*_word_keys(texts, words), *_byte_keys(texts, strings)]))
    first = np.flatnonzero(np.diff(keys, prepend=np.uint64(2**64 - 1)))
    counts = np.diff(first, append=keys.size)
    row, column = keys[first] >> np.uint64(BITS), keys[first] & np.uint64(2**BITS - 1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row.astype(np.int64), minlength=texts.len()))])
    indices = (column.astype(np.int32), starts.astype(np.int32))  # liblinear requires 32 bits
    return csr_array((1 + np.log(counts), *indices), shape=(texts.len(), 2**BITS))


def normalised(rows: csr_array) -> csr_array:
    """Scale rows to length 1; empty rows stay empty."""
    scaled, counts = rows.copy(), np.diff(rows.indptr)
    length = np.sqrt(np.add.reduceat(np.append(rows.data**2, 0.0), rows.indptr[:-1]))
    scaled.data = rows.data / np.repeat(length, counts)
    return scaled


def _word_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    tokens = words(texts)
    hashes = word_hashes(tokens.vocabulary)[tokens.codes]
    return [_keys(hashes, tokens.document, n, n) for n in lengths]


def _byte_keys(texts: pl.Series, lengths: Sequence[int]) -> list[NDArray[np.uint64]]:
    texts = texts.fill_null("")
    units = np.frombuffer("".join(texts).encode(), np.uint8).astype(np.uint64)
    document = np.repeat(np.arange(texts.len(), dtype=np.int64), texts.str.len_bytes().to_numpy().astype(np.int64))
    return [_keys(units, document, n, 16 + n) for n in lengths]


def _keys(units: NDArray[np.uint64], document: NDArray[np.int64], n: int, salt: int) -> NDArray[np.uint64]:
    """Return the text and the column of every ``n`` consecutive units, packed into one integer."""
    start = windows(document, n)
    key = np.full(start.size, salt, np.uint64)
    for k in range(n):
        key = mix(key + units[start + k])
    return document[start].astype(np.uint64) << np.uint64(BITS) | key >> np.uint64(64 - BITS)
