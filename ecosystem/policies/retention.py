"""Retention: which documents stay on the web (``t`` = step of publication) or in an archive (``t`` = acquisition).

The recursions of the literature are here by name: *replace* (Shumailov et al. 2024), *accumulate* (Gerstgrasser et al.
2024) and *accumulate-subsample* (Kazdan et al. 2025). These policies read only ``doc`` and ``t``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ecosystem.policies.base import POLICIES, Context, Filter, Weigher
from ecosystem.policies.reasons import first_reason
from ecosystem.times import InTime, Steps


@POLICIES.register("replace")
class Replace(Filter):
    """Keeps only the documents of this step: each generation sees the one before it and nothing older.

    With ``keep_initial`` the initial, human documents of the web stay as well: the partially synthetic loop of Seddik
    et al. (2024), the fixed real data of Alemohammad et al. (2023).
    """

    needs_content: ClassVar[bool] = False

    keep_initial: bool = Field(False, description="true: documents of step 0 always stay")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents of earlier steps."""
        old = (pl.col("t") < ctx.t) & ((pl.col("t") > 0) if self.keep_initial else pl.lit(True))
        return first_reason(docs, [(old, pl.lit("replaced by a later step"))])


@POLICIES.register("accumulate")
class Accumulate(Filter):
    """Keeps all documents: all generations beside the first, human one."""

    needs_content: ClassVar[bool] = False

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse nothing."""
        return first_reason(docs, [])


@POLICIES.register("window")
class Window(Filter):
    """Keeps the documents of the last ``steps`` steps, this one included; ``steps = 1`` equals replace."""

    needs_content: ClassVar[bool] = False

    steps: Annotated[int, Field(ge=1), InTime("duration")] = Field(
        5, description="number of steps kept, this one included"
    )

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents older than the window."""
        old = pl.col("t") <= ctx.t - self.steps
        return first_reason(docs, [(old, pl.lit(f"older than {self.steps} steps"))])


@POLICIES.register("newest")
class Newest(Filter):
    """Keeps the ``documents`` newest documents, however long ago they were published."""

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    documents: int = Field(100, ge=1, description="most documents kept")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse all but the newest documents; of the same step, those with the highest ids stay."""
        order = np.lexsort((docs["doc"].to_numpy(), docs["t"].to_numpy()))
        dropped = np.ones(docs.height, np.bool_)
        dropped[order[max(0, order.size - self.documents) :]] = False
        reason = pl.lit(f"not among the {self.documents} newest documents")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


@POLICIES.register("accumulate_subsample")
class AccumulateSubsample(Filter):
    """Keeps a random sample of fixed size of all documents ever offered; dropped documents never come back.

    Each document draws one number on arrival, and the ``capacity`` smallest stay. So the kept documents are at every
    step a uniform sample without replacement from all documents ever offered, although only kept ones are stored.
    """

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    capacity: int = Field(2000, ge=1, description="most documents kept")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents that are not drawn."""
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.static_stream.uniform(ids)))
        dropped = np.zeros(docs.height, np.bool_)
        dropped[order[self.capacity :]] = True
        reason = pl.lit(f"not among the {self.capacity} documents drawn to stay")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


@POLICIES.register("decay")
class Decay(Weigher):
    """Halves the weight of documents every ``half_life`` steps after their step of publication or acquisition.

    The web and archives keep weights from step to step, so each passage through the gate applies the decay of one step
    (``keeps_weights = true``). At a select gate weights start anew each time: with ``keeps_weights = false`` the decay
    of the whole age is applied at once.
    """

    needs_content: ClassVar[bool] = False

    half_life: Steps = Field(5.0, description="number of steps in which a weight halves")
    keeps_weights: bool = Field(
        True,
        description="true: for gates that keep weights between steps (web.retain, trainers' retain); false: for select",
    )

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return factors in (0, 1]; 1 for documents of this step."""
        age = np.maximum(ctx.t - docs["t"].to_numpy().astype(np.float64), 0)
        steps = np.minimum(age, 1) if self.keeps_weights else age
        return pl.Series("factor", 0.5 ** (steps / self.half_life))
