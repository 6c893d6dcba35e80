"""Filters of exact and near-duplicates and of held-out text, and the index of near-duplicates.

MinHash (Broder 1997) estimates the Jaccard similarity of two documents' sets of shingles by the share of equal entries
of two short signatures. Banding (Indyk & Motwani 1998) finds the pairs worth comparing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.storage.sorted_runs import Run, SortedRuns
from ecosystem.corpus.storage.stored_arrays import GrowingArray, StoredRows
from ecosystem.corpus.words import LETTERED, blocks, fill_missing, mix, starts_of, windows, word_shingles, words
from ecosystem.errors import EcosystemError
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import first_reason
from ecosystem.spec import ScenarioParts

_NONE = np.iinfo(np.int64).max  # instead of an id, where there is no near-duplicate
_RECALL = 0.99  # probability that a pair exactly at the threshold is compared
_SEED = 1  # of the signatures' permutations: part of the definition of "near", not of the noise of a run
_TEXT = 1 << 18  # bytes of text that are cut into shingles at a time
_CONVERTED = 512  # signatures computed at a time
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


@POLICIES.register("decontaminate")
class Decontaminate(Filter):
    """Refuses documents that share an n-gram of words with a held-out document, as GPT-3 removed its benchmarks.

    The held-out documents are those on which models are measured (``measure.held_out``). Words are compared in lower
    case, without punctuation. Brown et al. (2020, appendix C; unread) cut 200 characters around each match out of the
    document; this filter refuses the document. A document with fewer words than an n-gram is compared as a whole.
    """

    reads_text: ClassVar[bool] = True

    words: Annotated[int, Field(ge=1, le=64)] = Field(13, description="number of words in a row")

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require held-out documents."""
        return without_held_out(path, scenario)

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents with an overlap."""
        match = pl.DataFrame({"match": ctx.corpus.held_out_overlaps(self.words, docs["doc"]).cast(pl.Int64)})
        reason = pl.format("shares {} words in a row with held-out document {}", pl.lit(self.words), pl.col("match"))
        return first_reason(match, [(pl.col("match").is_not_null(), reason)])


def without_held_out(path: str, scenario: ScenarioParts) -> list[str]:
    """Return a sentence, which begins with ``path``, if a scenario has no held-out documents of text."""
    initial = scenario.web.initial
    if initial is None or not getattr(scenario.sources.get(initial.source), "held_out", 1):
        return [f"{path}: there are no held-out documents; give web.initial, from a source with held_out documents"]
    return []


class NearDuplicates:
    """Index of the earliest near-duplicate of every document, for a collection that only grows.

    The result for a document depends only on it and on documents with smaller ids. So it never changes, and does not
    depend on the batches in which documents were added. A document with fewer words than a shingle is compared as a
    whole; one without words has no near-duplicate. Documents of fewer than 64 words are also compared by characters.
    """

    def __init__(
        self, num_perm: int = 128, shingle: int = 3, threshold: float = 0.8, scratch: Scratch | None = None
    ) -> None:
        """Begin empty; ``num_perm``: entries of a signature; ``shingle``: words; ``threshold``: least similarity.

        ``scratch`` takes the files of an index that is too large for memory (absent: a temporary folder).
        """
        self.shingle = shingle
        scratch = scratch or Scratch()
        self._words = _Index(num_perm, threshold, scratch)  # of all documents
        self._characters = _Index(num_perm, threshold, scratch)  # of short ones

    def __len__(self) -> int:
        """Return the number of documents added."""
        return self._words.ids.size

    def add(self, ids: ArrayLike | pl.Series, texts: pl.Series) -> None:
        """Add documents; raise EcosystemError unless ids ascend, within a call and from call to call."""
        new = np.asarray(ids, dtype=np.int64).reshape(-1)
        if new.size != texts.len():
            raise EcosystemError(
                f"near-duplicates: got {new.size} ids for {texts.len()} texts; give one id for each text."
            )
        if new.size == 0:
            return
        if (np.diff(new) <= 0).any() or (len(self) and new[0] <= self._words.ids[-1]):
            raise EcosystemError("near-duplicates: documents must be added in ascending order of their ids, each once.")
        texts = fill_missing(texts).str.to_lowercase()
        # Few shingles at a time fit into the caches of a processor, and many bands at a time take fewer searches.
        for part in blocks(texts, _TEXT):
            self._sign(new[part], texts[part])
        self._words.search()
        self._characters.search()

    def _sign(self, ids: NDArray[np.int64], texts: pl.Series) -> None:
        tokens = words(texts, LETTERED)
        self._words.sign(ids, *word_shingles(tokens, self.shingle))
        short = np.flatnonzero(tokens.lengths() < _SHORT)
        if short.size:
            shingles = character_shingles(texts.gather(short), _CHARACTERS_PER_WORD * self.shingle)
            self._characters.sign(ids[short], *shingles)

    def earliest(self, ids: ArrayLike | pl.Series) -> pl.Series:
        """Return, per id, the smallest id of an earlier near-duplicate, or null (Int64).

        Ids may be in any order; raise EcosystemError if one was never added.
        """
        requested = np.asarray(ids, dtype=np.int64).reshape(-1)
        missing = requested[self._words.places(requested) < 0]
        if missing.size:
            raise EcosystemError(f"near-duplicates: document {missing[0]} was never added.")
        match = np.minimum(self._words.earliest(requested), self._characters.earliest(requested))
        answer = pl.Series("near_duplicate", match, dtype=pl.Int64)
        return answer.set(pl.Series(match == _NONE), None)


class _Index:
    """Index of the earliest near-duplicate by one kind of shingle.

    A document has 16 bytes in memory, and a signature of 4 * num_perm bytes and 16 bytes per band in memory or in
    files. Bands are sorted by key and, within a key, by the document's place in the order of ids.
    """

    def __init__(self, num_perm: int, threshold: float, scratch: Scratch) -> None:
        self.num_perm, self.threshold = num_perm, threshold
        self.rows = rows_per_band(num_perm, threshold)
        self._ids = GrowingArray(np.int64)
        self._earliest = GrowingArray(np.int64)  # place of the earliest near-duplicate, or -1
        self._signatures = StoredRows(scratch, np.uint32, (num_perm,))
        self._bands = SortedRuns(scratch)
        self._new: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []  # places and keys of bands to search

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the documents, ascending."""
        return self._ids.array

    def places(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each id in the order of ids, or -1."""
        at = np.searchsorted(self.ids, ids)
        known = np.flatnonzero(at < self.ids.size)
        places = np.full(ids.size, -1)
        known = known[self.ids[at[known]] == ids[known]]
        places[known] = at[known]
        return places

    def earliest(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, per id, the smallest id of an earlier near-duplicate; the largest integer where there is none."""
        places = self.places(ids)
        match = np.full(ids.size, -1)
        match[places >= 0] = self._earliest.array[places[places >= 0]]
        smallest = np.full(ids.size, _NONE)
        smallest[match >= 0] = self.ids[match[match >= 0]]
        return smallest

    def sign(self, ids: NDArray[np.int64], hashes: NDArray[np.uint64], starts: NDArray[np.uint64]) -> None:
        """Add documents by the hashes of their shingles, document after document, and the start of each."""
        signatures = _signatures(hashes, starts, self.num_perm)
        filled = np.flatnonzero(np.diff(starts))
        self._new.append((self.ids.size + filled, self._band_keys(signatures[filled])))
        self._ids.append(ids)
        self._signatures.append(signatures)

    def _band_keys(self, signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Hash every band of every signature to 64 bits, [signatures, bands]."""
        bands = self.num_perm // self.rows
        entries = signatures[:, : bands * self.rows].reshape(-1, bands, self.rows).astype(np.uint64)
        key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), entries.shape[:2]).copy()
        for k in range(self.rows):
            key = mix(key + entries[:, :, k])
        return key

    def search(self) -> None:
        """Find the earliest near-duplicates of the documents added since the last search."""
        if not self._new:
            return
        places, keys = (np.concatenate(part) for part in zip(*self._new, strict=True))
        self._new = []
        searched = np.repeat(places, keys.shape[1])
        order = np.argsort(keys, axis=None, kind="stable")
        keys, searched = keys.reshape(-1)[order], searched[order]
        self._bands.append(keys, searched)
        known = self._earliest.array.size
        best = np.full(self.ids.size - known, _NONE)
        for run in self._bands.runs:
            # Whatever is in newer runs is younger than a match in this one.
            open_ = best[searched - known] == _NONE
            keys, searched = keys[open_], searched[open_]
            self._walk(run, keys, searched, best)
        self._earliest.append(np.where(best == _NONE, -1, best))

    def _walk(self, run: Run, keys: NDArray[np.uint64], searched: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        """Walk the buckets of each document from their oldest member until one is close enough; update ``best``.

        On a web that has collapsed into copies, whole buckets are near-duplicates, and the first comparison ends the
        walk; a list of all candidates would grow with the square of the web.
        """
        cursor, stop = run.find(keys)
        first = self.ids.size - best.size
        while (inside := cursor < stop).any():
            cursor, stop, searched = cursor[inside], stop[inside], searched[inside]
            candidate = run.values(cursor)
            # The walk ends at the document itself, which is in each of its own buckets.
            ahead = candidate < np.minimum(searched, best[searched - first])
            cursor, stop, searched, candidate = cursor[ahead], stop[ahead], searched[ahead], candidate[ahead]
            close = self._close(searched, candidate)
            np.minimum.at(best, searched[close] - first, candidate[close])
            cursor, stop, searched = cursor[~close] + 1, stop[~close], searched[~close]

    def _close(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for which pairs the estimated similarity reaches the threshold."""
        # Near-duplicates meet in several bands.
        pairs, inverse = np.unique(left * self.ids.size + right, return_inverse=True)
        left, right = np.divmod(pairs, self.ids.size)
        close = np.empty(left.size, np.bool_)
        for i in range(0, left.size, _PAIRS):
            pair = slice(i, i + _PAIRS)
            equal = np.count_nonzero(self.signature(left[pair]) == self.signature(right[pair]), axis=1)
            close[pair] = equal >= self.threshold * self.num_perm
        return close[inverse]

    def signature(self, places: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the signatures at ``places``, [places, num_perm]."""
        return self._signatures.take(places)


def rows_per_band(num_perm: int, threshold: float) -> int:
    """Return the most entries of a band with which a pair at the threshold is still compared 99 times in 100.

    With b = num_perm // r bands of r entries, a pair of similarity s shares at least one band with probability
    1 - (1 - s^r)^b. Longer bands save comparisons; every comparison is verified.
    """
    fits = [r for r in range(1, num_perm + 1) if 1 - (1 - threshold**r) ** (num_perm // r) >= _RECALL]
    return max(fits, default=1)


def character_shingles(texts: pl.Series, n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hash all shingles of ``n`` letters and digits; return them as ``words.word_shingles`` does."""
    texts = texts.str.replace_all(r"\W+", "")
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    document = np.repeat(np.arange(texts.len(), dtype=np.int64), texts.str.len_chars().to_numpy().astype(np.int64))
    start = windows(document, n)
    key = np.zeros(start.size, np.uint64)
    for k in range(n):
        key = mix(key + characters[start + k])
    return key, starts_of(document[start], texts.len())


def _signatures(hashes: NDArray[np.uint64], starts: NDArray[np.uint64], num_perm: int) -> NDArray[np.uint32]:
    """Compute the MinHash signatures, [texts, num_perm]."""
    from rensa import RMinHash  # a compiled library, needed only for near-duplicates

    signatures = np.empty((starts.size - 1, num_perm), np.uint32)
    # Rows come as Python integers, which are twice as fast while they fit into the caches of a processor.
    for i in range(0, len(signatures), _CONVERTED):
        start = starts[i : i + _CONVERTED + 1]
        inside = hashes[int(start[0]) : int(start[-1])]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(inside, start - start[0], num_perm, _SEED)
        signatures[i : i + _CONVERTED] = matrix.to_rows()
    return signatures
