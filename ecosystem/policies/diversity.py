"""Diversity-seeking selection: of many candidates, those that are far from each other."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.corpus.words import BITS, mix, ngrams, normalised
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import first_reason

_DIMENSIONS = 256  # that the n-grams are hashed down to
_LENGTH = 1000.0  # of a vector of whole numbers: its square is far below 2^24, up to where Float32 is exact


@POLICIES.register("diversity")
class Diversity(Filter):
    """Keeps ``count`` candidates that cover all of them: each one kept is the farthest from those kept before.

    Greedy k-centre selection (Gonzalez 1985; for training sets Sener & Savarese 2018), beginning with the earliest
    document, by the angle between TF-IDF vectors of words and punctuation marks, hashed down to 256 numbers. Of equally
    far ones the earliest is taken; copies of what is kept come last. It sees how texts differ and not whether they are
    any good: what is odd is far from everything.
    """

    reads_text: ClassVar[bool] = True
    row_wise: ClassVar[bool] = False

    count: Annotated[int, Field(ge=1)] = Field(1000, description="documents kept; fewer candidates are all kept")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what adds least to what is kept."""
        refused = np.zeros(docs.height, np.bool_)
        if docs.height > self.count:
            order = np.argsort(docs["doc"].to_numpy(), kind="stable")
            texts = ctx.contents(docs["doc"].gather(order))
            refused[:] = True
            refused[order[spread(embedded(texts), self.count)]] = False
        reason = pl.lit(f"too like the {self.count} documents kept")
        return first_reason(docs, [(pl.lit(pl.Series("refused", refused, dtype=pl.Boolean)), reason)])


def embedded(texts: pl.Series) -> NDArray[np.float32]:
    """Return TF-IDF vectors hashed to 256 dimensions, of length about 1000 and of whole numbers, [texts, 256].

    Sums of products of whole numbers this small are exact in Float32, so that neither the number of threads nor the
    way a library splits its sums can turn the order of two distances round.
    """
    # Of single words: two texts of one topic have hardly a pair of words in common, so that pairs put all texts at
    # right angles to one another.
    rows = ngrams(texts, words=(1,), strings=())
    seen = np.bincount(rows.indices, minlength=2**BITS)
    rows.data *= 1 + np.log((1 + texts.len()) / (1 + seen[rows.indices]))
    rows = normalised(rows)
    place = mix(np.arange(2**BITS, dtype=np.uint64))[rows.indices]
    sign = np.where(place >> np.uint64(63), 1.0, -1.0)
    text = np.repeat(np.arange(texts.len()), np.diff(rows.indptr))
    cell = text * _DIMENSIONS + (place % np.uint64(_DIMENSIONS)).astype(np.int64)
    dense = np.bincount(cell, weights=sign * rows.data, minlength=texts.len() * _DIMENSIONS)
    dense = dense.reshape(-1, _DIMENSIONS)
    length = np.sqrt((dense**2).sum(axis=1, keepdims=True))
    return np.round(_LENGTH * dense / np.where(length > 0, length, 1)).astype(np.float32)


def spread(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of ``count`` vectors, the first and then always the one whose nearest kept one is farthest.

    A vector of zeros (a text without n-grams) is far from none.
    """
    chosen = np.zeros(min(count, len(vectors)), np.int64)
    nearest = vectors @ vectors[0]  # largest product with one that is kept: the smaller, the farther
    nearest[~vectors.any(axis=1)] = np.finfo(np.float32).max
    nearest[0] = np.inf
    for k in range(1, chosen.size):
        chosen[k] = np.argmin(nearest)
        np.maximum(nearest, vectors @ vectors[chosen[k]], out=nearest)
        nearest[chosen[k]] = np.inf
    return chosen
