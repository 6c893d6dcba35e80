"""Filters of exact and near-duplicates, and the index of near-duplicates that they query.

MinHash (Broder 1997) estimates the Jaccard similarity of two documents' sets of shingles by the share of equal entries
of two short signatures. Banding (Indyk & Motwani 1998) finds the pairs worth comparing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ecosystem.corpus.words import LETTERED, Words, fill_missing, mix, windows, word_hashes, words
from ecosystem.errors import EcosystemError
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import first_reason

_NONE = np.iinfo(np.int64).max  # instead of an id, where there is no near-duplicate
_RECALL = 0.99  # probability that a pair exactly at the threshold is compared
_SEED = 1  # of the signatures' permutations: part of the definition of "near", not of the noise of a run
_PAIRS = 1 << 14  # signatures compared at a time, to bound memory
_SHORT = 64  # words below which one changed word may alter more than a fifth of the shingles of three words
_CHARACTERS_PER_WORD = 3  # of shingles of characters, which must fit into a sentence several times over


@POLICIES.register("exact_dedup")
class ExactDedup(Filter):
    """Refuses documents whose text was published before, up to case and white space."""

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that have an earlier copy."""
        copy = pl.col("duplicate_of")
        return first_reason(docs, [(copy.is_not_null(), pl.format("same text as document {}", copy))])


