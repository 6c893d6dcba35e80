"""Build training sets: candidates from the live web, ledger rows, and archives."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import ARCHIVE, LEDGER
from ecosystem.draws import first_arrivals
from ecosystem.policies.base import gate
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State


def sample(state: State, trainer: Trainer) -> NDArray[np.int64]:
    """Draw a trainer's candidates from the live documents within its reach; return their ids, ascending.

    This is weighted sampling without replacement with one exponential key per document (Efraimidis & Spirakis 2006).
    Keys depend on document ids, not on positions in the table.
    """
    scrape, corpus = trainer.settings.scrape, state.corpus
    docs = corpus.live().doc
    if scrape.strategy == "reach":
        on_web = np.zeros(len(corpus), np.bool_)
        on_web[docs] = True
        docs = corpus.on_sites(state.web.reach(trainer.homes, scrape.links).tolist())
        docs = docs[on_web[docs]]
    t, site, weight = (corpus.array(name) for name in ("t", "site", "weight"))
    latest, now = state.t - trainer.settings.lag, state.t
    popularity = state.web.popularity() if scrape.strategy == "popularity" else None

    def eligible(block: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((t[block] <= latest) & (weight[block] > 0))

    def appeal(block: NDArray[np.int64]) -> NDArray[np.float64]:
        if scrape.strategy == "recent":
            return np.asarray(weight[block] * 0.5 ** ((now - t[block]) / scrape.half_life))
        return weight[block] if popularity is None else weight[block] * popularity[site[block]]

    stream = state.stream(f"trainers/{trainer.name}/scrape")
    return first_arrivals(docs, scrape.docs, stream, eligible, appeal, state.threads)


def ledger_rows(signed: pl.DataFrame, reader: pl.Expr | pl.Series) -> pl.DataFrame:
    """Convert a table that has passed a gate to ledger rows (columns of LEDGER)."""
    return signed.with_columns(reader=reader, document="doc", source="injected_from").select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


def archive(state: State, trainer: Trainer, kept: pl.DataFrame) -> pl.DataFrame:
    """Add the ``kept`` rows to a trainer's archive, thin it by its retention policies, and return its rows."""
    new = kept.with_columns(t=pl.lit(state.t, pl.Int32)).select(ARCHIVE.keys())
    own = pl.col("reader") == trainer.name
    # A document scraped again is stored once, with its latest step of acquisition.
    held = pl.concat([state.archive.filter(own), new]).unique(["document", "source"], keep="last", maintain_order=True)
    held = held.with_columns(doc=_archive_ids(held))
    signed = gate(held, state.policies(trainer.settings.retain or []), state.context(trainer.name))
    held = signed.filter(pl.col("verdict").is_null()).select(ARCHIVE.keys())
    state.archive = pl.concat([state.archive.filter(~own), held])
    scraped = held.filter(pl.col("source").is_null())
    scraped = scraped.hstack(state.corpus.rows(scraped["document"], ("synthetic", "depth")))
    injected = held.filter(pl.col("source").is_not_null()).with_columns(synthetic=pl.lit(False), depth=pl.lit(0.0))
    rows = pl.concat([scraped, injected], how="diagonal")
    return rows.with_columns(verdict=pl.lit(None), reason=pl.lit(None), added_by=pl.lit(None)).select(
        pl.col(name).cast(dtype) for name, dtype in LEDGER.items()
    )


def _archive_ids(held: pl.DataFrame) -> pl.Series:
    """Return unique ids of archive rows: those of web documents, and negative ones of injected rows."""
    return held.select(
        pl.when(pl.col("source").is_null()).then(pl.col("document")).otherwise(-1 - pl.col("document"))
    ).to_series()


def note_shortfalls(state: State) -> None:
    """Record one event for each adder that ran short, summed over trainers."""
    for name, shortfalls in state.shortfalls.items():
        wanted, given = (sum(column) for column in zip(*shortfalls, strict=True))
        who = "1 trainer" if len(shortfalls) == 1 else f"{len(shortfalls)} trainers"
        state.note(f"policies.{name}: {who} asked for {wanted} documents and got {given}, since there are no more")
    state.shortfalls.clear()
