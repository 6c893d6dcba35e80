"""Policies that change a training set's mixture: weights by a detector's score, and real documents added."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.policies.base import POLICIES, Adder, Context, Weigher

_BLOCK_BITS = 24  # rows of an endless source that one injection may take: 16.8 million
_BLOCKS_BITS = 36


@POLICIES.register("importance")
class Importance(Weigher):
    """Weighs documents by the odds that they are human under a detector's score (cf. Drayson et al. 2025).

    The detector is simulated: its score is N(0, 1) for a human document and N(d, 1) for a synthetic one (the
    binormal model), with d = sqrt(2) * inverse normal of ``auc``; a document keeps its score for ever. With q
    the ``synthetic_prior``, the weight is P(human | score) / (1 - q): its mean over documents of which the share q
    is synthetic is exactly 1, and with an ``auc`` of 0.5 every weight is 1.
    """

    oracle: ClassVar[bool] = True

    auc: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.9, description="area under the detector's ROC curve; 0.5 tells nothing"
    )
    synthetic_prior: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="synthetic share that the trainer believes in"
    )

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return the weights, between 0 and 1 / (1 - synthetic_prior)."""
        normal = NormalDist()
        shift = math.sqrt(2) * normal.inv_cdf(self.auc)
        luck = ctx.lasting.uniform(docs["doc"].to_numpy())
        noise = np.array([normal.inv_cdf(u) for u in luck.tolist()], dtype=np.float64)
        score = noise + shift * docs["synthetic"].fill_null(False).to_numpy()
        odds = self.synthetic_prior / (1 - self.synthetic_prior)  # of synthetic against human, before the score
        human = 1 / (1 + odds * np.exp(shift * score - shift**2 / 2))
        return pl.Series("factor", human / (1 - self.synthetic_prior))


@POLICIES.register("inject_real")
class InjectReal(Adder):
    """Adds real documents from a source to what was kept: the fixed or fresh real data of Alemohammad et al. (2023).

    ``fraction`` = f adds f / (1 - f) documents per kept one (rounded), so that the share f of the result is
    injected; ``count`` adds that many whatever was kept. ``fixed``: the same rows at every step (as many of them
    as are asked for) and for every reader; ``fresh``: another draw at each step and for each reader. From a
    finite source they are the rows with the smallest keyed numbers; more asked than there are: all there are.
    From an endless one they are consecutive rows of a block far behind those that people draw (from row 0 on),
    one block for good (fixed) or a new one each time (fresh).
    """

    source: str = Field(description="name of the source of real documents")
    fraction: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="share of injected documents in the resulting set; give either this or count"
    )
    count: Annotated[int, Field(ge=0, le=1 << _BLOCK_BITS)] | None = Field(
        None, description="number of injected documents; give either this or fraction"
    )
    mode: Literal["fixed", "fresh"] = Field(
        "fixed", description="fixed: always the same rows; fresh: new ones each step"
    )
    price: Annotated[float, Field(ge=0)] | None = Field(
        None, description="paid for a document when it is first injected; absent: nothing is paid or counted"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> InjectReal:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction and count")
        return self

    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return the injected rows, each of weight 1, ordered by row."""
        stream = ctx.lasting if self.mode == "fixed" else ctx.stream
        wanted, size = self.wanted(kept), ctx.source_rows(self.source)
        if size is None:
            first = (1 + stream.integer() % (1 << _BLOCKS_BITS)) << _BLOCK_BITS
            rows: NDArray[np.int64] = np.arange(first, first + min(wanted, 1 << _BLOCK_BITS), dtype=np.int64)
        else:
            luck = stream.uniform(np.arange(size))
            rows = np.sort(np.argsort(luck, kind="stable")[:wanted])
        return pl.DataFrame(
            {"source": pl.repeat(self.source, rows.size, dtype=pl.String, eager=True), "document": rows}
        ).with_columns(weight=pl.lit(1.0))

    def wanted(self, kept: int) -> int:
        """Return how many documents to add to ``kept`` kept ones, if the source has as many."""
        if self.count is not None:
            return self.count
        fraction = self.fraction or 0.0
        return round(fraction / (1 - fraction) * kept)
