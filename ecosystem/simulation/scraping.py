"""How a trainer finds candidates on the web: which documents it can see, and which of these it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.simulation.agents import Trainer
from ecosystem.simulation.state import State


@dataclass(frozen=True)
class LiveIndex:
    """The live documents as scrapers look through them: columns as arrays, and the rows of each site."""

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
    """Draw a trainer's candidates from the live documents it can see; return their rows.

    Weighted sampling without replacement with one keyed number per document (Efraimidis & Spirakis 2006,
    exponential keys): whether a document is drawn depends on no other document's position in the table.
    """
    scrape = trainer.settings.scrape
    if scrape.strategy == "reach":
        rows = index.on(state.web.reach(trainer.homes, scrape.links).tolist())
    else:
        rows = np.arange(index.doc.size)
    rows = rows[(index.t[rows] <= state.t - trainer.settings.lag) & (index.weight[rows] > 0)]
    if len(rows) <= scrape.docs:
        return rows  # all of them, whatever their noise
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