@POLICIES.register("minhash_dedup")
class MinhashDedup(Filter):
    """Refuses documents that are nearly equal to an earlier document, on any site and of any step.

    Two documents are near-duplicates if the MinHash estimate of the Jaccard similarity of their word shingles (in lower
    case, without punctuation) is at least ``threshold`` (Lee et al. 2022, "Deduplicating Training Data Makes Language
    Models Better"). In a text of 30 words, one changed letter changes a fifth of the shingles of three words. So two
    documents of fewer than 64 words are near-duplicates also if their shingles of characters (3 times ``shingle``,
    without white space and punctuation) are as similar as that. Words of Chinese, Japanese, Thai, Lao, Khmer and
    Burmese are found by dictionary. The earliest of several near-duplicates is kept.
    """

    reads_text: ClassVar[bool] = True

    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="least estimated similarity of near-duplicates"
    )
    num_perm: Annotated[int, Field(ge=16, le=1024)] = Field(
        128, description="number of entries of the signature of a document"
    )
    shingle: Annotated[int, Field(ge=1, le=16)] = Field(3, description="number of consecutive words compared as one")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that have an earlier near-duplicate."""
        earliest = ctx.corpus.near_duplicates(self.num_perm, self.shingle, self.threshold, docs["doc"])
        match = pl.DataFrame({"match": earliest.cast(pl.Int64)})
        reason = pl.format("near-duplicate of document {}", pl.col("match"))
        return first_reason(match, [(pl.col("match").is_not_null(), reason)])


class NearDuplicates:
    """Index of the earliest near-duplicate of every document, for a collection that only grows.

    The result for a document depends only on it and on documents with smaller ids. So it never changes, and does not
    depend on the batches in which documents were added. A document with fewer words than a shingle is compared as a
    whole; one without words has no near-duplicate. Documents of fewer than 64 words are also compared by characters.
    """

    def __init__(self, num_perm: int = 128, shingle: int = 3, threshold: float = 0.8) -> None:
        """Begin empty; ``num_perm``: entries of a signature; ``shingle``: words; ``threshold``: least similarity."""
        self.shingle = shingle
        self._ids = np.empty(0, np.int64)
        self._words = _Index(num_perm, threshold)
        self._characters = _Index(num_perm, threshold)

    def __len__(self) -> int:
        """Return the number of documents added."""
        return self._ids.size

    def add(self, ids: ArrayLike | pl.Series, texts: pl.Series) -> None:
        """Add documents; raise EcosystemError unless ids ascend, within a call and from call to call."""
        new = np.asarray(ids, dtype=np.int64).reshape(-1)
        if new.size != texts.len():
            raise EcosystemError(
                f"near-duplicates: got {new.size} ids for {texts.len()} texts; give one id for each text."
            )
        if new.size == 0:
            return
        if (np.diff(new) <= 0).any() or (len(self) and new[0] <= self._ids[-1]):
            raise EcosystemError("near-duplicates: documents must be added in ascending order of their ids, each once.")
        self._ids = np.concatenate([self._ids, new])
        texts = fill_missing(texts).str.to_lowercase()
        tokens = words(texts, LETTERED)
        self._words.add(new, *word_shingles(tokens, self.shingle))
        short = np.flatnonzero(tokens.lengths() < _SHORT)
        if short.size:
            self._characters.add(
                new[short], *character_shingles(texts.gather(short), _CHARACTERS_PER_WORD * self.shingle)
            )

    def earliest(self, ids: ArrayLike | pl.Series) -> pl.Series:
        """Return, per id, the smallest id of an earlier near-duplicate, or null (Int64).

        Ids may be in any order; raise EcosystemError if one was never added.
        """
        requested = np.asarray(ids, dtype=np.int64).reshape(-1)
        missing = requested[~np.isin(requested, self._ids)]
        if missing.size:
            raise EcosystemError(f"near-duplicates: document {missing[0]} was never added.")
        match = np.minimum(self._words.earliest(requested), self._characters.earliest(requested))
        answer = pl.Series("near_duplicate", match, dtype=pl.Int64)
        return answer.set(pl.Series(match == _NONE), None)


class _Index:
    """Index of the earliest near-duplicate by one kind of shingle.

    Memory per document: 4 * num_perm bytes for the signature and 16 bytes per band.
    """

    def __init__(self, num_perm: int, threshold: float) -> None:
        self.num_perm, self.threshold = num_perm, threshold
        self.rows = rows_per_band(num_perm, threshold)
        self._ids = np.empty(0, np.int64)
        self._earliest = np.empty(0, np.int64)  # place of the earliest near-duplicate, or -1
        self._signatures: list[NDArray[np.uint32]] = []  # one array per batch
        # All bands of all documents, sorted by key and, within a key, by place.
        self._keys = np.empty(0, np.uint64)
        self._places = np.empty(0, np.int64)

    def add(self, ids: NDArray[np.int64], hashes: NDArray[np.uint64], starts: NDArray[np.uint64]) -> None:
        """Add documents by the hashes of their shingles, document after document, and the start of each."""
        first = self._ids.size
        self._signatures.append(_signatures(hashes, starts, self.num_perm))
        self._ids = np.concatenate([self._ids, ids])
        place = np.arange(first, first + ids.size)[np.diff(starts) > 0]
        keys = self._band_keys(place)
        self._remember(keys, place)
        self._earliest = np.concatenate([self._earliest, np.full(ids.size, -1)])
        self._search(keys, place)

    def earliest(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, per id, the smallest id of an earlier near-duplicate; the largest integer where there is none."""
        places = np.searchsorted(self._ids, ids)
        match = np.full(ids.size, -1)
        present = np.flatnonzero(np.append(self._ids, -1)[places] == ids)
        match[present] = self._earliest[places[present]]
        smallest: NDArray[np.int64] = np.append(self._ids, _NONE)[match]
        return smallest

    def signature(self, places: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the signatures at ``places``, [places, num_perm]."""
        if len(self._signatures) > 1:
            self._signatures = [np.concatenate(self._signatures)]
        return self._signatures[0][places]

    def _band_keys(self, places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Hash every band of every document to 64 bits, [places, bands]."""
        bands = self.num_perm // self.rows
        signature = self.signature(places)[:, : bands * self.rows].reshape(-1, bands, self.rows).astype(np.uint64)
        key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), signature.shape[:2]).copy()
        for k in range(self.rows):
            key = mix(key + signature[:, :, k])
        return key

    def _remember(self, keys: NDArray[np.uint64], places: NDArray[np.int64]) -> None:
        """Merge new bands into the sorted list; new places are larger, so they come last within a key."""
        flat = keys.reshape(-1)
        order = np.argsort(flat, kind="stable")
        at = np.searchsorted(self._keys, flat[order], side="right")
        self._keys = np.insert(self._keys, at, flat[order])
        self._places = np.insert(self._places, at, np.repeat(places, keys.shape[1])[order])

    def _search(self, keys: NDArray[np.uint64], places: NDArray[np.int64]) -> None:
        """Walk the buckets of each document from their oldest member until one is close enough.

        On a web that has collapsed into copies, whole buckets are near-duplicates, and the first comparison ends the
        walk; a list of all candidates would grow with the square of the web.
        """
        cursor = np.searchsorted(self._keys, keys.reshape(-1))
        searched = np.repeat(places, keys.shape[1])
        best = self._earliest  # filled in place
        while cursor.size:
            candidate = self._places[cursor]
            # The walk ends at the document itself, which is in each of its own buckets.
            ahead = (candidate < searched) & ((best[searched] < 0) | (candidate < best[searched]))
            cursor, searched, candidate = cursor[ahead], searched[ahead], candidate[ahead]
            close = self._close(searched, candidate)
            for place, match in zip(searched[close].tolist(), candidate[close].tolist(), strict=True):
                if best[place] < 0 or match < best[place]:
                    best[place] = match
            cursor, searched = cursor[~close] + 1, searched[~close]

    def _close(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for which pairs the estimated similarity reaches the threshold."""
        close = np.empty(left.size, np.bool_)
        for i in range(0, left.size, _PAIRS):
            pair = slice(i, i + _PAIRS)
            equal = (self.signature(left[pair]) == self.signature(right[pair])).sum(axis=1)
            close[pair] = equal >= self.threshold * self.num_perm
        return close


def rows_per_band(num_perm: int, threshold: float) -> int:
    """Return the most entries of a band with which a pair at the threshold is still compared 99 times in 100.

    With b = num_perm // r bands of r entries, a pair of similarity s shares at least one band with probability
    1 - (1 - s^r)^b. Longer bands save comparisons; every comparison is verified.
    """
    fits = [r for r in range(1, num_perm + 1) if 1 - (1 - threshold**r) ** (num_perm // r) >= _RECALL]
    return max(fits, default=1)


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
    start = np.union1d(windows(tokens.document, n), begin[short])
    document = tokens.document[start]
    length = np.minimum(n, lengths[document])
    key = np.zeros(start.size, np.uint64)
    for k in range(n):
        inside = k < length
        word = each[np.minimum(start + k, max(each.size - 1, 0))]
        key = np.where(inside, mix(key + word), key)
    return key, _starts(document, tokens.documents)


def character_shingles(texts: pl.Series, n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hash all shingles of ``n`` letters and digits; return them as :func:`word_shingles` does."""
    texts = texts.str.replace_all(r"\W+", "")
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    document = np.repeat(np.arange(texts.len(), dtype=np.int64), texts.str.len_chars().to_numpy().astype(np.int64))
    start = windows(document, n)
    key = np.zeros(start.size, np.uint64)
    for k in range(n):
        key = mix(key + characters[start + k])
    return key, _starts(document[start], texts.len())


def _starts(document: NDArray[np.int64], documents: int) -> NDArray[np.uint64]:
    counts = np.bincount(document, minlength=documents)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)


def _signatures(hashes: NDArray[np.uint64], starts: NDArray[np.uint64], num_perm: int) -> NDArray[np.uint32]:
    """Compute the MinHash signatures, [texts, num_perm]."""
    from rensa import RMinHash  # a compiled library, needed only for near-duplicates

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, num_perm, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, num_perm)
