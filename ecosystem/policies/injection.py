"""Adders of real documents: from a source, from an archive of human text, or from people who are paid to write."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.policies.base import POLICIES, Adder, Context
from ecosystem.sources.base import MAX_ROWS, random_rows
from ecosystem.spec import ScenarioParts
from ecosystem.times import InTime


class Injection(Adder):
    """Base of adders of real documents from one source; if it has too few, add all and record an event.

    ``fraction`` = f adds f / (1 - f) documents per kept one (rounded), so the share f of the result is injected.
    ``count`` adds a fixed number.
    """

    source: str = Field(description="name of the source of real documents")
    fraction: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="share of injected documents in the resulting set; exclusive with count"
    )
    count: Annotated[int, Field(ge=0, le=MAX_ROWS)] | None = Field(
        None, description="number of injected documents; exclusive with fraction"
    )
    price: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="price of a document, in units of money, due when the first trainer receives it; absent: free",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Injection:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction and count")
        return self

    @property
    def price_per_document(self) -> float | None:
        """Price of a document, due when the first trainer receives it; None: free."""
        return self.price

    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return the injected rows, each of weight 1, in ascending order."""
        wanted = self.wanted(kept)
        rows = self.rows(wanted, ctx)
        if rows.size < wanted:
            ctx.report_shortfall(wanted, rows.size)
        return pl.DataFrame(
            {"source": pl.repeat(self.source, rows.size, dtype=pl.String, eager=True), "document": rows}
        ).with_columns(weight=pl.lit(1.0))

    @abstractmethod
    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Return ``n`` different rows of the source, or all if there are fewer, ascending."""

    def wanted(self, kept: int) -> int:
        """Return how many documents to add to ``kept`` kept ones."""
        if self.count is not None:
            return self.count
        fraction = self.fraction or 0.0
        return round(fraction / (1 - fraction) * kept)


@POLICIES.register("inject_real")
class InjectReal(Injection):
    """Adds real documents from a source: the fixed or fresh real data of Alemohammad et al. (2023).

    ``fraction`` = f adds f / (1 - f) documents per kept one (rounded), so the share f of the result is injected;
    ``count`` adds a fixed number. ``fixed``: the same rows at every step and for every reader; ``fresh``: a new draw at
    each step and for each reader. A finite source gives the rows with the smallest keyed numbers, whether or not they
    are also on the web, and all rows if it has fewer. An endless source gives consecutive rows of a block far behind
    those that people draw: always the same block (fixed) or a new one each time (fresh).
    """

    mode: Literal["fixed", "fresh"] = Field(
        "fixed", description="fixed: always the same rows; fresh: new rows at each step and for each reader"
    )

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Draw rows from the whole source."""
        stream = ctx.static_stream if self.mode == "fixed" else ctx.stream
        return random_rows(n, 0, ctx.sources.size(self.source), stream)


@POLICIES.register("verified_archive")
class VerifiedArchive(InjectReal):
    """Adds human documents from an archive of everything that people had published up to a given step.

    With ``until`` = 0 the archive holds the initial documents of the web, before any synthetic text existed. Documents
    are drawn as inject_real does from the whole source, and all of them are added if the archive has fewer.
    """

    until: Annotated[int, Field(ge=0), InTime("moment")] = Field(
        0, description="last step whose human documents are in the archive"
    )

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a source from which people publish up to the step."""
        if self.source not in scenario.sources:
            return []
        initial = [] if scenario.web.initial is None else [scenario.web.initial.source]
        published = {*initial, *(w.source for w in scenario.writers.values() if self.until > 0)}
        if self.source in published:
            return []
        listed = ", ".join(sorted(published)) or "none"
        return [
            f'{path}.source: no documents of "{self.source}" are published up to step {self.until}, so its archive '
            f"would be empty; sources published by then: {listed}"
        ]

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Draw rows that people had published."""
        stream = ctx.static_stream if self.mode == "fixed" else ctx.stream
        return random_rows(n, 0, ctx.sources.drawn(self.source, min(self.until, ctx.t)), stream)


@POLICIES.register("paid_writing")
class PaidWriting(Injection):
    """Adds new, unpublished human documents, which people are paid to write, each at ``price``.

    The documents are rows of the source that no writer has drawn yet, a new draw at each step and for each reader. A
    finite source runs out as people go on writing. It may give the same row at two steps, which is paid for once; an
    event records when all rows were bought before. An endless source never runs out.
    """

    pays_writers: ClassVar[bool] = True

    price: Annotated[float, Field(ge=0)] = Field(
        1.0,
        description="price of a document, in units of money, due once, when the first trainer receives it",
    )

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Draw rows that are not published yet."""
        return random_rows(n, ctx.sources.drawn(self.source, ctx.t), ctx.sources.size(self.source), ctx.stream)
