"""Adders: real documents put into a set, from a source, from an archive, or written for money."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.policies.base import POLICIES, Adder, Context
from ecosystem.sources.base import MOST_ROWS, some_rows
from ecosystem.spec import ScenarioParts


class Injection(Adder):
    """Adds real documents from a source to what was kept; where there are too few, all there are, and an event says so.

    ``fraction`` = f adds f / (1 - f) documents per kept one (rounded), so that the share f of the result is
    injected; ``count`` adds that many whatever was kept.
    """

    source: str = Field(description="name of the source of real documents")
    fraction: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="share of injected documents in the resulting set; give either this or count"
    )
    count: Annotated[int, Field(ge=0, le=MOST_ROWS)] | None = Field(
        None, description="number of injected documents; give either this or fraction"
    )
    price: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="what a document costs, in units of money, the first time that any trainer is given it; absent: "
        "nothing is paid",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Injection:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction and count")
        return self

    @property
    def price_per_document(self) -> float | None:
        """What a document costs the first time that any trainer is given it; None: nothing is paid."""
        return self.price

    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return the injected rows, each of weight 1, ordered by row."""
        wanted = self.wanted(kept)
        rows = self.rows(wanted, ctx)
        if rows.size < wanted:
            ctx.report_shortfall(wanted, rows.size)
        return pl.DataFrame(
            {"source": pl.repeat(self.source, rows.size, dtype=pl.String, eager=True), "document": rows}
        ).with_columns(weight=pl.lit(1.0))

    @abstractmethod
    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Return ``n`` different rows of the source (fewer if there are no more), ascending."""

    def wanted(self, kept: int) -> int:
        """Return how many documents to add to ``kept`` kept ones, if the source has as many."""
        if self.count is not None:
            return self.count
        fraction = self.fraction or 0.0
        return round(fraction / (1 - fraction) * kept)


@POLICIES.register("inject_real")
class InjectReal(Injection):
    """Adds real documents from a source to what was kept: the fixed or fresh real data of Alemohammad et al. (2023).

    ``fraction`` = f adds f / (1 - f) documents per kept one (rounded), so that the share f of the result is
    injected; ``count`` adds that many whatever was kept. ``fixed``: the same rows at every step (as many of them
    as are asked for) and for every reader; ``fresh``: another draw at each step and for each reader. From a
    finite source they are the rows with the smallest keyed numbers, whether or not they are on the web too; more
    asked than there are: all there are. From an endless one they are consecutive rows of a block far behind those
    that people draw (from row 0 on), one block for good (fixed) or a new one each time (fresh).
    """

    mode: Literal["fixed", "fresh"] = Field(
        "fixed", description="fixed: always the same rows; fresh: new ones each step"
    )

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Return rows from the whole source."""
        stream = ctx.static_stream if self.mode == "fixed" else ctx.stream
        return some_rows(n, 0, ctx.sources.size(self.source), stream)


@POLICIES.register("verified_archive")
class VerifiedArchive(InjectReal):
    """Adds human documents kept from before a given step: an archive of what people had published until then.

    With ``until`` = 0 it holds what the web began with, before any synthetic text existed. It is drawn from as
    inject_real draws from the whole source; asked for more than it holds, it adds all of it.
    """

    until: Annotated[int, Field(ge=0)] = Field(0, description="last step whose human documents were archived")

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require a source that people publish from up to the step."""
        if self.source not in scenario.sources:
            return []
        begun = [] if scenario.web.initial is None else [scenario.web.initial.source]
        published = {*begun, *(w.source for w in scenario.writers.values() if self.until > 0)}
        if self.source in published:
            return []
        there = ", ".join(sorted(published)) or "none"
        return [
            f'{path}.source: nobody publishes documents of "{self.source}" up to step {self.until}, so that its '
            f"archive would be empty; those published by then are of: {there}"
        ]

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Return rows that people had published."""
        stream = ctx.static_stream if self.mode == "fixed" else ctx.stream
        return some_rows(n, 0, ctx.sources.drawn(self.source, min(self.until, ctx.t)), stream)


@POLICIES.register("paid_writing")
class PaidWriting(Injection):
    """Adds new human documents that are paid for, each at ``price``, and that nobody has published.

    They are rows of the source that people have not drawn yet, another draw at each step and for each reader. A
    finite source runs out of them as people go on writing, and may give the same row at two steps, which is paid for
    once; when all were bought before, an event says so. An endless one never runs out.
    """

    pays_writers: ClassVar[bool] = True

    price: Annotated[float, Field(ge=0)] = Field(
        1.0,
        description="what each document costs, in units of money, once, whoever is given it and however often",
    )

    def rows(self, n: int, ctx: Context) -> NDArray[np.int64]:
        """Return rows that nobody has published."""
        return some_rows(n, ctx.sources.drawn(self.source, ctx.t), ctx.sources.size(self.source), ctx.stream)
