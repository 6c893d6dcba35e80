"""Which held-out documents share several words in a row with the documents of a collection that only grows."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.storage.stored_arrays import GrowingArray
from ecosystem.corpus.words import LETTERED, blocks, fill_missing, word_shingles, words

_TEXT = 1 << 20  # bytes of text that are cut into n-grams at a time


class Overlaps:
    """The pairs of a document and a held-out document that have an n-gram of words in common.

    Words are compared in lower case and without punctuation, as in the report of GPT-3 (Brown et al. 2020, appendix C;
    unread). A document with fewer words is one n-gram, the whole text. Only the hashes of held-out n-grams and the
    pairs are kept; each document is read once, when it is added.
    """

    def __init__(self, held_out: pl.Series, n: int) -> None:
        """``held_out``: texts; ``n``: number of words."""
        hashes, held = _ngrams(held_out, n)
        order = np.lexsort((held, hashes))
        self.held_out, self._n = held_out.len(), n
        self._hashes, self._held = hashes[order], held[order]
        self._documents = 0
        self._place, self._match = GrowingArray(np.int64), GrowingArray(np.int64)  # of each pair; places ascend

    def __len__(self) -> int:
        """Return the number of documents added."""
        return self._documents

    def add(self, texts: pl.Series) -> None:
        """Add the next documents; a missing text has no words."""
        texts = fill_missing(texts)
        for part in blocks(texts, _TEXT):
            hashes, document = _ngrams(texts[part], self._n)
            first, last = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
            found = np.flatnonzero(last > first)
            count = last[found] - first[found]
            offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            held = self._held[np.repeat(first[found], count) + offset]
            pairs = np.unique(np.stack([np.repeat(document[found], count), held], axis=1), axis=0)
            self._place.append(pairs[:, 0] + self._documents + part.start)
            self._match.append(pairs[:, 1])
        self._documents += texts.len()

    def of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the held-out documents that overlap with any of these documents, ascending."""
        return np.unique(self._match.array[np.isin(self._place.array, documents)])

    def first(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first held-out document that each document overlaps with, or -1, [documents]."""
        place = self._place.array
        at = np.searchsorted(place, documents)
        known = at < place.size
        known[known] = place[at[known]] == documents[known]
        result = np.full(documents.size, -1)
        result[known] = self._match.array[at[known]]
        return result


def _ngrams(texts: pl.Series, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hash of every n-gram, and the place of its text."""
    hashes, starts = word_shingles(words(texts.str.to_lowercase(), LETTERED), n)
    return hashes, np.repeat(np.arange(texts.len()), np.diff(starts).astype(np.int64))
