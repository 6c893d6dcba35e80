"""Diversity-seeking selection: keep candidates that are far from each other."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.corpus.words import BITS, mix, ngrams, normalised
from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.reasons import first_reason

_DIMENSIONS = 256  # of the vectors that n-grams are hashed to
_LENGTH = 1000.0  # of a vector of whole numbers: its square is far below 2^24, the limit of exact Float32


@POLICIES.register("diversity")
class Diversity(Filter):
    """Keeps ``count`` candidates that cover all candidates: each one kept is the farthest from those kept before.

    This is greedy k-centre selection (Gonzalez 1985; for training sets Sener & Savarese 2018), beginning with the
    earliest document. Distances are angles between TF-IDF vectors of words and punctuation marks, hashed to 256
    numbers. Of equally far candidates the earliest is kept; copies of kept documents come last. The rule sees how texts
    differ, not how good they are: an odd text is far from all others.
    """

    reads_text: ClassVar[bool] = True
    row_wise: ClassVar[bool] = False

    count: Annotated[int, Field(ge=1)] = Field(
        1000, description="number of documents kept; fewer candidates are all kept"
    )

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse the documents that add least to those kept."""
        refused = np.zeros(docs.height, np.bool_)
        if docs.height > self.count:
            order = np.argsort(docs["doc"].to_numpy(), kind="stable")
            texts = ctx.contents(docs["doc"].gather(order))
            refused[:] = True
            refused[order[spread(embedded(texts), self.count)]] = False
        reason = pl.lit(f"too like the {self.count} documents kept")
        return first_reason(docs, [(pl.lit(pl.Series("refused", refused, dtype=pl.Boolean)), reason)])


def embedded(texts: pl.Series) -> NDArray[np.float32]:
    """Compute TF-IDF vectors hashed to 256 dimensions, of length about 1000 and of whole numbers, [texts, 256].

    Sums of products of whole numbers this small are exact in Float32. So neither the number of threads nor the order of
    summation can change the order of two distances.
    """
    # Single words only: two texts of one topic share hardly a pair of words, so pairs put all texts at right angles.
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
    """Choose the first vector, then always the one farthest from its nearest chosen one; return ``count`` places.

    A vector of zeros (a text without n-grams) is chosen last.
    """
    chosen = np.zeros(min(count, len(vectors)), np.int64)
    nearest = vectors @ vectors[0]  # largest product with a chosen one: the smaller, the farther
    nearest[~vectors.any(axis=1)] = np.finfo(np.float32).max
    nearest[0] = np.inf
    for k in range(1, chosen.size):
        chosen[k] = np.argmin(nearest)
        np.maximum(nearest, vectors @ vectors[chosen[k]], out=nearest)
        nearest[chosen[k]] = np.inf
    return chosen
