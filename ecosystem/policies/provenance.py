"""Filters by the origin of documents: declared by labels of machine text, or known and capped."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.policies.base import POLICIES, Context, Filter
from ecosystem.policies.filters import Count
from ecosystem.policies.reasons import first_reason
from ecosystem.types import Share


@POLICIES.register("provenance_label")
class ProvenanceLabel(Filter):
    """Refuses documents that are labelled as machine text.

    Every machine text should be labelled. But some authors never label (``liars``; a larger share has the same authors
    and more), some labels are lost (``lost``, drawn per document), and some human documents are labelled by mistake
    (``false_labels``).
    """

    oracle: ClassVar[bool] = True

    liars: Share = Field(0.0, description="share of the authors of machine text who never label it")
    lost: Share = Field(0.0, description="share of the other machine texts that lose their label")
    false_labels: Share = Field(0.0, description="share of human documents labelled by mistake")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents with a label."""
        ids = docs["doc"].to_numpy()
        authors = docs["author"].unique().to_list()
        noise = {author: float(ctx.static_stream.child(f"author/{author}").uniform(0)[0]) for author in authors}
        honest = np.array([noise[author] >= self.liars for author in docs["author"]], np.bool_)
        survives = ctx.static_stream.child("lost").uniform(ids) >= self.lost
        mistaken = ctx.static_stream.child("false").uniform(ids) < self.false_labels
        labelled = np.where(docs["synthetic"].to_numpy(), honest & survives, mistaken)
        return _refused(docs, labelled, "labelled as machine text")


@POLICIES.register("synthetic_cap")
class SyntheticCap(Filter):
    """Caps synthetic publishing: refuses synthetic documents beyond a number per author or a share of all documents.

    The policy is made for the publish gate, which sees the documents of one step; at another gate it counts the
    documents there. ``per_author`` is applied first. With ``share`` = s, at most s / (1 - s) synthetic documents are
    kept per human one, so none in a step without human documents. The refused documents are drawn by noise per
    document: a laxer cap keeps all that a stricter one keeps.
    """

    oracle: ClassVar[bool] = True
    row_wise: ClassVar[bool] = False

    per_author: Count | None = Field(None, description="most synthetic documents kept of an author; absent: no limit")
    share: Share | None = Field(None, description="largest synthetic share of the kept documents; absent: no limit")

    @model_validator(mode="after")
    def _caps_something(self) -> SyntheticCap:
        if self.per_author is None and self.share is None:
            raise ValueError("give per_author, share or both")
        return self

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse synthetic documents beyond the caps."""
        synthetic = docs["synthetic"].to_numpy()
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.static_stream.uniform(ids)))
        order = order[synthetic[order]]  # synthetic rows, in ascending order of noise
        refused = np.zeros(docs.height, np.bool_)
        if self.per_author is not None:
            ranked = pl.DataFrame({"row": order, "author": docs["author"].gather(order)})
            rank = ranked.select(pl.int_range(pl.len()).over("author")).to_series().to_numpy()
            refused[order[rank >= self.per_author]] = True
            order = order[rank < self.per_author]
        if self.share is not None and self.share < 1:
            # The small term: 0.3 / (1 - 0.3) * 7 is less than 3 in floating point.
            most = int(self.share / (1 - self.share) * (~synthetic).sum() + 1e-9)
            refused[order[most:]] = True
        return _refused(docs, refused, "exceeds the cap on synthetic documents")


def _refused(docs: pl.DataFrame, refused: NDArray[np.bool_], reason: str) -> pl.Series:
    return first_reason(docs, [(pl.lit(pl.Series("refused", refused, dtype=pl.Boolean)), pl.lit(reason))])
