"""What becomes of a gate's table: ledger rows, what a trainer keeps between steps, and what adders could not give."""

from __future__ import annotations

import polars as pl

from ecosystem.corpus.schema import ARCHIVE, LEDGER
from ecosystem.policies.base import gate
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State


def ledger_rows(signed: pl.DataFrame, reader: pl.Expr | pl.Series) -> pl.DataFrame:
    """Return the ledger rows (columns of LEDGER) of a table that has been through a gate."""
    return signed.with_columns(reader=reader, document="doc", source="injected_from").select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


def archive(state: State, trainer: Trainer, kept: pl.DataFrame) -> pl.DataFrame:
    """Add what was kept now to a trainer's archive, thin it by its retention policies, and return its rows."""
    new = kept.with_columns(t=pl.lit(state.t, pl.Int32)).select(ARCHIVE.keys())
    own = pl.col("reader") == trainer.name
    # The same document scraped again counts once, as acquired last.
    held = pl.concat([state.archive.filter(own), new]).unique(["document", "source"], keep="last", maintain_order=True)
    held = held.with_columns(doc=_archive_ids(held))
    signed = gate(held, state.policies(trainer.settings.retain or []), state.context(trainer.name))
    held = signed.filter(pl.col("verdict").is_null()).select(ARCHIVE.keys())
    state.archive = pl.concat([state.archive.filter(~own), held])
    truth = state.corpus.index.select("synthetic", "depth", document="doc")
    scraped = held.filter(pl.col("source").is_null()).join(truth, on="document", how="left", maintain_order="left")
    injected = held.filter(pl.col("source").is_not_null()).with_columns(synthetic=pl.lit(False), depth=pl.lit(0.0))
    rows = pl.concat([scraped, injected], how="diagonal")
    return rows.with_columns(verdict=pl.lit(None), reason=pl.lit(None), added_by=pl.lit(None)).select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


def _archive_ids(held: pl.DataFrame) -> pl.Series:
    """Return an id per archive row that no web document has: injected rows count downwards from -1."""
    return held.select(
        pl.when(pl.col("source").is_null()).then(pl.col("document")).otherwise(-1 - pl.col("document"))
    ).to_series()


def note_shortfalls(state: State) -> None:
    """Record one event for each adder that gave less than it was asked for, however many trainers asked."""
    for name, shortfalls in state.shortfalls.items():
        wanted, given = (sum(column) for column in zip(*shortfalls, strict=True))
        who = "1 trainer" if len(shortfalls) == 1 else f"{len(shortfalls)} trainers"
        state.note(f"policies.{name}: {who} asked for {wanted} documents and got {given}, since there are no more")
    state.shortfalls.clear()
