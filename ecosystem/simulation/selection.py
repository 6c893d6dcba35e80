"""Build training sets: candidates from the live web, ledger rows, and archives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import ARCHIVE, LEDGER
from ecosystem.policies.base import gate
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State


@dataclass(frozen=True)
class LiveIndex:
    """The live documents indexed for scraping: columns as arrays, and the rows of each site."""

    doc: NDArray[np.int64]
    t: NDArray[np.int64]
    site: NDArray[np.int64]
    weight: NDArray[np.float64]
    order: NDArray[np.int64]  # rows sorted by site
    starts: NDArray[np.int64]  # where each site begins in `order`, [sites + 1]

    @classmethod
    def of(cls, live: pl.DataFrame, sites: int) -> LiveIndex:
        """Sort the rows of ``live`` (columns of the index) by site."""
        doc, t, site, weight = (live[name].to_numpy() for name in ("doc", "t", "site", "weight"))
        order = np.argsort(site, kind="stable")
        return cls(doc, t, site, weight, order, np.searchsorted(site[order], np.arange(sites + 1)))

    def on(self, sites: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows on these sites, in ascending order."""
        return np.sort(np.concatenate([self.order[self.starts[site] : self.starts[site + 1]] for site in sites]))


def sample(state: State, trainer: Trainer, index: LiveIndex) -> NDArray[np.int64]:
    """Draw a trainer's candidates from the live documents within its reach; return their rows.

    This is weighted sampling without replacement with one exponential key per document (Efraimidis & Spirakis 2006).
    Keys depend on document ids, not on positions in the table.
    """
    scrape = trainer.settings.scrape
    if scrape.strategy == "reach":
        rows = index.on(state.web.reach(trainer.homes, scrape.links).tolist())
    else:
        rows = np.arange(index.doc.size)
    rows = rows[(index.t[rows] <= state.t - trainer.settings.lag) & (index.weight[rows] > 0)]
    if len(rows) <= scrape.docs:
        return rows  # no draw needed
    appeal = index.weight[rows]
    if scrape.strategy == "recent":
        appeal = appeal * 0.5 ** ((state.t - index.t[rows]) / scrape.half_life)
    elif scrape.strategy == "popularity":
        appeal = appeal * state.web.popularity()[index.site[rows]]
    noise = state.stream(f"trainers/{trainer.name}/scrape").uniform(index.doc[rows])
    with np.errstate(divide="ignore"):
        arrival = -np.log(noise) / appeal
    chosen = np.argsort(arrival, kind="stable")[: scrape.docs]
    return rows[np.sort(chosen)]


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
    truth = state.corpus.index.select("synthetic", "depth", document="doc")
    scraped = held.filter(pl.col("source").is_null()).join(truth, on="document", how="left", maintain_order="left")
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
