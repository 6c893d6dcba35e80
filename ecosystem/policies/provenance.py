"""Policies by the origin of documents: declared by labels of machine text, capped, or weighed as believed."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.errors import nearest
from ecosystem.policies.base import POLICIES, Adder, Context, Filter, Weigher
from ecosystem.policies.filters import Count
from ecosystem.policies.reasons import first_reason
from ecosystem.spec import ScenarioParts
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


@POLICIES.register("origin_weight")
class OriginWeight(Weigher):
    """Weighs documents so that those believed to be real have a given share of all weight (He, Xu & Cheng 2025).

    Documents that earlier adders have added are real. Of the others, those are believed to be synthetic that the filter
    ``believed_by`` would refuse: a label, a detector, or the oracle for beliefs that are always right. Their weights
    are multiplied by one factor; all other weights stay. So the training set is weighted as ``real_share`` says,
    however many documents of each sort there are. With "golden", the share is (sqrt(k^2 + 4k) - k)/2 for k real
    documents to one synthetic: the best one in the long run if every training set has new real documents and
    documents of the last model. Without documents of either sort, no weight changes.
    """

    row_wise: ClassVar[bool] = False

    real_share: Annotated[float, Field(gt=0, le=1)] | Literal["golden"] = Field(
        "golden",
        description="share of the weight of documents believed to be real; golden: the best one for their number",
    )
    believed_by: str | None = Field(
        None,
        description="name of a filter; documents that it would refuse are believed to be synthetic; absent: all that "
        "no earlier adder has added",
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a filter that judges documents one by one, and a place behind all adders of a select gate."""
        name, problems = path.partition(".")[2], []
        judges = sorted(n for n, p in scenario.policies.items() if isinstance(p, Filter) and p.row_wise)
        if self.believed_by is not None and self.believed_by not in judges:
            problems.append(
                f'{path}.believed_by: "{self.believed_by}" must name a filter that judges each document by itself, '
                f"such as one of kind provenance_label{nearest(self.believed_by, judges)}; defined: "
                f"{', '.join(judges) or 'none'}"
            )
        if name in scenario.web.retain:
            problems.append(
                f"web.retain: {name} ({self.kind}) would apply its factor again at every step; use it in trainers' "
                "select"
            )
        for population, trainer in scenario.trainers.items():
            later = trainer.select[trainer.select.index(name) :] if name in trainer.select else []
            problems += [
                f"trainers.{population}.select: {adder} adds documents behind {name}, which would not count them; put "
                f"{name} behind it"
                for adder in later
                if isinstance(scenario.policies.get(adder), Adder)
            ]
        return problems

    def scores_read(self) -> list[str]:
        """Return the name of the filter, which may be a learning one."""
        return [] if self.believed_by is None else [self.believed_by]

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return one factor for the documents believed to be synthetic, and 1 for the others."""
        synthetic = np.ones(docs.height, np.bool_)
        if self.believed_by is not None:
            synthetic = ctx.refused_by(self.believed_by, docs["doc"])
        weight, added = docs["weight"].to_numpy(), ctx.added["weight"].to_numpy()
        real, machine = weight[~synthetic].sum() + added.sum(), weight[synthetic].sum()
        factor = 1.0
        if real > 0 and machine > 0:
            factor = (1 / self._share((~synthetic).sum() + added.size, synthetic.sum()) - 1) * real / machine
        return pl.Series("factor", np.where(synthetic, factor, 1.0))

    def _share(self, real: int, synthetic: int) -> float:
        """Return the share of weight due to the real ones of so many documents of each sort, in (0, 1]."""
        if self.real_share != "golden":
            return self.real_share
        return 2 / (1 + math.sqrt(1 + 4 * synthetic / real))  # (sqrt(k^2 + 4k) - k)/2 with k = real/synthetic


def _refused(docs: pl.DataFrame, refused: NDArray[np.bool_], reason: str) -> pl.Series:
    return first_reason(docs, [(pl.lit(pl.Series("refused", refused, dtype=pl.Boolean)), pl.lit(reason))])
