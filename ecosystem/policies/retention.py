"""What stays: on the web (``t`` = step of publication) or in a trainer's archive (``t`` = step of acquisition).

The recursions of the literature by name: *replace* (Shumailov et al. 2024), *accumulate* (Gerstgrasser et al.
2024) and *accumulate-subsample* (Kazdan et al. 2025). They look at ``doc``, ``t`` and nothing else.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from ecosystem.policies.base import POLICIES, Context, Filter, Weigher
from ecosystem.policies.reasons import first_reason

Positive = Annotated[int, Field(ge=1)]


@POLICIES.register("replace")
class Replace(Filter):
    """Keeps only what this step brought: each generation sees the one before it and nothing older.

    With ``keep_initial`` the web's first, human documents stay as well: the partially synthetic loop of Seddik et al.
    (2024), the fixed real data of Alemohammad et al. (2023).
    """

    needs_content: ClassVar[bool] = False

    keep_initial: bool = Field(False, description="true: documents of step 0 stay for ever")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents of earlier steps."""
        old = (pl.col("t") < ctx.t) & ((pl.col("t") > 0) if self.keep_initial else pl.lit(True))
        return first_reason(docs, [(old, pl.lit("replaced by a later step"))])


@POLICIES.register("accumulate")
class Accumulate(Filter):
    """Keeps everything: all generations side by side with the first, human one."""

    needs_content: ClassVar[bool] = False

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse nothing."""
        return first_reason(docs, [])


@POLICIES.register("window")
class Window(Filter):
    """Keeps the documents of the last ``steps`` steps, this one included; ``steps = 1`` is replace."""

    needs_content: ClassVar[bool] = False

    steps: Positive = Field(5, description="how many steps are kept, this one included")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse documents older than the window."""
        old = pl.col("t") <= ctx.t - self.steps
        return first_reason(docs, [(old, pl.lit(f"older than {self.steps} steps"))])


@POLICIES.register("accumulate_subsample")
class AccumulateSubsample(Filter):
    """Keeps a random sample of fixed size of everything there ever was; what is dropped never comes back.

    Each document draws one number when it arrives and the ``capacity`` smallest stay. At every step what is kept
    is therefore a uniform sample without replacement from all documents ever offered, old and new alike, although
    only the kept ones are remembered.
    """

    needs_content: ClassVar[bool] = False
    row_wise: ClassVar[bool] = False

    capacity: Positive = Field(2000, description="most documents kept")

    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Refuse what lost the draw."""
        ids = docs["doc"].to_numpy()
        order = np.lexsort((ids, ctx.static_stream.uniform(ids)))
        dropped = np.zeros(docs.height, np.bool_)
        dropped[order[self.capacity :]] = True
        reason = pl.lit(f"not among the {self.capacity} documents drawn to stay")
        return first_reason(docs, [(pl.lit(pl.Series("dropped", dropped)), reason)])


@POLICIES.register("decay")
class Decay(Weigher):
    """Halves the weight of what is not new every ``half_life`` steps.

    The web and an archive keep their weights from step to step, so one passage of the gate takes off one step's
    share (``keeps_weights = true``). Where weights begin anew each time, as at a select gate, set it to false and
    the whole age is taken off at once.
    """

    needs_content: ClassVar[bool] = False

    half_life: Annotated[float, Field(gt=0)] = Field(5.0, description="steps in which a weight halves")
    keeps_weights: bool = Field(
        True, description="true: the gate keeps weights between steps (web.retain, a trainer's retain); false: select"
    )

    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return factors in (0, 1]; 1 for documents of this step."""
        age = np.maximum(ctx.t - docs["t"].to_numpy().astype(np.float64), 0)
        steps = np.minimum(age, 1) if self.keeps_weights else age
        return pl.Series("factor", 0.5 ** (steps / self.half_life))
