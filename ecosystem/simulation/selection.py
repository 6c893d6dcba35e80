"""Build training sets: candidates from the live web, ledger rows, and archives."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import ARCHIVE, LEDGER
from ecosystem.draws import first_arrivals
from ecosystem.policies.base import gate
from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State

Pool = tuple[NDArray[np.int64], NDArray[np.float64] | None]
"""Ids of documents that may be scraped, ascending, and their appeal (None: 1 each)."""


class Pools(dict[tuple[str, int, float, bool], Pool]):
    """The pools of one moment, made on first use and shared by trainers.

    The keys are strategy, lag, half-life, and whether the trainer obeys sites that refuse crawlers.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state
        self._written: dict[str, NDArray[np.bool_]] = {}  # by population: which live documents are its own

    @cached_property
    def _populations(self) -> pl.Series:
        """The population of the author of every live document; "initial" for the documents of the opening."""
        authors = self._state.corpus.rows(self._state.corpus.live().doc, ("author",))["author"]
        return authors.str.strip_prefix("writers/").str.split("/").list.first()

    def written_by(self, population: str, docs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some live documents (ids, ascending) were written by a population."""
        if population not in self._written:
            self._written[population] = (self._populations == population).to_numpy()
        return self._written[population][np.searchsorted(self._state.corpus.live().doc, docs)]

    def __missing__(self, key: tuple[str, int, float, bool]) -> Pool:
        self[key] = pool = _pool(self._state, self._state.corpus.live().doc, *key)
        return pool


def readable(state: State, trainer: Trainer, docs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some documents that a trainer may read: all but those of sites that refuse its crawler."""
    return _not_refused(state, docs) if trainer.settings.scrape.obeys_robots else docs


def _not_refused(state: State, docs: NDArray[np.int64]) -> NDArray[np.int64]:
    refusing = state.refusing()
    return docs if refusing is None else docs[~refusing[state.corpus.array("site")[docs]]]


def _pool(state: State, docs: NDArray[np.int64], strategy: str, lag: int, half_life: float, obeys: bool) -> Pool:
    """Return those of live documents that a trainer with this lag may scrape, with their appeal."""
    docs = _not_refused(state, docs) if obeys else docs
    t, weight = state.corpus.array("t"), state.corpus.array("weight")
    if lag > 0 or len(docs) < len(t) or not (weight > 0).all():
        docs = docs[(t[docs] <= state.t - lag) & (weight[docs] > 0)]
    appeal = weight if len(docs) == len(weight) else weight[docs]
    if strategy == "recent":
        return docs, appeal * 0.5 ** ((state.t - t[docs]) / half_life)
    if strategy == "popularity":
        return docs, appeal * state.web.popularity()[state.corpus.array("site")[docs]]
    return docs, None if (appeal == 1.0).all() else appeal


def sample(state: State, trainer: Trainer, pools: Pools) -> NDArray[np.int64]:
    """Draw a trainer's candidates from the live documents within its reach; return their ids, ascending.

    This is weighted sampling without replacement with one exponential key per document (Efraimidis & Spirakis 2006).
    Keys depend on document ids, not on positions in the table. ``pools`` are shared by trainers that scrape at the same
    moment.
    """
    scrape = trainer.settings.scrape
    key = scrape.strategy, trainer.settings.lag, scrape.half_life, scrape.obeys_robots
    if scrape.strategy == "reach":
        docs = state.corpus.live_on(state.web.reach(trainer.homes, scrape.links).tolist())
        docs, appeal = _pool(state, docs, *key)
    else:
        docs, appeal = pools[key]
    stream = state.stream(f"trainers/{trainer.name}/scrape")
    if scrape.shares is None:
        return first_arrivals(docs, appeal, scrape.docs, stream, state.threads)
    chosen = []
    for population, quota in scrape.quotas().items():
        own = pools.written_by(population, docs)
        chosen.append(first_arrivals(docs[own], None if appeal is None else appeal[own], quota, stream, state.threads))
        if len(chosen[-1]) < quota:
            place = f"trainers.{trainer.population}.scrape.shares.{population}"
            state.shortfalls.setdefault(place, []).append((quota, len(chosen[-1])))
    return np.sort(np.concatenate(chosen))


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
    signed = gate(held, state.enforced(trainer.settings.retain or []), state.context(trainer.name))
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
    """Record one event for each adder or author that gave too few documents, summed over trainers."""
    for path, shortfalls in state.shortfalls.items():
        wanted, given = (sum(column) for column in zip(*shortfalls, strict=True))
        who = "1 trainer" if len(shortfalls) == 1 else f"{len(shortfalls)} trainers"
        state.note(f"{path}: {who} asked for {wanted} documents and got {given}, since there are no more")
    state.shortfalls.clear()
