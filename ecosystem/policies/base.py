"""The three things a policy may do to a table of documents, and the gate that applies an ordered list of them.

A policy sees a table and a :class:`Context`, never the world. It receives the observable columns only, unless
it declares itself an ``oracle``. Nothing is deleted: the first policy to refuse a row signs it in ``verdict``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import OBSERVABLE
from ecosystem.errors import EcosystemError
from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Stream


@dataclass(frozen=True)
class Context:
    """What a policy may ask for besides the table: services, never the world itself.

    ``text(ids)``: contents of documents. ``score(model, ids)``: (total nats, tokens) per document under the
    named model's starting weights. ``near_duplicate(num_perm, shingle, threshold, ids)``: for every id the
    earliest published near-duplicate, or null. ``source_rows(source)``: how many documents of a source may be
    injected (None: endless), leaving out its held-out part.
    """

    policy: str  # the name of the policy in the scenario
    reader: str  # the trainer for whom the gate stands, or "web"
    t: int
    stream: Stream  # of this policy at this step; use .uniform(ids) so that a row's luck is its own
    lasting: Stream  # the same at step 0: for what must not change between steps
    text: Callable[[pl.Series], pl.Series]
    score: Callable[[str, pl.Series], tuple[NDArray[np.float64], NDArray[np.int64]]]
    near_duplicate: Callable[[int, int, float, pl.Series], pl.Series]
    source_rows: Callable[[str], int | None]


class Policy(Spec):
    """A rule about documents: exactly one of Filter, Weigher and Adder."""

    oracle: ClassVar[bool] = False  # True: sees the truth columns


class Filter(Policy):
    """Refuses rows."""

    @abstractmethod
    def refuse(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return, per row, null to keep it or the reason (String) for refusing it."""


class Weigher(Policy):
    """Multiplies the weight of rows."""

    @abstractmethod
    def weigh(self, docs: pl.DataFrame, ctx: Context) -> pl.Series:
        """Return, per row, a factor >= 0 (Float64)."""


class Adder(Policy):
    """Adds rows of real documents from a source."""

    @abstractmethod
    def add(self, kept: int, ctx: Context) -> pl.DataFrame:
        """Return rows (source: String, document: Int64 row of the source, weight: Float64) for ``kept`` kept rows."""


POLICIES: Registry[type[Policy]] = Registry(
    "policy",
    "ecosystem.policies.filters",
    "ecosystem.policies.duplicates",
    "ecosystem.policies.sampling",
    "ecosystem.policies.retention",
)


def gate(docs: pl.DataFrame, policies: Sequence[tuple[str, Policy]], context: Callable[[str], Context]) -> pl.DataFrame:
    """Apply policies in order to ``docs`` and return it with ``verdict``, ``reason``, ``weight`` and added rows.

    ``docs`` has a row per document (columns of the index; ``doc`` is the identity) and may already carry
    verdicts. Each policy sees only the rows that no earlier one refused. Rows that an Adder adds have ``doc``
    = row in the source, ``injected_from`` = the source, and are seen by no later filter: order matters.
    """
    table = docs
    if "verdict" not in table.columns:
        table = table.with_columns(verdict=pl.lit(None, pl.String), reason=pl.lit(None, pl.String))
    table = table.with_columns(injected_from=pl.lit(None, pl.String))
    added: list[pl.DataFrame] = []
    for name, policy in policies:
        open_rows = table.filter(pl.col("verdict").is_null())
        seen = open_rows if policy.oracle else open_rows.select([c for c in OBSERVABLE if c in open_rows.columns])
        ctx = context(name)
        if isinstance(policy, Filter):
            reason = _checked(policy.refuse(seen, ctx), seen.height, name, pl.String())
            signed = open_rows.select("doc").with_columns(
                reason=reason, verdict=pl.when(reason.is_not_null()).then(pl.lit(name))
            )
            table = table.update(signed, on="doc", how="left")
        elif isinstance(policy, Weigher):
            factor = _checked(policy.weigh(seen, ctx), seen.height, name, pl.Float64())
            if not bool(factor.is_finite().all()) or not bool((factor >= 0).all()):
                raise EcosystemError(
                    f"policies.{name}: a weight is negative or not finite; a weigher must return numbers >= 0."
                )
            weighed = open_rows.select("doc", weight=pl.col("weight") * factor)
            table = table.update(weighed, on="doc", how="left")
        elif isinstance(policy, Adder):
            already = sum(frame.height for frame in added)
            rows = policy.add(open_rows.height + already, ctx)
            added.append(
                rows.select(
                    doc=pl.col("document").cast(pl.Int64),
                    injected_from=pl.col("source"),
                    weight=pl.col("weight").cast(pl.Float64),
                    synthetic=pl.lit(False),
                    depth=pl.lit(0.0),
                )
            )
    return pl.concat([table, *added], how="diagonal") if added else table


def with_name(ctx: Context, policy: str) -> Context:
    """Return the context as seen by another policy: its own name and streams."""
    streams = Stream(ctx.stream.seed, f"policy/{policy}/{ctx.reader}", ctx.t)
    return replace(ctx, policy=policy, stream=streams, lasting=replace(streams, t=0))


def _checked(column: pl.Series, height: int, name: str, dtype: pl.DataType) -> pl.Series:
    if column.len() != height:
        raise EcosystemError(f"policies.{name}: returned {column.len()} rows for a table of {height}.")
    return column.cast(dtype)
